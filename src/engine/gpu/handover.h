/* handover.h - what happens to GPUs when a lease ends: looked at until they are clean, scrubbed when the
 * configuration says so, or put into quarantine with a reason.  Bounded in time, and a GPU whose state
 * cannot be learnt is never passed.
 *
 * Engine process, loop thread; nothing here blocks.  What to compare with (`held`) is written down when a
 * lease begins and lies in the journal, with the cluster's row: a check that a crash cut short is simply
 * made again by the next engine, from that row. */
#pragma once
#include <jansson.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/mem.h"
#include "engine/gpu/driver.h"
#include "engine/instance.h"

struct gpuhost;
struct handover;
struct handover_job;
struct journal;
struct op_runner;

struct handover_spec {
        sd_event *loop;
        struct gpuhost *gpuhost; /* NULL: this host has no GPUs (any more) */
        struct journal *journal;
        struct op_runner *runner;        /* for scrubs */
        const struct gpu_driver *driver; /* borrowed */
        const struct instance *inst;
};

int handover_new(const struct handover_spec *spec, struct handover **ret, struct err *e);
struct handover *handover_free(struct handover *h); /* after every job was cancelled or is done */
DEFINE_AUTO(struct handover *, handover_free)

/* A lease of these GPUs begins: adds {"GPU-...":{...}} to the object @held; those that are in it already
 * stay as they are. */
int handover_begin(struct handover *h, char *const *uuids, json_t *held, struct err *e);
/* The driver reported an Xid of this GPU, or of the one that it lies on: true when it belongs into @held
 * and was written down there. */
bool handover_note(json_t *held, const char *uuid, uint64_t xid);

/* @receipts: an array of them, one per GPU, borrowed.  By then what is not ok is in quarantine. */
typedef void handover_done_fn(void *arg, const json_t *receipts);

/* Check GPUs of @held whose processes are dead; @uuids NULL: all.  At most 15 s, and a minute more for a
 * scrub; @done comes once, later, on the loop. */
int handover_check(struct handover *h, const char *cluster, const json_t *held, char *const *uuids,
                   handover_done_fn *done, void *arg, struct handover_job **ret, struct err *e);
/* @done will not come; nothing was decided.  Accepts NULL. */
struct handover_job *handover_cancel(struct handover_job *job);
