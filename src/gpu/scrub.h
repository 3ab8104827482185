/* scrub.h - overwrite all the memory of a GPU and read it back, so that nothing of one cluster's reaches
 * the next one and memory that does not keep what is written is found.
 *
 * A process of its own (vmm-gpu --scrub), because a driver call may hang and a CUDA context goes for
 * sure only with its process; who starts it sets a deadline and kills it. */
#pragma once
#include <jansson.h>

#include "base/err.h"

struct scrub_args {
        const char *uuid; /* "GPU-..." or "MIG-..." */
        const char *cuda; /* path of libcuda.so.1; NULL: the loader's search */
};

/* Blocks, for about two seconds on a GPU of 80 GiB.  *@ret, also after a failure (when it is not NULL):
 * {"uuid":S,"total_mib":N,"covered_mib":N,"mismatches":N,"ms":N}.  -ENOENT: there is no CUDA here;
 * -ENODEV: it does not know this GPU; -EIO: a call failed; -EBADMSG: memory did not keep what was
 * written.  Once in a process: it changes the environment that CUDA looks at. */
int scrub_gpu(const struct scrub_args *a, json_t **ret, struct err *e);

/* The same as a program: one line of JSON on stdout, with "error" and "errno" after a failure; returns
 * the exit status. */
int scrub_main(const struct scrub_args *a);
