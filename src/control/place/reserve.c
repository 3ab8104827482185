/* reserve.c - see reserve.h.  Runs in tensorone-api on the loop thread. */
#include "control/place/reserve.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "control/place/reserve_priv.h"
#include "model/limits.h"

const char *const resource_kind_names[RK_KIND_COUNT] = {
        "none", "cpu", "vcpu", "memory", "container_disk", "volume", "gpu", "numa",
};
const char *const reservation_state_names[RS_STATE_COUNT] = { "none", "held", "releasing" };

static_assert(sizeof(enum resource_kind) == sizeof(int) &&
                      sizeof(enum reservation_state) == sizeof(int),
              "J_ENUM wants an int");
#define R(f) #f, .off = offsetof(struct reservation, f)
static const struct jfield fields[] = {
        { R(node), .kind = J_STR, .required = true },
        { R(kind), .kind = J_ENUM, .names = resource_kind_names, .max = RK_KIND_COUNT,
          .required = true },
        { R(resource), .kind = J_STR, .required = true },
        { R(cluster), .kind = J_STR, .required = true },
        { R(generation), .kind = J_U64 },
        { R(amount), .kind = J_U64 },
        { R(state), .kind = J_ENUM, .names = reservation_state_names, .max = RS_STATE_COUNT,
          .required = true },
};
#undef R

static struct reservation *reservation_free(struct reservation *r)
{
        if (r)
                jsonx_done(fields, NELEM(fields), r);
        free(r);
        return NULL;
}

DEFINE_AUTO(struct reservation *, reservation_free)

static void row_key(const struct reservation *r, char *buf, size_t len)
{
        (void) snprintf(buf, len, "%s %s %s", r->node, resource_kind_names[r->kind], r->resource);
}

static json_t *row_of(const struct reservation *r)
{
        return jsonx_encode(fields, NELEM(fields), r);
}

struct ledger *ledger_new(void)
{
        struct ledger *l = calloc(1, sizeof *l);

        if (l)
                l->rows = map_new();
        return l && l->rows ? l : ledger_free(l);
}

struct ledger *ledger_free(struct ledger *l)
{
        if (!l)
                return NULL;
        for (struct map_entry *i = l->rows ? map_first(l->rows) : NULL; i; i = map_next(i))
                (void) reservation_free(map_value(i));
        l->rows = map_free(l->rows);
        free(l);
        return NULL;
}

/* Take @r over and index it. */
static int own(struct ledger *l, struct reservation *r)
{
        char key[512];
        int res;

        row_key(r, key, sizeof key);
        res = map_get(l->rows, key) ? -EEXIST : map_set(l->rows, key, r);
        if (res < 0)
                (void) reservation_free(r);
        return res;
}

int ledger_add_row(struct ledger *l, const json_t *row, struct err *e)
{
        AUTO(reservation_free) struct reservation *r = calloc(1, sizeof *r);
        int res = r ? jsonx_decode(row, fields, NELEM(fields), r, e) : -ENOMEM;

        if (res >= 0)
                res = own(l, TAKE(r));
        return res < 0 ? err_wrap(e, res, "reservation") : 0;
}

/* ---- what is taken ---- */

static_assert(NODE_NUMA_MAX == PLACE_NUMA_MAX, "a place in the inventory is one in the choice");

static void take_gpu(const struct reservation *r, struct place_node *n)
{
        for (size_t i = 0; n->gpus && i < n->gpus->n; i++)
                if (str_eq(n->gpus->gpus[i].uuid, r->resource))
                        n->gpus_free &= ~(1ULL << i);
}

/* Where a cluster's memory lies: in equal parts on the nodes it is bound to.  One that is bound to
 * none (those from before there were nodes, too) is spread over all, by their size. */
static void take_memory(uint64_t mems, uint64_t amount, struct place_node *n)
{
        uint64_t parts = 0, all = 0;

        for (size_t k = 0; k < n->n_numa; k++) {
                parts += mems >> n->numa[k].node & 1;
                all += n->numa[k].memory_mib;
        }
        for (size_t k = 0; k < n->n_numa; k++) {
                struct place_numa *at = &n->numa[k];

                if (parts && mems >> at->node & 1)
                        at->memory_taken_mib += (amount + parts - 1) / parts;
                else if (!parts && all)
                        at->memory_taken_mib += (uint64_t) ((double) amount *
                                                            (double) at->memory_mib / (double) all);
        }
}

static void count_row(const struct reservation *r, const struct node_inventory *inv,
                      bool *cpu_taken, struct place_node *n)
{
        switch (r->kind) {
        case RK_CPU:
                for (size_t i = 0; inv->cpus && inv->cpus[i]; i++)
                        if (str_eq(inv->cpus[i], r->resource))
                                cpu_taken[i] = true;
                n->vcpu_taken++;
                break;
        case RK_VCPU:
                n->vcpu_taken += r->amount;
                break;
        case RK_MEMORY:
                n->memory_taken_mib += r->amount;
                break;
        case RK_CONTAINER_DISK:
        case RK_VOLUME:
                n->disk_taken_gib += r->amount;
                break;
        case RK_GPU:
                n->gpus_taken++;
                take_gpu(r, n);
                break;
        case RK_NUMA:
        case RK_NONE:
        case RK_KIND_COUNT:
                break;
        }
}

/* Somebody holds a share although CPUs are pinned now (the operator lowered cpu_overcommit):
 * as many CPUs as the shares are worth stay unsold until they are gone. */
static void set_shares_aside(bool *cpu_taken, size_t n_cpus, uint64_t shares)
{
        for (size_t i = n_cpus; i > 0 && shares > 0; i--) {
                if (cpu_taken[i - 1])
                        continue;
                cpu_taken[i - 1] = true;
                shares--;
        }
}

/* What other engines on the machine hold: no rows of ours, and just as taken. */
static void set_elsewhere_aside(const struct node_inventory *inv, bool *cpu_taken,
                                struct place_node *n)
{
        for (size_t i = 0; i < n->n_cpus; i++) {
                if (cpu_taken[i] || !node_cpu_elsewhere(inv, inv->cpus[i]))
                        continue;
                cpu_taken[i] = true;
                n->cpus_elsewhere++;
                n->vcpu_taken++;
        }
}

/* What the node has, nothing taken. */
static struct place_node empty_node(const struct ledger_host *h, const bool *cpu_taken)
{
        const struct node_inventory *inv = h->inv;
        struct place_node n = {
                .cpu_taken = cpu_taken,
                .cpu_numa = inv->cpu_numa,
                .n_cpus = strv_len(inv->cpus),
                .cpu_overcommit = inv->cpu_overcommit,
                .memory_overcommit = inv->memory_overcommit,
                .disk_overcommit = inv->disk_overcommit,
                .memory_mib = inv->memory_mib,
                .disk_gib = inv->disk_gib,
                .n_numa = inv->n_numa,
                .gpus = h->gpus,
                .gpu_types = h->gpu_types,
                .chooser = h->chooser,
        };

        for (size_t k = 0; k < inv->n_numa; k++)
                n.numa[k] = (struct place_numa){ .node = inv->numa[k].node,
                                                 .memory_mib = inv->numa[k].memory_mib };
        for (size_t i = 0; h->gpus && i < h->gpus->n; i++) {
                if (!gpu_is_for_rent(&h->gpus->gpus[i]))
                        continue;
                n.n_gpus++;
                if (h->gpus->gpus[i].state == GS_OK)
                        n.gpus_free |= 1ULL << i;
        }
        return n;
}

uint64_t ledger_mems(const struct ledger *l, const char *node, const char *cluster)
{
        const struct reservation *r;
        char key[512];

        (void) snprintf(key, sizeof key, "%s %s %s", node, resource_kind_names[RK_NUMA], cluster);
        r = map_get(l->rows, key);
        return r ? r->amount : 0;
}

void ledger_taken(const struct ledger *l, const struct ledger_host *h, const char *but_cluster,
                  bool *cpu_taken, struct place_node *ret)
{
        const struct node_inventory *inv = h->inv;
        uint64_t shares = 0;

        *ret = empty_node(h, cpu_taken);
        memset(cpu_taken, 0, ret->n_cpus * sizeof *cpu_taken);
        for (struct map_entry *i = map_first(l->rows); i; i = map_next(i)) {
                const struct reservation *r = map_value(i);

                if (str_eq(r->cluster, but_cluster))
                        continue;
                count_row(r, inv, cpu_taken, ret);
                if (r->kind == RK_MEMORY && ret->n_numa > 1)
                        take_memory(ledger_mems(l, r->node, r->cluster), r->amount, ret);
                shares += r->kind == RK_VCPU ? r->amount : 0;
        }
        if (place_shares_cpus(ret))
                return;
        set_elsewhere_aside(inv, cpu_taken, ret);
        set_shares_aside(cpu_taken, ret->n_cpus, shares);
}

bool ledger_holds(const struct ledger *l, const char *cluster)
{
        for (struct map_entry *i = map_first(l->rows); i; i = map_next(i)) {
                const struct reservation *r = map_value(i);

                if (str_eq(r->cluster, cluster) && r->kind != RK_VOLUME)
                        return true;
        }
        return false;
}

const char *ledger_holder(const struct ledger *l, const char *node, enum resource_kind kind,
                          const char *resource)
{
        const struct reservation *r;
        char key[512];

        (void) snprintf(key, sizeof key, "%s %s %s", node, resource_kind_names[kind], resource);
        r = map_get(l->rows, key);
        return r ? r->cluster : NULL;
}

/* ---- changing rows ---- */

static void drop(struct ledger *l, struct reservation *r, struct store_txn *t)
{
        char key[512];

        row_key(r, key, sizeof key);
        (void) map_del(l->rows, key);
        store_del(t, ST_RESERVATION,
                  json_pack("{s:s, s:s, s:s}", "node", r->node, "kind",
                            resource_kind_names[r->kind], "resource", r->resource));
        (void) reservation_free(r);
}

static int add(struct ledger *l, const struct ledger_want *w, enum resource_kind kind,
               const char *resource, uint64_t amount, struct store_txn *t)
{
        AUTO(reservation_free) struct reservation *r = calloc(1, sizeof *r);
        struct reservation *borrowed = r;
        int res;

        if (!r)
                return -ENOMEM;
        *r = (struct reservation){ .node = strdup(w->node),
                                   .resource = strdup(resource),
                                   .cluster = strdup(w->cluster),
                                   .kind = kind,
                                   .state = RS_HELD,
                                   .generation = w->generation,
                                   .amount = amount };
        if (!r->node || !r->resource || !r->cluster)
                return -ENOMEM;
        res = own(l, TAKE(r));
        if (res >= 0)
                store_insert(t, ST_RESERVATION, row_of(borrowed));
        return res;
}

static struct reservation *find(struct ledger *l, const struct ledger_want *w,
                                enum resource_kind kind, const char *resource)
{
        char key[512];

        (void) snprintf(key, sizeof key, "%s %s %s", w->node, resource_kind_names[kind], resource);
        return map_get(l->rows, key);
}

/* A resource that is counted: one row named after the cluster, made, changed or removed. */
static int set_amount(struct ledger *l, const struct ledger_want *w, enum resource_kind kind,
                      uint64_t amount, struct store_txn *t)
{
        struct reservation *r = find(l, w, kind, w->cluster);

        if (!r)
                return amount ? add(l, w, kind, w->cluster, amount, t) : 0;
        if (!amount) {
                drop(l, r, t);
                return 0;
        }
        r->amount = amount;
        r->generation = w->generation;
        r->state = RS_HELD;
        store_put(t, ST_RESERVATION, row_of(r));
        return 0;
}

void ledger_releasing(struct ledger *l, const char *cluster, struct store_txn *t)
{
        for (struct map_entry *i = map_first(l->rows); i; i = map_next(i)) {
                struct reservation *r = map_value(i);

                if (!str_eq(r->cluster, cluster) || r->kind == RK_VOLUME || r->state != RS_HELD)
                        continue;
                r->state = RS_RELEASING;
                store_put(t, ST_RESERVATION, row_of(r));
        }
}

void ledger_release(struct ledger *l, const char *cluster, bool with_volume, struct store_txn *t)
{
        struct map_entry *next;

        for (struct map_entry *i = map_first(l->rows); i; i = next) {
                struct reservation *r = map_value(i);

                next = map_next(i);
                if (str_eq(r->cluster, cluster) && (with_volume || r->kind != RK_VOLUME))
                        drop(l, r, t);
        }
}

size_t ledger_drop_orphans(struct ledger *l, bool (*known)(void *arg, const char *cluster),
                           void *arg, struct store_txn *t)
{
        struct map_entry *next;
        size_t n = 0;

        for (struct map_entry *i = map_first(l->rows); i; i = next) {
                struct reservation *r = map_value(i);

                next = map_next(i);
                if (known(arg, r->cluster))
                        continue;
                drop(l, r, t);
                n++;
        }
        return n;
}

/* ---- taking ---- */

static uint64_t amount_of(struct ledger *l, const struct ledger_want *w, enum resource_kind kind)
{
        const struct reservation *r = find(l, w, kind, w->cluster);

        return r ? r->amount : 0;
}

/* CPUs and GPUs that the cluster holds, in the order of the inventory. */
static int held_names(struct ledger *l, const struct ledger_want *w, enum resource_kind kind,
                      char ***ret)
{
        for (struct map_entry *i = map_first(l->rows); i; i = map_next(i)) {
                const struct reservation *r = map_value(i);

                if (r->kind == kind && str_eq(r->cluster, w->cluster) &&
                    strv_push(ret, r->resource) < 0)
                        return -ENOMEM;
        }
        return 0;
}

static int hold_again(struct ledger *l, const struct ledger_want *w, struct store_txn *t)
{
        for (struct map_entry *i = map_first(l->rows); i; i = map_next(i)) {
                struct reservation *r = map_value(i);

                if (!str_eq(r->cluster, w->cluster))
                        continue;
                r->state = RS_HELD;
                r->generation = w->generation;
                store_put(t, ST_RESERVATION, row_of(r));
        }
        return 0;
}

static int take_cpus(struct ledger *l, const struct node_inventory *inv,
                     const struct ledger_want *w, const size_t *cpu, struct store_txn *t,
                     char ***ret)
{
        int r = 0;

        for (uint32_t i = 0; r >= 0 && i < w->vcpu; i++) {
                r = add(l, w, RK_CPU, inv->cpus[cpu[i]], 1, t);
                if (r >= 0)
                        r = strv_push(ret, inv->cpus[cpu[i]]);
        }
        return r;
}

static int take_gpus(struct ledger *l, const struct gpu_fleet *f, const struct ledger_want *w,
                     uint64_t set, struct store_txn *t, char ***ret)
{
        int r = 0;

        for (; r >= 0 && set; set &= set - 1) {
                const char *uuid = f->gpus[__builtin_ctzll(set)].uuid;

                r = add(l, w, RK_GPU, uuid, 1, t);
                if (r >= 0)
                        r = strv_push(ret, uuid);
        }
        return r;
}

static void drop_cpus(struct ledger *l, const char *cluster, struct store_txn *t)
{
        struct map_entry *next;

        for (struct map_entry *i = map_first(l->rows); i; i = next) {
                struct reservation *r = map_value(i);

                next = map_next(i);
                if (r->kind == RK_CPU && str_eq(r->cluster, cluster))
                        drop(l, r, t);
        }
}

/* The rows for a choice that fits. */
static int book(struct ledger *l, const struct ledger_host *h, const struct ledger_want *w,
                const struct place_choice *c, bool shares, bool kept, struct store_txn *t,
                char ***cpus, char ***gpus)
{
        uint64_t disk = amount_of(l, w, RK_CONTAINER_DISK);
        int r;

        if (kept) {
                bool anew = w->other_cpus && !shares;

                if (anew)
                        drop_cpus(l, w->cluster, t);
                r = hold_again(l, w, t);
                if (r >= 0)
                        r = anew ? take_cpus(l, h->inv, w, c->cpus, t, cpus)
                                 : held_names(l, w, RK_CPU, cpus);
                if (r >= 0)
                        r = held_names(l, w, RK_GPU, gpus);
        } else {
                r = shares ? set_amount(l, w, RK_VCPU, w->vcpu, t)
                           : take_cpus(l, h->inv, w, c->cpus, t, cpus);
                if (r >= 0)
                        r = take_gpus(l, h->gpus, w, c->gpus, t, gpus);
                if (r >= 0)
                        r = set_amount(l, w, RK_MEMORY, w->memory_mib, t);
                if (r >= 0)
                        r = set_amount(l, w, RK_NUMA, c->mems, t);
                disk = 0;
        }
        /* the old container disk is there until it is released: never less than that */
        if (r >= 0)
                r = set_amount(l, w, RK_CONTAINER_DISK,
                               disk > w->container_disk_gib ? disk : w->container_disk_gib, t);
        return r < 0 ? r : set_amount(l, w, RK_VOLUME, w->volume_gib, t);
}

/* Not released yet: CPUs, GPUs and memory stay as they are, so they must be what is wanted. */
static enum place_limit check_kept(struct ledger *l, const struct ledger_want *w, struct err *e)
{
        AUTO(strv_free) char **gpus = NULL;

        if (held_names(l, w, RK_GPU, &gpus) < 0)
                (void) err_set(e, -ENOMEM, "out of memory");
        else if (strv_len(gpus) == w->gpu_count)
                return PLACE_OK;
        else
                (void) err_set(
                        e, -EBUSY,
                        "gpuCount: cannot change while it is still stopping; try again in a moment");
        return PLACE_GPU;
}

enum place_limit ledger_take(struct ledger *l, const struct ledger_host *h,
                             const struct ledger_want *w, struct store_txn *t, char ***ret_cpus,
                             char ***ret_gpus, struct err *e)
{
        bool kept = ledger_holds(l, w->cluster);
        AUTO(free) bool *taken = calloc(strv_len(h->inv->cpus) + 1, sizeof *taken);
        AUTO(free) size_t *cpu = calloc(w->vcpu + 1UL, sizeof *cpu);
        AUTO(strv_free) char **cpus = NULL, **gpus = NULL;
        /* what is kept is not chosen again */
        struct place_want want = { .vcpu = w->vcpu,
                                   .memory_mib = w->memory_mib,
                                   .disk_gib = w->container_disk_gib + w->volume_gib,
                                   .gpu_count = kept ? 0 : w->gpu_count,
                                   .gpu_type = w->gpu_type,
                                   .near = kept ? ledger_mems(l, w->node, w->cluster) : 0 };
        struct place_choice choice = { .cpus = cpu };
        struct place_node node;
        enum place_limit limit;

        if (!taken || !cpu) {
                (void) err_set(e, -ENOMEM, "out of memory");
                return PLACE_MEMORY;
        }
        ledger_taken(l, h, w->cluster, taken, &node);
        limit = kept ? check_kept(l, w, e) : PLACE_OK;
        if (limit == PLACE_OK)
                limit = place_choose(&node, &want, &choice, e);
        if (limit != PLACE_OK)
                return limit;
        if (book(l, h, w, &choice, place_shares_cpus(&node), kept, t, &cpus, &gpus) < 0) {
                /* half-made rows: the transaction must not be submitted, memory is loaded again */
                (void) err_set(e, -ENOMEM, "out of memory");
                return PLACE_MEMORY;
        }
        *ret_cpus = TAKE(cpus);
        *ret_gpus = TAKE(gpus);
        return PLACE_OK;
}

/* ---- for the other files of this folder ---- */

struct reservation *ledger_find(struct ledger *l, const struct ledger_want *w,
                                enum resource_kind kind, const char *resource)
{
        return find(l, w, kind, resource);
}

int ledger_add(struct ledger *l, const struct ledger_want *w, enum resource_kind kind,
               const char *resource, uint64_t amount, struct store_txn *t)
{
        return add(l, w, kind, resource, amount, t);
}

void ledger_drop(struct ledger *l, struct reservation *r, struct store_txn *t)
{
        drop(l, r, t);
}

int ledger_set(struct ledger *l, const struct ledger_want *w, enum resource_kind kind,
               uint64_t amount, struct store_txn *t)
{
        return set_amount(l, w, kind, amount, t);
}
