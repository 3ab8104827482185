/* unit_ops.c - the two great operations of a cluster: the boot flow forwards, and backwards.
 * Engine process, loop thread; what the operations do is in boot/order.c. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/disk/disk.h"
#include "engine/fleet/unit.h"
#include "engine/gpu/gpuhost.h"
#include "model/secret.h"

#define BOOT_TIMEOUT_US (120 * US_PER_S)
#define UNDO_TIMEOUT_US (120 * US_PER_S)
#define RETRY_FIRST_US  (20 * US_PER_MS)
#define RETRY_MAX_US    (5 * US_PER_S)

bool unit_holds(const struct unit *u)
{
        return u->row.slot != 0;
}

/* Only without an operation.  A disk from the pool is found by its pool's name until the disk stage
 * has given it the boot's: a boot that never came so far has nobody else to remove it. */
void unit_boot_close(struct unit *u)
{
        if (!u->boot)
                return;
        if (*u->boot->disk_pool_name)
                (void) disk_remove(u->fleet->spec.host->disks, u->boot->disk_pool_name);
        u->boot->plan = (struct plan){ 0 }; /* was borrowed from the unit */
        boot_done(u->boot);
        free(u->boot);
        u->boot = NULL;
}

void unit_op_over(struct unit *u)
{
        u->op = NULL;
        u->op_kind = UNIT_OP_NONE;
        u->op_waits = false;
        u->fleet->running_ops--;
        u->fleet->cluster_ops--;
        unit_boot_close(u);
}

/* A struct boot with the names of the row; the plan is lent. */
int unit_boot_open(struct unit *u, struct err *e)
{
        u->boot = calloc(1, sizeof *u->boot);
        if (!u->boot)
                return err_set(e, -ENOMEM, "out of memory");
        boot_init(u->boot, u->fleet->spec.host);
        u->boot->plan = u->plan;
        u->boot->attempt = u->row.attempt;
        u->boot->slot = u->row.slot;
        u->boot->net_account = u->row.net_account;
        memcpy(u->boot->claim, u->row.claim, sizeof u->boot->claim);
        unit_ports(u, &u->boot->ports);
        (void) unit_public_ip(u, u->boot->public_ip);
        return 0;
}

/* Before its first process runs, which may ask for a name at once. */
static void unit_named(const struct unit *u, bool is_here)
{
        const struct fleet_spec *s = &u->fleet->spec;

        if (s->named && u->row.slot)
                s->named(s->names, u->row.slot, is_here ? u->plan.account : NULL, u->row.cluster);
}

/* Slot and disk from the pools, or a slot of our own. */
static int take_resources(struct unit *u, struct err *e)
{
        struct pool_slot s;
        struct pool_disk d;
        int r;

        if (pool_take_slot(u->fleet->spec.pool, &s) >= 0) {
                u->boot->userns = s.userns;
                u->boot->shell = s.shell;
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
        unit_net_begin(u);
        u->boot->net_account = u->row.net_account;
        memcpy(u->boot->claim, u->row.claim, sizeof u->boot->claim);
        unit_named(u, true);
        if (pool_take_disk(u->fleet->spec.pool, u->plan.container_disk_gib, &d) >= 0) {
                u->boot->disk_mnt = d.mnt;
                memcpy(u->boot->disk_pool_name, d.name, sizeof d.name);
        }
        return 0;
}

/* What vmm-gpu says of the plan's GPUs, at this moment. */
static int take_gpus(struct unit *u, struct err *e)
{
        const struct gpuhost *g = u->fleet->spec.host->gpuhost;

        if (u->plan.gpu_count == 0)
                return 0;
        if (!g)
                return err_set(e, -ENODEV, "gpuCount: this host has no GPU driver");
        return boot_take_gpus(u->boot, gpuhost_fleet(g), e);
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
        int r = 0;

        if (jsonx_str(m->json, "stage")) {
                unit_event(u, CE_LAUNCH, NULL);
                return;
        }
        if (m->n_fds != 2) /* lost on the way, for want of descriptors: on_boot_done() sees to it */
                return;
        read_proc(json_object_get(m->json, "monitor"), &u->row.monitor);
        read_proc(json_object_get(m->json, "init"), &u->row.init);
        u->monitor_pidfd = fcntl(m->fds[0], F_DUPFD_CLOEXEC, 3);
        u->init_pidfd = fcntl(m->fds[1], F_DUPFD_CLOEXEC, 3);
        if (u->monitor_pidfd < 0 || u->init_pidfd < 0)
                r = err_errno(&e, -errno, "keep its descriptors");
        (void) snprintf(u->address, sizeof u->address, "%s", jsonx_str(m->json, "address"));
        (void) snprintf(u->address6, sizeof u->address6, "%s", jsonx_str(m->json, "address6"));
        u->row.started_us = clock_wall_us();
        u->boot_us = u->asked_us ? clock_mono_us() - u->asked_us : 0;
        u->asked_us = 0;
        u->row.oom_kills = 0;
        u->refusals = refused_free(u->refusals); /* its group is a new one */
        u->retries = u->cpu_waits = 0;
        u->progress_pct = 100;
        unit_read_label(u);
        unit_ready_end(u);
        unit_ready_begin(u);
        unit_event(u, CE_STARTED, "%s", "");
        unit_gpus_look(u);
        if (r >= 0)
                r = unit_watch(u, &e);
        if (r < 0) /* on_boot_done() settles: what nobody watches is ended and started again */
                unit_unwatched(u, &e);
}

/* The operation ended well and yet nobody has told us what runs. */
static bool never_heard(const struct unit *u)
{
        return u->row.state == CS_BINDING || u->row.state == CS_STARTING;
}

static void on_boot_done(void *arg, int r, const struct err *err)
{
        struct unit *u = arg;
        struct fleet *f = u->fleet;
        struct err lost = { 0 };

        unit_op_over(u);
        if (r >= 0 && never_heard(u)) {
                r = err_set(&lost, -EOWNERDEAD, "the host lost sight of it while it started");
                err = &lost;
        }
        if (r == -ECANCELED && f->closing)
                return; /* the row says how far it came: undone and booted again at the next start */
        if (r == -EBADMSG)
                fleet_look_for_damage(f);
        if (r < 0 && u->row.state != CS_RUNNING) {
                if (!unit_wanted(u)) {
                        unit_event(u, u->row.want_gone ? CE_TERMINATE : CE_STOP, NULL);
                } else if (r == -EUSERS) {
                        unit_wait_cpus(u, err);
                        /* a damaged image is quarantined by now: it is pulled anew */
                } else if (!unit_retry(u, r == -EBADMSG ? -EOWNERDEAD : r, err)) {
                        log_info("cluster %s: %s", u->row.cluster, err->msg);
                        unit_event(u, CE_FAIL, "%s", err->msg);
                }
        }
        unit_settle(u);
        unit_settle_waiting(f);
}

/* Send the order; the struct boot and its descriptors stay here until the operation is over. */
int unit_dispatch(struct unit *u, const struct order *o, enum unit_op kind,
                  const struct op_spec *spec, struct err *e)
{
        int fds[ORDER_MAX_FDS], r;
        size_t n = 0;
        AUTO(json_put) json_t *j = order_encode(o, u->boot, fds, &n);

        if (!j)
                return err_set(e, -ENOMEM, "out of memory");
        r = op_order(u->fleet->spec.runner, spec, j, fds, n, &u->op, e);
        if (r < 0)
                return r;
        u->op_kind = kind;
        u->fleet->running_ops++;
        u->fleet->cluster_ops++;
        return 0;
}

int unit_boot(struct unit *u, const struct image *image, struct err *e)
{
        char name[48];
        const struct order o = { .kind = ORDER_BOOT, .plan = u->row.plan };
        const struct op_spec spec = { .name = name,
                                      .timeout_us = BOOT_TIMEOUT_US,
                                      .report = on_boot_report,
                                      .done = on_boot_done,
                                      .arg = u };
        int r;

        assert(!u->op && u->row.slot == 0);
        (void) snprintf(name, sizeof name, "boot %s", u->row.cluster);
        u->row.attempt++;
        u->cpus_taken = u->start_again = false;
        r = unit_ports_begin(u, e);
        if (r >= 0)
                r = unit_boot_open(u, e);
        if (r >= 0)
                r = take_gpus(u, e);
        if (r >= 0)
                r = unit_gpus_begin(u, u->plan.gpus, e);
        if (r >= 0)
                r = take_resources(u, e);
        free(u->row.image_digest);
        u->row.image_digest = str_dup(image->use);
        u->image_id = image->id;
        free(u->damage);
        u->damage = NULL;
        if (r >= 0 && !u->row.image_digest)
                r = err_set(e, -ENOMEM, "out of memory");
        if (r >= 0) /* reported below: the order goes first */
                r = cluster_step(&u->row.state, CE_BIND, e);
        if (r >= 0 && unit_save(u, false) < 0) /* no intent on disk, no act */
                r = err_set(e, -EIO, "the journal cannot be written");
        if (r >= 0) {
                u->boot->image = *image; /* lent for the length of the call */
                u->boot->secrets = TAKE(u->secrets);
                u->boot->ssh_keys = str_dup(u->row.ssh_keys);
                r = unit_dispatch(u, &o, UNIT_OP_BOOT, &spec, e);
                u->boot->image = (struct image){ 0 };
                u->boot->secrets = secrets_free(u->boot->secrets);
        }
        if (r < 0)
                unit_boot_close(u);
        else
                unit_report(u);
        return r;
}

/* What the last boot held is free again. */
static void forget_boot(struct unit *u)
{
        unit_unwatch(u);
        unit_named(u, false);
        u->row.slot = 0;
        u->row.claim[0] = '\0';
        u->row.monitor = u->row.init = (struct proc_id){ 0 };
        unit_net_end(u);
        u->usage = (struct slice_usage){ 0 };
}

/* What was killed is tried again at once; what keeps failing, less and less often. */
static uint64_t undo_retry_us(struct unit *u)
{
        uint64_t delay = RETRY_FIRST_US << (u->undo_failures < 10 ? u->undo_failures : 10);

        u->undo_failures++;
        return delay < RETRY_MAX_US ? delay : RETRY_MAX_US;
}

static void on_undone(void *arg, int r, const struct err *err)
{
        struct unit *u = arg;
        struct fleet *f = u->fleet;

        unit_op_over(u);
        if (r < 0) {
                if (r != -ECANCELED)
                        log_error("cluster %s: %s; trying again", u->row.cluster, err->msg);
                if (!f->closing)
                        unit_timer(u, undo_retry_us(u));
                unit_settle_waiting(f);
                return;
        }
        u->undo_failures = 0;
        if (u->row.state != CS_BACKOFF && u->row.attempt > 0)
                unit_read_exit(u, NULL, 0);
        forget_boot(u);
        if (f->spec.released)
                f->spec.released(f->spec.upkeep);
        (void) unit_save(u, false);
        if (u->row.state == CS_TERMINATING) {
                if (unit_gpus_back(u))
                        unit_event(u, CE_RELEASED, NULL);
                else
                        u->gpus_last = u->gpu_job != NULL;
        }
        unit_settle(u);
        unit_settle_waiting(f);
}

int unit_undo(struct unit *u, bool graceful, bool volume, struct err *e)
{
        char name[48];
        /* names are all that it needs, and all that an unreadable plan has */
        AUTO(free)
        char *plan = str_fmt("{\"cluster\":\"%s\",\"generation\":%llu}", u->row.cluster,
                             (unsigned long long) u->row.generation);
        const struct order o = {
                .kind = ORDER_UNDO, .plan = plan, .graceful = graceful, .volume = volume
        };
        const struct op_spec spec = { .name = name,
                                      .timeout_us = UNDO_TIMEOUT_US +
                                                    u->fleet->spec.host->inst->conf.grace_us,
                                      .done = on_undone,
                                      .arg = u };
        int r = plan ? unit_boot_open(u, e) : err_set(e, -ENOMEM, "out of memory");

        if (r < 0)
                return r;
        (void) snprintf(name, sizeof name, "%s %s", volume ? "terminate" : "stop", u->row.cluster);
        u->boot->proc.monitor = u->row.monitor.pid;
        u->boot->proc.init = u->row.init.pid;
        if (u->monitor_pidfd >= 0)
                u->boot->proc.monitor_pidfd = fcntl(u->monitor_pidfd, F_DUPFD_CLOEXEC, 3);
        if (u->init_pidfd >= 0)
                u->boot->proc.init_pidfd = fcntl(u->init_pidfd, F_DUPFD_CLOEXEC, 3);
        r = unit_dispatch(u, &o, UNIT_OP_UNDO, &spec, e);
        if (r < 0)
                unit_boot_close(u);
        else
                u->op_waits = graceful;
        return r;
}
