/* test_gql_corpus.c - every input that the fuzz target starts from, and every one that it ever tripped
 * over, again: a finding ends the program. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/fd.h"
#include "base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void test_corpus(void **state)
{
        DIR *d = opendir(GQL_CORPUS);
        struct dirent *ent;
        unsigned n = 0;

        (void) state;
        assert_non_null(d);
        while ((ent = readdir(d))) {
                AUTO(free) char *text = NULL;
                size_t len = 0;

                if (ent->d_name[0] == '.')
                        continue;
                assert_int_equal(fd_read_file(dirfd(d), ent->d_name, 1 << 24, &text, &len), 0);
                assert_int_equal(LLVMFuzzerTestOneInput((const uint8_t *) text, len), 0);
                for (size_t cut = 0; cut < len && cut < 400; cut++) /* and every beginning of it */
                        assert_int_equal(LLVMFuzzerTestOneInput((const uint8_t *) text, cut), 0);
                n++;
        }
        closedir(d);
        assert_true(n >= 25);
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(test_corpus) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
