/* slice_freeze.c - a group held still for a moment, so that what is looked at does not move.
 * Operation processes.
 *
 * v2 freezes groups by itself.  On v1 the freezer is a hierarchy that clusters do not sit in: their
 * processes are put into a group there for as long as it takes, and back to where we are afterwards.
 * Always: whoever is killed in between leaves a group that slice_thaw() finds by its name; it is called
 * before anything is frozen, and before anything is killed, because what is frozen on v1 does not even
 * die. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "engine/slice/slice_priv.h"

#define STEP_US    (US_PER_MS / 2)
#define PROCS_MOST 65536U
#define ROUNDS     64U /* of moving what was forked meanwhile */

static void rest(void)
{
        (void) nanosleep(&(struct timespec){ .tv_nsec = (long) (STEP_US * 1000) }, NULL);
}

static int has_text(int dir, const char *path, const char *want)
{
        AUTO(free) char *text = NULL;
        int r = fd_read_file(dir, path, 4096, &text, NULL);

        return r < 0 ? r : strstr(text, want) != NULL;
}

/* Ask for @value in @file until @state says @want. */
static int settle(int dir, const char *file, const char *value, const char *state, const char *want,
                  uint64_t deadline_us)
{
        for (;;) {
                /* v1 goes on with what it could not freeze only when it is told again */
                int r = fd_write_value(dir, file, value);

                if (r >= 0)
                        r = has_text(dir, state, want);
                if (r != 0)
                        return r < 0 ? r : 0;
                if (clock_mono_us() >= deadline_us)
                        return -ETIMEDOUT;
                rest();
        }
}

/* ---- v1 ---- */

/* "hvmm-<instance>-<name>" at the top of the freezer's hierarchy. */
static void v1_name(const struct slice_host *h, const char *name, char *buf, size_t size)
{
        (void) snprintf(buf, size, "%s-%s", h->group, name);
}

/* Where the freezer has this process; "" for the top. */
static int v1_home(char ret[static 256])
{
        AUTO(free) char *text = NULL;
        const char *at;
        int r = fd_read_file(AT_FDCWD, "/proc/self/cgroup", 65536, &text, NULL);

        if (r < 0)
                return r;
        at = strstr(text, ":freezer:/");
        if (!at)
                return -ENOTSUP;
        at += sizeof ":freezer:/" - 1;
        (void) snprintf(ret, 256, "%.*s", (int) strcspn(at, "\n"), at);
        return 0;
}

static int move_all(struct slice_host *h, const char *name, int to)
{
        AUTO(free) pid_t *pid = calloc(PROCS_MOST, sizeof *pid);
        int n = pid ? slice_pids(h, name, pid, PROCS_MOST, NULL) : -ENOMEM;

        for (int i = 0; i < n && i < (int) PROCS_MOST; i++) {
                char text[16];
                int r;

                (void) snprintf(text, sizeof text, "%d", (int) pid[i]);
                r = fd_write_value(to, "cgroup.procs", text);
                if (r < 0 && r != -ESRCH)
                        return r;
        }
        return n < 0 ? n : 0;
}

/* Every process of the group is in @to, or has ended. */
static int all_in(struct slice_host *h, const char *name, int to)
{
        AUTO(free) pid_t *pid = calloc(PROCS_MOST, sizeof *pid);
        AUTO(free) char *text = NULL;
        int n = pid ? slice_pids(h, name, pid, PROCS_MOST, NULL) : -ENOMEM, r;

        if (n < 0)
                return n;
        if (n > (int) PROCS_MOST)
                return -E2BIG;
        r = fd_read_file(to, "cgroup.procs", 1U << 20, &text, NULL);
        for (int i = 0; r >= 0 && i < n; i++) {
                char line[16];
                const char *at;

                (void) snprintf(line, sizeof line, "%d\n", (int) pid[i]);
                at = strstr(text, line);
                while (at && at != text && at[-1] != '\n')
                        at = strstr(at + 1, line);
                if (!at)
                        return 0;
        }
        return r < 0 ? r : 1;
}

static int freeze_v1(struct slice_host *h, const char *name, uint64_t deadline_us)
{
        char group[128];
        AUTO(fd) int dir = -EBADF;
        int r = 0;

        if (h->freezer < 0)
                return -ENOTSUP;
        v1_name(h, name, group, sizeof group);
        if (mkdirat(h->freezer, group, 0755) < 0 && errno != EEXIST)
                return -errno;
        dir = openat(h->freezer, group, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (dir < 0)
                return -errno;
        for (unsigned i = 0; i < ROUNDS && r == 0; i++) {
                r = move_all(h, name, dir);
                if (r >= 0) /* whoever is forked from now on is born frozen */
                        r = settle(dir, "freezer.state", "FROZEN", "freezer.state", "FROZEN",
                                   deadline_us);
                if (r >= 0)
                        r = all_in(h, name, dir);
        }
        return r < 0 ? r : r == 0 ? -EAGAIN : 0;
}

static int thaw_v1(struct slice_host *h, const char *name)
{
        char group[128], home[256];
        AUTO(fd) int dir = -EBADF, to = -EBADF;
        int r;

        if (h->freezer < 0)
                return 0;
        v1_name(h, name, group, sizeof group);
        dir = openat(h->freezer, group, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (dir < 0)
                return errno == ENOENT ? 0 : -errno;
        r = fd_write_value(dir, "freezer.state", "THAWED");
        if (r >= 0)
                r = v1_home(home);
        if (r < 0)
                return r;
        to = openat(h->freezer, *home ? home : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (to < 0)
                return -errno;
        for (unsigned i = 0; i < ROUNDS; i++) {
                if (unlinkat(h->freezer, group, AT_REMOVEDIR) == 0 || errno == ENOENT)
                        return 0;
                (void) move_all(h, name, to);
        }
        return 0; /* empty groups are nobody's trouble, and the next thaw takes it */
}

/* ---- both ---- */

int slice_freeze(struct slice_host *h, const char *name, uint64_t deadline_us, struct err *e)
{
        int r = slice_name_check(name, e);

        if (r < 0)
                return r;
        if (h->version == 1) {
                r = freeze_v1(h, name, deadline_us);
        } else {
                AUTO(fd)
                int dir = openat(h->hier[0].root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

                r = dir < 0 ? -errno
                            : settle(dir, "cgroup.freeze", "1", "cgroup.events", "frozen 1",
                                     deadline_us);
        }
        if (r >= 0)
                return 0;
        (void) slice_thaw(h, name, NULL);
        return err_errno(e, r, "hold its processes still");
}

int slice_thaw(struct slice_host *h, const char *name, struct err *e)
{
        char path[SLICE_PATH_MAX];
        int r = slice_name_check(name, e);

        if (r < 0)
                return r;
        r = h->version == 1
                    ? thaw_v1(h, name)
                    : fd_write_value(h->hier[0].root, slice_path(path, name, "cgroup.freeze"), "0");
        return r < 0 && r != -ENOENT ? err_errno(e, r, "let its processes go on") : 0;
}
