/* edge_run.h - HAProxy as a child: under a user of its own without capabilities, in a root that shows it
 * its libraries and one directory. */
#pragma once
#include <sys/types.h>

#include "base/err.h"

#define EDGE_MARK_MAX 65U

struct edge_run {
        int run_fd;        /* of the instance: where it is written down; borrowed */
        const char *mark;  /* what it was started with, one word; another mark, another process */
        const char *dir;   /* which it may read, absolute, with the configuration in it */
        int listen, admin; /* it gets them as EDGE_LISTEN_FD and EDGE_ADMIN_FD; borrowed */
        unsigned descriptors; /* that it may have open */
};

/* The oldest version that does what is asked of it. */
#define EDGE_RUN_MAJOR 2U
#define EDGE_RUN_MINOR 6U
/* Where the program is; NULL: nowhere. */
const char *edge_run_program(void);
/* How many descriptors a child may have open at most. */
unsigned edge_run_descriptors(void);
/* Whether it would take its configuration; *e is what it says.  Blocks for its answer, some 30 ms. */
int edge_run_check(const struct edge_run *r, struct err *e);
/* Start it, and write down which process it is before it runs; returns a pidfd.  It writes to our standard error,
 * and outlives us. */
int edge_run_start(const struct edge_run *r, struct err *e);
/* The one that an engine before us has started, if it still lives: a pidfd, its mark, and the two listeners that
 * it has; -ESRCH: there is none. */
struct edge_found {
        int pidfd, listen, admin;
        char mark[EDGE_MARK_MAX];
};
int edge_run_find(int run_fd, struct edge_found *ret);
/* Kill it and wait until it is gone; blocks for some milliseconds. */
void edge_run_kill(int pidfd);
/* The same for whatever is written down below @dirfd, which is forgotten. */
void edge_run_end(int dirfd);
