/* fetcher.c - see fetcher.h.  Operation processes: root, one thread.
 *
 * The child's way: clone3 into user, mount, pid, IPC and UTS namespaces of its own; wait until its
 * id range is mapped; become root of it; put the descriptors where model/fetchwire.h says; execveat
 * the program that was opened before.  Everything else it gives up by itself (fetch/ladder.c).
 * It dies with this process: parent-death signal, and the pipe it waits on closes the race before.
 */
#include "fetcher.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <grp.h>
#include <poll.h>

#include <linux/mount.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "engine/idmap.h"
#include "engine/image/image.h"
#include "fetchids.h"

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef OPEN_TREE_CLOEXEC
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif

#define TABLES_BYTES   (4ULL << 30) /* an index and its log, whatever the image's own limit is */
#define HEAR_READS     4
#define OUT_OF_THE_WAY 300 /* above all numbers that become() hands out */

static_assert(FETCH_FDS_MAX < OUT_OF_THE_WAY, "numbers of descriptors");

/* The staging directory as a detached mount that shows ids 0..65535 as the range. */
static int mount_dir(int dir_fd, uint32_t id_base, struct err *e)
{
        AUTO(fd) int userns = idmap_userns(id_base, e);
        AUTO(fd) int mnt = -EBADF;
        int r;

        if (userns < 0)
                return userns;
        mnt = (int) syscall(SYS_open_tree, dir_fd, "",
                            AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        if (mnt < 0)
                return err_errno(e, -errno, "cloning the mount of the staging directory");
        r = idmap_mount(mnt, userns, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, e);
        return r < 0 ? r : fd_take(&mnt);
}

/* The request in memory that only the two processes have. */
static int write_request(const struct fetch_request *req, struct err *e)
{
        AUTO(json_put) json_t *j = fetch_request_encode(req);
        AUTO(str_wipe_free) char *text = j ? jsonx_dump(j) : NULL;
        AUTO(fd) int fd = memfd_create("request", MFD_CLOEXEC);
        int r;

        if (!text)
                return err_set(e, -ENOMEM, "out of memory");
        if (fd < 0)
                return err_errno(e, -errno, "memfd");
        r = fd_write_full(fd, text, strlen(text));
        if (r < 0 || lseek(fd, 0, SEEK_SET) < 0)
                return err_errno(e, r < 0 ? r : -errno, "writing the request");
        return fd_take(&fd);
}

/* Its log is nobody's: it says everything in its result, and a fetcher that was taken over must not
 * write into ours.  Sanitizers report there. */
#if defined(__SANITIZE_ADDRESS__)
#define LOG_FD(null) STDERR_FILENO
#else
#define LOG_FD(null) (null)
#endif

struct child {
        const char *mode;
        int fds[FETCH_FDS_MAX]; /* what becomes descriptors 0, 1, ... */
        size_t n_fds;
        bool apart;
        int program, go;
        uint64_t max_file_bytes;
        const struct image_guard *guard; /* or NULL */
        const void *cell;
};

/* Descriptors to their numbers; sources are moved out of the way first. */
static int place_fds(struct child *c)
{
        int first_free = (int) c->n_fds;

        for (size_t i = 0; i < c->n_fds; i++) {
                c->fds[i] = fcntl(c->fds[i], F_DUPFD_CLOEXEC, OUT_OF_THE_WAY);
                if (c->fds[i] < 0)
                        return -1;
        }
        c->program = fcntl(c->program, F_DUPFD_CLOEXEC, OUT_OF_THE_WAY);
        if (c->program < 0)
                return -1;
        for (size_t i = 0; i < c->n_fds; i++)
                if (dup2(c->fds[i], (int) i) < 0)
                        return -1;
        if (dup3(c->program, first_free, O_CLOEXEC) < 0)
                return -1;
        return fd_close_from(first_free + 1);
}

/* In the child; says nothing but its exit status. */
static void __attribute__((noreturn)) become(struct child *c)
{
        char *const argv[] = { (char *) (uintptr_t) "vmm-fetch", (char *) (uintptr_t) c->mode,
                               NULL };
        char *const env[] = { NULL };
        struct rlimit fsize = { c->max_file_bytes, c->max_file_bytes };
        sigset_t none;
        char b;

        (void) sigemptyset(&none);
        if (c->guard && c->guard->enter(c->cell) < 0)
                _exit(124);
        if (read(c->go, &b, 1) != 1) /* until the ids are mapped; 0: the parent has gone */
                _exit(120);
        if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0 ||
            prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
                _exit(121);
        if (read(c->go, &b, 1) != 1) /* the signal is armed: whoever is alive now kills us later */
                _exit(120);
        (void) setrlimit(RLIMIT_FSIZE, &fsize); /* may be lower already */
        for (int sig = 1; sig < SIGRTMAX; sig++)
                (void) signal(sig, SIG_DFL);
        if (sigprocmask(SIG_SETMASK, &none, NULL) < 0 || setsid() < 0 || chdir("/") < 0 ||
            place_fds(c) < 0)
                _exit(122);
        (void) syscall(SYS_execveat, (int) c->n_fds, "", argv, env, AT_EMPTY_PATH);
        _exit(123);
}

static int map_ids(pid_t pid, uint32_t id_base, struct err *e)
{
        char path[32];
        AUTO(fd) int dir = -EBADF;
        int r;

        (void) snprintf(path, sizeof path, "/proc/%d", (int) pid);
        dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        r = dir < 0 ? -errno : idmap_write(dir, id_base);
        return r < 0 ? err_errno(e, r, "mapping the ids of vmm-fetch") : 0;
}

static int launch(struct fetcher *f, struct child *c, uint32_t id_base, struct err *e)
{
        struct clone_args args = {
                .flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS |
                         CLONE_PIDFD | (c->apart ? CLONE_NEWNET : 0),
                .exit_signal = SIGCHLD,
                .pidfd = (uintptr_t) &f->pidfd,
        };
        int go[2], r;
        long pid;

        if (pipe2(go, O_CLOEXEC) < 0)
                return err_errno(e, -errno, "pipe");
        pid = syscall(SYS_clone3, &args, sizeof args);
        if (pid == 0) {
                (void) close(go[1]);
                c->go = go[0];
                become(c);
        }
        r = pid < 0 ? err_errno(e, -errno, "starting vmm-fetch") : 0;
        (void) close(go[0]);
        if (r >= 0) {
                f->pid = (pid_t) pid;
                r = map_ids(f->pid, id_base, e);
        }
        if (r >= 0 && write(go[1], "12", 2) != 2)
                r = err_set(e, -EIO, "vmm-fetch died at its start");
        (void) close(go[1]);
        return r;
}

int fetcher_start(const struct instance *inst, const struct image_guard *guard,
                  const struct fetcher_spec *spec, struct fetcher *ret, struct err *e)
{
        AUTO(free) char *path = str_fmt("%s/vmm-fetch", inst->libexec);
        AUTO(fd) int program = -EBADF, req = -EBADF, mnt = -EBADF, null = -EBADF, out = -EBADF;
        uint32_t id_base = 0;
        int result[2], r;

        *ret = FETCHER_NONE;
        if (spec->n_extra > FETCH_FDS_MAX - FETCH_FD_FIRST_FREE)
                return err_set(e, -E2BIG, "%zu descriptors for vmm-fetch", spec->n_extra);
        if (!path)
                return err_set(e, -ENOMEM, "out of memory");
        program = open(path, O_RDONLY | O_CLOEXEC);
        if (program < 0)
                return err_errno(e, -errno, "%s", path);
        null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null < 0 || pipe2(result, O_CLOEXEC) < 0)
                return err_errno(e, -errno, "starting vmm-fetch");
        ret->result_fd = result[0];
        out = result[1];
        r = fd_set_nonblock(ret->result_fd, true);
        if (r < 0)
                return err_errno(e, r, "starting vmm-fetch");
        ret->inst = inst;
        ret->id_fd = fetchids_claim(inst, &id_base, e);
        if (ret->id_fd < 0)
                return ret->id_fd;
        r = guard ? guard->shut(guard->arg, id_base, &ret->cell, e) : 0;
        if (r < 0)
                return r;
        ret->guard = guard;
        req = write_request(spec->req, e);
        if (req < 0)
                return req;
        if (spec->dir_fd >= 0) {
                mnt = mount_dir(spec->dir_fd, id_base, e);
                if (mnt < 0)
                        return mnt;
        }
        struct child c = {
                .mode = spec->mode,
                .fds = { spec->input_fd >= 0 ? spec->input_fd : null, out, LOG_FD(null), req,
                         mnt >= 0 ? mnt : null },
                .n_fds = FETCH_FD_FIRST_FREE + spec->n_extra,
                .apart = spec->apart,
                .program = program,
                .max_file_bytes =
                        spec->req->max_bytes > TABLES_BYTES ? spec->req->max_bytes : TABLES_BYTES,
                .guard = guard,
                .cell = ret->cell,
        };
        for (size_t i = 0; i < spec->n_extra; i++)
                c.fds[FETCH_FD_FIRST_FREE + i] = spec->extra[i];
        return launch(ret, &c, id_base, e);
}

static void kill_now(struct fetcher *f)
{
        if (f->pidfd >= 0)
                (void) syscall(SYS_pidfd_send_signal, f->pidfd, SIGKILL, NULL, 0);
}

/* Wait for the end of the process; its whole pid namespace is gone after that. */
static int reap(struct fetcher *f, siginfo_t *ret)
{
        int r;

        do
                r = waitid(P_PIDFD, (id_t) f->pidfd, ret, WEXITED);
        while (r < 0 && errno == EINTR);
        f->pid = 0;
        return r < 0 ? -errno : 0;
}

/* Whoever closes its result without a word has a second left to live. */
static void wait_briefly(struct fetcher *f)
{
        struct pollfd p = { .fd = f->pidfd, .events = POLLIN };

        if (poll(&p, 1, 1000) != 1)
                kill_now(f);
}

static void breach(struct fetcher *f, const char *what)
{
        kill_now(f);
        if (f->pid > 0) {
                siginfo_t si;

                (void) reap(f, &si);
        }
        f->ended = true;
        f->done = false;
        (void) err_set(&f->err, -EPROTO, "vmm-fetch broke its protocol: %s", what);
}

static uint64_t number_of(const json_t *j, const char *key)
{
        json_int_t n = json_integer_value(json_object_get(j, key));

        return n > 0 ? (uint64_t) n : 0;
}

/* One line; what kind decides. */
static void take_line(struct fetcher *f, const char *text, size_t len)
{
        struct err e = { 0 };
        AUTO(json_put) json_t *j = jsonx_parse(text, len, &e);
        const char *type = jsonx_str(j, "type");

        if (!type || f->done) {
                breach(f, "a line that is not understood");
        } else if (str_eq(type, "progress")) {
                f->done_bytes = number_of(j, "done");
                f->unpacked_bytes = number_of(j, "unpacked");
        } else if (str_eq(type, "image") && !f->have_image) {
                f->have_image = fetch_image_decode(j, &f->image, &e) >= 0;
                if (!f->have_image)
                        breach(f, e.msg);
        } else if (str_eq(type, "done")) {
                f->done = true;
                f->unpacked_bytes = number_of(j, "unpacked");
        } else if (str_eq(type, "error")) {
                const char *msg = jsonx_str(j, "message");
                int code = (int) number_of(j, "errno");

                (void) err_set(&f->err, code > 0 && code < 4096 ? -code : -EIO, "%s",
                               msg ? msg : "?");
        } else {
                breach(f, "a line of an unknown type");
        }
}

/* Once, after the process has ended. */
static uint64_t leave_cell(struct fetcher *f)
{
        uint64_t short_of_memory = 0;

        if (f->guard)
                short_of_memory = f->guard->open(f->guard->arg, f->cell);
        f->guard = NULL;
        f->cell = NULL;
        return short_of_memory;
}

static void explain_death(struct fetcher *f, const siginfo_t *si, uint64_t short_of_memory,
                          uint64_t memory_bytes)
{
        bool exited = si->si_code == CLD_EXITED;

        if (exited && si->si_status >= 120)
                (void) err_set(&f->err, -EIO, "vmm-fetch could not be started (step %d)",
                               si->si_status - 120);
        else if (exited)
                (void) err_set(&f->err, -EIO, "vmm-fetch ended without an answer");
        else if (si->si_status == SIGSYS)
                (void) err_set(
                        &f->err, -EPERM,
                        "vmm-fetch was killed by its system call filter: this image tried to break out");
        else if (short_of_memory > 0)
                (void) err_set(
                        &f->err, -ENOMEM,
                        "unpacking it takes more than the %llu MiB of memory that are allowed",
                        (unsigned long long) (memory_bytes >> 20));
        else
                (void) err_set(&f->err, -EIO, "vmm-fetch died: %s", strsignal(si->si_status));
        f->killed = !exited && si->si_status == SIGKILL;
}

/* The stream has ended: so does the process, at once. */
static void finish(struct fetcher *f)
{
        uint64_t memory_bytes = f->guard ? f->guard->memory_bytes : 0, short_of_memory;
        bool told = f->done || f->err.code < 0;
        siginfo_t si = { 0 };

        /* It has said what it had to say, and nothing may linger.  One that said nothing is dead, or
         * is about to be: how it died tells why. */
        if (told)
                kill_now(f);
        wait_briefly(f);
        (void) reap(f, &si);
        f->ended = true;
        short_of_memory = leave_cell(f);
        if (!told)
                explain_death(f, &si, short_of_memory, memory_bytes);
}

void fetcher_hear(struct fetcher *f)
{
        char buf[65536];
        ssize_t n;

        /* whoever talks without a pause must not keep us from watching the clock and the disk */
        for (int i = 0; !f->ended && i < HEAR_READS; i++) {
                n = read(f->result_fd, buf, sizeof buf);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
                        return;
                if (n <= 0) {
                        finish(f);
                        return;
                }
                strbuf_add(&f->in, buf, (size_t) n);
                for (char *nl; !f->ended && f->in.len > 0 &&
                               (nl = memchr(f->in.s, '\n', f->in.len)) != NULL;) {
                        size_t len = (size_t) (nl - f->in.s);

                        take_line(f, f->in.s, len);
                        strbuf_drop_front(&f->in, len + 1);
                }
                if (!f->ended && (f->in.failed || f->in.len > FETCH_LINE_MAX))
                        breach(f, "a line that is too long");
        }
}

void fetcher_end(struct fetcher *f)
{
        siginfo_t si;

        if (f->pid > 0) {
                kill_now(f);
                (void) reap(f, &si);
        }
        (void) leave_cell(f); /* before its ids are anybody's */
        f->pidfd = fd_close(f->pidfd);
        f->result_fd = fd_close(f->result_fd);
        f->id_fd = fetchids_release(f->inst, f->id_fd);
        strbuf_done(&f->in);
        fetch_image_done(&f->image);
        f->have_image = false;
}
