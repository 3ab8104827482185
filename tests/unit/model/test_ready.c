/* test_ready.c - src/model/ready.c: paths that are asked for, and answers that count. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"
#include "model/limits.h"
#include "model/ready.h"

#define PORTS "22/tcp,8888/http,8000/http"

static void test_paths(void **state)
{
        static const struct {
                const char *s, *ports;
                int r;
                uint32_t port;
                const char *rest; /* the path, or what the sentence has in it */
        } t[] = {
                { NULL, PORTS, 0, 0, NULL },
                { "", "", 0, 0, NULL },
                { "none", NULL, 0, 0, NULL },
                { "/", PORTS, 0, 8888, "/" },
                { "/health?full=1&x=%20", PORTS, 0, 8888, "/health?full=1&x=%20" },
                { ":8000/health", PORTS, 0, 8000, "/health" },
                { ":8888/", PORTS, 0, 8888, "/" },
                { "//x/../y", PORTS, 0, 8888, "//x/../y" },
                { "health", PORTS, -EINVAL, 0, "'health' is neither a path" },
                { ":8000", PORTS, -EINVAL, 0, "is neither a path" },
                { ":/health", PORTS, -EINVAL, 0, "is neither a path" },
                { ":0/health", PORTS, -EINVAL, 0, "is neither a path" },
                { ":65536/health", PORTS, -EINVAL, 0, "is neither a path" },
                { ":99999999999999999999/health", PORTS, -EINVAL, 0, "is neither a path" },
                { "8000/health", PORTS, -EINVAL, 0, "is neither a path" },
                { "http://x/", PORTS, -EINVAL, 0, "is neither a path" },
                { "/a b", PORTS, -EINVAL, 0, "are written as %20 there" },
                { "/a\r\nX: y", PORTS, -EINVAL, 0, "is neither a path" },
                { "/a\x7f", PORTS, -EINVAL, 0, "is neither a path" },
                { "/\xc3\xa4", PORTS, -EINVAL, 0, "is neither a path" },
                { "/a#b", PORTS, -EINVAL, 0, "is neither a path" },
                { ":22/", PORTS, -EINVAL, 0, "22 is no HTTP port of the cluster; add 22/http" },
                { ":9000/", PORTS, -EINVAL, 0, "9000 is no HTTP port" },
                { "/", "22/tcp", -EINVAL, 0, "no HTTP port that could be asked" },
                { "/", NULL, -EINVAL, 0, "no HTTP port that could be asked" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct ready_path got = { 7777, NULL };
                struct err e = { 0 };
                int r = ready_path_parse(t[i].s, t[i].ports, &got, &e);
                const bool same = r < 0 ? got.port == 7777 && strstr(e.msg, t[i].rest) &&
                                                  str_after(e.msg, "readinessPath: ")
                                        : got.port == t[i].port && str_eq(got.path, t[i].rest);

                if (r != t[i].r || !same)
                        fail_msg("row %zu '%s': r=%d port %u path %s: %s", i, t[i].s, r, got.port,
                                 got.path ? got.path : "-", e.msg);
        }
}

static void test_length(void **state)
{
        char *s = calloc(1, LIMIT_READY_PATH_BYTES + 2);
        struct ready_path got;
        struct err e = { 0 };

        (void) state;
        assert_non_null(s);
        memset(s, '/', LIMIT_READY_PATH_BYTES);
        assert_int_equal(ready_path_parse(s, PORTS, &got, &e), 0);
        s[LIMIT_READY_PATH_BYTES] = '/';
        assert_int_equal(ready_path_parse(s, PORTS, &got, &e), -E2BIG);
        assert_non_null(strstr(e.msg, "1025 bytes, at most 1024"));
        free(s);
}

static void test_answers(void **state)
{
        static const struct {
                char answer[READY_ANSWER_BYTES + 1];
                bool ready;
        } t[] = {
                { "HTTP/1.1 200", true },
                { "HTTP/1.0 204", true },
                { "HTTP/1.1 302", true },
                { "HTTP/1.9 399", true },
                { "HTTP/1.1 100", false },
                { "HTTP/1.1 404", false },
                { "HTTP/1.1 503", false },
                { "HTTP/2.0 200", false },
                { "http/1.1 200", false },
                { "HTTP/1.1  20", false },
                { "HTTP/1.1 2 0", false },
                { "HTTP/1.12200", false },
                { "SSH-2.0-Open", false },
                { "", false },
                { "HTTP/1.1 2\0"
                  "0",
                  false },
                { "HTTP/1.1\t200", false },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++)
                if (ready_answer(t[i].answer) != t[i].ready)
                        fail_msg("row %zu '%s'", i, t[i].answer);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_paths),
                cmocka_unit_test(test_length),
                cmocka_unit_test(test_answers),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
