/* change.c - the rows of a cluster that is changed while it runs.  tensorone-api, loop thread.
 *
 * What always holds: until the engine has said which of the two it has, the rows cover the old plan
 * and the new one, so that whatever happens to the change nothing is sold twice.  ledger_grow() takes
 * what the new plan adds, ledger_settle() gives up what the plan that it came to does not have. */
#include <errno.h>

#include "base/str.h"
#include "control/place/reserve_priv.h"

static const enum resource_kind counted[] = { RK_VCPU, RK_MEMORY, RK_CONTAINER_DISK, RK_VOLUME };

static uint64_t wanted(const struct ledger_want *w, enum resource_kind kind)
{
        switch (kind) {
        case RK_VCPU:
                return w->vcpu;
        case RK_MEMORY:
                return w->memory_mib;
        case RK_CONTAINER_DISK:
                return w->container_disk_gib;
        case RK_VOLUME:
                return w->volume_gib;
        case RK_NONE:
        case RK_CPU:
        case RK_GPU:
        case RK_NUMA: /* stays as it is */
        case RK_KIND_COUNT:
                break;
        }
        return 0;
}

static bool has(char *const *v, const char *s)
{
        for (; v && *v; v++)
                if (str_eq(*v, s))
                        return true;
        return false;
}

/* Up to @n of those in @have, then more of @more. */
static int keep_and_add(char *const *have, char *const *more, size_t n, char ***ret)
{
        char *const *const list[] = { have, more };
        size_t got = 0;

        for (size_t k = 0; k < NELEM(list); k++)
                for (char *const *s = list[k]; s && *s && got < n; s++) {
                        if (has(*ret, *s))
                                continue;
                        if (strv_push(ret, *s) < 0)
                                return -ENOMEM;
                        got++;
                }
        return got == n ? 0 : -ENOSPC;
}

/* CPUs for @w->vcpu: those it has as far as they are wanted, then of the choice. */
static int choose_cpus(const struct ledger *l, const struct ledger_host *h,
                       const struct ledger_want *w, const size_t *cpu, char *const *have,
                       char ***ret)
{
        AUTO(strv_free) char **more = NULL;
        AUTO(free) bool *taken = calloc(strv_len(h->inv->cpus) + 1, sizeof *taken);
        struct place_node node;

        if (!taken)
                return -ENOMEM;
        for (uint32_t i = 0; i < w->vcpu; i++)
                if (strv_push(&more, h->inv->cpus[cpu[i]]) < 0)
                        return -ENOMEM;
        /* the choice may hold its own ones, which count once: any other free one will do, too */
        ledger_taken(l, h, w->cluster, taken, &node);
        for (size_t i = 0; i < node.n_cpus; i++)
                if (!taken[i] && strv_push(&more, h->inv->cpus[i]) < 0)
                        return -ENOMEM;
        return keep_and_add(have, more, w->vcpu, ret);
}

/* Positions in the fleet of those names. */
static uint64_t set_of(const struct gpu_fleet *f, char *const *names)
{
        uint64_t set = 0;

        for (size_t i = 0; f && i < f->n && i < 64; i++)
                if (has(names, f->gpus[i].uuid))
                        set |= 1ULL << i;
        return set;
}

/* Those it has first, in their order. */
static int choose_gpus(const struct gpu_fleet *f, uint64_t set, char *const *have, char ***ret)
{
        AUTO(strv_free) char **chosen = NULL, **kept = NULL;

        for (uint64_t left = set; left; left &= left - 1)
                if (strv_push(&chosen, f->gpus[__builtin_ctzll(left)].uuid) < 0)
                        return -ENOMEM;
        for (; have && *have; have++)
                if (has(chosen, *have) && strv_push(&kept, *have) < 0)
                        return -ENOMEM;
        return keep_and_add(kept, chosen, strv_len(chosen), ret);
}

static int copy_names(char *const *names, char ***ret)
{
        int r = 0;

        for (; r >= 0 && names && *names; names++)
                r = strv_push(ret, *names);
        return r < 0 ? -ENOMEM : 0;
}

static int add_names(struct ledger *l, const struct ledger_want *w, enum resource_kind kind,
                     char *const *names, struct store_txn *t)
{
        int r = 0;

        for (; r >= 0 && names && *names; names++)
                if (!ledger_find(l, w, kind, *names))
                        r = ledger_add(l, w, kind, *names, 1, t);
        return r;
}

/* Rows for whatever @w has more of. */
static int add_rows(struct ledger *l, const struct ledger_want *w, char *const *cpus,
                    char *const *gpus, struct store_txn *t)
{
        int r = add_names(l, w, RK_CPU, cpus, t);

        if (r >= 0)
                r = add_names(l, w, RK_GPU, gpus, t);
        for (size_t i = 0; r >= 0 && i < NELEM(counted); i++) {
                const struct reservation *have = ledger_find(l, w, counted[i], w->cluster);
                uint64_t want = wanted(w, counted[i]);

                if (counted[i] == RK_VCPU && strv_len(cpus) > 0)
                        continue;
                if (!have || want > have->amount)
                        r = ledger_set(l, w, counted[i], want, t);
        }
        return r;
}

/* It has whole CPUs, or shares, as the host sold them when it started. */
static enum place_limit check_kind(struct ledger *l, const struct place_node *n,
                                   const struct ledger_want *w, char *const *cpus, struct err *e)
{
        const struct reservation *share = ledger_find(l, w, RK_VCPU, w->cluster);
        uint64_t have = share ? share->amount : strv_len(cpus);

        if (place_shares_cpus(n) == (strv_len(cpus) == 0) || have == w->vcpu)
                return PLACE_OK;
        (void) err_set(
                e, -EBUSY,
                "vcpuCount: the host's cpu_overcommit is another one than when it started; restart it first");
        return PLACE_CPU;
}

/* What it has in memory stays where it is; more of it must have room there, too. */
static enum place_limit check_mems(struct ledger *l, const struct ledger_want *w, uint64_t now,
                                   uint64_t chosen, struct err *e)
{
        const struct reservation *memory = ledger_find(l, w, RK_MEMORY, w->cluster);

        if (!now || now == chosen || !memory || w->memory_mib <= memory->amount)
                return PLACE_OK;
        (void) err_set(
                e, -EBUSY,
                "memoryInGb: the NUMA node that it runs on has not that much free; restart it");
        return PLACE_MEMORY;
}

enum place_limit ledger_grow(struct ledger *l, const struct ledger_host *h,
                             const struct ledger_want *w, char *const *cpus, char *const *gpus,
                             struct store_txn *t, char ***ret_cpus, char ***ret_gpus, struct err *e)
{
        AUTO(free) bool *taken = calloc(strv_len(h->inv->cpus) + 1, sizeof *taken);
        AUTO(free) size_t *cpu = calloc(w->vcpu + 1UL, sizeof *cpu);
        AUTO(strv_free) char **new_cpus = NULL, **new_gpus = NULL;
        const uint64_t mems = ledger_mems(l, w->node, w->cluster), keep = set_of(h->gpus, gpus);
        /* as many as before are the very same, also those that have fallen off the bus meanwhile */
        const bool same_gpus = w->gpu_count == strv_len(gpus);
        const struct place_want want = {
                .vcpu = w->vcpu,
                .memory_mib = w->memory_mib,
                .disk_gib = w->container_disk_gib + w->volume_gib,
                .gpu_count = same_gpus ? (uint32_t) __builtin_popcountll(keep) : w->gpu_count,
                .gpu_type = w->gpu_type,
                .gpu_keep = keep,
                .near = mems
        };
        struct place_choice choice = { .cpus = cpu };
        struct place_node node;
        enum place_limit limit;
        int r = 0;

        if (!taken || !cpu) {
                (void) err_set(e, -ENOMEM, "out of memory");
                return PLACE_MEMORY;
        }
        ledger_taken(l, h, w->cluster, taken, &node); /* its own count as free to it */
        limit = check_kind(l, &node, w, cpus, e);
        if (limit == PLACE_OK)
                limit = place_choose(&node, &want, &choice, e);
        if (limit == PLACE_OK)
                limit = check_mems(l, w, mems, choice.mems, e);
        if (limit != PLACE_OK)
                return limit;
        if (strv_len(cpus) > 0)
                r = choose_cpus(l, h, w, cpu, cpus, &new_cpus);
        if (r >= 0)
                r = same_gpus ? copy_names(gpus, &new_gpus)
                              : choose_gpus(h->gpus, choice.gpus, gpus, &new_gpus);
        if (r >= 0)
                r = add_rows(l, w, new_cpus, new_gpus, t);
        if (r < 0) { /* as in ledger_take() */
                (void) err_set(e, -ENOMEM, "out of memory");
                return PLACE_MEMORY;
        }
        *ret_cpus = TAKE(new_cpus);
        *ret_gpus = TAKE(new_gpus);
        return PLACE_OK;
}

int ledger_settle(struct ledger *l, const struct ledger_want *w, char *const *cpus,
                  char *const *gpus, struct store_txn *t)
{
        struct map_entry *next;
        int r = 0;

        for (struct map_entry *i = map_first(l->rows); i; i = next) {
                struct reservation *row = map_value(i);
                char *const *names = row->kind == RK_CPU ? cpus : gpus;

                next = map_next(i);
                if ((row->kind == RK_CPU || row->kind == RK_GPU) &&
                    str_eq(row->cluster, w->cluster) && !has(names, row->resource))
                        ledger_drop(l, row, t);
        }
        for (size_t i = 0; r >= 0 && i < NELEM(counted); i++) {
                const struct reservation *have = ledger_find(l, w, counted[i], w->cluster);

                if (have && have->amount != wanted(w, counted[i]))
                        r = ledger_set(l, w, counted[i], wanted(w, counted[i]), t);
        }
        return r;
}
