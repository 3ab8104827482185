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

struct chain {
        struct http *http;     /* what the source borrows */
        struct stream *packed; /* source -> tap: the blob as it comes */
        struct tap *packed_tap;
        struct stream *plain; /* -> decompression -> thread -> tap: the tar; borrows packed */
        struct tap *plain_tap;
};

static void chain_done(struct chain *c)
{
        c->plain = stream_free(c->plain);
        c->packed = stream_free(c->packed);
        c->http = http_free(c->http);
}

static inline void chain_done_cleanup(struct chain *c)
{
        chain_done(c);
}

static int chain_build(struct chain *ch, const struct mode_context *c, struct err *e)
{
        /* more than twice the limit in headers and padding is an attack, too */
        uint64_t max = c->req->max_bytes < UINT64_MAX / 4 ? 2 * c->req->max_bytes + (64U << 20)
                                                          : UINT64_MAX;
        struct stream *s = NULL;
        int r = open_source(c, &ch->http, &s, e);

        if (r >= 0)
                r = stream_tap_new(s, &ch->packed, &ch->packed_tap, e);
        if (r < 0)
                return r;
        tap_watch(ch->packed_tap, on_bytes, c->res);
        r = stream_borrow_new(ch->packed, &s, e);
        if (r >= 0)
                r = stream_decode_new(s, &s, e);
        if (r >= 0)
                r = stream_ahead_new(s, &s, e);
        if (r >= 0)
                r = stream_tap_new(s, &ch->plain, &ch->plain_tap, e);
        if (r >= 0)
                tap_limit(ch->plain_tap, max, "unpacked layer");
        return r;
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

/* The blob against what the manifest says of it; it has been read to its end. */
static int check_packed(struct chain *ch, const struct fetch_request *req, struct err *e)
{
        if (tap_bytes(ch->packed_tap) != req->size_bytes)
                return err_set(e, -EBADMSG, "it has %llu bytes, not %llu",
                               (unsigned long long) tap_bytes(ch->packed_tap),
                               (unsigned long long) req->size_bytes);
        return check_digest(ch->packed_tap, req->digest, "digest", e);
}

/* The content made no sense.  When that is because other bytes came than the manifest promises, say
 * so instead. */
static int explain_damage(struct chain *ch, const struct fetch_request *req, int why, struct err *e)
{
        struct err other = { 0 };
        int r;

        ch->plain = stream_free(ch->plain); /* ends its thread */
        r = stream_drain(ch->packed, &other);
        if (r >= 0)
                r = check_packed(ch, req, &other);
        return r == -EBADMSG ? err_copy(e, &other) : why;
}

int mode_layer(const struct mode_context *c, int root, struct err *e)
{
        const struct untar_limits limits = { c->req->max_bytes, c->req->max_entries };
        AUTO(tree_free) struct tree *tree = NULL;
        AUTO(chain_done) struct chain ch = { 0 };
        struct untar_totals total = { 0 };
        int r = tree_new(root, &tree, e);

        if (r >= 0)
                r = chain_build(&ch, c, e);
        if (r >= 0)
                r = untar(ch.plain, tree, &limits, c->res, &total, e);
        if (r == -EBADMSG && ch.packed)
                r = explain_damage(&ch, c->req, r, e);
        /* the chain was read to its end, so its thread has finished with the first tap */
        if (r >= 0)
                r = check_packed(&ch, c->req, e);
        if (r >= 0)
                r = check_digest(ch.plain_tap, c->req->diff_id, "diff id", e);
        if (r >= 0)
                r = tree_finish(tree, report_dir, c->res, e);
        if (r < 0)
                return r;
        return result_done(c->res, total.bytes, total.entries);
}
