/* fleet.c - the fleet as the node channel sees it.  Engine process, loop thread. */
#include "engine/fleet/fleet.h"

#include <errno.h>
#include <stdio.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/fleet/kept.h"
#include "engine/fleet/unit.h"

#define USAGE_EVERY_US   (5 * US_PER_S)
#define UNDO_PATIENCE_US (5 * US_PER_S) /* at the end: most releases take a fraction of one */

static int on_usage(sd_event_source *s, uint64_t usec, void *arg)
{
        struct fleet *f = arg;

        (void) usec;
        for (struct unit *u = f->units; u; u = u->next) {
                char name[32];

                if ((u->wants_login && u->row.state == CS_PULLING) ||
                    (u->wants_secrets && u->row.state == CS_ACCEPTED))
                        unit_report(u); /* the control plane may have lost sight of it */
                if (u->row.state != CS_RUNNING)
                        continue;
                boot_slice_name(u->row.slot, name);
                if (slice_usage(f->spec.host->slices, name, &u->usage, NULL) < 0)
                        continue;
                unit_oom_kills(u, u->usage.oom_kills);
                unit_refused(u, false);
                unit_report(u);
        }
        journal_tend(f->spec.journal);
        if (sd_event_source_set_time_relative(s, USAGE_EVERY_US) < 0)
                return -EIO;
        return sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

int fleet_new(const struct fleet_spec *spec, struct fleet **ret, struct err *e)
{
        AUTO(fleet_free) struct fleet *f = calloc(1, sizeof *f);
        int r;

        if (!f)
                return err_set(e, -ENOMEM, "out of memory");
        f->spec = *spec;
        if (security_lacks(f->spec.host, &f->lacks) < 0 ||
            limits_lack(spec->host->slices, &f->lacks) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        r = fleet_adopt(f, e);
        if (r >= 0) /* from here on operations act on clusters */
                r = net_host_settle(spec->host->net, fleet_net_policy, f, e);
        if (r < 0)
                return r;
        r = sd_event_add_time_relative(spec->loop, &f->usage_src, CLOCK_MONOTONIC, USAGE_EVERY_US,
                                       100 * US_PER_MS, on_usage, f);
        if (r < 0)
                return err_errno(e, r, "fleet");
        for (struct unit *u = f->units; u; u = u->next)
                unit_route(u);
        for (struct unit *u = f->units; u; u = u->next)
                unit_settle(u);
        *ret = TAKE(f);
        return 0;
}

static bool any_undo(const struct fleet *f)
{
        for (const struct unit *u = f->units; u; u = u->next)
                if (u->op_kind == UNIT_OP_UNDO || u->gpu_job)
                        return true;
        return false;
}

void fleet_stop(struct fleet *f)
{
        uint64_t until = clock_mono_us() + UNDO_PATIENCE_US;

        f->closing = true;
        for (struct unit *u = f->units; u; u = u->next)
                if (u->op_kind != UNIT_OP_UNDO)
                        op_cancel(u->op);
        while (any_undo(f) && clock_mono_us() < until &&
               sd_event_run(f->spec.loop, 100 * US_PER_MS) >= 0)
                ;
        for (struct unit *u = f->units; u; u = u->next)
                op_cancel(u->op);
        pull_free_all(f);
        exec_free_all(f);
        while (f->running_ops > 0 && sd_event_run(f->spec.loop, 100 * US_PER_MS) >= 0)
                ;
}

struct fleet *fleet_free(struct fleet *f)
{
        if (!f)
                return NULL;
        fleet_stop(f);
        sd_event_source_disable_unref(f->usage_src);
        kept_free_all(f);
        while (f->units)
                unit_remove(f->units);
        (void) strv_free(f->lacks);
        free(f);
        return NULL;
}

/* A cluster that this engine has never heard of. */
static int create(struct fleet *f, const char *cluster, uint64_t generation, bool running,
                  const char *plan, struct unit **ret, struct err *e)
{
        struct journal_row row = { .generation = generation,
                                   .plan = (char *) (uintptr_t) plan,
                                   .state = running ? CS_ACCEPTED : CS_EXITED,
                                   .want_generation = generation,
                                   .want_running = running };
        int r;

        (void) snprintf(row.cluster, sizeof row.cluster, "%s", cluster);
        r = unit_new(f, &row, false, ret, e);
        if (r < 0 || running) /* one that is to run is saved, with its names, before its first act;
                               * until then a crash loses nothing that will not be said again */
                return r;
        r = unit_save(*ret, false);
        if (r < 0) {
                unit_remove(*ret); /* what is not on disk was never accepted */
                *ret = NULL;
                return err_set(e, r, "the journal cannot be written");
        }
        unit_report(*ret); /* nothing will happen to it that would be reported */
        return 0;
}

/* It stays what it was, and holds what it held, so only its own report may say so; the control plane
 * sees by it that the order has not arrived, and repeats it. */
static int refuse_update(struct unit *u, const struct err *why)
{
        log_warn("cluster %s: a new order cannot be taken: %s", u->row.cluster, why->msg);
        (void) snprintf(u->row.reason, sizeof u->row.reason, "a new order cannot be taken: %.400s",
                        why->msg);
        u->refused = true;
        unit_report(u);
        return 0;
}

/* An order could be taken: that an earlier one could not is over. */
static void taken(struct unit *u)
{
        if (u->refused)
                u->row.reason[0] = '\0';
        u->refused = false;
}

/* Newer order for a cluster that is here. */
static int update(struct unit *u, uint64_t generation, bool running, const char *plan,
                  struct err *e)
{
        struct plan check = { 0 };
        AUTO(json_put) json_t *j = jsonx_parse(plan, strlen(plan), e);
        const struct journal_row before = u->row;
        AUTO(free) char *text = NULL;
        uint64_t check_boot;
        int r = j ? plan_decode(j, &check, e) : -EINVAL;

        check_boot = plan_start(&check);
        plan_done(&check);
        if (r < 0)
                return r;
        if (generation > u->row.want_generation) {
                text = strdup(plan);
                if (!text)
                        return err_set(e, -ENOMEM, "out of memory");
                u->row.want_plan = text;
                u->row.want_generation = generation;
        }
        u->row.want_running = running;
        r = unit_save(u, false);
        if (r < 0) { /* what is not on disk was never accepted */
                u->row.want_plan = before.want_plan;
                u->row.want_generation = before.want_generation;
                u->row.want_running = before.want_running;
                return err_set(e, r, "the journal cannot be written");
        }
        taken(u);
        if (text) {
                unit_change_forget(u);
                u->want_boot = check_boot;
        }
        u->start_again = running && generation == u->row.generation &&
                         (u->start_again || !before.want_running);
        if (text)
                text = before.want_plan; /* freed at the end, the new one is the row's */
        return 0;
}

int fleet_assign(struct fleet *f, const char *cluster, uint64_t generation, bool running,
                 const json_t *plan, const struct fleet_login *login, const json_t *secrets,
                 const char *ssh_keys, struct err *e)
{
        uint64_t now = clock_mono_us();
        AUTO(free) char *text = jsonx_dump(plan);
        struct unit *u = unit_find(f, cluster);
        bool again;
        int r = 0;

        if (!text)
                return err_set(e, -ENOMEM, "out of memory");
        if (!plan_cluster_id_ok(cluster))
                return err_set(e, -EINVAL, "cluster: '%.32s' is not a cluster id", cluster);
        if (u && generation < u->row.want_generation)
                return 0; /* an old order that came late */
        again = u && generation == u->row.want_generation && running == u->row.want_running;
        if (!u)
                r = create(f, cluster, generation, running, text, &u, e);
        else if (!again && (r = update(u, generation, running, text, e)) < 0)
                return refuse_update(u, e);
        if (r < 0)
                return r;
        unit_ssh_keys(u, ssh_keys);
        if (!again) /* else the clock runs since the first time, or has stopped */
                u->asked_us = now;
        if (login && generation == u->row.generation)
                unit_take_login(u, login);
        if (secrets && generation == u->row.generation)
                unit_take_secrets(u, secrets);
        unit_settle(u);
        return 0;
}

/* Durable before anything is done about it: a cluster that is reported gone is forgotten by the
 * control plane, and must not come back after a crash. */
static int mark_gone(struct unit *u, struct err *e)
{
        const bool was_running = u->row.want_running;
        int r;

        u->row.want_gone = true;
        u->row.want_running = false;
        r = unit_save(u, true);
        if (r < 0) {
                u->row.want_gone = false;
                u->row.want_running = was_running;
                return err_set(e, r, "the journal cannot be written");
        }
        taken(u);
        return 0;
}

int fleet_tombstone(struct fleet *f, const char *cluster, uint64_t generation, struct err *e)
{
        struct unit *u = unit_find(f, cluster);
        AUTO(json_put) json_t *gone = NULL;
        struct err why = { 0 };
        int r;

        (void) e;
        if (!u) { /* never came here, or was forgotten: say that nothing is left */
                gone = json_pack("{s:s, s:s, s:I, s:s, s:b}", "type", "report", "cluster", cluster,
                                 "generation", (json_int_t) generation, "state", "terminated",
                                 "released", 1);
                if (gone && f->spec.report)
                        f->spec.report(f->spec.arg, gone);
                return 0;
        }
        if (generation < u->row.want_generation)
                return 0;
        if (!u->row.want_gone && (r = mark_gone(u, &why)) < 0)
                return refuse_update(u, &why);
        unit_settle(u);
        if (u->row.state == CS_TERMINATED)
                unit_report(u);
        return 0;
}

int fleet_forget(struct fleet *f, const char *cluster, struct err *e)
{
        struct unit *u = unit_find(f, cluster);
        int r;

        if (!u || u->row.state != CS_TERMINATED)
                return 0;
        r = journal_forget(f->spec.journal, cluster, e);
        if (r >= 0)
                unit_remove(u);
        return r;
}

void fleet_report_all(struct fleet *f)
{
        for (struct unit *u = f->units; u; u = u->next)
                unit_report(u);
}

void fleet_each_name(const struct fleet *f,
                     void (*fn)(void *arg, uint32_t slot, const char *account, const char *cluster),
                     void *arg)
{
        for (const struct unit *u = f->units; u; u = u->next)
                if (u->row.slot && u->plan.account)
                        fn(arg, u->row.slot, u->plan.account, u->row.cluster);
}

void fleet_security(struct fleet *f, uint32_t slot, const char *kind, const char *message)
{
        for (struct unit *u = f->units; u; u = u->next)
                if (u->row.slot == slot)
                        unit_say_security(u, kind, message);
}

size_t fleet_count(const struct fleet *f)
{
        size_t n = 0;

        for (const struct unit *u = f->units; u; u = u->next)
                n++;
        return n;
}

size_t fleet_count_held(const struct fleet *f)
{
        size_t n = 0;

        for (const struct unit *u = f->units; u; u = u->next)
                n += unit_holds(u) || u->row.gpus || u->row.ports;
        return n;
}

int fleet_stats(struct fleet *f, const char *cluster, json_t **ret, struct err *e)
{
        struct unit *u = unit_find(f, cluster);
        struct slice_usage usage;
        char name[32];
        int r;

        if (!u || u->row.state != CS_RUNNING)
                return err_set(e, -ENOENT, "cluster %s is not running", cluster);
        boot_slice_name(u->row.slot, name);
        r = slice_usage(f->spec.host->slices, name, &usage, e);
        if (r < 0)
                return r;
        *ret = json_pack("{s:I, s:I, s:I, s:I, s:I}", "cpu_us", (json_int_t) usage.cpu_us,
                         "memory_bytes", (json_int_t) usage.memory_bytes, "memory_peak_bytes",
                         (json_int_t) usage.memory_peak_bytes, "oom_kills",
                         (json_int_t) usage.oom_kills, "pids", (json_int_t) usage.pids);
        return *ret ? 0 : err_set(e, -ENOMEM, "out of memory");
}

size_t fleet_images(void *fleet, uint64_t *ret, size_t max)
{
        struct fleet *f = fleet;
        size_t n = 0;

        for (struct unit *u = f->units; u && n < max; u = u->next)
                if (u->image_id && (unit_holds(u) || u->op))
                        ret[n++] = u->image_id;
        return n;
}

char **fleet_images_in_use(struct fleet *f, const char *account)
{
        char **v = calloc(fleet_count(f) + 1, sizeof *v);
        size_t n = 0;

        for (struct unit *u = f->units; v && u; u = u->next)
                if (u->row.image_digest && (unit_holds(u) || u->op) &&
                    (!account || str_eq(u->plan.account, account)))
                        v[n++] = u->row.image_digest;
        return v;
}
