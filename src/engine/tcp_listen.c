/* tcp_listen.c - see tcp_listen.h. */
#include "engine/tcp_listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/str.h"

/* The caller ends *@ret with freeaddrinfo(). */
static int parse(const char *what, const char *at, struct addrinfo **ret, struct err *e)
{
        const struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                                        .ai_socktype = SOCK_STREAM };
        AUTO(free) char *copy = strdup(at);
        char *colon = copy ? strrchr(copy, ':') : NULL, *host = copy;
        uint64_t port;

        /* getaddrinfo() takes a port that is over 65535 modulo 65536 */
        if (!colon || str_u64(colon + 1, 0, 65535, &port) < 0)
                return err_set(e, -EINVAL, "%s: '%s' is not ADDRESS:PORT", what, at);
        *colon = '\0';
        if (*host == '[' && colon[-1] == ']') {
                host++;
                colon[-1] = '\0';
        }
        if (getaddrinfo(host, colon + 1, &hints, ret) != 0)
                return err_set(e, -EINVAL, "%s: '%s' is not ADDRESS:PORT", what, at);
        return 0;
}

int tcp_listen_check(const char *what, const char *at, struct err *e)
{
        struct addrinfo *ai;
        int r = parse(what, at, &ai, e);

        if (r >= 0)
                freeaddrinfo(ai);
        return r;
}

static bool is_loopback(const struct sockaddr *any)
{
        struct sockaddr_in v4 = { .sin_family = AF_UNSPEC };
        struct sockaddr_in6 v6;

        if (any->sa_family == AF_INET6) {
                memcpy(&v6, any, sizeof v6);
                return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
        }
        memcpy(&v4, any, sizeof v4);
        return ntohl(v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
}

int tcp_listen_check_public(const char *what, const char *at, struct port_range public,
                            struct err *e)
{
        uint64_t port = 0;
        struct addrinfo *ai;
        bool loopback;
        int r = parse(what, at, &ai, e);

        if (r < 0)
                return r;
        loopback = is_loopback(ai->ai_addr);
        freeaddrinfo(ai);
        (void) str_u64(strrchr(at, ':') + 1, 0, 65535, &port); /* parse() has done it */
        if (loopback || port == 0 || port < public.first || port > public.last)
                return 0;
        return err_set(
                e, -EINVAL,
                "%s: port %u is one of [network] public_ports %u-%u, which lead to clusters; take another one, or move that range",
                what, (unsigned) port, public.first, public.last);
}

static const char *way_out(int r)
{
        switch (r) {
        case -EADDRINUSE:
                return "; another program listens there: end it, or take another port";
        case -EADDRNOTAVAIL:
                return "; take an address of this host, or 0.0.0.0 for all of them";
        case -EACCES:
                return "; take a port from 1024 on, or run this as root";
        default:
                return "";
        }
}

int tcp_listen(const char *what, const char *at, struct err *e)
{
        AUTO(fd) int fd = -EBADF;
        struct addrinfo *ai;
        int one = 1, r = parse(what, at, &ai, e);

        if (r < 0)
                return r;
        fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
            bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, 1024) < 0)
                r = -errno;
        freeaddrinfo(ai);
        if (r < 0)
                (void) err_set(e, r, "%s %s: %s%s", what, at, strerror(-r), way_out(r));
        return r < 0 ? r : fd_take(&fd);
}

int tcp_listen_address(int fd, char ret[static TCP_LISTEN_TEXT], unsigned *ret_port)
{
        union {
                struct sockaddr any;
                struct sockaddr_in v4;
                struct sockaddr_in6 v6;
                struct sockaddr_storage room;
        } a = { .any = { .sa_family = AF_UNSPEC } };
        socklen_t len = sizeof a;
        char text[INET6_ADDRSTRLEN] = "";

        if (getsockname(fd, &a.any, &len) < 0)
                return -errno;
        if (a.any.sa_family == AF_INET6) {
                *ret_port = ntohs(a.v6.sin6_port);
                if (IN6_IS_ADDR_UNSPECIFIED(&a.v6.sin6_addr))
                        a.v6.sin6_addr = in6addr_loopback;
                (void) inet_ntop(AF_INET6, &a.v6.sin6_addr, text, sizeof text);
                (void) snprintf(ret, TCP_LISTEN_TEXT, "[%s]:%u", text, *ret_port);
                return 0;
        }
        if (a.any.sa_family != AF_INET)
                return -EAFNOSUPPORT;
        *ret_port = ntohs(a.v4.sin_port);
        if (a.v4.sin_addr.s_addr == htonl(INADDR_ANY))
                a.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        (void) inet_ntop(AF_INET, &a.v4.sin_addr, text, sizeof text);
        (void) snprintf(ret, TCP_LISTEN_TEXT, "%s:%u", text, *ret_port);
        return 0;
}
