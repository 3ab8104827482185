/* test_config.c - src/edge/config.c: the template with every place filled. */
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
        .address_connections = 50,
        .address_requests = 7,
        .cluster_connections = 60,
};

static void test_everything_is_filled_in(void **state)
{
        static const char *const lines[] = {
                "    stats socket fd@4 level admin\n",
                "    bind fd@3 ssl crt /run/hypervisor-vmm/abcd1234/edge/tenant.pem crt /run/hypervisor-vmm/abcd1234/edge/api.pem alpn h2,http/1.1\n",
                "    nbthread 3\n",
                "    maxconn 2468\n",
                "frontend edge\n    maxconn 1234\n",
                "    ulimit-n 5192\n",
                "    log stderr format raw daemon\n",
                "    acl is_api var(txn.host) -m str api.cloud.example\n",
                "    server api 127.0.0.1:8080\n",
                "    tcp-request connection reject if { sc2_conn_cur gt 100 } || { sc2_conn_rate gt 140 }\n",
                "    acl address_is_busy sc1_http_req_rate gt 70\n",
                "    acl address_is_busy sc1_conn_cur gt 50\n",
                "    acl cluster_is_busy sc0_conn_cur gt 60\n",
                "    acl cluster_is_busy sc0_http_req_rate gt 4294967295\n", /* 0: no limit */
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
        assert_non_null(strstr(text, "    log global\n"));
        assert_non_null(strstr(text, "    log-format \""));
        assert_non_null(strstr(text, "log stderr format short"));
        /* nothing that a query or a header would be told by */
        assert_null(strstr(text, "%HU"));
        assert_null(strstr(text, "%HQ"));
        assert_null(strstr(text, "%r "));
        assert_null(strstr(text, "capture"));
        free(text);
        /* a format without a log is something that HAProxy warns of */
        c.log_requests = false;
        text = edge_config_text(&c);
        assert_non_null(text);
        assert_null(strstr(text, "    log global\n"));
        assert_null(strstr(text, "    log-format"));
        free(text);
}

static void test_names(void **state)
{
        char name[EDGE_NAME_MAX];

        (void) state;
        edge_name(name, "abcdefghijklmn", 65535, "tenants.example");
        assert_string_equal(name, "abcdefghijklmn-65535.proxy.tenants.example");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_everything_is_filled_in),
                cmocka_unit_test(test_logs),
                cmocka_unit_test(test_names),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
