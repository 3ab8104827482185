/* base.h - mounts of images: one base mount per image, clones of it for clusters.
 *
 * An image is mounted once, at /run/hypervisor-vmm/<instance>/images/<id> of the engine's own mount
 * namespace, which all operations share and nobody else sees; the digest of its metadata is checked
 * at that moment.  A cluster has a clone, which lives on by itself.  When the engine ends, so does its
 * namespace, and with it every base mount.  Operation processes; blocks. */
#pragma once
#include "engine/image/image.h"

/* A detached read-only mount of the image's tree, ids as @userns maps them.  Makes the base mount when
 * there is none.  -EBADMSG: the metadata is not what was published. */
int image_base_clone(struct image_store *s, const struct image *i, int userns, struct err *e);

/* A detached read-only mount of the store's objects: data-only lower of an overlay. */
int image_objects_clone(struct image_store *s, struct err *e);

bool image_base_is_mounted(struct image_store *s, int64_t id);

/* End every base mount but those of the images @used; clones are not disturbed. */
int image_base_tidy(struct image_store *s, const uint64_t *used, size_t n, struct err *e);
