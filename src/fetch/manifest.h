/* manifest.h - OCI and Docker manifests, indexes and configurations, read into struct fetch_image.
 * Pure: bytes in, checked values out; whoever calls has verified the digests. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "model/fetchwire.h"

/* What the registry is asked for. */
extern const char manifest_accept[];

enum manifest_kind { MANIFEST_NONE, MANIFEST_IMAGE, MANIFEST_INDEX };

struct manifest {
        enum manifest_kind kind;
        char config_digest[72]; /* MANIFEST_IMAGE */
        uint64_t config_size;
        struct fetch_layer *layers; /* digest and size_bytes; bottom first */
        size_t n_layers;
        char chosen[72]; /* MANIFEST_INDEX: the entry for this architecture */
};
void manifest_done(struct manifest *m);

/* -EINVAL: damaged; -ENOTSUP: something that is not a Linux image for @architecture; -E2BIG. */
int manifest_parse(const char *text, size_t len, const char *architecture, struct manifest *ret,
                   struct err *e);

/* Add what the configuration says (diff ids too) to @image, whose layers come from @m, which is
 * emptied. */
int manifest_config(const char *text, size_t len, const char *architecture, struct manifest *m,
                    struct fetch_image *image, struct err *e);

/* manifest.json of a docker-archive: the paths of its one image's configuration and layers. */
int manifest_archive(const char *text, size_t len, char **ret_config, char ***ret_layers,
                     struct err *e);

/* The hash of a buffer as "sha256:...". */
int manifest_digest(const void *data, size_t len, char ret[static 72]);

static inline void manifest_done_cleanup(struct manifest *m)
{
        manifest_done(m);
}
