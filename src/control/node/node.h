/* node.h - the control plane's end of the node protocol (docs/node-protocol.md).
 *
 * One object per engine.  It connects, reconnects with back-off, checks everything that comes and
 * hands it over in decoded form; what should be on the node is the owner's business, which sends
 * it again on every `synced`.  Loop thread; nothing here blocks. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/mem.h"
#include "model/cluster.h"
#include "model/gpu.h"
#include "model/gpu_telemetry.h"

#define NODE_ID_LEN   64U
#define NODE_NUMA_MAX 62U /* NUMA nodes of a host, by number: PLACE_NUMA_MAX */

/* What is true of the node now and may change at any time. */
struct node_facts {
        char **cpus_elsewhere; /* of its CPUs, those that another engine on the machine holds */
        uint64_t disk_gib;     /* what its disks may take up together; 0: as the inventory says */
        char *disk_full; /* a sentence when nothing new is to begin there; NULL: there is room */
};

/* One NUMA node of the host. */
struct node_numa {
        uint32_t node; /* the kernel's number, below NODE_NUMA_MAX */
        char **cpus;   /* those of the inventory's CPUs that lie there */
        uint64_t memory_mib;
};

/* What the node has.  Owned by whoever decoded it: end with node_inventory_done(). */
struct node_inventory {
        char **cpus;            /* logical CPU numbers that may be sold */
        struct node_numa *numa; /* none: not said, the host is taken as one */
        size_t n_numa;
        uint8_t *cpu_numa; /* of each of `cpus` its place in `numa`, or NODE_NUMA_MAX */
        uint64_t memory_mib, disk_gib;
        double cpu_overcommit, memory_overcommit, disk_overcommit; /* >= 1 */
        char *version;
        struct node_facts
                facts; /* not part of the inventory that is decoded: empty, then kept here */
};

int node_inventory_decode(const json_t *j, struct node_inventory *ret, struct err *e);
void node_inventory_done(struct node_inventory *i);
bool node_cpu_elsewhere(const struct node_inventory *i, const char *cpu);
void node_facts_done(struct node_facts *f);

/* What an hour of a type of GPU costs, as the host's operator says. */
struct node_price {
        char *type; /* its id: model/gpu_type.h */
        double on_demand, spot;
};

/* The GPUs of the node.  Zeroed is an empty one. */
struct node_gpus {
        struct gpu_fleet fleet;
        struct node_price *prices;
        size_t n_prices;
};
int node_gpus_decode(const json_t *j, struct node_gpus *ret, struct err *e);
json_t *node_gpus_encode(const struct node_gpus *g); /* new reference or NULL */
void node_gpus_done(struct node_gpus *g);

struct node_report {
        char *cluster;
        uint64_t epoch, seq, generation;
        enum cluster_state state;
        bool credentials_wanted; /* it must pull, and waits for what the plan names */
        bool secrets_wanted;     /* it is about to start, and waits for those of the variables */
        bool released;
        bool ready;            /* all ports that it declares have answered since it started */
        bool cpus_taken;       /* another engine on the machine holds a CPU of the plan */
        uint32_t progress_pct; /* of a pull, as are the next */
        uint64_t progress_bytes, progress_total_bytes, progress_bytes_per_s;
        char *reason, *address;
        char *ports, *public_ip; /* model/published.h; where those are reached */
        char *refused; /* why it has not changed a cluster that runs to this generation; NULL: it has */
        uint64_t started_us, exit_code, restarts, oom_kills;
        uint64_t cpu_us, memory_bytes;                     /* usage; 0 when not sent */
        double pressure_cpu, pressure_memory, pressure_io; /* percent; NaN: not sent */
        bool has_usage;
        uint64_t edge_bytes, edge_connections; /* through the edge so far; open there now */
        bool has_edge;                         /* both are known */
        bool edge_is_mute;                     /* there is one, and it does not tell them now */
        const json_t *security;                /* borrowed for the call; NULL: not sent */
        const json_t *gpu_receipts;            /* the same; not looked at yet */
};

/* Something happened to a GPU (docs/gpu.md); borrowed for the call. */
struct node_event {
        const char *uuid, *kind;
        const char *text;    /* never NULL */
        const char *cluster; /* who had it; NULL: nobody */
        uint64_t code;       /* 0: none */
};

/* Something that a cluster did, or that was done to it; borrowed for the call. */
struct node_security {
        const char *cluster, *kind, *message;
        uint64_t generation;
};

/* All are called on the loop, with @arg. */
struct node_ops {
        /* connected; @inventory is the raw object too, for keeping */
        void (*hello)(void *arg, const char *node, const struct node_inventory *inv,
                      const json_t *raw);
        void (*facts)(void *arg, struct node_facts *f); /* may be taken (emptied) */
        void (*gpus)(void *arg, struct node_gpus *g);   /* may be taken (emptied) */
        void (*report)(void *arg, const struct node_report *r);
        void (*telemetry)(void *arg, struct gpu_telemetry *t, size_t n); /* takes @t: heap */
        void (*event)(void *arg, const struct node_event *ev);
        void (*security)(void *arg, const struct node_security *s);
        void (*synced)(void *arg);        /* state what should be */
        void (*inner)(void *arg, int fd); /* takes @fd: the listener of api.internal */
        void (*lost)(void *arg);
};

struct node;
/* @path: the engine's node.sock.  Tries to connect from the loop's first turn on. */
int node_new(sd_event *loop, const char *path, const struct node_ops *ops, void *arg,
             struct node **ret, struct err *e);
struct node *node_free(struct node *n); /* open requests are answered with -ECANCELED */
DEFINE_AUTO(struct node *, node_free)

bool node_connected(const struct node *n); /* and in sync */

/* Statements.  Without a connection they do nothing: `synced` comes with the next one. */
void node_assign(struct node *n, const char *cluster, uint64_t generation, bool run,
                 const json_t *plan, const json_t *credentials, const json_t *secrets,
                 const char *ssh_keys); /* the three NULL: not wanted */
void node_tombstone(struct node *n, const char *cluster, uint64_t generation);
void node_forget(struct node *n, const char *cluster, uint64_t generation);
/* All API keys of that account, [{"id", "sha256", "opens"}]; borrowed. */
void node_keys(struct node *n, const char *account, const json_t *keys);
/* After those of every account: there are no others. */
void node_keys_said(struct node *n);

/* ---- requests ---- */

struct node_reply {
        int r;                /* 0, or a negative errno */
        const char *message;  /* why, when r < 0 */
        const json_t *result; /* borrowed; NULL when r < 0 */
        int *fds;             /* take what you want with fd_take(); the rest is closed */
        size_t n_fds;
};
/* Exactly one done per request, also when the connection is lost (-ENOTCONN). */
typedef void node_done_fn(void *arg, struct node_reply *reply);
struct node_progress {
        const char *phase;                /* borrowed */
        uint64_t done_bytes, total_bytes; /* total 0: not known yet */
        uint64_t bytes_per_s;             /* 0: nothing moves, or too early to say */
};
typedef void node_progress_fn(void *arg, const struct node_progress *g);

/* Ask for @op with @args (stolen, also on failure).  @timeout_us 0: as long as it takes.  Returns
 * the request's number (> 0), or -ENOTCONN with *e, and then @done is not called. */
int64_t node_request(struct node *n, const char *op, json_t *args, const int *fds, size_t n_fds,
                     uint64_t timeout_us, node_done_fn *done, node_progress_fn *progress, void *arg,
                     struct err *e);

/* Nobody waits any more: @done is not called, a late answer's descriptors are closed. */
void node_cancel(struct node *n, int64_t request);
