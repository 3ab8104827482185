/* edge_files.h - what HAProxy reads: its configuration, certificates and the routes to begin with.
 *
 * They lie in a directory below the run directory, are written by the engine and belong to HAProxy's
 * user, who sees that directory alone and may not write there.  What is to last, the authority of this
 * host, lies in DIR/edge.  Engine process; blocks on the disk, at start. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/instance.h"

/* Its name in the run directory, and that of the other one in the data directory. */
#define EDGE_FILES_DIR   "edge"
#define EDGE_CONFIG_FILE "haproxy.cfg"

struct edge_files {
        char *dir; /* absolute */
        int fd;
};

int edge_files_open(const struct instance *inst, struct edge_files *ret, struct err *e);
void edge_files_done(struct edge_files *f);
/* The directory's file of that name, readable by HAProxy alone. */
int edge_files_put(const struct edge_files *f, const char *name, const void *data, size_t len,
                   struct err *e);
