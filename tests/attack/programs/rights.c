/* rights.c - what a security profile gives and takes: capabilities, debuggers, low ports, a root that is
 * read-only.  Inside a cluster.  "NAME: ok" for what worked, else "NAME: ERRNO". */
#include "attack.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/kcmp.h>
#include <linux/securebits.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif
#define UDPLITE 136
#define MPTCP   262

static void result(const char *name, long r)
{
        printf("%s: %s\n", name, r >= 0 ? "ok" : strerrorname_np(errno));
}

/* ---- capabilities */

/* PATH gets the file capabilities of these bytes. */
int setcap(int argc, char **argv)
{
        unsigned char value[64];
        size_t n = 0;
        unsigned byte;

        (void) argc;
        for (const char *p = argv[1]; n < sizeof value && sscanf(p, "%2x", &byte) == 1; p += 2)
                value[n++] = (unsigned char) byte;
        result("setcap", setxattr(argv[0], "security.capability", value, n, 0));
        return 0;
}

/* Every capability into every set that takes it, and across an execve; what came of it is in the
 * status of the process that is then. */
int grow(int argc, char **argv)
{
        static char *const next[] = { "attack", "show", "/proc/self/status", NULL };
        struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };

        (void) argc, (void) argv;
        (void) prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP | SECBIT_NOROOT,
                     0, 0, 0);
        for (unsigned cap = 0; cap <= CAP_LAST_CAP; cap++) {
                struct __user_cap_data_struct d[2];

                if (syscall(SYS_capget, &h, d) < 0)
                        return 1;
                d[cap / 32].permitted |= 1U << cap % 32;
                d[cap / 32].effective |= 1U << cap % 32;
                d[cap / 32].inheritable |= 1U << cap % 32;
                if (syscall(SYS_capset, &h, d) < 0 && syscall(SYS_capget, &h, d) == 0) {
                        d[cap / 32].inheritable |= 1U << cap % 32;
                        (void) syscall(SYS_capset, &h, d);
                }
                (void) prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0);
        }
        (void) prctl(PR_SET_SECUREBITS, 0, 0, 0, 0);
        (void) execv("/proc/self/exe", next);
        return 1;
}

/* ---- debuggers */

static volatile long secret = 42;

static long vm(pid_t child, long nr)
{
        long word = 43;
        struct iovec mine = { &word, sizeof word }, theirs = { (void *) &secret, sizeof word };

        return syscall(nr, child, &mine, 1, &theirs, 1, 0);
}

static long by_pidfd(pid_t child)
{
        int fd = (int) syscall(SYS_pidfd_open, child, 0);

        return syscall(SYS_pidfd_getfd, fd, 0, 0);
}

static long by_proc(pid_t child, const char *name, int flags)
{
        char path[64];
        long word = 0;
        int fd;

        (void) snprintf(path, sizeof path, "/proc/%d/%s", (int) child, name);
        fd = open(path, flags | O_CLOEXEC);
        if (fd < 0)
                return -1;
        return flags == O_RDONLY ? pread(fd, &word, sizeof word, (off_t) (uintptr_t) &secret)
                                 : pwrite(fd, &word, sizeof word, (off_t) (uintptr_t) &secret);
}

static pid_t one_that_waits(void)
{
        pid_t child = fork();

        if (child == 0)
                for (;;)
                        (void) pause();
        return child;
}

static void end_of(pid_t child)
{
        int status;

        while (waitpid(child, &status, 0) == child && WIFSTOPPED(status))
                (void) ptrace(PTRACE_CONT, child, 0, 0);
}

static void end(pid_t child)
{
        (void) kill(child, SIGKILL);
        end_of(child);
}

/* Into children of its own, of the same user, in each way. */
int debug(int argc, char **argv)
{
        pid_t child = one_that_waits(), other = one_that_waits();

        (void) argc, (void) argv;
        result("process_vm_readv", vm(child, SYS_process_vm_readv));
        result("process_vm_writev", vm(child, SYS_process_vm_writev));
        result("pidfd_getfd", by_pidfd(child));
        result("kcmp", syscall(SYS_kcmp, getpid(), child, KCMP_VM, 0, 0));
        result("mem read", by_proc(child, "mem", O_RDONLY));
        result("mem written", by_proc(child, "mem", O_WRONLY));
        result("seize", ptrace(PTRACE_SEIZE, child, 0, 0));
        result("attach", ptrace(PTRACE_ATTACH, other, 0, 0));
        end(child);
        end(other);
        (void) fflush(stdout);
        child = fork(); /* by its parent, which is no stranger as ours is */
        if (child == 0) {
                result("traceme", ptrace(PTRACE_TRACEME, 0, 0, 0));
                (void) fflush(stdout);
                _exit(0);
        }
        end_of(child);
        return 0;
}

/* PROGRAM with its operands, traced from its first instruction on. */
int trace(int argc, char **argv)
{
        int status;
        pid_t child = fork();

        (void) argc;
        if (child == 0) {
                (void) ptrace(PTRACE_TRACEME, 0, 0, 0);
                (void) execv(argv[0], argv);
                _exit(127);
        }
        while (waitpid(child, &status, 0) == child && WIFSTOPPED(status))
                (void) ptrace(PTRACE_CONT, child, 0, 0);
        puts("traced");
        return 0;
}

/* ---- ports below 1024 */

static long listener(int family, int type, int protocol, bool ranged)
{
        struct sockaddr_in6 a6 = { .sin6_family = AF_INET6, .sin6_port = htons(80) };
        struct sockaddr_in a4 = { .sin_family = AF_INET, .sin_port = htons(80) };
        int fd = socket(family, type | SOCK_CLOEXEC, protocol), one = 1;
        uint32_t range = 81U << 16 | 80U;
        socklen_t len = sizeof a6;
        long r;

        if (fd < 0)
                return -1;
        (void) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        (void) setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &one, sizeof one);
        if (ranged) { /* the kernel chooses */
                if (setsockopt(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, &range, sizeof range) < 0)
                        return -1;
                a4.sin_port = a6.sin6_port = 0;
        }
        r = family == AF_INET ? bind(fd, (void *) &a4, sizeof a4)
                              : bind(fd, (void *) &a6, sizeof a6);
        if (r >= 0 && type == SOCK_STREAM)
                r = listen(fd, 1);
        if (r >= 0 && ranged) {
                (void) getsockname(fd, (void *) &a6, &len);
                if (ntohs(a6.sin6_port) >= 1024) { /* in the same place in both */
                        r = -1;
                        errno = ERANGE;
                }
        }
        (void) close(fd);
        return r;
}

int ports(int argc, char **argv)
{
        static const struct {
                const char *name;
                int type, protocol;
        } t[] = { { "tcp", SOCK_STREAM, 0 },
                  { "udp", SOCK_DGRAM, 0 },
                  { "udplite", SOCK_DGRAM, UDPLITE },
                  { "mptcp", SOCK_STREAM, MPTCP } };
        char name[32];

        (void) argc, (void) argv;
        for (size_t i = 0; i < NELEM(t); i++)
                for (int v6 = 0; v6 <= 1; v6++)
                        for (int ranged = 0; ranged <= 1; ranged++) {
                                (void) snprintf(name, sizeof name, "%s%s%s", t[i].name,
                                                v6 ? "6" : "", ranged ? " by range" : "");
                                result(name, listener(v6 ? AF_INET6 : AF_INET, t[i].type,
                                                      t[i].protocol, ranged));
                        }
        return 0;
}

/* ---- a root that is read-only: everything that changes a file, a name or what a file is called */

static long make(const char *path, int flags)
{
        return open(path, flags | O_CLOEXEC, 0666);
}

static long flags(const char *path)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        long v = FS_NODUMP_FL;

        return fd < 0 ? -1 : ioctl(fd, FS_IOC_SETFLAGS, &v);
}

static long mapped(const char *path)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        void *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);

        return p == MAP_FAILED ? -1 : mprotect(p, 4096, PROT_READ | PROT_WRITE);
}

/* FILE of the image, and DIR that it lies in. */
int rewrite(int argc, char **argv)
{
        const char *file = argv[0], *dir = argv[1];
        char other[300], around[300];

        (void) argc;
        (void) snprintf(other, sizeof other, "%.250s/new", dir);
        (void) snprintf(around, sizeof around, "/proc/self/root%.250s", file);
        result("write", make(file, O_WRONLY));
        result("write around", make(around, O_WRONLY));
        result("truncate", truncate(file, 0));
        result("create", make(other, O_WRONLY | O_CREAT | O_EXCL));
        result("unnamed", make(dir, O_WRONLY | O_TMPFILE));
        result("mkdir", mkdir(other, 0755));
        result("symlink", symlink("x", other));
        result("link", link(file, other));
        result("fifo", mkfifo(other, 0644));
        result("rename", rename(file, other));
        result("exchange", syscall(SYS_renameat2, AT_FDCWD, file, AT_FDCWD, dir, RENAME_EXCHANGE));
        result("unlink", unlink(file));
        result("rmdir", rmdir(dir));
        result("chmod", chmod(file, 0777));
        result("chown", chown(file, 1, 1));
        result("times", utimensat(AT_FDCWD, file, NULL, 0));
        result("xattr", setxattr(file, "user.x", "x", 1, 0));
        result("flags", flags(file));
        result("mapped", mapped(file));
        return 0;
}
