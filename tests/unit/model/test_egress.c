/* test_egress.c - networks as people write them, and lists of them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
/* cmocka needs the above */
#include <cmocka.h>

#include "base/mem.h"
#include "model/egress.h"

#define MAX_WORDS 6

static void test_lists(void **state)
{
        static const struct {
                char *in[MAX_WORDS];
                int r;
                bool limited;
                const char *says; /* what there is, or the reason */
        } t[] = {
                { { NULL }, 0, false, "" },
                { { "none", NULL }, 0, true, "" },
                { { "198.51.100.0/24", NULL }, 0, true, "198.51.100.0/24 " },
                { { "203.0.113.9", "2001:db8::1", NULL },
                  0,
                  true,
                  "203.0.113.9/32 2001:db8::1/128 " },
                { { "2001:db8::/32", "0.0.0.0/0", NULL }, 0, true, "2001:db8::/32 0.0.0.0/0 " },
                /* what is within another is not said twice, in either order */
                { { "10.1.0.0/16", "10.0.0.0/8", NULL }, 0, true, "10.0.0.0/8 " },
                { { "10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8", NULL }, 0, true, "10.0.0.0/8 " },
                { { "2001:db8:1::/48", "::/0", NULL }, 0, true, "::/0 " },
                { { "none", "10.0.0.0/8", NULL }, -EINVAL, false, "'none' stands alone" },
                { { "10.0.0.0/8", "none", NULL }, -EINVAL, false, "'none' stands alone" },
                { { "", NULL }, -EINVAL, false, "'' is not a network such as" },
                { { "example.com", NULL }, -EINVAL, false, "'example.com' is not a network" },
                { { "10.0.0.0/", NULL }, -EINVAL, false, "is not a network" },
                { { "10.0.0.0/-1", NULL }, -EINVAL, false, "is not a network" },
                { { "10.0.0/8", NULL }, -EINVAL, false, "is not a network" },
                { { "10.0.0.0/8/8", NULL }, -EINVAL, false, "is not a network" },
                { { "2001:db8::/129", NULL }, -EINVAL, false, "is not a network" },
                { { " 10.0.0.0/8", NULL }, -EINVAL, false, "is not a network" },
                { { "10.0.0.1/8", NULL },
                  -EINVAL,
                  false,
                  "does not start at its base, 10.0.0.0/8" },
                { { "2001:db8::1/32", NULL }, -EINVAL, false, "at its base, 2001:db8::/32" },
                { { "169.254.169.254", NULL }, -EINVAL, false, "never reach link-local" },
                { { "127.0.0.0/8", NULL }, -EINVAL, false, "never reach loopback" },
                { { "ff02::/16", NULL }, -EINVAL, false, "never reach multicast" },
                { { "::ffff:10.0.0.0/104", NULL }, -EINVAL, false, "never reach IPv4-mapped" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct egress got = { .n = 77 };
                struct err e = { 0 };
                char all[512] = "", one[NETWORK_TEXT];
                int r = egress_parse("egressAllow", t[i].in, &got, &e);

                if (r != t[i].r || (r < 0 && got.n != 77) ||
                    (r >= 0 && got.limited != t[i].limited))
                        fail_msg("row %zu: r=%d n=%zu %s", i, r, got.n, e.msg);
                for (size_t k = 0; r >= 0 && k < got.n; k++) {
                        (void) strcat(all, network_format(&got.net[k], one));
                        (void) strcat(all, " ");
                }
                if (r >= 0 && strcmp(all, t[i].says) != 0)
                        fail_msg("row %zu: %s", i, all);
                if (r < 0 && (!strstr(e.msg, t[i].says) || !strstr(e.msg, "egressAllow: ")))
                        fail_msg("row %zu: %s", i, e.msg);
        }
        assert_int_equal(egress_parse("f", NULL, &(struct egress){ .n = 0 }, NULL), 0);
}

static void test_limit(void **state)
{
        char words[LIMIT_EGRESS + 2][16], *list[LIMIT_EGRESS + 2] = { NULL };
        struct egress got;
        struct err e = { 0 };

        (void) state;
        for (size_t i = 0; i <= LIMIT_EGRESS; i++) {
                (void) snprintf(words[i], sizeof words[i], "10.%zu.0.0/16", i);
                list[i] = words[i];
        }
        assert_int_equal(egress_parse("egressAllow", list, &got, &e), -E2BIG);
        assert_non_null(strstr(e.msg, "more than 64 networks"));
        list[LIMIT_EGRESS] = NULL;
        assert_int_equal(egress_parse("egressAllow", list, &got, &e), 0);
        assert_int_equal(got.n, LIMIT_EGRESS);
}

static void test_ends(void **state)
{
        static const struct {
                const char *net;
                uint8_t first[16], last[16];
        } t[] = {
                { "0.0.0.0/0", { 0 }, { 255, 255, 255, 255 } },
                { "10.16.0.0/13", { 10, 16 }, { 10, 23, 255, 255 } },
                { "10.1.2.3", { 10, 1, 2, 3 }, { 10, 1, 2, 3 } },
                { "fd00::/9",
                  { 0xfd },
                  { 0xfd, 127, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
                    255 } },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                uint8_t first[16], last[16];
                struct network n;

                assert_int_equal(network_parse("f", t[i].net, strlen(t[i].net), &n, NULL), 0);
                network_ends(&n, first, last);
                assert_memory_equal(first, t[i].first, 16);
                assert_memory_equal(last, t[i].last, 16);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_lists),
                cmocka_unit_test(test_limit),
                cmocka_unit_test(test_ends),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
