/* claim.h - what is host-wide and may be held by one cluster at a time, over all standalone
 * hypervisor-vmm hosts on this machine: slots and pinned CPUs.
 *
 * A *slot* is a number 1..LIMIT_SLOTS from which names follow without further bookkeeping: the id
 * range, the monitor's uid, the IPv4 address, the veth name.  Claims are files under
 * /run/hypervisor-vmm/slots/N and cpus/N, made with O_EXCL under one flock, holding
 * "<instance id> <cluster id> <generation>\n".  They outlive the engine (its clusters do) and go
 * with a reboot.  Each engine holds a flock on /run/hypervisor-vmm/instances/<id> while it runs, a
 * file that names its data directory; a claim whose data directory is gone and whose cgroup is
 * empty is reaped.  Everything blocks briefly on a local tmpfs; any process of the engine. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/instance.h"

/* A cluster host's root cgroup is "hvmm-<instance id>" (slice.h makes it, claims look whether
 * anything still runs in one before they reap). */
#define CLAIM_GROUP_PREFIX "hvmm-"

/* Ids: slot n's containers are CLAIM_ID_BASE + n * 65536 .. + 65535; monitors and fetchers get one
 * uid each below.  All lie in the part of the uid space that systemd leaves to containers
 * (0x00080000..0x6FFFFFFF), above /etc/subuid's usual start. */
#define CLAIM_ID_BASE      0x50000000U
#define CLAIM_MONITOR_BASE 0x4FF00000U
#define CLAIM_FETCH_BASE   0x4FE00000U
#define CLAIM_API_UID      0x4FD00000U

static inline uint32_t claim_id_base(uint32_t slot)
{
        return CLAIM_ID_BASE + slot * 65536U;
}

static inline uint32_t claim_monitor_uid(uint32_t slot)
{
        return CLAIM_MONITOR_BASE + slot;
}

struct claim_host; /* directory descriptors and the instance's lock */

int claim_open(const struct instance *inst, struct claim_host **ret, struct err *e);
struct claim_host *claim_close(struct claim_host *c);
DEFINE_AUTO(struct claim_host *, claim_close)

/* Claim the lowest free slot, or find the one this cluster holds already.  -ENOSPC: all taken. */
int claim_slot(struct claim_host *c, const char *cluster, uint64_t generation, uint32_t *ret_slot,
               struct err *e);
/* Claim these CPUs for the cluster, all or none.  -EBUSY names the CPU and its holder. */
int claim_cpus(struct claim_host *c, const char *cluster, uint64_t generation,
               const uint32_t *cpus, size_t n, struct err *e);
/* Drop every claim of the cluster up to and including @generation; idempotent. */
int claim_release(struct claim_host *c, const char *cluster, uint64_t generation, struct err *e);

/* Call @fn for each claim of this instance ("slot" or "cpu", number); stops when it returns < 0. */
typedef int claim_each_fn(void *arg, const char *kind, uint32_t number, const char *cluster,
                          uint64_t generation);
int claim_each(struct claim_host *c, claim_each_fn *fn, void *arg);

/* A counted host-wide setting, such as "ip_forward": the first holder gets *ret_first true and may
 * store the value to restore (@save, at most 63 bytes); the last one to leave gets it back. */
int claim_setting_hold(struct claim_host *c, const char *name, const char *save, bool *ret_first,
                       struct err *e);
int claim_setting_leave(struct claim_host *c, const char *name, char *ret_saved, size_t size,
                        bool *ret_last, struct err *e);
