/* test_config.c - src/edge/config.c: the template with every place filled, and which domains go together. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"
#include "edge/config.h"

static const struct edge_config sample = {
        .instance = "abcd1234",
        .dir = "/run/hypervisor-vmm/abcd1234/edge",
        .tenant_domain = "tenants.example",
        .api_domain = "api.cloud.example",
        .api_address = "127.0.0.1:8080",
        .connections = 1234,
        .descriptors = 5192,
        .threads = 3,
};

static void test_everything_is_filled_in(void **state)
{
        static const char *const lines[] = {
                "    stats socket fd@4 level admin\n",
                "    bind fd@3 ssl crt /run/hypervisor-vmm/abcd1234/edge/tenant.pem crt /run/hypervisor-vmm/abcd1234/edge/api.pem alpn h2,http/1.1\n",
                "    nbthread 3\n",
                "    maxconn 1234\n",
                "    ulimit-n 5192\n",
                "    log stderr format raw daemon\n",
                "    option dontlog-normal\n",
                "    acl is_api var(txn.host) -m str api.cloud.example\n",
                "    server api 127.0.0.1:8080\n",
        };
        char *text = edge_config_text(&sample);

        (void) state;
        assert_non_null(text);
        assert_null(strstr(text, "$("));
        for (size_t i = 0; i < NELEM(lines); i++)
                if (!strstr(text, lines[i]))
                        fail_msg("not in it: %s", lines[i]);
        free(text);
}

static void test_logs(void **state)
{
        struct edge_config c = sample;
        char *text;

        (void) state;
        c.log_requests = c.log_levels = true;
        text = edge_config_text(&c);
        assert_non_null(text);
        assert_null(strstr(text, "dontlog-normal"));
        assert_non_null(strstr(text, "log stderr format short"));
        /* nothing that a query or a header would be told by */
        assert_null(strstr(text, "%HU"));
        assert_null(strstr(text, "%HQ"));
        assert_null(strstr(text, "%r "));
        assert_null(strstr(text, "capture"));
        free(text);
}

static void test_names(void **state)
{
        char name[EDGE_NAME_MAX];

        (void) state;
        edge_name(name, "abcdefghijklmn", 65535, "tenants.example");
        assert_string_equal(name, "abcdefghijklmn-65535.proxy.tenants.example");
}

static void test_domains(void **state)
{
        static const struct {
                const char *tenant, *api, *says; /* NULL: they go together */
        } t[] = {
                { "localhost", "api.localhost", NULL },
                { "example.com", "example.org", NULL },
                { "example.com", "api.example.org", NULL },
                { "tenants.example.co.uk", "api.other.co.uk", NULL },
                { "a.github.io", "api.b.github.io",
                  NULL }, /* whoever has a name there is alone with it */
                { "example.com", "api.example.com", "shares example.com" },
                { "example.com", "example.com", "shares example.com" },
                { "example.com", "proxy.example.com", "shares example.com" },
                { "tenants.example.co.uk", "api.example.co.uk", "shares example.co.uk" },
                { "localhost", "x.proxy.localhost", "shares proxy.localhost" },
                { "localhost", "localhost", "others register names in" },
                { "example.com", "co.uk", "others register names in" },
                { "", "example.org", "tenant_domain: '' is no domain" },
                { "example.com", "Example.org", "api_domain: 'Example.org' is no domain" },
                { "exa mple.com", "example.org", "is no domain" },
                { "example.com\nbind", "example.org", "is no domain" },
                { ".example.com", "example.org", "is no domain" },
                { "example.com.", "example.org", "is no domain" },
                { "-a.example.com", "example.org", "is no domain" },
                { "a-.example.com", "example.org", "is no domain" },
                { "127.0.0.1", "example.org", "is no domain" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct err e = { 0 };
                int r = edge_domains_check(t[i].tenant, t[i].api, &e);

                if (t[i].says ? r != -EINVAL || !strstr(e.msg, t[i].says) : r != 0)
                        fail_msg("row %zu '%s' '%s': r=%d %s", i, t[i].tenant, t[i].api, r, e.msg);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_everything_is_filled_in),
                cmocka_unit_test(test_logs),
                cmocka_unit_test(test_names),
                cmocka_unit_test(test_domains),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
