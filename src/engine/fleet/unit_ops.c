/* unit_ops.c - the two operations of a cluster: the boot flow forwards, and backwards.
 * The functions named *_body run in the operation process, everything else on the loop. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/fleet/unit.h"

#define BOOT_TIMEOUT_US (120 * US_PER_S)
#define UNDO_TIMEOUT_US (120 * US_PER_S)
#define RETRY_US        (2 * US_PER_S)
#define MAX_RETRIES     5U

bool unit_holds(const struct unit *u)
{
        return u->row.slot != 0;
}

static void boot_close(struct unit *u)
{
        if (!u->boot)
                return;
        u->boot->plan = (struct plan){ 0 }; /* was borrowed from the unit */
        boot_done(u->boot);
        free(u->boot);
        u->boot = NULL;
}

static void op_over(struct unit *u)
{
        u->op = NULL;
        u->op_kind = UNIT_OP_NONE;
        u->fleet->running_ops--;
        u->fleet->cluster_ops--;
        boot_close(u);
}

/* A struct boot with the names of the row; the plan is lent. */
static int boot_open(struct unit *u, struct err *e)
{
        u->boot = calloc(1, sizeof *u->boot);
        if (!u->boot)
                return err_set(e, -ENOMEM, "out of memory");
        boot_init(u->boot, u->fleet->spec.host);
        u->boot->plan = u->plan;
        u->boot->attempt = u->row.attempt;
        u->boot->slot = u->row.slot;
        memcpy(u->boot->claim, u->row.claim, sizeof u->boot->claim);
        return 0;
}

/* Slot and disk from the pools, or a slot of our own. */
static int take_resources(struct unit *u, struct err *e)
{
        struct pool_slot s;
        struct pool_disk d;
        int r;

        if (pool_take_slot(u->fleet->spec.pool, &s) >= 0) {
                u->boot->net = s.net;
                u->boot->userns = s.userns;
                u->boot->slice_ready = true;
                u->row.slot = s.slot;
                memcpy(u->row.claim, s.claim, sizeof u->row.claim);
        } else {
                r = claim_slot(u->fleet->spec.host->claims, u->row.cluster, u->row.generation,
                               &u->row.slot, e);
                if (r < 0)
                        return r;
                (void) snprintf(u->row.claim, sizeof u->row.claim, "%s", u->row.cluster);
        }
        u->boot->slot = u->row.slot;
        memcpy(u->boot->claim, u->row.claim, sizeof u->boot->claim);
        if (pool_take_disk(u->fleet->spec.pool, u->plan.container_disk_gib, &d) >= 0) {
                u->boot->disk_mnt = d.mnt;
                memcpy(u->boot->disk_pool_name, d.name, sizeof d.name);
        }
        return 0;
}

static json_t *proc_json(const struct proc_id *p)
{
        return json_pack("{s:i, s:I}", "pid", (int) p->pid, "start", (json_int_t) p->start_ticks);
}

/* In the operation. */
static void on_stage(void *arg, const char *stage)
{
        AUTO(json_put) json_t *j = json_pack("{s:s}", "stage", stage);

        if (j && str_eq(stage, "session"))
                (void) op_report(arg, j, NULL, 0);
}

/* In the operation. */
static int boot_body(struct frame_conn *out, void *arg, struct err *e)
{
        struct boot *b = arg;
        AUTO(json_put) json_t *j = NULL;
        struct proc_id monitor, init;
        int r = boot_run(b, on_stage, out, e);

        if (r >= 0)
                r = proc_identify(b->proc.monitor, &monitor);
        else
                return r;
        if (r >= 0)
                r = proc_identify(b->proc.init, &init);
        if (r == -ESRCH) { /* ended already: what it was does not matter, the exit status will tell */
                init = (struct proc_id){ .pid = b->proc.init };
                r = 0;
        }
        if (r < 0)
                return err_errno(e, r, "identify the first process");
        j = json_pack("{s:o, s:o, s:s}", "monitor", proc_json(&monitor), "init", proc_json(&init),
                      "address", b->lease.ipv4_text);
        if (!j)
                return err_set(e, -ENOMEM, "out of memory");
        return op_report(out, j, (int[]){ b->proc.monitor_pidfd, b->proc.init_pidfd }, 2);
}

static void read_proc(const json_t *j, struct proc_id *ret)
{
        ret->pid = (pid_t) json_integer_value(json_object_get(j, "pid"));
        ret->start_ticks = (uint64_t) json_integer_value(json_object_get(j, "start"));
        (void) proc_boot_id(ret->boot_id);
}

static void on_boot_report(void *arg, const struct frame_msg *m)
{
        struct unit *u = arg;
        struct err e = { 0 };

        if (jsonx_str(m->json, "stage")) {
                unit_event(u, CE_LAUNCH, NULL);
                return;
        }
        if (m->n_fds != 2)
                return;
        read_proc(json_object_get(m->json, "monitor"), &u->row.monitor);
        read_proc(json_object_get(m->json, "init"), &u->row.init);
        u->monitor_pidfd = fcntl(m->fds[0], F_DUPFD_CLOEXEC, 3);
        u->init_pidfd = fcntl(m->fds[1], F_DUPFD_CLOEXEC, 3);
        (void) snprintf(u->address, sizeof u->address, "%s", jsonx_str(m->json, "address"));
        u->row.started_us = clock_wall_us();
        u->row.oom_kills = 0;
        u->progress_pct = 100;
        unit_event(u, CE_STARTED, "%s", "");
        if (unit_watch(u, &e) < 0)
                log_error("cluster %s: %s", u->row.cluster, e.msg);
}

static void on_boot_done(void *arg, int r, const struct err *err)
{
        struct unit *u = arg;
        struct fleet *f = u->fleet;

        op_over(u);
        if (r < 0 && u->row.state != CS_RUNNING) {
                if (!unit_wanted(u)) {
                        unit_event(u, u->row.want_gone ? CE_TERMINATE : CE_STOP, NULL);
                } else if (r == -EOWNERDEAD && u->row.restarts < MAX_RETRIES) {
                        log_warn("cluster %s: %s; trying again", u->row.cluster, err->msg);
                        u->row.restarts++;
                        u->due_us = 0;
                        unit_event(u, CE_RETRY, "%s", err->msg);
                } else {
                        log_info("cluster %s: %s", u->row.cluster, err->msg);
                        unit_event(u, CE_FAIL, "%s", err->msg);
                }
        }
        unit_settle(u);
        unit_settle_waiting(f);
}

int unit_boot(struct unit *u, const struct image *image, struct err *e)
{
        char name[48];
        struct op_spec spec = { .name = name,
                                .body = boot_body,
                                .timeout_us = BOOT_TIMEOUT_US,
                                .report = on_boot_report,
                                .done = on_boot_done,
                                .arg = u };
        int r;

        assert(!u->op && u->row.slot == 0);
        (void) snprintf(name, sizeof name, "boot %s", u->row.cluster);
        u->row.attempt++;
        r = boot_open(u, e);
        if (r >= 0)
                r = take_resources(u, e);
        free(u->row.image_digest);
        u->row.image_digest = str_dup(image->digest);
        if (r >= 0 && !u->row.image_digest)
                r = err_set(e, -ENOMEM, "out of memory");
        if (r < 0) {
                boot_close(u);
                return r;
        }
        u->boot->image = *image; /* lent for the length of the fork */
        unit_event(u, CE_BIND, NULL);
        if (unit_save(u, false) < 0) { /* no intent on disk, no act */
                u->boot->image = (struct image){ 0 };
                boot_close(u);
                return err_set(e, -EIO, "the journal cannot be written");
        }
        spec.body_arg = u->boot;
        r = op_start(u->fleet->spec.loop, &spec, &u->op, e);
        u->boot->image = (struct image){ 0 };
        if (r < 0) {
                boot_close(u);
                return r;
        }
        u->op_kind = UNIT_OP_BOOT;
        u->fleet->running_ops++;
        u->fleet->cluster_ops++;
        return 0;
}

struct undo_args {
        struct boot *boot;
        bool graceful, volume;
};

static int undo_body(struct frame_conn *out, void *arg, struct err *e)
{
        struct undo_args *a = arg;

        (void) out;
        return boot_undo(a->boot, a->graceful, a->volume, e);
}

/* What the last boot held is free again. */
static void forget_boot(struct unit *u)
{
        unit_unwatch(u);
        u->row.slot = 0;
        u->row.claim[0] = '\0';
        u->row.monitor = u->row.init = (struct proc_id){ 0 };
        u->address[0] = '\0';
        u->usage = (struct slice_usage){ 0 };
}

static void on_undone(void *arg, int r, const struct err *err)
{
        struct unit *u = arg;
        struct fleet *f = u->fleet;

        op_over(u);
        if (r < 0) {
                if (r != -ECANCELED)
                        log_error("cluster %s: %s; trying again", u->row.cluster, err->msg);
                if (!f->closing)
                        unit_timer(u, RETRY_US);
                unit_settle_waiting(f);
                return;
        }
        if (u->row.state != CS_BACKOFF && u->row.attempt > 0)
                unit_read_exit(u, NULL, 0);
        forget_boot(u);
        (void) unit_save(u, false);
        if (u->row.state == CS_TERMINATING)
                unit_event(u, CE_RELEASED, NULL);
        unit_settle(u);
        unit_settle_waiting(f);
}

int unit_undo(struct unit *u, bool graceful, bool volume, struct err *e)
{
        char name[48];
        struct undo_args args = { .graceful = graceful, .volume = volume };
        struct op_spec spec = { .name = name,
                                .body = undo_body,
                                .body_arg = &args,
                                .timeout_us = UNDO_TIMEOUT_US +
                                              u->fleet->spec.host->inst->conf.grace_us,
                                .done = on_undone,
                                .arg = u };
        int r = boot_open(u, e);

        if (r < 0)
                return r;
        (void) snprintf(name, sizeof name, "%s %s", volume ? "terminate" : "stop", u->row.cluster);
        u->boot->proc.monitor = u->row.monitor.pid;
        u->boot->proc.init = u->row.init.pid;
        if (u->monitor_pidfd >= 0)
                u->boot->proc.monitor_pidfd = fcntl(u->monitor_pidfd, F_DUPFD_CLOEXEC, 3);
        if (u->init_pidfd >= 0)
                u->boot->proc.init_pidfd = fcntl(u->init_pidfd, F_DUPFD_CLOEXEC, 3);
        args.boot = u->boot;
        r = op_start(u->fleet->spec.loop, &spec, &u->op, e);
        if (r < 0) {
                boot_close(u);
                return r;
        }
        u->op_kind = UNIT_OP_UNDO;
        u->fleet->running_ops++;
        u->fleet->cluster_ops++;
        return 0;
}
