/* claim.h - what is host-wide and may be held by one cluster at a time, over all standalone
 * hypervisor-vmm hosts on this machine: slots, pinned CPUs, public ports and GPUs.
 *
 * A *slot* is a number 1..LIMIT_SLOTS from which names follow without further bookkeeping: the id
 * range, the monitor's uid, the IPv4 address, the veth name.  Claims are files under
 * /run/hypervisor-vmm/slots/N, cpus/N, ports/N and gpus/UUID, made under one flock, complete when visible, holding
 * "<instance id> <cluster id> <generation>\n".  They outlive the engine (its clusters do) and go
 * with a reboot.  Each engine holds a flock on /run/hypervisor-vmm/instances/<id> while it runs, a
 * file that names its data directory; what an instance held is taken back (by the next claim_open()
 * of any engine) when its lock is free, its data directory is gone and nothing runs in its groups.
 * Everything blocks briefly on a local tmpfs; any process of the engine. */
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
#define CLAIM_GPU_UID      0x4FD00001U /* vmm-gpu's */
#define CLAIM_DNS_UID      0x4FD00002U /* vmm-dns's */
#define CLAIM_EDGE_UID     0x4FD00003U /* HAProxy's */

static inline uint32_t claim_id_base(uint32_t slot)
{
        return CLAIM_ID_BASE + slot * 65536U;
}

static inline uint32_t claim_monitor_uid(uint32_t slot)
{
        return CLAIM_MONITOR_BASE + slot;
}

struct claim_host; /* directory descriptors and the instance's lock */

/* Needs root; @inst's id and data_dir.  -EBUSY: an engine with this id runs (waits 3 s for the
 * processes of one that was killed); -EEXIST: the id belongs to another data directory; -EPERM:
 * /run/hypervisor-vmm is not safely root's.  Operations use the engine's by fork; only the process
 * that opened it takes the instance file away again, at claim_close() when nothing is held. */
int claim_open(const struct instance *inst, struct claim_host **ret, struct err *e);
struct claim_host *claim_close(struct claim_host *c);
DEFINE_AUTO(struct claim_host *, claim_close)

/* Claim the lowest free slot, or find the one this cluster holds already (its claim then carries
 * the newer generation; -ESTALE when it has a newer one than @generation).  A slot released less
 * than 10 s ago is taken only when no other is free.  -ENOSPC: all taken.  About 20 us. */
int claim_slot(struct claim_host *c, const char *cluster, uint64_t generation, uint32_t *ret_slot,
               struct err *e);
/* Claim these CPUs for the cluster, all or none.  -EUSERS (which nothing else that a boot does comes
 * back with) names the CPU and its holder; -ESTALE as above. */
int claim_cpus(struct claim_host *c, const char *cluster, uint64_t generation, const uint32_t *cpus,
               size_t n, struct err *e);
/* Drop its claims of CPUs other than these; idempotent. */
int claim_cpus_keep(struct claim_host *c, const char *cluster, const uint32_t *cpus, size_t n,
                    struct err *e);
/* The same for GPUs, by UUID.  A cluster of this instance that has one already is a holder, too. */
int claim_gpus(struct claim_host *c, const char *cluster, uint64_t generation, char *const *uuids,
               struct err *e);
/* Drop these of the cluster's, NULL: all, up to and including @generation; those it has not are passed
 * over. */
int claim_gpus_drop(struct claim_host *c, const char *cluster, uint64_t generation,
                    char *const *uuids, struct err *e);
/* Drop its claims of GPUs other than these; idempotent. */
int claim_gpus_keep(struct claim_host *c, const char *cluster, char *const *uuids, struct err *e);
/* TCP ports of the host for the cluster, all or none: in @ports one number for each; one that is not 0 is the
 * wish to have (or keep) that very one, and is replaced by another where somebody else has it.  A port that
 * was given up less than 10 s ago is taken only when no other is free, and none for which @taken, which is
 * not NULL, says that something of the host's own has it.  -ENOSPC: there are not so many left. */
typedef bool claim_port_taken_fn(void *arg, uint16_t port);
int claim_ports(struct claim_host *c, const char *cluster, uint64_t generation, uint16_t first,
                uint16_t last, claim_port_taken_fn *taken, void *arg, uint16_t *ports, size_t n,
                struct err *e);
/* Drop its ports other than these, of whatever generation; idempotent. */
int claim_ports_keep(struct claim_host *c, const char *cluster, const uint16_t *ports, size_t n,
                     struct err *e);
/* Drop every slot and CPU of the cluster up to and including @generation; idempotent.  Its GPUs stay: they
 * are looked at first (gpu/handover.h); so do its ports, which it has for all its boots. */
int claim_release(struct claim_host *c, const char *cluster, uint64_t generation, struct err *e);

/* Call @fn while nobody holds this slot and nobody can take it: for what a dead instance has left of it.
 * -EBUSY: somebody holds it. */
typedef int claim_free_fn(void *arg, uint32_t slot, struct err *e);
int claim_slot_while_free(struct claim_host *c, uint32_t slot, claim_free_fn *fn, void *arg,
                          struct err *e);

/* Call @fn for each claim of this instance ("slot", "cpu" or "port", number; "gpu", 0); stops when it returns < 0. */
typedef int claim_each_fn(void *arg, const char *kind, uint32_t number, const char *cluster,
                          uint64_t generation);
int claim_each(struct claim_host *c, claim_each_fn *fn, void *arg);

/* Numbers of the CPUs that clusters of other instances hold, ascending, @max at most (more are left
 * out); returns how many.  Reads a small file for each. */
int claim_cpus_elsewhere(const struct claim_host *c, uint32_t *ret, size_t max, struct err *e);
/* UUIDs of the GPUs that clusters of other instances hold, in no order; the list is the caller's, and
 * NULL when there are none.  Returns how many. */
int claim_gpus_elsewhere(const struct claim_host *c, char ***ret, struct err *e);
/* A descriptor that becomes readable when CPUs or GPUs were claimed or released, by anybody. */
int claim_watch_open(const struct claim_host *c, struct err *e);
/* Empty it; true when there was something. */
bool claim_watch_read(int fd);

/* Whether an instance is gone for good: not running, its data directory removed, no process of its
 * clusters left.  Doubt means false. */
bool claim_instance_dead(const struct claim_host *c, const char *id);

/* A counted host-wide setting, such as "ip_forward": @save (one line, at most 63 bytes) is the value
 * to restore; it is kept only when nobody holds the setting and no earlier value waits to be put
 * back.  Holding twice is holding once.  *ret_first: this instance is the only holder.  Set the value
 * after every hold, first or not: an earlier holder may have been killed before it did. */
int claim_setting_hold(struct claim_host *c, const char *name, const char *save, bool *ret_first,
                       struct err *e);
/* When *ret_last comes back true, put *ret_saved back in place, then call claim_setting_restored():
 * until then the saved value stays on record, so that a kill in between loses nothing.
 * When nobody has held it, *ret_last is false and *ret_saved untouched. */
int claim_setting_leave(struct claim_host *c, const char *name, char *ret_saved, size_t size,
                        bool *ret_last, struct err *e);
/* 0: forgotten; 1: another engine has taken hold meanwhile, so set the value for it again. */
int claim_setting_restored(struct claim_host *c, const char *name, struct err *e);
