/* op.h - operation processes: short-lived children of the engine that may block, crash or hang
 * without stopping its loop.
 *
 * op_start() forks; the child runs @body with plain blocking calls, reports over a frame
 * connection, and ends.  The engine's side is event-driven.  A child dies with the engine
 * (parent-death signal, checked against the race), is killed at its deadline, and may be cancelled;
 * in every case @done runs once, later, on the loop. */
#pragma once
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/frame.h"

struct op;

/* In the child.  @out: the way to report: op_report().  Its result ends the operation: >= 0 good,
 * otherwise *e goes to the engine. */
typedef int op_body_fn(struct frame_conn *out, void *arg, struct err *e);

/* On the loop: a report from the body (frees nothing; may dup descriptors it wants to keep). */
typedef void op_report_fn(void *arg, const struct frame_msg *msg);

/* On the loop, once: @r >= 0 good; -ECANCELED after op_cancel(); -ETIMEDOUT past the deadline;
 * -EOWNERDEAD when the child died without a word (@e names the signal); otherwise the body's own
 * error.  The op is freed after the callback. */
typedef void op_done_fn(void *arg, int r, const struct err *e);

struct op_spec {
        const char *name;       /* "boot abc", process title and log */
        op_body_fn *body;
        void *body_arg;         /* the child's copy of memory: anything the engine has */
        uint64_t timeout_us;    /* 0: none */
        op_report_fn *report;   /* may be NULL */
        op_done_fn *done;
        void *arg;
};

int op_start(sd_event *loop, const struct op_spec *spec, struct op **ret, struct err *e);

/* Kill it; @done comes with -ECANCELED.  Accepts NULL and an op that is ending already. */
void op_cancel(struct op *op);

/* In the body: send one report. */
int op_report(struct frame_conn *out, const json_t *msg, const int *fds, size_t n_fds);
