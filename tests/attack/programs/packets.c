/* packets.c - forged packets, and looking for neighbours.  "packets" is the other side: it says what
 * came in, and may run on the host or in another cluster. */
#include "attack.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_in at(const char *address, int port)
{
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t) port) };

        (void) inet_pton(AF_INET, address, &a.sin_addr);
        return a;
}

static void told(const char *how, ssize_t r)
{
        printf("%s: %s\n", how, r >= 0 ? "sent" : strerrorname_np(errno));
}

/* UDP from somebody else's address, by a socket that may be bound to anything. */
static void by_bind(int level, int option, const char *how, struct sockaddr_in from,
                    struct sockaddr_in to, const char *text)
{
        int one = 1, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        (void) setsockopt(fd, level, option, &one, sizeof one);
        if (bind(fd, (void *) &from, sizeof from) < 0)
                told(how, -1);
        else
                told(how, sendto(fd, text, strlen(text), 0, (void *) &to, sizeof to));
        (void) close(fd);
}

/* The address becomes our own. */
static void by_address(struct sockaddr_in from, struct sockaddr_in to, const char *text)
{
        struct ifreq r = { .ifr_name = "eth0:1" };
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        memcpy(&r.ifr_addr, &from, sizeof from);
        if (ioctl(fd, SIOCSIFADDR, &r) < 0) {
                told("second address", -1);
        } else {
                by_bind(IPPROTO_IP, IP_FREEBIND, "second address", from, to, text);
                ((struct sockaddr_in *) (void *) &r.ifr_addr)->sin_addr.s_addr = 0;
                (void) ioctl(fd, SIOCSIFADDR, &r);
        }
        (void) close(fd);
}

static void by_raw(struct sockaddr_in from, struct sockaddr_in to, const char *text)
{
        struct {
                struct iphdr ip;
                struct udphdr udp;
                char text[200];
        } p = { .ip = { .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP } };
        size_t n = sizeof p.ip + sizeof p.udp + strlen(text);
        int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);

        p.ip.saddr = from.sin_addr.s_addr;
        p.ip.daddr = to.sin_addr.s_addr;
        p.udp.source = from.sin_port;
        p.udp.dest = to.sin_port;
        p.udp.len = htons((uint16_t) (sizeof p.udp + strlen(text)));
        (void) strncpy(p.text, text, sizeof p.text - 1);
        told("raw", fd < 0 ? -1 : sendto(fd, &p, n, 0, (void *) &to, sizeof to));
        if (fd >= 0)
                (void) close(fd);
}

/* "FROM is at our link": an answer that nobody asked for. */
static void by_arp(struct sockaddr_in from, struct sockaddr_in to)
{
        struct sockaddr_ll ll = { .sll_family = AF_PACKET,
                                  .sll_protocol = htons(0x0806),
                                  .sll_ifindex = (int) if_nametoindex("eth0"),
                                  .sll_halen = 6,
                                  .sll_addr = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff } };
        struct {
                struct arphdr h;
                uint8_t from_mac[6], from[4], to_mac[6], to[4];
        } __attribute__((packed)) p = { .h = { htons(1), htons(0x0800), 6, 4, htons(ARPOP_REPLY) },
                                        .from_mac = { 2, 0, 0, 0, 0, 9 } };
        int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(0x0806));

        memcpy(p.from, &from.sin_addr, 4);
        memcpy(p.to, &to.sin_addr, 4);
        told("arp", fd < 0 ? -1 : sendto(fd, &p, sizeof p, 0, (void *) &ll, sizeof ll));
        if (fd >= 0)
                (void) close(fd);
}

int forge(int argc, char **argv)
{
        struct sockaddr_in from = at(argv[0], 5353), to = at(argv[1], atoi(argv[2]));

        (void) argc;
        if (strchr(argv[0], ':'))
                return forge6(argv);
        by_raw(from, to, argv[3]);
        by_bind(IPPROTO_IP, IP_TRANSPARENT, "transparent", from, to, argv[3]);
        by_bind(IPPROTO_IP, IP_FREEBIND, "free bind", from, to, argv[3]);
        by_address(from, to, argv[3]);
        by_arp(from, to);
        puts("done");
        return 0;
}

/* Of either family. */
union place {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
};

static union place place_of(const char *address, int port, socklen_t *ret_len)
{
        bool v6 = strchr(address, ':') != NULL;
        union place p = { .v6 = { 0 } };

        if (v6)
                p.v6 = at6(address, port);
        else
                p.v4 = at(address, port);
        *ret_len = v6 ? sizeof p.v6 : sizeof p.v4;
        return p;
}

/* As people write it; what came by IPv4 to a socket of both, too. */
static void print_place(const union place *p)
{
        char text[INET6_ADDRSTRLEN] = "";

        if (p->any.sa_family == AF_INET)
                (void) inet_ntop(AF_INET, &p->v4.sin_addr, text, sizeof text);
        else if (IN6_IS_ADDR_V4MAPPED(&p->v6.sin6_addr))
                (void) inet_ntop(AF_INET, &p->v6.sin6_addr.s6_addr[12], text, sizeof text);
        else
                (void) inet_ntop(AF_INET6, &p->v6.sin6_addr, text, sizeof text);
        (void) fputs(text, stdout);
}

/* An honest packet. */
int tell(int argc, char **argv)
{
        socklen_t len;
        union place to = place_of(argv[0], atoi(argv[1]), &len);
        int fd = socket(to.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        (void) argc;
        told("tell", sendto(fd, argv[2], strlen(argv[2]), 0, &to.any, len));
        return 0;
}

enum { QUIET_MS = 500 };

/* What comes to UDP and TCP PORT, until stdin ends. */
int packets(int argc, char **argv)
{
        /* both families; a kernel may have one alone */
        const char *every = access("/proc/net/if_inet6", F_OK) == 0 ? "::" : "0.0.0.0";
        socklen_t any_len;
        union place any = place_of(every, atoi(argv[0]), &any_len);
        int udp = socket(any.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        int tcp = socket(any.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
        struct pollfd p[] = { { udp, POLLIN, 0 }, { tcp, POLLIN, 0 }, { STDIN_FILENO, POLLIN, 0 } };

        (void) argc;
        setvbuf(stdout, NULL, _IOLBF, 0);
        (void) setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(udp, &any.any, any_len) < 0 || bind(tcp, &any.any, any_len) < 0 ||
            listen(tcp, 64) < 0)
                return 1;
        puts("listening");
        while (poll(p, NELEM(p), p[2].fd < 0 ? QUIET_MS : -1) > 0) {
                union place from = { .v6 = { 0 } };
                socklen_t len = sizeof from;
                char buf[512] = "";
                int fd = -1;

                if (p[2].revents) { /* what is on its way still counts */
                        p[2].fd = -1;
                        continue;
                }
                if (p[0].revents)
                        (void) !recvfrom(udp, buf, sizeof buf - 1, 0, &from.any, &len);
                else if (p[1].revents)
                        fd = accept(tcp, &from.any, &len);
                printf("got %s from ", fd < 0 ? "udp" : "tcp");
                print_place(&from);
                printf(": %s\n", buf);
                if (fd >= 0)
                        (void) close(fd);
        }
        return 0;
}

/* ---- who answers: TCP to COUNT addresses from FIRST on, at each PORT */

enum { AT_ONCE = 200, WAIT_MS = 400 };

static int knock(const union place *a, socklen_t len)
{
        int fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        if (fd >= 0 && connect(fd, &a->any, len) < 0 && errno != EINPROGRESS) {
                (void) close(fd);
                return -1;
        }
        return fd;
}

static void harvest(struct pollfd *p, const union place *who, nfds_t n)
{
        double end = now() + WAIT_MS / 1e3;
        nfds_t left = n;

        while (left > 0 && now() < end && poll(p, n, (int) ((end - now()) * 1e3) + 1) > 0) {
                for (nfds_t i = 0; i < n; i++) {
                        int e = 0;
                        socklen_t len = sizeof e;

                        if (p[i].fd < 0 || !p[i].revents)
                                continue;
                        (void) getsockopt(p[i].fd, SOL_SOCKET, SO_ERROR, &e, &len);
                        if (e == 0 || e == ECONNREFUSED) {
                                printf("%s ", e ? "host" : "open");
                                print_place(&who[i]);
                                printf(":%d\n",
                                       ntohs(who[i].v4.sin_port)); /* at one place in both */
                        }
                        (void) close(p[i].fd);
                        p[i].fd = -1;
                        left--;
                }
        }
        for (nfds_t i = 0; i < n; i++)
                if (p[i].fd >= 0)
                        (void) close(p[i].fd);
}

/* The one @i behind @p. */
static void step(union place *p, uint32_t i)
{
        bool v6 = p->any.sa_family == AF_INET6;
        uint8_t *low = v6 ? &p->v6.sin6_addr.s6_addr[12] : (uint8_t *) &p->v4.sin_addr;
        uint32_t v;

        memcpy(&v, low, sizeof v);
        v = htonl(ntohl(v) + i);
        memcpy(low, &v, sizeof v);
}

int scan(int argc, char **argv)
{
        static struct pollfd p[AT_ONCE];
        static union place who[AT_ONCE];
        uint32_t count = (uint32_t) atoi(argv[1]);
        long tried = 0;
        nfds_t n = 0;

        for (uint32_t i = 0; i < count; i++) {
                for (int k = 2; k < argc; k++) {
                        socklen_t len;

                        who[n] = place_of(argv[0], atoi(argv[k]), &len);
                        step(&who[n], i);
                        p[n] = (struct pollfd){ knock(&who[n], len), POLLOUT, 0 };
                        tried++;
                        if (++n == AT_ONCE) {
                                harvest(p, who, n);
                                n = 0;
                        }
                }
        }
        harvest(p, who, n);
        printf("tried %ld\n", tried);
        return 0;
}
