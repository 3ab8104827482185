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

#include "base/log.h"
#include "base/str.h"
#include "engine/fleet/unit.h"

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

void unit_catch_up(struct unit *u)
{
        const uint32_t restarts = u->row.restarts;
        char reason[sizeof u->row.reason];
        struct err e = { 0 };

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
                refuse(u, err);
        }
        free(u->change.plan);
        u->change.plan = NULL;
        if (f->closing)
                return; /* the row says what is wanted: done, or done again, by the next engine */
        unit_settle(u);
        unit_settle_waiting(f);
}

static int begin(struct unit *u, struct err *e)
{
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
        r = unit_boot_open(u, e);
        if (r < 0)
                return r;
        u->boot->proc.init = u->row.init.pid;
        if (u->init_pidfd >= 0)
                u->boot->proc.init_pidfd = fcntl(u->init_pidfd, F_DUPFD_CLOEXEC, 3);
        r = unit_dispatch(u, &o, UNIT_OP_CHANGE, &spec, e);
        if (r < 0)
                unit_boot_close(u);
        return r;
}

void unit_change(struct unit *u)
{
        struct err e = { 0 };

        if (!unit_same_start(u) || u->change.refused)
                return;
        if (u->fleet->cluster_ops >= u->fleet->spec.host->inst->conf.parallel_ops) {
                u->queued = true;
                return;
        }
        if (begin(u, &e) < 0) {
                log_error("cluster %s: %s", u->row.cluster, e.msg);
                unit_timer(u, RETRY_FIRST_US << 5);
        }
}
