/* mode.h - the jobs of vmm-fetch.  Each gets the request, a descriptor on the only directory
 * that it may write (taken over) and the way to report; blocks until it is done. */
#pragma once
#include "base/err.h"
#include "fetch/result.h"
#include "model/fetchwire.h"

struct mode_context {
        const struct fetch_request *req;
        const char *ca; /* certificate bundle or NULL */
        size_t ca_len;
        int input; /* descriptor 0 */
        struct result *res;
};

/* Resolve a reference to an image: manifest, index, configuration. */
int mode_manifest(const struct mode_context *c, int root, struct err *e);
/* One layer into pack, index and objects. */
int mode_layer(const struct mode_context *c, int root, struct err *e);
/* An uploaded OCI layout or docker-archive into blobs. */
int mode_import(const struct mode_context *c, int root, struct err *e);
/* The metadata of an image from the indexes of its layers; @root is none. */
int mode_build(const struct mode_context *c, int root, struct err *e);
