/* keeper.c - the one process of ours that stays in a cluster with an SSH server: it keeps a dropbear running
 * on port 22 where there is to be one, starts one for each connection that comes over the API, and carries the
 * account's keys into root's file while the cluster runs.
 *
 * It is the reaper of all that is started by them: a first process that never waits for children is left no
 * dead ones by SSH.  It trusts nobody but root inside, and has no right that root inside has not.
 *
 * What always holds: there is one at most (SSH_LOCK); nothing that a client does makes it wait. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"
#include "model/limits.h"
#include "model/sshdir.h"
#include "ssh/ssh_priv.h"

#define DELAY_MOST_S 60 /* until a server that ended is started again; and how long is long */
#define CLIENTS_MAX  16U
#define HEARD_MAX                                                                                  \
        64U /* sessions over the API whose stderr is kept for what goes wrong before they begin */
#define ENV_MAX    (16U << 20) /* bytes of an environment: more than the kernel takes */
#define LINE_BYTES 512U
/* The list with its fingerprints, and the first byte. */
#define PACKET_MAX (LIMIT_SSH_KEYS_BYTES + LIMIT_SSH_KEYS * (SSH_PRINT_LEN + 2) + 2)

enum { AT_SIGNAL, AT_LISTEN, AT_LOG, AT_CLIENT };

struct keeper {
        struct pollfd p[AT_CLIENT + CLIENTS_MAX];
        int log; /* what all servers write to */
        char line[LINE_BYTES];
        size_t line_len;
        struct sessions *sessions;
        struct {
                pid_t pid;
                int fd; /* stderr of the session; 0: free */
        } heard[HEARD_MAX];
        bool listens;
        pid_t server; /* 0: none runs */
        time_t begun_s, due_s;
        int delay_s;
        char packet[PACKET_MAX + 1];
};

static time_t now_s(void)
{
        struct timespec t = { 0 };

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec;
}

/* ---- SSH_SOCKET ---- */

static struct sockaddr_un address(void)
{
        struct sockaddr_un a = { .sun_family = AF_UNIX };

        static_assert(sizeof SSH_SOCKET <= sizeof a.sun_path, "a path that fits");
        memcpy(a.sun_path, SSH_SOCKET, sizeof SSH_SOCKET);
        return a;
}

int ssh_find_keeper(void)
{
        const struct sockaddr_un a = address();
        AUTO(fd) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

        if (fd < 0 || connect(fd, (const struct sockaddr *) &a, sizeof a) < 0)
                return -errno;
        return fd_take(&fd);
}

union control {
        struct cmsghdr head;
        char space[CMSG_SPACE(SSH_CONNECT_FDS * sizeof(int))];
};

int ssh_say_connect(int fd, const int fds[SSH_CONNECT_FDS])
{
        char what = SSH_SAY_CONNECT;
        struct iovec iov = { &what, 1 };
        union control c = { 0 };
        struct msghdr m = { .msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = c.space,
                            .msg_controllen = sizeof c.space };
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);

        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(SSH_CONNECT_FDS * sizeof(int));
        memcpy(CMSG_DATA(h), fds, SSH_CONNECT_FDS * sizeof(int));
        return sendmsg(fd, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* What was sent with it; descriptors that were not asked for are closed.  Returns its bytes. */
static ssize_t receive(int fd, char *buf, size_t size, int fds[SSH_CONNECT_FDS])
{
        struct iovec iov = { buf, size };
        union control c = { 0 };
        struct msghdr m = { .msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = c.space,
                            .msg_controllen = sizeof c.space };
        ssize_t n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

        for (size_t i = 0; i < SSH_CONNECT_FDS; i++)
                fds[i] = -EBADF;
        for (struct cmsghdr *h = n < 0 ? NULL : CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
                if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS)
                        memcpy(fds, CMSG_DATA(h), h->cmsg_len - CMSG_LEN(0));
        return m.msg_flags & MSG_TRUNC ? -EMSGSIZE : n;
}

/* ---- dropbear ---- */

/* In a child: the signals of a program, not ours. */
static void become_plain(void)
{
        sigset_t none;

        (void) sigemptyset(&none);
        (void) signal(SIGPIPE, SIG_DFL);
        (void) sigprocmask(SIG_SETMASK, &none, NULL);
}

static void start_server(struct keeper *k)
{
        char port[16];
        char *const mode[] = { (char[]){ "-F" }, (char[]){ "-p" },         port,
                               (char[]){ "-P" }, (char[]){ SSH_PID_FILE }, NULL };
        pid_t pid = fork();

        if (pid == 0) {
                (void) snprintf(port, sizeof port, "%u", SSH_PORT);
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                become_plain();
                if (dup2(k->log, STDERR_FILENO) >= 0)
                        (void) ssh_exec_dropbear(mode, environ, NULL);
                _exit(127);
        }
        k->begun_s = now_s();
        k->server = pid > 0 ? pid : 0;
        k->due_s =
                k->begun_s + k->delay_s; /* of the next try, where there was no process to be had */
}

/* Its port may be the image's own server's: then it waits for that to end, more and more seldom. */
static void server_ended(struct keeper *k)
{
        time_t now = now_s();

        k->server = 0;
        if (now - k->begun_s > DELAY_MOST_S)
                k->delay_s = 1;
        k->due_s = now + k->delay_s;
        k->delay_s = k->delay_s * 2 < DELAY_MOST_S ? k->delay_s * 2 : DELAY_MOST_S;
}

/* NAME=VALUE and NUL, one after the other, of whoever connects. */
static char **read_env(int fd)
{
        struct stat st;
        size_t n = 0, i = 0;
        char *text, **env;

        if (fstat(fd, &st) < 0 || st.st_size <= 0 || st.st_size > (off_t) ENV_MAX)
                return NULL;
        text = malloc((size_t) st.st_size + 1);
        if (!text || lseek(fd, 0, SEEK_SET) < 0 ||
            fd_read_full(fd, text, (size_t) st.st_size) != st.st_size)
                return NULL;
        text[st.st_size] = '\0';
        for (const char *p = text; p < text + st.st_size; p += strlen(p) + 1)
                n++;
        env = calloc(n + 1, sizeof *env);
        for (char *p = text; env && p < text + st.st_size; p += strlen(p) + 1)
                env[i++] = p;
        return env;
}

static _Noreturn void serve_one(const struct keeper *k, const int fds[SSH_CONNECT_FDS])
{
        char *const mode[] = { (char[]){ "-i" }, NULL };
        struct err e = { 0 };
        char **env = read_env(fds[1]);

        become_plain();
        if (!env)
                (void) err_set(&e, -EINVAL, "the session's environment cannot be read");
        else if (dup2(fds[0], STDIN_FILENO) < 0 || dup2(fds[0], STDOUT_FILENO) < 0 ||
                 dup2(k->log, STDERR_FILENO) < 0)
                (void) err_errno(&e, -errno, "a socket as stdin");
        else
                (void) ssh_exec_dropbear(mode, env, &e);
        (void) dprintf(fds[2], "vmm-ssh: %s\n", e.msg);
        _exit(127);
}

/* ---- what a session is told ---- */

/* It has begun, or has ended. */
static void unhear(struct keeper *k, pid_t pid)
{
        for (size_t i = 0; i < HEARD_MAX; i++)
                if (k->heard[i].fd > 0 && k->heard[i].pid == pid) {
                        (void) fd_close(k->heard[i].fd);
                        k->heard[i].fd = 0;
                }
}

static void hear(struct keeper *k, pid_t pid, int err)
{
        for (size_t i = 0; i < HEARD_MAX; i++)
                if (k->heard[i].fd == 0) {
                        int fd = fcntl(err, F_DUPFD_CLOEXEC, 3);

                        k->heard[i].pid = pid;
                        k->heard[i].fd = fd > 0 ? fd : 0;
                        return;
                }
}

/* The one thing that is wrong with an image and looks like a wrong key. */
static void tell(struct keeper *k, const char *line)
{
        const char *text = strstr(line, "] ");
        pid_t pid = sessions_pid(line);
        char print[SSH_PRINT_LEN + 1];
        pid_t let_in;

        if (sessions_parse(line, &let_in, print))
                unhear(k, let_in);
        if (!text || !strstr(text, " must be owned by user or root"))
                return;
        for (size_t i = 0; i < HEARD_MAX; i++) {
                struct pollfd p = { .fd = k->heard[i].fd, .events = POLLOUT };

                if (p.fd > 0 && k->heard[i].pid == pid && poll(&p, 1, 0) == 1)
                        (void) dprintf(p.fd, "vmm-ssh: no key is taken: %s\n", text + 2);
        }
}

/* ---- what clients want ---- */

static void start_session(struct keeper *k, const int fds[SSH_CONNECT_FDS])
{
        pid_t pid;

        for (size_t i = 0; i < SSH_CONNECT_FDS; i++)
                if (fds[i] < 0)
                        return;
        pid = fork();
        if (pid == 0)
                serve_one(k, fds);
        if (pid > 0)
                hear(k, pid, fds[2]);
        if (pid < 0)
                (void) dprintf(fds[2], "vmm-ssh: fork: %s\n", strerror(errno));
}

static int take_keys(const struct keeper *k, const char *now, struct err *e)
{
        AUTO(free) char *old = NULL;
        int r = keys_apply(now, &old, e);

        if (r >= 0)
                sessions_end(k->sessions, old, now, k->server);
        return r;
}

static void on_client(struct keeper *k, struct pollfd *p)
{
        int fds[SSH_CONNECT_FDS];
        struct err e = { 0 };
        ssize_t n = receive(p->fd, k->packet, PACKET_MAX, fds);

        if (n > 0 && k->packet[0] == SSH_SAY_CONNECT) {
                start_session(k, fds);
        } else if (n > 0 && k->packet[0] == SSH_SAY_KEYS) {
                k->packet[n] = '\0';
                (void) take_keys(k, k->packet + 1, &e);
                e.msg[sizeof e.msg - 1] = '\0';
                (void) send(p->fd, e.msg, strlen(e.msg) + 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        }
        for (size_t i = 0; i < SSH_CONNECT_FDS; i++)
                (void) fd_close(fds[i]);
        p->fd = fd_close(p->fd);
}

/* Root inside, and nobody else.  One that says nothing keeps its place until others need it. */
static void on_listen(struct keeper *k)
{
        AUTO(fd) int fd = accept4(k->p[AT_LISTEN].fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        struct pollfd *at = &k->p[AT_CLIENT];
        struct ucred who = { .uid = 1 };
        socklen_t len = sizeof who;

        if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0 || who.uid != 0)
                return;
        for (size_t i = 0; i < CLIENTS_MAX && at->fd >= 0; i++)
                at = &k->p[AT_CLIENT + i];
        (void) fd_close(at->fd);
        *at = (struct pollfd){ .fd = fd_take(&fd), .events = POLLIN };
}

static void on_log(struct keeper *k)
{
        ssize_t n = read(k->p[AT_LOG].fd, k->line + k->line_len, sizeof k->line - 1 - k->line_len);
        char *p = k->line, *end;

        if (n <= 0)
                return;
        k->line_len += (size_t) n;
        k->line[k->line_len] = '\0';
        for (; (end = memchr(p, '\n', k->line_len - (size_t) (p - k->line))); p = end + 1) {
                *end = '\0';
                sessions_hear(k->sessions, p);
                tell(k, p);
        }
        k->line_len -= (size_t) (p - k->line);
        memmove(k->line, p, k->line_len);
        if (k->line_len == sizeof k->line - 1) /* nothing that we wait for is as long */
                k->line_len = 0;
}

static void on_signal(struct keeper *k)
{
        struct signalfd_siginfo si;
        pid_t pid;

        (void) !read(k->p[AT_SIGNAL].fd, &si, sizeof si);
        on_log(k); /* what it said comes before its end: its number may be another one's soon */
        while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
                sessions_forget(k->sessions, pid);
                unhear(k, pid);
                if (pid == k->server)
                        server_ended(k);
        }
}

/* ---- life ---- */

/* Milliseconds. */
static int wait_time(const struct keeper *k)
{
        time_t now = now_s();

        if (!k->listens || k->server > 0)
                return -1;
        return k->due_s <= now ? 0 : (int) (k->due_s - now) * 1000;
}

static int run(struct keeper *k, struct err *e)
{
        for (;;) {
                if (k->listens && k->server == 0 && k->due_s <= now_s())
                        start_server(k);
                if (poll(k->p, NELEM(k->p), wait_time(k)) < 0 && errno != EINTR)
                        return err_errno(e, -errno, "poll");
                if (k->p[AT_LOG].revents)
                        on_log(k);
                if (k->p[AT_SIGNAL].revents)
                        on_signal(k);
                for (size_t i = AT_CLIENT; i < NELEM(k->p); i++)
                        if (k->p[i].fd >= 0 && k->p[i].revents)
                                on_client(k, &k->p[i]);
                if (k->p[AT_LISTEN].revents)
                        on_listen(k);
        }
}

static int open_socket(struct err *e)
{
        const struct sockaddr_un a = address();
        AUTO(fd) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        if (fd < 0 || (unlink(SSH_SOCKET) < 0 && errno != ENOENT) ||
            bind(fd, (const struct sockaddr *) &a, sizeof a) < 0 || chmod(SSH_SOCKET, 0600) < 0 ||
            listen(fd, (int) CLIENTS_MAX) < 0)
                return err_errno(e, -errno, SSH_SOCKET);
        return fd_take(&fd);
}

static int open_all(struct keeper *k, struct err *e)
{
        sigset_t set;
        int log[2];

        for (size_t i = 0; i < NELEM(k->p); i++)
                k->p[i] = (struct pollfd){ .fd = -EBADF, .events = POLLIN };
        (void) sigemptyset(&set);
        (void) sigaddset(&set, SIGCHLD);
        k->sessions = sessions_new();
        if (!k->sessions || prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 ||
            signal(SIGPIPE, SIG_IGN) == SIG_ERR || sigprocmask(SIG_BLOCK, &set, NULL) < 0 ||
            (k->p[AT_SIGNAL].fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)) < 0 ||
            pipe2(log, O_CLOEXEC) < 0)
                return err_errno(e, -errno, "prepare the SSH server");
        k->p[AT_LOG].fd = log[0];
        k->log = log[1];
        if (fd_set_nonblock(log[0], true) < 0)
                return err_errno(e, -errno, "prepare the SSH server");
        k->p[AT_LISTEN].fd = open_socket(e);
        return k->p[AT_LISTEN].fd < 0 ? k->p[AT_LISTEN].fd : 0;
}

/* Nobody reads what we say, and where we were started is nobody's matter. */
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

/* 1: there is one already. */
static int take_lock(int *ret, struct err *e)
{
        AUTO(fd)
        int fd = open(SSH_LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

        if (fd < 0)
                return err_errno(e, -errno, SSH_LOCK);
        if (flock(fd, LOCK_EX | LOCK_NB) < 0)
                return errno == EWOULDBLOCK ? 1 : err_errno(e, -errno, SSH_LOCK);
        *ret = fd_take(&fd);
        return 0;
}

/* The one that is there is told. */
static int tell_keeper(const char *keys, struct err *e)
{
        AUTO(free) char *packet = str_fmt("%c%s", SSH_SAY_KEYS, keys ? keys : "");
        AUTO(fd) int fd = keys ? ssh_find_keeper() : -EBADF;
        char answer[sizeof e->msg];
        ssize_t n;

        if (!keys)
                return 0;
        if (fd < 0 || !packet)
                return err_errno(e, fd < 0 ? fd : -ENOMEM, SSH_SOCKET);
        if (send(fd, packet, strlen(packet), MSG_NOSIGNAL) < 0 ||
            (n = recv(fd, answer, sizeof answer - 1, 0)) <= 0)
                return err_set(e, -EPIPE, "the SSH server has ended");
        answer[n] = '\0';
        return *answer ? err_set(e, -EIO, "%s", answer) : 0;
}

int ssh_keep(bool listens, struct err *e)
{
        static struct keeper k; /* too large for a stack that a stranger sizes */
        const char *env = getenv(SSH_KEYS_ENV);
        AUTO(free) char *keys = str_dup(env);
        int lock = -EBADF, r;

        if (env && !keys)
                return err_set(e, -ENOMEM, "out of memory");
        (void) unsetenv(SSH_KEYS_ENV);
        r = take_lock(&lock, e);
        if (r != 0)
                return r < 0 ? r : tell_keeper(keys, e);
        k.listens = listens;
        k.delay_s = 1;
        r = open_all(&k, e);
        if (r >= 0)
                r = leave_stdio(e);
        if (r >= 0 && keys)
                (void) take_keys(&k, keys, NULL); /* whoever wants to know asks again */
        if (r >= 0)
                r = run(&k, e);
        (void) fd_close(lock);
        return r;
}
