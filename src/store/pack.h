/* pack.h - the content of a layer's small files in one file, in the order in which they come.
 *
 * Each file begins at a multiple of 4096 bytes, so that a file system can point into the pack; what is
 * left of its last block is zeros.  A file that the tar describes as sparse is cut into at most
 * LAYER_CHUNKS_MAX chunks, and only those that hold data are stored (docs/image-store.md, section 3).
 * Runs in vmm-fetch.  The bytes are a function of the files alone.  One file at a time. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

struct pack;

/* @fd: an empty file, borrowed.  -EFBIG once the pack would be longer than @max_bytes, holes
 * included: somebody will have to read them. */
int pack_new(int fd, uint64_t max_bytes, struct pack **ret, struct err *e);
struct pack *pack_free(struct pack *p);
DEFINE_AUTO(struct pack *, pack_free)

int pack_file_begin(struct pack *p, uint64_t size, bool sparse, struct err *e);
/* @at ascends; everything lies within the size.  A dense file's gaps are zeros. */
int pack_file_write(struct pack *p, uint64_t at, const void *data, size_t len, struct err *e);

struct pack_file {
        const uint32_t *chunks; /* borrowed until the next file begins; LAYER_HOLE for a hole */
        uint32_t n_chunks;
        unsigned chunk_bits;
};
void pack_file_end(struct pack *p, struct pack_file *ret);

/* Write what is gathered, and give the file its length, a multiple of 4096. */
int pack_end(struct pack *p, uint64_t *ret_bytes, struct err *e);
