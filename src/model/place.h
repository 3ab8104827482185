/* place.h - does a request fit on a node, and on which of its CPUs, GPUs and NUMA nodes.  Pure: the
 * caller says what the node has and what is taken, and turns the answer into reservation rows.
 *
 * With a CPU overcommit of 1 every vCPU is one logical CPU that belongs to one cluster; above 1
 * vCPUs are shares and no CPU is named.
 *
 * On a host of several NUMA nodes vCPUs and memory lie where the GPUs lie, as far as there is room for
 * all of them.  A cluster without GPUs gets one NUMA node if it fits on one: of those the fullest, so
 * that whole ones stay for those that need them.  What does not fit so is spread, with the memory of
 * all nodes, CPUs near the GPUs first; shares without GPUs always are. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/gpu_choose.h"

#define PLACE_NUMA_MAX                                                                             \
        62U /* nodes, by number; a set of them is a number that every store can hold */

struct place_numa {
        uint32_t node; /* the kernel's number, below PLACE_NUMA_MAX */
        uint64_t memory_mib, memory_taken_mib;
};

struct place_node {
        const bool *cpu_taken;   /* one per logical CPU; not read when vCPUs are shares */
        const uint8_t *cpu_numa; /* its place in `numa`, or PLACE_NUMA_MAX; NULL: not known */
        size_t n_cpus;
        size_t cpus_elsewhere; /* taken by other engines on the machine, for the message */
        double cpu_overcommit, memory_overcommit, disk_overcommit; /* >= 1 */
        uint64_t vcpu_taken; /* shares sold, when cpu_overcommit > 1 */
        uint64_t memory_mib, memory_taken_mib;
        uint64_t disk_gib, disk_taken_gib;
        struct place_numa numa[PLACE_NUMA_MAX];
        size_t n_numa; /* 0 or 1: nothing to choose */
        /* all may be NULL: no GPUs */
        const struct gpu_fleet *gpus;
        const struct gpu_types *gpu_types;
        const struct gpu_chooser *chooser;
        uint64_t gpus_free; /* by position in the fleet: in order and nobody's */
        uint32_t n_gpus, gpus_taken;
};

struct place_want {
        uint32_t vcpu;
        uint64_t memory_mib;
        uint64_t disk_gib; /* container disk and volume together */
        uint32_t gpu_count;
        const char *gpu_type; /* wishes (gpu_type.h), best first, commas between them; NULL: any */
        uint64_t
                gpu_keep; /* GPUs that it has: all stay, or of them the best when there are too many */
        uint64_t near;    /* NUMA nodes (bit: number) where its memory lies already; 0: none yet */
};

struct place_choice {
        size_t *cpus;  /* the caller's, room for `vcpu`; filled when vCPUs are pinned */
        uint64_t gpus; /* positions in the fleet */
        const struct gpu_type *gpu_type; /* theirs; NULL: none */
        uint64_t mems; /* NUMA nodes (bit: number) that its memory is bound to; 0: none */
};

/* Which constraint failed, tried in this order. */
enum place_limit { PLACE_OK, PLACE_GPU, PLACE_CPU, PLACE_MEMORY, PLACE_DISK, PLACE_LIMIT_COUNT };

/* Choose.  PLACE_OK: *@ret holds the choice, CPUs lowest free first.  Otherwise it is untouched but for
 * what `cpus` refers to, and *@e names the field, what was wanted and what would fit. */
enum place_limit place_choose(const struct place_node *n, const struct place_want *w,
                              struct place_choice *ret, struct err *e);

/* vCPUs are shares, not whole CPUs. */
static inline bool place_shares_cpus(const struct place_node *n)
{
        return n->cpu_overcommit > 1.0;
}
