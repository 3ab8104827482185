/* claim.c - slots, CPUs, ports and GPUs of this machine, shared out among all engines on it.
 *
 * Runs in the engine and in its operations, which inherit the descriptors by fork.
 * Always: every change happens under one host-wide flock on a descriptor opened for that change
 * (claim_lock), so two processes never decide at once, and a killed one never keeps the others out. */
#include "engine/claim/claim.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "engine/claim/claim_priv.h"
#include "model/limits.h"

#define RUN_PARENT "/run"
#define RUN_DIR    "hypervisor-vmm"

uint64_t claim_now_us(void)
{
        struct timespec t;

        (void) clock_gettime(CLOCK_BOOTTIME, &t);
        return (uint64_t) t.tv_sec * US_PER_S + (uint64_t) t.tv_nsec / 1000;
}

int claim_lock(const struct claim_host *c, struct err *e)
{
        AUTO(fd) int fd = openat(c->dir, "lock", O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
        int r;

        if (fd < 0)
                return err_errno(e, -errno, "claims: open lock");
        do
                r = flock(fd, LOCK_EX);
        while (r < 0 && errno == EINTR);
        return r < 0 ? err_errno(e, -errno, "claims: lock") : fd_take(&fd);
}

int claim_name_check(const char *what, const char *name, struct err *e)
{
        size_t len = name ? strlen(name) : 0;

        if (len == 0 || len > CLAIM_NAME_MAX ||
            strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") != len)
                return err_set(e, -EINVAL, "%s '%.60s': 1 to %u of a-z, 0-9, - and _", what,
                               name ? name : "", CLAIM_NAME_MAX);
        return 0;
}

/* --- opening ------------------------------------------------------------------------------- */

/* Root's and nobody else's to write, or names in it mean nothing. */
static int open_run_dir(struct err *e)
{
        AUTO(fd) int run = open(RUN_PARENT, O_PATH | O_DIRECTORY | O_CLOEXEC);
        AUTO(fd) int fd = -EBADF;
        bool made;
        struct stat st;

        if (run < 0)
                return err_errno(e, -errno, "open %s", RUN_PARENT);
        made = mkdirat(run, RUN_DIR, 0755) == 0;
        if (!made && errno != EEXIST)
                return err_errno(e, -errno, "make %s/%s", RUN_PARENT, RUN_DIR);
        fd = openat(run, RUN_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0)
                return err_errno(e, -errno, "open %s/%s", RUN_PARENT, RUN_DIR);
        if (st.st_uid != 0 || st.st_mode & 0022)
                return err_set(e, -EPERM,
                               "%s/%s: must belong to root and be writable by nobody else",
                               RUN_PARENT, RUN_DIR);
        if (made && fchmod(fd, 0755) < 0) /* whatever the umask */
                return err_errno(e, -errno, "chmod %s/%s", RUN_PARENT, RUN_DIR);
        return fd_take(&fd);
}

static int open_sub(int dir, const char *name, struct err *e)
{
        int fd;

        if (mkdirat(dir, name, 0755) < 0 && errno != EEXIST)
                return err_errno(e, -errno, "claims: make %s", name);
        fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        return fd < 0 ? err_errno(e, -errno, "claims: open %s", name) : fd;
}

static int open_tables(struct claim_host *c, struct err *e)
{
        AUTO(fd) int lock = claim_lock(c, e);
        int r = lock;

        for (unsigned k = CLAIM_KIND_NONE + 1; r >= 0 && k < CLAIM_KIND_COUNT; k++) {
                r = claim_table_open(c->dir, k, &c->table[k], e);
                if (r >= 0)
                        r = claim_table_check(&c->table[k], e);
        }
        return r < 0 ? r : claim_reap(c, e);
}

int claim_open(const struct instance *inst, struct claim_host **ret, struct err *e)
{
        AUTO(claim_close) struct claim_host *c = NULL;
        int r = claim_name_check("instance", inst->id, e);

        if (r < 0)
                return r;
        c = calloc(1, sizeof *c);
        if (!c)
                return err_set(e, -ENOMEM, "out of memory");
        c->dir = c->instances = c->settings = c->gpus = c->alive = -EBADF;
        for (unsigned k = 0; k < CLAIM_KIND_COUNT; k++)
                c->table[k].dir = -EBADF;
        (void) snprintf(c->id, sizeof c->id, "%s", inst->id);

        if ((c->dir = open_run_dir(e)) < 0)
                return c->dir;
        if ((c->instances = open_sub(c->dir, "instances", e)) < 0)
                return c->instances;
        if ((c->settings = open_sub(c->dir, "settings", e)) < 0)
                return c->settings;
        if ((c->gpus = open_sub(c->dir, "gpus", e)) < 0)
                return c->gpus;
        if ((c->alive = claim_instance_lock(c->instances, c->id, inst->data_dir, e)) < 0)
                return c->alive;
        c->owner = getpid();
        r = open_tables(c, e);
        if (r < 0)
                return r;
        *ret = TAKE(c);
        return 0;
}

static int count_one(void *arg, const char *kind, uint32_t number, const char *cluster,
                     uint64_t generation)
{
        (void) arg;
        (void) kind;
        (void) number;
        (void) cluster;
        (void) generation;
        return -EEXIST; /* one is enough to know */
}

struct claim_host *claim_close(struct claim_host *c)
{
        if (!c)
                return NULL;
        if (c->alive >= 0 && c->owner == getpid() && c->table[CLAIM_KIND_SLOT].cell &&
            c->table[CLAIM_KIND_CPU].cell) {
                AUTO(fd) int lock = claim_lock(c, NULL);

                /* nothing held: no file has to say whose it is */
                if (lock >= 0 && claim_each(c, count_one, NULL) == 0)
                        (void) unlinkat(c->instances, c->id, 0);
        }
        for (unsigned k = 0; k < CLAIM_KIND_COUNT; k++)
                claim_table_done(&c->table[k]);
        (void) fd_close(c->alive);
        (void) fd_close(c->settings);
        (void) fd_close(c->gpus);
        (void) fd_close(c->instances);
        (void) fd_close(c->dir);
        free(c);
        return NULL;
}

/* --- claiming ------------------------------------------------------------------------------ */

int claim_rec_make(const struct claim_host *c, const char *cluster, uint64_t generation,
                   struct claim_rec *ret, struct err *e)
{
        int r = claim_name_check("cluster", cluster, e);

        if (r < 0)
                return r;
        *ret = (struct claim_rec){ .generation = generation };
        (void) snprintf(ret->instance, sizeof ret->instance, "%s", c->id);
        (void) snprintf(ret->cluster, sizeof ret->cluster, "%s", cluster);
        return 0;
}

bool claim_rec_same(const struct claim_rec *a, const struct claim_rec *b)
{
        return strcmp(a->instance, b->instance) == 0 && strcmp(a->cluster, b->cluster) == 0;
}

/* @n is held by @rec's cluster as @have says: carry the newer generation over, so that a late
 * release of the older one does not take it away. */
static int keep(struct claim_table *t, uint32_t n, const struct claim_rec *have,
                const struct claim_rec *rec, struct err *e)
{
        int r;

        if (have->generation > rec->generation)
                return err_set(e, -ESTALE,
                               "%s %u: held by generation %" PRIu64
                               " of cluster %s, newer than %" PRIu64,
                               claim_kind_name(t->kind), n, have->generation, rec->cluster,
                               rec->generation);
        if (have->generation == rec->generation)
                return 0;
        r = claim_table_take(t, n, rec, true);
        return r < 0 ? err_errno(e, r, "%s %u", claim_kind_name(t->kind), n) : 0;
}

/* The slot that this cluster holds, 0 when none; checked against its file. */
static uint32_t find_slot(struct claim_table *t, const struct claim_rec *rec,
                          struct claim_rec *ret_have)
{
        uint64_t hash = claim_hash(rec->instance, rec->cluster);

        for (uint32_t n = t->first; n <= t->last; n++)
                if (t->cell[n].holder == hash && claim_table_read(t, n, ret_have) == 0 &&
                    claim_rec_same(ret_have, rec))
                        return n;
        return 0;
}

int claim_slot(struct claim_host *c, const char *cluster, uint64_t generation, uint32_t *ret_slot,
               struct err *e)
{
        struct claim_table *t = &c->table[CLAIM_KIND_SLOT];
        struct claim_rec rec, have;
        AUTO(fd) int lock = -EBADF;
        uint32_t n;
        int r = claim_rec_make(c, cluster, generation, &rec, e);

        if (r < 0)
                return r;
        lock = claim_lock(c, e);
        if (lock < 0)
                return lock;
        n = find_slot(t, &rec, &have);
        if (n != 0) {
                r = keep(t, n, &have, &rec, e);
                if (r >= 0)
                        *ret_slot = n;
                return r;
        }
        do {
                n = claim_pick(t, claim_now_us());
                if (n == 0)
                        return err_set(e, -ENOSPC, "all %u slots of this machine are taken",
                                       LIMIT_SLOTS);
                r = claim_table_take(t, n, &rec, false);
        } while (r == -EEXIST); /* the index has learned of it: a smaller choice each time */
        if (r < 0)
                return err_errno(e, r, "claim slot %u", n);
        *ret_slot = n;
        return 0;
}

int claim_slot_while_free(struct claim_host *c, uint32_t slot, claim_free_fn *fn, void *arg,
                          struct err *e)
{
        AUTO(fd) int lock = claim_lock(c, e);
        struct claim_rec rec;

        if (lock < 0)
                return lock;
        if (claim_table_read(&c->table[CLAIM_KIND_SLOT], slot, &rec) != -ENOENT)
                return err_set(e, -EBUSY, "slot %u is taken", slot);
        return fn(arg, slot, e);
}

/* One CPU; 1 when it is newly taken, 0 when the cluster had it. */
static int claim_cpu(struct claim_table *t, uint32_t cpu, const struct claim_rec *rec,
                     struct err *e)
{
        struct claim_rec have;
        int r;

        if (cpu > t->last)
                return err_set(e, -EINVAL, "cpu %u: at most %u", cpu, t->last);
        r = claim_table_take(t, cpu, rec, false);
        if (r == 0)
                return 1;
        if (r != -EEXIST)
                return err_errno(e, r, "claim cpu %u", cpu);
        r = claim_table_read(t, cpu, &have);
        if (r < 0)
                return err_errno(e, r, "claim cpu %u: its claim file", cpu);
        if (claim_rec_same(&have, rec))
                return keep(t, cpu, &have, rec, e);
        return err_set(e, -EUSERS, "cpu %u is held by cluster %s of instance %s", cpu, have.cluster,
                       have.instance);
}

int claim_cpus(struct claim_host *c, const char *cluster, uint64_t generation, const uint32_t *cpus,
               size_t n, struct err *e)
{
        struct claim_table *t = &c->table[CLAIM_KIND_CPU];
        uint32_t taken[LIMIT_VCPU];
        size_t n_taken = 0;
        struct claim_rec rec;
        AUTO(fd) int lock = -EBADF;
        int r = claim_rec_make(c, cluster, generation, &rec, e);

        if (r < 0)
                return r;
        if (n > LIMIT_VCPU)
                return err_set(e, -EINVAL, "%zu CPUs: at most %u", n, LIMIT_VCPU);
        lock = claim_lock(c, e);
        if (lock < 0)
                return lock;
        for (size_t i = 0; r >= 0 && i < n; i++) {
                r = claim_cpu(t, cpus[i], &rec, e);
                if (r == 1)
                        taken[n_taken++] = cpus[i];
        }
        if (r >= 0)
                return 0;
        while (n_taken > 0)
                (void) claim_table_drop(t, taken[--n_taken], 0);
        return r;
}

static bool is_among(uint32_t number, const uint32_t *kept, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (kept[i] == number)
                        return true;
        return false;
}

int claim_keep(struct claim_host *c, enum claim_kind kind, const char *cluster,
               const uint32_t *kept, size_t n, struct err *e)
{
        struct claim_table *t = &c->table[kind];
        struct claim_rec rec, have;
        AUTO(fd) int lock = -EBADF;
        uint64_t hash;
        int r = claim_rec_make(c, cluster, 0, &rec, e);

        if (r < 0)
                return r;
        lock = claim_lock(c, e);
        if (lock < 0)
                return lock;
        hash = claim_hash(rec.instance, rec.cluster);
        for (uint32_t i = t->first; i <= t->last; i++) {
                if (t->cell[i].holder != hash || is_among(i, kept, n))
                        continue;
                r = claim_table_read(t, i, &have);
                if (r != -ENOENT && (r < 0 || !claim_rec_same(&have, &rec)))
                        continue;
                r = claim_table_drop(t, i, claim_now_us());
                if (r < 0)
                        return err_errno(e, r, "release %s %u", claim_kind_name(kind), i);
        }
        return 0;
}

int claim_cpus_keep(struct claim_host *c, const char *cluster, const uint32_t *cpus, size_t n,
                    struct err *e)
{
        return claim_keep(c, CLAIM_KIND_CPU, cluster, cpus, n, e);
}

int claim_release(struct claim_host *c, const char *cluster, uint64_t generation, struct err *e)
{
        struct claim_rec rec, have;
        AUTO(fd) int lock = -EBADF;
        uint64_t hash;
        int r = claim_rec_make(c, cluster, generation, &rec, e);

        if (r < 0)
                return r;
        lock = claim_lock(c, e);
        if (lock < 0)
                return lock;
        hash = claim_hash(rec.instance, rec.cluster);
        for (unsigned k = CLAIM_KIND_NONE + 1; k < CLAIM_KIND_COUNT; k++) {
                struct claim_table *t = &c->table[k];

                for (uint32_t n = t->first; k != CLAIM_KIND_PORT && n <= t->last; n++) {
                        if (t->cell[n].holder != hash)
                                continue;
                        r = claim_table_read(t, n, &have);
                        if (r != -ENOENT && /* a drop that was cut short */
                            (r < 0 || !claim_rec_same(&have, &rec) || have.generation > generation))
                                continue;
                        r = claim_table_drop(t, n, claim_now_us());
                        if (r < 0)
                                return err_errno(e, r, "release %s %u", claim_kind_name(k), n);
                }
        }
        return 0;
}

struct each {
        const struct claim_host *c;
        claim_each_fn *fn;
        void *arg;
};

static int each_gpu(void *arg, const char *uuid, const struct claim_rec *rec)
{
        const struct each *l = arg;

        (void) uuid;
        if (!rec || strcmp(rec->instance, l->c->id) != 0)
                return 0;
        return l->fn(l->arg, "gpu", 0, rec->cluster, rec->generation);
}

int claim_each(struct claim_host *c, claim_each_fn *fn, void *arg)
{
        int r = 0;

        for (unsigned k = CLAIM_KIND_NONE + 1; k < CLAIM_KIND_COUNT; k++) {
                const struct claim_table *t = &c->table[k];

                for (uint32_t n = t->first; r >= 0 && n <= t->last; n++) {
                        struct claim_rec rec;

                        if (t->cell[n].holder != 0 && claim_table_read(t, n, &rec) == 0 &&
                            strcmp(rec.instance, c->id) == 0)
                                r = fn(arg, claim_kind_name(k), n, rec.cluster, rec.generation);
                }
        }
        return r < 0 ? r : claim_gpu_walk(c, each_gpu, &(struct each){ c, fn, arg });
}
