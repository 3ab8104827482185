/* op.h - operation processes: short-lived children of the engine that may block, crash or hang
 * without stopping its loop.
 *
 * A child runs a body with plain blocking calls, reports over a frame connection, and ends.  The
 * engine's side is event-driven.  A child dies with the engine (parent-death signal, checked
 * against the race), is killed at its deadline, and may be cancelled; in every case `done` runs
 * once, later, on the loop.
 *
 * Two ways in:
 *   op_start()   forks now; the body finds its arguments in the copied memory.
 *   op_order()   hands a message with descriptors to a child that was forked ahead of time, which
 *                takes the 0.3-1 ms of a fork off the way (or forks now, when none is ready).
 *
 * Descriptors: a child keeps those that were open when the runner was made (the host's modules)
 * and those named in spec.keep; everything that the engine opened later is closed in it, so that an
 * operation that takes hours does not hold other clusters' disks and networks. */
#pragma once
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/frame.h"
#include "base/mem.h"

struct op;
struct op_runner;

/* In the child.  @out: the way to report: op_report().  Its result ends the operation: >= 0 good,
 * otherwise *e goes to the engine. */
typedef int op_body_fn(struct frame_conn *out, void *arg, struct err *e);
/* The same for orders; @order's descriptors may be taken (set to -EBADF).  Before it waits, a child
 * calls this with NULL: whatever is done then, such as touching memory that an order will touch, is
 * off the way. */
typedef int op_order_fn(struct frame_conn *out, struct frame_msg *order, void *arg, struct err *e);

/* On the loop: a report from the body (may dup descriptors that it wants to keep). */
typedef void op_report_fn(void *arg, const struct frame_msg *msg);

/* On the loop, once: @r >= 0 good; -ECANCELED after op_cancel(); -ETIMEDOUT past the deadline;
 * -EOWNERDEAD when the child died without a word (@e names the signal); otherwise the body's own
 * error.  The op is freed after the callback. */
typedef void op_done_fn(void *arg, int r, const struct err *e);

struct op_spec {
        const char *name; /* "boot abc", for messages */
        op_body_fn *body; /* op_start() only */
        void *body_arg;
        const int *keep; /* op_start() only: further descriptors that the body needs */
        size_t n_keep;
        uint64_t timeout_us;  /* 0: none */
        op_report_fn *report; /* may be NULL */
        op_done_fn *done;
        void *arg;
};

/* Remembers what is open now.  @on_order: body of every order; @spares: children kept ahead. */
int op_runner_new(sd_event *loop, op_order_fn *on_order, void *order_arg, size_t spares,
                  struct op_runner **ret, struct err *e);
struct op_runner *op_runner_free(struct op_runner *w);
DEFINE_AUTO(struct op_runner *, op_runner_free)

int op_start(struct op_runner *w, const struct op_spec *spec, struct op **ret, struct err *e);
int op_order(struct op_runner *w, const struct op_spec *spec, const json_t *order, const int *fds,
             size_t n_fds, struct op **ret, struct err *e);

/* Kill it; @done comes with -ECANCELED.  Accepts NULL and an op that is ending already. */
void op_cancel(struct op *op);

/* In the body: send one report. */
int op_report(struct frame_conn *out, const json_t *msg, const int *fds, size_t n_fds);
