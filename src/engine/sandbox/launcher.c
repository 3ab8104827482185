/* launcher.c - the process between an operation and a cluster's program: vmm-launch, which becomes
 * vmm-monitor.
 *
 *   operation                 launcher                      first process
 *   /dev, /dev/pts ...
 *   fork, execve ------------> enter the monitor's group
 *                              enter the network namespace; for an
 *                              exec session also its mounts, pids
 *                              clone3 ---------------------> new session
 *                              id map, oom score             (in parallel)
 *   <- CHILD pid, pidfd        wait
 *   GO -----------------------------------------------------> enter the group, /proc, /sys, masks
 *   <- READY -----------------------------------------------  wait
 *
 *   until here a shell; from here on perhaps another operation, for one cluster:
 *
 *   ORDER --------------------------------------------------> root, files, user, limits, rights
 *   <--------------------------------- EXEC, execve, and with it the end of file
 *   RUN ---------------------> drop everything, execve vmm-monitor
 *
 * Always holds: the operation decides and the launcher obeys, but an operation that is killed
 * leaves no half-built cluster, because both others watch their end of the socket; the same end of
 * file ends a shell that nobody holds any more.  The launcher stays root until the program runs:
 * killing the first process takes that. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/idmap.h"
#include "engine/sandbox/sandbox_priv.h"

/* A cluster goes before the host's own services when the host runs out of memory. */
#define OOM_SCORE "100"

/* Before the child: from here on it is found in one of two groups at every instant. */
static int enter_own_group(const struct launch *l, struct err *e)
{
        const struct slice_enter *s = l->place->monitor_slice;
        int r = s && s->v2_dir < 0 ? slice_enter_self(s) : 0;

        return r < 0 ? err_errno(e, r, "enter the monitor's group") : 0;
}

/* Where the launcher comes from, while it is away. */
struct origin {
        int mnt, net;
};

/* The namespaces that the child is born in, because entering them takes the host's rights.  A child
 * that joins a cluster is also seen by it from its first instant, and everybody may read another
 * process's mountinfo and net/ below /proc: so it must never have been in the host's. */
static int enter_for_child(const struct launch *l, struct origin *back, struct err *e)
{
        const bool join = l->join >= 0;

        if (!join && l->place->netns < 0)
                return 0;
        back->net = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        back->mnt = join ? open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC) : -EBADF;
        if (back->net < 0 || (join && back->mnt < 0))
                return err_errno(e, -errno, "open our namespaces");
        if (join && setns(l->join, CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET) < 0)
                return err_errno(e, -errno, "join the cluster's processes");
        if (!join && setns(l->place->netns, CLONE_NEWNET) < 0)
                return err_errno(e, -errno, "enter the network namespace");
        return 0;
}

/* Root and working directory become the host's / with it. */
static int leave(struct origin *back, struct err *e)
{
        int r = 0;

        if ((back->mnt >= 0 && setns(back->mnt, CLONE_NEWNS) < 0) ||
            (back->net >= 0 && setns(back->net, CLONE_NEWNET) < 0))
                r = err_errno(e, -errno, "leave the cluster's namespaces");
        back->mnt = fd_close(back->mnt);
        back->net = fd_close(back->net);
        return r;
}

static uint64_t child_flags(const struct launch *l)
{
        if (l->join >= 0)
                return 0;
        return CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS |
               (l->place->netns < 0 ? CLONE_NEWNET : 0);
}

/* The effective id, without losing capabilities to the change. */
static int set_euid(uid_t uid, struct err *e)
{
        struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct d[2];

        if (seteuid(uid) < 0 || syscall(SYS_capget, &h, d) < 0)
                return err_errno(e, -errno, "set the effective id");
        d[0].effective = d[0].permitted;
        d[1].effective = d[1].permitted;
        if (syscall(SYS_capset, &h, d) < 0)
                return err_errno(e, -errno, "keep capabilities");
        return 0;
}

/* The cluster's user namespace belongs to the monitor's id, which gives a process of that id the
 * right to signal what runs in it (the monitor's own filter leaves it nothing else to do there). */
static pid_t clone_child(const struct launch *l, int *pidfd, struct err *e)
{
        int r = l->join < 0 ? set_euid(l->place->monitor_uid, e) : 0;
        pid_t pid;

        if (r < 0)
                return r;
        pid = clone_into(child_flags(l), l->place->slice, pidfd);
        if (pid < 0)
                return err_errno(e, -errno, "make the cluster's namespaces");
        if (pid > 0 && l->join < 0)
                r = set_euid(0, e);
        return r < 0 ? r : pid;
}

static int make_child(struct launch *l, pid_t *pid, int *pidfd, struct err *e)
{
        struct origin back = { -EBADF, -EBADF }; /* a failure ends this process */
        int r = l->proc = confine_open_proc(e);

        if (r >= 0)
                r = enter_for_child(l, &back, e);
        if (r < 0)
                return r;
        *pid = clone_child(l, pidfd, e);
        if (*pid < 0)
                return *pid;
        if (*pid == 0)
                first_run(l);
        l->report = fd_close(l->report); /* its end is to be seen by the operation */
        return leave(&back, e);
}

/* The child waits for GO, which waits for this; meanwhile it moves into its group. */
static int bless_child(const struct launch *l, pid_t pid, struct err *e)
{
        AUTO(fd) int dir = -EBADF;
        char path[32];
        int r;

        (void) snprintf(path, sizeof path, "/proc/%d", (int) pid);
        dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0)
                return err_errno(e, -errno, "open %s", path);
        r = l->join < 0 ? idmap_write(dir, l->place->id_base) : 0; /* a session's has its map */
        if (r < 0)
                return err_errno(e, r, "map ids to %u", l->place->id_base);
        r = fd_write_value(dir, "oom_score_adj", OOM_SCORE);
        if (r < 0 && r != -EACCES) /* refused when ours is higher already: then it stays so */
                return err_errno(e, r, "oom_score_adj");
        return 0;
}

/* Nothing of the host's may be held while we wait, perhaps for hours. */
static int let_go(const struct launch *l, int pidfd, struct err *e)
{
        int keep[] = { l->up, l->program, pidfd };
        int r = fd_close_except(STDERR_FILENO + 1, keep, NELEM(keep));

        return r < 0 ? err_errno(e, r, "close descriptors") : 0;
}

/* Until an operation says RUN. */
static int await_run(const struct launch *l, struct note *n, int fds[static NOTE_FDS],
                     struct err *e)
{
        int r = note_recv(l->up, n, fds);

        if (r > 0 && n->type == NOTE_RUN)
                return 0;
        if (r > 0)
                note_close(fds);
        return err_set(e, -EPIPE, "the operation has ended");
}

/* "--name N", with the descriptor inherited. */
static int pass_fd(char ***argv, const char *name, int fd)
{
        char text[16];
        int r = fd > STDERR_FILENO ? fd_set_cloexec(fd, false) : -EBADF; /* those are /dev/null */

        (void) snprintf(text, sizeof text, "%d", fd);
        if (r >= 0)
                r = strv_push(argv, name);
        return r < 0 ? r : strv_push(argv, text);
}

static int monitor_argv(const struct launch *l, const struct note *run,
                        const int fds[static NOTE_FDS], pid_t pid, int pidfd, char ***argv)
{
        const struct {
                const char *name;
                int fd;
        } rows[] = {
                { "--pidfd", pidfd },
                { "--listen", fds[RUN_LISTEN] },
                { "--status", fds[RUN_STATUS] },
                { run->tty ? "--pty" : "--in", fds[RUN_IN] },
                { "--out", fds[RUN_OUT] },
                { "--err", fds[RUN_ERR] },
                { "--log0", fds[RUN_LOG0] },
                { "--log1", fds[RUN_LOG1] },
        };
        char number[16], rate[16], keep[16];
        const char *const plain[] = { "vmm-monitor", "--id",       run->cluster, "--pid",
                                      number,        "--log-rate", rate };
        int r = 0;

        (void) snprintf(number, sizeof number, "%d", (int) pid);
        (void) snprintf(rate, sizeof rate, "%u", run->log_rate);
        for (size_t i = 0; i < NELEM(plain) && r >= 0; i++)
                r = strv_push(argv, plain[i]);
        for (size_t i = 0; i < NELEM(rows) && r >= 0; i++)
                if (rows[i].fd >= 0)
                        r = pass_fd(argv, rows[i].name, rows[i].fd);
        if (r >= 0 && l->join >= 0)
                r = strv_push(argv, "--exec");
        (void) snprintf(keep, sizeof keep, "%u", run->keep_s);
        for (int i = 0; i < 2 && r >= 0 && run->keep_s > 0; i++)
                r = strv_push(argv, i == 0 ? "--keep" : keep);
        return r;
}

/* The engine's terminal, or the pipe of whoever started it, is nothing to hold on to. */
static int detach(struct err *e)
{
        AUTO(fd) int null = open("/dev/null", O_RDWR | O_CLOEXEC | O_NOCTTY);

        if (null < 0)
                return err_errno(e, -errno, "open /dev/null");
        for (int i = 0; i < 3; i++)
                if (dup2(null, i) < 0)
                        return err_errno(e, -errno, "/dev/null as descriptor %d", i);
        if (setsid() < 0 || chdir("/") < 0)
                return err_errno(e, -errno, "new session");
        confine_signals();
        (void) prctl(PR_SET_NAME, "hvmm-shell");
        return 0;
}

/* Give everything up and become vmm-monitor; comes back only with an error.  The operation does
 * not wait for this: a monitor that never came to be looks like one that was killed. */
static int become_monitor(const struct launch *l, const struct note *run,
                          const int fds[static NOTE_FDS], pid_t pid, int pidfd, struct err *e)
{
        AUTO(strv_free) char **argv = NULL;
        char *env[] = { NULL };
        int r = monitor_argv(l, run, fds, pid, pidfd, &argv);

        if (r < 0)
                return err_errno(e, r, "prepare vmm-monitor");
        r = confine_monitor(l->place->monitor_uid, e);
        if (r < 0)
                return err_wrap(e, r, "vmm-monitor");
        (void) syscall(SYS_execveat, l->program, "", argv, env, AT_EMPTY_PATH);
        return err_errno(e, -errno, "exec vmm-monitor");
}

/* Returns only on failure; *@pidfd is the child, when there is one. */
static int run(struct launch *l, int *pidfd, struct err *e)
{
        struct note child = { .type = NOTE_CHILD }, order = { .type = NOTE_NONE };
        int fds[NOTE_FDS], r = detach(e);

        if (r >= 0)
                r = enter_own_group(l, e);
        if (r >= 0)
                r = make_child(l, &child.pid, pidfd, e);
        if (r >= 0)
                r = bless_child(l, child.pid, e);
        if (r >= 0)
                r = let_go(l, *pidfd, e);
        if (r >= 0 && note_send(l->up, &child, pidfd, 1) < 0)
                r = err_set(e, -EPIPE, "the operation has ended");
        if (r >= 0)
                r = await_run(l, &order, fds, e);
        return r < 0 ? r : become_monitor(l, &order, fds, child.pid, *pidfd, e);
}

_Noreturn void launcher_run(struct launch *l)
{
        struct note n = { .type = NOTE_ERROR };
        int pidfd = -EBADF, r = prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);

        r = r < 0 ? err_errno(&n.err, -errno, "forbid core dumps") : run(l, &pidfd, &n.err);
        n.err.code = r;
        kill_wait(pidfd);
        (void) note_send(l->up, &n, NULL, 0);
        _exit(127);
}
