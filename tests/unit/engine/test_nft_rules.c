/* The text of the firewall table: complete, in one transaction, and without touching elements. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "base/str.h"
#include "engine/net/nft.h"

static struct nft_config config(const char *table)
{
        return (struct nft_config){ .table = table,
                                    .pool = { 0x64600000, 16 },
                                    .pool6 = { true, { 0xfd, 0x12, 0x34, 0x56, 0x78, 0x9a, 0, 1 } },
                                    .service = 0x64601234,
                                    .service6 = { 0xfd, 0x12, 0x34, 0x56, 0x78, 0x9a, 0,
                                                  1, [15] = 9 },
                                    .connections = 100 };
}

static size_t count(const char *text, const char *what)
{
        size_t n = 0;

        for (const char *p = text; (p = strstr(p, what)); p += strlen(what))
                n++;
        return n;
}

/* Every chain that is declared is emptied exactly once and filled again exactly once. */
static void test_chains(void **state)
{
        const struct nft_config c = config("hvmm_abcd1234");
        AUTO(free) char *text = nft_rules(&c);
        size_t chains = 0;

        (void) state;
        assert_non_null(text);
        for (const char *p = text; (p = strstr(p, "\n  chain ")); p++) {
                const char *name = p + strlen("\n  chain ");
                if (strncmp(name, "layout_", strlen("layout_")) == 0)
                        continue; /* nothing but a name */
                AUTO(free)
                char *flush = str_fmt("flush chain inet hvmm_abcd1234 %.*s\n",
                                      (int) strcspn(name, " "), name);
                AUTO(free) char *head = str_fmt("\n  chain %.*s {", (int) strcspn(name, " "), name);

                assert_int_equal(count(text, flush), 1);
                assert_int_equal(count(text, head), 2);
                chains++;
        }
        assert_true(chains >= 20);
        assert_int_equal(count(text, "flush chain "), chains / 2);
}

static void test_leaves_others_alone(void **state)
{
        static const char *const never[] = { "flush ruleset", "flush table", "flush set",
                                             "flush map",     "delete ",     "destroy ",
                                             "policy drop",   "%",           "(null)" };
        const struct nft_config c = config("hvmm_abcd1234");
        AUTO(free) char *text = nft_rules(&c);

        (void) state;
        assert_non_null(text);
        for (size_t i = 0; i < NELEM(never); i++)
                if (strstr(text, never[i]))
                        fail_msg("'%s' in the rules", never[i]);
        assert_int_equal(count(text, "table inet "), count(text, "table inet hvmm_abcd1234 {"));
        assert_int_equal(count(text, "policy accept"), 9);
        /* what the host itself sends is judged for fetchers only, and where it is for clusters */
        assert_int_equal(
                count(text,
                      "  chain output {\n"
                      "    meta skuid & 0xffff0000 @fetchers jump from_fetcher\n"
                      "    ip daddr 100.96.0.0/16 oifname != \"lo\" oifname != \"hv*\" jump no_link\n"
                      "    ip6 daddr fd12:3456:789a:1::/64 oifname != \"lo\" oifname != \"hv*\" jump no_link\n"
                      "  }\n"),
                1);
}

/* A fetcher's way out: what is listed, then nothing but TCP, and to nothing private. */
static void test_fetchers(void **state)
{
        static const char *const closed[] = { "10.0.0.0/8",     "127.0.0.0/8",    "169.254.0.0/16",
                                              "172.16.0.0/12",  "192.168.0.0/16", "100.64.0.0/10",
                                              "64:ff9b:1::/48", "fc00::/7",       "fe80::/10" };
        const struct nft_config c = config("hvmm_x");
        AUTO(free) char *text = nft_rules(&c);
        const char *chain, *listed;

        (void) state;
        assert_non_null(text);
        chain = strstr(text, "  chain from_fetcher {\n");
        assert_non_null(chain);
        listed = strstr(chain, "@fetch_to6 accept");
        assert_non_null(listed);
        assert_true(listed < strstr(chain, "meta l4proto != tcp drop"));
        assert_true(listed < strstr(chain, "fib daddr type != unicast drop"));
        for (size_t i = 0; i < NELEM(closed); i++)
                if (!strstr(listed, closed[i]))
                        fail_msg("%s is open", closed[i]);
}

static void test_addresses(void **state)
{
        const struct nft_config c = config("hvmm_x");
        AUTO(free) char *text = nft_rules(&c);

        (void) state;
        assert_non_null(text);
        assert_int_equal(count(text, "ip daddr 100.96.0.0/16 goto to_peer"), 1);
        assert_int_equal(count(text, "ip6 daddr fd12:3456:789a:1::/64 goto to_peer"), 1);
        assert_int_equal(count(text, "ip daddr 100.96.18.52 "), 5);
        assert_int_equal(count(text, "ip6 daddr fd12:3456:789a:1::9 "), 1);
        assert_int_equal(count(text, "100.96."), 9);
        assert_int_equal(count(text, "$("), 0);
}

/* What is opened comes after what never is, and before what else is private. */
static void test_allowed(void **state)
{
        static const struct network nets[] = { { .bits = 16, .addr = { 10, 1 } },
                                               { .bits = 8, .addr = { 10 } },
                                               { .v6 = true, .bits = 32, .addr = { 0xfd, 1 } } };
        const struct nft_config none = config("hvmm_x");
        struct nft_config c = config("hvmm_x");
        AUTO(free) char *closed = nft_rules(&none), *text = NULL;
        const char *never, *a, *b, *private;

        (void) state;
        c.allow = nets;
        c.n_allow = NELEM(nets);
        text = nft_rules(&c);
        assert_non_null(text);
        assert_non_null(closed);
        never = strstr(text, "169.254.0.0/16");
        a = strstr(text, "ip daddr 10.1.0.0/16 accept");
        b = strstr(text, "ip daddr 10.0.0.0/8 accept");
        private = strstr(text, "{ 10.0.0.0/8, ");
        assert_non_null(never);
        assert_non_null(private);
        assert_true(never < a && a < b && b < private);
        assert_int_equal(count(text, "ip6 daddr fd01::/32 accept"), 1);
        assert_int_equal(count(closed, "[network] allow"), 0);
        assert_int_equal(count(closed, "10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16"),
                         1);
}

/* No limit is no rule; and where there is no IPv6, its rules name nobody. */
static void test_without(void **state)
{
        struct nft_config c = config("hvmm_x");
        AUTO(free) char *with = nft_rules(&c), *text = NULL;

        (void) state;
        c.connections = 0;
        c.pool6.on = false;
        text = nft_rules(&c);
        assert_non_null(with);
        assert_non_null(text);
        assert_int_equal(count(with, "ct count over 100"), 4);
        assert_int_equal(count(text, "ct count"), 0);
        assert_int_equal(count(text, "ip6 daddr :: "), 4);
        assert_int_equal(count(text, "fd12:"), 0);
}

/* A table of another version goes, and all that lives comes, in the same text. */
static void test_anew(void **state)
{
        static const struct egress list = {
                .limited = true,
                .n = 3,
                .net = { { .bits = 24, .addr = { 203, 0, 113 } },
                         { .v6 = true, .bits = 0 },
                         { .v6 = true, .bits = 47, .addr = { 0x20, 1, 0xd, 0xb8 } } }
        };
        static const struct published ports = { .n = 2, .at = { { 22, 20000 }, { 80, 20007 } } };
        const struct nft_cluster clusters[] = {
                { .link = "hv1",
                  .slot = 1,
                  .ports = &ports,
                  .mac = { 2, 'h', 'v', 1, 0, 1 },
                  .addr = 0x64600001,
                  .v6 = true,
                  .addr6 = { 0xfd, [15] = 1 },
                  .account = 7,
                  .egress = &list },
                { .link = "hv2", .slot = 2, .addr = 0x64600002 },
                { .link = "hv3",
                  .slot = 3,
                  .addr = 0x64600003,
                  .v6 = true,
                  .account = 8,
                  .ports = &ports,
                  .closed = true },
        };
        const struct dns_servers dns = { .addr = { 0x0a090807 }, .n = 1 };
        struct nft_config c = config("hvmm_x");
        AUTO(free) char *plain = nft_rules(&c), *text = NULL;
        static const char *const says[] = {
                "\nadd element inet hvmm_x links { \"hv1\", \"hv2\", \"hv3\" }\n",
                "\nadd element inet hvmm_x sources { \"hv1\" . 02:68:76:01:00:01 . 100.96.0.1, \"hv2\" . 00:00:00:00:00:00 . 100.96.0.2 }\n",
                "\nadd element inet hvmm_x sources6 { \"hv1\" . 02:68:76:01:00:01 . fd00::1 }\n",
                "\nadd element inet hvmm_x accounts { 100.96.0.1 : 7 }\n",
                "\nadd element inet hvmm_x accounts6 { fd00::1 : 7 }\n",
                "\nadd element inet hvmm_x members { 100.96.0.1 . 7 }\n",
                "\nadd element inet hvmm_x members6 { fd00::1 . 7 }\n",
                "\nadd element inet hvmm_x limited { \"hv1\" : jump egress_1 }\n",
                "\nadd element inet hvmm_x publishers { \"hv1\" }\n",
                "\nadd element inet hvmm_x published { tcp . 20000 : 100.96.0.1 . 22, tcp . 20007 : 100.96.0.1 . 80 }\n",
                "\nadd element inet hvmm_x published6 { tcp . 20000 : fd00::1 . 22, tcp . 20007 : fd00::1 . 80 }\n",
                "\nadd element inet hvmm_x resolvers { 10.9.8.7 }\n",
                "\nadd chain inet hvmm_x egress_1\n"
                "add rule inet hvmm_x egress_1 ip daddr 203.0.113.0/24 return\n"
                "add rule inet hvmm_x egress_1 meta nfproto ipv6 return\n"
                "add rule inet hvmm_x egress_1 ip6 daddr 2001:db8::/47 return\n"
                "add rule inet hvmm_x egress_1 drop\n",
        };

        (void) state;
        c.anew = true;
        c.clusters = clusters;
        c.n_clusters = NELEM(clusters);
        c.dns = &dns;
        text = nft_rules(&c);
        assert_non_null(plain);
        assert_non_null(text);
        assert_int_equal(strncmp(text, "delete table inet hvmm_x\n", 25), 0);
        assert_int_equal(strncmp(text + 25, plain, strlen(plain)), 0);
        for (size_t i = 0; i < NELEM(says); i++)
                if (count(text, says[i]) != 1)
                        fail_msg("not once: %s", says[i]);
        assert_int_equal(count(text, "add element "), 12);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_chains),   cmocka_unit_test(test_leaves_others_alone),
                cmocka_unit_test(test_fetchers), cmocka_unit_test(test_addresses),
                cmocka_unit_test(test_allowed),  cmocka_unit_test(test_without),
                cmocka_unit_test(test_anew),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
