/* config.c - see config.h.  Engine process, at start.
 *
 * What is filled into the template comes from us and from the operator's configuration, and the latter
 * was checked: no value can end a line or a word. */
#include "edge/config.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "edge/pages.h"

#define RATE_PERIOD_S 10U /* of the counters in the template */

extern const char edge_template[], edge_private[]; /* template.py */

static void put_pages(struct strbuf *b, const struct edge_config *c)
{
        (void) c;
        edge_pages_put(b);
}

static void put_errors_html(struct strbuf *b, const struct edge_config *c)
{
        (void) c;
        edge_pages_put_errors(b, true);
}

static void put_errors_json(struct strbuf *b, const struct edge_config *c)
{
        (void) c;
        edge_pages_put_errors(b, false);
}

static void put_address_is_busy(struct strbuf *b, const struct edge_config *c)
{
        (void) c;
        edge_pages_put_refusal(b, EDGE_PAGE_ADDRESS_BUSY, "address_is_busy");
}

static void put_cluster_is_busy(struct strbuf *b, const struct edge_config *c)
{
        (void) c;
        edge_pages_put_refusal(b, EDGE_PAGE_CLUSTER_BUSY, "cluster_is_busy");
}

/* What a counter has to be above; @of it, at most what a counter holds. */
static void put_limit(struct strbuf *b, uint32_t limit, uint32_t times)
{
        uint64_t n = (uint64_t) limit * times;

        strbuf_fmt(b, "%u", limit && n < UINT32_MAX ? (uint32_t) n : UINT32_MAX);
}

static void put_address_connections(struct strbuf *b, const struct edge_config *c)
{
        put_limit(b, c->address_connections, 1);
}

static void put_address_connections_most(struct strbuf *b, const struct edge_config *c)
{
        put_limit(b, c->address_connections, 2);
}

static void put_address_requests(struct strbuf *b, const struct edge_config *c)
{
        put_limit(b, c->address_requests, RATE_PERIOD_S);
}

static void put_address_requests_most(struct strbuf *b, const struct edge_config *c)
{
        put_limit(b, c->address_requests, 2 * RATE_PERIOD_S);
}

static void put_cluster_connections(struct strbuf *b, const struct edge_config *c)
{
        put_limit(b, c->cluster_connections, 1);
}

static void put_cluster_requests(struct strbuf *b, const struct edge_config *c)
{
        put_limit(b, c->cluster_requests, RATE_PERIOD_S);
}

static void put_instance(struct strbuf *b, const struct edge_config *c)
{
        strbuf_str(b, c->instance);
}

static void put_dir(struct strbuf *b, const struct edge_config *c)
{
        strbuf_str(b, c->dir);
}

static void put_api_domain(struct strbuf *b, const struct edge_config *c)
{
        strbuf_str(b, c->api_domain);
}

static void put_api_address(struct strbuf *b, const struct edge_config *c)
{
        strbuf_str(b, c->api_address);
}

static void put_connections(struct strbuf *b, const struct edge_config *c)
{
        strbuf_fmt(b, "%u", c->connections);
}

/* HAProxy makes room for two sockets for each. */
static void put_maxconn(struct strbuf *b, const struct edge_config *c)
{
        strbuf_fmt(b, "%u", c->connections * (EDGE_SOCKETS_PER_CLIENT / 2));
}

static void put_descriptors(struct strbuf *b, const struct edge_config *c)
{
        strbuf_fmt(b, "%u", c->descriptors);
}

static void put_threads(struct strbuf *b, const struct edge_config *c)
{
        strbuf_fmt(b, "%u", c->threads);
}

static void put_listen_fd(struct strbuf *b, const struct edge_config *c)
{
        (void) c;
        strbuf_fmt(b, "%d", EDGE_LISTEN_FD);
}

static void put_admin_fd(struct strbuf *b, const struct edge_config *c)
{
        (void) c;
        strbuf_fmt(b, "%d", EDGE_ADMIN_FD);
}

static void put_log_format(struct strbuf *b, const struct edge_config *c)
{
        strbuf_str(b, c->log_levels ? "short" : "raw");
}

/* Anybody can make it say something: failing requests are no less in number than others.  Without a
 * log a format of one makes HAProxy complain. */
static void put_log(struct strbuf *b, const struct edge_config *c)
{
        strbuf_str(b, c->log_requests ? "" : "# ");
}

static void put_is_not_let_in(struct strbuf *b, const struct edge_config *c)
{
        (void) c;
        edge_pages_put_refusal(b, EDGE_PAGE_PRIVATE, "!is_let_in");
}

static void put_is_not_allowed(struct strbuf *b, const struct edge_config *c)
{
        (void) c;
        edge_pages_put_refusal(b, EDGE_PAGE_NOT_ALLOWED, "is_listed !is_allowed");
}

static void put_is_of_other_page(struct strbuf *b, const struct edge_config *c)
{
        (void) c;
        edge_pages_put_refusal(b, EDGE_PAGE_OTHER_PAGE, "is_of_other_page");
}

static void fill(struct strbuf *b, const char *text, const struct edge_config *c);

/* The rules of private ports stand in more than one backend. */
static void put_private(struct strbuf *b, const struct edge_config *c)
{
        fill(b, edge_private, c);
}

static const struct {
        const char *name;
        void (*put)(struct strbuf *b, const struct edge_config *c);
} fillings[] = {
        { "instance)", put_instance },
        { "dir)", put_dir },
        { "api_domain)", put_api_domain },
        { "api_address)", put_api_address },
        { "connections)", put_connections },
        { "maxconn)", put_maxconn },
        { "descriptors)", put_descriptors },
        { "threads)", put_threads },
        { "listen_fd)", put_listen_fd },
        { "admin_fd)", put_admin_fd },
        { "log_format)", put_log_format },
        { "log)", put_log },
        { "pages)", put_pages },
        { "errors_html)", put_errors_html },
        { "errors_json)", put_errors_json },
        { "address_is_busy)", put_address_is_busy },
        { "cluster_is_busy)", put_cluster_is_busy },
        { "private)", put_private },
        { "is_not_let_in)", put_is_not_let_in },
        { "is_not_allowed)", put_is_not_allowed },
        { "is_of_other_page)", put_is_of_other_page },
        { "address_connections)", put_address_connections },
        { "address_connections_most)", put_address_connections_most },
        { "address_requests)", put_address_requests },
        { "address_requests_most)", put_address_requests_most },
        { "cluster_connections)", put_cluster_connections },
        { "cluster_requests)", put_cluster_requests },
};

static void fill(struct strbuf *b, const char *text, const struct edge_config *c)
{
        const char *at = text, *next;

        while ((next = strstr(at, "$("))) {
                strbuf_add(b, at, (size_t) (next - at));
                at = NULL;
                for (size_t i = 0; !at && i < NELEM(fillings); i++) {
                        at = str_after(next + 2, fillings[i].name);
                        if (at)
                                fillings[i].put(b, c);
                }
                assert(at);
        }
        strbuf_str(b, at);
}

char *edge_config_text(const struct edge_config *c)
{
        struct strbuf b = { 0 };

        fill(&b, edge_template, c);
        return strbuf_take(&b);
}

void edge_name(char ret[static EDGE_NAME_MAX], const char *cluster, uint32_t port,
               const char *tenant_domain)
{
        (void) snprintf(ret, EDGE_NAME_MAX, "%s-%u.proxy.%s", cluster, port, tenant_domain);
}
