/* fetchwire.h - the contract between vmm-fetch and the operation process that starts it.
 *
 *   vmm-fetch manifest | layer | import | build
 *
 * Descriptors are fixed numbers: 0 the input (import: the uploaded stream; layer with from_file: the
 * blob; else /dev/null), 1 the result, 2 /dev/null, 3 the request (one JSON object, read to its end:
 * it may hold credentials, which therefore never appear in argv or the environment), 4 a detached,
 * idmapped mount of the only directory that this process may write.  `build` has no directory (4 is
 * /dev/null) but, from FETCH_FD_FIRST_FREE on, the metadata to write, a scratch file, the indexes of
 * the layers, bottom first, and then the names of their objects, /dev/null for a layer without.
 * `layer` leaves in its directory: pack, index, objects/0, 1, 2... (docs/image-store.md).
 * The result is JSON lines of at most FETCH_LINE_MAX bytes; the last one is "done" or "error":
 *   {"type":"progress","done":N,"total":N,"unpacked":N}      compressed bytes; unpacked ones
 *   {"type":"image", ...}            struct fetch_image
 *   {"type":"done","unpacked":N,"entries":N}
 *   {"type":"error","errno":N,"message":S}
 * Whoever reads them trusts none of it: a fetcher that a hostile image took over may say anything
 * about its own image, and only that.  Pure. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

#define FETCH_FD_REQUEST    3
#define FETCH_FD_ROOT       4
#define FETCH_FD_FIRST_FREE 5
#define FETCH_FD_META       FETCH_FD_FIRST_FREE
#define FETCH_FD_SCRATCH    (FETCH_FD_FIRST_FREE + 1)
#define FETCH_FD_INDEXES    (FETCH_FD_FIRST_FREE + 2)
#define FETCH_FDS_MAX       (FETCH_FD_INDEXES + 2 * 127) /* LIMIT_LAYERS of both */
#define FETCH_LINE_MAX      (24U << 20)
#define FETCH_IMPORT_DIR                                                                           \
        "blobs" /* where import puts what the stream holds, files named by struct fetch_layer.file */

struct fetch_request {
        char *registry, *repository; /* as imageref has them */
        char *reference;             /* manifest: tag or digest */
        char *username, *password;   /* NULL: anonymous */
        char *authorization;         /* a header value that worked for the manifest, or NULL */
        char **listed;               /* HOST[:PORT] that may have private addresses */
        char **insecure;             /* those of them that speak plain HTTP */
        char *architecture;          /* "amd64": which entry of an index */
        char *digest, *diff_id;      /* layer: both are verified */
        uint64_t size_bytes;         /* of the compressed layer */
        bool from_file;              /* the layer is on descriptor 0 */
        uint64_t threshold; /* layer: files of so many bytes and more are objects; 0: none */
        uint32_t layers;    /* build: how many */
        uint64_t max_bytes; /* unpacked, or spooled by import */
        uint64_t max_entries;
        uint64_t connect_us, stall_us; /* give up on a connection; without a byte for so long */
        uint64_t rate_bytes;           /* less than that in a second is as good as nothing */
        uint64_t deadline_us;          /* CLOCK_MONOTONIC; 0: none */
};
int fetch_request_decode(const json_t *j, struct fetch_request *ret, struct err *e);
json_t *fetch_request_encode(const struct fetch_request *r); /* NULL: out of memory */
void fetch_request_done(struct fetch_request *r);            /* wipes the secrets */

struct fetch_layer {
        char *digest, *diff_id; /* sha256:... */
        char *file;             /* import: its name below FETCH_IMPORT_DIR; else NULL */
        uint64_t size_bytes;
};

/* An image, normalised: what of manifest and configuration the host needs, checked. */
struct fetch_image {
        char *digest; /* of the manifest; of the configuration where there is no manifest */
        char *config_digest;
        char *authorization; /* for fetch_request.authorization; never stored */
        char **entrypoint, **command, **env;
        char *working_dir, *user, *stop_signal;
        struct fetch_layer *layers; /* bottom first */
        size_t n_layers;
};
/* Every field checked: digests, 1..LIMIT_LAYERS layers, sizes, environment.  On failure *@ret is
 * empty and *e names the field. */
/* Every entry NAME=VALUE, and all of them within limits. */
int fetch_env_check(char *const *env, struct err *e);

int fetch_image_decode(const json_t *j, struct fetch_image *ret, struct err *e);
json_t *fetch_image_encode(const struct fetch_image *i);
void fetch_image_done(struct fetch_image *i);

static inline void fetch_request_done_cleanup(struct fetch_request *r)
{
        fetch_request_done(r);
}

static inline void fetch_image_done_cleanup(struct fetch_image *i)
{
        fetch_image_done(i);
}
