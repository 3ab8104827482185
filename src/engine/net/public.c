/* public.c - see net.h: the host's side of published ports: which, and at which address.  Engine process. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/net/net_priv.h"

/* Nothing is sent to these root name servers: what counts is the way that the host would take. */
#define FAR_AWAY  "198.41.0.4"
#define FAR_AWAY6 "2001:503:ba3e::2:30"

static int check_ip(const char *text, struct err *e)
{
        uint8_t addr[IPV6_BYTES];

        if (str_empty(text) || inet_pton(AF_INET, text, addr) == 1 ||
            inet_pton(AF_INET6, text, addr) == 1)
                return 0;
        return err_set(e, -EINVAL,
                       "network public_ip: '%.64s' is no IP address; empty: the host's own", text);
}

int net_public_parse(struct net_host *h, const struct engine_conf *c, struct err *e)
{
        int r = check_ip(c->network_public_ip, e);

        if (r >= 0)
                r = port_range_parse("network public_ports", c->network_public_ports,
                                     &h->public_ports, e);
        h->public_ip = c->network_public_ip;
        return r;
}

struct port_range net_public_ports(const struct net_host *h)
{
        return h->public_ports;
}

int net_public_bytes(struct net_host *h, uint32_t slot, uint64_t *ret, struct err *e)
{
        char name[IF_NAMESIZE];
        int r = net_sockets(h, e);

        if (r < 0)
                return r;
        net_link_name(slot, name);
        return nft_ports_bytes(&h->nft, h->table, name, ret, e);
}

/* The source address of that way; false: there is none. */
static bool address_towards(int family, const char *far, char *buf, size_t size)
{
        struct sockaddr_storage own = { 0 };
        struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9) };
        struct sockaddr_in6 to6 = { .sin6_family = AF_INET6, .sin6_port = htons(9) };
        const bool v6 = family == AF_INET6;
        AUTO(fd) int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        socklen_t len = sizeof own;

        if (fd < 0 || inet_pton(family, far, v6 ? (void *) &to6.sin6_addr : &to.sin_addr) != 1)
                return false;
        if (connect(fd, v6 ? (const struct sockaddr *) &to6 : (const struct sockaddr *) &to,
                    v6 ? sizeof to6 : sizeof to) < 0 ||
            getsockname(fd, (struct sockaddr *) &own, &len) < 0)
                return false;
        return inet_ntop(family,
                         v6 ? (const void *) &((struct sockaddr_in6 *) &own)->sin6_addr
                            : &((struct sockaddr_in *) &own)->sin_addr,
                         buf, (socklen_t) size) != NULL;
}

void net_public_ip(const struct net_host *h, char buf[static 48])
{
        buf[0] = '\0';
        if (!str_empty(h->public_ip))
                strncat(buf, h->public_ip, 47);
        else if (!address_towards(AF_INET, FAR_AWAY, buf, 48) &&
                 !address_towards(AF_INET6, FAR_AWAY6, buf, 48))
                buf[0] = '\0';
}

/* Does somebody listen there, on any address of the family? */
static bool taken_in(int family, uint16_t port)
{
        const struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(port) };
        const struct sockaddr_in6 any6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
        const bool v6 = family == AF_INET6;
        AUTO(fd) int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int one = 1;

        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
            (v6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) < 0))
                return false; /* a host without that family */
        return bind(fd, v6 ? (const struct sockaddr *) &any6 : (const struct sockaddr *) &any,
                    v6 ? sizeof any6 : sizeof any) < 0 &&
               errno == EADDRINUSE;
}

bool net_port_taken(void *unused, uint16_t port)
{
        (void) unused;
        return taken_in(AF_INET, port) || taken_in(AF_INET6, port);
}
