/* watch.c - see net.h: noticing that somebody else has wiped the host's firewall, as
 * `nft flush ruleset` and some firewall services do when they start.  The descriptor is the engine
 * loop's; repairing is for an operation. */
#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdalign.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/net/net.h"
#include "engine/net/net_priv.h"

#define EVENT_BYTES   16384U
#define EVENTS_A_TURN 64 /* a bounded piece of work; the loop comes back for the rest */

int net_watch_open(struct net_host *h, struct err *e)
{
        AUTO(fd)
        int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);
        const struct sockaddr_nl any = { .nl_family = AF_NETLINK };
        int group = NFNLGRP_NFTABLES;

        (void) h;
        if (fd < 0 || bind(fd, (const struct sockaddr *) &any, sizeof any) < 0 ||
            setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0)
                return err_errno(e, -errno, "watch the firewall");
        return fd_take(&fd);
}

static bool is_our_end(const struct net_host *h, const struct nlmsghdr *m)
{
        const struct nlattr *name;

        if (m->nlmsg_type != (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE))
                return false;
        name = nl_attr_find(nl_attrs_of(m, sizeof(struct nfgenmsg)), NFTA_TABLE_NAME);
        return name && mnl_attr_validate(name, MNL_TYPE_NUL_STRING) >= 0 &&
               str_eq(mnl_attr_get_str(name), h->table);
}

int net_watch_read(const struct net_host *h, int fd)
{
        alignas(8) uint8_t buf[EVENT_BYTES];
        int gone = 0;

        for (int i = 0; i < EVENTS_A_TURN; i++) {
                ssize_t n = recv(fd, buf, sizeof buf, 0);
                int left = (int) n;

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN)
                        break;
                if (n < 0 && errno != ENOBUFS)
                        return -errno;
                if (n < 0)
                        gone = 1; /* events were lost; repairing what is whole does no harm */
                for (const struct nlmsghdr *m = (const void *) buf; mnl_nlmsg_ok(m, left);
                     m = mnl_nlmsg_next(m, &left))
                        gone |= is_our_end(h, m);
        }
        return gone;
}
