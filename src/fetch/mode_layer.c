/* mode_layer.c - one layer: bytes -> digest -> decompression -> diff id -> tar -> files.
 * Runs in vmm-fetch.  The files are written before the digests are known to be right: until this
 * reports "done" they are worth nothing, and the reader of the result throws them away. */
#include <errno.h>

#include "base/fd.h"
#include "base/str.h"
#include "fetch/http.h"
#include "fetch/mode.h"
#include "fetch/stream.h"
#include "fetch/tree.h"
#include "fetch/untar.h"

static void on_bytes(void *arg, uint64_t bytes)
{
        result_progress(arg, bytes);
}

static int open_source(const struct mode_context *c, struct http **http, struct stream **ret,
                       struct err *e)
{
        AUTO(free) char *url = NULL;
        int r;

        if (c->req->from_file)
                return stream_fd_new(c->input, ret, e);
        r = http_new(c->req, c->ca, c->ca_len, http, e);
        if (r < 0)
                return r;
        url = http_registry_url(*http, "blobs", c->req->digest);
        if (!url)
                return err_set(e, -ENOMEM, "out of memory");
        return http_stream(*http, url, c->req->size_bytes, ret, e);
}

/* source -> tap -> decode -> (thread) -> tap; on success *@ret owns them all. */
static int build_chain(const struct mode_context *c, struct http **http, struct stream **ret,
                       struct tap **ret_packed, struct tap **ret_plain, struct err *e)
{
        struct stream *s = NULL;
        int r = open_source(c, http, &s, e);

        if (r >= 0)
                r = stream_tap_new(s, &s, ret_packed, e);
        if (r < 0)
                return r;
        tap_watch(*ret_packed, on_bytes, c->res);
        r = stream_decode_new(s, &s, e);
        if (r >= 0)
                r = stream_ahead_new(s, &s, e);
        if (r >= 0)
                r = stream_tap_new(s, &s, ret_plain, e);
        if (r < 0)
                return r;
        *ret = s;
        return 0;
}

static int check_digest(struct tap *t, const char *want, const char *what, struct err *e)
{
        char got[72];

        if (tap_digest(t, got) < 0)
                return err_set(e, -EIO, "SHA-256 failed");
        if (!str_eq(got, want))
                return err_set(e, -EBADMSG, "its %s is %s, not %s", what, got, want);
        return 0;
}

static int report_dir(void *arg, const char *type, const char *path)
{
        return result_path(arg, type, path);
}

int mode_layer(const struct mode_context *c, int root, struct err *e)
{
        const struct untar_limits limits = { c->req->max_bytes, c->req->max_entries };
        AUTO(http_free) struct http *http = NULL; /* freed after the chain that borrows it */
        AUTO(tree_free) struct tree *tree = NULL;
        AUTO(stream_free) struct stream *chain = NULL;
        struct tap *packed = NULL, *plain = NULL;
        struct untar_totals total = { 0 };
        int r = tree_new(root, &tree, e);

        if (r >= 0)
                r = build_chain(c, &http, &chain, &packed, &plain, e);
        if (r >= 0) /* more than twice the limit in tar headers and padding is an attack, too */
                tap_limit(plain, c->req->max_bytes < UINT64_MAX / 2 ? 2 * c->req->max_bytes + (64U << 20)
                                                                   : UINT64_MAX,
                          "unpacked layer");
        if (r >= 0)
                r = untar(chain, tree, &limits, c->res, &total, e);
        /* the chain was read to its end, so its thread has finished with the first tap */
        if (r >= 0 && tap_bytes(packed) != c->req->size_bytes)
                r = err_set(e, -EBADMSG, "it has %llu bytes, not %llu",
                            (unsigned long long) tap_bytes(packed),
                            (unsigned long long) c->req->size_bytes);
        if (r >= 0)
                r = check_digest(packed, c->req->digest, "digest", e);
        if (r >= 0)
                r = check_digest(plain, c->req->diff_id, "diff id", e);
        if (r >= 0)
                r = tree_finish(tree, report_dir, c->res, e);
        if (r < 0)
                return r;
        return result_done(c->res, total.bytes, total.entries);
}
