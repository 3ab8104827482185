/* pull.c - the life of one image operation: started, heard, ended; as long as somebody waits for it.
 * pull_body() and what it calls run in the operation process, everything else on the loop.
 *
 * Theory of operation.  Removing and booting are ordered in two steps.  PULL_REMOVE takes the name
 * away: from its commit on no boot finds the image.  What boots found before that is asked after it,
 * on this loop, where a boot finds its image and notes its use in one turn; and PULL_SWEEP removes
 * only what was nameless by then and what nobody uses.
 *
 * PULL_EXPIRE takes the names of images that leave by themselves (image/expire.h), the sweep after it
 * their files, and again, until nothing more has to go.  A pull that found no space has this done and
 * is then tried once more.
 *
 * Credentials are their pull's: with them an image is the account's own, and what is here of it counts
 * only once that pull has come through.  A manifest that these credentials open is the proof; layers
 * that are here are not fetched again.
 *
 * A pull that nobody waits for any more is ended, and what it left is collected. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/fleet/fetch_guard.h"
#include "engine/fleet/pull_priv.h"
#include "engine/image/expire.h"

#define PULL_SLACK_US     (60 * US_PER_S) /* the operation reports its deadline better than we do */
#define REMOVE_TIMEOUT_US (600 * US_PER_S)
#define UNPACKED_FACTOR                                                                            \
        3 /* how much larger an image is on the disk than on the wire, hardly ever more */

struct pull *pull_free(struct pull *p)
{
        if (!p)
                return NULL;
        while (p->waiters) {
                struct waiter *w = p->waiters;

                p->waiters = w->next;
                free(w);
        }
        free(p->account);
        free(p->reference);
        free(p->username);
        (void) str_wipe_free(p->password);
        free(p->in_use);
        (void) fd_close(p->stream);
        free(p);
        return NULL;
}

static void unlink_pull(struct pull *p)
{
        for (struct pull **at = &p->fleet->pulls; *at; at = &(*at)->next) {
                if (*at != p)
                        continue;
                *at = p->next;
                return;
        }
}

/* ---- in the operation ---- */

/* At most ten lines of progress a second. */
struct progress_out {
        struct frame_conn *out;
        uint64_t last_us;
        const char *last_phase;
};

/* Manifests may claim anything. */
static json_int_t exact(uint64_t bytes)
{
        return (json_int_t) (bytes < JSONX_EXACT_MAX ? bytes : JSONX_EXACT_MAX);
}

static void send_progress(void *arg, const struct image_progress *g)
{
        struct progress_out *o = arg;
        uint64_t now = clock_mono_us();
        AUTO(json_put) json_t *j = NULL;

        if (str_eq(o->last_phase, g->phase) && now < o->last_us + 100 * US_PER_MS &&
            g->done_bytes != g->total_bytes)
                return;
        o->last_us = now;
        o->last_phase = g->phase;
        j = json_pack("{s:s, s:I, s:I, s:I}", "phase", g->phase, "done_bytes", exact(g->done_bytes),
                      "total_bytes", exact(g->total_bytes), "bytes_per_s", exact(g->bytes_per_s));
        if (j)
                (void) op_report(o->out, j, NULL, 0);
}

static int pull_body(struct frame_conn *out, void *arg, struct err *e)
{
        struct pull *p = arg;
        struct progress_out o = { .out = out };
        const struct image_credentials cred = { p->username, p->password, p->account };
        struct fetch_guard guard;
        struct image_guard hooks;
        AUTO(image_store_close) struct image_store *store = NULL;
        /* a connection of our own: SQLite handles do not survive a fork */
        int r = image_store_open(p->fleet->spec.host->inst, &store, e);

        if (r < 0)
                return r;
        fetch_guard_init(&guard, p->fleet->spec.host, &hooks);
        image_store_guard(store, &hooks);
        switch (p->kind) {
        case PULL_PULL:
                return image_pull(store, p->reference, &cred, 0, send_progress, &o, e);
        case PULL_IMPORT:
                return image_import(store, p->account, p->flag, p->reference, p->stream, 0,
                                    send_progress, &o, e);
        case PULL_REMOVE:
                return image_unname(store, p->account, p->flag, p->reference, p->in_use, e);
        case PULL_EXPIRE:
                return image_expire(store, p->in_use, p->bytes, e);
        case PULL_SWEEP:
                return image_sweep(store, p->in_use, e);
        case PULL_NONE:
        case PULL_KIND_COUNT:
                break;
        }
        return -EINVAL;
}

/* ---- what is here ---- */

int pull_find_ready(struct fleet *f, const char *account, const char *reference,
                    bool with_credentials, struct image *ret, struct err *e)
{
        struct image_store *s = f->spec.host->images;
        struct image found = { 0 };
        int r = with_credentials ? image_find_private(s, account, reference, &found, e)
                                 : image_find(s, account, reference, &found, e);

        if (r < 0)
                return r;
        if (found.is_private) {
                image_done(&found);
                return err_set(e, -ENOENT, "the registry was not asked for %s yet", reference);
        }
        *ret = found;
        return 0;
}

/* What a pull that has come through has brought. */
static int find_pulled(const struct pull *p, struct image *ret, struct err *e)
{
        struct image_store *s = p->fleet->spec.host->images;

        return p->username ? image_find_private(s, p->account, p->reference, ret, e)
                           : image_find(s, p->account, p->reference, ret, e);
}

/* ---- the beginning of one ---- */

static uint64_t number_of(const json_t *j, const char *key)
{
        return (uint64_t) json_integer_value(json_object_get(j, key));
}

static void on_progress(void *arg, const struct frame_msg *m)
{
        struct pull *p = arg;
        const char *phase = jsonx_str(m->json, "phase");
        const struct image_progress g = { .phase = phase ? phase : "",
                                          .done_bytes = number_of(m->json, "done_bytes"),
                                          .total_bytes = number_of(m->json, "total_bytes"),
                                          .bytes_per_s = number_of(m->json, "bytes_per_s") };

        if (g.total_bytes > p->bytes && pull_is_transfer(p))
                p->bytes = g.total_bytes;
        for (struct waiter *w = p->waiters; w; w = w->next)
                if (w->progress)
                        w->progress(w->arg, &g);
}

static void on_pulled(void *arg, int r, const struct err *err);

int pull_launch(struct pull *p, struct err *e)
{
        static const char *const verb[] = { "",       "pull",          "import", "remove image",
                                            "expire", "clean up after" };
        char name[64];
        const struct op_spec spec = {
                .name = name,
                .body = pull_body,
                .body_arg = p,
                .keep = &p->stream,
                .n_keep = p->stream >= 0 ? 1 : 0,
                .timeout_us =
                        pull_is_transfer(p)
                                ? p->fleet->spec.host->inst->conf.pull_timeout_us + PULL_SLACK_US
                                : REMOVE_TIMEOUT_US,
                .report = on_progress,
                .done = on_pulled,
                .arg = p,
        };
        int r;

        static_assert(NELEM(verb) == PULL_KIND_COUNT, "a word for each kind");
        (void) snprintf(name, sizeof name, "%s %.40s", verb[p->kind], p->reference);
        r = op_start(p->fleet->spec.runner, &spec, &p->op, e);
        if (r < 0)
                return r;
        p->fleet->running_ops++;
        p->stream = fd_close(p->stream); /* the operation has its own */
        return 0;
}

/* ---- the end of one ---- */

void pull_finish(struct pull *p, int r, const struct image *image, const struct err *e)
{
        struct fleet *f = p->fleet;

        unlink_pull(p);
        while (p->waiters) { /* a callback may start something new */
                struct waiter *w = p->waiters;

                p->waiters = w->next;
                w->done(w->arg, r, r >= 0 ? image : NULL, e);
                free(w);
        }
        (void) pull_free(p);
        if (!f->closing)
                unit_settle_waiting(f);
}

/* Do @next in the place that it has, with what is in use from here on. */
int pull_go_on(struct pull *p, enum pull_kind next, struct err *e)
{
        free(p->in_use);
        p->in_use = fleet_images_in_use(p->fleet, NULL);
        p->again = p->again && next == PULL_SWEEP;
        p->kind = next;
        return p->in_use ? pull_launch(p, e) : err_set(e, -ENOMEM, "out of memory");
}

/* What has come is also for those who have not had their turn. */
static void serve_waiting(struct fleet *f, const char *reference)
{
        for (struct pull *p = f->pulls; p;) {
                struct image image = { 0 };
                struct err e = { 0 };

                if (p->op || p->force || p->kind != PULL_PULL || !str_eq(p->reference, reference) ||
                    pull_find_ready(f, p->account, reference, p->username, &image, &e) < 0) {
                        p = p->next;
                        continue;
                }
                pull_finish(p, 0, &image, &e);
                image_done(&image);
                p = f->pulls; /* a callback may have changed the list */
        }
}

/* A removal is done when the name is gone: what could not be cleaned up is tried again with the
 * next one. */
static void on_removed(struct pull *p, int r, struct err *e)
{
        if (p->kind == PULL_REMOVE) {
                if (r < 0 || p->fleet->closing) {
                        pull_finish(p, r, NULL, e);
                        return;
                }
                r = pull_go_on(p, PULL_SWEEP, e);
                if (r >= 0)
                        return;
        }
        if (r < 0)
                log_warn("cleaning up after %s: %s", p->reference, e->msg);
        pull_finish(p, 0, NULL, e);
}

/* Names, files, names, files, ..., until no image has to leave any more.  What a kill has left of an
 * earlier one is swept, too: once, because a cluster may still have it. */
static void on_expired(struct pull *p, int r, struct err *e)
{
        struct fleet *f = p->fleet;
        bool more;

        if (p->kind == PULL_EXPIRE && r == 0 && !p->swept)
                r = image_unswept(f->spec.host->images, e);
        more = r >= 0 && !f->closing && (p->kind == PULL_SWEEP || r > 0 || p->again);
        p->swept = p->swept || p->kind == PULL_SWEEP;
        if (more)
                r = pull_go_on(p, p->kind == PULL_EXPIRE && r > 0 ? PULL_SWEEP : PULL_EXPIRE, e);
        if (more && r >= 0)
                return;
        if (r < 0 && !f->closing)
                log_warn("removing images that are not needed: %s", e->msg);
        for (struct pull *q = f->pulls; q; q = q->next)
                q->no_space = false; /* their turn again */
        pull_finish(p, 0, NULL, e);
}

/* What a pull that found no space may take.  Its manifest may claim anything, and others' images go for
 * it; but more than one image may have does not come. */
static uint64_t space_for(const struct pull *p)
{
        uint64_t most = p->fleet->spec.host->inst->conf.image_max_bytes;

        return p->bytes < most / UNPACKED_FACTOR ? p->bytes * UNPACKED_FACTOR : most;
}

/* Whether the pull is to be tried again when there is more space. */
static bool wait_for_space(struct pull *p, int r)
{
        struct fleet *f = p->fleet;

        if (r != -ENOSPC || p->kind != PULL_PULL || p->retried || p->abandoned || f->closing ||
            !f->spec.host->inst->conf.image_floor_bytes)
                return false;
        log_info("pull %s: no space; looking for images that can go", p->reference);
        p->retried = p->no_space = true;
        fleet_images_expire(f, space_for(p));
        return true;
}

static void on_pulled(void *arg, int r, const struct err *err)
{
        struct pull *p = arg;
        struct fleet *f = p->fleet;
        AUTO(free) char *reference = NULL;
        struct image image = { 0 };
        struct err e = *err;

        p->op = NULL;
        f->running_ops--;
        if ((r == -EOWNERDEAD || r == -ETIMEDOUT || r == -ECANCELED) && !f->closing &&
            f->spec.image_died)
                f->spec.image_died(f->spec.upkeep);
        if (wait_for_space(p, r))
                return;
        if (pull_is_transfer(p)) {
                fleet_look_for_damage(f); /* it looks at what is here already */
                reference = r >= 0 ? str_dup(p->reference) : NULL;
                if (r >= 0 && p->waiters)
                        r = find_pulled(p, &image, &e);
                pull_finish(p, r, &image, &e);
                image_done(&image);
        } else if (p->expires) {
                on_expired(p, r, &e);
        } else {
                on_removed(p, r, &e);
        }
        if (reference && !f->closing)
                serve_waiting(f, reference);
        pull_start_some(f);
}

/* ---- nobody waits any more ---- */

/* A removal goes on; a pull or an upload ends, and what it has written goes. */
static void abandon(struct pull *p)
{
        if (p->waiters || p->abandoned || !pull_is_transfer(p))
                return;
        log_debug("%s: nobody waits for it any more", p->reference);
        if (p->op) {
                p->abandoned = true;
                op_cancel(p->op); /* on_pulled() comes */
                return;
        }
        unlink_pull(p);
        (void) pull_free(p);
}

static size_t drop_waiters(struct pull *p, const void *arg)
{
        size_t n = 0;

        for (struct waiter **at = &p->waiters; *at;) {
                struct waiter *w = *at;

                if (w->arg != arg) {
                        at = &w->next;
                        continue;
                }
                *at = w->next;
                free(w);
                n++;
        }
        return n;
}

size_t fleet_drop_requests(struct fleet *f, const void *arg)
{
        size_t n = 0;

        for (struct pull *p = f->pulls, *next; p; p = next) {
                size_t dropped = drop_waiters(p, arg);

                next = p->next;
                n += dropped;
                if (dropped)
                        abandon(p);
        }
        return n;
}

void pull_free_all(struct fleet *f)
{
        const struct err stopping = { -ECANCELED, "the host is stopping" };

        for (struct pull *p = f->pulls, *next; p; p = next) {
                next = p->next;
                if (p->op)
                        op_cancel(p->op); /* running_ops falls as they end */
                else
                        pull_finish(p, -ECANCELED, NULL, &stopping);
        }
}
