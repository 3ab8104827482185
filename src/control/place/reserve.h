/* reserve.h - who holds what on the node: one row per resource, in memory and in the store.
 *
 * The choice is model/place.h; here it becomes rows, so that nothing is sold twice: the primary
 * key of a row is the resource.  Rows are freed only when the engine has reported the release of
 * their generation.  Loop thread; nothing blocks. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "control/node/node.h"
#include "control/store/store.h"
#include "model/place.h"

enum resource_kind {
        RK_NONE,
        RK_CPU,            /* resource: the logical CPU's number; amount 1 */
        RK_VCPU,           /* a share, with overcommit; resource: the cluster; amount: vCPUs */
        RK_MEMORY,         /* resource: the cluster; amount: MiB */
        RK_CONTAINER_DISK, /* resource: the cluster; amount: GiB */
        RK_VOLUME,         /* resource: the cluster; amount: GiB; stays until it is terminated */
        RK_GPU,            /* resource: the GPU's UUID; amount 1 */
        RK_NUMA, /* nodes that the memory is bound to; resource: the cluster; amount: bit = node */
        RK_KIND_COUNT
};
extern const char *const resource_kind_names[RK_KIND_COUNT];

enum reservation_state { RS_NONE, RS_HELD, RS_RELEASING, RS_STATE_COUNT };
extern const char *const reservation_state_names[RS_STATE_COUNT];

struct reservation {
        char *node, *resource, *cluster;
        enum resource_kind kind;
        enum reservation_state state;
        uint64_t generation, amount;
};

/* What the node has; borrowed. */
struct ledger_host {
        const struct node_inventory *inv;
        const struct gpu_fleet *gpus;
        const struct gpu_types *gpu_types;
        const struct gpu_chooser *chooser; /* NULL: no GPUs were ever named */
};

struct ledger;
struct ledger *ledger_new(void); /* NULL: out of memory */
struct ledger *ledger_free(struct ledger *l);
DEFINE_AUTO(struct ledger *, ledger_free)
int ledger_add_row(struct ledger *l, const json_t *row, struct err *e); /* while loading */

struct ledger_want {
        const char *node, *cluster;
        uint64_t generation;
        uint32_t vcpu;
        uint64_t memory_mib, container_disk_gib, volume_gib;
        uint32_t gpu_count;
        const char *gpu_type; /* wishes, as in struct place_want */
        bool other_cpus;      /* those it holds were never had, or are lost: choose anew */
};

/* Reserve for a (new) generation of a cluster.  What it holds already is kept where it is still
 * in use on the node, so that another cluster cannot get it too early.  PLACE_OK: memory is
 * changed, the rows are in @t, *@ret_cpus (strv, caller frees; empty when vCPUs are shares) and
 * *@ret_gpus are the choice.  Otherwise nothing is changed and *@e names the constraint. */
enum place_limit ledger_take(struct ledger *l, const struct ledger_host *h,
                             const struct ledger_want *w, struct store_txn *t, char ***ret_cpus,
                             char ***ret_gpus, struct err *e);

/* The NUMA nodes (bit: number) that a cluster's memory is bound to; 0: none. */
uint64_t ledger_mems(const struct ledger *l, const char *node, const char *cluster);

/* The same for a cluster that runs and shall have more or less of something (change.c).  @cpus, @gpus:
 * what it has; those stay as far as they are wanted.  PLACE_OK: what @w adds is in @t, what it takes
 * away is still held. */
enum place_limit ledger_grow(struct ledger *l, const struct ledger_host *h,
                             const struct ledger_want *w, char *const *cpus, char *const *gpus,
                             struct store_txn *t, char ***ret_cpus, char ***ret_gpus,
                             struct err *e);
/* The engine has come to @w: what is held beyond that is free.  -ENOMEM. */
int ledger_settle(struct ledger *l, const struct ledger_want *w, char *const *cpus,
                  char *const *gpus, struct store_txn *t);

/* The cluster is being stopped: its rows wait for the engine's release. */
void ledger_releasing(struct ledger *l, const char *cluster, struct store_txn *t);

/* The engine has released: free the rows, the volume's only @with_volume. */
void ledger_release(struct ledger *l, const char *cluster, bool with_volume, struct store_txn *t);

/* Rows of a cluster that are not the volume's. */
bool ledger_holds(const struct ledger *l, const char *cluster);

/* The cluster that has the resource, borrowed; NULL: nobody. */
const char *ledger_holder(const struct ledger *l, const char *node, enum resource_kind kind,
                          const char *resource);

/* What is taken, @but_cluster's rows (NULL: nobody's) left out.  @cpu_taken has one element per
 * CPU of the inventory and is referred to by *@ret. */
void ledger_taken(const struct ledger *l, const struct ledger_host *h, const char *but_cluster,
                  bool *cpu_taken, struct place_node *ret);

/* Remove rows of clusters for which @known is false (a record goes last, so there are none
 * unless a person edited the store).  Returns how many. */
size_t ledger_drop_orphans(struct ledger *l, bool (*known)(void *arg, const char *cluster),
                           void *arg, struct store_txn *t);
