/* test_stream.c - the stages: hash, count, limit, decompress, read ahead. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/str.h"
#include "fetch/stream.h"

/* A source that gives its bytes in pieces of @step and may fail at the end. */
struct source {
        struct stream base;
        const unsigned char *p;
        size_t len, step;
        int fail;
        bool *freed;
};

static ssize_t source_next(struct stream *s, const void **ret, struct err *e)
{
        struct source *src = (struct source *) s;
        size_t n = src->len < src->step ? src->len : src->step;

        if (n == 0)
                return src->fail ? err_set(e, src->fail, "source") : 0;
        *ret = src->p;
        src->p += n;
        src->len -= n;
        return (ssize_t) n;
}

static void source_free(struct stream *s)
{
        if (((struct source *) s)->freed)
                *((struct source *) s)->freed = true;
        free(s);
}

static struct stream *source(const void *p, size_t len, size_t step, int fail, bool *freed)
{
        static const struct stream_ops ops = { .next = source_next, .free = source_free };
        struct source *s = calloc(1, sizeof *s);

        assert_non_null(s);
        *s = (struct source){ { &ops }, p, len, step, fail, freed };
        return &s->base;
}

static unsigned char plain[300000];

static size_t gzip(const void *in, size_t len, unsigned char *out, size_t size)
{
        z_stream z = { .next_in = (unsigned char *) (uintptr_t) in,
                       .avail_in = (unsigned) len,
                       .next_out = out,
                       .avail_out = (unsigned) size };

        assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
        assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
        (void) deflateEnd(&z);
        return size - z.avail_out;
}

/* Everything. */
static int slurp(struct stream *s, char **ret, size_t *ret_len)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        const void *p;
        ssize_t n;

        while ((n = stream_next(s, &p, NULL)) > 0)
                strbuf_add(&b, p, (size_t) n);
        if (n < 0)
                return (int) n;
        *ret_len = b.len;
        *ret = strbuf_take(&b);
        return *ret ? 0 : -ENOMEM;
}

static int decode_all(const void *in, size_t len, size_t step, char **ret, size_t *ret_len)
{
        struct stream *s = NULL;
        int r = stream_decode_new(source(in, len, step, 0, NULL), &s, NULL);

        if (r < 0)
                return r;
        r = slurp(s, ret, ret_len);
        (void) stream_free(s);
        return r;
}

static void test_decode(void **state)
{
        static unsigned char packed[700000];
        static const size_t steps[] = { 1, 3, 7, 1000, 1 << 20 };
        size_t gz = gzip(plain, sizeof plain, packed, sizeof packed), zs, both;

        (void) state;
        for (size_t i = 0; i < NELEM(steps); i++) {
                AUTO(free) char *out = NULL, *out2 = NULL, *out3 = NULL, *out4 = NULL;
                size_t n = 0;

                gz = gzip(plain, sizeof plain, packed, sizeof packed);
                assert_int_equal(decode_all(packed, gz, steps[i], &out, &n), 0);
                assert_int_equal(n, sizeof plain);
                assert_memory_equal(out, plain, n);

                both = gz + gzip(plain, 1000, packed + gz, sizeof packed - gz); /* two members */
                memset(packed + both, 0, 512);
                assert_int_equal(decode_all(packed, both + 512, steps[i], &out2, &n), 0);
                assert_int_equal(n, sizeof plain + 1000);

                zs = ZSTD_compress(packed, sizeof packed, plain, sizeof plain, 3);
                both = zs + ZSTD_compress(packed + zs, sizeof packed - zs, plain, 10, 3);
                assert_int_equal(decode_all(packed, both, steps[i], &out3, &n), 0);
                assert_int_equal(n, sizeof plain + 10);
                assert_memory_equal(out3, plain, sizeof plain);

                assert_int_equal(decode_all(plain, sizeof plain, steps[i], &out4, &n), 0);
                assert_int_equal(n, sizeof plain);
        }
}

static void test_short(void **state)
{
        static const char *const in[] = { "", "x", "xy", "\x1f", "(\xb5/", "\x1fx" };

        (void) state;
        for (size_t i = 0; i < NELEM(in); i++) {
                AUTO(free) char *out = NULL;
                size_t n = 77;

                assert_int_equal(decode_all(in[i], strlen(in[i]), 1, &out, &n), 0);
                assert_int_equal(n, strlen(in[i]));
                assert_memory_equal(out, in[i], n);
        }
}

static void test_damage(void **state)
{
        static unsigned char packed[400000];
        size_t gz, zs;

        (void) state;
        gz = gzip(plain, 5000, packed, sizeof packed);
        for (size_t n = 4; n < gz; n++) { /* every cut is noticed */
                AUTO(free) char *out = NULL;
                size_t len = 0;

                if (decode_all(packed, n, 100, &out, &len) != -EBADMSG)
                        fail_msg("gzip cut at %zu of %zu", n, gz);
        }
        for (size_t i = gz - 8; i < gz; i++) { /* check sum and length */
                AUTO(free) char *out = NULL;
                size_t len = 0;

                packed[i] ^= 0x10;
                if (decode_all(packed, gz, 100, &out, &len) != -EBADMSG)
                        fail_msg("gzip trailer byte %zu", i);
                packed[i] ^= 0x10;
        }
        packed[gz] = 'x'; /* something behind the end */
        {
                AUTO(free) char *out = NULL;
                size_t len = 0;

                assert_int_equal(decode_all(packed, gz + 1, 100, &out, &len), -EBADMSG);
        }
        zs = ZSTD_compress(packed, sizeof packed, plain, 5000, 3);
        for (size_t n = 4; n < zs; n++) {
                AUTO(free) char *out = NULL;
                size_t len = 0;

                if (decode_all(packed, n, 100, &out, &len) != -EBADMSG)
                        fail_msg("zstd cut at %zu of %zu", n, zs);
        }
}

static void count(void *arg, uint64_t bytes)
{
        *(uint64_t *) arg = bytes;
}

static void test_tap(void **state)
{
        struct stream *s = NULL;
        struct tap *t = NULL;
        uint64_t seen = 0;
        char d[72];
        const void *p;

        (void) state;
        assert_int_equal(stream_tap_new(source("hello", 5, 2, 0, NULL), &s, &t, NULL), 0);
        tap_watch(t, count, &seen);
        assert_int_equal(stream_drain(s, NULL), 0);
        assert_int_equal(tap_bytes(t), 5);
        assert_int_equal(seen, 5);
        assert_int_equal(tap_digest(t, d), 0);
        assert_string_equal(
                d, "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        (void) stream_free(s);

        assert_int_equal(stream_tap_new(source(plain, 100, 10, 0, NULL), &s, &t, NULL), 0);
        tap_limit(t, 20, "it");
        assert_int_equal(stream_next(s, &p, NULL), 10);
        assert_int_equal(stream_next(s, &p, NULL), 10);
        assert_int_equal(stream_next(s, &p, NULL), -EFBIG);
        (void) stream_free(s);
}

static void test_ahead(void **state)
{
        static const size_t steps[] = { 1000, 70000, 300000 };

        (void) state;
        for (size_t i = 0; i < NELEM(steps); i++) {
                AUTO(free) char *out = NULL;
                bool freed = false;
                struct stream *s = NULL;
                size_t n = 0;

                assert_int_equal(stream_ahead_new(source(plain, sizeof plain, steps[i], 0, &freed),
                                                  &s, NULL),
                                 0);
                assert_int_equal(slurp(s, &out, &n), 0);
                assert_int_equal(n, sizeof plain);
                assert_memory_equal(out, plain, n);
                (void) stream_free(s);
                assert_true(freed);
        }
}

static void test_ahead_failure_and_early_end(void **state)
{
        struct stream *s = NULL;
        struct err e = { 0 };
        const void *p;
        bool freed = false;

        (void) state;
        assert_int_equal(stream_ahead_new(source(plain, 1000, 100, -EIO, &freed), &s, NULL), 0);
        assert_int_equal(stream_drain(s, &e), -EIO); /* after all that came before */
        assert_string_equal(e.msg, "source");
        assert_int_equal(stream_next(s, &p, NULL), -EIO); /* and again */
        (void) stream_free(s);
        assert_true(freed);

        freed = false; /* the reader goes while the thread waits for room */
        assert_int_equal(stream_ahead_new(source(plain, sizeof plain, 10, 0, &freed), &s, NULL), 0);
        assert_int_equal(stream_next(s, &p, NULL), 10);
        (void) stream_free(s);
        assert_true(freed);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_decode), cmocka_unit_test(test_short),
                cmocka_unit_test(test_damage), cmocka_unit_test(test_tap),
                cmocka_unit_test(test_ahead),  cmocka_unit_test(test_ahead_failure_and_early_end),
        };
        uint32_t x = 1;

        for (size_t i = 0; i < sizeof plain; i++) { /* compressible, but not too much */
                x = x * 1664525 + 1013904223;
                plain[i] = (unsigned char) (x >> 28);
        }
        return cmocka_run_group_tests(tests, NULL, NULL);
}
