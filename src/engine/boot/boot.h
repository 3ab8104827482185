/* boot.h - the boot flow as a table of stages, run forwards to boot and backwards to undo.
 *
 *   plan -> shell -> image -> disk -> gpu -> net -> slice -> session
 *
 * Everything here runs in an operation process and blocks.  Going forward, a stage may rely on the
 * ones before it; going back, every `undo` works from the names alone (cluster id, attempt, slot),
 * is idempotent, and accepts that its stage never ran: the engine may have died anywhere.
 * A failed boot is undone by the same backward walk that stops a cluster, in an operation of its
 * own: there is one way down. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/frame.h"
#include "engine/gpu/bind.h"
#include "engine/host.h"
#include "engine/image/image.h"
#include "engine/net/net.h"
#include "engine/sandbox/sandbox.h"
#include "engine/slice/slice.h"
#include "model/plan.h"

struct boot {
        const struct host *host;
        struct plan plan;
        struct plan was;    /* what a cluster that is changed runs by, until it is */
        struct image image; /* resolved by the engine; not all of it is used */
        uint64_t attempt;   /* makes file names of this boot unique */
        uint32_t slot;      /* claimed and journaled before the operation began */
        char claim[32];
        /* from the pools, or empty: a stage makes its own */
        int userns; /* id map of the slot */
        struct sandbox_shell shell;
        int disk_mnt; /* mounted container disk, still under its pool name */
        char disk_pool_name[64];
        /* made on the way */
        int lower_mnt, data_mnt, upper_mnt, volume_mnt, root_mnt; /* data_mnt: objects, or none */
        struct gpu *gpus; /* what the engine knows of those that the plan names, in its order */
        size_t n_gpus;
        char **secrets; /* name=value: what takes the place of placeholders in the plan's variables */
        char *ssh_keys;    /* of its account, lines as vmm-ssh has them; NULL: its variables say */
        bool whole_fabric; /* they are all that this host has */
        struct gpu_binding gpu;
        uint32_t net_account;   /* its account's number, journaled before the operation began */
        struct published ports; /* of the host's that lead to it, journaled as well */
        char public_ip[48];     /* where they are reached; "": not known */
        struct net_lease lease;
        struct sandbox_proc proc;
        /* for tests: this stage fails after its work is done */
        const char *fail_at;
};

void boot_init(struct boot *b, const struct host *host);
void boot_done(struct boot *b); /* closes everything; undoes nothing */

/* Copies to @b what @fleet says of the plan's GPUs; engine process.  -ENODEV names the one that is not
 * there. */
int boot_take_gpus(struct boot *b, const struct gpu_fleet *fleet, struct err *e);

/* Called before each stage with its name. */
typedef void boot_stage_fn(void *arg, const char *stage);

/* Run the table forwards.  On failure *e begins with the stage's name and nothing is undone yet;
 * -EOWNERDEAD: a process of ours was killed, and a second try may go well. */
int boot_run(struct boot *b, boot_stage_fn *fn, void *arg, struct err *e);

/* Run it backwards.  @graceful: TERM first, up to the configured grace.  @volume: remove the
 * volume and the logs too (terminate).  Stops at the first error; to be called again. */
int boot_undo(struct boot *b, bool graceful, bool volume, struct err *e);

/* Bring a cluster that runs from b->was to b->plan without its processes noticing more than that there
 * is more or less.  Its CPUs are claimed under the generation of b->was, so that its undo finds them.
 * All that can be known is checked first; what fails all the same is put back, but for a disk that
 * has grown.  May be run again after a kill, and ends in the same. */
int boot_change(struct boot *b, struct err *e);

/* All of a slot that no cluster has a say in: its groups, its network namespace, its id map and two
 * processes that wait in them.  5 ms; the pool does it ahead of time, the shell stage for those that
 * find the pool empty.  Undone by boot_undo(). */
int boot_prepare(struct boot *b, struct err *e);

/* Names, for the journal's readers and for leak checks. */
void boot_slice_name(uint32_t slot, char ret[static 32]);         /* "c<slot>" */
void boot_monitor_slice_name(uint32_t slot, char ret[static 32]); /* "m<slot>" */
void boot_disk_name(const char *cluster, uint64_t attempt, char ret[static 64]);
void boot_socket_name(const char *cluster, uint64_t attempt, char ret[static 64]);

/* The stages' names in order; NULL-terminated. */
extern const char *const boot_stage_names[];
