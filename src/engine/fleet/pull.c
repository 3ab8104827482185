/* pull.c - image operations: one at a time per image, whoever waits for it.
 * The functions named *_body run in the operation process, everything else on the loop. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/fleet/unit.h"

#define PULL_TIMEOUT_US   (6 * 3600 * US_PER_S) /* a stalled transfer ends long before: vmm-fetch */
#define REMOVE_TIMEOUT_US (600 * US_PER_S)

enum pull_kind { PULL_NONE, PULL_PULL, PULL_IMPORT, PULL_REMOVE };

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
        bool flag;     /* import: public; remove: administrator */
        bool force;    /* pull again what is here */
        int stream;    /* import */
        char **in_use; /* remove */
        struct waiter *waiters;
        struct op *op;
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

/* In the operation: at most ten lines of progress a second. */
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
        AUTO(image_store_close) struct image_store *store = NULL;
        /* a connection of our own: SQLite handles do not survive a fork */
        int r = image_store_open(p->fleet->spec.host->inst, &store, e);

        if (r < 0)
                return r;
        switch (p->kind) {
        case PULL_PULL:
                return image_pull(store, p->reference, &cred, 0, send_progress, &o, e);
        case PULL_IMPORT:
                return image_import(store, p->account, p->flag, p->reference, p->stream, 0,
                                    send_progress, &o, e);
        case PULL_REMOVE:
                return image_remove(store, p->account, p->flag, p->reference, p->in_use, e);
        case PULL_NONE:
                break;
        }
        return -EINVAL;
}

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

        for (struct waiter *w = p->waiters; w; w = w->next)
                if (w->progress)
                        w->progress(w->arg, &g);
}

static void on_pulled(void *arg, int r, const struct err *err)
{
        struct pull *p = arg;
        struct fleet *f = p->fleet;
        struct image image = { 0 };
        struct err e = *err;

        p->op = NULL;
        f->running_ops--;
        unlink_pull(p);
        if ((r == -EOWNERDEAD || r == -ETIMEDOUT) && f->spec.image_died)
                f->spec.image_died(f->spec.upkeep);
        if (r >= 0 && p->kind != PULL_REMOVE)
                r = image_find(f->spec.host->images, p->account, p->reference, &image, &e);
        while (p->waiters) { /* a callback may start something new */
                struct waiter *w = p->waiters;

                p->waiters = w->next;
                w->done(w->arg, r, r >= 0 ? &image : NULL, &e);
                free(w);
        }
        image_done(&image);
        (void) pull_free(p);
        if (!f->closing)
                unit_settle_waiting(f);
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

static int launch(struct pull *p, struct err *e)
{
        static const char *const verb[] = { "", "pull", "import", "remove image" };
        char name[64];
        const struct op_spec spec = {
                .name = name,
                .body = pull_body,
                .body_arg = p,
                .keep = &p->stream,
                .n_keep = p->stream >= 0 ? 1 : 0,
                .timeout_us = p->kind == PULL_REMOVE ? REMOVE_TIMEOUT_US : PULL_TIMEOUT_US,
                .report = on_progress,
                .done = on_pulled,
                .arg = p,
        };
        int r;

        (void) snprintf(name, sizeof name, "%s %.40s", verb[p->kind], p->reference);
        r = op_start(p->fleet->spec.runner, &spec, &p->op, e);
        if (r < 0)
                return r;
        p->fleet->running_ops++;
        p->next = p->fleet->pulls;
        p->fleet->pulls = p;
        return 0;
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
        return p;
}

int fleet_pull(struct fleet *f, const char *account, const char *reference,
               const struct image_credentials *cred, bool force, fleet_progress_fn *progress,
               fleet_pull_fn *done, void *arg, struct err *e)
{
        struct image image = { 0 };
        struct pull *p;
        int r;

        if (!force && image_find(f->spec.host->images, account, reference, &image, e) >= 0) {
                done(arg, 0, &image, e);
                image_done(&image);
                return 0;
        }
        /* the same image for the same account, with nobody's credentials in between */
        for (p = f->pulls; p; p = p->next)
                if (p->kind == PULL_PULL && str_eq(p->reference, reference) &&
                    str_eq(p->account, account))
                        return add_waiter(p, progress, done, arg);
        p = pull_new(f, PULL_PULL, account, reference);
        if (!p)
                return err_set(e, -ENOMEM, "out of memory");
        p->force = force;
        p->username = cred ? str_dup(cred->username) : NULL;
        p->password = cred ? str_dup(cred->password) : NULL;
        r = add_waiter(p, progress, done, arg);
        if (r >= 0)
                r = launch(p, e);
        if (r < 0)
                (void) pull_free(p);
        return r;
}

int fleet_import(struct fleet *f, const char *account, bool is_public, const char *name, int stream,
                 fleet_progress_fn *progress, fleet_pull_fn *done, void *arg, struct err *e)
{
        struct pull *p = pull_new(f, PULL_IMPORT, account, name);
        int r;

        if (!p)
                return err_set(e, -ENOMEM, "out of memory");
        p->flag = is_public;
        p->stream = fcntl(stream, F_DUPFD_CLOEXEC, 3);
        r = p->stream < 0 ? err_errno(e, -errno, "import") : add_waiter(p, progress, done, arg);
        if (r >= 0)
                r = launch(p, e);
        if (r < 0)
                (void) pull_free(p);
        else
                p->stream = fd_close(p->stream); /* the operation has its own */
        return r;
}

int fleet_image_remove(struct fleet *f, const char *account, bool is_admin, const char *reference,
                       fleet_pull_fn *done, void *arg, struct err *e)
{
        struct pull *p = pull_new(f, PULL_REMOVE, account, reference);
        int r;

        if (!p)
                return err_set(e, -ENOMEM, "out of memory");
        p->flag = is_admin;
        p->in_use = fleet_images_in_use(f);
        r = p->in_use ? add_waiter(p, NULL, done, arg) : err_set(e, -ENOMEM, "out of memory");
        if (r >= 0)
                r = launch(p, e);
        if (r < 0)
                (void) pull_free(p);
        return r;
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

        u->pull = NULL;
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
        u->progress_pct = 0;
        return fleet_pull(u->fleet, u->plan.account, u->plan.image, &u->cred, false, unit_progress,
                          unit_pulled, u, e);
}

/* The unit no longer waits; the pull itself goes on, its image may be wanted soon. */
void pull_leave(struct unit *u)
{
        fleet_drop_requests(u->fleet, u);
}

void fleet_drop_requests(struct fleet *f, const void *arg)
{
        for (struct pull *p = f->pulls; p; p = p->next) {
                for (struct waiter **at = &p->waiters; *at;) {
                        struct waiter *w = *at;

                        if (w->arg != arg) {
                                at = &w->next;
                                continue;
                        }
                        *at = w->next;
                        free(w);
                }
        }
}

void pull_free_all(struct fleet *f)
{
        for (struct pull *p = f->pulls; p; p = p->next)
                op_cancel(p->op); /* running_ops falls as they end */
}
