/* layer_objects.h - the names of a layer's objects.
 *
 * A fetcher numbers the large files of a layer and never says what is in them.  The publisher hashes
 * them, once, and writes their digests beside the index: docs/image-store.md, section 5.  So no layer
 * can name an object that it did not bring, and every byte of a large file is hashed by a process
 * that parses nothing. */
#pragma once
#include "store/layer_index.h"

#define OBJECTS_HEADER_BYTES 16U
#define OBJECTS_ROW_BYTES    40U /* SHA-256, size; all zero where no entry has the object */

/* Hash the files "0", "1", ... below @dir that @x (a table is enough) says are used, into @digests:
 * n_objects of them, zeros for others.  Each must be a regular file with one name and of that size.
 * -EBADMSG: one is not.  Reads all of them; blocks. */
int layer_objects_hash(const struct layer_index *x, int dir, uint8_t (*digests)[LAYER_SHA_BYTES],
                       struct err *e);
/* The whole file. */
void layer_objects_put(struct sink *s, const struct layer_index *x,
                       const uint8_t (*digests)[LAYER_SHA_BYTES]);

/* Check such a file against the index and remember its rows in @x; @p stays in use.  -EBADMSG. */
int layer_objects_attach(struct layer_index *x, const uint8_t *p, size_t len, struct err *e);
/* Of an attached one; @n < n_objects. */
const uint8_t *layer_objects_digest(const struct layer_index *x, uint32_t n);
