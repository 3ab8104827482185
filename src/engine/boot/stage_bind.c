/* stage_bind.c - the stages that bind host resources: plan, shell, image, disk, net, slice.
 * Operation process; see boot.h for what undo may rely on. */
#include "engine/boot/stage.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/str.h"
#include "engine/claim/claim.h"
#include "engine/disk/disk.h"
#include "engine/idmap.h"
#include "engine/image/base.h"
#include "engine/instance.h"
#include "engine/sandbox/apparmor.h"
#include "model/limits.h"

#define GIB            (1ULL << 30)
#define MIB            (1ULL << 20)
#define DISK_WAIT_US   (20 * US_PER_S) /* a predecessor's mount is still going away */
#define KILL_WAIT_US   (20 * US_PER_S)
#define MONITOR_MEMORY (64ULL << 20) /* its exec sessions included */
#define MONITOR_PIDS   256U
#define MONITOR_MCPU   500U /* on CPUs that are shared */
/* 500 vCPUs have the most that there is */
#define WEIGHT_PER_VCPU 20U
#define WEIGHT_MOST     10000U
/* Whoever comes so near to the limit of memory is slowed down, and gives file pages back: a short way, or
 * the last part of the memory that was sold would be there in name only. */
#define HIGH_PART 64U
#define HIGH_MOST (64 * MIB)

int stage_plan_run(struct boot *b, struct err *e)
{
        const struct instance *inst = b->host->inst;
        uint32_t cpus[LIMIT_VCPU];
        size_t n = strv_len(b->plan.cpus);
        int r = plan_check(&b->plan, e);

        if (r < 0)
                return r;
        if (inst->conf.cpu_overcommit <= 1 && n == 0)
                return err_set(e, -EINVAL, "cpus: this host pins vCPUs and the plan names none");
        for (size_t i = 0; i < n; i++) {
                uint64_t v = 0;

                (void) str_u64(b->plan.cpus[i], 0, 65535, &v); /* plan_check() saw it */
                cpus[i] = (uint32_t) v;
        }
        return n ? claim_cpus(b->host->claims, b->plan.cluster, b->plan.generation, cpus, n, e) : 0;
}

int stage_plan_undo(struct boot *b, const struct undo_how *how, struct err *e)
{
        int r;

        (void) how;
        if (b->slot == 0)
                return 0;
        r = apparmor_remove(b->host->apparmor, b->slot, e); /* nothing of the slot runs any more */
        if (r >= 0)
                r = claim_release(b->host->claims, b->plan.cluster, b->plan.generation, e);
        if (r >= 0)
                r = claim_release(b->host->claims, b->claim, UINT64_MAX, e);
        return r;
}

/* Bare groups, with what suits a monitor and a process that waits. */
static int make_group(struct boot *b, const char *name, struct slice_enter *ret, struct err *e)
{
        static const struct slice_limits l = { .memory_bytes = MONITOR_MEMORY,
                                               .pids = MONITOR_PIDS,
                                               .weight = WEIGHT_PER_VCPU };
        int r = slice_create(b->host->slices, name, &l, e);

        return r < 0 ? r : slice_enter_open(b->host->slices, name, ret, e);
}

int boot_prepare(struct boot *b, struct err *e)
{
        struct slice_enter enter = { .v2_dir = -EBADF }, monitor = { .v2_dir = -EBADF };
        struct net_ns net = { -EBADF, -EBADF };
        struct sandbox_place place = { .id_base = claim_id_base(b->slot),
                                       .monitor_uid = claim_monitor_uid(b->slot),
                                       .libexec = b->host->inst->libexec,
                                       .slice = &enter,
                                       .monitor_slice = &monitor };
        char name[32];
        int r;

        boot_monitor_slice_name(b->slot, name);
        r = make_group(b, name, &monitor, e);
        boot_slice_name(b->slot, name);
        if (r >= 0)
                r = make_group(b, name, &enter, e);
        if (r >= 0)
                r = net_prepare(b->host->net, b->slot, &net, e);
        if (r >= 0)
                r = b->userns = idmap_userns(place.id_base, e);
        if (r >= 0)
                r = apparmor_prepare(b->host->apparmor, b->slot, SECURITY_STANDARD, e);
        place.netns = net.netns;
        place.sysfs_mnt = net.sysfs;
        if (r >= 0)
                r = sandbox_shell_make(&place, &b->shell, e);
        net_ns_done(&net); /* the first process holds it */
        slice_enter_done(&enter);
        slice_enter_done(&monitor);
        return r < 0 ? r : 0;
}

int stage_shell_run(struct boot *b, struct err *e)
{
        return b->shell.up >= 0 ? 0 : boot_prepare(b, e);
}

int stage_image_run(struct boot *b, struct err *e)
{
        int r = b->lower_mnt = image_base_clone(b->host->images, &b->image, b->userns, e);

        if (r >= 0 && b->image.objects)
                r = b->data_mnt = image_objects_clone(b->host->images, e);
        return r < 0 ? r : 0;
}

static int container_disk(struct boot *b, struct err *e)
{
        char name[64];
        int r;

        boot_disk_name(b->plan.cluster, b->attempt, name);
        if (b->disk_mnt >= 0) { /* a rename does not disturb the mount */
                if (renameat(b->host->disks, b->disk_pool_name, b->host->disks, name) < 0)
                        return err_errno(e, -errno, "take disk %s from the pool",
                                         b->disk_pool_name);
        } else {
                r = disk_make_fast(b->host->disks, name, b->plan.container_disk_gib * GIB, e);
                if (r < 0)
                        return r;
                b->disk_mnt = disk_mount(b->host->disks, name, 0, e);
                if (b->disk_mnt < 0)
                        return b->disk_mnt;
        }
        b->upper_mnt = fd_take(&b->disk_mnt);
        return idmap_mount(b->upper_mnt, b->userns, 0, e);
}

void boot_volume_name(const char *cluster, char ret[static 64])
{
        (void) snprintf(ret, 64, "%s.img", cluster);
}

/* Created once, kept; a plan that asks for more grows it. */
static int volume(struct boot *b, struct err *e)
{
        uint64_t want = b->plan.volume_gib * GIB, size = 0, used = 0, fs = 0;
        char name[64];
        int r;

        if (want == 0)
                return 0;
        boot_volume_name(b->plan.cluster, name);
        r = disk_sizes(b->host->volumes, name, &size, &used);
        if (r == -ENOENT)
                r = disk_make(b->host->volumes, name, want,
                              b->host->inst->conf.disk_overcommit <= 1, true, e);
        else if (r < 0)
                r = err_errno(e, r, "volume %s", name);
        else if (size < want)
                r = disk_grow(b->host->volumes, name, want, e);
        else if (size == want && (r = disk_fs_size(b->host->volumes, name, &fs, e)) >= 0 &&
                 fs < want) /* the last time it grew was cut short */
                r = disk_grow(b->host->volumes, name, want, e);
        if (r < 0)
                return err_wrap(e, r, "volumeInGb");
        b->volume_mnt = disk_mount(b->host->volumes, name, clock_mono_us() + DISK_WAIT_US, e);
        r = b->volume_mnt < 0 ? b->volume_mnt : idmap_mount(b->volume_mnt, b->userns, 0, e);
        return r < 0 ? err_wrap(e, r, "volume") : 0;
}

int stage_disk_run(struct boot *b, struct err *e)
{
        int r = container_disk(b, e);

        if (r < 0)
                return err_wrap(e, r, "containerDiskInGb");
        r = volume(b, e);
        if (r < 0)
                return r;
        b->root_mnt = sandbox_overlay(b->lower_mnt, b->data_mnt, b->upper_mnt, e);
        return b->root_mnt < 0 ? b->root_mnt : 0;
}

int stage_disk_undo(struct boot *b, const struct undo_how *how, struct err *e)
{
        char name[64];
        int r;

        boot_disk_name(b->plan.cluster, b->attempt, name);
        r = disk_remove(b->host->disks, name);
        if (r < 0)
                return err_errno(e, r, "remove %s", name);
        if (!how->volume)
                return 0;
        boot_volume_name(b->plan.cluster, name);
        r = disk_remove(b->host->volumes, name);
        return r < 0 ? err_errno(e, r, "remove volume %s", name) : 0;
}

int stage_net_run(struct boot *b, struct err *e)
{
        struct net_policy p = { .account = b->net_account, .ports = b->ports };
        int r = egress_parse("egressAllow", b->plan.egress, &p.egress, e);

        return r < 0 ? r : net_bind(b->host->net, b->slot, &p, &b->lease, e);
}

int stage_net_undo(struct boot *b, const struct undo_how *how, struct err *e)
{
        int r = 0;

        (void) how;
        if (b->slot == 0)
                return 0;
        if (instance_has_edge(b->host->inst)) /* which knows no way to it any more */
                r = net_end_sockets(b->host->net, b->slot, e);
        return r < 0 ? r : net_release(b->host->net, b->slot, &b->ports, true, e);
}

void boot_limits(const struct boot *b, const struct plan *p, uint32_t cpus[static LIMIT_VCPU],
                 struct slice_limits *ret)
{
        const struct instance *inst = b->host->inst;
        const uint64_t memory = p->memory_mib * MIB, part = memory / HIGH_PART;
        const uint32_t pids = p->pids ? p->pids : inst->conf.pids;
        const uint32_t weight = p->vcpu * WEIGHT_PER_VCPU;
        size_t n = strv_len(p->cpus);

        for (size_t i = 0; i < n; i++) {
                uint64_t v = 0;

                (void) str_u64(p->cpus[i], 0, 65535, &v);
                cpus[i] = (uint32_t) v;
        }
        *ret = (struct slice_limits){ .memory_bytes = memory,
                                      .memory_high = memory - (part < HIGH_MOST ? part : HIGH_MOST),
                                      .pids = pids < inst->pids_most ? pids : inst->pids_most,
                                      .weight = weight < WEIGHT_MOST ? weight : WEIGHT_MOST,
                                      .cpus = cpus,
                                      .n_cpus = n,
                                      .mems = p->mems };
        if (n == 0 || inst->conf.cpu_overcommit > 1)
                ret->quota_mcpu = p->vcpu * 1000;
}

/* The device behind a disk of ours. */
static int limit_disk(const struct engine_conf *c, int mnt, struct slice_limits *l, struct err *e)
{
        struct slice_io io = { .read_bytes = c->io_read_bytes,
                               .write_bytes = c->io_write_bytes,
                               .read_ops = c->io_read_ops,
                               .write_ops = c->io_write_ops };
        struct stat st;

        if (mnt < 0 || !(io.read_bytes | io.write_bytes | io.read_ops | io.write_ops))
                return 0;
        if (fstat(mnt, &st) < 0)
                return err_errno(e, -errno, "the disk's device");
        io.major = major(st.st_dev);
        io.minor = minor(st.st_dev);
        l->io[l->n_io++] = io;
        return 0;
}

int boot_limit_monitor(const struct boot *b, const struct slice_limits *l, struct err *e)
{
        const struct slice_limits own = { .cpus = l->cpus,
                                          .n_cpus = l->n_cpus,
                                          .quota_mcpu = l->quota_mcpu ? MONITOR_MCPU : 0 };
        char name[32];

        boot_monitor_slice_name(b->slot, name);
        return slice_apply(b->host->slices, name, &own, e);
}

/* The shell sits in the group already; from here on it has the cluster's limits. */
int stage_slice_run(struct boot *b, struct err *e)
{
        AUTO(free) struct slice_device *devices = NULL;
        uint32_t cpus[LIMIT_VCPU];
        struct slice_limits l;
        char name[32];
        int r;

        boot_limits(b, &b->plan, cpus, &l);
        r = gpu_binding_rules(&b->gpu, &devices, &l.n_devices, e);
        if (r < 0)
                return r;
        l.devices = devices;
        r = limit_disk(&b->host->inst->conf, b->upper_mnt, &l, e);
        if (r >= 0)
                r = limit_disk(&b->host->inst->conf, b->volume_mnt, &l, e);
        if (r < 0)
                return r;
        boot_slice_name(b->slot, name);
        r = slice_apply(b->host->slices, name, &l, e);
        return r < 0 ? r : boot_limit_monitor(b, &l, e);
}

int stage_slice_undo(struct boot *b, const struct undo_how *how, struct err *e)
{
        uint64_t deadline = clock_mono_us() + KILL_WAIT_US;
        char name[32], disk[64];
        int r;

        (void) how;
        if (b->slot == 0)
                return 0;
        /* The monitor's group first: a launcher caught in it cannot start anything in the other
         * one any more, and the first process is in one of the two at every instant. */
        boot_monitor_slice_name(b->slot, name);
        r = slice_kill(b->host->slices, name, deadline, e);
        /* what the disk has not written yet never needs to be */
        boot_disk_name(b->plan.cluster, b->attempt, disk);
        if (r >= 0)
                r = disk_abandon(b->host->disks, disk, e);
        boot_slice_name(b->slot, name);
        if (r >= 0)
                r = slice_kill(b->host->slices, name, deadline, e);
        if (r >= 0)
                r = slice_remove(b->host->slices, name, e);
        boot_monitor_slice_name(b->slot, name);
        if (r >= 0)
                r = slice_remove(b->host->slices, name, e);
        return r;
}
