/* masks.c - what of /proc and /sys is hidden or read-only.  First process, before any program of
 * the cluster runs, so nothing can move underneath.
 *
 * Both trees are mounts that we made a moment ago and whose type has been checked; rows are opened
 * beneath them without following links, and what covers a row is a node checked to be /dev/null or
 * a tmpfs made here.  Nothing from the image takes part. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/sandbox/sandbox_priv.h"

enum mask_kind { MASK_NONE, MASK_HIDE, MASK_RDONLY, MASK_KIND_COUNT };

struct mask {
        enum mask_kind kind;
        const char *path;
};

/* What lets a tenant watch its neighbours by name or by CPU, or learn the host's physical memory.
 * What every program reads (stat, meminfo, loadavg, vmstat) stays: sums over the whole host.  Files
 * that only the host's root may open (slabinfo, kpagecount, ...) need no row.  A row that bites
 * costs a boot 15 us, one that is not in this kernel 1 us. */
static const struct mask proc_masks[] = {
        { MASK_HIDE, "acpi" },
        { MASK_HIDE, "asound" },
        { MASK_HIDE, "buddyinfo" }, /* free physical memory by order steers memory massaging */
        { MASK_HIDE, "driver" }, /* nvidia/: everybody's GPUs; stage_gpu mounts a cluster's own */
        { MASK_HIDE, "diskstats" },  /* each neighbour's disk is a loop device with its own row */
        { MASK_HIDE, "fs" },         /* ext4/loop0/..., jbd2/...: neighbours' disks again */
        { MASK_HIDE, "interrupts" }, /* key strokes and other tenants' traffic can be timed by it */
        { MASK_HIDE, "irq" },        /* the same, by directory */
        { MASK_HIDE, "kcore" },
        { MASK_HIDE, "keys" },
        { MASK_HIDE, "latency_stats" },
        { MASK_HIDE, "locks" }, /* a lock of an open file has no pid, so everybody's are listed */
        { MASK_HIDE, "mdstat" },
        { MASK_HIDE, "partitions" },
        { MASK_HIDE, "pressure" }, /* stalls of all tenants, to the microsecond */
        { MASK_HIDE, "sched_debug" },
        { MASK_HIDE, "schedstat" }, /* run times by CPU, to the nanosecond */
        { MASK_HIDE, "scsi" },
        { MASK_HIDE, "softirqs" }, /* network and disk interrupts by CPU */
        { MASK_HIDE, "sysrq-trigger" },
        { MASK_HIDE, "timer_list" },
        { MASK_HIDE, "timer_stats" },
        { MASK_RDONLY, "bus" },
        { MASK_RDONLY, "sys" },
};

static const struct mask sys_masks[] = {
        { MASK_HIDE, "devices/virtual/bdi" },      /* one for each neighbour's disk and image */
        { MASK_HIDE, "devices/virtual/block" },    /* loop devices name other tenants' disk files */
        { MASK_HIDE, "devices/virtual/powercap" }, /* power readings leak what others compute */
        { MASK_HIDE, "firmware" },
        { MASK_HIDE, "fs/btrfs" }, /* the host's own disks */
        { MASK_HIDE, "fs/erofs" }, /* neighbours' images */
        { MASK_HIDE, "fs/ext4" },  /* how much each neighbour has written */
        { MASK_HIDE, "fs/f2fs" },  /* as btrfs */
        { MASK_HIDE, "fs/xfs" },
        { MASK_HIDE, "kernel/irq" }, /* /proc/interrupts in other words */
};

struct covers {
        int null, empty;
        bool empty_used; /* attached somewhere: from then on it can be cloned (always from 6.15) */
};

/* A detached mount that covers @at: the tree itself made read-only, or something empty. */
static int cover(const struct mask *m, int at, struct covers *c, struct err *e)
{
        const unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH;
        AUTO(fd) int fd = -EBADF;
        struct stat st;
        int r;

        if (fstat(at, &st) < 0)
                return err_errno(e, -errno, "stat");
        if (m->kind == MASK_RDONLY)
                fd = open_tree(at, "", flags);
        else if (!S_ISDIR(st.st_mode))
                fd = open_tree(c->null, "", flags);
        else if (c->empty_used)
                fd = open_tree(c->empty, "", flags);
        else
                fd = fcntl(c->empty, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                return err_errno(e, -errno, "clone a mount");
        c->empty_used |= S_ISDIR(st.st_mode) && m->kind == MASK_HIDE;
        r = m->kind == MASK_RDONLY ? mount_restrict(fd, MOUNT_ATTR_RDONLY, e) : 0;
        return r < 0 ? r : fd_take(&fd);
}

static int apply(const struct mask *m, int tree, struct covers *c, struct err *e)
{
        AUTO(fd) int at = fd_open_beneath(tree, m->path, O_PATH, 0);
        AUTO(fd) int mnt = -EBADF;

        if (at == -ENOENT)
                return 0; /* not in this kernel */
        if (at < 0)
                return err_errno(e, at, "open");
        mnt = cover(m, at, c, e);
        return mnt < 0 ? mnt : mount_attach(mnt, at, "", e);
}

int masks_apply(int proc, int sys, int null, int empty, struct err *e)
{
        struct covers c = { .null = null, .empty = empty };
        int r = 0;

        for (size_t i = 0; i < NELEM(proc_masks) && r >= 0; i++) {
                r = apply(&proc_masks[i], proc, &c, e);
                if (r < 0)
                        return err_wrap(e, r, "mask /proc/%s", proc_masks[i].path);
        }
        for (size_t i = 0; i < NELEM(sys_masks) && r >= 0; i++) {
                r = apply(&sys_masks[i], sys, &c, e);
                if (r < 0)
                        return err_wrap(e, r, "mask /sys/%s", sys_masks[i].path);
        }
        return 0;
}
