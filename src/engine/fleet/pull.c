/* pull.c - image operations: queued, one at a time per image, as long as somebody waits for them.
 * The functions named *_body run in the operation process, everything else on the loop.
 *
 * Theory of operation.  fleet.pulls has what runs and what waits, oldest first.  Pulls and uploads
 * share `parallel_pulls` places, of which one account has at most half; a place goes to the account
 * that uses the fewest, then to the one that was served longest ago, then to whoever came first.  So
 * a hundred pulls of one account, or two that never end, are no reason for another's to wait.
 * Removals have a place of their own.
 *
 * Removing and booting are ordered in two steps.  PULL_REMOVE takes the name away: from its commit on
 * no boot finds the image.  What boots found before that is asked after it, on this loop, where a
 * boot finds its image and notes its use in one turn; and PULL_SWEEP removes only what was nameless
 * by then and what nobody uses.
 *
 * PULL_EXPIRE takes the names of images that leave by themselves (image/expire.h), the sweep after it
 * their files, and again, until nothing more has to go.  A pull that found no space has this done and
 * is then tried once more.
 *
 * A pull that nobody waits for any more is ended, and what it left is collected. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/fleet/fetch_guard.h"
#include "engine/fleet/unit.h"
#include "engine/image/expire.h"
#include "model/limits.h"

#define PULL_SLACK_US     (60 * US_PER_S) /* the operation reports its deadline better than we do */
#define REMOVE_TIMEOUT_US (600 * US_PER_S)
#define REMOVE_PLACES     1U
#define UNPACKED_FACTOR                                                                            \
        3 /* how much larger an image is on the disk than on the wire, hardly ever more */

enum pull_kind {
        PULL_NONE,
        PULL_PULL,
        PULL_IMPORT,
        PULL_REMOVE,
        PULL_EXPIRE,
        PULL_SWEEP,
        PULL_KIND_COUNT
};

/* Someone who wants to hear about it. */
struct waiter {
        struct waiter *next;
        fleet_progress_fn *progress;
        fleet_pull_fn *done;
        void *arg;
};

struct pull {
        struct pull *next;
        struct fleet *fleet;
        enum pull_kind kind;
        char *account, *reference, *username, *password;
        bool flag;      /* import: public; remove: administrator */
        bool force;     /* pull again what is here */
        bool abandoned; /* is being ended */
        bool expires;   /* expire, and the sweep after it */
        bool swept;     /* expire: once at least */
        bool again;     /* expire: somebody has asked since it began */
        bool no_space;  /* pull: found none; waits for an expiry */
        bool retried;   /* and had one already */
        uint64_t bytes; /* pull: to be fetched, compressed; expire: to be free beside the floor */
        int stream;     /* import */
        char **in_use;  /* remove, sweep */
        uint64_t turn;  /* grows whenever its account is given a place */
        struct waiter *waiters;
        struct op *op; /* NULL: waits for a place */
};

static struct pull *pull_free(struct pull *p)
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
        j = json_pack("{s:s, s:I, s:I}", "phase", g->phase, "done_bytes",
                      (json_int_t) g->done_bytes, "total_bytes", (json_int_t) g->total_bytes);
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

/* ---- whose turn it is ---- */

static bool is_transfer(const struct pull *p)
{
        return p->kind == PULL_PULL || p->kind == PULL_IMPORT;
}

/* Operations of that sort that run; also how many of them for @account. */
static uint32_t count_running(const struct fleet *f, const struct pull *like, uint32_t *ret_own)
{
        uint32_t n = 0;

        *ret_own = 0;
        for (const struct pull *q = f->pulls; q; q = q->next) {
                if (!q->op || is_transfer(q) != is_transfer(like))
                        continue;
                n++;
                *ret_own += str_eq(q->account, like->account);
        }
        return n;
}

/* Another pull is fetching what @p wants, and shares what comes with everybody. */
static bool is_on_its_way(const struct fleet *f, const struct pull *p)
{
        for (const struct pull *q = f->pulls; q; q = q->next)
                if (q->op && q != p && q->kind == PULL_PULL && p->kind == PULL_PULL &&
                    !q->abandoned && !p->force && !p->username && !q->username &&
                    str_eq(q->reference, p->reference))
                        return true;
        return false;
}

/* The waiting one that begins next, or NULL. */
static struct pull *next_pull(const struct fleet *f)
{
        struct pull *best = NULL;
        uint32_t best_own = 0;

        for (struct pull *p = f->pulls; p; p = p->next) {
                uint32_t places =
                        is_transfer(p) ? f->spec.host->inst->conf.parallel_pulls : REMOVE_PLACES;
                uint32_t own, n;

                if (p->op || p->no_space)
                        continue;
                n = count_running(f, p, &own);
                if (n >= places || own >= (places + 1) / 2 || is_on_its_way(f, p))
                        continue;
                if (best && (own > best_own || (own == best_own && p->turn >= best->turn)))
                        continue;
                best = p;
                best_own = own;
        }
        return best;
}

static uint64_t last_turn(const struct fleet *f)
{
        uint64_t last = 0;

        for (const struct pull *q = f->pulls; q; q = q->next)
                if (q->turn > last)
                        last = q->turn;
        return last;
}

/* The account of @p is being served: the others come before its next one. */
static void take_turn(struct pull *p)
{
        uint64_t turn = last_turn(p->fleet) + 1;

        for (struct pull *q = p->fleet->pulls; q; q = q->next)
                if (str_eq(q->account, p->account))
                        q->turn = turn;
}

static void start_pulls(struct fleet *f);
static int launch(struct pull *p, struct err *e);

/* ---- the end of one ---- */

static void finish(struct pull *p, int r, const struct image *image, const struct err *e)
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
static int go_on(struct pull *p, enum pull_kind next, struct err *e)
{
        free(p->in_use);
        p->in_use = fleet_images_in_use(p->fleet, NULL);
        p->again = p->again && next == PULL_SWEEP;
        p->kind = next;
        return p->in_use ? launch(p, e) : err_set(e, -ENOMEM, "out of memory");
}

/* What has come is also for those who have not had their turn. */
static void serve_waiting(struct fleet *f, const char *reference)
{
        for (struct pull *p = f->pulls; p;) {
                struct image image = { 0 };
                struct err e = { 0 };

                if (p->op || p->force || p->kind != PULL_PULL || !str_eq(p->reference, reference) ||
                    image_find(f->spec.host->images, p->account, reference, &image, &e) < 0) {
                        p = p->next;
                        continue;
                }
                finish(p, 0, &image, &e);
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
                        finish(p, r, NULL, e);
                        return;
                }
                r = go_on(p, PULL_SWEEP, e);
                if (r >= 0)
                        return;
        }
        if (r < 0)
                log_warn("cleaning up after %s: %s", p->reference, e->msg);
        finish(p, 0, NULL, e);
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
                r = go_on(p, p->kind == PULL_EXPIRE && r > 0 ? PULL_SWEEP : PULL_EXPIRE, e);
        if (more && r >= 0)
                return;
        if (r < 0 && !f->closing)
                log_warn("removing images that are not needed: %s", e->msg);
        for (struct pull *q = f->pulls; q; q = q->next)
                q->no_space = false; /* their turn again */
        finish(p, 0, NULL, e);
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
        fleet_images_expire(f, p->bytes * UNPACKED_FACTOR);
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
        if (is_transfer(p)) {
                reference = r >= 0 ? str_dup(p->reference) : NULL;
                if (r >= 0 && p->waiters)
                        r = image_find(f->spec.host->images, p->account, p->reference, &image, &e);
                finish(p, r, &image, &e);
                image_done(&image);
        } else if (p->expires) {
                on_expired(p, r, &e);
        } else {
                on_removed(p, r, &e);
        }
        if (reference && !f->closing)
                serve_waiting(f, reference);
        start_pulls(f);
}

/* ---- the beginning of one ---- */

static void on_progress(void *arg, const struct frame_msg *m)
{
        struct pull *p = arg;
        const char *phase = jsonx_str(m->json, "phase");
        const struct image_progress g = {
                .phase = phase ? phase : "",
                .done_bytes = (uint64_t) json_integer_value(json_object_get(m->json, "done_bytes")),
                .total_bytes =
                        (uint64_t) json_integer_value(json_object_get(m->json, "total_bytes")),
        };

        if (g.total_bytes > p->bytes && is_transfer(p))
                p->bytes = g.total_bytes;
        for (struct waiter *w = p->waiters; w; w = w->next)
                if (w->progress)
                        w->progress(w->arg, &g);
}

static int add_waiter(struct pull *p, fleet_progress_fn *progress, fleet_pull_fn *done, void *arg)
{
        struct waiter *w = calloc(1, sizeof *w);

        if (!w)
                return -ENOMEM;
        *w = (struct waiter){ p->waiters, progress, done, arg };
        p->waiters = w;
        return 0;
}

/* Whoever @arg is has to wait for a place. */
static void tell_waiting(const struct fleet *f, const void *arg)
{
        static const struct image_progress waiting = { .phase = "waiting" };

        for (const struct pull *p = f->pulls; p; p = p->next)
                for (const struct waiter *w = p->op ? NULL : p->waiters; w; w = w->next)
                        if (w->arg == arg && w->progress)
                                w->progress(w->arg, &waiting);
}

static int launch(struct pull *p, struct err *e)
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
                .timeout_us = is_transfer(p) ? p->fleet->spec.host->inst->conf.pull_timeout_us +
                                                       PULL_SLACK_US
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

/* Start what there are places for.  Ends by itself what came here while it waited. */
static void start_pulls(struct fleet *f)
{
        struct pull *p;

        while (!f->closing && (p = next_pull(f)) != NULL) {
                struct image image = { 0 };
                struct err e = { 0 };
                int r;

                if (p->kind == PULL_PULL && !p->force &&
                    image_find(f->spec.host->images, p->account, p->reference, &image, &e) >= 0) {
                        finish(p, 0, &image, &e);
                        image_done(&image);
                        continue;
                }
                take_turn(p);
                /* what is in use now, not when it was asked for: it may have waited */
                r = is_transfer(p) ? launch(p, &e) : go_on(p, p->kind, &e);
                if (r < 0)
                        finish(p, r, NULL, &e);
        }
}

static struct pull *pull_new(struct fleet *f, enum pull_kind kind, const char *account,
                             const char *reference)
{
        struct pull *p = calloc(1, sizeof *p);

        if (!p)
                return NULL;
        p->stream = -EBADF;
        p->fleet = f;
        p->kind = kind;
        p->account = str_dup(account);
        p->reference = str_dup(reference);
        if (!p->reference || (account && !p->account))
                return pull_free(p);
        p->turn = last_turn(f); /* as if it had just been served: asking one by one is no gain */
        for (const struct pull *q = f->pulls; q; q = q->next)
                if (!q->op && str_eq(q->account, account))
                        p->turn = q->turn; /* behind those of its account */
        return p;
}

static void enqueue(struct pull *p)
{
        struct fleet *f = p->fleet;
        struct pull **tail = &f->pulls;

        while (*tail)
                tail = &(*tail)->next;
        *tail = p;
        start_pulls(f);
}

/* Put @p at the end of the queue with its first waiter, and see whose turn it is. */
static int submit(struct pull *p, fleet_progress_fn *progress, fleet_pull_fn *done, void *arg,
                  struct err *e)
{
        struct fleet *f = p->fleet;

        if (f->closing) {
                (void) pull_free(p);
                return err_set(e, -ECANCELED, "the host is stopping");
        }
        if (add_waiter(p, progress, done, arg) < 0) {
                (void) pull_free(p);
                return err_set(e, -ENOMEM, "out of memory");
        }
        enqueue(p); /* it may be over when this returns */
        tell_waiting(f, arg);
        return 0;
}

int fleet_pull(struct fleet *f, const char *reference, const struct image_credentials *cred,
               bool force, fleet_progress_fn *progress, fleet_pull_fn *done, void *arg,
               struct err *e)
{
        const char *user = str_empty(cred->username) ? NULL : cred->username;
        const char *password = user ? cred->password : NULL;
        struct image image = { 0 };
        struct pull *p;

        if (str_empty(cred->account)) /* else what it opens would be everybody's */
                return err_set(e, -EINVAL, "account: is missing");
        if (!force && image_find(f->spec.host->images, cred->account, reference, &image, e) >= 0) {
                done(arg, 0, &image, e);
                image_done(&image);
                return 0;
        }
        /* the same image for the same account with the same credentials */
        for (p = f->pulls; p; p = p->next)
                if (p->kind == PULL_PULL && !p->abandoned && !(force && p->op) &&
                    str_eq(p->reference, reference) && str_eq(p->account, cred->account) &&
                    str_eq(p->username, user) && str_eq(p->password, password)) {
                        if (add_waiter(p, progress, done, arg) < 0)
                                return err_set(e, -ENOMEM, "out of memory");
                        p->force = p->force || force;
                        tell_waiting(f, arg);
                        return 0;
                }
        p = pull_new(f, PULL_PULL, cred->account, reference);
        if (p) {
                p->force = force;
                p->username = str_dup(user);
                p->password = str_dup(password);
        }
        if (!p || (user && !p->username) || (password && !p->password)) {
                (void) pull_free(p);
                return err_set(e, -ENOMEM, "out of memory");
        }
        return submit(p, progress, done, arg, e);
}

int fleet_import(struct fleet *f, const char *account, bool is_public, const char *name, int stream,
                 fleet_progress_fn *progress, fleet_pull_fn *done, void *arg, struct err *e)
{
        struct pull *p = pull_new(f, PULL_IMPORT, account, name);

        if (!p)
                return err_set(e, -ENOMEM, "out of memory");
        p->flag = is_public;
        p->stream = fcntl(stream, F_DUPFD_CLOEXEC, 3);
        if (p->stream < 0) {
                int r = err_errno(e, -errno, "import");

                (void) pull_free(p);
                return r;
        }
        return submit(p, progress, done, arg, e);
}

int fleet_image_remove(struct fleet *f, const char *account, bool is_admin, const char *reference,
                       fleet_pull_fn *done, void *arg, struct err *e)
{
        struct pull *p = pull_new(f, PULL_REMOVE, account, reference);

        if (!p)
                return err_set(e, -ENOMEM, "out of memory");
        p->flag = is_admin;
        return submit(p, NULL, done, arg, e);
}

void fleet_images_tidy(struct fleet *f)
{
        struct err e = { 0 };
        struct pull *p = NULL;
        int r = image_unswept(f->spec.host->images, &e);

        if (r > 0) {
                p = pull_new(f, PULL_SWEEP, NULL, "removed images");
                if (p)
                        enqueue(p);
        }
        if (r < 0)
                log_warn("%s", e.msg);
}

void fleet_images_expire(struct fleet *f, uint64_t need)
{
        struct pull *p;

        for (p = f->pulls; p; p = p->next)
                if (p->expires) {
                        p->again = p->op != NULL; /* it has looked already */
                        if (need > p->bytes)
                                p->bytes = need;
                        return;
                }
        p = pull_new(f, PULL_EXPIRE, NULL, "unused images");
        if (!p)
                return; /* another time */
        p->expires = true;
        p->bytes = need;
        enqueue(p);
}

void fleet_image_damaged(struct fleet *f, uint64_t image, const char *why)
{
        uint64_t id;

        for (struct unit *u = f->units; u; u = u->next)
                if (u->row.image_digest && (unit_holds(u) || u->op) &&
                    str_u64_prefix(u->row.image_digest, 10, &id) >= 0 && id == image)
                        log_warn("cluster %s runs from an image that is damaged, and goes on: %s",
                                 u->row.cluster, why);
}

size_t fleet_pulls_waiting(const struct fleet *f, const char *account)
{
        size_t n = 0;

        for (const struct pull *p = f->pulls; p; p = p->next)
                n += !p->op && str_eq(p->account, account);
        return n;
}

static void unit_progress(void *arg, const struct image_progress *g)
{
        struct unit *u = arg;
        uint32_t pct = g->total_bytes ? (uint32_t) (g->done_bytes * 100 / g->total_bytes) : 0;

        if (pct > 99)
                pct = 99;
        if (pct == u->progress_pct)
                return;
        u->progress_pct = pct;
        unit_report(u);
}

static void unit_pulled(void *arg, int r, const struct image *image, const struct err *err)
{
        struct unit *u = arg;
        struct err e = { 0 };

        if (u->fleet->closing || u->row.state != CS_PULLING)
                return;
        if (unit_retry(u, r, err)) {
                unit_settle(u);
                return;
        }
        if (r >= 0)
                r = unit_boot(u, image, &e);
        else
                (void) err_copy(&e, err);
        if (r < 0) {
                log_info("cluster %s: %s", u->row.cluster, e.msg);
                unit_event(u, CE_FAIL, "%s", e.msg);
                unit_settle(u);
        }
}

int pull_for_unit(struct unit *u, struct err *e)
{
        const struct image_credentials cred = { u->cred.username, u->cred.password,
                                                u->plan.account };

        u->progress_pct = 0;
        return fleet_pull(u->fleet, u->plan.image, &cred, false, unit_progress, unit_pulled, u, e);
}

/* The unit no longer waits. */
void pull_leave(struct unit *u)
{
        (void) fleet_drop_requests(u->fleet, u);
}

/* ---- nobody waits any more ---- */

/* A removal goes on; a pull or an upload ends, and what it has written goes. */
static void abandon(struct pull *p)
{
        if (p->waiters || p->abandoned || !is_transfer(p))
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
                        finish(p, -ECANCELED, NULL, &stopping);
        }
}
