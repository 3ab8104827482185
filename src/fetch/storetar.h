/* storetar.h - a tar stream into what the image store keeps of a layer: pack, index, objects.
 *
 * One pass, as the bytes come.  The three are a function of the tar and the threshold alone
 * (docs/image-store.md).  Runs in vmm-fetch; blocks. */
#pragma once
#include <stdint.h>

#include "base/err.h"
#include "fetch/result.h"
#include "fetch/stream.h"
#include "store/layer_index.h"

struct storetar_out {
        int pack, index;    /* empty files */
        int objects;        /* directory: each object becomes a file there: 0, 1, 2 ... */
        int scratch;        /* an empty file that has no name */
        uint64_t threshold; /* files of so many bytes and more become objects; 0: none does */
};

struct storetar_limits {
        uint64_t max_bytes; /* of the pack and all objects */
        uint32_t max_entries;
};

struct storetar;

/* Read @s (uncompressed) up to and including its last byte.  @res hears of the bytes written.  The
 * index waits for storetar_finish(): it names the diff id, which is known when the stream has ended. */
int storetar_read(struct stream *s, const struct storetar_out *out,
                  const struct storetar_limits *limits, struct result *res, struct storetar **ret,
                  struct err *e);
struct storetar *storetar_free(struct storetar *t);
DEFINE_AUTO(struct storetar *, storetar_free)

struct storetar_totals {
        uint64_t pack_bytes, object_bytes, entries;
};
/* Write the index. */
int storetar_finish(struct storetar *t, const uint8_t diff_id[LAYER_SHA_BYTES],
                    struct storetar_totals *ret, struct err *e);
