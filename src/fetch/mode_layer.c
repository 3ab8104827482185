/* mode_layer.c - one layer: bytes -> digest -> decompression -> diff id -> tar -> pack and objects,
 * then the index.  Runs in vmm-fetch.  Pack and objects are written before the digests are known to be
 * right: until this reports "done" they are worth nothing, and the reader of the result throws them
 * away. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "fetch/http.h"
#include "fetch/mode.h"
#include "fetch/storetar.h"
#include "fetch/stream.h"
#include "model/limits.h"
#include "store/names.h"

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
        struct stream
                *plain; /* -> thread -> decompression -> thread -> tap: the tar; borrows packed */
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
                r = stream_ahead_new(s, &s, e);
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

/* What is written, all of it ours to close. */
struct places {
        int pack, index, objects, scratch;
};

static void places_done_cleanup(struct places *p)
{
        (void) fd_close(p->pack);
        (void) fd_close(p->index);
        (void) fd_close(p->objects);
        (void) fd_close(p->scratch);
}

static int create(int dir, const char *name, struct err *e)
{
        int fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

        return fd < 0 ? err_errno(e, -errno, "creating %s", name) : fd;
}

/* A file without a name; not every file system can make one at once. */
static int create_scratch(int dir, struct err *e)
{
        int fd = openat(dir, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);

        if (fd < 0) {
                fd = create(dir, "scratch", e);
                if (fd >= 0)
                        (void) unlinkat(dir, "scratch", 0);
        }
        return fd;
}

static int places_make(int dir, struct places *p, struct err *e)
{
        if (mkdirat(dir, STORE_OBJECTS, 0755) < 0)
                return err_errno(e, -errno, "making " STORE_OBJECTS);
        p->objects = fd_open_beneath(dir, STORE_OBJECTS, O_RDONLY | O_DIRECTORY, 0);
        if (p->objects < 0)
                return err_errno(e, p->objects, "opening " STORE_OBJECTS);
        p->pack = create(dir, STORE_PACK, e);
        if (p->pack >= 0)
                p->index = create(dir, STORE_INDEX, e);
        if (p->index >= 0)
                p->scratch = create_scratch(dir, e);
        return p->pack < 0 ? p->pack : p->index < 0 ? p->index : p->scratch < 0 ? p->scratch : 0;
}

/* The digests, then the index, which names one of them. */
static int seal(struct chain *ch, const struct fetch_request *req, struct storetar *t,
                struct storetar_totals *ret, struct err *e)
{
        uint8_t diff_id[LAYER_SHA_BYTES];
        /* the chain was read to its end, so its thread has finished with the first tap */
        int r = check_packed(ch, req, e);

        if (r >= 0)
                r = check_digest(ch->plain_tap, req->diff_id, "diff id", e);
        if (r >= 0)
                r = store_sha_parse(str_after(req->diff_id, "sha256:"), diff_id);
        if (r == -EINVAL)
                return err_set(e, r, "diff_id: is not a digest");
        return r < 0 ? r : storetar_finish(t, diff_id, ret, e);
}

int mode_layer(const struct mode_context *c, int root, struct err *e)
{
        const struct fetch_request *req = c->req;
        const struct storetar_limits limits = {
                .max_bytes = req->max_bytes,
                .max_entries = req->max_entries < LIMIT_LAYER_ENTRIES ? (uint32_t) req->max_entries
                                                                      : LIMIT_LAYER_ENTRIES,
        };
        AUTO(places_done)
        struct places p = { .pack = -EBADF, .index = -EBADF, .objects = -EBADF, .scratch = -EBADF };
        AUTO(storetar_free) struct storetar *tar = NULL;
        AUTO(chain_done) struct chain ch = { 0 };
        AUTO(fd) int dir = root;
        struct storetar_totals total = { 0 };
        int r = places_make(dir, &p, e);

        if (r >= 0)
                r = chain_build(&ch, c, e);
        if (r >= 0) {
                const struct storetar_out out = { .pack = p.pack,
                                                  .index = p.index,
                                                  .objects = p.objects,
                                                  .scratch = p.scratch,
                                                  .threshold = req->threshold };

                r = storetar_read(ch.plain, &out, &limits, c->res, &tar, e);
        }
        if (r == -EBADMSG && ch.packed)
                r = explain_damage(&ch, req, r, e);
        if (r >= 0)
                r = seal(&ch, req, tar, &total, e);
        if (r < 0)
                return r;
        return result_done(c->res, total.pack_bytes + total.object_bytes, total.entries);
}
