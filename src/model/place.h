/* place.h - does a request fit on a node, and on which of its CPUs.  Pure: the caller says what
 * the node has and what is taken, and turns the answer into reservation rows.
 *
 * With a CPU overcommit of 1 every vCPU is one logical CPU that belongs to one cluster; above 1
 * vCPUs are shares and no CPU is named. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct place_node {
        const bool *cpu_taken; /* one per logical CPU; not read when vCPUs are shares */
        size_t n_cpus;
        size_t cpus_elsewhere; /* taken by other engines on the machine, for the message */
        double cpu_overcommit, memory_overcommit, disk_overcommit; /* >= 1 */
        uint64_t vcpu_taken; /* shares sold, when cpu_overcommit > 1 */
        uint64_t memory_mib, memory_taken_mib;
        uint64_t disk_gib, disk_taken_gib;
        uint32_t n_gpus, gpus_taken;
        const char *gpu_note; /* why there is none, for the message; may be NULL */
};

struct place_want {
        uint32_t vcpu;
        uint64_t memory_mib;
        uint64_t disk_gib; /* container disk and volume together */
        uint32_t gpu_count;
        const char *gpu_type; /* for the message; may be NULL */
};

/* Which constraint failed, tried in this order. */
enum place_limit { PLACE_OK, PLACE_GPU, PLACE_CPU, PLACE_MEMORY, PLACE_DISK, PLACE_LIMIT_COUNT };

/* Choose.  PLACE_OK: @ret_cpus (room for @want->vcpu) holds the CPU indexes when vCPUs are pinned,
 * lowest free first.  Otherwise *@e names the field, what was wanted and what would fit. */
enum place_limit place_choose(const struct place_node *n, const struct place_want *w,
                              size_t *ret_cpus, struct err *e);

/* vCPUs are shares, not whole CPUs. */
static inline bool place_shares_cpus(const struct place_node *n)
{
        return n->cpu_overcommit > 1.0;
}
