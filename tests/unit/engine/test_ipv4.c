/* Address arithmetic of cluster networks. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "base/mem.h"
#include "engine/net/ipv4.h"
#include "model/limits.h"

static void test_pool_parse(void **state)
{
        static const struct {
                const char *in;
                int r;
                uint32_t base, bits;
                const char *says;
        } t[] = {
                { "100.96.0.0/16", 0, 0x64600000, 16, NULL },
                { "10.0.0.0/8", 0, 0x0A000000, 8, NULL },
                { "172.20.32.0/19", 0, 0xAC142000, 19, NULL },
                { "", -EINVAL, 0, 0, "is not an IPv4 range" },
                { NULL, -EINVAL, 0, 0, "is not an IPv4 range" },
                { "100.96.0.0", -EINVAL, 0, 0, "is not an IPv4 range" },
                { "100.96.0.0/", -EINVAL, 0, 0, "is not an IPv4 range" },
                { "100.96.0.0/16 ", -EINVAL, 0, 0, "is not an IPv4 range" },
                { "100.96.0.0/-1", -EINVAL, 0, 0, "is not an IPv4 range" },
                { "100.96.0/16", -EINVAL, 0, 0, "is not an IPv4 range" },
                { "100.96.0.0.0.0.0.0.0.0.0.0/16", -EINVAL, 0, 0, "is not an IPv4 range" },
                { "fd00::/16", -EINVAL, 0, 0, "is not an IPv4 range" },
                { "100.96.0.0/20", -ERANGE, 0, 0, "between a /8 and a /19" },
                { "64.0.0.0/7", -ERANGE, 0, 0, "between a /8 and a /19" },
                { "100.96.0.7/16", -EINVAL, 0, 0, "does not start at its base, 100.96.0.0/16" },
                { "127.0.0.0/8", -EINVAL, 0, 0, "loopback" },
                { "169.254.0.0/16", -EINVAL, 0, 0, "link-local" },
                { "169.254.32.0/19", -EINVAL, 0, 0, "link-local" },
                { "169.0.0.0/8", -EINVAL, 0, 0, "link-local" },
                { "224.0.0.0/8", -EINVAL, 0, 0, "multicast" },
                { "255.255.0.0/16", -EINVAL, 0, 0, "multicast" },
                { "0.0.0.0/8", -EINVAL, 0, 0, "this network" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct ipv4_pool got = { 7777, 77 };
                struct err e = { 0 };
                int r = ipv4_pool_parse(t[i].in, &got, &e);
                uint32_t base = r < 0 ? 7777 : t[i].base, bits = r < 0 ? 77 : t[i].bits;

                if (r != t[i].r || got.base != base || got.bits != bits)
                        fail_msg("row %zu: r=%d %x/%u", i, r, got.base, got.bits);
                if (t[i].says && (!strstr(e.msg, t[i].says) || !strstr(e.msg, "network pool")))
                        fail_msg("row %zu: %s", i, e.msg);
        }
}

static void test_text(void **state)
{
        static const struct {
                const char *in;
                int r;
                uint32_t addr;
        } t[] = {
                { "0.0.0.0", 0, 0 },
                { "255.255.255.255", 0, UINT32_MAX },
                { "100.96.0.1", 0, 0x64600001 },
                { "1.2.3", -EINVAL, 0 },
                { "1.2.3.4.5", -EINVAL, 0 },
                { "1.2.3.256", -EINVAL, 0 },
                { " 1.2.3.4", -EINVAL, 0 },
                { "::1", -EINVAL, 0 },
                { "", -EINVAL, 0 },
                { "0x1.2.3.4", -EINVAL, 0 },
        };
        char text[IPV4_TEXT];

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                uint32_t got = 7777;

                assert_int_equal(ipv4_parse(t[i].in, &got), t[i].r);
                assert_int_equal(got, t[i].r < 0 ? 7777 : t[i].addr);
                if (t[i].r == 0)
                        assert_string_equal(ipv4_format(got, text), t[i].in);
        }
}

static void test_within(void **state)
{
        const struct ipv4_pool pool = { 0x64600000, 16 };

        (void) state;
        assert_true(ipv4_within(0x64600001, 0x64600000, 16));
        assert_false(ipv4_within(0x64610000, 0x64600000, 16));
        assert_true(ipv4_within(0xDEADBEEF, 0, 0));
        assert_false(ipv4_within(1, 2, 32));
        assert_true(ipv4_pool_overlaps(&pool, 0x64400000, 10)); /* around it */
        assert_true(ipv4_pool_overlaps(&pool, 0x6460FF00, 24)); /* inside it */
        assert_false(ipv4_pool_overlaps(&pool, 0x64610000, 24));
        assert_true(ipv4_pool_overlaps(&pool, 0, 0));
}

static void test_slots(void **state)
{
        const struct ipv4_pool pool = { 0x64600000, 19 };

        (void) state;
        for (uint32_t slot = 1; slot <= LIMIT_SLOTS; slot++)
                assert_int_equal(ipv4_slot_of(&pool, ipv4_of_slot(&pool, slot)), slot);
        assert_int_equal(ipv4_slot_of(&pool, pool.base), 0);
        assert_int_equal(ipv4_slot_of(&pool, pool.base - 1), 0);
        assert_int_equal(ipv4_slot_of(&pool, pool.base + LIMIT_SLOTS + 1), 0);
        assert_int_equal(ipv4_slot_of(&pool, 0), 0);
        assert_int_equal(ipv4_slot_of(&pool, UINT32_MAX), 0);
}

/* Service addresses: the same again for the same id, never a slot's, never the broadcast address,
 * and every attempt another one. */
static void test_service(void **state)
{
        static const uint32_t bits[] = { 8, 16, 19 };

        (void) state;
        for (size_t i = 0; i < NELEM(bits); i++) {
                const struct ipv4_pool pool = { 0x0A000000, bits[i] };

                assert_int_equal(ipv4_service(&pool, "abcd1234", 0),
                                 ipv4_service(&pool, "abcd1234", 0));
                for (uint32_t k = 0; k < 5000; k++) {
                        uint32_t a = ipv4_service(&pool, "abcd1234", k);

                        assert_true(ipv4_within(a, pool.base, pool.bits));
                        assert_true(a > pool.base + LIMIT_SLOTS + 1);
                        assert_false(a == (pool.base | UINT32_MAX >> pool.bits));
                        assert_int_equal(ipv4_slot_of(&pool, a), 0);
                        if (k == 1)
                                assert_false(a == ipv4_service(&pool, "abcd1234", 0));
                }
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_pool_parse), cmocka_unit_test(test_text),
                cmocka_unit_test(test_within),     cmocka_unit_test(test_slots),
                cmocka_unit_test(test_service),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
