/* edge_run.h - HAProxy as a child: under a user of its own without capabilities, in a root that shows it
 * its libraries and one directory. */
#pragma once
#include <sys/types.h>

#include "base/err.h"

struct edge_run {
        const char *dir;      /* which it may read, absolute, with the configuration in it */
        int listen, admin;    /* it gets them as EDGE_LISTEN_FD and EDGE_ADMIN_FD; borrowed */
        unsigned descriptors; /* that it may have open */
};

/* How many descriptors a child may have open at most. */
unsigned edge_run_descriptors(void);
/* Whether it would take its configuration; *e is what it says.  Blocks for its answer, some 30 ms. */
int edge_run_check(const struct edge_run *r, struct err *e);
/* Start it; returns a pidfd.  It writes to our standard error and dies with us. */
int edge_run_start(const struct edge_run *r, struct err *e);
