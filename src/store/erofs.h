/* erofs.h - the metadata file system of an image: the merged tree, without the content of its files.
 *
 * An EROFS that Linux 5.16 and later reads: extended inodes, plain and inline data, chunks that point
 * into extra devices (the packs, in the order of erofs_devices()), nothing compressed.  An object is
 * a file that is one hole, with trusted.overlay.metacopy and .redirect, for an overlay mount with the
 * objects as data-only lower.  What is written and why the kernel may read it: docs/image-store.md,
 * section 6.  Runs in the image builder's sandbox; a function of the checked indexes alone. */
#pragma once
#include "store/merge.h"

struct erofs_totals {
        uint64_t bytes;           /* of the file system, a multiple of 4096 */
        uint32_t inodes, objects; /* objects: files that redirect to one */
};

/* Write it to @out, an empty file.  Layers with objects have their digests attached.  The nodes of @m are used up: once per merge.
 * -EFBIG: the metadata needs more than 2^32 blocks. */
int erofs_write(struct merge *m, int out, struct erofs_totals *ret, struct err *e);

/* The layers whose packs are the extra devices, in the order of mount(2)'s device= options: those with
 * a pack, bottom first.  *@ret has room for MERGE_LAYERS_MAX; the number of them is returned. */
unsigned erofs_devices(const struct layer_index *layers, size_t n_layers, unsigned *ret);

/* Where an object lies below the directory of objects: "ab/cdef...", 65 characters. */
#define EROFS_OBJECT_PATH_BYTES 66U
void erofs_object_path(const uint8_t sha[LAYER_SHA_BYTES], char ret[EROFS_OBJECT_PATH_BYTES]);
