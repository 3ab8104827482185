/* claim_gpu.c - GPUs of this machine, claimed by UUID: files in /run/hypervisor-vmm/gpus.
 *
 * Runs in the engine and in its operations, as claim.c does.  There are 64 at most, so there is no
 * index: the directory is the truth and the list.
 * Always: changed under the host-wide lock only; a file is complete when it is there. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/claim/claim_priv.h"
#include "model/limits.h"

#define NEW_FILE ".new"
#define UUID_MAX 64U

/* What the driver calls a GPU: safe as a file name. */
static bool uuid_ok(const char *s)
{
        static const char letters[] =
                "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";
        size_t len = s ? strlen(s) : 0;

        return len > 0 && len <= UUID_MAX && *s != '-' && strspn(s, letters) == len;
}

static int read_rec(int dir, const char *uuid, struct claim_rec *ret)
{
        AUTO(fd) int fd = openat(dir, uuid, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        char text[CLAIM_REC_MAX];
        ssize_t len;

        if (fd < 0)
                return -errno;
        len = fd_read_full(fd, text, sizeof text - 1);
        if (len < 0)
                return (int) len;
        text[len] = '\0';
        return claim_rec_parse(text, ret);
}

/* A complete file, to be linked or renamed to where it counts.  Never an old one written anew: a
 * process that was killed may have left it linked. */
static int make_new(int dir, const struct claim_rec *rec)
{
        char text[CLAIM_REC_MAX];
        int len = claim_rec_format(rec, text, sizeof text);
        AUTO(fd) int fd = -EBADF;

        if (len < 0)
                return len;
        if (unlinkat(dir, NEW_FILE, 0) < 0 && errno != ENOENT)
                return -errno;
        fd = openat(dir, NEW_FILE, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
        return fd < 0 ? -errno : fd_write_full(fd, text, (size_t) len);
}

/* All claims of one call are links to one file. */
static int take(int dir, const char *uuid, const struct claim_rec *rec)
{
        int r;

        if (linkat(dir, NEW_FILE, dir, uuid, 0) == 0)
                return 0;
        if (errno != ENOENT)
                return -errno;
        r = make_new(dir, rec);
        return r < 0 || linkat(dir, NEW_FILE, dir, uuid, 0) == 0 ? r : -errno;
}

static int replace(int dir, const char *uuid, const struct claim_rec *rec)
{
        int r = make_new(dir, rec);

        return r < 0 || renameat(dir, NEW_FILE, dir, uuid) == 0 ? r : -errno;
}

/* 1: newly taken; 0: the cluster had it. */
static int claim_one(int dir, const char *uuid, const struct claim_rec *rec, struct err *e)
{
        struct claim_rec have;
        int r;

        if (!uuid_ok(uuid))
                return err_set(e, -EINVAL, "gpu '%.80s': not a UUID of a GPU", uuid);
        r = take(dir, uuid, rec);
        if (r == 0)
                return 1;
        if (r != -EEXIST)
                return err_errno(e, r, "claim gpu %s", uuid);
        r = read_rec(dir, uuid, &have);
        if (r < 0)
                return err_errno(e, r, "claim gpu %s: its claim file", uuid);
        if (!claim_rec_same(&have, rec))
                return err_set(e, -EUSERS, "gpu %s is held by cluster %s of instance %s", uuid,
                               have.cluster, have.instance);
        if (have.generation > rec->generation)
                return err_set(e, -ESTALE,
                               "gpu %s: held by generation %" PRIu64
                               " of cluster %s, newer than %" PRIu64,
                               uuid, have.generation, rec->cluster, rec->generation);
        r = have.generation < rec->generation ? replace(dir, uuid, rec) : 0;
        return r < 0 ? err_errno(e, r, "claim gpu %s", uuid) : 0;
}

int claim_gpus(struct claim_host *c, const char *cluster, uint64_t generation, char *const *uuids,
               struct err *e)
{
        const char *taken[LIMIT_GPUS];
        size_t n_taken = 0;
        struct claim_rec rec;
        AUTO(fd) int lock = -EBADF;
        int r = claim_rec_make(c, cluster, generation, &rec, e);

        if (r < 0)
                return r;
        if (strv_len(uuids) > LIMIT_GPUS)
                return err_set(e, -EINVAL, "%zu GPUs: at most %u", strv_len(uuids), LIMIT_GPUS);
        lock = claim_lock(c, e);
        if (lock < 0)
                return lock;
        (void) unlinkat(c->gpus, NEW_FILE, 0); /* of one who was killed: it says something else */
        for (char *const *u = uuids; u && *u && r >= 0; u++) {
                r = claim_one(c->gpus, *u, &rec, e);
                if (r == 1)
                        taken[n_taken++] = *u;
        }
        (void) unlinkat(c->gpus, NEW_FILE, 0);
        if (r >= 0)
                return 0;
        while (n_taken > 0)
                (void) unlinkat(c->gpus, taken[--n_taken], 0);
        return r;
}

struct drop {
        const struct claim_host *c;
        const struct claim_rec *rec;
        char *const *uuids;
        bool others; /* those that are not among them */
        struct err *e;
};

static int drop_one(void *arg, const char *uuid, const struct claim_rec *have)
{
        const struct drop *d = arg;
        bool named = !d->uuids && !d->others;

        for (char *const *u = d->uuids; !named && u && *u; u++)
                named = str_eq(*u, uuid);
        if (named == d->others || !have || !claim_rec_same(have, d->rec) ||
            have->generation > d->rec->generation)
                return 0;
        if (unlinkat(d->c->gpus, uuid, 0) < 0 && errno != ENOENT)
                return err_errno(d->e, -errno, "release gpu %s", uuid);
        return 0;
}

static int drop(struct claim_host *c, const char *cluster, uint64_t generation, char *const *uuids,
                bool others, struct err *e)
{
        struct claim_rec rec;
        AUTO(fd) int lock = -EBADF;
        int r = claim_rec_make(c, cluster, generation, &rec, e);

        if (r < 0)
                return r;
        lock = claim_lock(c, e);
        if (lock < 0)
                return lock;
        return claim_gpu_walk(c, drop_one, &(struct drop){ c, &rec, uuids, others, e });
}

int claim_gpus_drop(struct claim_host *c, const char *cluster, uint64_t generation,
                    char *const *uuids, struct err *e)
{
        return drop(c, cluster, generation, uuids, false, e);
}

int claim_gpus_keep(struct claim_host *c, const char *cluster, char *const *uuids, struct err *e)
{
        return drop(c, cluster, UINT64_MAX, uuids, true, e);
}

int claim_gpu_walk(const struct claim_host *c, claim_gpu_walk_fn *fn, void *arg)
{
        int fd = openat(c->gpus, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *de;

        if (!dir) {
                r = -errno;
                (void) fd_close(fd);
                return r;
        }
        while (r >= 0 && (de = readdir(dir)) != NULL) {
                struct claim_rec rec;
                int got;

                if (!uuid_ok(de->d_name))
                        continue;
                got = read_rec(c->gpus, de->d_name, &rec);
                if (got != -ENOENT) /* released meanwhile */
                        r = fn(arg, de->d_name, got < 0 ? NULL : &rec);
        }
        (void) closedir(dir);
        return r < 0 ? r : 0;
}

struct elsewhere {
        const struct claim_host *c;
        char **uuids;
};

static int add_elsewhere(void *arg, const char *uuid, const struct claim_rec *rec)
{
        struct elsewhere *l = arg;

        /* unreadable means taken */
        return rec && str_eq(rec->instance, l->c->id) ? 0 : strv_push(&l->uuids, uuid);
}

int claim_gpus_elsewhere(const struct claim_host *c, char ***ret, struct err *e)
{
        struct elsewhere l = { .c = c };
        int r = claim_gpu_walk(c, add_elsewhere, &l);

        if (r < 0) {
                (void) strv_free(l.uuids);
                return err_errno(e, r, "claims: gpus");
        }
        *ret = l.uuids;
        return (int) strv_len(l.uuids);
}
