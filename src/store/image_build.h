/* image_build.h - from the indexes of an image's layers to its metadata file system: the whole work of
 * the image builder.  Blocks on the file system. */
#pragma once
#include "store/erofs.h"

/* @indexes: published files, bottom first, borrowed; nobody writes them any more.  @objects: for each
 * of them the digests that the publisher wrote, or -EBADF where the layer has no objects.  @scratch: an empty
 * file, borrowed, or -EBADF: memory.  @out: an empty file.
 * -EBADMSG: an index is not one; -E2BIG, -EFBIG: over a limit of docs/image-store.md. */
int image_build(const int *indexes, const int *objects, size_t n, int scratch, int out,
                struct erofs_totals *ret, struct err *e);
