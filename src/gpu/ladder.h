/* ladder.h - how vmm-gpu gives up what the driver's library does not need: see ladder.c. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct ladder_args {
        const char *root;    /* of the driver's files: "/", or a simulated driver's tree */
        const char *library; /* the driver's, by its whole path; NULL: the loader finds it */
        const char *fleet;   /* a simulated driver's description, NULL: a real driver */
        bool cuda;           /* the scrub's library, which wants more than the watch's */
};

/* To be called with one thread and before the library is loaded. */
int ladder_descend(const struct ladder_args *a, struct err *e);

/* A number that changes when the driver's device nodes do: the ladder names each of them, so a new one
 * wants a new process.  0 for a simulated driver. */
uint64_t ladder_nodes(const struct ladder_args *a);
