/* claim_instance.c - which engines run, which are gone for good, and taking back what those held.
 *
 * Runs in the engine at start.
 * Always: doubt means "alive".  An instance is dead only when its lock is free, its data directory
 * does not exist any more, and no process is left in any cgroup of its root group; then nothing of
 * it can come back, and its numbers are free. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/str.h"
#include "engine/claim/claim_priv.h"

#define PATH_FILE_MAX 4200U
#define MOUNTINFO_MAX (4U << 20)
#define GROUP_DEPTH   32
#define LOCK_WAIT_US  (3 * US_PER_S) /* a killed engine's operations die with it, at once */
#define LOCK_STEP_US  (10 * US_PER_MS)

/* --- the lock of a running engine ---------------------------------------------------------- */

/* First line of the file, without its end; "" for an empty file. */
static int read_data_dir(int fd, char *buf, size_t size)
{
        ssize_t n = pread(fd, buf, size - 1, 0);

        if (n < 0)
                return -errno;
        buf[n] = '\0';
        buf[strcspn(buf, "\n")] = '\0';
        return 0;
}

static bool is_dir(const char *path)
{
        struct stat st;

        return stat(path, &st) == 0 ? S_ISDIR(st.st_mode) : errno != ENOENT && errno != ENOTDIR;
}

/* Open and lock; the file may be reaped between the two, then it is made anew. */
static int open_locked(int instances, const char *id, uint64_t deadline_us, struct err *e)
{
        const struct timespec step = { .tv_nsec = (long) (LOCK_STEP_US * 1000) };

        for (;;) {
                AUTO(fd)
                int fd = openat(instances, id, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
                struct stat st;

                if (fd < 0)
                        return err_errno(e, -errno, "open instances/%s", id);
                if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
                        if (fstat(fd, &st) < 0)
                                return err_errno(e, -errno, "stat instances/%s", id);
                        if (st.st_nlink > 0)
                                return fd_take(&fd);
                        continue;
                }
                if (errno != EWOULDBLOCK && errno != EINTR)
                        return err_errno(e, -errno, "lock instances/%s", id);
                if (clock_mono_us() >= deadline_us)
                        return err_set(e, -EBUSY, "another engine runs as instance %s", id);
                (void) nanosleep(&step, NULL);
        }
}

int claim_instance_lock(int instances, const char *id, const char *data_dir, struct err *e)
{
        AUTO(fd) int fd = open_locked(instances, id, clock_mono_us() + LOCK_WAIT_US, e);
        char before[PATH_FILE_MAX], line[PATH_FILE_MAX];
        int n, r;

        if (fd < 0)
                return fd;
        n = snprintf(line, sizeof line, "%s\n", data_dir);
        if (n < 0 || (size_t) n >= sizeof line || strchr(data_dir, '\n'))
                return err_set(e, -EINVAL,
                               "data directory: the path is too long or has a line end");
        r = read_data_dir(fd, before, sizeof before);
        if (r < 0)
                return err_errno(e, r, "read instances/%s", id);
        if (str_eq(before, data_dir))
                return fd_take(&fd);
        if (before[0] && is_dir(before)) /* a copied directory would drive the same clusters */
                return err_set(
                        e, -EEXIST,
                        "instance %s is that of %s: a data directory may be moved, not copied", id,
                        before);
        if (pwrite(fd, line, (size_t) n, 0) != n || ftruncate(fd, n) < 0)
                return err_errno(e, errno ? -errno : -EIO, "write instances/%s", id);
        return fd_take(&fd);
}

/* --- is anything of it left? --------------------------------------------------------------- */

static bool group_busy(int parent, const char *name, int depth)
{
        int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        AUTO(fd) int procs = -EBADF;
        struct dirent *de;
        bool busy = false;
        char c;
        DIR *dir;

        if (fd < 0)
                return errno != ENOENT;
        procs = openat(fd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
        dir = fdopendir(fd);
        if (procs < 0 || !dir || depth <= 0 || read(procs, &c, 1) != 0)
                busy = true;
        while (!busy && (de = readdir(dir)) != NULL)
                if (de->d_type == DT_DIR && strcmp(de->d_name, ".") != 0 &&
                    strcmp(de->d_name, "..") != 0)
                        busy = group_busy(dirfd(dir), de->d_name, depth - 1);
        if (dir)
                (void) closedir(dir);
        else
                (void) fd_close(fd);
        return busy;
}

/* In every mounted hierarchy: a group may be half made or half entered. */
static bool groups_busy(const char *id)
{
        AUTO(free) char *text = NULL;
        char *save = NULL, group[CLAIM_NAME_MAX + 16];
        int r = fd_read_file(AT_FDCWD, "/proc/self/mountinfo", MOUNTINFO_MAX, &text, NULL);

        if (r < 0)
                return true;
        (void) snprintf(group, sizeof group, CLAIM_GROUP_PREFIX "%s", id);
        for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
                const char *tail = strstr(l, " - ");
                char path[256];
                AUTO(fd) int fd = -EBADF;

                if (!tail || (!str_after(tail, " - cgroup ") && !str_after(tail, " - cgroup2 ")))
                        continue;
                if (sscanf(l, "%*s %*s %*s %*s %255s", path) != 1)
                        return true;
                fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                if (fd < 0 || group_busy(fd, group, GROUP_DEPTH))
                        return true;
        }
        return false;
}

bool claim_instance_dead(const struct claim_host *c, const char *id)
{
        AUTO(fd) int fd = openat(c->instances, id, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        char dir[PATH_FILE_MAX];

        if (strcmp(id, c->id) == 0)
                return false;
        if (fd < 0)
                return errno == ENOENT && !groups_busy(id);
        if (flock(fd, LOCK_EX | LOCK_NB) < 0 || read_data_dir(fd, dir, sizeof dir) < 0)
                return false;
        return !(dir[0] && is_dir(dir)) && !groups_busy(id);
}

/* --- taking back --------------------------------------------------------------------------- */

/* Verdicts of this pass: asking once per instance is enough. */
struct verdicts {
        struct verdict {
                char id[CLAIM_NAME_MAX + 1];
                bool dead;
        } v[64];
        size_t n;
};

static bool dead(const struct claim_host *c, struct verdicts *known, const char *id)
{
        struct verdict *v;

        for (size_t i = 0; i < known->n; i++)
                if (strcmp(known->v[i].id, id) == 0)
                        return known->v[i].dead;
        if (known->n == NELEM(known->v))
                return false; /* the next start goes on */
        v = &known->v[known->n++];
        (void) snprintf(v->id, sizeof v->id, "%s", id);
        v->dead = claim_instance_dead(c, id);
        return v->dead;
}

/* Also those that hold nothing any more: their names would stay for ever. */
static void ask_all(const struct claim_host *c, struct verdicts *known)
{
        int fd = openat(c->instances, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *de;

        while (dir && (de = readdir(dir)) != NULL)
                if (de->d_name[0] != '.' && strlen(de->d_name) <= CLAIM_NAME_MAX)
                        (void) dead(c, known, de->d_name);
        if (dir)
                (void) closedir(dir);
        else
                (void) fd_close(fd);
}

struct reap {
        const struct claim_host *c;
        struct verdicts *known;
};

static int reap_gpu(void *arg, const char *uuid, const struct claim_rec *rec)
{
        const struct reap *l = arg;

        if (rec && strcmp(rec->instance, l->c->id) != 0 && dead(l->c, l->known, rec->instance))
                (void) unlinkat(l->c->gpus, uuid, 0);
        return 0;
}

int claim_reap(struct claim_host *c, struct err *e)
{
        struct verdicts known = { 0 };
        int r;

        for (unsigned k = CLAIM_KIND_NONE + 1; k < CLAIM_KIND_COUNT; k++) {
                struct claim_table *t = &c->table[k];

                for (uint32_t n = t->first; n <= t->last; n++) {
                        struct claim_rec rec;

                        if (t->cell[n].holder == 0 || claim_table_read(t, n, &rec) < 0)
                                continue;
                        if (strcmp(rec.instance, c->id) == 0 || !dead(c, &known, rec.instance))
                                continue;
                        r = claim_table_drop(t, n, claim_now_us());
                        if (r < 0)
                                return err_errno(e, r, "reap %s %u of instance %s",
                                                 claim_kind_name(t->kind), n, rec.instance);
                }
        }
        r = claim_gpu_walk(c, reap_gpu, &(struct reap){ c, &known });
        if (r < 0)
                return err_errno(e, r, "reap GPUs");
        r = claim_setting_reap(c, e);
        if (r < 0)
                return r;
        ask_all(c, &known);
        for (size_t i = 0; i < known.n; i++)
                if (known.v[i].dead)
                        (void) unlinkat(c->instances, known.v[i].id, 0);
        return 0;
}
