/* build.h - from the indexes of an image's layers to its metadata, by vmm-fetch in its sandbox. */
#pragma once
#include "store_priv.h"

struct build {
        char sha[STORE_HEX_BYTES];
        uint64_t bytes;
};

/* Makes STORE_META in the operation's staging directory, root's own and read-only.  Blocks for as long
 * as that takes. */
int build_meta(const struct layers *l, struct build *ret, struct err *e);
