/* test_erofs.c - the bytes of the metadata file system; what the kernel makes of them is tested in
 * tests/flow/test_store.py, that all of it hangs together in tests/fuzz/fuzz_store.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "scripted.h"
#include "store/bytes.h"
#include "store/erofs.h"

static uint8_t *build(const char *const *texts, size_t n, struct erofs_totals *t)
{
        AUTO(fd) int fd = memfd_create("meta", MFD_CLOEXEC);
        AUTO(merge_done) struct merge m = { 0 };
        struct scripted s[4] = { 0 };
        struct layer_index x[4];
        uint8_t *p, *names[4];

        for (size_t i = 0; i < n; i++) {
                assert_int_equal(script_index(texts[i], &s[i], NULL), 0);
                assert_int_equal(layer_index_open(s[i].p, s[i].len, &x[i], NULL), 0);
                script_attach(&x[i], &names[i]);
        }
        assert_int_equal(merge_layers(x, n, -EBADF, &m, NULL), 0);
        assert_int_equal(erofs_write(&m, fd, t, NULL), 0);
        for (size_t i = 0; i < n; i++) {
                free(s[i].p);
                free(names[i]);
        }
        p = malloc(t->bytes);
        assert_int_equal(pread(fd, p, t->bytes, 0), (ssize_t) t->bytes);
        return p;
}

static void test_a_small_one(void **state)
{
        static const char *const texts[] = { "d. da fa/b hc>a/b", "oo lx" };
        struct erofs_totals t;
        AUTO(free) uint8_t *p = build(texts, 2, &t);
        const uint8_t *sb = p + 1024, *root, *ent;

        (void) state;
        assert_int_equal(t.inodes, 5); /* root, a, a/b = c, o, x */
        assert_int_equal(t.objects, 1);
        assert_int_equal(t.bytes, 8192);
        assert_int_equal(get32(sb), 0xE0F5E1E2);
        assert_int_equal(get32(sb + 8), 3);
        assert_int_equal(sb[12], 12);
        assert_int_equal(get64(sb + 16), 5);
        assert_int_equal(get32(sb + 36), 2);
        assert_int_equal(get32(sb + 80), 12);
        assert_int_equal(get16(sb + 86), 2);
        assert_int_equal(get16(sb + 88), 9);
        assert_memory_equal(sb + 128,
                            "0000000000000000000000000000000000000000000000000000000000000000", 64);
        assert_int_equal(get32(sb + 128 + 64), 1);
        assert_int_equal(get32(sb + 128 + 68), 2); /* behind each other on one device */
        assert_int_equal(get32(sb + 256 + 68), 3);
        /* the root comes first: an extended inode with its names beside it */
        assert_int_equal(get16(sb + 14), 128);
        root = p + 128 * 32;
        assert_int_equal(get16(root), 1 | 2 << 1);
        assert_int_equal(get16(root + 4), 040750); /* as the lower layer says */
        assert_int_equal(get32(root + 44), 3);
        ent = root + 64;
        assert_int_equal(get64(root + 8), 6 * 12 + 7); /* . .. a c o x */
        assert_int_equal(get16(ent + 8), 6 * 12);
        assert_memory_equal(ent + 72, "...acox", 7);
        assert_int_equal(get64(ent), 128);
        assert_int_equal(get64(ent + 12), 128);
}

static void test_the_same_twice_and_another(void **state)
{
        static const char *const texts[] = { "d. da fa/b oo hc>a/b lx pq", "wa fz oo" };
        struct erofs_totals t, u;
        AUTO(free) uint8_t *a = build(texts, 2, &t), *b = build(texts, 2, &u);

        (void) state;
        assert_int_equal(t.bytes, u.bytes);
        assert_memory_equal(a, b, t.bytes);
}

static void test_devices_are_layers_with_a_pack(void **state)
{
        struct layer_index x[4] = { 0 };
        unsigned got[MERGE_LAYERS_MAX];

        (void) state;
        x[1].totals.pack_bytes = 4096;
        x[3].totals.pack_bytes = 8192;
        assert_int_equal(erofs_devices(x, 4, got), 2);
        assert_int_equal(got[0], 1);
        assert_int_equal(got[1], 3);
        assert_int_equal(erofs_devices(x, 1, got), 0);
}

static void test_objects_need_names(void **state)
{
        AUTO(merge_done) struct merge m = { 0 };
        struct scripted s = { 0 };
        struct erofs_totals t;
        struct layer_index x;

        (void) state;
        assert_int_equal(script_index("oa", &s, NULL), 0);
        assert_int_equal(layer_index_open(s.p, s.len, &x, NULL), 0);
        assert_int_equal(merge_layers(&x, 1, -EBADF, &m, NULL), 0);
        assert_int_equal(erofs_write(&m, -EBADF, &t, NULL), -EINVAL);
        free(s.p);
}

static void test_object_path(void **state)
{
        uint8_t sha[LAYER_SHA_BYTES] = { 0xab, 0x01, 0xff };
        char path[EROFS_OBJECT_PATH_BYTES];

        (void) state;
        erofs_object_path(sha, path);
        assert_string_equal(path,
                            "ab/01ff0000000000000000000000000000000000000000000000000000000000");
        assert_int_equal(strlen(path), 65);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_small_one),
                cmocka_unit_test(test_the_same_twice_and_another),
                cmocka_unit_test(test_devices_are_layers_with_a_pack),
                cmocka_unit_test(test_objects_need_names),
                cmocka_unit_test(test_object_path),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
