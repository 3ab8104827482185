/* Pairs of ports and ranges of them, as rows, reports and the configuration write them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
/* cmocka needs the four above */
#include <cmocka.h>
#include <errno.h>

#include "base/mem.h"
#include "base/str.h"
#include "model/published.h"

static void test_pairs(void **state)
{
        static const struct {
                const char *in;
                int r;
                size_t n;
        } t[] = {
                { NULL, 0, 0 },
                { "", 0, 0 },
                { "22:20000", 0, 1 },
                { "22:20000 8000:20001 65535:65535", 0, 3 },
                { "22", -EINVAL, 0 },
                { "22:", -EINVAL, 0 },
                { ":20000", -EINVAL, 0 },
                { "0:20000", -EINVAL, 0 },
                { "22:0", -EINVAL, 0 },
                { "22:65536", -EINVAL, 0 },
                { "22:20000:1", -EINVAL, 0 },
                { "22:20000,23:20001", -EINVAL, 0 },
                { "22:20000 22:20001", -EINVAL, 0 },
                { "22:20000 23:20000", -EINVAL, 0 },
                { "22:-1", -EINVAL, 0 },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct published p = { .n = 99 };
                struct err e = { 0 };

                if (published_parse(t[i].in, &p, &e) != t[i].r)
                        fail_msg("%zu %s: %s", i, t[i].in, e.msg);
                assert_int_equal(p.n, t[i].r < 0 ? 99 : t[i].n);
                if (t[i].r >= 0) {
                        AUTO(free) char *text = published_format(&p);

                        assert_string_equal(text, t[i].in ? t[i].in : "");
                }
        }
}

static void test_many(void **state)
{
        struct published p = { .n = 0 }, back;
        AUTO(free) char *text = NULL, *more = NULL;

        (void) state;
        for (; p.n < LIMIT_PORTS; p.n++)
                p.at[p.n] = (struct port_pair){ (uint16_t) (1 + p.n), (uint16_t) (20000 + p.n) };
        text = published_format(&p);
        assert_int_equal(published_parse(text, &back, NULL), 0);
        assert_int_equal(back.n, LIMIT_PORTS);
        assert_int_equal(published_outer(&back, 1), 20000);
        assert_int_equal(published_outer(&back, LIMIT_PORTS), 20000 + LIMIT_PORTS - 1);
        assert_int_equal(published_outer(&back, LIMIT_PORTS + 1), 0);
        more = str_fmt("%s 9999:30000", text);
        assert_int_equal(published_parse(more, &back, NULL), -EINVAL);
}

static void test_ranges(void **state)
{
        static const struct {
                const char *in;
                int r;
                uint16_t first, last;
        } t[] = {
                { "20000-29999", 0, 20000, 29999 },
                { "1024-65535", 0, 1024, 65535 },
                { "30000", 0, 30000, 30000 },
                { "30000-30000", 0, 30000, 30000 },
                { "none", 0, 0, 0 },
                { "", 0, 0, 0 },
                { NULL, 0, 0, 0 },
                { "1023-2000", -EINVAL, 0, 0 },
                { "20000-65536", -EINVAL, 0, 0 },
                { "20001-20000", -EINVAL, 0, 0 },
                { "20000-", -EINVAL, 0, 0 },
                { "-20000", -EINVAL, 0, 0 },
                { "20000 - 29999", -EINVAL, 0, 0 },
                { "all", -EINVAL, 0, 0 },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct port_range range = { 7, 7 };
                struct err e = { 0 };

                if (port_range_parse("network public_ports", t[i].in, &range, &e) != t[i].r)
                        fail_msg("%zu %s: %s", i, t[i].in, e.msg);
                if (t[i].r < 0) {
                        assert_int_equal(range.first, 7);
                        assert_non_null(strstr(e.msg, "network public_ports"));
                        assert_non_null(strstr(e.msg, "1024-65535"));
                        continue;
                }
                assert_int_equal(range.first, t[i].first);
                assert_int_equal(range.last, t[i].last);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_pairs),
                cmocka_unit_test(test_many),
                cmocka_unit_test(test_ranges),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
