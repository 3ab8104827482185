/* test_net_addresses.c - `[network] allow` and IPv6 pools. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
/* cmocka needs the above */
#include <cmocka.h>

#include "base/mem.h"
#include "engine/net/allow.h"
#include "engine/net/ipv6.h"
#include "model/limits.h"

static void test_allow(void **state)
{
        static const struct {
                const char *in;
                int r;
                size_t n;
                const char *says; /* the last network, or the reason */
        } t[] = {
                { NULL, 0, 0, NULL },
                { "", 0, 0, NULL },
                { " , ", 0, 0, NULL },
                { "10.0.0.0/8", 0, 1, "10.0.0.0/8" },
                { "10.0.0.0/8, 192.168.7.9/32", 0, 2, "192.168.7.9/32" },
                { "10.0.0.0/8,10.1.0.0/16 172.16.0.0/12,", 0, 3, "172.16.0.0/12" },
                { "10.0.0.0/8, fd00::/8", 0, 2, "fd00::/8" },
                { "10.0.0.7", -EINVAL, 0, "'10.0.0.7' lacks its size" },
                { "0.0.0.0/0", 0, 1, "0.0.0.0/0" },
                { "10.0.0.0/33", -EINVAL, 0, "'10.0.0.0/33' is not a network" },
                { "10.1.2.3/8", -EINVAL, 0, "does not start at its base, 10.0.0.0/8" },
                { "127.0.0.1/32", -EINVAL, 0, "never reach loopback" },
                { "169.254.0.0/16", -EINVAL, 0, "never reach link-local" },
                { "169.254.169.254/32", -EINVAL, 0, "never reach link-local" },
                { "fe80::/64", -EINVAL, 0, "never reach link-local" },
                { "::1/128", -EINVAL, 0, "never reach loopback" },
                { "224.0.0.0/4", -EINVAL, 0, "never reach multicast" },
        };
        char many[NET_ALLOW_MAX * 12 + 16] = "";

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct net_allow got = { .n = 77 };
                struct err e = { 0 };
                char text[NETWORK_TEXT];
                int r = net_allow_parse(t[i].in, &got, &e);

                if (r != t[i].r || got.n != (r < 0 ? 77 : t[i].n))
                        fail_msg("row %zu: r=%d n=%zu %s", i, r, got.n, e.msg);
                if (r == 0 && got.n &&
                    strcmp(network_format(&got.net[got.n - 1], text), t[i].says) != 0)
                        fail_msg("row %zu: %s", i, text);
                if (r < 0 && (!strstr(e.msg, t[i].says) || !strstr(e.msg, "network allow")))
                        fail_msg("row %zu: %s", i, e.msg);
        }
        for (size_t i = 0; i <= NET_ALLOW_MAX; i++)
                (void) strcat(many, "10.0.0.0/8,");
        assert_int_equal(net_allow_parse(many, &(struct net_allow){ .n = 0 }, NULL), -E2BIG);
        many[strlen(many) - strlen("10.0.0.0/8,")] = '\0';
        assert_int_equal(net_allow_parse(many, &(struct net_allow){ .n = 0 }, NULL), 0);
}

static void test_pool6(void **state)
{
        static const char *const bad[] = { "fd12::/48",  "fd12::/65", "2001:db8::/64", "fe80::/64",
                                           "10.0.0.0/8", "no",        "fd12::1/64" };
        struct ipv6_pool p = { .on = false }, canary = { true, { 7 } };
        struct err e = { 0 };

        (void) state;
        assert_int_equal(ipv6_pool_parse("none", "aaaaaaaa", &canary, &e), 0);
        assert_false(canary.on);
        assert_int_equal(ipv6_pool_parse("fd12:3456:789a:1::/64", "aaaaaaaa", &p, &e), 0);
        assert_true(p.on && p.prefix[0] == 0xfd && p.prefix[1] == 0x12 && p.prefix[7] == 1);
        for (size_t i = 0; i < NELEM(bad); i++) {
                e.msg[0] = '\0';
                if (ipv6_pool_parse(bad[i], "aaaaaaaa", &p, &e) != -EINVAL ||
                    !strstr(e.msg, "network pool6") || p.prefix[1] != 0x12)
                        fail_msg("%s: %s", bad[i], e.msg);
        }
}

static void test_slots(void **state)
{
        struct ipv6_pool p;
        uint8_t a[IPV6_BYTES];
        char text[IPV6_TEXT];

        (void) state;
        assert_int_equal(ipv6_pool_parse("fd12:3456:789a:1::/64", "x", &p, NULL), 0);
        for (uint32_t slot = 1; slot <= LIMIT_SLOTS; slot++) {
                ipv6_of_slot(&p, slot, a);
                assert_int_equal(ipv6_slot_of(&p, a), slot);
        }
        assert_string_equal(ipv6_format(a, text), "fd12:3456:789a:1::ffe");
        a[9] = 1;
        assert_int_equal(ipv6_slot_of(&p, a), 0);
        ipv6_service(&p, "abcd1234", a);
        assert_int_equal(ipv6_slot_of(&p, a), 0);
        assert_true(ipv6_is_service(a, "abcd1234"));
        assert_false(ipv6_is_service(a, "abcd1235"));
}

/* Neighbours in the space of ids have networks of their own, and service addresses. */
static void test_own_prefixes(void **state)
{
        enum { N = 36 * 36 };
        static uint8_t seen[2 * N][IPV6_BYTES];
        static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
        size_t n = 0;

        (void) state;
        for (size_t i = 0; i < N; i++) {
                char id[9];
                struct ipv6_pool p;

                (void) snprintf(id, sizeof id, "%c%caaaaa%c", digits[i / 36], digits[i % 36],
                                digits[i % 7]);
                assert_int_equal(ipv6_pool_parse("", id, &p, NULL), 0);
                assert_int_equal(p.prefix[0], 0xfd);
                memcpy(seen[n++], p.prefix, sizeof p.prefix);
                ipv6_service(&p, id, seen[n]);
                memset(seen[n++], 0, sizeof p.prefix);
        }
        for (size_t i = 0; i < n; i++)
                for (size_t k = 0; k < i; k++)
                        if (memcmp(seen[i], seen[k], sizeof seen[i]) == 0)
                                fail_msg("%zu and %zu are the same", i, k);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_allow),
                cmocka_unit_test(test_pool6),
                cmocka_unit_test(test_slots),
                cmocka_unit_test(test_own_prefixes),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
