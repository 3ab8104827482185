/* names.h - what files of the image store are called, and digests as text.  Pure. */
#pragma once
#include <errno.h>
#include <stdint.h>

#include "store/layer_index.h"

#define STORE_PACK    "pack"
#define STORE_INDEX   "index"
#define STORE_OBJECTS "objects" /* in staging: a directory; of a layer: the names of its objects */

#define STORE_HEX_BYTES (2 * LAYER_SHA_BYTES + 1)

/* 64 lower-case hex digits, nothing else; -EINVAL. */
static inline int store_sha_parse(const char *hex, uint8_t ret[LAYER_SHA_BYTES])
{
        for (size_t i = 0; i < (size_t) 2 * LAYER_SHA_BYTES; i++) {
                char c = hex ? hex[i] : '\0';
                int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;

                if (v < 0)
                        return -EINVAL;
                ret[i / 2] = (uint8_t) (i % 2 ? ret[i / 2] << 4 | v : v);
        }
        return hex[2 * LAYER_SHA_BYTES] ? -EINVAL : 0;
}
