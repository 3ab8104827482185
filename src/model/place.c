/* place.c - see place.h.  Pure; control plane. */
#include "model/place.h"

#include <errno.h>
#include <stdio.h>

#include "model/place_priv.h"

/* What is left of @total stretched by @factor. */
static uint64_t left(uint64_t total, double factor, uint64_t taken)
{
        double all = (double) total * (factor < 1.0 ? 1.0 : factor);

        return all <= (double) taken ? 0 : (uint64_t) all - taken;
}

/* ---- enough of everything? ---- */

static enum place_limit check_cpus(const struct place_node *n, const struct place_want *w,
                                   struct err *e)
{
        size_t free_cpus = 0;
        char elsewhere[64] = "";

        if (place_shares_cpus(n)) {
                free_cpus = left(n->n_cpus, n->cpu_overcommit, n->vcpu_taken);
        } else {
                for (size_t i = 0; i < n->n_cpus; i++)
                        free_cpus += !n->cpu_taken[i];
        }
        if (w->vcpu <= free_cpus)
                return PLACE_OK;
        if (n->cpus_elsewhere)
                (void) snprintf(elsewhere, sizeof elsewhere,
                                ", %zu held by other hosts on this machine", n->cpus_elsewhere);
        (void) err_set(
                e, -ENOSPC,
                "minVcpuCount: %u vCPUs wanted, %zu free on a host of %zu (cpu_overcommit %g%s)",
                w->vcpu, free_cpus, n->n_cpus, n->cpu_overcommit, elsewhere);
        return PLACE_CPU;
}

static enum place_limit check_amounts(const struct place_node *n, const struct place_want *w,
                                      struct err *e)
{
        uint64_t memory = left(n->memory_mib, n->memory_overcommit, n->memory_taken_mib);
        uint64_t disk = left(n->disk_gib, n->disk_overcommit, n->disk_taken_gib);

        if (w->memory_mib > memory) {
                (void) err_set(
                        e, -ENOSPC,
                        "minMemoryInGb: %llu GB wanted, %llu GB free on a host of %llu (memory_overcommit %g)",
                        (unsigned long long) (w->memory_mib + 1023) / 1024,
                        (unsigned long long) memory / 1024,
                        (unsigned long long) n->memory_mib / 1024, n->memory_overcommit);
                return PLACE_MEMORY;
        }
        if (w->disk_gib > disk) {
                (void) err_set(
                        e, -ENOSPC,
                        "containerDiskInGb + volumeInGb: %llu GB wanted, %llu GB free on a host of %llu (disk_overcommit %g)",
                        (unsigned long long) w->disk_gib, (unsigned long long) disk,
                        (unsigned long long) n->disk_gib, n->disk_overcommit);
                return PLACE_DISK;
        }
        return PLACE_OK;
}

/* ---- where: sets of NUMA nodes by their places in the list ---- */

/* What is free of each node. */
struct room {
        size_t cpus[PLACE_NUMA_MAX + 1]; /* the last: of no known node */
        uint64_t memory_mib[PLACE_NUMA_MAX];
};

static size_t numa_of(const struct place_node *n, size_t cpu)
{
        return n->cpu_numa && n->n_numa > 1 && n->cpu_numa[cpu] < n->n_numa ? n->cpu_numa[cpu]
                                                                            : PLACE_NUMA_MAX;
}

static void measure(const struct place_node *n, struct room *r)
{
        *r = (struct room){ 0 };
        for (size_t i = 0; !place_shares_cpus(n) && i < n->n_cpus; i++)
                r->cpus[numa_of(n, i)] += !n->cpu_taken[i];
        for (size_t k = 0; k < n->n_numa; k++)
                r->memory_mib[k] = left(n->numa[k].memory_mib, n->memory_overcommit,
                                        n->numa[k].memory_taken_mib);
}

static bool fits(const struct place_node *n, const struct place_want *w, const struct room *r,
                 uint64_t places)
{
        uint64_t cpus = 0, memory = 0;

        for (size_t k = 0; k < n->n_numa; k++) {
                cpus += places >> k & 1 ? r->cpus[k] : 0;
                memory += places >> k & 1 ? r->memory_mib[k] : 0;
        }
        return memory >= w->memory_mib && (place_shares_cpus(n) || cpus >= w->vcpu);
}

/* The nodes that its GPUs or its memory lie on, as far as they are known. */
static uint64_t near_places(const struct place_node *n, const struct place_want *w,
                            const struct place_choice *c)
{
        uint64_t places = 0;

        for (size_t k = 0; k < n->n_numa; k++)
                if (w->near >> n->numa[k].node & 1)
                        places |= 1ULL << k;
        for (uint64_t m = w->near ? 0 : c->gpus; m; m &= m - 1)
                for (size_t k = 0; k < n->n_numa; k++)
                        if (n->gpus->gpus[__builtin_ctzll(m)].numa_node == n->numa[k].node)
                                places |= 1ULL << k;
        return places;
}

/* The one with the fewest free CPUs that fits, then with the least memory; 0: none. */
static uint64_t fullest(const struct place_node *n, const struct place_want *w,
                        const struct room *r)
{
        size_t best = PLACE_NUMA_MAX;

        for (size_t k = 0; k < n->n_numa; k++) {
                if (!fits(n, w, r, 1ULL << k))
                        continue;
                if (best == PLACE_NUMA_MAX || r->cpus[k] < r->cpus[best] ||
                    (r->cpus[k] == r->cpus[best] && r->memory_mib[k] < r->memory_mib[best]))
                        best = k;
        }
        return best == PLACE_NUMA_MAX ? 0 : 1ULL << best;
}

/* ---- CPUs ---- */

/* From the nodes of @places in turn, lowest first; returns how many there are in @ret now. */
static size_t take_cpus(const struct place_node *n, uint64_t places, size_t want, size_t got,
                        size_t *ret)
{
        size_t next[PLACE_NUMA_MAX + 1] = { 0 };

        while (got < want) {
                size_t before = got;

                for (uint64_t m = places; m && got < want; m &= m - 1) {
                        size_t k = (size_t) __builtin_ctzll(m), i = next[k];

                        while (i < n->n_cpus && (n->cpu_taken[i] || numa_of(n, i) != k))
                                i++;
                        next[k] = i + 1;
                        if (i < n->n_cpus)
                                ret[got++] = i;
                }
                if (got == before)
                        break;
        }
        return got;
}

/* Near ones first, then node by node, the emptiest first, so that they are few. */
static void choose_cpus(const struct place_node *n, const struct place_want *w,
                        const struct room *r, uint64_t near, size_t *ret)
{
        size_t got = take_cpus(n, near, w->vcpu, 0, ret);
        uint64_t rest = ((1ULL << n->n_numa) - 1) & ~near;

        while (rest && got < w->vcpu) {
                size_t most = (size_t) __builtin_ctzll(rest);

                for (size_t k = 0; k < n->n_numa; k++)
                        if (rest >> k & 1 && r->cpus[k] > r->cpus[most])
                                most = k;
                got = take_cpus(n, 1ULL << most, w->vcpu, got, ret);
                rest &= ~(1ULL << most);
        }
        (void) take_cpus(n, 1ULL << PLACE_NUMA_MAX, w->vcpu, got, ret);
}

/* ---- all of it ---- */

enum place_limit place_choose(const struct place_node *n, const struct place_want *w,
                              struct place_choice *ret, struct err *e)
{
        struct place_choice c = { .cpus = ret->cpus };
        enum place_limit l = place_choose_gpus(n, w, &c, e);
        uint64_t near = 0, bound = 0;
        struct room room;

        if (l == PLACE_OK)
                l = check_cpus(n, w, e);
        if (l == PLACE_OK)
                l = check_amounts(n, w, e);
        if (l != PLACE_OK)
                return l;
        measure(n, &room);
        if (n->n_numa > 1) {
                near = near_places(n, w, &c);
                if (near)
                        bound = fits(n, w, &room, near) ? near : 0;
                else if (!place_shares_cpus(n))
                        near = bound = fullest(n, w, &room);
        }
        if (!place_shares_cpus(n))
                choose_cpus(n, w, &room, near, c.cpus);
        for (size_t k = 0; k < n->n_numa; k++)
                if (bound >> k & 1)
                        c.mems |= 1ULL << n->numa[k].node;
        *ret = c;
        return PLACE_OK;
}
