/* test_layer_index.c - the reader refuses every index that our writer would not have written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "scripted.h"
#include "store/bytes.h"

/* Offset of the entry number @n. */
static uint64_t entry_at(const struct layer_index *x, unsigned n)
{
        uint64_t at = x->entries_at;

        while (n-- > 0)
                at += get32(x->p + at);
        return at;
}

/* What is changed in a good index: @bytes at @at behind the header (entry -1) or an entry. */
struct change {
        const char *what;
        int entry, at, bytes;
        uint64_t value;
};

static const char *const good = /* 0 root, 1 a, 2 a/f, 3 a/l, 4 b, 5 c (link), 6 o, 7 p, 8 w */
        "da fa/f la/l fb hc>b oo pp ww";

static const struct change changes[] = {
        { "magic", -1, 0, 1, 'x' },
        { "length", -1, 8, 8, 4096 },
        { "pack no multiple of a block", -1, 16, 8, 4095 },
        { "pack too small", -1, 16, 8, 0 },
        { "pack of 2^44", -1, 16, 8, 1ULL << 44 },
        { "no threshold, but an object", -1, 24, 8, 0 },
        { "object under the threshold", -1, 24, 8, 2 },
        { "content", -1, 32, 8, 99 },
        { "fewer entries", -1, 40, 4, 8 },
        { "more entries", -1, 40, 4, 10 },
        { "very many entries", -1, 40, 4, UINT32_MAX },
        { "no objects", -1, 44, 4, 0 },
        { "very many objects", -1, 44, 4, UINT32_MAX },
        { "no groups", -1, 48, 4, 0 },
        { "two groups", -1, 48, 4, 2 },
        { "a byte that is zero", -1, 52, 4, 1 },
        { "a byte at the header's end", -1, 127, 1, 1 },
        { "object's size", -1, 128, 8, 7 },
        { "length 0", 1, 0, 4, 0 },
        { "length beyond the end", 1, 0, 4, 1 << 20 },
        { "length not aligned", 1, 0, 4, 60 },
        { "root with a depth", 0, 4, 2, 1 },
        { "root that is a file", 0, 6, 1, LAYER_FIFO },
        { "a second root", 1, 4, 2, 0 },
        { "two steps down", 2, 4, 2, 3 },
        { "type 0", 7, 6, 1, 0 },
        { "type beyond", 7, 6, 1, LAYER_TYPE_COUNT },
        { "flag of a file", 2, 7, 1, LAYER_OPAQUE },
        { "unknown flag", 1, 7, 1, 4 },
        { "implied with attributes", 1, 7, 1, LAYER_IMPLIED },
        { "mode", 2, 8, 2, 010000 },
        { "mode of a link", 3, 8, 2, 0755 },
        { "no name", 2, 10, 2, 0 },
        { "name too long", 2, 10, 2, 300 },
        { "name with a slash", 2, 56, 1, '/' },
        { "name with a zero", 2, 56, 1, 0 },
        { "name that is .", 2, 56, 1, '.' },
        { "padding of a name", 2, 57, 1, 'x' },
        { "names out of order", 4, 56, 1, 'z' },
        { "names alike", 4, 56, 1, 'a' },
        { "directory in a group", 1, 12, 4, 1 },
        { "group with one name", 2, 12, 4, 1 },
        { "group too high", 4, 12, 4, 2 },
        { "link to nothing", 5, 12, 4, 0 },
        { "link to what comes later", 5, 12, 4, 2 },
        { "link with a mode", 5, 8, 2, 0644 },
        { "link with a time", 5, 24, 8, 1 },
        { "owner", 2, 16, 4, 65536 },
        { "group id", 2, 20, 4, UINT32_MAX },
        { "nanoseconds", 2, 32, 4, 1000000000 },
        { "attributes beyond the entry", 2, 36, 4, 4096 },
        { "attributes without end", 2, 36, 4, UINT32_MAX },
        { "size over a chunk", 2, 40, 8, 4097 },
        { "size 2^63", 2, 40, 8, 1ULL << 63 },
        { "link without target", 3, 40, 8, 0 },
        { "target too long", 3, 40, 8, 5000 },
        { "size of a directory", 1, 40, 8, 1 },
        { "size of a fifo", 7, 40, 8, 1 },
        { "no chunk", 2, 48, 4, 0 },
        { "chunks without end", 2, 48, 4, UINT32_MAX },
        { "chunks of a fifo", 7, 48, 4, 1 },
        { "chunk bits", 2, 52, 1, 1 },
        { "chunk bits 255", 2, 52, 1, 255 },
        { "a byte behind them", 2, 53, 1, 1 },
        { "chunk outside", 2, 60, 4, 1 },
        { "chunk far outside", 2, 60, 4, UINT32_MAX - 1 },
        { "object that is not there", 6, 48, 4, 1 },
        { "whiteout with an owner", 8, 16, 4, 1 },
        { "whiteout in a group", 8, 12, 4, 1 },
};

static void test_every_change_is_refused(void **state)
{
        struct scripted s = { 0 };
        struct layer_index x;

        (void) state;
        assert_int_equal(script_index(good, &s, NULL), 0);
        assert_int_equal(layer_index_open(s.p, s.len, &x, NULL), 0);
        assert_int_equal(x.n_entries, 9);
        for (size_t i = 0; i < NELEM(changes); i++) {
                const struct change *c = &changes[i];
                AUTO(free) uint8_t *copy = malloc(s.len);
                uint8_t value[8];
                struct layer_index canary = { .len = 1234 };
                uint64_t at =
                        (c->entry < 0 ? 0 : entry_at(&x, (unsigned) c->entry)) + (unsigned) c->at;

                memcpy(copy, s.p, s.len);
                put64(value, c->value);
                memcpy(copy + at, value, (size_t) c->bytes);
                if (layer_index_open(copy, s.len, &canary, NULL) != -EBADMSG)
                        fail_msg("%s: taken", c->what);
                assert_int_equal(canary.len, 1234);
        }
        free(s.p);
}

static void test_every_cut_is_refused(void **state)
{
        struct scripted s = { 0 };
        struct layer_index x;

        (void) state;
        assert_int_equal(script_index(good, &s, NULL), 0);
        for (size_t n = 0; n < s.len; n++) {
                AUTO(free) uint8_t *copy = malloc(n + 1);

                memcpy(copy, s.p, n);
                copy = realloc(copy, n ? n : 1); /* what reads too far is seen by ASan */
                assert_int_equal(layer_index_open(copy, n, &x, NULL), -EBADMSG);
                if (n >= LAYER_HEADER_BYTES) { /* and with a length that says so */
                        put64(copy + 8, n);
                        assert_int_equal(layer_index_open(copy, n, &x, NULL), -EBADMSG);
                }
        }
        free(s.p);
}

static void test_table_alone(void **state)
{
        struct scripted s = { 0 };
        struct layer_index x, t;
        struct layer_entry n;
        uint64_t at;
        size_t len;

        (void) state;
        assert_int_equal(script_index("da oa/b fc odd", &s, NULL), 0);
        assert_int_equal(layer_index_open(s.p, s.len, &x, NULL), 0);
        len = layer_index_table_bytes(s.p);
        assert_int_equal(len, x.entries_at);
        assert_int_equal(layer_index_open_table(s.p, len, s.len, &t, NULL), 0);
        assert_int_equal(t.n_objects, 2);
        assert_int_equal(t.totals.pack_bytes, x.totals.pack_bytes);
        assert_int_equal(layer_index_object(&t, 0), 3);
        assert_int_equal(layer_index_object(&t, 1), 2);
        assert_int_equal(layer_index_entry(&t, t.entries_at, &n, &at), 0);
        assert_int_equal(layer_index_open_table(s.p, len - 1, s.len, &t, NULL), -EBADMSG);
        assert_int_equal(layer_index_open_table(s.p, len, s.len + 8, &t, NULL), -EBADMSG);
        assert_int_equal(layer_index_open_table(s.p, 0, s.len, &t, NULL), -EBADMSG);
        put32(s.p + 44, LAYER_OBJECTS_MAX + 1);
        assert_int_equal(layer_index_table_bytes(s.p), LAYER_HEADER_BYTES);
        assert_int_equal(layer_index_open_table(s.p, len, s.len, &t, NULL), -EBADMSG);
        free(s.p);
}

static void test_an_object_has_one_owner(void **state)
{
        struct scripted s = { 0 };
        struct layer_index x;

        (void) state;
        assert_int_equal(script_index("oaa obb", &s, NULL), 0);
        assert_int_equal(layer_index_open(s.p, s.len, &x, NULL), 0);
        put64(s.p + LAYER_HEADER_BYTES + 8, 0);
        put32(s.p + entry_at(&x, 2) + 48, 0);
        assert_int_equal(layer_index_open(s.p, s.len, &x, NULL), -EBADMSG);
        free(s.p);
}

static void test_xattrs(void **state)
{
        static const struct {
                const char *name;
                bool fine;
        } t[] = {
                { "user.a", true },
                { "security.capability", true },
                { "user.", false },
                { "user", false },
                { "user.overlay.redirect", false },
                { "trusted.overlay.redirect", false },
                { "trusted.x", false },
                { "security.selinux", false },
                { "security.capability2", false },
                { "system.posix_acl_access", false },
                { "", false },
        };
        static const uint8_t caps[] = {
                1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct layer_xattr x = { t[i].name, strlen(t[i].name), caps, sizeof caps }, got;
                uint8_t buf[64];
                size_t at = 0, n = layer_xattr_put(buf, sizeof buf, &x);

                assert_int_equal(n, (4 + x.name_len + x.value_len + 3) & ~3UL);
                assert_int_equal(layer_xattr_allowed(t[i].name, strlen(t[i].name)), t[i].fine);
                assert_int_equal(layer_xattr_next(buf, n, &at, &got), t[i].fine ? 1 : -EBADMSG);
                at = 0;
                assert_int_equal(layer_xattr_next(buf, n - 4, &at, &got), -EBADMSG);
                assert_int_equal(layer_xattr_put(buf, n - 1, &x), 0);
        }
        for (size_t bad = 19; bad <= 21; bad++) { /* version 3 has 24 bytes, the value must fit */
                struct layer_xattr x = { "security.capability", 19, caps, bad == 20 ? 19 : bad }, y;
                uint8_t buf[64], value[24] = { 0 };
                size_t at = 0, n;

                x.value = value;
                n = layer_xattr_put(buf, sizeof buf, &x);
                assert_int_equal(layer_xattr_next(buf, n, &at, &y), -EBADMSG);
        }
}

static void test_paths_compare_by_component(void **state)
{
        static const char *const sorted[] = { "",      "!",  "a",   "a/b", "a/b/c", "a/c",
                                              "a\x01", "a!", "a-b", "aa",  "b",     "\xff" };

        (void) state;
        for (size_t i = 0; i < NELEM(sorted); i++)
                for (size_t k = 0; k < NELEM(sorted); k++)
                        assert_int_equal(layer_path_compare(sorted[i], strlen(sorted[i]), sorted[k],
                                                            strlen(sorted[k])),
                                         i < k ? -1 : i > k);
}

static void test_chunks(void **state)
{
        static const struct {
                uint64_t size;
                unsigned whole, sparse;
                uint64_t n_sparse;
        } t[] = {
                { 0, 0, 0, 0 },
                { 1, 0, 0, 1 },
                { 4096, 0, 0, 1 },
                { 4097, 1, 0, 2 },
                { 256ULL << 20, 16, 0, 65536 },
                { (256ULL << 20) + 1, 17, 1, 32769 },
                { 1ULL << 40, 28, 12, 65536 },
                { LAYER_SIZE_MAX, 31, 15, 65536 },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                assert_int_equal(layer_chunk_bits_whole(t[i].size), t[i].whole);
                assert_int_equal(layer_chunk_bits_sparse(t[i].size), t[i].sparse);
                assert_int_equal(layer_chunk_count(t[i].size, t[i].sparse), t[i].n_sparse);
                assert_int_equal(layer_chunk_count(t[i].size, t[i].whole), t[i].size > 0);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_change_is_refused),
                cmocka_unit_test(test_every_cut_is_refused),
                cmocka_unit_test(test_table_alone),
                cmocka_unit_test(test_an_object_has_one_owner),
                cmocka_unit_test(test_xattrs),
                cmocka_unit_test(test_paths_compare_by_component),
                cmocka_unit_test(test_chunks),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
