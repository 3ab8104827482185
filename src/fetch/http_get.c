/* http_get.c - attempts: whole documents and resumable bodies on top of http.c.  Runs in vmm-fetch.
 *
 * A body that breaks off goes on where it stopped: Range from the next byte; a server that ignores
 * Range sends everything again and what we have is skipped.  An attempt that brought new bytes at the
 * rate that is asked for makes the count of failures start again, so only a registry that is really
 * gone, one that lets bytes drip, or the deadline ends a download. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>

#include "base/clock.h"
#include "fetch/http_priv.h"

#define ATTEMPTS       5U
#define BACKOFF_US     (250 * US_PER_MS)
#define BACKOFF_MAX_US (8 * US_PER_S)

/* Sleep before attempt @n + 1; the deadline cuts it short. */
static int back_off(struct http *h, unsigned n, struct err *e)
{
        uint64_t wait = BACKOFF_US << (n < 6 ? n : 6), now = clock_mono_us();

        if (wait > BACKOFF_MAX_US)
                wait = BACKOFF_MAX_US;
        if (h->retry_after_us > wait)
                wait = h->retry_after_us;
        if (h->req->deadline_us && now + wait >= h->req->deadline_us)
                return -ETIMEDOUT; /* @e keeps saying what went wrong last */
        (void) e;
        (void) poll(NULL, 0, (int) (wait / US_PER_MS));
        return 0;
}

static int get_once(struct http *h, const char *url, const char *accept, size_t max,
                    const char *what, struct strbuf *out, struct err *e)
{
        int r = http_begin(h, url, accept, 0, e);

        while (r >= 0 && (r = http_pump(h, e)) > 0) {
                if (out->len + h->body.len > max) {
                        h->retry = false;
                        r = err_set(e, -EFBIG, "%s: more than %zu bytes", what, max);
                        break;
                }
                strbuf_add(out, h->body.s, h->body.len);
                h->body.len = 0;
        }
        http_end(h);
        return r;
}

int http_get(struct http *h, const char *url, const char *accept, size_t max, const char *what,
             char **ret, size_t *ret_len, struct err *e)
{
        AUTO(strbuf_done) struct strbuf out = { 0 };

        for (unsigned n = 0;; n++) {
                int r = get_once(h, url, accept, max, what, &out, e);

                if (r >= 0)
                        break;
                if (!h->retry || n + 1 >= ATTEMPTS || back_off(h, n, e) < 0)
                        return r;
                out.len = 0;
        }
        *ret_len = out.len;
        *ret = strbuf_take(&out);
        return *ret ? 0 : err_set(e, -ENOMEM, "out of memory");
}

struct http_stream {
        struct stream base;
        struct http *h;
        char *url;
        uint64_t size, off, skip;     /* whole; handed out; to be thrown away of this attempt */
        uint64_t since_us, since_off; /* where the count of failures began */
        unsigned failures;
        bool open;
        size_t lent; /* bytes of h->body that the reader has */
};

/* Check what a resumed answer says about where it starts. */
static int check_resume(struct http_stream *s, struct err *e)
{
        struct curl_header *range = NULL;
        unsigned long long from = 0;

        s->skip = 0;
        if (s->h->status == 200) {
                s->skip = s->off;
                return 0;
        }
        if (curl_easy_header(s->h->easy, "Content-Range", 0, CURLH_HEADER, -1, &range) !=
                    CURLHE_OK ||
            sscanf(range->value, "bytes %llu-", &from) != 1 || from > s->off) {
                s->h->retry = true;
                return err_set(e, -EPROTO, "the registry resumes at the wrong place");
        }
        s->skip = s->off - from;
        return 0;
}

/* New bytes have come at the rate that is asked for, pauses between attempts included: whatever
 * failed, it is worth going on. */
static bool is_fast(const struct http_stream *s)
{
        uint64_t us = clock_mono_us() - s->since_us, bytes = s->off - s->since_off;

        return bytes > 0 && bytes >= s->h->req->rate_bytes * us / US_PER_S;
}

static void count_anew(struct http_stream *s)
{
        s->since_us = clock_mono_us();
        s->since_off = s->off;
        s->failures = 0;
}

/* The attempt failed with @r: may there be another? */
static int fail(struct http_stream *s, int r, struct err *e)
{
        bool retry = s->h->retry;

        if (is_fast(s))
                count_anew(s);

        http_end(s->h);
        s->open = false;
        s->lent = 0;
        if (!retry || ++s->failures >= ATTEMPTS || back_off(s->h, s->failures - 1, e) < 0)
                return r;
        return 0;
}

/* Bytes into h->body; 1: some, 0: try again, negative: it is over. */
static int advance(struct http_stream *s, struct err *e)
{
        struct http *h = s->h;
        int r;

        if (!s->open) {
                r = http_begin(h, s->url, NULL, s->off, e);
                if (r >= 0)
                        r = check_resume(s, e);
                if (r < 0)
                        return fail(s, r, e);
                s->open = true;
        }
        r = http_pump(h, e);
        if (r == 0) {
                h->retry = true;
                r = err_set(e, -EREMOTEIO, "the blob ends after %llu of %llu bytes",
                            (unsigned long long) s->off, (unsigned long long) s->size);
        }
        return r < 0 ? fail(s, r, e) : 1;
}

static ssize_t http_stream_next(struct stream *st, const void **ret, struct err *e)
{
        struct http_stream *s = (struct http_stream *) st;
        struct http *h = s->h;

        if (s->lent > 0) {
                strbuf_drop_front(&h->body, s->lent);
                s->lent = 0;
        }
        while (s->off < s->size) {
                int r = advance(s, e);
                size_t n;

                if (r < 0)
                        return r;
                if (r == 0)
                        continue;
                n = h->body.len;
                if (s->skip > 0) {
                        n = n < s->skip ? n : (size_t) s->skip;
                        strbuf_drop_front(&h->body, n);
                        s->skip -= n;
                        continue;
                }
                if (n > s->size - s->off)
                        return err_set(e, -EBADMSG, "the blob is longer than its %llu bytes",
                                       (unsigned long long) s->size);
                s->off += n;
                s->lent = n;
                *ret = h->body.s;
                return (ssize_t) n;
        }
        if (s->open)
                http_end(h);
        s->open = false;
        return 0;
}

static void http_stream_free(struct stream *st)
{
        struct http_stream *s = (struct http_stream *) st;

        if (s->open)
                http_end(s->h);
        free(s->url);
        free(s);
}

int http_stream(struct http *h, const char *url, uint64_t size, struct stream **ret, struct err *e)
{
        static const struct stream_ops ops = { .next = http_stream_next, .free = http_stream_free };
        struct http_stream *s = calloc(1, sizeof *s);

        if (!s)
                return err_set(e, -ENOMEM, "out of memory");
        s->base.ops = &ops;
        s->h = h;
        s->size = size;
        count_anew(s);
        s->url = strdup(url);
        if (!s->url) {
                free(s);
                return err_set(e, -ENOMEM, "out of memory");
        }
        *ret = &s->base;
        return 0;
}
