/* replay.c - every input that a fuzz target has learned from, again, as a unit test; a finding that was
 * fixed goes there and stays fixed.  Linked with the target; CORPUS is its folder. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/fd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void test_corpus(void **state)
{
        DIR *dir = opendir(CORPUS);
        size_t n = 0;

        (void) state;
        assert_non_null(dir);
        for (const struct dirent *d; (d = readdir(dir));) {
                AUTO(free) char *text = NULL;
                size_t len = 0;

                if (d->d_type != DT_REG)
                        continue;
                assert_int_equal(fd_read_file(dirfd(dir), d->d_name, 1 << 20, &text, &len), 0);
                assert_int_equal(LLVMFuzzerTestOneInput((const uint8_t *) text, len), 0);
                n++;
        }
        (void) closedir(dir);
        assert_true(n >= 6);
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(test_corpus) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
