/* domains.c - see domains.h.  Engine process, at start. */
#include "edge/domains.h"

#include <errno.h>
#include <libpsl.h>
#include <stdbool.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

#define DOMAIN_MAX 200U /* leaves room for a cluster's id, its port and "proxy" */
#define LABEL_MAX  63U

/* Labels of a-z, 0-9 and "-" between dots. */
static bool is_host_name(const char *s)
{
        static const char plain[] = "abcdefghijklmnopqrstuvwxyz0123456789";

        if (strlen(s) > DOMAIN_MAX)
                return false;
        for (;;) {
                size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-");

                if (n == 0 || n > LABEL_MAX || !strchr(plain, s[0]) || !strchr(plain, s[n - 1]))
                        return false;
                if (!s[n])
                        return strspn(s, "0123456789") < n; /* no address */
                if (s[n] != '.')
                        return false;
                s += n + 1;
        }
}

static int check_name(const char *key, const char *value, struct err *e)
{
        if (is_host_name(value))
                return 0;
        return err_set(
                e, -EINVAL,
                "[edge] %s: '%.100s' is no domain: lower-case letters, digits and hyphens in labels with dots between them, at most %u characters",
                key, value, DOMAIN_MAX);
}

static inline void psl_free_cleanup(psl_ctx_t **psl)
{
        psl_free(*psl);
}

int edge_domains_check(const char *tenant_domain, const char *api_domain, struct err *e)
{
        AUTO(psl_free) psl_ctx_t *psl = psl_latest(NULL); /* the library's own, or a newer file */
        AUTO(free) char *tenant = str_fmt("x.proxy.%s", tenant_domain);
        const char *of_tenant, *of_api;
        int r = check_name("tenant_domain", tenant_domain, e);

        if (r >= 0)
                r = check_name("api_domain", api_domain, e);
        if (r < 0)
                return r;
        if (!psl || !tenant)
                return err_set(
                        e, -ENOENT,
                        "the public suffix list, by which [edge] domains are compared, is not there: install publicsuffix");
        of_tenant = psl_registrable_domain(psl, tenant);
        of_api = psl_registrable_domain(psl, api_domain);
        if (!of_api)
                return err_set(
                        e, -EINVAL,
                        "[edge] api_domain: '%s' is a domain that others register names in; name one below it",
                        api_domain);
        if (of_tenant && str_eq(of_tenant, of_api))
                return err_set(
                        e, -EINVAL,
                        "[edge] api_domain: '%s' shares %s with tenant_domain, so tenants' pages could set cookies for the API; take a domain that is registered apart",
                        api_domain, of_api);
        return 0;
}
