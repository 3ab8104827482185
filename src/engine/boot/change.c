/* change.c - more or less of everything for a cluster that runs.  Operation process; see boot.h.
 *
 * The order: what can be known to be impossible is refused; then CPUs and GPUs are claimed and memory
 * is taken away, which others or the kernel may refuse, too; then disks grow; then the group gets its
 * limits and the CPUs that it has no more are let go; then the firewall gets its list of networks; and then
 * GPUs come and go.  What is asked is what should be, never by how much, and
 * each step looks at what there is: the state that an earlier run was killed in is as good as any.
 * Nothing here looks into the cluster's own mounts but sandbox_change(). */
#include "engine/boot/change.h"

#include <errno.h>
#include <stdio.h>

#include "base/str.h"
#include "engine/claim/claim.h"
#include "engine/disk/disk.h"
#include "engine/instance.h"

#define GIB (1ULL << 30)
#define MIB (1ULL << 20)
#define MARGIN_BYTES                                                                               \
        (64 * MIB) /* what must be left after less memory: the next fork, the next page */

/* ---- checks ---- */

static int check_plan(const struct change *c, struct err *e)
{
        int r = plan_check(c->to, e);

        if (r < 0)
                return r;
        if (c->b->host->inst->conf.cpu_overcommit <= 1 && strv_len(c->to->cpus) == 0)
                return err_set(e, -EINVAL, "cpus: this host pins vCPUs and the plan names none");
        if ((strv_len(c->to->cpus) == 0) != (strv_len(c->from->cpus) == 0))
                return err_set(e, -EBUSY,
                               "vcpuCount: it has %s CPUs and shall have %s ones; restart it",
                               strv_len(c->from->cpus) ? "whole" : "shared",
                               strv_len(c->to->cpus) ? "whole" : "shared");
        return 0;
}

static int check_memory(const struct change *c, struct err *e)
{
        uint64_t want = c->to->memory_mib * MIB, held = 0, now = 0;
        int r;

        if (c->to->memory_mib >= c->from->memory_mib)
                return 0;
        r = slice_memory_limit(c->b->host->slices, c->slice, &now, e);
        if (r < 0 || now <= want) /* an earlier run came that far */
                return r;
        r = slice_memory_held(c->b->host->slices, c->slice, &held, e);
        if (r < 0)
                return r;
        if (held + MARGIN_BYTES > want)
                return err_set(
                        e, -EBUSY,
                        "memoryInGb: %u MiB are too little: %llu MiB are in use, and %llu must be left",
                        c->to->memory_mib, (unsigned long long) (held / MIB),
                        (unsigned long long) (MARGIN_BYTES / MIB));
        return 0;
}

/* 1: it has to grow.  One that is larger than wanted has grown for a plan that was taken back. */
static int must_grow(int dir, const char *name, uint64_t want, struct err *e)
{
        uint64_t size, used, fs;
        int r = disk_sizes(dir, name, &size, &used);

        if (r < 0)
                return err_errno(e, r, "disk %s", name);
        if (size != want)
                return size < want;
        r = disk_fs_size(dir, name, &fs, e);
        return r < 0 ? r : fs < want;
}

static int check_disk(int dir, const char *name, uint32_t from_gib, uint32_t to_gib, struct err *e)
{
        int r;

        if (to_gib < from_gib)
                return err_set(e, -EINVAL, "%u is less than the %u GB it has; it can only grow",
                               to_gib, from_gib);
        r = must_grow(dir, name, to_gib * GIB, e);
        return r == 1 ? disk_grow_mounted_check(dir, name, e) : r;
}

static int check_disks(const struct change *c, struct err *e)
{
        const struct host *h = c->b->host;
        int r = check_disk(h->disks, c->disk, c->from->container_disk_gib,
                           c->to->container_disk_gib, e);

        if (r < 0)
                return err_wrap(e, r, "containerDiskInGb");
        if ((c->from->volume_gib == 0) != (c->to->volume_gib == 0))
                return err_set(
                        e, -EINVAL,
                        "volumeInGb: a volume cannot be added or taken away while it runs; stop it first");
        if (c->to->volume_gib == 0)
                return 0;
        r = check_disk(h->volumes, c->volume, c->from->volume_gib, c->to->volume_gib, e);
        return r < 0 ? err_wrap(e, r, "volumeInGb") : 0;
}

static int check(const struct change *c, struct err *e)
{
        static int (*const all[])(const struct change *, struct err *) = {
                check_plan,
                change_gpus_check,
                check_memory,
                check_disks,
        };
        int r = 0;

        for (size_t i = 0; r >= 0 && i < NELEM(all); i++)
                r = all[i](c, e);
        return r < 0 ? r : 0;
}

/* ---- changes ---- */

static int claim(const struct change *c, struct err *e)
{
        uint32_t cpus[LIMIT_VCPU];
        struct slice_limits l;
        int r;

        r = claim_gpus(c->b->host->claims, c->to->cluster, c->from->generation, c->to->gpus, e);
        if (r < 0)
                return err_set(e, r, "gpuCount: a GPU is in use by another host on this machine");
        boot_limits(c->b, c->to, cpus, &l);
        if (l.n_cpus == 0)
                return 0;
        r = claim_cpus(c->b->host->claims, c->to->cluster, c->from->generation, cpus, l.n_cpus, e);
        return r == -EUSERS
                       ? err_set(e, r, "vcpuCount: a CPU is in use by another host on this machine")
                       : r;
}

static int lower_memory(const struct change *c, struct err *e)
{
        int r;

        if (c->to->memory_mib >= c->from->memory_mib)
                return 0;
        r = slice_memory_lower(c->b->host->slices, c->slice, c->to->memory_mib * MIB, e);
        return r < 0 ? err_wrap(e, r, "memoryInGb") : 0;
}

static int grow_disk(int dir, const char *name, uint32_t gib, const char *field, struct err *e)
{
        int r = must_grow(dir, name, gib * GIB, e);

        if (r == 1)
                r = disk_grow_mounted(dir, name, gib * GIB, e);
        return r < 0 ? err_wrap(e, r, "%s", field) : 0;
}

static int grow_disks(const struct change *c, struct err *e)
{
        int r = 0;

        if (c->to->volume_gib > 0)
                r = grow_disk(c->b->host->volumes, c->volume, c->to->volume_gib, "volumeInGb", e);
        return r < 0 ? r
                     : grow_disk(c->b->host->disks, c->disk, c->to->container_disk_gib,
                                 "containerDiskInGb", e);
}

/* The group as @p has it, and no CPU beyond. */
static int limit(const struct change *c, const struct plan *p, struct err *e)
{
        uint32_t cpus[LIMIT_VCPU];
        struct slice_limits l;
        int r;

        boot_limits(c->b, p, cpus, &l);
        r = slice_apply(c->b->host->slices, c->slice, &l, e);
        if (r >= 0)
                r = boot_limit_monitor(c->b, &l, e);
        if (r >= 0 && l.n_cpus > 0)
                r = claim_cpus_keep(c->b->host->claims, p->cluster, cpus, l.n_cpus, e);
        return r;
}

static int change_network(const struct change *c, const struct plan *p, struct err *e)
{
        struct net_policy to = { .account = c->b->net_account, .ports = c->b->ports };
        int r = egress_parse("egressAllow", p->egress, &to.egress, e);

        return r < 0 ? r : net_change(c->b->host->net, c->b->slot, &to, e);
}

static int make(const struct change *c, struct err *e)
{
        int r = claim(c, e);

        if (r >= 0)
                r = lower_memory(c, e);
        if (r >= 0)
                r = grow_disks(c, e);
        if (r >= 0)
                r = limit(c, c->to, e);
        if (r >= 0)
                r = change_network(c, c->to, e);
        /* last of all: what was once opened cannot be taken back by putting things back */
        return r < 0 ? r : change_gpus(c, e);
}

/* As it was.  Claims of GPUs are the engine's to give back, after a check.  -ENOTRECOVERABLE: one may be
 * open that it shall not have. */
static int put_back(const struct change *c, int r, struct err *e)
{
        struct err mine = { 0 };

        (void) limit(c, c->from, &mine); /* the next plan says the same again */
        (void) change_network(c, c->from, &mine);
        if (change_gpus_back(c, &mine) >= 0)
                return r;
        (void) err_wrap(e, r, "%s; and its GPUs cannot be put back as they were (%s)", mine.msg,
                        "they stay with it until it ends");
        return -ENOTRECOVERABLE;
}

int boot_change(struct boot *b, struct err *e)
{
        struct change c = { .b = b, .to = &b->plan, .from = &b->was };
        int r;

        boot_slice_name(b->slot, c.slice);
        boot_disk_name(b->plan.cluster, b->attempt, c.disk);
        boot_volume_name(b->plan.cluster, c.volume);
        (void) slice_thaw(b->host->slices, c.slice, NULL); /* an earlier run was killed */
        r = check(&c, e);
        if (r >= 0)
                r = make(&c, e);
        return r < 0 ? put_back(&c, r, e) : 0;
}
