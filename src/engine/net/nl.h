/* nl.h - several netlink requests in one system call, and one answer.
 *
 * A batch is filled message by message, sent at once, and answered by what went wrong first.  Each
 * message carries a phrase for people ("add route") and an errno that means "already so".  Sizes
 * are ours, never a stranger's: overflow is asserted.  Blocks on the kernel alone. */
#pragma once
#include <libmnl/libmnl.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define NL_BATCH_BYTES 49152U
#define NL_BATCH_MSGS                                                                              \
        128U /* a cluster with all the networks that its traffic may be limited to, a rule each, and all ports */
#define NL_MSG_BYTES 512U /* longest single message */

struct nl_sock {
        struct mnl_socket *mnl; /* NULL: closed */
        uint32_t seq;
};

/* A socket of the calling process's present network namespace, to which it stays bound.
 * @bus: NETLINK_ROUTE or NETLINK_NETFILTER. */
int nl_sock_open(struct nl_sock *s, int bus, struct err *e);
void nl_sock_close(struct nl_sock *s);

static inline void nl_sock_close_cleanup(struct nl_sock *s)
{
        nl_sock_close(s);
}

struct nl_batch {
        size_t len;
        unsigned n;
        bool atomic; /* an nfnetlink transaction: all or nothing, framed by begin and end */
        struct nlmsghdr *cur; /* the message that attributes go to */
        struct {
                const char *what; /* borrowed until the commit */
                int ignore;       /* positive errno that counts as success, or 0 */
        } msg[NL_BATCH_MSGS];
        alignas(8) uint8_t buf[NL_BATCH_BYTES];
};

void nl_batch_init(struct nl_batch *b);
/* Begin a message with a zeroed family header of @extra bytes, which is returned.  @flags beside
 * NLM_F_REQUEST. */
void *nl_add(struct nl_batch *b, unsigned type, unsigned flags, size_t extra, const char *what,
             int ignore);
/* Send and wait for the verdict.  An empty batch is fine.  The first error that is not to be
 * ignored comes back, with the kernel's own words where it gave some. */
int nl_commit(struct nl_sock *s, struct nl_batch *b, struct err *e);

/* One request (a batch of one message), answered by any number of messages for @fn, which may stop
 * with a negative errno. */
int nl_query(struct nl_sock *s, struct nl_batch *b, mnl_cb_t fn, void *arg, struct err *e);

/* Walk over attributes: those behind a family header of @extra bytes, or those nested in one
 * (NULL: none).  nl_attr_next() returns NULL at the end and at the first malformed one. */
struct nl_attrs {
        const uint8_t *at, *end;
};
struct nl_attrs nl_attrs_of(const struct nlmsghdr *h, size_t extra);
struct nl_attrs nl_attrs_in(const struct nlattr *a);
const struct nlattr *nl_attr_next(struct nl_attrs *it);
/* The first of that type, or NULL. */
const struct nlattr *nl_attr_find(struct nl_attrs it, uint16_t type);
