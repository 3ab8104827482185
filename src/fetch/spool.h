/* spool.h - the files of an uploaded tar, kept below one directory under numbers of ours and found
 * again by the names that the tar gave them.  Runs in vmm-fetch; blocks. */
#pragma once
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "fetch/result.h"
#include "fetch/stream.h"

struct spool;

struct spool_file {
        char file[24];   /* its name in the directory */
        char digest[72]; /* SHA-256 of what was written */
        uint64_t size_bytes;
        char *link; /* not a file but a link to this path of the tar */
};

/* Read @s, a tar, to its end.  @dir is borrowed.  At most @max_bytes are kept. */
int spool_new(struct stream *s, int dir, uint64_t max_bytes, struct spool **ret, struct err *e);
struct spool *spool_free(struct spool *p);
DEFINE_AUTO(struct spool *, spool_free)

/* The file that the tar called @path (links followed); NULL: there is none. */
const struct spool_file *spool_find(const struct spool *p, const char *path);
/* Its content, at most @max bytes; -ENOENT names @path. */
int spool_read(const struct spool *p, const char *path, size_t max, char **ret, size_t *ret_len,
               struct err *e);
