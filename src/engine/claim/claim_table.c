/* claim_table.c - numbers that one cluster may hold: a directory of files, and an index of it.
 *
 * Runs in the engine and its operations, of all instances on this machine.
 * Always: a claim is there exactly when its file is there, and a file is complete when it is there.
 *
 * Theory of operation: the files are the truth and readable by a person; looking for a free number
 * or for a cluster's number among 4,094 files would cost a millisecond, so `.index`, mapped by every
 * process, has 16 bytes per number.  It is changed under the host-wide lock only, in the order
 * "file appears, then index says taken" and "index says free, then file goes": a process killed
 * anywhere leaves at worst a file that the index does not know, and the next one to try that number
 * runs into the file and mends the index. */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/claim/claim_priv.h"
#include "model/limits.h"

#define NEW_FILE   ".new"
#define INDEX_FILE ".index"
#define UNKNOWN    1U /* holder of a file that cannot be read: taken, by nobody we know */

static const struct kind_row {
        const char *name, *dir;
        uint32_t first, last;
} kind_rows[CLAIM_KIND_COUNT] = {
        [CLAIM_KIND_SLOT] = { "slot", "slots", 1, LIMIT_SLOTS },
        [CLAIM_KIND_CPU] = { "cpu", "cpus", 0, 8191 },
        [CLAIM_KIND_PORT] = { "port", "ports", 1, UINT16_MAX },
};

const char *claim_kind_name(enum claim_kind k)
{
        return kind_rows[k].name;
}

/* --- records ------------------------------------------------------------------------------- */

int claim_rec_format(const struct claim_rec *r, char *buf, size_t size)
{
        int n = snprintf(buf, size, "%s %s %" PRIu64 "\n", r->instance, r->cluster, r->generation);

        return n < 0 || (size_t) n >= size ? -EINVAL : n;
}

int claim_rec_parse(const char *text, struct claim_rec *ret)
{
        struct claim_rec r = { 0 };
        char number[24];
        int r2;

        static_assert(CLAIM_NAME_MAX == 40, "the widths below");
        if (sscanf(text, "%40[a-z0-9_-] %40[a-z0-9_-] %20[0-9]\n", r.instance, r.cluster, number) !=
            3) /* the letters of claim_name_check() */
                return -EINVAL;
        r2 = str_u64(number, 0, UINT64_MAX, &r.generation);
        if (r2 < 0)
                return r2;
        *ret = r;
        return 0;
}

uint64_t claim_hash(const char *instance, const char *cluster)
{
        const char *part[] = { instance, " ", cluster };
        uint64_t h = 0xCBF29CE484222325U; /* FNV-1a */

        for (size_t i = 0; i < NELEM(part); i++)
                for (const char *p = part[i]; *p; p++)
                        h = (h ^ (uint8_t) *p) * 0x100000001B3U;
        return h > UNKNOWN ? h : h + 2;
}

/* --- files and index ----------------------------------------------------------------------- */

static void file_name(uint32_t n, char buf[static 12])
{
        (void) snprintf(buf, 12, "%" PRIu32, n);
}

int claim_table_read(const struct claim_table *t, uint32_t n, struct claim_rec *ret)
{
        char name[12], text[CLAIM_REC_MAX];
        AUTO(fd) int fd = -EBADF;
        ssize_t len;

        file_name(n, name);
        fd = openat(t->dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        len = fd_read_full(fd, text, sizeof text - 1);
        if (len < 0)
                return (int) len;
        text[len] = '\0';
        return claim_rec_parse(text, ret);
}

/* Let the index say what the file says. */
static void mend(struct claim_table *t, uint32_t n)
{
        struct claim_rec rec;
        int r = claim_table_read(t, n, &rec);

        if (r == 0)
                t->cell[n].holder = claim_hash(rec.instance, rec.cluster);
        else
                t->cell[n].holder = r == -ENOENT ? 0 : UNKNOWN;
}

int claim_table_take(struct claim_table *t, uint32_t n, const struct claim_rec *rec, bool replace)
{
        char name[12], text[CLAIM_REC_MAX];
        AUTO(fd) int fd = -EBADF;
        int len = claim_rec_format(rec, text, sizeof text), r;

        if (len < 0)
                return len;
        file_name(n, name);
        fd = openat(t->dir, NEW_FILE, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
        if (fd < 0)
                return -errno;
        r = fd_write_full(fd, text, (size_t) len);
        if (r < 0)
                return r;
        if (renameat2(t->dir, NEW_FILE, t->dir, name, replace ? 0 : RENAME_NOREPLACE) < 0) {
                r = -errno;
                if (r == -EEXIST)
                        mend(t, n);
                return r;
        }
        t->cell[n].holder = claim_hash(rec->instance, rec->cluster);
        return 0;
}

int claim_table_drop(struct claim_table *t, uint32_t n, uint64_t now_us)
{
        char name[12];

        file_name(n, name);
        /* The file is the truth and goes first: a kill in between leaves an index that says "held",
         * and then dropping it again sets that right. */
        if (unlinkat(t->dir, name, 0) < 0 && errno != ENOENT)
                return -errno;
        t->cell[n].released_us = now_us;
        t->cell[n].holder = 0;
        return 0;
}

int claim_table_check(struct claim_table *t, struct err *e)
{
        int fd = openat(t->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *de;

        if (!dir) {
                int r = err_errno(e, -errno, "claims: %s", kind_rows[t->kind].dir);

                (void) fd_close(fd);
                return r;
        }
        for (uint32_t n = t->first; n <= t->last; n++)
                if (t->cell[n].holder != 0)
                        mend(t, n);
        while ((de = readdir(dir)) != NULL) {
                uint64_t n;

                if (str_u64(de->d_name, t->first, t->last, &n) == 0 && t->cell[n].holder == 0)
                        mend(t, (uint32_t) n);
        }
        (void) closedir(dir);
        return 0;
}

uint32_t claim_pick(const struct claim_table *t, uint64_t now_us)
{
        uint32_t resting = 0;

        for (uint32_t n = t->first; n <= t->last; n++) {
                const struct claim_cell *c = &t->cell[n];

                if (c->holder != 0)
                        continue;
                if (c->released_us == 0 || c->released_us + CLAIM_QUARANTINE_US <= now_us)
                        return n;
                if (resting == 0 || c->released_us < t->cell[resting].released_us)
                        resting = n;
        }
        return resting;
}

/* --- opening ------------------------------------------------------------------------------- */

int claim_table_open(int parent, enum claim_kind kind, struct claim_table *ret, struct err *e)
{
        const struct kind_row *k = &kind_rows[kind];
        struct claim_table t = { .kind = kind, .dir = -EBADF, .first = k->first, .last = k->last };
        size_t size = (k->last + 1) * sizeof *t.cell;
        AUTO(fd) int index = -EBADF, dir = -EBADF;
        struct stat st;

        if (mkdirat(parent, k->dir, 0755) < 0 && errno != EEXIST)
                return err_errno(e, -errno, "make claims directory %s", k->dir);
        dir = openat(parent, k->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (dir < 0)
                return err_errno(e, -errno, "open claims directory %s", k->dir);
        index = openat(dir, INDEX_FILE, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (index < 0 || fstat(index, &st) < 0)
                return err_errno(e, -errno, "open %s/%s", k->dir, INDEX_FILE);
        if ((size_t) st.st_size != size && ftruncate(index, (off_t) size) < 0)
                return err_errno(e, -errno, "size %s/%s", k->dir, INDEX_FILE);
        t.cell = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, index, 0);
        if (t.cell == MAP_FAILED)
                return err_errno(e, -errno, "map %s/%s", k->dir, INDEX_FILE);
        t.dir = fd_take(&dir);
        *ret = t;
        return 0;
}

void claim_table_done(struct claim_table *t)
{
        if (t->cell)
                (void) munmap(t->cell, (t->last + 1) * sizeof *t->cell);
        t->cell = NULL;
        t->dir = fd_close(t->dir);
}
