/* logdir.h - a cluster's directory of small files: two log halves and the last exit status.
 *
 * For each cluster that is terminated a spare directory with new, empty files is made: on a busy ext4
 * making four inodes soon after others were deleted takes over a millisecond (it avoids the deleted
 * ones for a while), which a terminate can wait for and a boot cannot.  No file is used twice:
 * whoever still reads the log of a cluster that is gone has it open.
 * Operation processes; blocks on the disk. */
#pragma once
#include "base/err.h"

struct logdir {
        int log[2], status; /* read-write; the status file is empty */
};

void logdir_done(struct logdir *l);

/* Open @cluster's directory below @clusters, made from a spare one or anew when it is missing. */
int logdir_open(int clusters, const char *cluster, struct logdir *ret, struct err *e);

/* Take it away with all it holds; idempotent. */
int logdir_remove(int clusters, const char *cluster, struct err *e);

/* The directory of spares, which is no cluster's. */
#define LOGDIR_SPARES ".spare"
