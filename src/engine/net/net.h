/* net.h - cluster networks: a network namespace, a routed point-to-point veth, an address, the
 * firewall set.  No shared bridge, default deny between clusters and to the host.
 *
 * Names follow from the slot: host side "hv<slot>", inside "eth0", address = pool base + slot, and the
 * same in a /64 of IPv6.  The gateways inside are 169.254.1.1 and fe80::1, all neighbours are permanent
 * entries and both ends are deaf to ARP, so nothing is asked, answered or learned.
 * One nftables table per instance, "hvmm_<instance>", with sets; a cluster is set elements.
 * A slot passed in here has been claimed by this instance (claim_slot).
 * Blocking calls (netlink); one thread. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "engine/instance.h"
#include "model/egress.h"
#include "model/published.h"

struct claim_host;
struct net_host; /* netlink socket, nft context, configuration */

/* Open sockets, check the pool against the host's routes, make the nft table (idempotent, one
 * transaction; see net_host_settle() for one of another version), the service address on lo (label "lo:hv-<id>"; not every kernel has dummy links),
 * and turn forwarding on (a counted claim that restores the old value with the last one).
 * -EADDRINUSE and -EBUSY name `network pool` and who is in the way.  @inst and @claims stay
 * borrowed.  Operations use the host of the engine that they were forked from: sockets are made
 * anew in each process at first use. */
int net_host_open(const struct instance *inst, struct claim_host *claims, struct net_host **ret,
                  struct err *e);
struct net_host *net_host_close(struct net_host *h); /* leaves the kernel as it is */
DEFINE_AUTO(struct net_host *, net_host_close)
/* Clean shutdown with no cluster left: remove our links, table, service address, forwarding claim.
 * 20-40 ms when links are left. */
int net_host_remove(struct net_host *h, struct err *e);
/* What another instance left that is gone for good (the claims say so): its table would drop the
 * packets of slots that are ours now.  60 ms. */
int net_remove_dead(struct net_host *h, const char *id, struct err *e);

/* What the network allows one cluster beyond what it allows all. */
struct net_policy {
        uint32_t
                account; /* its account's number in this instance: equal ones reach each other; 0: nobody */
        struct egress egress;
        struct published ports; /* of the host's that lead to it, by TCP */
};
/* What is known of the cluster in that slot; false: nothing, there is none. */
typedef bool net_policy_fn(void *arg, uint32_t slot, struct net_policy *ret);

/* The host's ports that clusters' TCP ports are published on; 0, 0: none are. */
struct port_range net_public_ports(const struct net_host *h);
/* Where they are reached: what the configuration says, or the address that the host has for going out;
 * "": it has none.  Two system calls. */
void net_public_ip(const struct net_host *h, char buf[static 48]);
/* claim_port_taken_fn: a program of the host's own listens there. */
bool net_port_taken(void *unused, uint16_t port);

/* Make again whatever of net_host_open()'s work, and of the elements of clusters that are up, is
 * missing; changes nothing that is there.  20 ms; for an operation that was forked for it, so that @fn
 * knows what is so now.  net_bind() does it by itself, but for the other clusters, when it finds the
 * table gone: those stay closed until the engine, which net_watch_read() tells, has done it, too. */
int net_host_repair(struct net_host *h, net_policy_fn *fn, void *arg, struct err *e);
/* A table that an engine of another version left stays as it is in net_host_open(), for its clusters' sake;
 * this makes ours instead, with all that @fn knows, in one transaction.  Before any operation on clusters;
 * nothing to do: 0 at once. */
int net_host_settle(struct net_host *h, net_policy_fn *fn, void *arg, struct err *e);
/* Somebody else may wipe the host's firewall, ours included (`nft flush ruleset`), or take rules out of our
 * table (`nft flush table`); what they add to it is theirs to know.  A non-blocking
 * descriptor for the engine's loop, which the caller closes; readable when any rules changed.
 * net_watch_read(): 1: start net_host_repair(), 0: nothing of ours, or a negative errno. */
int net_watch_open(struct net_host *h, struct err *e);
int net_watch_read(struct net_host *h, int fd);

/* Ready namespace: veth pair, addresses and routes in place on both sides, and the firewall drops
 * whatever comes out of it; bandwidth limited both ways; sysctls set: ip_unprivileged_port_start=0,
 * ping_group_range, no forwarding. */
struct net_ns {
        int netns; /* namespace descriptor */
        int sysfs; /* detached read-only sysfs mount of that namespace */
};
void net_ns_done(struct net_ns *n); /* closes; the kernel ends the namespace with its last user */

/* Make one for @slot; a left-over veth of that name is put aside for net_reap() first.  0.8 ms.
 * For an operation process: its network namespace changes for a moment.  -ENOTRECOVERABLE: it could
 * not come back and must end. */
int net_prepare(struct net_host *h, uint32_t slot, struct net_ns *ret, struct err *e);

struct net_lease {
        uint32_t slot;
        uint32_t ipv4; /* host byte order */
        char ipv4_text[16];
        char service_text[16];                 /* where api.internal answers */
        char ipv6_text[48], service6_text[48]; /* "": it has no IPv6 */
        char *resolv_conf;                     /* content for /etc/resolv.conf; heap */
};
/* Let a prepared namespace out, as far as @p says: one transaction of the firewall, so the first packet
 * is judged by all of it.  50 us, and never waits for the end of other namespaces as net_prepare() may
 * (10 ms at worst). */
int net_bind(struct net_host *h, uint32_t slot, const struct net_policy *p, struct net_lease *ret,
             struct err *e);
/* A cluster that is out has another list from here on: one transaction, so a packet is judged by the old one
 * or by the new one; then connections that it had begun and may not begin any more end (10 ms).  What a
 * repair would have to do first is done. */
int net_change(struct net_host *h, uint32_t slot, const struct net_policy *p, struct err *e);
/* Why clusters get no IPv6 though the configuration has it; NULL: they do, or it has not.  Borrowed. */
const char *net_ipv6_lacks(const struct net_host *h);
/* Was it let out with an IPv6 address?  1, 0. */
int net_has_ipv6(struct net_host *h, uint32_t slot, struct err *e);
/* `network` of a cluster's report: new reference, or NULL: out of memory. */
json_t *net_policy_report(const struct net_host *h, const struct net_policy *p, bool ipv6);
/* The lease that a slot has by definition (addresses, resolv.conf), without touching the kernel. */
int net_lease_of(const struct net_host *h, uint32_t slot, struct net_lease *ret);
void net_lease_done(struct net_lease *l);

/* The firewall closes, the link goes down, which ends its routes, and is forgotten; idempotent, also
 * after a kill in the middle, and a no-op on a link that has become another instance's.
 * @slow_later: leave deleting the link to the end of its namespace or to net_reap() (deleting one
 * synchronously costs 20-35 ms in rcu_barrier).  @ports: what it was bound with, which spares a walk
 * through all that the host publishes; NULL: not known. */
int net_release(struct net_host *h, uint32_t slot, const struct published *ports, bool slow_later,
                struct err *e);

/* Bytes that the slot's cluster has answered over published ports, so far; the counter may begin anew when the
 * firewall was repaired.  1; 0: it has no such ports, or the firewall is gone.  20 us. */
int net_public_bytes(struct net_host *h, uint32_t slot, uint64_t *ret, struct err *e);

/* End every TCP connection that programs of this host have, or are opening, to the slot's IPv4 address; 0: there
 * is none any more.  1 ms.  Before net_release(), when nothing of the slot runs. */
int net_end_sockets(struct net_host *h, uint32_t slot, struct err *e);
/* Delete the links that net_release() left, all at the price of one, and end the connections that
 * the kernel still knows of released addresses (10 ms; without a recent net_reap(), net_prepare()
 * of such a slot has to do it: call this some seconds after releases).  With @keep also those of this
 * instance for whose slots it says false.  From a low-priority operation.  Since a slot may be
 * prepared while this runs, @keep is for start-up, when nothing else does. */
typedef bool net_keep_fn(void *arg, uint32_t slot);
int net_reap(struct net_host *h, net_keep_fn *keep, void *arg, struct err *e);

/* The service address for the API's inner listener: a listening TCP socket on port 80 of it,
 * bound so that it is reachable from cluster links only. */
int net_service_listen(struct net_host *h, struct err *e);
/* The same for names: sockets on port 53 of it, UDP and TCP, not blocking; and what their program has to
 * know ("settings" in docs/node-protocol.md), with the host's name servers as they are now.  NULL: *e. */
int net_resolver_listen(struct net_host *h, int *ret_udp, int *ret_tcp, struct err *e);
json_t *net_resolver_settings(const struct net_host *h, struct err *e);

/* What `doctor` asks; nothing is changed or left.  Root.
 * net_probe_ipv6(): 0: clusters can have IPv6; 1: and the host would then no longer hear routers' advertisements,
 * which it has no need of now; -EOPNOTSUPP: why they cannot.  *@ret_advertised, always: the host's own way out
 * came from one.  The others: 0, or why the kernel has no token bucket, no counting of connections. */
int net_probe_ipv6(bool *ret_advertised, struct err *e);
int net_probe_bandwidth(struct err *e);
int net_probe_connections(struct err *e);

/* The kernel's one table of connections, which the host and all clusters share, and what they may have in
 * it where every vCPU is a cluster's.  Less than that: an account with enough clusters can fill it, and nobody
 * gets a new connection.  -ENOENT: the kernel tracks none yet. */
#define NET_ROOM_HOST 16384U /* what is left for the host itself */
struct net_room {
        uint64_t entries, clusters, wanted;
};
int net_room(const struct instance *inst, struct net_room *ret, struct err *e);
void net_room_warn(const struct instance *inst); /* says so, where it is less */

/* vmm-fetch uses the host's network.  net_fetch_confine(): the 65,536 ids from @id_base on, which the
 * caller has claimed and nobody uses yet, reach name servers, what net_fetch_allow() named, and what
 * is public; also drops what another instance says of that range.  300 us.  net_fetch_release() is
 * for when the last process with them has ended; idempotent. */
struct sockaddr;
int net_fetch_confine(struct net_host *h, uint32_t id_base, struct err *e);
int net_fetch_release(struct net_host *h, uint32_t id_base, struct err *e);
/* Of IPv4 or IPv6, with a port; TCP, and UDP with @dns.  Until the engine starts again. */
int net_fetch_allow(struct net_host *h, const struct sockaddr *to, bool dns, struct err *e);
/* Ranges that are confined: heap. */
int net_fetch_list(struct net_host *h, uint32_t **ret, size_t *ret_n, struct err *e);
