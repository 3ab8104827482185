/* test_logfile.c - reading two files that take turns, by absolute offset, and the filter. */
#include "control/rest/logfile.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fd.h"

#define LINE(n) "2026-11-22T14:54:4" #n ".123456789Z stdout F line " #n "\n"

static const struct log_filter both = { .want = { false, true, true } };

static int file(const char *text)
{
        int fd = memfd_create("log", MFD_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(fd_write_full(fd, text, strlen(text)), 0);
        return fd;
}

static char *all(const struct log_files *l, uint64_t from, size_t block)
{
        struct strbuf b = { 0 };
        char buf[256];
        ssize_t n;

        while ((n = log_files_read(l, &from, buf, block)) > 0)
                strbuf_add(&b, buf, (size_t) n);
        assert_int_equal(n, 0);
        return strbuf_take(&b);
}

static void test_read(void **state)
{
        static const size_t one = sizeof LINE(1) - 1;
        struct log_files l = { { file("#log 0\n" LINE(1) LINE(2)), file("") } };
        uint64_t start, end;

        (void) state;
        for (int turn = 0; turn < 2; turn++) {
                for (size_t block = 1; block < 200; block += 13) {
                        AUTO(free) char *text = all(&l, 0, block);

                        assert_string_equal(text, turn ? LINE(1) LINE(2) LINE(3) : LINE(1) LINE(2));
                }
                assert_int_equal(log_files_tail(&l, &both, 1), turn ? 2 * one : one);
                assert_int_equal(log_files_tail(&l, &both, 2), turn ? one : 0);
                assert_int_equal(log_files_tail(&l, &both, 3), 0);
                assert_int_equal(log_files_tail(&l, &both, 99), 0);
                assert_int_equal(log_files_tail(&l, &both, 0), turn ? 3 * one : 2 * one);
                if (!turn) { /* the other file becomes the active one */
                        AUTO(free) char *text = str_fmt("#log %zu\n" LINE(3), 2 * one);

                        assert_int_equal(fd_write_full(l.fd[1], text, strlen(text)), 0);
                }
        }
        /* the first one is taken again: its lines are gone, an old position moves on */
        assert_int_equal(ftruncate(l.fd[0], 0), 0);
        assert_int_equal(lseek(l.fd[0], 0, SEEK_SET), 0);
        AUTO(free) char *third = str_fmt("#log %zu\n" LINE(4), 3 * one);
        assert_int_equal(fd_write_full(l.fd[0], third, strlen(third)), 0);
        AUTO(free) char *text = all(&l, one, 64);
        assert_string_equal(text, LINE(3) LINE(4));
        log_files_range(&l, &start, &end);
        assert_int_equal(start, 2 * one);
        assert_int_equal(end, 4 * one);
        log_files_done(&l);
}

/* The last lines of what is wanted: of one stream, and of lines that came in parts. */
static void test_tail(void **state)
{
#define REC(stream, how, text) "2026-11-22T14:54:40.000000000Z " stream " " how " " text "\n"
        static const char old[] = REC("stderr", "F", "e1") REC("stdout", "P", "long ")
                REC("stdout", "F", "line") REC("stderr", "F", "e2");
        static const char new[] = REC("stdout", "F", "o2") REC("stderr", "P", "e3 ")
                REC("stdout", "F", "o3") REC("stderr", "P", "is not whole");
        static const struct {
                enum attach_channel channel;
                uint64_t lines;
                const char *want;
        } t[] = {
                { ATTACH_STDOUT, 0, "" },
                { ATTACH_STDOUT, 1, "o3\n" },
                { ATTACH_STDOUT, 2, "o2\no3\n" },
                { ATTACH_STDOUT, 3, "long line\no2\no3\n" },
                { ATTACH_STDOUT, 9, "long line\no2\no3\n" },
                { ATTACH_STDERR, 1, "e3 is not whole" },
                { ATTACH_STDERR, 2, "e2\ne3 is not whole" },
                { ATTACH_STDERR, 3, "e1\ne2\ne3 is not whole" },
                { ATTACH_STDERR, 4, "e1\ne2\ne3 is not whole" },
        };
        AUTO(free) char *first = str_fmt("#log 0\n%s", old);
        AUTO(free) char *second = str_fmt("#log %zu\n%s", sizeof old - 1, new);
        struct log_files l = { { file(first), file(second) } };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct log_filter f = { .want = { false } };
                struct strbuf out = { 0 };

                f.want[t[i].channel] = true;
                AUTO(free) char *records = all(&l, log_files_tail(&l, &f, t[i].lines), 255);
                (void) log_filter_lines(&f, records ? records : "", records ? strlen(records) : 0,
                                        &out);
                AUTO(free) char *text = strbuf_take(&out);
                assert_string_equal(text ? text : "", t[i].want);
        }
        log_files_done(&l);
#undef REC
}

static void test_strange_files(void **state)
{
        static const char *const t[] = { "", "#log", "#log x\n", "no header\n", "#log 5" };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct log_files l = { { file(t[i]), file(t[i]) } };
                AUTO(free) char *text = all(&l, 0, 16);

                assert_string_equal(text, "");
                assert_int_equal(log_files_tail(&l, &both, 5), 0);
                log_files_done(&l);
        }
        struct log_files none;
        uint64_t pos = 7;
        char buf[8];

        log_files_init(&none);
        assert_int_equal(log_files_read(&none, &pos, buf, sizeof buf), 0);
        assert_int_equal(pos, 7);
}

static void test_filter(void **state)
{
        static const char data[] = LINE(
                1) "rubbish\n"
                   "2026-11-22T14:54:42.000000000Z stderr P half\n" LINE(
                           3) "2026-11-22T14:54:44.000000000Z stderr F  whole\n" LINE(5) "2026-11-22T14:5";
        static const struct {
                struct log_filter f;
                const char *want;
        } t[] = {
                { { .want = { false, true, false } }, "line 1\nline 3\nline 5\n" },
                { { .want = { false, false, true } }, "half whole\n" },
                { { .want = { false, true, false }, .since = "2026-11-22T14:54:43.000000" },
                  "line 3\nline 5\n" },
                { { .want = { false, false, true }, .timestamps = true },
                  "2026-11-22T14:54:42.000000000Z half whole\n" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct log_filter f = t[i].f;
                struct strbuf out = { 0 };
                size_t used = log_filter_lines(&f, data, sizeof data - 1, &out);
                AUTO(free) char *text = strbuf_take(&out);

                assert_string_equal(text, t[i].want);
                assert_string_equal(data + used, "2026-11-22T14:5"); /* not whole: for later */
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_read),
                cmocka_unit_test(test_tail),
                cmocka_unit_test(test_strange_files),
                cmocka_unit_test(test_filter),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
