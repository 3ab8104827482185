/* test_imageref.c - references as Docker reads them. */
#include "model/imageref.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/mem.h"

#define D "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_parse(void **state)
{
        static const struct {
                const char *in, *out; /* NULL: refused */
        } t[] = {
                { "ubuntu", "docker.io/library/ubuntu:latest" },
                { "ubuntu:22.04", "docker.io/library/ubuntu:22.04" },
                { "tensorone/llm-starter", "docker.io/tensorone/llm-starter:latest" },
                { "docker.io/ubuntu", "docker.io/library/ubuntu:latest" },
                { "index.docker.io/a/b", "docker.io/a/b:latest" },
                { "ghcr.io/a/b/c:x", "ghcr.io/a/b/c:x" },
                { "localhost/a", "localhost/a:latest" },
                { "127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest" },
                { "127.0.0.1:5000/a/b@" D, "127.0.0.1:5000/a/b@" D },
                { "a:v1@" D, "docker.io/library/a:v1@" D },
                { "[::1]:5000/a", "[::1]:5000/a:latest" },
                { "a__b/c--d.e", "docker.io/a__b/c--d.e:latest" },
                { "", NULL },
                { "Ubuntu", NULL },
                { "a//b", NULL },
                { "/a", NULL },
                { "a/", NULL },
                { "../a", NULL },
                { "a/../b", NULL },
                { "a:", NULL },
                { "a:-x", NULL },
                { "a:b:c", NULL },
                { "a@sha256:12", NULL },
                { "a@md5:0123", NULL },
                { "a b", NULL },
                { "a..b", NULL },
                { "a___b", NULL },
                { "-a", NULL },
                { "reg.io:99999/a", NULL },
                { "reg.io:/a", NULL },
                { "re$g.io/a", NULL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct imageref ref;
                struct err e = { 0 };
                int r = imageref_parse(t[i].in, &ref, &e);
                AUTO(free) char *out = r < 0 ? NULL : imageref_format(&ref);

                if ((r < 0) != !t[i].out)
                        fail_msg("'%s': r=%d %s", t[i].in, r, e.msg);
                if (t[i].out)
                        assert_string_equal(out, t[i].out);
                else
                        assert_true(strncmp(e.msg, "imageName: ", 11) == 0);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(test_parse) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
