/* idle.h - whether a cluster is still used: the decision of the idle stop.
 *
 * Pure: a sample of what was seen goes in, the state that the caller keeps moves on, a verdict comes
 * out.  Nothing here reads a clock.
 *
 * Theory of operation.  The idle clock counts time in which the cluster was seen not to be used.
 * Use of any kind sets it to zero.  Time in which nobody looked (the host or the control plane was
 * away) is not counted, and after it the cluster is watched for a while before anything is done to
 * it: who was connected has to find back first.  What the counters say of that time counts as use. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define IDLE_TIMEOUT_MIN_S 10U
#define IDLE_TIMEOUT_MAX_S (30U * 24 * 3600)

enum idle_action { IDLE_ACTION_NONE, IDLE_STOP, IDLE_TERMINATE, IDLE_ACTION_COUNT };
extern const char *const idle_action_names[IDLE_ACTION_COUNT]; /* as in the API: "STOP" */

/* What the last use was. */
enum idle_use {
        IDLE_USE_NONE,
        IDLE_USE_START,   /* it was started, or its time-out was set */
        IDLE_USE_TRAFFIC, /* at the edge */
        IDLE_USE_SESSION,
        IDLE_USE_CPU,
        IDLE_USE_GPU,
        IDLE_USE_COUNT
};
extern const char *const idle_use_names[IDLE_USE_COUNT]; /* "traffic" */

struct idle_limits {
        uint64_t timeout_us;
        uint32_t cpu_mcpu; /* thousandths of one CPU, on average over a sample: so much is use */
        uint32_t gpu_pct;  /* of one of its GPUs, at its busiest */
};
/* So many seconds, and what is use on every host: a tenth of a CPU, whatever the cluster has (a program
 * that computes on one of 64 is at 1000 mCPU, daemons that wait are at 10), and 3 % of a GPU. */
struct idle_limits idle_limits_of(uint32_t timeout_s);

/* What was seen since the sample before. */
struct idle_sample {
        uint64_t now_us;      /* of a clock that never goes back while the caller lives; not 0 */
        uint64_t run;         /* number of the start; another one begins anew */
        uint64_t cpu_us;      /* a counter */
        uint64_t bytes;       /* a counter: through the edge, both ways */
        uint32_t connections; /* open at the edge now */
        uint32_t sessions;    /* open now */
        bool had_session;     /* one was, in between */
        bool has_traffic;     /* `bytes` and `connections` are known */
        bool blind;           /* a kind of use could not be seen: not counted as idle */
        uint32_t gpu_pct;
};

/* Zeroed: nothing is known yet. */
struct idle_state {
        uint64_t idle_us; /* the idle clock */
        uint64_t seen_us; /* watched so long without a gap */
        uint64_t at_us;   /* `now_us` of the last sample; 0: none of this caller's life */
        uint64_t run, cpu_us, bytes;
        bool warned;
        enum idle_use last_use;
};

enum idle_verdict {
        IDLE_VERDICT_NONE,
        IDLE_KEEP,
        IDLE_WARN, /* once, ahead of the end; the next one may be IDLE_OVER */
        IDLE_OVER, /* stop or terminate it */
        IDLE_VERDICT_COUNT
};
extern const char *const idle_verdict_names[IDLE_VERDICT_COUNT];

/* So long before the end it is warned: half of the time-out, at most five minutes. */
uint64_t idle_warn_us(const struct idle_limits *l);

/* False: it is too early for another sample; what was seen meanwhile belongs to the next.  Averages over
 * moments say nothing, and a report may come between two readings of the counters. */
bool idle_due(const struct idle_state *s, uint64_t now_us);

enum idle_verdict idle_step(struct idle_state *s, const struct idle_sample *x,
                            const struct idle_limits *l);

/* The clock at zero, with everything that was learned of the counters: its owner has touched it. */
void idle_restart(struct idle_state *s);

/* Whether @now is worth being written where @kept was the last that was: when the cluster is used again,
 * with the warning, and ten times in a time-out. */
bool idle_worth_keeping(const struct idle_state *kept, const struct idle_state *now,
                        const struct idle_limits *l);

/* What survives the caller: clock, counters, warning.  New reference, NULL: out of memory; and back (from
 * our own store: what cannot be read is zero). */
json_t *idle_encode(const struct idle_state *s);
void idle_decode(const json_t *j, struct idle_state *ret);

/* What a request says; zeroed: nothing. */
struct idle_wish {
        bool said;          /* of the time-out */
        uint32_t timeout_s; /* 0: never */
        enum idle_action action;
};

/* "idleTimeoutSeconds": 0, or within the bounds; -ERANGE with a sentence. */
int idle_timeout_check(const char *field, int64_t seconds, struct err *e);
