/* test_domains.c - src/edge/domains.c: which go together. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "edge/domains.h"

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
        const struct CMUnitTest tests[] = { cmocka_unit_test(test_domains) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
