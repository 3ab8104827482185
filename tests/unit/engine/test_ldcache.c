/* The loader's cache: order of names, what is kept, what is refused; caches of this machine's own
 * ldconfig are read in tests/flow/test_driver_files.py. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "engine/sandbox/ldcache.h"

#define HEAD 48U
#define LIB  24U

static int sign(int v)
{
        return (v > 0) - (v < 0);
}

static void test_compare(void **state)
{
        static const struct {
                const char *a, *b;
                int want;
        } t[] = {
                { "libc.so.6", "libc.so.6", 0 },
                { "", "", 0 },
                { "a", "", 1 },
                { "liba.so.2", "liba.so.10", -1 }, /* numbers as numbers */
                { "liba.so.010", "liba.so.10", 0 },
                { "lib2a", "liba", 1 }, /* digits behind letters */
                { "liba", "lib2a", -1 },
                { "libb", "liba", 1 },
                { "liba.so", "liba.so.1", -1 },
                { "x99999999999999999999", "x99999999999999999999", 0 },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                assert_int_equal(sign(ldcache_compare(t[i].a, t[i].b)), t[i].want);
                assert_int_equal(sign(ldcache_compare(t[i].b, t[i].a)), -t[i].want);
        }
}

/* Row @i of a cache. */
static const char *text_at(const char *c, size_t i, size_t field)
{
        uint32_t off;

        memcpy(&off, c + HEAD + i * LIB + field, sizeof off);
        return c + off;
}

static uint32_t count(const char *c)
{
        uint32_t n;

        memcpy(&n, c + 20, sizeof n);
        return n;
}

static const struct ldcache_entry first[] = { { "liba.so.1", "/x/liba.so.1", LDCACHE_NATIVE },
                                              { "libz.so.10", "/x/libz.so.10", LDCACHE_NATIVE },
                                              { "libz.so.9", "/x/libz.so.9", LDCACHE_NATIVE },
                                              { "liba.so.1", "/y/liba.so.1", LDCACHE_32 } };
static const struct ldcache_entry more[] = { { "liba.so.1", "/gpu/liba.so.1", LDCACHE_NATIVE },
                                             { "libm.so", "/gpu/libm.so", LDCACHE_NATIVE } };

static void test_merge(void **state)
{
        static const char *const want[][2] = {
                { "libz.so.10", "/x/libz.so.10" }, { "libz.so.9", "/x/libz.so.9" },
                { "libm.so", "/gpu/libm.so" },     { "liba.so.1", "/gpu/liba.so.1" },
                { "liba.so.1", "/y/liba.so.1" },
        };
        AUTO(free) void *a = NULL, *b = NULL, *again = NULL;
        size_t a_len = 0, b_len = 0, again_len = 0;

        (void) state;
        assert_int_equal(ldcache_merge(NULL, 0, first, NELEM(first), &a, &a_len, NULL), 0);
        assert_int_equal(count(a), NELEM(first));
        assert_int_equal(ldcache_merge(a, a_len, more, NELEM(more), &b, &b_len, NULL), 0);
        assert_int_equal(count(b), NELEM(want));
        for (size_t i = 0; i < NELEM(want); i++) {
                assert_string_equal(text_at(b, i, 4), want[i][0]);
                assert_string_equal(text_at(b, i, 8), want[i][1]);
        }
        /* adding what is there changes nothing */
        assert_int_equal(ldcache_merge(b, b_len, more, NELEM(more), &again, &again_len, NULL), 0);
        assert_int_equal(again_len, b_len);
        assert_memory_equal(again, b, b_len);
}

/* A cache in the form that glibc 2.31 wrote: an older table first. */
static void test_old_table(void **state)
{
        static const char head[16] = "ld.so-1.7.0\0\2\0\0"; /* two entries of 12 bytes */
        AUTO(free) void *new = NULL, *out = NULL;
        size_t len = 0, out_len = 0, skip = (16 + 2 * 12 + 7) & ~(size_t) 7;
        AUTO(free) char *old = NULL;

        (void) state;
        assert_int_equal(ldcache_merge(NULL, 0, first, NELEM(first), &new, &len, NULL), 0);
        old = calloc(1, skip + len);
        assert_non_null(old);
        memcpy(old, head, sizeof head);
        memcpy(old + skip, new, len);
        assert_int_equal(ldcache_merge(old, skip + len, NULL, 0, &out, &out_len, NULL), 0);
        assert_int_equal(out_len, len);
        assert_memory_equal(out, new, len);
}

/* Cut or bent anywhere: refused, or read with fewer rows; never beyond its end (valgrind, ASan). */
static void test_broken(void **state)
{
        AUTO(free) void *whole = NULL;
        size_t len = 0;

        (void) state;
        assert_int_equal(ldcache_merge(NULL, 0, first, NELEM(first), &whole, &len, NULL), 0);
        for (size_t at = 0; at < 2 * len; at++) {
                AUTO(free) char *copy = malloc(len);
                AUTO(free) void *out = NULL;
                size_t n = at < len ? at : len, out_len = 0;
                int r;

                assert_non_null(copy);
                memcpy(copy, whole, len);
                if (at >= len)
                        copy[at - len] = (char) 0xff;
                r = ldcache_merge(copy, n, more, NELEM(more), &out, &out_len, NULL);
                assert_true(r == 0 || r == -EBADMSG);
                assert_true(r < 0 || count(out) >= NELEM(more));
                assert_true(at >= HEAD || r < 0);
        }
}

static void test_too_large(void **state)
{
        void *out = NULL;
        size_t len = 7;

        (void) state;
        assert_int_equal(ldcache_merge("", LDCACHE_MAX_BYTES + 1, NULL, 0, &out, &len, NULL),
                         -EBADMSG);
        assert_true(!out && len == 7);
}

/* Many rows that share one long text would become a cache a thousand times as large as the image's, and
 * hours of comparing: a text that no file could have is no row's, and all of them have a measure. */
static void test_shared_texts(void **state)
{
        static const struct {
                size_t text, rows;
                int r;
        } t[] = {
                { 4095, 1, 0 },
                { 1U << 20, 60000, 0 }, /* too long: no rows */
                { 4000, 60000, -EBADMSG },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                const size_t head = HEAD + t[i].rows * LIB, len = head + t[i].text + 1;
                const uint32_t n = (uint32_t) t[i].rows, at = (uint32_t) head;
                AUTO(free) char *old = calloc(1, len);
                AUTO(free) void *out = NULL;
                size_t out_len = 0;

                assert_non_null(old);
                memcpy(old, "glibc-ld.so.cache1.1", 20);
                memcpy(old + 20, &n, sizeof n);
                for (size_t k = 0; k < t[i].rows; k++) {
                        memcpy(old + HEAD + k * LIB + 4, &at, sizeof at);
                        memcpy(old + HEAD + k * LIB + 8, &at, sizeof at);
                }
                memset(old + head, '/', t[i].text);
                assert_int_equal(ldcache_merge(old, len, more, NELEM(more), &out, &out_len, NULL),
                                 t[i].r);
                if (t[i].r == 0)
                        assert_int_equal(count(out), NELEM(more) + (t[i].text < 4096));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_shared_texts), cmocka_unit_test(test_compare),
                cmocka_unit_test(test_merge),        cmocka_unit_test(test_old_table),
                cmocka_unit_test(test_broken),       cmocka_unit_test(test_too_large),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
