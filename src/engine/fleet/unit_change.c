/* unit_change.c - a newer plan for the very process that runs.  Engine process, loop thread; what the
 * operation does is in boot/change.c.
 *
 * The wish is in the journal before anything is done about it (row.want_plan), and row.plan is what
 * the cluster runs by until an operation has ended well.  So whatever is killed, the next look at the
 * row begins the same operation again, which ends in the same.
 *
 * A refusal is kept in memory alone: the control plane answers it with another generation, and an
 * engine that has forgotten it finds the same out again. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/fleet/unit.h"
#include "engine/gpu/gpuhost.h"

#define CHANGE_TIMEOUT_US (120 * US_PER_S)
#define RETRY_FIRST_US    (20 * US_PER_MS)
#define MAX_FAILURES      8U /* operations in a row that were killed: 5 s of trying */

bool unit_same_start(const struct unit *u)
{
        return u->row.want_plan && u->row.want_generation > u->row.generation && !u->unreadable &&
               u->want_boot == plan_start(&u->plan);
}

int unit_read_want(struct unit *u, struct err *e)
{
        struct plan plan = { 0 };
        int r;

        if (!u->row.want_plan)
                return 0;
        r = unit_decode_plan(u->row.want_plan, &plan, e);
        u->want_boot = r < 0 ? 0 : plan_start(&plan);
        plan_done(&plan);
        return r;
}

void unit_change_forget(struct unit *u)
{
        free(u->change.refused);
        u->change.refused = NULL;
        u->change.failures = 0;
}

/* GPUs that it holds and its plan does not name: taken away, or not given after all; but for those that it
 * may have open, which stay with it until it ends. */
static char **surplus(const struct unit *u)
{
        AUTO(json_put)
        json_t *held = u->row.gpus ? jsonx_parse(u->row.gpus, strlen(u->row.gpus), NULL) : NULL;
        char **v = NULL;
        const char *uuid;
        json_t *how;

        json_object_foreach(held, uuid, how)
        {
                char *const *k = u->plan.gpus;

                while (k && *k && !str_eq(*k, uuid))
                        k++;
                if ((!k || !*k) && !json_is_true(json_object_get(how, "open")) &&
                    strv_push(&v, uuid) < 0)
                        return strv_free(v);
        }
        return v;
}

bool unit_gpus_open(const struct unit *u)
{
        AUTO(strv_free) char **v = NULL;

        if (u->row.state != CS_RUNNING && u->row.state != CS_BACKOFF)
                return false;
        v = surplus(u);
        return v != NULL;
}

void unit_catch_up(struct unit *u)
{
        AUTO(strv_free) char **extra = unit_gpus_open(u) ? surplus(u) : NULL;
        const uint32_t restarts = u->row.restarts;
        char reason[sizeof u->row.reason];
        struct err e = { 0 };

        if (extra && (u->row.state == CS_RUNNING ? !unit_same_start(u) || u->change.refused
                                                 : !unit_holds(u)))
                unit_gpus_check(u, extra); /* its end settles again */
        if (!unit_wanted(u) || !unit_same_start(u))
                return;
        if (u->row.state != CS_ACCEPTED && u->row.state != CS_PULLING &&
            (u->row.state != CS_BACKOFF || unit_holds(u)))
                return;
        memcpy(reason, u->row.reason, sizeof reason);
        if (unit_adopt_want(u, &e) < 0) {
                log_error("cluster %s: %s", u->row.cluster, e.msg);
                return;
        }
        u->row.restarts = restarts; /* the same start: it has failed as often as before */
        memcpy(u->row.reason, reason, sizeof reason);
        (void) unit_save(u, false);
        unit_report(u);
}

/* The operation ended well: what it was given is what there is. */
static void adopt_change(struct unit *u)
{
        struct journal_row *row = &u->row;
        struct plan plan = { 0 };
        struct err e = { 0 };

        if (unit_decode_plan(u->change.plan, &plan, &e) < 0) { /* out of memory: it is done again */
                log_error("cluster %s: %s", row->cluster, e.msg);
                return;
        }
        plan_done(&u->plan);
        u->plan = plan;
        free(row->plan);
        row->plan = TAKE(u->change.plan);
        row->generation = u->change.generation;
        if (row->want_generation == row->generation) {
                free(row->want_plan);
                row->want_plan = NULL;
        }
        u->change.failures = 0;
        log_info("cluster %s: changed to generation %llu", row->cluster,
                 (unsigned long long) row->generation);
        (void) unit_save(u, false);
        unit_report(u);
}

static void refuse(struct unit *u, const struct err *err)
{
        if (u->change.generation != u->row.want_generation)
                return; /* nobody wants to know any more */
        log_info("cluster %s: generation %llu is refused: %s", u->row.cluster,
                 (unsigned long long) u->change.generation, err->msg);
        u->change.refused = strdup(*err->msg ? err->msg : "the host could not do it");
        if (u->change.refused)
                unit_report(u);
}

/* It could not put things back, or was killed before it could. */
static bool may_be_open(int r)
{
        return r == -ENOTRECOVERABLE || r == -EOWNERDEAD || r == -ETIMEDOUT;
}

/* On disk, because the next engine must not give such a GPU to anybody either. */
static void keep_open(struct unit *u)
{
        AUTO(strv_free) char **v = surplus(u);

        if (v && (unit_gpus_keep(u, v) < 0 || unit_save(u, true) < 0))
                log_error("cluster %s: that GPUs stay with it was not written down",
                          u->row.cluster);
        if (v && u->fleet->spec.host->gpuhost) /* told before the refusal, which frees its rows */
                gpuhost_claims_changed(u->fleet->spec.host->gpuhost);
}

static void on_changed(void *arg, int r, const struct err *err)
{
        struct unit *u = arg;
        struct fleet *f = u->fleet;

        unit_op_over(u);
        if (r >= 0) {
                adopt_change(u);
        } else if (r == -EOWNERDEAD && ++u->change.failures < MAX_FAILURES) {
                log_warn("cluster %s: %s; trying again", u->row.cluster, err->msg);
                unit_timer(u, RETRY_FIRST_US << u->change.failures);
                unit_settle_waiting(f);
                return;
        } else if (r != -ECANCELED) {
                if (may_be_open(r))
                        keep_open(u);
                refuse(u, err);
        }
        free(u->change.plan);
        u->change.plan = NULL;
        if (f->closing)
                return; /* the row says what is wanted: done, or done again, by the next engine */
        unit_settle(u);
        unit_settle_waiting(f);
}

/* GPUs of @p that are not the running plan's. */
static int new_gpus(const struct unit *u, const struct plan *p, char ***ret)
{
        for (char *const *id = p->gpus; id && *id; id++) {
                char *const *k = u->plan.gpus;

                while (k && *k && !str_eq(*k, *id))
                        k++;
                if ((!k || !*k) && strv_push(ret, *id) < 0)
                        return -ENOMEM;
        }
        return 0;
}

/* What the operation has to know of the GPUs of both plans; those that it gets are its own from here on,
 * in the journal, too.  Of those that it has, lost ones are passed over: only a change of GPUs wants to know
 * each, and says so itself. */
static int take_gpus(struct unit *u, const struct plan *p, struct err *e)
{
        const struct gpuhost *g = u->fleet->spec.host->gpuhost;
        const struct gpu_fleet *fleet = g ? gpuhost_fleet(g) : NULL;
        const struct plan lent = u->boot->plan;
        AUTO(strv_free) char **all = NULL, **more = NULL;
        int r = 0;

        if (strv_len(p->gpus) + strv_len(u->plan.gpus) == 0)
                return 0;
        if (!fleet)
                return err_set(e, -ENODEV, "gpuCount: this host has no GPU driver");
        if (new_gpus(u, p, &more) < 0 || (more && !(all = strv_dup(more))))
                return err_set(e, -ENOMEM, "out of memory");
        for (char *const *id = u->plan.gpus; id && *id && r >= 0; id++)
                if (gpu_fleet_find(fleet, *id))
                        r = strv_push(&all, *id);
        u->boot->plan.gpus = all;
        if (r >= 0 && all)
                r = boot_take_gpus(u->boot, fleet, e);
        u->boot->plan = lent;
        if (r >= 0 && more)
                r = unit_gpus_begin(u, more, e);
        if (r >= 0 && more && unit_save(u, false) < 0) /* no intent on disk, no act */
                r = err_set(e, -EIO, "the journal cannot be written");
        return r;
}

static int begin(struct unit *u, struct err *e)
{
        AUTO(plan_done) struct plan want = { 0 };
        struct image image = { 0 };
        char name[48];
        const struct order o = { .kind = ORDER_CHANGE,
                                 .plan = u->row.want_plan,
                                 .was = u->row.plan };
        const struct op_spec spec = {
                .name = name, .timeout_us = CHANGE_TIMEOUT_US, .done = on_changed, .arg = u
        };
        int r;

        assert(!u->op);
        (void) snprintf(name, sizeof name, "change %s", u->row.cluster);
        free(u->change.plan);
        u->change.plan = strdup(u->row.want_plan);
        u->change.generation = u->row.want_generation;
        if (!u->change.plan)
                return err_set(e, -ENOMEM, "out of memory");
        r = unit_decode_plan(u->row.want_plan, &want, e);
        if (r >= 0)
                r = unit_boot_open(u, e);
        if (r >= 0 && (r = take_gpus(u, &want, e)) < 0)
                unit_boot_close(u);
        if (r < 0)
                return r;
        u->boot->proc.init = u->row.init.pid;
        if (u->init_pidfd >= 0)
                u->boot->proc.init_pidfd = fcntl(u->init_pidfd, F_DUPFD_CLOEXEC, 3);
        if (strv_len(want.gpus) > 0) /* it may say what of the driver it needs */
                (void) unit_find_image(u, &image, NULL);
        u->boot->image = image; /* lent for the length of the call */
        r = unit_dispatch(u, &o, UNIT_OP_CHANGE, &spec, e);
        u->boot->image = (struct image){ 0 };
        image_done(&image);
        if (r < 0)
                unit_boot_close(u);
        return r;
}

/* A GPU that is not there, and not only because nobody has looked yet. */
static bool is_for_good(const struct unit *u, int r)
{
        const struct gpuhost *g = u->fleet->spec.host->gpuhost;

        return (r == -ENODEV || r == -EINVAL) && (!g || gpuhost_is_known(g));
}

void unit_change(struct unit *u)
{
        struct err e = { 0 };
        int r;

        if (!unit_same_start(u) || u->change.refused)
                return;
        if (u->fleet->cluster_ops >= u->fleet->spec.host->inst->conf.parallel_ops) {
                u->queued = true;
                return;
        }
        r = begin(u, &e);
        if (r >= 0)
                return;
        if (is_for_good(u, r)) {
                refuse(u, &e);
                return;
        }
        log_error("cluster %s: %s", u->row.cluster, e.msg);
        unit_timer(u, RETRY_FIRST_US << 5);
}
