/* idle.c - the idle stop: what is known of a cluster's use becomes a sample, model/idle.h decides.
 * tensorone-api, loop thread.
 *
 * What always holds: a cluster is warned in an event before anything is done to it, and nothing is
 * done while a change of it is on its way to the disk. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "control/plane/plane_priv.h"

#define BY "idleTimeout"

/* ---- sessions ---- */

struct plane_use *plane_use_new(struct plane *p, const char *id)
{
        struct plane_use *u = calloc(1, sizeof *u);

        if (u)
                u->id = strdup(id);
        if (!u || !u->id) {
                free(u);
                return NULL;
        }
        u->plane = p;
        u->next = p->uses;
        if (u->next)
                u->next->prev = u;
        p->uses = u;
        return u;
}

struct plane_use *plane_use_free(struct plane_use *u)
{
        struct cluster *c;

        if (!u)
                return NULL;
        c = map_get(u->plane->clusters, u->id);
        if (c)
                c->had_session = true; /* perhaps between two looks */
        if (u->prev)
                u->prev->next = u->next;
        else
                u->plane->uses = u->next;
        if (u->next)
                u->next->prev = u->prev;
        free(u->id);
        free(u);
        return NULL;
}

static uint32_t sessions_of(const struct plane *p, const char *id)
{
        uint32_t n = 0;

        for (const struct plane_use *u = p->uses; u; u = u->next)
                n += str_eq(u->id, id);
        return n;
}

/* ---- GPUs ---- */

void idle_note_gpu(struct plane *p, const struct gpu_telemetry *t)
{
        const char *holder = plane_gpu_holder(p, t->uuid);
        struct cluster *c = holder ? map_get(p->clusters, holder) : NULL;

        if (c && t->value[GM_UTIL_PCT] != GPU_UNKNOWN && t->value[GM_UTIL_PCT] > c->gpu_peak_pct)
                c->gpu_peak_pct = t->value[GM_UTIL_PCT];
}

/* One of its GPUs does not tell how busy it is. */
static bool is_blind(const struct plane *p, const struct cluster *c)
{
        const json_t *gpu;
        size_t i;

        json_array_foreach(json_object_get(c->plan, "gpus"), i, gpu)
        {
                const struct gpu_telemetry *t =
                        json_is_string(gpu) ? plane_telemetry(p, json_string_value(gpu), NULL)
                                            : NULL;

                if (!t || t->value[GM_UTIL_PCT] == GPU_UNKNOWN)
                        return true;
        }
        return false;
}

/* ---- the decision ---- */

bool idle_apply(struct cluster *c, const struct idle_wish *w)
{
        uint32_t timeout_s = w->said ? w->timeout_s : c->idle_timeout_s;
        enum idle_action action = w->action ? w->action : c->idle_action;

        if (timeout_s == c->idle_timeout_s && action == c->idle_action)
                return false;
        c->idle_timeout_s = timeout_s;
        c->idle_action = action;
        idle_restart(&c->idle);
        return true;
}

/* "1 h 30 min", "45 s": what a person reads. */
static void say_span(uint64_t us, char ret[static 32])
{
        uint64_t s = us / US_PER_S;

        if (s >= 3600 && s % 3600 >= 60)
                (void) snprintf(ret, 32, "%llu h %llu min", (unsigned long long) (s / 3600),
                                (unsigned long long) (s % 3600 / 60));
        else if (s >= 3600)
                (void) snprintf(ret, 32, "%llu h", (unsigned long long) (s / 3600));
        else if (s >= 60)
                (void) snprintf(ret, 32, "%llu min", (unsigned long long) (s / 60));
        else
                (void) snprintf(ret, 32, "%llu s", (unsigned long long) s);
}

static void warn(struct plane *p, struct store_txn *t, const struct cluster *c)
{
        uint64_t timeout = c->idle_timeout_s * US_PER_S, idle = c->idle.idle_us;
        char since[32], left[32];
        AUTO(free) char *text = NULL;

        say_span(idle, since);
        say_span(timeout > idle ? timeout - idle : 0, left);
        text = str_fmt("nobody has used it for %s; it is %s in %s unless somebody does", since,
                       c->idle_action == IDLE_TERMINATE ? "terminated" : "stopped", left);
        if (!text)
                return;
        event_write(p, t,
                    &(struct event_view){ .account = c->account,
                                          .cluster = c->id,
                                          .kind = "idle",
                                          .object = c->id,
                                          .text = text });
}

static void over(struct plane *p, struct cluster *c)
{
        log_info("cluster %s: not used for %u s; it is %s", c->id, c->idle_timeout_s,
                 c->idle_action == IDLE_TERMINATE ? "terminated" : "stopped");
        if (c->idle_action == IDLE_TERMINATE)
                cluster_do_terminate(p, c, BY);
        else
                cluster_do_stop(p, c, "Exited", BY);
        plane_set_alarm(p);
}

/* The clock as it is, and perhaps a warning beside it. */
static void keep(struct plane *p, struct cluster *c, bool warning)
{
        struct store_txn *t = store_txn_new();

        if (!t)
                return; /* the next look is as good */
        if (warning)
                warn(p, t, c);
        c->idle_kept = c->idle;
        store_put(t, ST_CLUSTER, cluster_to_row(c));
        store_submit(p->store, t, NULL, NULL);
}

static struct idle_sample sample_of(const struct plane *p, const struct cluster *c,
                                    const struct node_report *r, uint64_t now)
{
        return (struct idle_sample){
                .now_us = now,
                .run = c->boot ? c->boot : c->generation,
                .cpu_us = r->cpu_us,
                .bytes = r->edge_bytes,
                .connections = (uint32_t) (r->edge_connections < UINT32_MAX ? r->edge_connections
                                                                            : UINT32_MAX),
                .sessions = sessions_of(p, c->id),
                .had_session = c->had_session,
                .has_traffic = r->has_edge,
                .blind = r->edge_is_mute || is_blind(p, c),
                .gpu_pct = (uint32_t) c->gpu_peak_pct,
        };
}

void idle_look(struct plane *p, struct cluster *c, const struct node_report *r)
{
        const struct idle_limits l = idle_limits_of(c->idle_timeout_s);
        uint64_t now = clock_mono_us();
        struct idle_sample x;
        enum idle_verdict v;

        if (!c->idle_timeout_s || !r->has_usage || c->state != CS_RUNNING ||
            c->desired != DESIRED_RUNNING || !idle_due(&c->idle, now))
                return;
        x = sample_of(p, c, r, now);
        v = idle_step(&c->idle, &x, &l);
        c->gpu_peak_pct = 0;
        c->had_session = false;
        if (v == IDLE_OVER && c->open == 0 && !c->locked)
                over(p, c);
        else if (v == IDLE_WARN || idle_worth_keeping(&c->idle_kept, &c->idle, &l))
                keep(p, c, v == IDLE_WARN);
}
