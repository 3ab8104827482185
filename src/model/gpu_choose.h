/* gpu_choose.h - which set of the free GPUs is best.  Pure and exact: the very best one by the
 * objective below, never a good one.
 *
 * Of all sets S of k GPUs that are free, wanted, and of one type, the one that is first by
 *
 *   1. legality: where k >= 2 and the type's GPUs lie in partitions (of an NVSwitch fabric), S is one;
 *   2. the largest sum of gpu_pair_score() over the pairs within S;
 *   3. the least loss.  With A the free GPUs of S's type, wanted or not, and V(X) what X is worth,
 *      the loss is V(A) - V(A without S).  V(X) is the sum of the scores of all pairs within X; with
 *      partitions: of the sums of all partitions of two and more that lie within X;
 *   4. the fewest NUMA nodes (unknown counts as one node);
 *   5. the lowest positions: of two sets, the one that has the lowest position which is in one alone.
 *
 * MIG instances are not joined at all: of one profile those come first whose GPU has the fewest free
 * instances of any profile, then whose GPU comes first in the fleet, then by GPU instance, compute
 * instance and position; so that GPUs stay whole.
 *
 * Pair scores: 16,384 for each NVLink, direct or through a switch, and for the way through PCIe
 * PIX 8, PXB 6, PHB 5, NODE 4, SYS 1, unknown 0.  The ways of all pairs together never make up for one
 * NVLink: 2,016 pairs times 8 is less.
 *
 * How: GPUs that are joined alike to all others (twins) are interchangeable, so that only how many of
 * each kind are taken matters.  Up to 16 GPUs of a type all subsets lie sorted by 2, 4, 5 in a table
 * that is made once per fleet; the first that is free wins, or with equals the one of the least sum of
 * degrees, which is 3.  Machines of more than 16 GPUs of one type are built of equal switches, where
 * the combinations of kinds are few and all looked at; where they are more than 2^20, k is refused
 * unless it is 1 or all. */
#pragma once
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "model/gpu.h"
#include "model/gpu_type.h"

uint32_t gpu_pair_score(struct gpu_link l);

struct gpu_chooser;
/* Copies what it needs; takes a few ms with 16 GPUs of a type.  Depends on links, partitions, types,
 * NUMA nodes and instances, not on states. */
int gpu_chooser_new(const struct gpu_fleet *f, const struct gpu_types *types,
                    struct gpu_chooser **ret, struct err *e);
struct gpu_chooser *gpu_chooser_free(struct gpu_chooser *c);
DEFINE_AUTO(struct gpu_chooser *, gpu_chooser_free)

struct gpu_choice {
        uint64_t set;        /* bit i: gpus[i] */
        uint64_t score;      /* 2 above */
        uint64_t loss;       /* 3 above */
        uint32_t numa_nodes; /* how many */
};

/* Sets are positions in the fleet; @free holds GPUs that may be had now, @wanted all GPUs of the types
 * that would do.  @keep: these (free or not, all of one type) are in S in any case, and count as free;
 * 0: none.  -ENOSPC: so many of one type are not free, or no legal set of them; -EINVAL: the
 * fabric is never divided into sets of @k; -E2BIG: cannot be found (see above).  *@e says so in words
 * that follow what was wanted. */
int gpu_choose(const struct gpu_chooser *c, uint64_t free, uint64_t wanted, uint64_t keep,
               uint32_t k, struct gpu_choice *ret, struct err *e);
