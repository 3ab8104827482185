/* report.c - what the engine says about a cluster, taken into the record.  tensorone-api.
 *
 * What always holds: only the present generation counts; resources are freed by `released` and by
 * nothing else; a cluster that we do not know is never destroyed. */
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "control/plane/plane_priv.h"

static void unknown(struct plane *p, const struct node_report *r)
{
        if (r->state == CS_TERMINATED)
                node_forget(p->node, r->cluster, r->generation);
        else
                log_warn(
                        "the engine has cluster %s (%s), this store has no record of it; left alone",
                        r->cluster, cluster_state_name(r->state));
}

static bool is_old(const struct cluster *c, const struct node_report *r)
{
        /* the end of all: the engine may never have heard of the last generations */
        if (r->state == CS_TERMINATED && c->desired == DESIRED_TERMINATED)
                return r->generation > c->generation;
        if (r->generation != c->generation) {
                if (r->generation > c->generation)
                        log_warn(
                                "cluster %s: the engine is at generation %llu, this store at %llu; left alone",
                                c->id, (unsigned long long) r->generation,
                                (unsigned long long) c->generation);
                return true;
        }
        return r->epoch < c->epoch || (r->epoch == c->epoch && r->seq < c->seq);
}

/* The engine's own word shows that it has not taken what it was told. */
static bool is_behind(const struct cluster *c, const struct node_report *r)
{
        if (r->state == CS_TERMINATED || r->state == CS_TERMINATING)
                return false;
        if (c->desired == DESIRED_TERMINATED)
                return true;
        if (r->generation != c->generation)
                return r->generation < c->generation;
        return c->desired == DESIRED_STOPPED && r->state != CS_STOPPING &&
               cluster_holds_resources(r->state);
}

static void take_usage(struct cluster *c, const struct node_report *r)
{
        uint64_t now = clock_mono_us(), cpu = r->cpu_us - c->usage.cpu_us;
        uint64_t span = now - c->usage.at_us;

        if (!r->has_usage)
                return;
        if (c->usage.at_us && r->cpu_us >= c->usage.cpu_us && span > 0)
                c->usage.cpu_pct = (uint32_t) (cpu * 100 / span / (c->vcpu ? c->vcpu : 1));
        if (c->usage.cpu_pct > 100)
                c->usage.cpu_pct = 100;
        c->usage.cpu_us = r->cpu_us;
        c->usage.memory_bytes = r->memory_bytes;
        c->usage.pressure_cpu = r->pressure_cpu;
        c->usage.pressure_memory = r->pressure_memory;
        c->usage.pressure_io = r->pressure_io;
        c->usage.at_us = now;
}

/* We stopped it for want of room, which the engine does not know. */
static bool keeps_reason(const struct cluster *c)
{
        return c->desired == DESIRED_STOPPED && c->reason && str_after(c->reason, NO_INSTANCES);
}

/* NULL and "" are the same. */
static bool same_text(const char *a, const char *b)
{
        return str_eq(str_empty(a) ? NULL : a, str_empty(b) ? NULL : b);
}

/* Take over what is worth keeping; true when the stored record changed. */
static bool take_facts(struct cluster *c, const struct node_report *r)
{
        bool changed =
                (!keeps_reason(c) && !str_eq(c->reason, str_empty(r->reason) ? NULL : r->reason)) ||
                c->started_us != r->started_us || c->exit_code != r->exit_code ||
                c->restarts != r->restarts || c->oom_kills != r->oom_kills ||
                (!str_empty(r->address) && !str_eq(c->address, r->address)) ||
                !same_text(c->published, r->ports) || !same_text(c->public_ip, r->public_ip);

        if (!keeps_reason(c))
                (void) text_set(&c->reason, r->reason);
        if (!str_empty(r->address))
                (void) text_set(&c->address, r->address);
        (void) text_set(&c->published, r->ports);
        (void) text_set(&c->public_ip, r->public_ip);
        c->started_us = r->started_us;
        c->exit_code = r->exit_code;
        c->restarts = r->restarts;
        c->oom_kills = r->oom_kills;
        c->progress_pct = r->progress_pct;
        c->progress_bytes = r->progress_bytes;
        c->progress_total_bytes = r->progress_total_bytes;
        c->progress_bytes_per_s = r->progress_bytes_per_s;
        if (r->security) {
                json_decref(c->security);
                c->security = json_deep_copy(r->security);
        }
        return changed;
}

/* True when the state is worth a write: the short ones in between come again after a crash. */
static bool take_state(struct cluster *c, const struct node_report *r)
{
        enum cluster_state was = c->state;

        /* it still runs because our word has not reached it yet */
        if (c->desired != DESIRED_RUNNING && cluster_holds_resources(r->state) &&
            r->state != CS_TERMINATING)
                return false;
        c->state = r->state;
        return was != c->state && c->state != CS_PULLING && c->state != CS_BINDING &&
               c->state != CS_STARTING;
}

/* True when it answers for the first time in this generation; again after each crash is no news. */
static bool take_ready(struct cluster *c, const struct node_report *r, bool *changed)
{
        const bool ready = r->ready && c->state == CS_RUNNING;
        const bool first = ready && c->ready_generation != c->generation;

        *changed = *changed || first || ready != c->ready;
        c->ready = ready;
        if (first)
                c->ready_generation = c->generation;
        return first;
}

/* It ended or failed for good by itself: from now on it is meant to be stopped. */
static bool settle_exit(struct cluster *c)
{
        if (c->desired != DESIRED_RUNNING || c->state != CS_EXITED)
                return false;
        c->desired = DESIRED_STOPPED;
        (void) status_change_set(c, "Exited", str_empty(c->reason) ? "itself" : "failure",
                                 clock_wall_us());
        return true;
}

uint64_t plane_boots(const struct plane *p)
{
        return p->boots;
}

/* The record goes, what was found of its GPUs stays in the journal for people. */
static void remove_reported(struct plane *p, struct cluster *c, const struct node_report *r)
{
        struct store_txn *t = store_txn_new();

        if (t && receipts_take(p, t, c, r->gpu_receipts))
                store_submit(p->store, t, NULL, NULL);
        else
                (void) store_txn_free(t);
        plane_remove(p, c);
}

void report_apply(struct plane *p, const struct node_report *r)
{
        struct cluster *c = map_get(p->clusters, r->cluster);
        struct store_txn *t;
        bool changed, ended, first;

        if (!c) {
                unknown(p, r);
                return;
        }
        plane_repeat(p, c, is_behind(c, r));
        if (is_old(c, r) || p->broken)
                return;
        c->epoch = r->epoch;
        c->seq = r->seq;
        if (c->desired == DESIRED_TERMINATED) {
                if (r->state == CS_TERMINATED && r->released)
                        remove_reported(p, c, r);
                return;
        }
        take_usage(c, r);
        p->boots += r->started_us && r->started_us != c->started_us;
        c->wants_login = r->credentials_wanted;
        c->wants_secrets = r->secrets_wanted;
        changed = take_facts(c, r);
        changed = take_state(c, r) || changed;
        first = take_ready(c, r, &changed);
        ended = settle_exit(c);
        t = store_txn_new();
        if (t && ended)
                event_add(p, t, c, "exited");
        if (t && first)
                event_add(p, t, c, "ready");
        if (t && receipts_take(p, t, c, r->gpu_receipts))
                changed = true;
        if (t && c->applied && str_empty(r->refused)) {
                update_done(p, c, t);
                changed = true;
        }
        if (t && r->released && !c->released && c->desired != DESIRED_RUNNING) {
                c->released = true;
                ledger_release(p->ledger, c->id, false, t);
                changed = true;
        }
        if (t && changed) {
                store_put(t, ST_CLUSTER, cluster_to_row(c));
                store_submit(p->store, t, NULL, NULL);
        } else {
                (void) store_txn_free(t);
        }
        if ((c->wants_login || c->wants_secrets) && c->open == 0)
                plane_push(p, c);
        plane_tell(p, r->cluster, c);
        if (c->applied && !str_empty(r->refused) && c->desired == DESIRED_RUNNING && c->open == 0) {
                update_refused(p, c, r->refused);
                return;
        }
        if (r->cpus_taken && c->desired == DESIRED_RUNNING && c->open == 0)
                cluster_do_move(p, c);
        else
                idle_look(p, c, r);
}
