/* dnsd.h - vmm-dns from the inside: one loop, one table of names, two ways in. */
#pragma once
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/clock.h"
#include "base/frame.h"
#include "dns/message.h"
#include "dns/names.h"

#define DNSD_QUERIES          1024U /* that are forwarded at once */
#define DNSD_QUERIES_EACH     128U  /* of one cluster */
#define DNSD_CONNECTIONS      256U
#define DNSD_CONNECTIONS_EACH 16U
#define DNSD_TTL_S            5U /* how long a name of ours may be kept: clusters come and go */
#define DNSD_TRY_US           1500000U /* for one server, then the next is asked */
/* The host's kernel remembers each query to a server for half a minute, and a connection for two, in the
 * table of connections that all share: one account's are some 17,000 there, where servers answer. */
#define DNSD_ASK_US       2000U /* 500 a second for an account, one by TCP is four */
#define DNSD_ASK_BURST_US (2000U * DNSD_ASK_US)
#define DNSD_ASK_TCP      4U

struct query;
struct conn;

struct dnsd {
        sd_event *loop;
        struct names *names;
        struct frame_conn *conn; /* to the engine */
        int udp, tcp;            /* both on the service address */
        unsigned queries, connections;
        struct query *asked; /* all that are forwarded */
        struct conn *open;
};

/* The answer to @msg of @len bytes from @from when nobody has to be asked, of at most @size bytes
 * (at least @len); 0: it goes on to a server, and *ret_q is its question; negative: no answer at all. */
int answer_query(const struct names *n, const struct name *from, const uint8_t *msg, size_t len,
                 uint8_t *to, size_t size, struct dns_question *ret_q);
/* What is said when no server answers. */
size_t answer_failure(const uint8_t *msg, size_t end, uint8_t *to);

/* Whether an account that has @mine of the @all that are under way may have one more: no more than are
 * still free for others.  So one that takes what it can get leaves half of them, and two a third. */
static inline bool dnsd_has_place(unsigned mine, unsigned all, unsigned most)
{
        return all < most && mine < most - all;
}

/* Whether an account may ask a server @n more at @now_us; what it then has done.  Each is paid for with time. */
static inline bool dnsd_may_ask(struct account *a, uint64_t now_us, unsigned n)
{
        uint64_t from = a->paid_until_us > now_us ? a->paid_until_us : now_us;

        if (from + (uint64_t) n * DNSD_ASK_US > now_us + DNSD_ASK_BURST_US)
                return false;
        a->paid_until_us = from + (uint64_t) n * DNSD_ASK_US;
        return true;
}

/* Loop handlers: d->udp and d->tcp are readable. */
int on_udp(sd_event_source *s, int fd, uint32_t revents, void *arg);
int on_tcp(sd_event_source *s, int fd, uint32_t revents, void *arg);

/* What is under way ends without an answer. */
void udp_end(struct dnsd *d);
void tcp_end(struct dnsd *d);

/* Bytes of an address of a server. */
static inline socklen_t server_len(const struct sockaddr_storage *a)
{
        return a->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}
