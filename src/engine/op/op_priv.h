/* op_priv.h - shared by op.c (the engine's side) and op_child.c (the child's side). */
#pragma once
#include <signal.h>
#include <stdbool.h>

#include "engine/op/op.h"

struct op {
        struct op *next; /* among the spares */
        char name[64];
        pid_t pid;
        int pidfd;
        struct frame_conn *conn;
        sd_event_source *pid_src, *conn_src, *time_src;
        op_report_fn *report;
        op_done_fn *done;
        void *arg;
        int verdict; /* set by the done frame, a cancel or the deadline */
        bool has_verdict, exited, drained;
        struct err err;
        siginfo_t how;
};

struct op_runner {
        sd_event *loop;
        op_order_fn *on_order;
        void *order_arg;
        int *keep; /* open when the runner was made */
        size_t n_keep;
        struct op *spares;
        size_t n_spares, want_spares;
        sd_event_source *refill_src, *quiet_src;
};

/* Fork; in the child run @spec->body, or wait for an order when it is NULL.  Never returns there.
 * The result has no sources yet. */
int op_fork(struct op_runner *w, const struct op_spec *spec, struct op **ret, struct err *e);
struct op *op_free(struct op *op);
DEFINE_AUTO(struct op *, op_free)
