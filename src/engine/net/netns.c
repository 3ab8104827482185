/* netns.c - see netns.h.  In operation processes, which have one thread.  Always holds: whatever
 * fails inside, the process leaves the new namespace again before it returns. */
#include "engine/net/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"

#define SELF_NETNS "/proc/thread-self/ns/net"

int netns_own(struct err *e)
{
        int fd = open(SELF_NETNS, O_RDONLY | O_CLOEXEC);

        return fd < 0 ? err_errno(e, -errno, "open %s", SELF_NETNS) : fd;
}

/* In order.  An empty value stands for the range of groups.  A host that was booted without IPv6
 * lacks its files, and needs none of them. */
static const struct {
        const char *path, *value;
        bool may_lack;
} settings[] = {
        /* The namespace belongs to the host's root, so no capability of the cluster counts in it:
         * what root inside expects to do must be free to everyone inside. */
        { "/proc/sys/net/ipv4/ip_unprivileged_port_start", "0", false },
        { "/proc/sys/net/ipv4/ping_group_range", "", false },
        /* IPv4 settings are copied from the host, which forwards; a cluster is a plain host. */
        { "/proc/sys/net/ipv4/ip_forward", "0", false },
        { "/proc/sys/net/ipv6/conf/default/disable_ipv6", "1", true },
        { "/proc/sys/net/ipv6/conf/all/disable_ipv6", "1", true },
        { "/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0", true },
};

static int write_settings(uint32_t gid_first, uint32_t gid_last, struct err *e)
{
        char range[32];

        (void) snprintf(range, sizeof range, "%u %u", gid_first, gid_last);
        for (size_t i = 0; i < NELEM(settings); i++) {
                const char *value = *settings[i].value ? settings[i].value : range;
                int r = fd_write_value(AT_FDCWD, settings[i].path, value);

                if (r == -ENOENT && settings[i].may_lack)
                        continue;
                if (r < 0)
                        return err_errno(e, r, "write '%s' to %s", value, settings[i].path);
        }
        return 0;
}

/* sysfs shows the network namespace of the process that makes it, so it is made here. */
static int make_sysfs(struct err *e)
{
        AUTO(fd) int fs = fsopen("sysfs", FSOPEN_CLOEXEC);
        int mnt;

        if (fs < 0)
                return err_errno(e, -errno, "fsopen sysfs");
        if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
                return err_errno(e, -errno, "make sysfs");
        mnt = fsmount(fs, FSMOUNT_CLOEXEC,
                      MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
        return mnt < 0 ? err_errno(e, -errno, "fsmount sysfs") : mnt;
}

struct inside {
        int netns, sysfs;
        struct nl_sock rtnl;
};

static int fill(uint32_t gid_first, uint32_t gid_last, struct inside *in, struct err *e)
{
        int r;

        in->netns = netns_own(e);
        if (in->netns < 0)
                return in->netns;
        r = write_settings(gid_first, gid_last, e);
        if (r < 0)
                return r;
        in->sysfs = make_sysfs(e);
        if (in->sysfs < 0)
                return in->sysfs;
        return nl_sock_open(&in->rtnl, NETLINK_ROUTE, e);
}

int netns_make(int own, uint32_t gid_first, uint32_t gid_last, int *ret, int *ret_sysfs,
               struct nl_sock *ret_rtnl, struct err *e)
{
        struct inside in = { .netns = -EBADF, .sysfs = -EBADF };
        int r;

        if (unshare(CLONE_NEWNET) < 0)
                return err_errno(e, -errno, "new network namespace");
        r = fill(gid_first, gid_last, &in, e);
        if (setns(own, CLONE_NEWNET) < 0)
                r = err_errno(e, -ENOTRECOVERABLE, "return to the host's network namespace");
        if (r < 0) {
                nl_sock_close(&in.rtnl);
                (void) fd_close(in.sysfs);
                (void) fd_close(in.netns);
                return r;
        }
        *ret = in.netns;
        *ret_sysfs = in.sysfs;
        *ret_rtnl = in.rtnl;
        return 0;
}
