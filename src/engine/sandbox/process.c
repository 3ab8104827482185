/* process.c - making and ending processes; operation and launcher. */
#include <errno.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/sandbox/sandbox_priv.h"

pid_t clone_into(uint64_t flags, const struct slice_enter *s, int *pidfd)
{
        struct clone_args a = { .flags = flags | CLONE_PIDFD,
                                .pidfd = (uint64_t) (uintptr_t) pidfd,
                                .exit_signal = SIGCHLD };

        if (s && (s->v2_dir >= 0 || s->pressure > 0)) {
                a.flags |= CLONE_INTO_CGROUP;
                a.cgroup = (unsigned) (s->v2_dir >= 0 ? s->v2_dir : s->pressure);
        }
        return (pid_t) syscall(SYS_clone3, &a, sizeof a);
}

void kill_wait(int pidfd)
{
        struct pollfd gone = { .fd = pidfd, .events = POLLIN };

        if (pidfd < 0)
                return;
        (void) syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        while (poll(&gone, 1, -1) < 0 && errno == EINTR)
                ;
        /* -ECHILD: somebody else's child by now, who reaps it */
        (void) waitid(P_PIDFD, (id_t) pidfd, &(siginfo_t){ 0 }, WEXITED | WNOHANG);
}
