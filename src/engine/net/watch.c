/* watch.c - see net.h: noticing that somebody else has wiped the host's firewall, as
 * `nft flush ruleset` and some firewall services do when they start, or our table's rules, as `nft flush
 * table` does, which leaves the table.  The descriptor is the engine loop's; repairing is for an operation.
 *
 * Who took rules away need not be known: whatever of ours takes some out of a chain that all clusters share
 * puts as many back in the same transaction (nft_rules_apply()), so only a loss over a whole transaction is
 * somebody else's.  Events of a transaction come in its order, and NEWGEN behind the last of them. */
#include <errno.h>
#include <linux/netfilter.h>
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
#include "engine/net/nft_priv.h"

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

/* Is it about our table, whose name is in attribute @type? */
static bool is_of_ours(const struct net_host *h, const struct nlmsghdr *m, uint16_t type)
{
        const struct nfgenmsg *nf = mnl_nlmsg_get_payload(m);
        const struct nlattr *name = nl_attr_find(nl_attrs_of(m, sizeof(struct nfgenmsg)), type);

        return nf->nfgen_family == NFPROTO_INET && name &&
               mnl_attr_validate(name, MNL_TYPE_NUL_STRING) >= 0 &&
               str_eq(mnl_attr_get_str(name), h->table);
}

/* A cluster's own chain loses rules with its list. */
static bool is_shared_chain(const struct nlmsghdr *m)
{
        const struct nlattr *name =
                nl_attr_find(nl_attrs_of(m, sizeof(struct nfgenmsg)), NFTA_RULE_CHAIN);

        return name && mnl_attr_validate(name, MNL_TYPE_NUL_STRING) >= 0 &&
               !str_after(mnl_attr_get_str(name), NFT_EGRESS_PREFIX);
}

/* Does something of ours end with this event? */
static bool on_event(struct net_host *h, const struct nlmsghdr *m)
{
        bool loss;

        if (m->nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES)
                return false;
        switch (m->nlmsg_type & 0xff) {
        case NFT_MSG_DELTABLE:
                return is_of_ours(h, m, NFTA_TABLE_NAME);
        case NFT_MSG_NEWRULE:
        case NFT_MSG_DELRULE:
                if (is_of_ours(h, m, NFTA_RULE_TABLE) && is_shared_chain(m))
                        h->rules_lost += (m->nlmsg_type & 0xff) == NFT_MSG_DELRULE ? 1 : -1;
                return false;
        case NFT_MSG_NEWGEN:
                loss = h->rules_lost > 0;
                h->rules_lost = 0;
                return loss;
        default:
                return false;
        }
}

int net_watch_read(struct net_host *h, int fd)
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
                if (n < 0) {
                        gone = 1; /* events were lost; repairing what is whole does no harm */
                        h->rules_lost = 0;
                }
                for (const struct nlmsghdr *m = (const void *) buf; mnl_nlmsg_ok(m, left);
                     m = mnl_nlmsg_next(m, &left))
                        gone |= on_event(h, m);
        }
        return gone;
}
