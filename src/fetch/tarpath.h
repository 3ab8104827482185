/* tarpath.h - names in a layer's tar.  Pure. */
#pragma once
#include <stdbool.h>

#include "base/err.h"

/* Turn @raw into a relative path without ".", "//" or a trailing "/": "" is the layer's root.
 * A leading "/" is dropped: everything lies below the layer's root.  @buf has 4096 bytes.
 * -EINVAL: empty, or holds ".."; -ENAMETOOLONG: a component over 255 bytes, the whole over 4,095,
 * deeper than LIMIT_LAYER_DEPTH. */
int tarpath_clean(const char *raw, char *buf, struct err *e);

enum tarpath_mark {
        TARPATH_PLAIN,
        TARPATH_WHITEOUT, /* ".wh.NAME": NAME is gone */
        TARPATH_OPAQUE,   /* ".wh..wh..opq": the directory hides what lies below */
        TARPATH_SKIP,     /* bookkeeping of another storage driver: not for us */
};

/* What a clean path means.  For TARPATH_WHITEOUT @path becomes the path that is gone, for
 * TARPATH_OPAQUE the directory.  -EINVAL: a whiteout of nothing. */
int tarpath_mark(char *path, enum tarpath_mark *ret, struct err *e);
