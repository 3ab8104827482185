/* What decides how a disk is treated, and the checks that need no root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/disk/disk_priv.h"

static void test_super(void **state)
{
        uint8_t raw[DISK_SUPER_SIZE] = { 0 };
        struct disk_super s = { .size_bytes = 7 };

        (void) state;
        assert_int_equal(disk_super_parse(raw, &s), -EINVAL);
        raw[0x38] = 0x53;
        raw[0x39] = 0xEF;
        assert_int_equal(disk_super_parse(raw, &s), -EINVAL); /* 1,024-byte blocks */
        raw[0x18] = 2;
        raw[0x05] = 1; /* 256 blocks */
        raw[0x150] = 1;
        assert_int_equal(disk_super_parse(raw, &s), 0);
        assert_int_equal(s.size_bytes, 256 * 4096); /* the high half only with the 64bit feature */
        assert_false(s.journal);
        assert_true(s.fresh);
        raw[0x60] = 0x80;
        raw[0x5C] = 0x04;
        raw[0x34] = 1;
        assert_int_equal(disk_super_parse(raw, &s), 0);
        assert_int_equal(s.size_bytes, (1ULL << 32 | 256) * 4096);
        assert_true(s.journal);
        assert_false(s.fresh);
        memset(raw + 0x150, 0xFF, 4);
        assert_int_equal(disk_super_parse(raw, &s), -EINVAL);
}

static void test_names(void **state)
{
        static const struct {
                const char *name;
                int r;
        } t[] = {
                { "abc.1", 0 },    { "v-abc", 0 },         { "", -EINVAL },    { NULL, -EINVAL },
                { "..", -EINVAL }, { ".hidden", -EINVAL }, { "a/b", -EINVAL }, { "/etc", -EINVAL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++)
                assert_int_equal(disk_name_check(t[i].name, NULL), t[i].r);
}

static void test_refused(void **state)
{
        static const uint64_t bad[] = { 0, 4096, (16 << 20) - 4096, (16 << 20) + 1, UINT64_MAX };
        char dir[] = "/tmp/test-disk-XXXXXX";
        AUTO(fd) int fd = -EBADF;
        uint64_t a = 1, b = 2;

        (void) state;
        assert_non_null(mkdtemp(dir));
        fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        for (size_t i = 0; i < NELEM(bad); i++) {
                assert_int_equal(disk_make(fd, "d", bad[i], false, false, NULL), -EINVAL);
                assert_int_equal(disk_make_fast(fd, "d", bad[i], NULL), -EINVAL);
        }
        assert_int_equal(disk_in_use(fd, "d"), -ENOENT);
        assert_int_equal(disk_remove(fd, "d"), 0);
        assert_int_equal(disk_sizes(fd, "d", &a, &b), -ENOENT);
        assert_int_equal(a + b, 3);
        /* neither a link nor a directory nor a pipe is a disk */
        assert_int_equal(symlinkat("/etc/passwd", fd, "link"), 0);
        assert_int_equal(mkdirat(fd, "dir", 0700), 0);
        assert_int_equal(mkfifoat(fd, "pipe", 0600), 0);
        assert_int_equal(disk_in_use(fd, "link"), -ELOOP);
        assert_int_equal(disk_mount(fd, "link", 0, NULL), -ELOOP);
        assert_int_equal(disk_mount(fd, "dir", 0, NULL), -EISDIR);
        assert_int_equal(disk_in_use(fd, "dir"), -EINVAL);
        assert_int_equal(disk_in_use(fd, "pipe"), -EINVAL);
        assert_int_equal(fd_rm_rf(AT_FDCWD, dir), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_super),
                cmocka_unit_test(test_names),
                cmocka_unit_test(test_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
