/* test_names.c - who is told about which name. */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/jsonx.h"
#include "base/mem.h"
#include "dns/names.h"

static int say(struct names *n, const char *text)
{
        AUTO(json_put) json_t *msg = json_loads(text, 0, NULL);

        assert_non_null(msg);
        return names_message(n, msg, NULL);
}

static struct names *some(void)
{
        static const char *const lines[] = {
                ("{'type':'settings','service':'100.96.255.1','pool':'100.96.0.0','pool_bits':16,"
                 "'servers':['192.0.2.1','2001:db8::1']}"),
                "{'type':'name','address':'100.96.0.1','account':'a','cluster':'one'}",
                "{'type':'name','address':'100.96.0.2','address6':'fd00::2','account':'a','cluster':'two'}",
                "{'type':'name','address':'100.96.0.3','account':'b','cluster':'three'}",
        };
        struct names *n = names_new();

        assert_non_null(n);
        for (size_t i = 0; i < NELEM(lines); i++) {
                char text[512];
                size_t k = 0;

                for (const char *p = lines[i]; *p; p++)
                        text[k++] = *p == '\'' ? '"' : *p;
                text[k] = '\0';
                assert_int_equal(say(n, text), 0);
        }
        return n;
}

static void test_verdicts(void **state)
{
        static const struct {
                const char *name;
                enum names_verdict v;
                const char *cluster;
        } t[] = {
                { "one.internal", NAMES_CLUSTER, "one" },
                { "two.internal", NAMES_CLUSTER, "two" },
                { "three.internal", NAMES_ABSENT, NULL },
                { "nobody.internal", NAMES_ABSENT, NULL },
                { "x.one.internal", NAMES_ABSENT, NULL },
                { "internal", NAMES_EMPTY, NULL },
                { "api.internal", NAMES_SERVICE, NULL },
                { "example.org", NAMES_FORWARD, NULL },
                { "one.internal.example.org", NAMES_FORWARD, NULL },
                { "myinternal", NAMES_FORWARD, NULL },
                { "", NAMES_FORWARD, NULL },
                { "2.0.96.100.in-addr.arpa", NAMES_CLUSTER, "two" },
                { "3.0.96.100.in-addr.arpa", NAMES_ABSENT, NULL },
                { "9.0.96.100.in-addr.arpa", NAMES_ABSENT, NULL },
                { "1.255.96.100.in-addr.arpa", NAMES_SERVICE, NULL },
                { "8.8.8.8.in-addr.arpa", NAMES_FORWARD, NULL },
        };
        AUTO(names_free) struct names *n = some();
        const struct name *one = names_by_address(n, 0x64600001);

        (void) state;
        assert_non_null(one);
        for (size_t i = 0; i < NELEM(t); i++) {
                const struct name *who = NULL;

                assert_int_equal(names_judge(n, one, t[i].name, &who), t[i].v);
                if (t[i].cluster)
                        assert_string_equal(who->cluster, t[i].cluster);
                else
                        assert_null(who);
        }
}

static void test_coming_and_going(void **state)
{
        AUTO(names_free) struct names *n = some();

        (void) state;
        assert_true(names_by_cluster(n, "two")->has_address6);
        assert_int_equal(names_server(n, 0)->ss_family, AF_INET);
        assert_int_equal(names_server(n, 1)->ss_family, AF_INET6);
        assert_null(names_server(n, 2));
        /* an address that has another cluster now */
        assert_int_equal(say(n, "{\"type\":\"name\",\"address\":\"100.96.0.2\",\"account\":\"b\","
                                "\"cluster\":\"four\"}"),
                         0);
        assert_null(names_by_cluster(n, "two"));
        assert_string_equal(names_by_cluster(n, "four")->account->id, "b");
        /* a cluster that has another address now, and then the old one is forgotten */
        assert_int_equal(say(n, "{\"type\":\"name\",\"address\":\"100.96.0.9\",\"account\":\"b\","
                                "\"cluster\":\"four\"}"),
                         0);
        assert_int_equal(say(n, "{\"type\":\"forget\",\"address\":\"100.96.0.2\"}"), 0);
        assert_int_equal(names_by_cluster(n, "four")->address, 0x64600009);
        assert_null(names_by_address(n, 0x64600002));
        assert_int_equal(say(n, "{\"type\":\"forget\",\"address\":\"100.96.0.2\"}"), 0);
}

static void test_bad_messages(void **state)
{
        static const char *const bad[] = {
                "{\"type\":\"name\",\"address\":\"100.96.0\",\"account\":\"a\",\"cluster\":\"x\"}",
                "{\"type\":\"name\",\"address\":\"100.96.0.9\",\"account\":\"\",\"cluster\":\"x\"}",
                "{\"type\":\"name\",\"address\":\"100.96.0.9\",\"account\":\"a\",\"cluster\":\"X.y\"}",
                "{\"type\":\"forget\"}",
                "{\"type\":\"settings\",\"service\":\"100.96.255.1\"}",
                "{\"type\":\"settings\",\"service\":\"100.96.255.1\",\"pool\":\"100.96.0.0\","
                "\"pool_bits\":33}",
                "{\"type\":\"settings\",\"service\":\"100.96.255.1\",\"pool\":\"100.96.0.0\","
                "\"pool_bits\":16,\"servers\":[\"ns.example.org\"]}",
                "{\"type\":\"settings\",\"service\":\"100.96.255.1\",\"pool\":\"100.96.0.0\","
                "\"pool_bits\":16,\"servers\":[\"192.0.2.1\",\"192.0.2.1\",\"192.0.2.1\",\"192.0.2.1\"]}",
        };
        AUTO(names_free) struct names *n = some();

        (void) state;
        for (size_t i = 0; i < NELEM(bad); i++)
                assert_int_equal(say(n, bad[i]), -EPROTO);
        assert_int_equal(say(n, "{\"type\":\"news\"}"), 0);
        assert_non_null(names_server(n, 1));
}

/* What is under way keeps the account that it counts for, also when all its clusters have gone and come. */
static void test_accounts(void **state)
{
        AUTO(names_free) struct names *n = some();
        struct account *a = names_by_cluster(n, "one")->account;

        (void) state;
        assert_ptr_equal(names_by_cluster(n, "two")->account, a);
        assert_ptr_not_equal(names_by_cluster(n, "three")->account, a);
        assert_int_equal(a->users, 2);
        names_account_hold(a)->queries = 7;
        for (int i = 1; i <= 2; i++) {
                char text[64];

                (void) snprintf(text, sizeof text,
                                "{\"type\":\"forget\",\"address\":\"100.96.0.%d\"}", i);
                assert_int_equal(say(n, text), 0);
        }
        assert_int_equal(a->users, 1);
        assert_int_equal(say(n, "{\"type\":\"name\",\"address\":\"100.96.0.1\",\"account\":\"a\","
                                "\"cluster\":\"one\"}"),
                         0);
        assert_ptr_equal(names_by_cluster(n, "one")->account, a);
        names_account_leave(n, a);
        assert_int_equal(a->queries, 7);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_verdicts),
                cmocka_unit_test(test_coming_and_going),
                cmocka_unit_test(test_accounts),
                cmocka_unit_test(test_bad_messages),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
