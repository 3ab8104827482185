/* test_addr.c - which addresses are refused, and what a configuration entry means. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

#include "base/str.h"
#include "fetch/addr.h"

static const char *judge(const char *text)
{
        struct sockaddr_in in = { .sin_family = AF_INET };
        struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };

        if (inet_pton(AF_INET, text, &in.sin_addr) == 1)
                return addr_refusal((struct sockaddr *) &in, sizeof in);
        assert_int_equal(inet_pton(AF_INET6, text, &in6.sin6_addr), 1);
        return addr_refusal((struct sockaddr *) &in6, sizeof in6);
}

static void test_refusal(void **state)
{
        static const struct {
                const char *addr, *why; /* NULL: fine */
        } t[] = {
                { "1.1.1.1", NULL },
                { "9.255.255.255", NULL },
                { "11.0.0.0", NULL },
                { "0.0.0.0", "unspecified" },
                { "0.1.2.3", "unspecified" },
                { "10.0.0.0", "private" },
                { "10.255.255.255", "private" },
                { "100.63.255.255", NULL },
                { "100.64.0.0", "private" },
                { "100.127.255.255", "private" },
                { "100.128.0.0", NULL },
                { "126.255.255.255", NULL },
                { "127.0.0.1", "loopback" },
                { "127.255.255.254", "loopback" },
                { "128.0.0.1", NULL },
                { "169.253.255.255", NULL },
                { "169.254.169.254", "link-local" },
                { "172.15.255.255", NULL },
                { "172.16.0.1", "private" },
                { "172.31.255.255", "private" },
                { "172.32.0.0", NULL },
                { "192.0.0.1", "reserved" },
                { "192.0.2.5", "reserved" },
                { "192.167.255.255", NULL },
                { "192.168.1.1", "private" },
                { "192.169.0.0", NULL },
                { "198.17.255.255", NULL },
                { "198.18.0.1", "reserved" },
                { "198.19.255.255", "reserved" },
                { "198.20.0.0", NULL },
                { "223.255.255.255", NULL },
                { "224.0.0.1", "multicast" },
                { "239.255.255.255", "multicast" },
                { "240.0.0.1", "reserved" },
                { "255.255.255.255", "reserved" },
                { "2606:4700::1111", NULL },
                { "2a00:1450::1", NULL },
                { "::", "unspecified" },
                { "::1", "loopback" },
                { "::2", "unspecified" },
                { "::7f00:1", "unspecified" },
                { "::ffff:127.0.0.1", "loopback" },
                { "::ffff:10.1.1.1", "private" },
                { "::ffff:8.8.8.8", NULL },
                { "64:ff9b::7f00:1", "loopback" },
                { "64:ff9b::808:808", NULL },
                { "64:ff9b:1::1", "private" },
                { "2002:7f00:1::", "loopback" },
                { "2002:a9fe:a9fe::1", "link-local" },
                { "2002:808:808::", NULL },
                { "2001:0:808:808::80ff:fffe", "loopback" }, /* Teredo of 127.0.0.1 */
                { "2001:0:808:808::f7f7:f7f7", NULL },       /* of 8.8.8.8 */
                { "2001:db8::1", "reserved" },
                { "100::1", "reserved" },
                { "fbff::1", NULL },
                { "fc00::1", "private" },
                { "fdff::1", "private" },
                { "fe7f::1", NULL },
                { "fe80::1", "link-local" },
                { "febf::1", "link-local" },
                { "fec0::1", "private" },
                { "ff02::1", "multicast" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++)
                if (!str_eq(judge(t[i].addr), t[i].why))
                        fail_msg("%s: %s, not %s", t[i].addr, judge(t[i].addr), t[i].why);
}

static void test_other_families(void **state)
{
        struct sockaddr_un un = { .sun_family = AF_UNIX };
        struct sockaddr_in in = { .sin_family = AF_INET };

        (void) state;
        assert_non_null(addr_refusal((struct sockaddr *) &un, sizeof un));
        assert_non_null(addr_refusal((struct sockaddr *) &in, sizeof in - 1)); /* cut short */
}

static void test_listed(void **state)
{
        static const struct {
                const char *entry, *host;
                unsigned port, preset;
                bool yes;
        } t[] = {
                { "127.0.0.1:5000", "127.0.0.1", 5000, 443, true },
                { "127.0.0.1:5000", "127.0.0.1", 5001, 443, false },
                { "127.0.0.1", "127.0.0.1", 443, 443, true },
                { "127.0.0.1", "127.0.0.1", 5000, 443, false },
                { "127.0.0.1", "127.0.0.1", 80, 80, true },
                { "reg.lan", "REG.lan", 443, 443, true },
                { "reg.lan", "reg.lan.evil", 443, 443, false },
                { "reg.lan", "xreg.lan", 443, 443, false },
                { "[::1]:5000", "::1", 5000, 443, true },
                { "[::1]", "::1", 443, 443, true },
                { "::1", "::1", 443, 443, true },
                { "[::1]:5000", "::1", 443, 443, false },
                { "", "", 443, 443, true },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++)
                if (addr_listed(t[i].entry, t[i].host, t[i].port, t[i].preset) != t[i].yes)
                        fail_msg("row %zu: %s for %s:%u", i, t[i].entry, t[i].host, t[i].port);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_refusal),
                cmocka_unit_test(test_other_families),
                cmocka_unit_test(test_listed),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
