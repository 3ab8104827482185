/* config.h - the configuration of HAProxy, from the one template data/edge/haproxy.cfg.in.  Pure. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* Descriptors that HAProxy inherits under these numbers. */
#define EDGE_LISTEN_FD 3
#define EDGE_ADMIN_FD  4

/* Sockets for each client: its own, and those to clusters, of which HTTP/2 may need several at once. */
#define EDGE_SOCKETS_PER_CLIENT 4U

#define EDGE_ROUTES_FILE "routes" /* below dir: the map of host names */
#define EDGE_KEYS_FILE   "keys"   /* the map of API keys */
#define EDGE_TENANT_FILE "tenant.pem"
#define EDGE_API_FILE    "api.pem"

struct edge_config {
        const char *instance;
        const char *dir;                        /* absolute; what HAProxy reads */
        const char *tenant_domain, *api_domain; /* edge_domains_check() has passed them */
        const char *api_address;                /* ADDRESS:PORT of tensorone-api */
        uint32_t connections;                   /* of clients at once */
        uint32_t descriptors;                   /* that it may have open */
        uint32_t threads;
        /* each 0: no limit; those for a second hold over any ten */
        uint32_t address_connections, address_requests; /* open at once, per second */
        uint32_t cluster_connections, cluster_requests;
        bool log_requests;
        bool log_levels; /* "<N>" before each line, for journald */
};

/* Heap; NULL: out of memory. */
char *edge_config_text(const struct edge_config *c);

/* "<cluster>-<port>.proxy.<tenant domain>", at most so many bytes with the NUL. */
#define EDGE_NAME_MAX 256U
void edge_name(char ret[static EDGE_NAME_MAX], const char *cluster, uint32_t port,
               const char *tenant_domain);
