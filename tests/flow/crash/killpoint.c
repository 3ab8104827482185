/* killpoint.c - kills a program right before its n-th system call that changes something outside
 * itself.  For tests; root.
 *
 *     killpoint N|0 self|PID TRACEE...
 *
 * Follows every TRACEE (a process id) and what it forks.  Calls of the table below are counted over
 * all of them in the order in which they happen.  Before the N-th, `self` (the process that is about
 * to make it) or the process PID is killed with SIGKILL; the call does not happen in the first case,
 * and happens only after PID's death in the second.  N = 0 kills nobody.
 *
 * Prints "ready", then a line for each counted call, "<number> <pid> <program> <call>", then
 * "killed" when it did, and ends; or ends at SIGTERM.  Whoever is still followed runs on by itself.
 *
 * Not followed: what a cluster runs (it has another pid namespace once it has executed something),
 * and tensorone-api. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NELEM(a) (sizeof(a) / sizeof *(a))

#define FOLLOW                                                                                     \
        (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |  \
         PTRACE_O_TRACEEXEC)

/* Which descriptor decides whether a call counts, and by what. */
enum which { ALWAYS, ON_FILE, ON_LOOP, IF_CREATES };

#define C(name, which)                                                                             \
        {                                                                                          \
                SYS_##name, #name, which                                                           \
        }
static const struct {
        long nr;
        const char *name;
        enum which which;
} calls[] = {
        C(clone, ALWAYS),
        C(clone3, ALWAYS),
        C(execve, ALWAYS),
        C(execveat, ALWAYS),
        C(unshare, ALWAYS),
        C(setns, ALWAYS),
        C(mount, ALWAYS),
        C(umount2, ALWAYS),
        C(fsopen, ALWAYS),
        C(fsconfig, ALWAYS),
        C(fsmount, ALWAYS),
        C(move_mount, ALWAYS),
        C(open_tree, ALWAYS),
        C(mount_setattr, ALWAYS),
        C(pivot_root, ALWAYS),
        C(mkdirat, ALWAYS),
        C(renameat, ALWAYS),
        C(renameat2, ALWAYS),
        C(unlinkat, ALWAYS),
        C(linkat, ALWAYS),
        C(symlinkat, ALWAYS),
        C(mknodat, ALWAYS),
        C(fchownat, ALWAYS),
        C(fchown, ALWAYS),
        C(fchmod, ALWAYS),
        C(fchmodat, ALWAYS),
        C(ftruncate, ALWAYS),
        C(fallocate, ALWAYS),
        C(copy_file_range, ALWAYS),
        C(fsetxattr, ALWAYS),
        C(bind, ALWAYS),
        C(listen, ALWAYS),
        C(connect, ALWAYS),
        C(sendto, ALWAYS),
        C(sendmsg, ALWAYS),
        C(fsync, ALWAYS),
        C(fdatasync, ALWAYS),
        C(pwrite64, ALWAYS),
        C(setresuid, ALWAYS),
        C(setresgid, ALWAYS),
        C(kill, ALWAYS),
        C(pidfd_send_signal, ALWAYS),
        C(write, ON_FILE),
        C(ioctl, ON_LOOP),
        C(openat, IF_CREATES),
#ifdef SYS_mkdir
        C(mkdir, ALWAYS),
        C(rename, ALWAYS),
        C(unlink, ALWAYS),
        C(rmdir, ALWAYS),
        C(fork, ALWAYS),
        C(vfork, ALWAYS),
#endif
};

static void die(const char *what)
{
        (void) printf("failed %s: %s\n", what, strerror(errno));
        exit(2);
}

static void link_of(pid_t pid, const char *name, char *ret, size_t size)
{
        char path[64];
        ssize_t n;

        (void) snprintf(path, sizeof path, "/proc/%d/%s", (int) pid, name);
        n = readlink(path, ret, size - 1);
        ret[n < 0 ? 0 : n] = '\0';
}

static bool starts(const char *s, const char *with)
{
        return strncmp(s, with, strlen(with)) == 0;
}

/* A write counts when it goes to a cgroup, /proc, or a file: not into pipes and sockets. */
static bool is_file(pid_t pid, unsigned long long fd)
{
        char name[32], to[512];

        (void) snprintf(name, sizeof name, "fd/%llu", fd);
        link_of(pid, name, to, sizeof to);
        return to[0] == '/' && !starts(to, "/dev/");
}

static bool counts(pid_t pid, enum which which, const unsigned long long *args)
{
        switch (which) {
        case ALWAYS:
                return true;
        case ON_FILE:
                return is_file(pid, args[0]);
        case ON_LOOP: /* 'L': loop devices, 'X': ext4's shutdown */
                return ((args[1] >> 8) & 0xff) == 'L' || ((args[1] >> 8) & 0xff) == 'X';
        case IF_CREATES:
                return args[2] & (O_CREAT | O_TRUNC);
        }
        return false;
}

/* The name of the call that the stopped process is about to make, when it counts. */
static const char *counted_call(pid_t pid)
{
        struct __ptrace_syscall_info si;

        if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof si, &si) <= 0 ||
            si.op != PTRACE_SYSCALL_INFO_ENTRY)
                return NULL;
        for (size_t i = 0; i < NELEM(calls); i++) {
                unsigned long long args[6];

                if (calls[i].nr != (long) si.entry.nr)
                        continue;
                for (size_t k = 0; k < NELEM(args); k++)
                        args[k] = si.entry.args[k];
                return counts(pid, calls[i].which, args) ? calls[i].name : NULL;
        }
        return NULL;
}

static void comm_of(pid_t pid, char *ret, size_t size)
{
        char path[64];
        FILE *f;

        (void) snprintf(path, sizeof path, "/proc/%d/comm", (int) pid);
        f = fopen(path, "re");
        if (!f || !fgets(ret, (int) size, f))
                (void) snprintf(ret, size, "?");
        if (f)
                (void) fclose(f);
        ret[strcspn(ret, "\n")] = '\0';
        for (char *p = ret; *p; p++)
                if (*p == ' ')
                        *p = '-';
}

static bool is_ours(pid_t pid)
{
        char mine[64], its[64], exe[512];
        const char *slash;

        link_of(getpid(), "ns/pid", mine, sizeof mine);
        link_of(pid, "ns/pid", its, sizeof its);
        link_of(pid, "exe", exe, sizeof exe);
        slash = strrchr(exe, '/');
        if (!slash || starts(slash, "/tensorone-api"))
                return false;
        return strcmp(mine, its) == 0 || starts(slash, "/vmm-");
}

static unsigned long target, seen;
static pid_t victim; /* 0: whoever makes the call */

static bool is_zombie(pid_t pid)
{
        char path[64], text[512] = "";
        const char *end;
        FILE *f;

        (void) snprintf(path, sizeof path, "/proc/%d/stat", (int) pid);
        f = fopen(path, "re");
        if (f && !fgets(text, sizeof text, f))
                text[0] = '\0';
        if (f)
                (void) fclose(f);
        end = strrchr(text, ')');
        return end && strncmp(end, ") Z", 3) == 0;
}

/* Wait until @pid, which was sent a SIGKILL and may be followed by us, does nothing any more.  Its
 * threads are to be heard too; what others say at this point is lost, and they run on when we end. */
static void wait_dead(pid_t pid)
{
        int st;

        while (kill(pid, 0) == 0 && !is_zombie(pid)) {
                while (waitpid(-1, &st, __WALL | WNOHANG) > 0)
                        ;
                (void) usleep(200);
        }
}

/* True when it was the one. */
static bool on_call(pid_t pid)
{
        const char *name = counted_call(pid);
        char comm[32];

        if (!name)
                return false;
        comm_of(pid, comm, sizeof comm);
        (void) printf("%lu %d %s %s\n", ++seen, (int) pid, comm, name);
        if (seen != target)
                return false;
        if (kill(victim ? victim : pid, SIGKILL) < 0)
                die("kill");
        wait_dead(victim ? victim : pid);
        (void) printf("killed\n");
        return true;
}

/* One stop of one follower; true when all is done. */
static bool on_stop(pid_t pid, int st)
{
        int sig = WSTOPSIG(st), event = st >> 16;

        if (sig == (SIGTRAP | 0x80)) {
                if (on_call(pid))
                        return true;
                (void) ptrace(PTRACE_SYSCALL, pid, 0, 0);
        } else if (event == PTRACE_EVENT_EXEC && !is_ours(pid)) {
                (void) ptrace(PTRACE_DETACH, pid, 0, 0);
        } else if (event == PTRACE_EVENT_STOP && sig != SIGTRAP) {
                (void) ptrace(PTRACE_LISTEN, pid, 0, 0); /* stopped by a signal, and stays so */
        } else {
                (void) ptrace(PTRACE_SYSCALL, pid, 0, event || sig == SIGTRAP ? 0 : sig);
        }
        return false;
}

static void follow(const char *text)
{
        pid_t pid = atoi(text);

        if (ptrace(PTRACE_SEIZE, pid, 0, FOLLOW) < 0) {
                if (errno == ESRCH || is_zombie(pid)) /* a spare that has ended since */
                        return;
                die("seize");
        }
        if (ptrace(PTRACE_INTERRUPT, pid, 0, 0) < 0)
                die("interrupt");
}

int main(int argc, char **argv)
{
        sigset_t set;
        bool done = false;
        pid_t pid;
        int st;

        if (argc < 4) {
                (void) fprintf(stderr, "usage: killpoint N|0 self|PID TRACEE...\n");
                return 2;
        }
        (void) setvbuf(stdout, NULL, _IOLBF, 0);
        target = strtoul(argv[1], NULL, 10);
        victim = strcmp(argv[2], "self") == 0 ? 0 : atoi(argv[2]);
        (void) sigemptyset(&set);
        (void) sigaddset(&set, SIGCHLD);
        (void) sigaddset(&set, SIGTERM);
        (void) sigprocmask(SIG_BLOCK, &set, NULL);
        for (int i = 3; i < argc; i++)
                follow(argv[i]);
        (void) printf("ready\n");
        while (!done) {
                int sig;

                while (!done && (pid = waitpid(-1, &st, __WALL | WNOHANG)) > 0)
                        if (WIFSTOPPED(st))
                                done = on_stop(pid, st);
                if (done || (pid < 0 && errno == ECHILD))
                        break;
                if (sigwait(&set, &sig) == 0 && sig == SIGTERM)
                        break;
        }
        (void) printf("end\n");
        return 0; /* the kernel lets go of everybody */
}
