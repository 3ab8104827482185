/* caller.c - whose request it is: the key that comes with it, and from where.  tensorone-api, loop
 * thread.  What always holds: no key is logged. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>

#include "base/str.h"
#include "control/rest/http_priv.h"
#include "control/rest/tickets.h"

static bool from_cluster(const struct http_request *q, const struct caller *who)
{
        const union MHD_ConnectionInfo *info =
                MHD_get_connection_info(q->conn, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
        const struct cluster *c = plane_cluster(q->plane, who, who->cluster);
        const struct sockaddr *sa = info ? info->client_addr : NULL;
        struct sockaddr_in in;
        char text[INET_ADDRSTRLEN];

        if (!c || !c->address || !sa || sa->sa_family != AF_INET)
                return false;
        memcpy(&in, sa, sizeof in);
        return inet_ntop(AF_INET, &in.sin_addr, text, sizeof text) && str_eq(text, c->address);
}

/* What the edge says, which comes from this host and says one address.  No caller from elsewhere is believed. */
static bool forwarded_for(const struct http_request *q, char ret[static INET6_ADDRSTRLEN])
{
        const char *said = http_header(q, "X-Forwarded-For");
        uint8_t addr[sizeof(struct in6_addr)];
        int family = said && strchr(said, ':') ? AF_INET6 : AF_INET;

        return said && inet_pton(family, said, addr) == 1 &&
               inet_ntop(family, addr, ret, INET6_ADDRSTRLEN) != NULL;
}

/* Where a key is used from; "" when that is not known. */
void request_address(const struct http_request *q, char ret[static INET6_ADDRSTRLEN])
{
        const union MHD_ConnectionInfo *info =
                MHD_get_connection_info(q->conn, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
        const struct sockaddr *sa = info ? info->client_addr : NULL;
        bool from_here = false;
        struct sockaddr_in6 in6;
        struct sockaddr_in in;

        ret[0] = '\0';
        if (sa && sa->sa_family == AF_INET) {
                memcpy(&in, sa, sizeof in);
                (void) inet_ntop(AF_INET, &in.sin_addr, ret, INET6_ADDRSTRLEN);
                from_here = ntohl(in.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
        } else if (sa && sa->sa_family == AF_INET6) {
                memcpy(&in6, sa, sizeof in6);
                (void) inet_ntop(AF_INET6, &in6.sin6_addr, ret, INET6_ADDRSTRLEN);
                from_here = IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
        }
        if (from_here && !q->inner)
                (void) forwarded_for(q, ret);
}

static const char *key_of(const struct http_request *q)
{
        const char *h = http_header(q, "Authorization");

        if (str_empty(h))
                return http_param(q, "api_key");
        return strncasecmp(h, "Bearer ", 7) == 0 ? h + 7 + strspn(h + 7, " ") : h;
}

/* A browser says which page it is that asks, and no page can make it say anything else. */
static bool own_origin(const struct http_request *q)
{
        const char *origin = http_header(q, "Origin"), *host = http_header(q, "Host");
        const char *proto = http_header(q, "X-Forwarded-Proto"); /* the edge's word */
        AUTO(free)
        char *own =
                host ? str_fmt("%s://%s", str_eq(proto, "https") ? "https" : "http", host) : NULL;

        return own && origin && strcasecmp(origin, own) == 0;
}

/* False: there is none. */
static bool identify_by_ticket(struct http_request *q)
{
        AUTO(free) char *text = q->inner ? NULL : upgrade_offer(q, TICKET_PREFIX);
        struct caller who;

        if (!text)
                return false;
        q->bad_ticket =
                !tickets_take(http_tickets(q->server), text, clock_mono_us(), &who, q->ticket) ||
                !own_origin(q) || !accounts_key_account(plane_accounts(q->plane), who.key);
        q->bad_key = q->bad_ticket;
        if (!q->bad_key)
                q->ctx.who = who;
        return true;
}

void request_identify(struct http_request *q)
{
        const char *key = key_of(q);
        struct caller who;

        if (str_empty(key) && identify_by_ticket(q)) {
                ; /* a browser's WebSocket */
        } else if (!str_empty(key)) {
                q->bad_key = !accounts_check(plane_accounts(q->plane), key, &who);
                if (!q->bad_key)
                        q->ctx.who = who;
        }
        /* on the cluster network only the cluster's own key, from its own address, counts */
        if (q->inner && (str_empty(key) || q->bad_key || q->ctx.who.right != KEY_CLUSTER ||
                         !from_cluster(q, &q->ctx.who)))
                q->bad_key = true;
        if (q->bad_key)
                q->ctx.who = (struct caller){ 0 };
        if (q->ctx.who.right != KEY_NONE) {
                char address[INET6_ADDRSTRLEN];

                request_address(q, address);
                plane_key_used(q->plane, &q->ctx.who, address);
        }
}
