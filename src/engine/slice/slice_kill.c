/* slice_kill.c - what sits in a group, ending it, and taking the group away.
 *
 * Runs in operation processes.
 * Always: a signal goes only to a process that was seen in the group after its pidfd was opened,
 * so a pid that was given to somebody else meanwhile is never hit; waiting is on pidfds and
 * cgroup.events, bounded by the deadline.
 *
 * Theory of operation, v1: pids.max = 0 first, and from then on nothing inside can fork (root
 * inside cannot reach that file), so the number of processes only falls and each round of
 * read, open, read again, signal, wait ends some of them.  On v2 cgroup.kill does it at once. */
#include "engine/slice/slice.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "engine/slice/slice_priv.h"

#define DEPTH_MAX      32   /* groups that a nested container made; deeper is an error */
#define BATCH          128U /* pidfds at once, well below RLIMIT_NOFILE */
#define ROUND_US       (200 * US_PER_MS) /* one wait before looking again */
#define REMOVE_WAIT_US (2 * US_PER_S)    /* the kernel's last work for dead processes */
#define REMOVE_STEP_US US_PER_MS
#define PROCS_MAX      (64U << 20) /* bytes of one cgroup.procs */

/* --- walking ------------------------------------------------------------------------------- */

struct pid_list {
        pid_t *pid;
        size_t n, cap;
};

static int pid_push(struct pid_list *l, pid_t pid)
{
        if (l->n == l->cap) {
                size_t cap = l->cap ? l->cap * 2 : 64;
                pid_t *p = reallocarray(l->pid, cap, sizeof *p);

                if (!p)
                        return -ENOMEM;
                l->pid = p;
                l->cap = cap;
        }
        l->pid[l->n++] = pid;
        return 0;
}

static int read_procs(int dir, struct pid_list *l)
{
        AUTO(fd) int fd = openat(dir, "cgroup.procs", O_RDONLY | O_CLOEXEC);
        AUTO(strbuf_done) struct strbuf b = { 0 };
        char part[4096];
        ssize_t n;
        int r = 0;

        if (fd < 0)
                return -errno;
        while ((n = read(fd, part, sizeof part)) > 0 && b.len < PROCS_MAX)
                strbuf_add(&b, part, (size_t) n);
        if (n < 0)
                return errno == ENODEV ? 0 : -errno; /* removed meanwhile */
        if (b.failed)
                return -ENOMEM;
        for (char *p = b.s, *end; r >= 0 && p && *p; p = end) {
                long pid = strtol(p, &end, 10);

                if (end == p)
                        break;
                end += *end == '\n';
                if (pid > 0) /* 0: a process of an outer pid namespace, not ours to judge */
                        r = pid_push(l, (pid_t) pid);
        }
        return r;
}

/* Call @fn for @dir and every group below, children first. */
typedef int group_fn(void *arg, int parent, const char *name, int dir);

static int walk(int parent, const char *name, int depth, group_fn *fn, void *arg)
{
        int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), r = 0;
        struct dirent *de;
        struct stat st;
        DIR *dir;

        if (fd < 0)
                return errno == ENOENT || errno == ENODEV ? 0 : -errno;
        if (depth <= 0) {
                (void) fd_close(fd);
                return -ELOOP;
        }
        /* two links and no more: nothing below, the usual case, without listing forty files */
        if (fstat(fd, &st) == 0 && st.st_nlink == 2) {
                r = fn(arg, parent, name, fd);
                (void) fd_close(fd);
                return r;
        }
        dir = fdopendir(fd);
        if (!dir) {
                r = -errno;
                (void) fd_close(fd);
                return r;
        }
        while (r >= 0 && (de = readdir(dir)) != NULL)
                if (de->d_type == DT_DIR && strcmp(de->d_name, ".") != 0 &&
                    strcmp(de->d_name, "..") != 0)
                        r = walk(dirfd(dir), de->d_name, depth - 1, fn, arg);
        if (r >= 0)
                r = fn(arg, parent, name, dirfd(dir));
        (void) closedir(dir);
        return r;
}

static int collect(void *arg, int parent, const char *name, int dir)
{
        int r = read_procs(dir, arg);

        (void) parent;
        (void) name;
        return r == -ENODEV || r == -ENOENT ? 0 : r;
}

/* The hierarchy in which processes are counted and found: every process of a cluster enters all of
 * them, pids is where no fork escapes. */
static int pids_root(const struct slice_host *h)
{
        uint8_t at = h->at[SLICE_CTRL_PIDS];

        return h->hier[at == SLICE_NO_HIER ? 0 : at].root;
}

/* All processes of the group, in every hierarchy: one that died between two `tasks` writes, or was
 * moved by hand, may sit in one only. */
static int list_all(const struct slice_host *h, const char *name, struct pid_list *l)
{
        int r = walk(pids_root(h), name, DEPTH_MAX, collect, l);

        for (size_t i = 0; r >= 0 && l->n == 0 && i < h->n_hier; i++)
                if (h->hier[i].root != pids_root(h))
                        r = walk(h->hier[i].root, name, DEPTH_MAX, collect, l);
        return r;
}

int slice_pids(struct slice_host *h, const char *name, pid_t *ret, size_t max, struct err *e)
{
        struct pid_list l = { 0 };
        int r = slice_name_check(name, e);

        if (r < 0)
                return r;
        r = list_all(h, name, &l);
        if (r >= 0) {
                for (size_t i = 0; i < l.n && i < max; i++)
                        ret[i] = l.pid[i];
                r = (int) l.n;
        }
        free(l.pid);
        return r < 0 ? err_errno(e, r, "cgroup %s", name) : r;
}

/* --- killing ------------------------------------------------------------------------------- */

static int ms_until(uint64_t deadline_us, uint64_t at_most_us)
{
        uint64_t now = clock_mono_us(), left = deadline_us > now ? deadline_us - now : 0;

        if (left > at_most_us)
                left = at_most_us;
        return (int) ((left + US_PER_MS - 1) / US_PER_MS);
}

static bool in_list(const struct pid_list *l, pid_t pid)
{
        for (size_t i = 0; i < l->n; i++)
                if (l->pid[i] == pid)
                        return true;
        return false;
}

/* Signal up to BATCH of the listed processes and wait until they, or the round, have ended. */
static int kill_round(const struct slice_host *h, const char *name, const struct pid_list *first,
                      uint64_t deadline_us)
{
        struct pollfd fds[BATCH];
        pid_t pid[BATCH];
        struct pid_list again = { 0 };
        size_t n = 0, live;
        int r;

        for (size_t i = 0; i < first->n && n < BATCH; i++) {
                int fd = (int) syscall(SYS_pidfd_open, first->pid[i], 0);

                if (fd < 0)
                        continue; /* gone already */
                fds[n] = (struct pollfd){ .fd = fd, .events = POLLIN };
                pid[n++] = first->pid[i];
        }
        r = list_all(h, name, &again);
        for (size_t i = 0; r >= 0 && i < n; i++)
                if (in_list(&again, pid[i]))
                        (void) syscall(SYS_pidfd_send_signal, fds[i].fd, SIGKILL, NULL, 0);
        for (live = r < 0 ? 0 : n; live > 0;) {
                int ms = ms_until(deadline_us, ROUND_US), ready = poll(fds, (nfds_t) n, ms);

                if (ready < 0 && errno == EINTR)
                        continue;
                if (ready <= 0)
                        break;
                for (size_t i = 0; i < n; i++)
                        if (fds[i].fd >= 0 && fds[i].revents) {
                                fds[i].fd = fd_close(fds[i].fd);
                                live--;
                        }
        }
        for (size_t i = 0; i < n; i++)
                (void) fd_close(fds[i].fd);
        free(again.pid);
        return r;
}

static int stop_forks(void *arg, int parent, const char *name, int dir)
{
        int r = fd_write_value(dir, "pids.max", "0");

        (void) arg;
        (void) parent;
        (void) name;
        return r == -ENOENT || r == -ENODEV ? 0 : r;
}

static int kill_v1(const struct slice_host *h, const char *name, uint64_t deadline_us,
                   struct err *e)
{
        int r = walk(pids_root(h), name, DEPTH_MAX, stop_forks, NULL);

        if (r < 0)
                return err_errno(e, r, "cgroup %s: stop forks", name);
        for (;;) {
                struct pid_list l = { 0 };
                size_t left;

                r = list_all(h, name, &l);
                left = l.n;
                if (r >= 0 && left > 0 && clock_mono_us() < deadline_us)
                        r = kill_round(h, name, &l, deadline_us);
                free(l.pid);
                if (r < 0)
                        return err_errno(e, r, "cgroup %s: kill", name);
                if (left == 0)
                        return 0;
                if (clock_mono_us() >= deadline_us)
                        return err_set(e, -ETIMEDOUT, "cgroup %s: %zu processes do not die", name,
                                       left);
        }
}

static int kill_v2(const struct slice_host *h, const char *name, uint64_t deadline_us,
                   struct err *e)
{
        char path[SLICE_PATH_MAX];
        AUTO(fd)
        int events = openat(h->hier[0].root, slice_path(path, name, "cgroup.events"),
                            O_RDONLY | O_CLOEXEC);
        int r;

        if (events < 0)
                return errno == ENOENT ? 0 : err_errno(e, -errno, "cgroup %s: cgroup.events", name);
        r = fd_write_value(h->hier[0].root, slice_path(path, name, "cgroup.kill"), "1");
        if (r < 0)
                return r == -ENOENT ? 0 : err_errno(e, r, "cgroup %s: cgroup.kill", name);
        for (;;) {
                struct pollfd p = { .fd = events, .events = POLLPRI };
                char text[256];
                ssize_t n = pread(events, text, sizeof text - 1, 0);

                if (n < 0)
                        return errno == ENODEV ? 0 : err_errno(e, -errno, "cgroup %s", name);
                text[n] = '\0';
                if (strstr(text, "populated 0"))
                        return 0;
                if (clock_mono_us() >= deadline_us)
                        return err_set(e, -ETIMEDOUT, "cgroup %s: processes do not die", name);
                if (poll(&p, 1, ms_until(deadline_us, UINT64_MAX / 2)) < 0 && errno != EINTR)
                        return err_errno(e, -errno, "cgroup %s", name);
        }
}

int slice_kill(struct slice_host *h, const char *name, uint64_t deadline_us, struct err *e)
{
        int r = slice_name_check(name, e);

        if (r < 0)
                return r;
        if (h->version == 1)
                (void) slice_thaw(h, name, NULL); /* left by whoever was killed: it would not die */
        return h->version == 1 ? kill_v1(h, name, deadline_us, e)
                               : kill_v2(h, name, deadline_us, e);
}

/* --- removing ------------------------------------------------------------------------------ */

static int remove_one(void *arg, int parent, const char *name, int dir)
{
        (void) arg;
        (void) dir;
        return unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}

int slice_remove(struct slice_host *h, const char *name, struct err *e)
{
        uint64_t give_up = clock_mono_us() + REMOVE_WAIT_US;
        int r = slice_name_check(name, e);

        if (r < 0)
                return r;
        for (size_t i = 0; r >= 0 && i < h->n_hier;) {
                const struct timespec step = { .tv_nsec = (long) (REMOVE_STEP_US * 1000) };

                if (unlinkat(h->hier[i].root, name, AT_REMOVEDIR) == 0 || errno == ENOENT) {
                        i++;
                        continue;
                }
                r = errno == EBUSY || errno == ENOTEMPTY
                            ? walk(h->hier[i].root, name, DEPTH_MAX, remove_one, NULL)
                            : -errno;
                if (r >= 0)
                        continue; /* groups inside are gone: once more */
                if (r == -EBUSY && clock_mono_us() < give_up) {
                        (void) nanosleep(&step, NULL);
                        r = 0;
                }
        }
        return r < 0 ? err_errno(e, r, "remove cgroup %s", name) : 0;
}
