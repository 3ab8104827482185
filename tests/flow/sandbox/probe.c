/* probe.c - static; runs inside a sandbox and tries what must not work (and some that must).
 * usage: probe [NAME...]   prints "NAME ok" or "NAME <errno name>" per attempt; no NAME: all.
 * usage: probe spy FILE     for ever look into other processes; see spy()
 * Without a C library's help where a wrapper would hide what the kernel says. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static long t_unshare_user(void)
{
        return unshare(CLONE_NEWUSER);
}

static long t_clone_user(void)
{
        long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL);

        if (pid == 0)
                _exit(0);
        return pid;
}

static long t_clone3(void)
{
        struct clone_args a = { .exit_signal = SIGCHLD };
        long pid = syscall(SYS_clone3, &a, sizeof a);

        if (pid == 0)
                _exit(0);
        return pid;
}

static long t_setns(void)
{
        int fd = open("/proc/self/ns/net", O_RDONLY);

        return fd < 0 ? -1 : setns(fd, CLONE_NEWNET);
}

static long t_mount(void)
{
        return mount("none", "/tmp", "tmpfs", 0, NULL);
}

static long t_umount(void)
{
        return umount2("/proc", MNT_DETACH);
}

static long t_open_tree(void)
{
        return syscall(SYS_open_tree, AT_FDCWD, "/", 1);
}

static long t_mknod_char(void)
{
        return mknod("/tmp/node", S_IFCHR | 0666, makedev(1, 3));
}

static long t_mknod_fifo(void)
{
        (void) unlink("/tmp/fifo");
        return mknod("/tmp/fifo", S_IFIFO | 0666, 0);
}

static long t_keyctl(void)
{
        return syscall(SYS_keyctl, 0, -3, 0);
}

static long t_bpf(void)
{
        return syscall(SYS_bpf, 0, NULL, 0);
}

static long t_perf(void)
{
        return syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0);
}

static long t_userfaultfd(void)
{
        return syscall(SYS_userfaultfd, 1);
}

static long t_io_uring(void)
{
        return syscall(SYS_io_uring_setup, 1, NULL);
}

static long t_handle(void)
{
        return syscall(SYS_open_by_handle_at, AT_FDCWD, NULL, 0);
}

static long t_reboot(void)
{
        return syscall(SYS_reboot, 0, 0, 0, NULL);
}

static long t_sethostname(void)
{
        return sethostname("x", 1);
}

static long t_packet(void)
{
        return socket(AF_PACKET, SOCK_RAW, 0);
}

static long t_raw(void)
{
        return socket(AF_INET, SOCK_RAW, 1);
}

static long t_alg(void)
{
        return socket(AF_ALG, SOCK_SEQPACKET, 0);
}

static long t_vsock(void)
{
        return socket(40, SOCK_STREAM, 0);
}

static long t_audit(void)
{
        return socket(AF_NETLINK, SOCK_RAW, 9);
}

static long t_route(void)
{
        return socket(AF_NETLINK, SOCK_RAW, 0);
}

static long t_tiocsti(void)
{
        return ioctl(0, TIOCSTI, "x");
}

static long t_norandom(void)
{
        return personality(ADDR_NO_RANDOMIZE);
}

static long t_core_limit(void)
{
        struct rlimit l = { RLIM_INFINITY, RLIM_INFINITY };

        return setrlimit(RLIMIT_CORE, &l);
}

static long t_kcore(void)
{
        return open("/proc/kcore", O_RDONLY);
}

static long t_sysctl(void)
{
        return open("/proc/sys/kernel/msgmax", O_WRONLY);
}

static long t_sysrq(void)
{
        int fd = open("/proc/sysrq-trigger", O_WRONLY); /* /dev/null lies over it */
        struct stat st;

        if (fd < 0)
                return -1;
        if (fstat(fd, &st) == 0 && st.st_rdev == makedev(1, 3))
                errno = EPERM;
        return st.st_rdev == makedev(1, 3) ? -1 : 0;
}

static long t_sysfs(void)
{
        return open("/sys/kernel/uevent_seqnum", O_WRONLY);
}

static long t_cgroup(void)
{
        return open("/sys/fs/cgroup/cgroup.procs", O_WRONLY);
}

static long t_own_exe(void)
{
        return open("/proc/1/exe", O_WRONLY);
}

static long t_exec_mem(void)
{
        void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
                       -1, 0);

        return p == MAP_FAILED ? -1 : 0;
}

/* What a debugger does. */
static long t_ptrace(void)
{
        pid_t pid = fork();
        int status = 0;

        if (pid == 0) {
                if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
                        _exit(errno);
                (void) raise(SIGSTOP);
                _exit(7);
        }
        if (waitpid(pid, &status, 0) == pid && WIFEXITED(status))
                errno = WEXITSTATUS(status);
        if (!WIFSTOPPED(status) || ptrace(PTRACE_CONT, pid, NULL, NULL) < 0)
                return -1;
        return waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 7 ? 0 : -1;
}

/* Into a child of our own, as strace does with its long strings. */
static long t_vm_read(void)
{
        char from[4] = "abc", to[4] = "";
        struct iovec in = { to, sizeof to }, out = { from, sizeof from };
        pid_t pid = fork();
        int saved;
        long r;

        if (pid == 0) {
                (void) pause();
                _exit(0);
        }
        r = process_vm_readv(pid, &in, 1, &out, 1, 0);
        saved = errno;
        (void) kill(pid, SIGKILL);
        (void) waitpid(pid, NULL, 0);
        errno = saved;
        return r == sizeof to && strcmp(to, "abc") == 0 ? 0 : -1;
}

static long t_kcmp(void)
{
        return syscall(SYS_kcmp, getpid(), getpid(), 0 /* KCMP_FILE */, 0, 0);
}

static long t_getfd(void)
{
        int self = (int) syscall(SYS_pidfd_open, getpid(), 0);

        return self < 0 ? -1 : syscall(SYS_pidfd_getfd, self, 0, 0);
}

static long t_low_port(void)
{
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(80) };
        int fd = socket(AF_INET, SOCK_STREAM, 0);

        return fd < 0 || bind(fd, (struct sockaddr *) &a, sizeof a) < 0 ? -1 : listen(fd, 1);
}

/* The parent of everything here is nobody we can see. */
static long t_parent(void)
{
        errno = EEXIST;
        return getpid() == 1 && getppid() != 0 ? -1 : 0;
}

static long in_child(void (*fn)(void))
{
        pid_t pid = fork();
        int status = 0;

        if (pid == 0) {
                fn();
                _exit(0);
        }
        (void) waitpid(pid, &status, 0);
        errno = WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS ? EBADRQC : 0;
        return errno ? -1 : 0;
}

static void call_i386(void)
{
#ifdef __x86_64__
        long r = 20; /* getpid */

        __asm__ volatile("int $0x80" : "+a"(r) : : "memory", "r8", "r9", "r10", "r11");
#endif
}

static long t_i386(void)
{
        return in_child(call_i386);
}

static long t_x32(void)
{
        return syscall(0x40000000 + 39);
}

static const struct attempt {
        const char *name;
        long (*fn)(void);
} attempts[] = {
        { "unshare_user", t_unshare_user },
        { "clone_user", t_clone_user },
        { "clone3", t_clone3 },
        { "setns", t_setns },
        { "mount", t_mount },
        { "umount", t_umount },
        { "open_tree", t_open_tree },
        { "mknod_char", t_mknod_char },
        { "mknod_fifo", t_mknod_fifo },
        { "keyctl", t_keyctl },
        { "bpf", t_bpf },
        { "perf", t_perf },
        { "userfaultfd", t_userfaultfd },
        { "io_uring", t_io_uring },
        { "handle", t_handle },
        { "reboot", t_reboot },
        { "sethostname", t_sethostname },
        { "packet", t_packet },
        { "raw", t_raw },
        { "alg", t_alg },
        { "vsock", t_vsock },
        { "audit", t_audit },
        { "route", t_route },
        { "tiocsti", t_tiocsti },
        { "norandom", t_norandom },
        { "core_limit", t_core_limit },
        { "kcore", t_kcore },
        { "sysctl", t_sysctl },
        { "sysrq", t_sysrq },
        { "sysfs", t_sysfs },
        { "cgroup", t_cgroup },
        { "own_exe", t_own_exe },
        { "exec_mem", t_exec_mem },
        { "ptrace", t_ptrace },
        { "vm_read", t_vm_read },
        { "kcmp", t_kcmp },
        { "getfd", t_getfd },
        { "low_port", t_low_port },
        { "parent", t_parent },
        { "i386", t_i386 },
        { "x32", t_x32 },
};

/* One process: what opens, and whether it was still closed to us afterwards.  A process that is
 * being set up must be closed at every door until it has become the cluster's own program. */
static void look_into(int dir, FILE *out)
{
        static const char *const doors[] = { "fd", "environ", "mem", "maps", "root", "cwd" };
        char exe[256];
        ssize_t n;

        for (size_t i = 0; i < sizeof doors / sizeof doors[0]; i++) {
                int fd = openat(dir, doors[i], O_RDONLY | O_CLOEXEC);

                n = readlinkat(dir, "exe", exe, sizeof exe);
                if (n < 0 && errno == EACCES)
                        (void) fprintf(out, "%s\n", fd >= 0 ? doors[i] : "closed");
                else if (n > 0 && strncmp(exe, "/bin/", 5) != 0)
                        (void) fprintf(out, "exe %.*s\n", (int) n, exe);
                if (fd >= 0)
                        (void) close(fd);
        }
}

static void spy(const char *file)
{
        FILE *out = fopen(file, "we");
        DIR *proc = opendir("/proc");

        if (!out || !proc)
                exit(1);
        (void) setvbuf(out, NULL, _IONBF, 0);
        for (;;) {
                rewinddir(proc);
                for (struct dirent *d; (d = readdir(proc));) {
                        long pid = strtol(d->d_name, NULL, 10);
                        int dir;

                        if (pid <= 1 || pid == getpid())
                                continue;
                        dir = openat(dirfd(proc), d->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                        if (dir < 0)
                                continue;
                        look_into(dir, out);
                        (void) close(dir);
                }
        }
}

static int is_wanted(int argc, char **argv, const char *name)
{
        for (int i = 1; i < argc; i++)
                if (strcmp(argv[i], name) == 0)
                        return 1;
        return argc == 1;
}

int main(int argc, char **argv)
{
        (void) setvbuf(stdout, NULL, _IONBF, 0);
        if (argc > 2 && strcmp(argv[1], "spy") == 0)
                spy(argv[2]);
        if (argc > 1 && strcmp(argv[1], "ids") == 0) {
                (void) printf("uid %d euid %d gid %d egid %d\n", (int) getuid(), (int) geteuid(),
                              (int) getgid(), (int) getegid());
                return 0;
        }
        for (size_t i = 0; i < sizeof attempts / sizeof attempts[0]; i++) {
                long r;

                if (!is_wanted(argc, argv, attempts[i].name))
                        continue;
                errno = 0;
                r = attempts[i].fn();
                (void) printf("%s %s\n", attempts[i].name, r < 0 ? strerrorname_np(errno) : "ok");
        }
        return 0;
}
