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
        by_raw(from, to, argv[3]);
        by_bind(IPPROTO_IP, IP_TRANSPARENT, "transparent", from, to, argv[3]);
        by_bind(IPPROTO_IP, IP_FREEBIND, "free bind", from, to, argv[3]);
        by_address(from, to, argv[3]);
        by_arp(from, to);
        puts("done");
        return 0;
}

/* An honest packet. */
int tell(int argc, char **argv)
{
        struct sockaddr_in to = at(argv[0], atoi(argv[1]));
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        (void) argc;
        told("tell", sendto(fd, argv[2], strlen(argv[2]), 0, (void *) &to, sizeof to));
        return 0;
}

enum { QUIET_MS = 500 };

/* What comes to UDP and TCP PORT, until stdin ends. */
int packets(int argc, char **argv)
{
        struct sockaddr_in any = at("0.0.0.0", atoi(argv[0]));
        int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
        struct pollfd p[] = { { udp, POLLIN, 0 }, { tcp, POLLIN, 0 }, { STDIN_FILENO, POLLIN, 0 } };

        (void) argc;
        setvbuf(stdout, NULL, _IOLBF, 0);
        (void) setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(udp, (void *) &any, sizeof any) < 0 || bind(tcp, (void *) &any, sizeof any) < 0 ||
            listen(tcp, 64) < 0)
                return 1;
        puts("listening");
        while (poll(p, NELEM(p), p[2].fd < 0 ? QUIET_MS : -1) > 0) {
                struct sockaddr_in from = { 0 };
                socklen_t len = sizeof from;
                char buf[512] = "", who[INET_ADDRSTRLEN];
                int fd = -1;

                if (p[2].revents) { /* what is on its way still counts */
                        p[2].fd = -1;
                        continue;
                }
                if (p[0].revents)
                        (void) !recvfrom(udp, buf, sizeof buf - 1, 0, (void *) &from, &len);
                else if (p[1].revents)
                        fd = accept(tcp, (void *) &from, &len);
                printf("got %s from %s: %s\n", fd < 0 ? "udp" : "tcp",
                       inet_ntop(AF_INET, &from.sin_addr, who, sizeof who), buf);
                if (fd >= 0)
                        (void) close(fd);
        }
        return 0;
}

/* ---- who answers: TCP to COUNT addresses from FIRST on, at each PORT */

enum { AT_ONCE = 200, WAIT_MS = 400 };

static int knock(uint32_t address, int port)
{
        struct sockaddr_in a = { .sin_family = AF_INET,
                                 .sin_port = htons((uint16_t) port),
                                 .sin_addr.s_addr = htonl(address) };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        if (fd >= 0 && connect(fd, (void *) &a, sizeof a) < 0 && errno != EINPROGRESS) {
                (void) close(fd);
                return -1;
        }
        return fd;
}

static void harvest(struct pollfd *p, const uint32_t *who, const int *port, nfds_t n)
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
                        if (e == 0 || e == ECONNREFUSED)
                                printf("%s %u.%u.%u.%u:%d\n", e ? "host" : "open", who[i] >> 24,
                                       who[i] >> 16 & 255, who[i] >> 8 & 255, who[i] & 255,
                                       port[i]);
                        (void) close(p[i].fd);
                        p[i].fd = -1;
                        left--;
                }
        }
        for (nfds_t i = 0; i < n; i++)
                if (p[i].fd >= 0)
                        (void) close(p[i].fd);
}

int scan(int argc, char **argv)
{
        static struct pollfd p[AT_ONCE];
        static uint32_t who[AT_ONCE];
        static int port[AT_ONCE];
        uint32_t first = ntohl(at(argv[0], 0).sin_addr.s_addr), count = (uint32_t) atoi(argv[1]);
        long tried = 0;
        nfds_t n = 0;

        for (uint32_t i = 0; i < count; i++) {
                for (int k = 2; k < argc; k++) {
                        p[n] = (struct pollfd){ knock(first + i, atoi(argv[k])), POLLOUT, 0 };
                        who[n] = first + i;
                        port[n] = atoi(argv[k]);
                        tried++;
                        if (++n == AT_ONCE) {
                                harvest(p, who, port, n);
                                n = 0;
                        }
                }
        }
        harvest(p, who, port, n);
        printf("tried %ld\n", tried);
        return 0;
}
