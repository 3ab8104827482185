/* test_pack.c - files into a pack, and the helpers below it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "scripted.h"
#include "store/pack.h"
#include "store/scratch.h"

static void put_file(struct pack *p, uint64_t size, struct pack_file *ret)
{
        AUTO(free) uint8_t *data = malloc(size + 1);

        for (uint64_t i = 0; i < size; i++)
                data[i] = (uint8_t) (i * 7 + size);
        assert_int_equal(pack_file_begin(p, size, false, NULL), 0);
        for (uint64_t at = 0; at < size; at += 10000) /* in pieces, as libarchive gives it */
                assert_int_equal(pack_file_write(p, at, data + at,
                                                 size - at < 10000 ? size - at : 10000, NULL),
                                 0);
        pack_file_end(p, ret);
}

static void test_files_begin_at_blocks(void **state)
{
        static const uint64_t sizes[] = { 1, 4095, 4096, 4097, 0, 300000, 12, 262144, 8192, 5 };
        AUTO(fd) int fd = memfd_create("pack", MFD_CLOEXEC);
        AUTO(pack_free) struct pack *p = NULL;
        uint32_t starts[NELEM(sizes)], blocks = 0;
        uint64_t bytes = 0;

        (void) state;
        assert_int_equal(pack_new(fd, 1 << 30, &p, NULL), 0);
        for (size_t i = 0; i < NELEM(sizes); i++) {
                struct pack_file f;

                put_file(p, sizes[i], &f);
                assert_int_equal(f.n_chunks, sizes[i] > 0);
                assert_int_equal(f.chunk_bits, layer_chunk_bits_whole(sizes[i]));
                starts[i] = blocks;
                if (sizes[i] > 0)
                        assert_int_equal(f.chunks[0], blocks);
                blocks += (uint32_t) ((sizes[i] + 4095) / 4096);
        }
        assert_int_equal(pack_end(p, &bytes, NULL), 0);
        assert_int_equal(bytes, blocks * 4096ULL);
        assert_int_equal(lseek(fd, 0, SEEK_END), (off_t) bytes);
        for (size_t i = 0; i < NELEM(sizes); i++) {
                uint64_t room = (sizes[i] + 4095) / 4096 * 4096;
                AUTO(free) uint8_t *data = malloc(room + 1);

                assert_int_equal(pread(fd, data, room, (off_t) (starts[i] * 4096ULL)),
                                 (ssize_t) room);
                for (uint64_t k = 0; k < room; k++)
                        if (data[k] != (k < sizes[i] ? (uint8_t) (k * 7 + sizes[i]) : 0))
                                fail_msg("file %zu, byte %llu", i, (unsigned long long) k);
        }
}

static void test_sparse(void **state)
{
        AUTO(fd) int fd = memfd_create("pack", MFD_CLOEXEC);
        AUTO(pack_free) struct pack *p = NULL;
        struct pack_file f;
        uint64_t bytes;
        char got[4];

        (void) state;
        assert_int_equal(pack_new(fd, 1 << 30, &p, NULL), 0);
        assert_int_equal(pack_file_begin(p, 1ULL << 40, true, NULL), 0);
        assert_int_equal(pack_file_write(p, 5, "abc", 3, NULL), 0);
        assert_int_equal(pack_file_write(p, (1ULL << 40) - 3, "xyz", 3, NULL), 0);
        pack_file_end(p, &f);
        assert_int_equal(f.n_chunks, 65536);
        assert_int_equal(f.chunks[0], 0);
        assert_int_equal(f.chunks[1], LAYER_HOLE);
        assert_int_equal(f.chunks[65535], 4096); /* chunks of 16 MiB */
        /* a hole and nothing else */
        assert_int_equal(pack_file_begin(p, 1ULL << 40, true, NULL), 0);
        pack_file_end(p, &f);
        assert_int_equal(f.n_chunks, 1);
        assert_int_equal(f.chunks[0], LAYER_HOLE);
        assert_int_equal(f.chunk_bits, 28);
        assert_int_equal(pack_end(p, &bytes, NULL), 0);
        assert_int_equal(bytes, 32 << 20);
        assert_int_equal(pread(fd, got, 3, (16 << 20) + (16 << 20) - 3), 3);
        assert_memory_equal(got, "xyz", 3);
}

static void test_refused(void **state)
{
        AUTO(fd) int fd = memfd_create("pack", MFD_CLOEXEC);
        AUTO(pack_free) struct pack *p = NULL;

        (void) state;
        assert_int_equal(pack_new(fd, 16384, &p, NULL), 0);
        assert_int_equal(pack_file_begin(p, LAYER_SIZE_MAX + 1, true, NULL), -EFBIG);
        assert_int_equal(pack_file_begin(p, 16385, false, NULL), -EFBIG);
        assert_int_equal(pack_file_begin(p, 10, false, NULL), 0);
        assert_int_equal(pack_file_write(p, 8, "abc", 3, NULL), -EBADMSG);
        assert_int_equal(pack_file_write(p, UINT64_MAX, "abc", 3, NULL), -EBADMSG);
        assert_int_equal(pack_file_begin(p, 16384, true, NULL), 0);
        assert_int_equal(pack_file_write(p, 0, "a", 1, NULL), 0);
        assert_int_equal(pack_file_write(p, 4096, "a", 1, NULL), 0);
        assert_int_equal(pack_file_write(p, 8192, "a", 1, NULL), 0);
        assert_int_equal(pack_file_write(p, 12288, "a", 1, NULL), -EFBIG);
}

static void test_scratch_grows(void **state)
{
        (void) state;
        for (int with_file = 0; with_file < 2; with_file++) {
                AUTO(fd) int fd = with_file ? memfd_create("scratch", MFD_CLOEXEC) : -EBADF;
                AUTO(scratch_done) struct scratch s;
                uint32_t *p;

                scratch_init(&s, fd, 16 << 20);
                for (uint32_t i = 0; i < 4U << 20; i++) {
                        assert_int_equal(scratch_add(&s, 4, &p, NULL), 0);
                        if (*p != 0)
                                fail_msg("not zero at %u", i);
                        *p = i;
                }
                assert_int_equal(scratch_add(&s, 1, &p, NULL), -E2BIG);
                assert_int_equal(scratch_add(&s, UINT64_MAX, &p, NULL), -E2BIG);
                for (uint32_t i = 0; i < 4U << 20; i += 997) {
                        uint32_t v;

                        memcpy(&v, s.p + 4ULL * i, 4);
                        assert_int_equal(v, i);
                }
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_files_begin_at_blocks),
                cmocka_unit_test(test_sparse),
                cmocka_unit_test(test_refused),
                cmocka_unit_test(test_scratch_grows),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
