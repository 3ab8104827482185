/* decode.c - gzip (ISA-L), zstd, or nothing, by the first bytes.  Runs in vmm-fetch.
 *
 * The media type of a layer is not believed: builders get it wrong, and the diff id says in the end
 * whether the right bytes came out.  Several gzip members or zstd frames in a row are one stream. */
#include <errno.h>
#include <isa-l/igzip_lib.h>
#include <zstd.h>

#include "fetch/stream.h"

#define OUT_BYTES           (256U << 10)
#define ZSTD_WINDOW_LOG_MAX 27 /* 128 MiB: `zstd --long`; more is somebody trying to eat memory */

enum codec { CODEC_NONE, CODEC_PLAIN, CODEC_GZIP, CODEC_ZSTD };

struct decoder {
        struct stream base;
        struct stream *up;
        enum codec codec;
        const unsigned char *in; /* what is left of the last block */
        size_t in_len;
        bool in_end;               /* upstream has ended */
        bool inside;               /* within a gzip member or zstd frame */
        unsigned char head[4];     /* the first bytes */
        const unsigned char *rest; /* what came with them */
        size_t rest_len;
        struct inflate_state *inflate;
        ZSTD_DCtx *zstd;
        unsigned char out[OUT_BYTES];
};

static int refill(struct decoder *d, struct err *e)
{
        const void *p = NULL;
        ssize_t n;

        if (d->in_len == 0 && d->rest_len > 0) {
                d->in = d->rest;
                d->in_len = d->rest_len;
                d->rest_len = 0;
        }
        if (d->in_len > 0 || d->in_end)
                return 0;
        n = stream_next(d->up, &p, e);
        if (n < 0)
                return (int) n;
        d->in = p;
        d->in_len = (size_t) n;
        d->in_end = n == 0;
        return 0;
}

static int corrupt(struct err *e, const char *codec, const char *why)
{
        return err_set(e, -EBADMSG, "the %s data is damaged: %s", codec, why);
}

static void gzip_begin(struct decoder *d)
{
        isal_inflate_reset(d->inflate);
        d->inflate->crc_flag = ISAL_GZIP;
        d->inside = true;
}

/* After a member: another one, or zeros that pad to a block, or the end.  1: another one. */
static int gzip_between(struct decoder *d, struct err *e)
{
        for (;;) {
                int r = refill(d, e);

                if (r < 0)
                        return r;
                if (d->in_len == 0)
                        return 0;
                if (*d->in == 0x1f)
                        return 1;
                if (*d->in != 0)
                        return corrupt(e, "gzip", "something else follows it");
                d->in++;
                d->in_len--;
        }
}

static ssize_t gzip_into(struct decoder *d, unsigned char *buf, size_t len, struct err *e)
{
        struct inflate_state *z = d->inflate;

        for (;;) {
                size_t made;
                int r;

                if (!d->inside) {
                        r = gzip_between(d, e);
                        if (r <= 0)
                                return r;
                        gzip_begin(d);
                }
                r = refill(d, e);
                if (r < 0)
                        return r;
                z->next_in = (uint8_t *) (uintptr_t) d->in; /* ISA-L only reads it */
                z->avail_in = (uint32_t) d->in_len;
                z->next_out = buf;
                z->avail_out = (uint32_t) len;
                r = isal_inflate(z);
                if (r != ISAL_DECOMP_OK && r != ISAL_END_INPUT)
                        return corrupt(e, "gzip",
                                       r == ISAL_INCORRECT_CHECKSUM ? "its checksum does not match"
                                                                    : "not a deflate stream");
                d->in = z->next_in;
                d->in_len = z->avail_in;
                made = len - z->avail_out;
                if (z->block_state == ISAL_BLOCK_FINISH)
                        d->inside = false;
                else if (made == 0 && d->in_len == 0 && d->in_end)
                        return corrupt(e, "gzip", "it ends too early");
                if (made > 0)
                        return (ssize_t) made;
        }
}

static ssize_t zstd_into(struct decoder *d, unsigned char *buf, size_t len, struct err *e)
{
        for (;;) {
                ZSTD_outBuffer out = { buf, len, 0 };
                ZSTD_inBuffer in;
                size_t r;
                int rc = refill(d, e);

                if (rc < 0)
                        return rc;
                if (d->in_len == 0 && d->in_end && !d->inside)
                        return 0;
                in = (ZSTD_inBuffer){ d->in, d->in_len, 0 };
                r = ZSTD_decompressStream(d->zstd, &out, &in);
                if (ZSTD_isError(r))
                        return corrupt(e, "zstd", ZSTD_getErrorName(r));
                d->in += in.pos;
                d->in_len -= in.pos;
                d->inside = r != 0;
                if (out.pos > 0)
                        return (ssize_t) out.pos;
                if (in.pos == 0 && d->in_end)
                        return corrupt(e, "zstd", "it ends too early");
        }
}

/* The first four bytes decide.  They are copied out, because they may come in pieces, and put back
 * as a small block of their own. */
static int sniff(struct decoder *d, struct err *e)
{
        static const unsigned char gzip_magic[2] = { 0x1f, 0x8b };
        static const unsigned char zstd_magic[4] = { 0x28, 0xb5, 0x2f, 0xfd };
        size_t n = 0;

        while (n < sizeof d->head && !d->in_end) {
                int r = refill(d, e);

                if (r < 0)
                        return r;
                for (; d->in_len > 0 && n < sizeof d->head; d->in_len--)
                        d->head[n++] = *d->in++;
        }
        d->rest = d->in;
        d->rest_len = d->in_len;
        d->in = d->head;
        d->in_len = n;
        if (n >= 2 && memcmp(d->head, gzip_magic, 2) == 0)
                d->codec = CODEC_GZIP;
        else if (n == 4 && memcmp(d->head, zstd_magic, 4) == 0)
                d->codec = CODEC_ZSTD;
        else
                d->codec = CODEC_PLAIN;
        return 0;
}

static int codec_open(struct decoder *d, struct err *e)
{
        if (d->codec == CODEC_GZIP) {
                d->inflate = aligned_alloc(64, (sizeof *d->inflate + 63) / 64 * 64);
                if (!d->inflate)
                        return err_set(e, -ENOMEM, "out of memory");
                isal_inflate_init(d->inflate);
                gzip_begin(d);
        }
        if (d->codec == CODEC_ZSTD) {
                d->zstd = ZSTD_createDCtx();
                if (!d->zstd || ZSTD_isError(ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax,
                                                                    ZSTD_WINDOW_LOG_MAX)))
                        return err_set(e, -ENOMEM, "out of memory");
        }
        return 0;
}

static ssize_t plain_next(struct decoder *d, const void **ret, size_t max, struct err *e)
{
        size_t n;
        int r = refill(d, e);

        if (r < 0)
                return r;
        n = d->in_len < max ? d->in_len : max;
        *ret = d->in;
        d->in += n;
        d->in_len -= n;
        return (ssize_t) n;
}

static ssize_t decode_into(struct stream *s, void *buf, size_t len, struct err *e)
{
        struct decoder *d = (struct decoder *) s;
        const void *p = NULL;
        ssize_t n;

        switch (d->codec) {
        case CODEC_GZIP:
                return gzip_into(d, buf, len, e);
        case CODEC_ZSTD:
                return zstd_into(d, buf, len, e);
        case CODEC_PLAIN:
        case CODEC_NONE:
                break;
        }
        n = plain_next(d, &p, len, e);
        if (n > 0)
                memcpy(buf, p, (size_t) n);
        return n;
}

static ssize_t decode_next(struct stream *s, const void **ret, struct err *e)
{
        struct decoder *d = (struct decoder *) s;

        if (d->codec == CODEC_PLAIN || d->codec == CODEC_NONE)
                return plain_next(d, ret, SIZE_MAX, e);
        *ret = d->out;
        return decode_into(s, d->out, sizeof d->out, e);
}

static void decode_free(struct stream *s)
{
        struct decoder *d = (struct decoder *) s;

        (void) stream_free(d->up);
        free(d->inflate);
        (void) ZSTD_freeDCtx(d->zstd);
        free(d);
}

int stream_decode_new(struct stream *up, struct stream **ret, struct err *e)
{
        static const struct stream_ops ops = { .next = decode_next,
                                               .free = decode_free,
                                               .into = decode_into };
        struct decoder *d = calloc(1, sizeof *d);
        AUTO(stream_free) struct stream *own = NULL;
        int r;

        if (!d) {
                (void) stream_free(up);
                return err_set(e, -ENOMEM, "out of memory");
        }
        d->base.ops = &ops;
        d->up = up;
        own = &d->base;
        r = sniff(d, e);
        if (r >= 0)
                r = codec_open(d, e);
        if (r < 0)
                return r;
        *ret = TAKE(own);
        return 0;
}
