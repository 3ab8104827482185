/* layer_log.h - from the entries of a tar, in whatever order they come, to the layer's index.
 *
 * While the layer streams, each entry is appended to a log in a scratch file: no look-ups, no memory.
 * At the end the log is sorted by path and resolved as if the entries had been unpacked one after
 * the other: the later entry wins; what stands where a directory is needed makes room for one, and
 * takes along nothing of what came after it; whiteouts and opaque marks hide what lower layers have,
 * never what this layer has, wherever they stand in the tar.  Paths come clean from tarpath.h: no
 * "..", no empty component, "" is the root.
 * Runs in vmm-fetch on a stranger's entries.  The result is a function of what was added alone. */
#pragma once
#include "store/layer_index.h"

struct layer_log;

struct layer_log_limits {
        uint64_t max_bytes;   /* of the log; 0: 4 GiB */
        uint32_t max_entries; /* 0: 10,000,000 */
};

/* @scratch: an empty file for the log, borrowed; -EBADF: memory. */
int layer_log_new(int scratch, const struct layer_log_limits *limits, struct layer_log **ret,
                  struct err *e);
struct layer_log *layer_log_free(struct layer_log *l);
DEFINE_AUTO(struct layer_log *, layer_log_free)

/* One entry: a directory, file, object, symbolic link, fifo or socket.  Of @n: type, mode, ids, time,
 * size, chunks (native u32, see pack.h), encoded xattrs, target, an object's number (its place among
 * the objects of the tar, from 0); the rest is ignored.  -ERANGE for an owner outside 0..65535, -EINVAL for the root as
 * anything but a directory, -E2BIG over a limit. */
int layer_log_add(struct layer_log *l, const char *path, const struct layer_entry *n,
                  const uint32_t *chunks, struct err *e);
int layer_log_link(struct layer_log *l, const char *path, const char *target, struct err *e);
int layer_log_whiteout(struct layer_log *l, const char *path, struct err *e);
int layer_log_opaque(struct layer_log *l, const char *path, struct err *e);

/* Write the index to @out, an empty file.  -EINVAL: a hard link whose target was not a file of this
 * layer at that moment.  Once. */
int layer_log_finish(struct layer_log *l, const struct layer_totals *totals, int out,
                     struct err *e);
