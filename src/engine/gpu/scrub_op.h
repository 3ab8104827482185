/* scrub_op.h - the operation that has the memory of one GPU overwritten: starts `vmm-gpu --scrub`, waits,
 * reads what it says.  Engine process, loop thread; the waiting is done by an operation process. */
#pragma once
#include "engine/gpu/driver.h"
#include "engine/instance.h"
#include "engine/op/op.h"

struct scrub_op;

struct scrub_result {
        int r;         /* >= 0 done; -ENOENT: there is no CUDA here; else why not */
        char text[96]; /* "80,512 of 81,920 MiB in 1.9 s", or why not */
};
typedef void scrub_op_fn(void *arg, const struct scrub_result *res);

int scrub_op_start(struct op_runner *w, const struct instance *inst, const struct gpu_driver *d,
                   const char *uuid, scrub_op_fn *done, void *arg, struct scrub_op **ret,
                   struct err *e);
/* @done will not come.  Accepts NULL, returns NULL. */
struct scrub_op *scrub_op_cancel(struct scrub_op *s);
