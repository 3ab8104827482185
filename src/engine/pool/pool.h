/* pool.h - what takes long to make and is the same for every cluster, made ahead of time: slots with
 * their groups, network namespace and id map, and a shell that waits in them; formatted and mounted
 * container disks.
 *
 * Filled by operation processes that pass descriptors back; nothing here outlives the engine but
 * names, and those are swept at the next start.  Loop thread only; nothing blocks. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/mem.h"
#include "engine/host.h"
#include "engine/sandbox/sandbox.h"

struct pool;
struct op_runner;

int pool_new(sd_event *loop, struct op_runner *runner, const struct host *host, uint64_t epoch,
             struct pool **ret, struct err *e);
/* Begin to fill; before this, left-overs of an earlier engine are still being swept. */
void pool_start(struct pool *p);
/* Stops filling; unlinks spare disks, releases the slots of spare networks. */
struct pool *pool_free(struct pool *p);
DEFINE_AUTO(struct pool *, pool_free)

struct pool_slot {
        uint32_t slot;
        char claim[32]; /* the slot's claim goes with it */
        int userns;
        struct sandbox_shell shell;
};
/* Take a ready one; -EAGAIN when there is none (the caller makes its own and the pool grows back).
 * Descriptors belong to the caller. */
int pool_take_slot(struct pool *p, struct pool_slot *ret);

struct pool_disk {
        int mnt;
        char name[64]; /* below DIR/disks; rename it to the cluster's own */
};
/* The same for a disk of exactly @gib; also tells the pool that this size is in use. */
int pool_take_disk(struct pool *p, uint32_t gib, struct pool_disk *ret);
