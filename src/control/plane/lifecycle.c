/* lifecycle.c - stop, resume, restart, terminate, edit.  tensorone-api, loop thread.
 *
 * What always holds: a new plan has a new generation; the rows of a stopped cluster are freed only
 * by the engine's report (report.c). */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/str.h"
#include "control/plane/args.h"
#include "control/plane/plane_priv.h"
#include "model/limits.h"
#include "model/plan.h"

int status_change_set(struct cluster *c, const char *verb, const char *who, uint64_t now_us)
{
        time_t s = (time_t) (now_us / US_PER_S);
        char date[64] = "";
        struct tm tm;
        char *text;

        if (gmtime_r(&s, &tm))
                (void) strftime(date, sizeof date, "%a %b %d %Y %H:%M:%S GMT+0000 (UTC)", &tm);
        text = str_fmt("%s by %s: %s", verb, who, date);
        if (!text)
                return -ENOMEM;
        free(c->status_change);
        c->status_change = text;
        return 0;
}

int lifecycle_begin(struct plane *p, const struct caller *who, const char *id, const char *noun,
                    struct cluster **ret_c, struct store_txn **ret_t, struct err *e)
{
        int r = plane_writable(p, e);

        if (r < 0)
                return r;
        *ret_c = str_empty(id) ? NULL : plane_find(p, who, id);
        if (!*ret_c)
                return err_set(e, -ENOENT, "%s not found", noun);
        *ret_t = store_txn_new();
        return *ret_t ? 0 : err_set(e, -ENOMEM, "out of memory");
}

int lifecycle_check_locked(const struct cluster *c, const char *noun, struct err *e)
{
        return c->locked ? err_set(e, -EPERM, "%s is locked", noun) : 0;
}

/* ---- stop ---- */

static void stop_in(struct plane *p, struct store_txn *t, struct cluster *c, const char *verb,
                    const char *who, const char *kind)
{
        c->desired = DESIRED_STOPPED;
        c->stop_after_us = 0;
        if (cluster_holds_resources(c->state))
                c->state = CS_STOPPING;
        (void) status_change_set(c, verb, who, clock_wall_us());
        ledger_releasing(p->ledger, c->id, t);
        plane_commit(p, t, c, kind);
}

void cluster_do_stop(struct plane *p, struct cluster *c, const char *verb, const char *who)
{
        struct store_txn *t = store_txn_new();

        if (t)
                stop_in(p, t, c, verb, who, "stopped");
}

int plane_stop(struct plane *p, const struct caller *who, const char *id, const char *noun,
               const struct cluster **ret, struct err *e)
{
        AUTO(store_txn_free) struct store_txn *t = NULL;
        struct cluster *c = NULL;
        int r = lifecycle_begin(p, who, id, noun, &c, &t, e);

        if (r >= 0)
                r = lifecycle_check_locked(c, noun, e);
        if (r < 0)
                return r;
        if (c->desired == DESIRED_RUNNING) {
                stop_in(p, TAKE(t), c, "Exited", "user", "stopped");
                plane_set_alarm(p);
        }
        *ret = c;
        return 0;
}

/* ---- a new generation ---- */

/* Reserve and plan generation + 1 of @c; @gpu_count is what it shall have.  On failure the
 * record is as it was, and -ENOSPC comes with *@ret_limit and the constraint in *@e. */
static int plan_next(struct plane *p, struct store_txn *t, struct cluster *c, uint32_t gpu_count,
                     bool other_cpus, enum place_limit *ret_limit, struct err *e)
{
        struct ledger_want w = { p->node_id,    c->id,         c->generation + 1,
                                 c->vcpu,       c->memory_mib, c->container_disk_gib,
                                 c->volume_gib, gpu_count,     c->gpu_type,
                                 other_cpus };
        struct ledger_host h = plane_ledger_host(p);
        AUTO(strv_free) char **gpus = NULL, **cpus = NULL;
        json_t *plan = NULL;
        int r;

        if (c->applied) { /* its rows are those of two plans now */
                *ret_limit = PLACE_OK;
                return err_set(e, -EBUSY, LIFECYCLE_CHANGING);
        }
        *ret_limit = ledger_take(p->ledger, &h, &w, t, &cpus, &gpus, e);
        if (*ret_limit != PLACE_OK)
                return e && e->code == -ENOMEM ? -ENOMEM : -ENOSPC;
        (void) strv_free(c->cpus);
        c->cpus = TAKE(cpus);
        c->gpu_count = gpu_count;
        c->boot = ++c->generation;
        r = plane_set_gpu_type(p, c, gpus) < 0 ? err_set(e, -ENOMEM, "out of memory")
                                               : plan_make(p, c, gpus, &plan, e);
        if (r < 0)
                return r; /* the caller gives the transaction up as a whole */
        json_decref(c->plan);
        c->plan = plan;
        c->desired = DESIRED_RUNNING;
        c->state = CS_ACCEPTED;
        c->released = false;
        c->progress_pct = 0;
        c->wants_login = c->wants_secrets = false;
        c->progress_bytes = c->progress_total_bytes = c->progress_bytes_per_s = 0;
        c->started_us = 0;
        c->restarts = 0;
        idle_restart(&c->idle);
        (void) text_set(&c->refused, NULL);
        return text_set(&c->reason, NULL);
}

int plane_has_room(const struct plane *p, struct err *e)
{
        return p->inv.facts.disk_full ? err_set(e, -ENOSPC, "%s", p->inv.facts.disk_full) : 0;
}

/* plan_next() for somebody who asked for it. */
static int renew(struct plane *p, struct store_txn *t, struct cluster *c, uint32_t gpu_count,
                 const char *noun, struct err *e)
{
        enum place_limit limit = PLACE_OK;
        struct err why;
        int r;

        if (!p->have_inv)
                return err_set(e, -ENOTCONN, "no host is connected yet");
        r = plane_has_room(p, e);
        if (r >= 0) /* what runs shall not be ended for a start that cannot be */
                r = secrets_check(p, c->account, c->env, e);
        if (r >= 0)
                r = plan_next(p, t, c, gpu_count, false, &limit, e);
        if (r != -ENOSPC)
                return r;
        why = e ? *e : (struct err){ 0 };
        return err_set(
                e, -ENOSPC,
                limit == PLACE_GPU
                        ? "There are not enough free GPUs on the host machine to start this %s. %s"
                        : "There is not enough room on the host machine to start this %s. %s",
                noun, why.msg);
}

static bool cpus_are_elsewhere(const struct plane *p, const struct cluster *c)
{
        for (char **cpu = c->cpus; cpu && *cpu; cpu++)
                if (node_cpu_elsewhere(&p->inv, *cpu))
                        return true;
        return false;
}

void cluster_do_move(struct plane *p, struct cluster *c)
{
        AUTO(store_txn_free) struct store_txn *t = store_txn_new();
        bool ran = c->started_us != 0;
        uint64_t before = c->generation;
        enum place_limit limit = PLACE_OK;
        struct err e = { 0 };
        int r;

        /* free again meanwhile: the engine tries them again by itself */
        if (!t || p->broken || !cpus_are_elsewhere(p, c))
                return;
        r = plan_next(p, t, c, c->gpu_count, true, &limit, &e);
        if (r == -ENOMEM || (r < 0 && c->generation != before)) {
                plane_abandon(p, TAKE(t)); /* half made; memory is loaded again, @c is gone */
        } else if (r >= 0) {
                (void) status_change_set(c, "Moved to other CPUs", "host", clock_wall_us());
                plane_commit(p, TAKE(t), c, "moved");
        } else if (!ran) { /* what its deployment would have been answered a moment later */
                AUTO(free) char *reason = str_fmt("%s %s", NO_INSTANCES, e.msg);

                (void) text_set(&c->reason, reason);
                stop_in(p, TAKE(t), c, "Exited", "failure", "exited");
        } /* else it waits for its CPUs to come back */
}

static int start(struct plane *p, struct store_txn **t, struct cluster *c, uint32_t gpu_count,
                 const char *verb, const char *noun, struct err *e)
{
        uint64_t before = c->generation;
        int r = renew(p, *t, c, gpu_count, noun, e);

        if (r == -ENOMEM || (r < 0 && c->generation != before))
                plane_abandon(p, TAKE(*t)); /* half made; memory is loaded again, @c is gone */
        if (r < 0)
                return r;
        (void) status_change_set(c, verb, "User", clock_wall_us());
        plane_commit(p, TAKE(*t), c, "started");
        return 0;
}

int plane_resume(struct plane *p, const struct caller *who, const char *id, const char *noun,
                 int64_t gpu_count, const struct cluster **ret, struct err *e)
{
        AUTO(store_txn_free) struct store_txn *t = NULL;
        struct cluster *c = NULL;
        int r = lifecycle_begin(p, who, id, noun, &c, &t, e);

        if (r < 0)
                return r;
        if (gpu_count > (int64_t) LIMIT_GPUS)
                return err_set(e, -ERANGE, "gpuCount: %lld is outside 0..%u", (long long) gpu_count,
                               LIMIT_GPUS);
        if (c->desired != DESIRED_RUNNING)
                r = start(p, &t, c, gpu_count < 0 ? c->gpu_count : (uint32_t) gpu_count, "Resumed",
                          noun, e);
        if (r < 0)
                return r;
        *ret = c;
        return 0;
}

int plane_restart(struct plane *p, const struct caller *who, const char *id, const char *noun,
                  const struct cluster **ret, struct err *e)
{
        AUTO(store_txn_free) struct store_txn *t = NULL;
        struct cluster *c = NULL;
        int r = lifecycle_begin(p, who, id, noun, &c, &t, e);

        if (r >= 0)
                r = lifecycle_check_locked(c, noun, e);
        if (r >= 0)
                r = start(p, &t, c, c->gpu_count, "Restarted", noun, e);
        if (r < 0)
                return r;
        *ret = c;
        return 0;
}

/* ---- terminate ---- */

static void terminate_in(struct plane *p, struct store_txn *t, struct cluster *c, const char *who)
{
        char id[16];

        (void) snprintf(id, sizeof id, "%s", c->id);
        c->desired = DESIRED_TERMINATED;
        c->state = CS_TERMINATING;
        c->stop_after_us = c->terminate_after_us = 0;
        (void) status_change_set(c, "Terminated", who, clock_wall_us());
        ledger_releasing(p->ledger, c->id, t);
        accounts_del_cluster_key(p->accounts, t, c->id);
        plane_commit(p, t, c, "terminated");
        plane_tell(p, id, NULL);
}

void cluster_do_terminate(struct plane *p, struct cluster *c, const char *who)
{
        struct store_txn *t = store_txn_new();

        if (t)
                terminate_in(p, t, c, who);
}

int plane_terminate(struct plane *p, const struct caller *who, const char *id, const char *noun,
                    struct err *e)
{
        AUTO(store_txn_free) struct store_txn *t = NULL;
        struct cluster *c = NULL;
        int r = lifecycle_begin(p, who, id, noun, &c, &t, e);

        if (r == -ENOENT) /* this very sentence is looked for */
                return err_set(e, r, "%s not found to terminate", noun);
        if (r >= 0)
                r = lifecycle_check_locked(c, noun, e);
        if (r < 0)
                return r;
        terminate_in(p, TAKE(t), c, "user");
        plane_set_alarm(p);
        return 0;
}

/* ---- edit ---- */

void edit_done(struct edit *d)
{
        free(d->docker_args);
        free(d->image);
        free(d->ports);
        free(d->volume_path);
        free(d->registry_auth);
        d->env = strv_free(d->env);
        *d = (struct edit){ 0 };
}

static int check_edit(const struct plane *p, const struct caller *who, const struct cluster *c,
                      const struct edit *d, struct err *e)
{
        struct plan_port ports[LIMIT_PORTS];
        AUTO(strv_free) char **entrypoint = NULL, **command = NULL;
        bool set;
        int r = env_check(d->env, e);

        if (r >= 0)
                r = secrets_check(p, c->account, d->env, e);
        if (r >= 0)
                r = docker_args_parse(d->docker_args, &entrypoint, &command, &set, e);
        if (r >= 0)
                r = plan_ports(d->ports, ports, NELEM(ports), e);
        if (r >= 0 && !str_empty(d->volume_path))
                r = plan_mount_path("volumeMountPath", d->volume_path, e);
        if (r >= 0 && !str_empty(d->image))
                r = image_check(d->image, e);
        if (r >= 0 && d->volume_gib && d->volume_gib < c->volume_gib)
                r = err_set(e, -EINVAL,
                            "volumeInGb: %u is less than the %u GB it has; a volume can only grow",
                            d->volume_gib, c->volume_gib);
        if (r >= 0)
                r = registry_auth_check(p, who, d->registry_auth, e);
        return r < 0 ? r : 0;
}

/* Put what is set into the record; returns whether anything changed, or -ENOMEM. */
static int apply_edit(struct cluster *c, struct edit *d)
{
        struct {
                char **at;
                const char *value;
        } text[] = {
                { &c->docker_args, d->docker_args },
                { &c->image, d->image },
                { &c->ports, d->ports },
                { &c->volume_path, d->volume_path },
                { &c->registry_auth, d->registry_auth },
        };
        int changed = 0;

        for (size_t i = 0; i < NELEM(text); i++) {
                if (str_empty(text[i].value) || str_eq(text[i].value, *text[i].at))
                        continue;
                if (text_set(text[i].at, text[i].value) < 0)
                        return -ENOMEM;
                changed = 1;
        }
        if (d->env_set) {
                char **env = d->env ? TAKE(d->env) : calloc(1, sizeof *env);

                if (!env)
                        return -ENOMEM;
                (void) strv_free(c->env);
                c->env = env;
                changed = 1;
        }
        if (d->container_disk_gib && d->container_disk_gib != c->container_disk_gib) {
                c->container_disk_gib = d->container_disk_gib;
                changed = 1;
        }
        if (d->volume_gib && d->volume_gib != c->volume_gib) {
                c->volume_gib = d->volume_gib;
                changed = 1;
        }
        return changed;
}

struct cluster *lifecycle_copy(const struct cluster *c)
{
        AUTO(json_put) json_t *row = cluster_to_row(c);
        struct cluster *copy = NULL;

        if (!row || cluster_from_row(row, &copy, NULL) < 0)
                return NULL;
        copy->epoch = c->epoch;
        copy->seq = c->seq;
        copy->open = c->open;
        copy->usage = c->usage;
        copy->idle = c->idle;
        copy->idle_kept = c->idle_kept;
        copy->gpu_peak_pct = c->gpu_peak_pct;
        copy->had_session = c->had_session;
        copy->security = c->security ? json_incref(c->security) : NULL;
        return copy;
}

int plane_edit(struct plane *p, const struct caller *who, const char *id, const char *noun,
               struct edit *d, const struct cluster **ret, struct err *e)
{
        AUTO(store_txn_free) struct store_txn *t = NULL;
        AUTO(cluster_free) struct cluster *c = NULL;
        struct cluster *old = NULL, *made;
        int r = lifecycle_begin(p, who, id, noun, &old, &t, e), changed;

        if (r >= 0)
                r = lifecycle_check_locked(old, noun, e);
        if (r >= 0)
                r = check_edit(p, who, old, d, e);
        if (r < 0)
                return r;
        c = lifecycle_copy(old);
        changed = c ? apply_edit(c, d) : -ENOMEM;
        if (changed < 0)
                return err_set(e, -ENOMEM, "out of memory");
        if (!changed) {
                *ret = old;
                return 0;
        }
        if (c->desired == DESIRED_RUNNING) {
                r = renew(p, t, c, c->gpu_count, noun, e);
                if (r == -ENOMEM || (r < 0 && c->generation != old->generation))
                        plane_abandon(p, TAKE(t));
                if (r < 0)
                        return r;
                (void) status_change_set(c, "Edited", "User", clock_wall_us());
        }
        (void) map_set(p->clusters, c->id, c); /* replaces: no allocation, cannot fail */
        (void) cluster_free(old);
        made = TAKE(c);
        plane_commit(p, TAKE(t), made, "edited");
        *ret = made;
        return 0;
}
