/* update.c - what a cluster has, changed while it runs.  tensorone-api, loop thread.
 *
 * Theory of operation.  A change is a generation of its own that keeps `boot`, by which the engine
 * knows that the process which runs is to be left alone.  Before it is told, the ledger holds what the
 * old plan and the new one need together; the old one is kept as `applied`.  The engine answers with
 * a report of the new generation: it has it, and what shrank is free (update_done), or it refuses,
 * has changed nothing, and gets another generation that says what it has (update_refused).  All of it
 * is in the store before it is said, so a crash of either side at any point repeats the last word.
 *
 * What always holds: `applied` is set exactly while a generation that changes a running cluster has no
 * answer, and then there is no other change: whoever asks for one is told to come again. */
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "control/plane/plane_priv.h"
#include "model/allow.h"
#include "model/egress.h"
#include "model/limits.h"

#define VERB "Updated"

bool cluster_updating(const struct cluster *c)
{
        return c->applied != NULL;
}

/* Every field that can be changed: its name, its bounds, where it is asked for and where it is kept. */
static const struct field {
        const char *name;
        int64_t min, max;
        size_t asked;
} fields[] = {
#define U(f) offsetof(struct update, f)
        { "vcpuCount", 1, LIMIT_VCPU, U(vcpu) },
        { "memoryInGb", 1, LIMIT_MEMORY_MIB / 1024, U(memory_gib) },
        { "containerDiskInGb", 1, LIMIT_DISK_GIB, U(container_disk_gib) },
        { "volumeInGb", 0, LIMIT_DISK_GIB, U(volume_gib) },
        { "gpuCount", 0, LIMIT_GPUS, U(gpu_count) },
#undef U
};

static int64_t asked(const struct update *u, const struct field *f)
{
        int64_t n;

        memcpy(&n, (const char *) u + f->asked, sizeof n);
        return n;
}

static int check_bounds(const struct update *u, struct err *e)
{
        for (size_t i = 0; i < NELEM(fields); i++) {
                int64_t n = asked(u, &fields[i]);

                if (n >= 0 && (n < fields[i].min || n > fields[i].max))
                        return err_set(e, -ERANGE, "%s: %lld is outside %lld..%lld", fields[i].name,
                                       (long long) n, (long long) fields[i].min,
                                       (long long) fields[i].max);
        }
        return 0;
}

static int check_disks(const struct cluster *c, const struct update *u, bool runs, struct err *e)
{
        if (u->volume_gib >= 0 && u->volume_gib < c->volume_gib)
                return err_set(
                        e, -EINVAL,
                        "volumeInGb: %lld is less than the %u GB it has; a volume can only grow",
                        (long long) u->volume_gib, c->volume_gib);
        if (!runs)
                return 0;
        if (u->container_disk_gib >= 0 && u->container_disk_gib < c->container_disk_gib)
                return err_set(
                        e, -EINVAL,
                        "containerDiskInGb: %lld is less than the %u GB it has; a disk that is in use can only grow",
                        (long long) u->container_disk_gib, c->container_disk_gib);
        if (u->volume_gib > 0 && c->volume_gib == 0)
                return err_set(
                        e, -EINVAL,
                        "volumeInGb: a volume cannot be added to a cluster that runs; stop it, update it, and start it again");
        return 0;
}

int update_check(const struct cluster *c, const struct update *u, struct err *e)
{
        bool runs = c->desired == DESIRED_RUNNING;
        struct egress egress;
        struct allow allow;
        int r;

        if (u->generation >= 0 && (uint64_t) u->generation != c->generation)
                return err_set(
                        e, -ESTALE,
                        "generation: it is at %llu now, not at %lld; look at it again before you change it",
                        (unsigned long long) c->generation, (long long) u->generation);
        r = check_bounds(u, e);
        if (r >= 0)
                r = egress_parse("egressAllow", u->egress, &egress, e);
        if (r >= 0)
                r = allow_parse("allowedIps", u->allowed_ips, &allow, e);
        return r < 0 ? r : check_disks(c, u, runs, e);
}

static bool same_words(char *const *a, char *const *b)
{
        size_t n = strv_len(a);

        if (n != strv_len(b) || !a != !b)
                return false;
        for (size_t i = 0; i < n; i++)
                if (!str_eq(a[i], b[i]))
                        return false;
        return true;
}

/* 1: it is another now. */
static int apply_list(char ***at, char *const *said)
{
        char **list;

        if (!said || same_words(said, *at))
                return 0;
        list = strv_dup(said);
        if (!list)
                return -ENOMEM;
        (void) strv_free(*at);
        *at = list;
        return 1;
}

static int apply_lists(struct cluster *c, const struct update *u)
{
        int r = apply_list(&c->egress, u->egress),
            q = r < 0 ? r : apply_list(&c->allowed_ips, u->allowed_ips);

        return r < 0 || q < 0 ? -ENOMEM : r | q;
}

/* Put what is asked for into the record; 1 when anything is another than before. */
static int apply(struct cluster *c, const struct update *u)
{
        const struct cluster before = *c;
        int r = apply_lists(c, u);

        if (r < 0)
                return r;

        if (u->vcpu >= 0)
                c->vcpu = (uint32_t) u->vcpu;
        if (u->memory_gib >= 0)
                c->memory_mib = (uint64_t) u->memory_gib * 1024;
        if (u->container_disk_gib >= 0)
                c->container_disk_gib = (uint32_t) u->container_disk_gib;
        if (u->volume_gib >= 0)
                c->volume_gib = (uint32_t) u->volume_gib;
        if (u->gpu_count >= 0)
                c->gpu_count = (uint32_t) u->gpu_count;
        return r > 0 || c->vcpu != before.vcpu || c->memory_mib != before.memory_mib ||
               c->container_disk_gib != before.container_disk_gib ||
               c->volume_gib != before.volume_gib || c->gpu_count != before.gpu_count;
}

static struct ledger_want want_of(const struct plane *p, const struct cluster *c)
{
        return (struct ledger_want){
                .node = p->node_id,
                .cluster = c->id,
                .generation = c->generation,
                .vcpu = c->vcpu,
                .memory_mib = c->memory_mib,
                .container_disk_gib = c->container_disk_gib,
                .volume_gib = c->volume_gib,
                .gpu_count = c->gpu_count,
                .gpu_type = c->gpu_type,
        };
}

static int strings_of(const json_t *plan, const char *key, char ***ret)
{
        const json_t *s;
        size_t i;

        json_array_foreach(json_object_get(plan, key), i, s)
        {
                if (strv_push(ret, json_string_value(s)) < 0)
                        return -ENOMEM;
        }
        return 0;
}

/* ---- one that does not run ---- */

/* Nothing is reserved; the engine learns no more than that there is a newer generation. */
static int update_stopped(struct plane *p, struct cluster *c, struct err *e)
{
        AUTO(json_put) json_t *plan = json_copy(c->plan);

        if (!c->released && ledger_holds(p->ledger, c->id))
                return err_set(e, -EBUSY, "it is still stopping; try again in a moment");
        c->boot = ++c->generation;
        if (!plan ||
            json_object_set_new(plan, "generation", json_integer((json_int_t) c->generation)) < 0 ||
            json_object_set_new(plan, "boot", json_integer((json_int_t) c->boot)) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        json_decref(c->plan);
        c->plan = TAKE(plan);
        return 0;
}

/* ---- one that runs ---- */

/* The chooser says what is wrong in the words of a deployment. */
static void name_own_fields(struct err *e)
{
        static const char *const names[][2] = {
                { "minVcpuCount:", "vcpuCount:" },
                { "minMemoryInGb:", "memoryInGb:" },
        };
        struct err was = *e;

        for (size_t i = 0; i < NELEM(names); i++)
                if (str_after(was.msg, names[i][0]))
                        (void) err_set(e, was.code, "%s%s", names[i][1],
                                       str_after(was.msg, names[i][0]));
}

static int no_room(enum place_limit limit, const char *noun, struct err *e)
{
        struct err why = e ? *e : (struct err){ 0 };

        name_own_fields(&why);
        return err_set(
                e, -ENOSPC,
                limit == PLACE_GPU
                        ? "There are not enough free GPUs on the host machine to update this %s. %s"
                        : "There is not enough room on the host machine to update this %s. %s",
                noun, why.msg);
}

/* On failure *@ret_half says whether rows were made that must not stay. */
static int update_running(struct plane *p, struct cluster *c, const struct cluster *old,
                          struct store_txn *t, const char *noun, bool *ret_half, struct err *e)
{
        AUTO(strv_free) char **have = NULL, **cpus = NULL, **gpus = NULL;
        struct ledger_host h = plane_ledger_host(p);
        struct ledger_want w;
        enum place_limit limit;
        json_t *plan = NULL;
        int r;

        if (c->applied)
                return err_set(e, -EBUSY, LIFECYCLE_CHANGING);
        if (!p->have_inv)
                return err_set(e, -ENOTCONN, "no host is connected yet");
        if (c->container_disk_gib > old->container_disk_gib || c->volume_gib > old->volume_gib)
                if ((r = plane_has_room(p, e)) < 0)
                        return r;
        if (strings_of(c->plan, "gpus", &have) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        if (!c->boot) /* from a version that knew no changes: every generation was a start */
                c->boot = c->generation;
        c->generation++;
        w = want_of(p, c);
        limit = ledger_grow(p->ledger, &h, &w, c->cpus, have, t, &cpus, &gpus, e);
        *ret_half = limit != PLACE_OK && e->code == -ENOMEM;
        if (limit != PLACE_OK)
                return *ret_half ? -ENOMEM : no_room(limit, noun, e);
        *ret_half = true;
        (void) strv_free(c->cpus);
        c->cpus = cpus ? TAKE(cpus) : calloc(1, sizeof *c->cpus);
        r = c->cpus && plane_set_gpu_type(p, c, gpus) >= 0 ? plan_make(p, c, gpus, &plan, e)
                                                           : err_set(e, -ENOMEM, "out of memory");
        if (r < 0)
                return r;
        c->applied = c->plan;
        c->plan = plan;
        (void) text_set(&c->refused, NULL);
        return 0;
}

/* Put @c, a changed copy, in the place of the record of its id. */
static struct cluster *replace(struct plane *p, struct cluster *c)
{
        struct cluster *old = map_get(p->clusters, c->id);

        (void) map_set(p->clusters, c->id, c); /* replaces: no allocation, cannot fail */
        (void) cluster_free(old);
        return c;
}

int plane_update(struct plane *p, const struct caller *who, const char *id, const char *noun,
                 const struct update *u, const struct cluster **ret, struct err *e)
{
        AUTO(store_txn_free) struct store_txn *t = NULL;
        AUTO(cluster_free) struct cluster *c = NULL;
        struct err mine = { 0 };
        struct cluster *old = NULL, *made;
        bool half = false, idle;
        int r = lifecycle_begin(p, who, id, noun, &old, &t, e), changed;

        if (r >= 0)
                r = lifecycle_check_locked(old, noun, e);
        if (r >= 0)
                r = update_check(old, u, e);
        if (r < 0)
                return r;
        c = lifecycle_copy(old);
        changed = c ? apply(c, u) : -ENOMEM;
        if (changed < 0)
                return err_set(e, -ENOMEM, "out of memory");
        idle = idle_apply(c, &u->idle); /* which is nothing to the engine */
        if (!changed && !idle) {
                *ret = old;
                return 0;
        }
        if (changed)
                r = c->desired == DESIRED_RUNNING ? update_running(p, c, old, t, noun, &half, &mine)
                                                  : update_stopped(p, c, &mine);
        if (r < 0 && half)
                plane_abandon(p, TAKE(t)); /* memory is loaded again */
        if (r < 0) {
                (void) err_copy(e, &mine);
                return r;
        }
        (void) status_change_set(c, VERB, "User", clock_wall_us());
        made = replace(p, TAKE(c));
        plane_commit(p, TAKE(t), made, "updated");
        *ret = made;
        return 0;
}

/* ---- what the engine says ---- */

void update_done(struct plane *p, struct cluster *c, struct store_txn *t)
{
        AUTO(strv_free) char **gpus = NULL;
        struct ledger_want w = want_of(p, c);

        if (strings_of(c->plan, "gpus", &gpus) < 0 ||
            ledger_settle(p->ledger, &w, c->cpus, gpus, t) < 0)
                return; /* out of memory: the next report is as good */
        json_decref(c->applied);
        c->applied = NULL;
}

/* What a plan says of that which can be changed, back into the record. */
static int take_back(struct cluster *c, const json_t *plan)
{
        AUTO(strv_free) char **cpus = calloc(1, sizeof *cpus), **egress = NULL, **allowed = NULL;
        const struct {
                const char *key;
                uint32_t *at;
        } rows[] = {
                { "vcpu", &c->vcpu },
                { "container_disk_gib", &c->container_disk_gib },
                { "volume_gib", &c->volume_gib },
                { "gpu_count", &c->gpu_count },
        };

        if (!cpus || strings_of(plan, "cpus", &cpus) < 0 ||
            strings_of(plan, "allowed_ips", &allowed) < 0 ||
            strings_of(plan, "egress", &egress) < 0) /* no list is no limit, in both */
                return -ENOMEM;
        for (size_t i = 0; i < NELEM(rows); i++)
                *rows[i].at = (uint32_t) json_integer_value(json_object_get(plan, rows[i].key));
        c->memory_mib = (uint64_t) json_integer_value(json_object_get(plan, "memory_mib"));
        (void) strv_free(c->cpus);
        c->cpus = TAKE(cpus);
        (void) strv_free(c->egress);
        c->egress = TAKE(egress);
        (void) strv_free(c->allowed_ips);
        c->allowed_ips = TAKE(allowed);
        return 0;
}

/* The generation that says what the engine has is refused, too: it has it all the same. */
static bool is_answer_to_refusal(const struct cluster *c)
{
        return c->refused != NULL;
}

void update_refused(struct plane *p, struct cluster *c, const char *why)
{
        AUTO(store_txn_free) struct store_txn *t = store_txn_new();
        AUTO(cluster_free) struct cluster *back = NULL;
        AUTO(json_put) json_t *plan = json_copy(c->applied);

        if (!t || !plan)
                return; /* the engine says it again */
        if (is_answer_to_refusal(c)) {
                log_error("cluster %s: not even what it has can be had: %s", c->id, why);
                update_done(p, c, t);
                plane_commit(p, TAKE(t), c, "refused");
                return;
        }
        back = lifecycle_copy(c);
        if (!back || take_back(back, c->applied) < 0 || text_set(&back->refused, why) < 0)
                return;
        back->generation++;
        if (json_object_set_new(plan, "generation", json_integer((json_int_t) back->generation)) <
                    0 ||
            json_object_set_new(plan, "boot", json_integer((json_int_t) back->boot)) < 0)
                return;
        json_decref(back->plan);
        back->plan = TAKE(plan);
        (void) status_change_set(back, "Update refused", "host", clock_wall_us());
        plane_commit(p, TAKE(t), replace(p, TAKE(back)), "refused");
}
