/* expire.c - see expire.h.
 *
 * An image leaves as it does when somebody removes it: its names go in one transaction, so nobody finds
 * it from then on, and image_sweep() takes rows and files later, when it is known who found it before.
 * A kill between the two leaves a whole image without a name, and the next sweep takes it. */
#include "engine/image/expire.h"

#include <errno.h>
#include <sys/statvfs.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "catalog_sql.h"
#include "engine/image/base.h"
#include "store_priv.h"

#define FLOOR_PART 10 /* at most a tenth of the file system, or a small one would keep nothing */
#define MIB        (1ULL << 20)

struct candidate {
        int64_t id;
        uint64_t used_us, freed;
        char *name;
        bool aged, gone;
};

struct expiry {
        struct image_store *store;
        struct candidate *v; /* in the order in which they are to leave */
        size_t n;
        uint64_t now, floor, free, freed;
        int64_t blind; /* objects stay as long as this layer does, or 0 */
};

static void expiry_done_cleanup(struct expiry *x)
{
        for (size_t i = 0; i < x->n; i++)
                free(x->v[i].name);
        free(x->v);
}

static int look_at_space(const struct image_store *s, uint64_t *ret_free, uint64_t *ret_floor)
{
        struct statvfs v;
        uint64_t most;

        if (fstatvfs(s->staging_fd, &v) < 0)
                return -errno;
        most = v.f_blocks * v.f_frsize / FLOOR_PART;
        *ret_free = v.f_bavail * v.f_frsize;
        *ret_floor = s->inst->conf.image_floor_bytes;
        if (*ret_floor > most)
                *ret_floor = most;
        return 0;
}

bool image_is_low(const struct image_store *s)
{
        uint64_t space = 0, floor = 0;

        return look_at_space(s, &space, &floor) >= 0 && space < floor;
}

static int add_candidate(struct expiry *x, sqlite3_stmt *st, struct err *e)
{
        const char *name = (const char *) sqlite3_column_text(st, 2);
        struct candidate *v = reallocarray(x->v, x->n + 1, sizeof *v);

        if (!v)
                return err_set(e, -ENOMEM, "out of memory");
        x->v = v;
        v[x->n] = (struct candidate){ .id = sqlite3_column_int64(st, 0),
                                      .used_us = (uint64_t) sqlite3_column_int64(st, 1),
                                      .name = strdup(name ? name : "") };
        return v[x->n++].name ? 0 : err_set(e, -ENOMEM, "out of memory");
}

/* Damaged ones first, which nobody can use; then by their last use. */
static int list_candidates(struct expiry *x, struct err *e)
{
        const struct sql_arg a[] = { { NULL, x->store->inst->conf.image_expire_uploads } };
        AUTO(sql_rest) sqlite3_stmt *st = NULL;
        int rc = SQLITE_DONE,
            r = sql_prepare(x->store->db, &st, e,
                            "SELECT i.id, max(max(n.used_us, n.created_us)), min(n.reference)"
                            " FROM image i JOIN name n ON n.image = i.id"
                            " WHERE (?1 OR i.domain LIKE 'pull:%')"
                            " AND i.id NOT IN (SELECT image FROM held)"
                            " AND i.digest NOT IN (SELECT digest FROM held)"
                            " GROUP BY i.id ORDER BY i.quarantined <> '' DESC, 2",
                            a, NELEM(a));

        while (r >= 0 && (rc = sqlite3_step(st)) == SQLITE_ROW)
                r = add_candidate(x, st, e);
        return r < 0 || rc == SQLITE_DONE ? r : sql_error(x->store->db, e, "images");
}

/* Content of layers and metadata that images with a name have.  Objects of several layers are counted
 * once for each: what leaves may free less than the difference, and then it is not the last to leave. */
static int bytes_named(const struct expiry *x, uint64_t *ret, struct err *e)
{
        int64_t bytes = 0;
        int r = sql_number(
                x->store->db, &bytes, e,
                "SELECT (SELECT coalesce(sum(content_bytes), 0) FROM layer WHERE n IN"
                "  (SELECT il.layer FROM image_layer il JOIN name n ON n.image = il.image))"
                " + (SELECT coalesce(sum(meta_bytes), 0) FROM image WHERE id IN"
                "  (SELECT image FROM name))",
                NULL, 0);

        *ret = (uint64_t) bytes;
        return r;
}

static int take_names(struct expiry *x, struct candidate *c, struct err *e)
{
        uint64_t before, after = 0;
        int r = bytes_named(x, &before, e);

        if (r >= 0)
                r = sql_exec(x->store->db, e, "DELETE FROM name WHERE image = ?",
                             (struct sql_arg[]){ { NULL, c->id } }, 1);
        if (r >= 0)
                r = bytes_named(x, &after, e);
        if (r < 0)
                return r;
        c->gone = true;
        c->freed = before - after;
        x->freed += c->freed;
        return 0;
}

/* While no object can be removed, all images would leave and hardly make any: only those may that have
 * the layer which is the reason. */
static int makes_room(const struct expiry *x, const struct candidate *c, struct err *e)
{
        int64_t one;

        return !x->blind ||
               sql_number(x->store->db, &one, e,
                          "SELECT 1 FROM image_layer WHERE image = ? AND layer = ?",
                          (struct sql_arg[]){ { NULL, c->id }, { NULL, x->blind } }, 2);
}

static int choose(struct expiry *x, struct err *e)
{
        uint64_t keep = x->store->inst->conf.image_keep_us;
        int r = list_candidates(x, e);

        if (r >= 0 && x->free < x->floor)
                r = collect_is_blind(x->store, &x->blind, e);
        for (size_t i = 0; r >= 0 && i < x->n; i++) {
                struct candidate *c = &x->v[i];

                c->aged = keep && x->now > c->used_us && x->now - c->used_us > keep;
                if (!c->aged && x->free + x->freed >= x->floor)
                        continue;
                r = c->aged ? 1 : makes_room(x, c, e);
                if (r > 0 && !image_base_is_mounted(x->store, c->id))
                        r = take_names(x, c, e);
        }
        return r;
}

/* What a cluster runs from is being used, however long ago it was booted. */
static int touch_held(struct expiry *x, struct err *e)
{
        return sql_exec(x->store->db, e,
                        "UPDATE name SET used_us = ? WHERE image IN (SELECT id FROM image"
                        " WHERE id IN (SELECT image FROM held)"
                        "  OR digest IN (SELECT digest FROM held))",
                        (struct sql_arg[]){ { NULL, (int64_t) x->now } }, 1);
}

static void say(const struct expiry *x)
{
        for (size_t i = 0; i < x->n; i++) {
                const struct candidate *c = &x->v[i];
                uint64_t idle = x->now > c->used_us ? x->now - c->used_us : 0;
                unsigned long long mib = c->freed / MIB, minutes = idle / (60 * US_PER_S);

                if (!c->gone)
                        continue;
                if (c->aged)
                        log_info("image %s goes (%llu MiB): nothing has used it for %llu h",
                                 c->name, mib, minutes / 60);
                else
                        log_info(
                                "image %s goes (%llu MiB), last used %llu min ago: %llu MiB of disk"
                                " are free and %llu MiB are needed",
                                c->name, mib, minutes, (unsigned long long) (x->free / MIB),
                                (unsigned long long) (x->floor / MIB));
        }
}

/* 1: something has no name any more. */
static int expire(struct expiry *x, char *const *in_use, struct err *e)
{
        int r = catalog_hold(x->store, in_use, e);

        if (r >= 0)
                r = touch_held(x, e);
        if (r >= 0)
                r = choose(x, e);
        if (r >= 0)
                r = catalog_condemn(x->store, e);
        return r < 0 ? r : sqlite3_changes(x->store->db) > 0;
}

int image_expire(struct image_store *s, char *const *in_use, uint64_t need, struct err *e)
{
        AUTO(expiry_done) struct expiry x = { .store = s, .now = clock_wall_us() };
        int some, r = look_at_space(s, &x.free, &x.floor);

        if (r < 0)
                return err_errno(e, r, "free space of the image store");
        if (x.floor && __builtin_add_overflow(x.floor, need, &x.floor))
                x.floor = UINT64_MAX;
        r = catalog_begin(s, e);
        if (r < 0)
                return r;
        some = expire(&x, in_use, e);
        r = some < 0 ? some : catalog_commit(s, e);
        if (r < 0) {
                catalog_rollback(s);
                return r;
        }
        say(&x);
        return some;
}
