/* main.c - vmm-ssh: starts dropbear and sftp-server inside a cluster, with the host's loader and
 * libraries, whatever the image has of its own.
 *
 * Runs inside the cluster, as one of its processes, with its rights and nothing more; the engine shows
 * it and all that it needs at SSH_DIR, read-only.  Static, for it must run before there is a loader.
 *
 *   vmm-ssh connect    one connection on stdin and stdout, which may be pipes: a session of the API's
 *   vmm-ssh serve      a server on port 22, started again whenever it ends; no second one
 *   sftp-server        by this name, at SSH_SFTP: dropbear's subsystem
 *
 * The host key comes in text and dropbear wants its own form in a file: that is one in memory, which ends
 * with the process. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "model/sshdir.h"
#include "model/sshkey.h"

#define WINDOW                                                                                     \
        "1048576" /* bytes on their way to us in one channel: 24 KiB are slow over a distance */
#define ARGS_MAX     64U
#define NAME         "tensorone-ssh" /* abstract */
#define DELAY_MOST_S 60 /* until a server that ended is started again; and how long is long */

extern char **environ;

/* Become @program of SSH_DIR; returns only with an error. */
static int exec_program(const char *program, char *const *args, struct err *e)
{
        char *argv[ARGS_MAX + 8] = {
                (char[]){ SSH_LOADER }, (char[]){ "--inhibit-cache" }, (char[]){ "--library-path" },
                (char[]){ SSH_DIR },
                /* a name that is no path: nothing is to be found by it again */
                (char[]){ "--argv0" }
        };
        char name[64], path[128];
        size_t n = 5;

        (void) snprintf(name, sizeof name, "%s", program);
        (void) snprintf(path, sizeof path, SSH_DIR "/%s", program);
        argv[n++] = name;
        argv[n++] = path;
        for (size_t i = 0; i < ARGS_MAX && args[i]; i++)
                argv[n++] = args[i];
        argv[n] = NULL;
        (void) execve(SSH_DIR "/" SSH_LOADER, argv, environ);
        return err_errno(e, -errno, "exec " SSH_DIR "/" SSH_LOADER);
}

/* The host key as a file in memory that outlives an execve; its descriptor. */
static int open_host_key(struct err *e)
{
        char text[SSH_HOST_KEY_MAX + 1];
        uint8_t key[SSH_HOST_KEY_MAX];
        AUTO(fd) int fd = open(SSH_HOST_KEY, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        AUTO(fd) int mem = -EBADF;
        ssize_t n;
        int len;

        if (fd < 0)
                return err_errno(e, -errno, "open " SSH_HOST_KEY);
        n = fd_read_full(fd, text, sizeof text - 1);
        if (n < 0)
                return err_errno(e, (int) n, "read " SSH_HOST_KEY);
        len = sshkey_unbase64(text, (size_t) n, key, sizeof key);
        if (len < 0)
                return err_set(e, -EBADMSG, SSH_HOST_KEY " holds no host key");
        mem = memfd_create("host-key", 0);
        if (mem < 0)
                return err_errno(e, -errno, "a file in memory");
        len = fd_write_full(mem, key, (size_t) len);
        explicit_bzero(key, sizeof key);
        explicit_bzero(text, sizeof text);
        return len < 0 ? err_errno(e, len, "a file in memory") : fd_take(&mem);
}

/* Keys only; the server's environment, which is the cluster's, for those who log in.  @mode: further
 * words. */
static int exec_dropbear(char *const *mode, struct err *e)
{
        int key = open_host_key(e);
        char path[32];
        char *args[16] = { (char[]){ "-s" },   (char[]){ "-e" }, (char[]){ "-W" },
                           (char[]){ WINDOW }, (char[]){ "-r" }, path };
        size_t n = 6;

        if (key < 0)
                return key;
        (void) snprintf(path, sizeof path, "/proc/self/fd/%d", key);
        while (*mode && n + 1 < NELEM(args))
                args[n++] = *mode++;
        return exec_program("dropbear", args, e);
}

/* ---- one connection -------------------------------------------------------------------------- */

/* dropbear wants a socket, and a session has pipes: bytes from one to the other, both ways. */
struct way {
        int from, to;
        size_t start, end;
        bool ended; /* nothing more comes */
        bool shut;  /* and the other side has been told */
        char buf[65536];
};

static void way_read(struct way *w)
{
        ssize_t n = read(w->from, w->buf, sizeof w->buf);

        if (n < 0 && (errno == EINTR || errno == EAGAIN))
                return;
        w->start = 0;
        w->end = n > 0 ? (size_t) n : 0;
        w->ended = n <= 0;
}

static void way_write(struct way *w)
{
        ssize_t n = write(w->to, w->buf + w->start, w->end - w->start);

        if (n < 0 && (errno == EINTR || errno == EAGAIN))
                return;
        w->start += n > 0 ? (size_t) n : 0;
        if (n < 0) { /* nobody listens */
                w->start = w->end = 0;
                w->ended = true;
        }
}

static bool is_empty(const struct way *w)
{
        return w->start == w->end;
}

/* Until dropbear has closed its end and all that it said is out. */
static int pump(int sock, struct err *e)
{
        static struct way in, out; /* too large for a stack that a stranger sizes */

        in = (struct way){ .from = STDIN_FILENO, .to = sock };
        out = (struct way){ .from = sock, .to = STDOUT_FILENO };
        while (!out.ended || !is_empty(&out)) {
                struct pollfd p[] = {
                        { .fd = in.ended || !is_empty(&in) ? -1 : in.from, .events = POLLIN },
                        { .fd = is_empty(&in) ? -1 : in.to, .events = POLLOUT },
                        { .fd = out.ended || !is_empty(&out) ? -1 : out.from, .events = POLLIN },
                        { .fd = is_empty(&out) ? -1 : out.to, .events = POLLOUT },
                };

                if (poll(p, NELEM(p), -1) < 0 && errno != EINTR)
                        return err_errno(e, -errno, "poll");
                if (p[0].revents)
                        way_read(&in);
                if (p[1].revents)
                        way_write(&in);
                if (p[2].revents)
                        way_read(&out);
                if (p[3].revents)
                        way_write(&out);
                if (in.ended && is_empty(&in) && !in.shut) {
                        in.shut = true;
                        (void) shutdown(sock, SHUT_WR);
                }
        }
        return 0;
}

static int set_up(const int sock[2], struct err *e)
{
        if (fd_set_nonblock(sock[0], true) < 0 || fd_set_nonblock(STDOUT_FILENO, true) < 0 ||
            signal(SIGPIPE, SIG_IGN) == SIG_ERR)
                return err_errno(e, -errno, "prepare a connection");
        return 0;
}

static int connect_stdio(struct err *e)
{
        char *const mode[] = { (char[]){ "-i" }, NULL };
        int sock[2], status = 0, r;
        pid_t pid;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock) < 0)
                return err_errno(e, -errno, "a socket");
        pid = fork();
        if (pid < 0)
                return err_errno(e, -errno, "fork");
        if (pid == 0) {
                r = dup2(sock[1], STDIN_FILENO) < 0 || dup2(sock[1], STDOUT_FILENO) < 0
                            ? err_errno(e, -errno, "a socket as stdin")
                            : exec_dropbear(mode, e);
                (void) dprintf(STDERR_FILENO, "vmm-ssh: %s\n", e->msg);
                _exit(r < 0 ? 127 : 0);
        }
        (void) close(sock[1]);
        r = set_up(sock, e);
        if (r >= 0)
                r = pump(sock[0], e);
        (void) close(sock[0]); /* of a failure dropbear hears by this */
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                continue;
        if (r < 0)
                return r;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- a server -------------------------------------------------------------------------------- */

/* A name in the cluster's network that ends with its holder: there is one server. */
static int take_name(struct err *e)
{
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        const socklen_t len = sizeof a.sun_family + sizeof NAME;
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd < 0)
                return err_errno(e, -errno, "a socket");
        memcpy(a.sun_path + 1, NAME, sizeof NAME - 1);
        if (bind(fd, (const struct sockaddr *) &a, len) == 0)
                return fd; /* kept to the end */
        (void) close(fd);
        return errno == EADDRINUSE ? 0 : err_errno(e, -errno, "a name");
}

/* Nobody reads what we say. */
static int leave_stdio(struct err *e)
{
        AUTO(fd) int null = open("/dev/null", O_RDWR | O_CLOEXEC);

        if (null < 0 || chdir("/") < 0)
                return err_errno(e, -errno, "leave the session");
        for (int i = 0; i < 3; i++)
                if (dup2(null, i) < 0)
                        return err_errno(e, -errno, "leave the session");
        return 0;
}

static int run_server(struct err *e)
{
        char port[16];
        char *const mode[] = { (char[]){ "-F" }, (char[]){ "-p" },         port,
                               (char[]){ "-P" }, (char[]){ SSH_PID_FILE }, NULL };
        pid_t pid = fork();

        if (pid < 0)
                return err_errno(e, -errno, "fork");
        if (pid == 0) {
                (void) snprintf(port, sizeof port, "%u", SSH_PORT);
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                (void) exec_dropbear(mode, e);
                _exit(127);
        }
        while (waitpid(pid, NULL, 0) < 0)
                if (errno != EINTR)
                        return err_errno(e, -errno, "wait for dropbear");
        return 0;
}

/* Its port may be the image's own server's: then it waits for that to end, more and more seldom. */
static int serve(struct err *e)
{
        unsigned delay_s = 1;
        int r = take_name(e);

        if (r <= 0)
                return r;
        r = leave_stdio(e);
        while (r >= 0) {
                struct timespec begun, ended;

                (void) clock_gettime(CLOCK_MONOTONIC, &begun);
                r = run_server(e);
                (void) clock_gettime(CLOCK_MONOTONIC, &ended);
                if (ended.tv_sec - begun.tv_sec > DELAY_MOST_S)
                        delay_s = 1;
                (void) sleep(delay_s);
                delay_s = delay_s * 2 < DELAY_MOST_S ? delay_s * 2 : DELAY_MOST_S;
        }
        return r;
}

int main(int argc, char **argv)
{
        const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
        const char *name = slash ? slash + 1 : argc > 0 ? argv[0] : "";
        struct err e = { 0 };
        int r;

        if (str_eq(name, "sftp-server"))
                r = exec_program("sftp-server", argv + 1, &e);
        else if (argc == 2 && str_eq(argv[1], "connect"))
                r = connect_stdio(&e);
        else if (argc == 2 && str_eq(argv[1], "serve"))
                r = serve(&e);
        else
                r = err_set(&e, -EINVAL, "usage: vmm-ssh connect|serve");
        if (r >= 0)
                return r;
        (void) dprintf(STDERR_FILENO, "vmm-ssh: %s\n", e.msg);
        return 127;
}
