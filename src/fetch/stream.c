/* stream.c - the plain stages: a descriptor, a tap that counts and hashes.  Runs in vmm-fetch,
 * inside its sandbox.  A stage is freed by whoever holds the last one of the chain. */
#include "fetch/stream.h"

#include <errno.h>
#include <openssl/evp.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/proc.h"

#define BLOCK_BYTES (256U << 10)

struct fd_stream {
        struct stream base;
        int fd;
        char buf[BLOCK_BYTES];
};

static ssize_t fd_next(struct stream *s, const void **ret, struct err *e)
{
        struct fd_stream *f = (struct fd_stream *) s;
        ssize_t n;

        do
                n = read(f->fd, f->buf, sizeof f->buf);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return err_errno(e, -errno, "reading the stream");
        *ret = f->buf;
        return n;
}

static void fd_stream_free(struct stream *s)
{
        struct fd_stream *f = (struct fd_stream *) s;

        (void) fd_close(f->fd);
        free(f);
}

int stream_fd_new(int fd, struct stream **ret, struct err *e)
{
        static const struct stream_ops ops = { .next = fd_next, .free = fd_stream_free };
        struct fd_stream *f = malloc(sizeof *f);

        if (!f) {
                (void) fd_close(fd);
                return err_set(e, -ENOMEM, "out of memory");
        }
        f->base.ops = &ops;
        f->fd = fd;
        *ret = &f->base;
        return 0;
}

struct tap {
        struct stream base;
        struct stream *up;
        EVP_MD_CTX *md;
        uint64_t bytes, max;
        const char *what;
        tap_fn *fn;
        void *arg;
};

static ssize_t tap_next(struct stream *s, const void **ret, struct err *e)
{
        struct tap *t = (struct tap *) s;
        ssize_t n = stream_next(t->up, ret, e);

        if (n <= 0)
                return n;
        t->bytes += (uint64_t) n;
        if (t->bytes > t->max)
                return err_set(e, -EFBIG, "%s: more than %llu bytes", t->what,
                               (unsigned long long) t->max);
        if (EVP_DigestUpdate(t->md, *ret, (size_t) n) != 1)
                return err_set(e, -EIO, "SHA-256 failed");
        if (t->fn)
                t->fn(t->arg, t->bytes);
        return n;
}

static void tap_free(struct stream *s)
{
        struct tap *t = (struct tap *) s;

        (void) stream_free(t->up);
        EVP_MD_CTX_free(t->md);
        free(t);
}

int stream_tap_new(struct stream *up, struct stream **ret, struct tap **ret_tap, struct err *e)
{
        static const struct stream_ops ops = { .next = tap_next, .free = tap_free };
        struct tap *t = calloc(1, sizeof *t);

        if (!t) {
                (void) stream_free(up);
                return err_set(e, -ENOMEM, "out of memory");
        }
        t->base.ops = &ops;
        t->up = up;
        t->max = UINT64_MAX;
        t->what = "";
        t->md = EVP_MD_CTX_new();
        if (!t->md || EVP_DigestInit_ex(t->md, EVP_sha256(), NULL) != 1) {
                tap_free(&t->base);
                return err_set(e, -ENOMEM, "SHA-256 cannot be set up");
        }
        *ret = &t->base;
        *ret_tap = t;
        return 0;
}

uint64_t tap_bytes(const struct tap *t)
{
        return t->bytes;
}

int tap_digest(struct tap *t, char buf[static 72])
{
        unsigned char md[EVP_MAX_MD_SIZE];
        unsigned len = 0;

        if (EVP_DigestFinal_ex(t->md, md, &len) != 1 || len != 32)
                return -EIO;
        memcpy(buf, "sha256:", 7);
        hex_encode(md, len, buf + 7);
        return 0;
}

void tap_limit(struct tap *t, uint64_t max, const char *what)
{
        t->max = max;
        t->what = what;
}

void tap_watch(struct tap *t, tap_fn *fn, void *arg)
{
        t->fn = fn;
        t->arg = arg;
}

struct borrow {
        struct stream base;
        struct stream *up;
};

static ssize_t borrow_next(struct stream *s, const void **ret, struct err *e)
{
        return stream_next(((struct borrow *) s)->up, ret, e);
}

static void borrow_free(struct stream *s)
{
        free(s);
}

int stream_borrow_new(struct stream *up, struct stream **ret, struct err *e)
{
        static const struct stream_ops ops = { .next = borrow_next, .free = borrow_free };
        struct borrow *b = calloc(1, sizeof *b);

        if (!b)
                return err_set(e, -ENOMEM, "out of memory");
        b->base.ops = &ops;
        b->up = up;
        *ret = &b->base;
        return 0;
}

int stream_drain(struct stream *s, struct err *e)
{
        const void *p;
        ssize_t n;

        do
                n = stream_next(s, &p, e);
        while (n > 0);
        return (int) n;
}
