/* room.c - see net.h: whether the kernel's table of connections holds what all clusters may have in it.
 * The engine at its start, and `doctor`. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/net/net_priv.h"
#include "model/limits.h"

#define ENTRIES "/proc/sys/net/netfilter/nf_conntrack_max"

/* Each has at least one vCPU. */
static int clusters_most(const struct instance *inst, uint64_t *ret, struct err *e)
{
        cpu_set_t cpus;
        double n;

        CPU_ZERO(&cpus);
        if (sched_getaffinity(0, sizeof cpus, &cpus) < 0)
                return err_errno(e, -errno, "ask for the host's CPUs");
        n = CPU_COUNT(&cpus) * inst->conf.cpu_overcommit;
        *ret = n < LIMIT_SLOTS ? (uint64_t) n : LIMIT_SLOTS;
        return 0;
}

int net_room(const struct instance *inst, struct net_room *ret, struct err *e)
{
        uint32_t addresses = str_eq(inst->conf.network_pool6, "none") ? 1 : 2;
        struct port_range public = { 0, 0 };
        AUTO(free) char *text = NULL;
        struct net_room room = { 0 };
        int r = port_range_parse("network public_ports", inst->conf.network_public_ports, &public,
                                 e);

        if (r < 0)
                return r;
        r = fd_read_file(AT_FDCWD, ENTRIES, 64, &text, NULL);

        if (r < 0)
                return err_errno(e, r, ENTRIES);
        if (str_u64_prefix(text, 10, &room.entries) < 0)
                return err_set(e, -EIO, ENTRIES ": not a number");
        r = clusters_most(inst, &room.clusters, e);
        if (r < 0)
                return r;
        room.wanted = room.clusters * addresses * inst->conf.network_connections *
                              (public.first ? 2 : 1) + /* and as many visitors */
                      NET_ROOM_HOST;
        *ret = room;
        return 0;
}

void net_room_warn(const struct instance *inst)
{
        struct net_room room;

        if (inst->conf.network_connections == 0 || net_room(inst, &room, NULL) < 0 ||
            room.entries >= room.wanted)
                return;
        log_warn(
                "the kernel tracks %llu connections at most, which a few of the %llu clusters that this host has vCPUs for can use up for all; set net.netfilter.nf_conntrack_max (sysctl) to %llu, or lower `connections` in [network]",
                (unsigned long long) room.entries, (unsigned long long) room.clusters,
                (unsigned long long) room.wanted);
}
