/* cluster.h - what a cluster is doing: one stored enum, one table, one function that changes it.
 * Used by the engine (which decides) and the control plane (which mirrors).  Pure. */
#pragma once
#include <stdbool.h>

#include "base/err.h"

enum cluster_state {
        CS_NONE,
        CS_ACCEPTED,    /* reserved and recorded; nothing exists on the host yet */
        CS_PULLING,     /* the image is being fetched */
        CS_BINDING,     /* disk, gpu, net, slice are being bound */
        CS_STARTING,    /* the first process is being started */
        CS_RUNNING,     /* the first process runs */
        CS_BACKOFF,     /* the first process ended by itself; a restart is due */
        CS_STOPPING,    /* TERM, grace, KILL, then undo */
        CS_EXITED,      /* stopped or failed; volume kept, everything else released */
        CS_TERMINATING, /* stopping for good: the volume goes too */
        CS_TERMINATED,  /* nothing is left but the record */
        CS_STATE_COUNT
};

enum cluster_event {
        CE_NONE,
        CE_PULL,      /* the image is not here and is being fetched */
        CE_BIND,      /* image mounted, binding begins */
        CE_LAUNCH,    /* everything bound, starting the session */
        CE_STARTED,   /* execve done */
        CE_EXIT,      /* the first process (or its monitor) ended by itself */
        CE_FAIL,      /* a stage failed; what was before it is being undone */
        CE_STOP,      /* asked to stop */
        CE_TERMINATE, /* asked to go away */
        CE_RELEASED,  /* undo is complete, every resource is free */
        CE_START,     /* asked to run (again), or the back-off is over */
        CE_RETRY, /* an operation died half-way through no fault of the cluster's: undo, again */
        CE_EVENT_COUNT
};

/* Apply @ev to *@s.  -EPROTO with both names in *@e when the table has no such cell. */
int cluster_step(enum cluster_state *s, enum cluster_event ev, struct err *e);

const char *cluster_state_name(enum cluster_state s);     /* "pulling"; also the public `phase` */
enum cluster_state cluster_state_parse(const char *name); /* CS_NONE when unknown */
const char *cluster_event_name(enum cluster_event ev);

extern const char *const cluster_state_names[CS_STATE_COUNT];

/* Whether the first process exists, so that `runtime` is an object rather than null. */
bool cluster_has_runtime(enum cluster_state s);

/* Whether host resources beyond the volume are held in this state. */
bool cluster_holds_resources(enum cluster_state s);
