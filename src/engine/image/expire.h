/* expire.h - which images leave by themselves: what nobody has used for long, and what must make room.
 * Operation processes, but for image_is_low().  See docs/image-store.md, section 10. */
#pragma once
#include "engine/image/image.h"

/* Whether less is free than the configuration keeps; quick, any process. */
bool image_is_low(const struct image_store *s);

/* Take the names of images that are to leave: unused for `keep`, or least recently used until `floor`
 * and @need bytes more are free.  Never one of @in_use (of image.use), never one that is mounted, and
 * none that cannot be pulled again unless `expire_uploads` is set.  What @in_use names counts as used now.
 * > 0: image_sweep() removes what has lost its last name, with an @in_use newer than this; 0: nothing. */
int image_expire(struct image_store *s, char *const *in_use, uint64_t need, struct err *e);
