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
#include "engine/policy.h"

#define SELF_NETNS "/proc/thread-self/ns/net"

int netns_own(struct err *e)
{
        int fd = open(SELF_NETNS, O_RDONLY | O_CLOEXEC);

        return fd < 0 ? err_errno(e, -errno, "open %s", SELF_NETNS) : fd;
}

/* What a cluster has of IPv6 on a host that gives it none; one that was booted without lacks the files. */
static const struct {
        const char *path, *value;
} without_ipv6[] = {
        { "/proc/sys/net/ipv6/conf/default/disable_ipv6", "1" },
        { "/proc/sys/net/ipv6/conf/all/disable_ipv6", "1" },
        { "/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0" },
};

static int write_setting(const char *path, const char *value, bool may_lack, struct err *e)
{
        int r = fd_write_value(AT_FDCWD, path, value);

        return r >= 0 || (r == -ENOENT && may_lack)
                       ? 0
                       : err_errno(e, r, "write '%s' to %s", value, path);
}

/* In order; a profile's own come later, when a program is started (sandbox/sysctls.c). */
static int write_settings(uint32_t gid_first, uint32_t gid_last, bool ipv6, struct err *e)
{
        const struct policy *all = policy_of(SECURITY_NONE);
        char range[32];

        int r = 0;

        (void) snprintf(range, sizeof range, "%u %u", gid_first, gid_last);
        for (size_t i = 0; r >= 0 && i < all->n_sysctls; i++) {
                const struct policy_sysctl *s = &all->sysctls[i];

                r = write_setting(s->path, s->value ? s->value : range, s->may_lack, e);
        }
        for (size_t i = 0; r >= 0 && !ipv6 && i < NELEM(without_ipv6); i++)
                r = write_setting(without_ipv6[i].path, without_ipv6[i].value, true, e);
        return r;
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

static int fill(uint32_t gid_first, uint32_t gid_last, bool ipv6, struct inside *in, struct err *e)
{
        int r;

        in->netns = netns_own(e);
        if (in->netns < 0)
                return in->netns;
        r = write_settings(gid_first, gid_last, ipv6, e);
        if (r < 0)
                return r;
        in->sysfs = make_sysfs(e);
        if (in->sysfs < 0)
                return in->sysfs;
        return nl_sock_open(&in->rtnl, NETLINK_ROUTE, e);
}

int netns_make(int own, uint32_t gid_first, uint32_t gid_last, bool ipv6, int *ret, int *ret_sysfs,
               struct nl_sock *ret_rtnl, struct err *e)
{
        struct inside in = { .netns = -EBADF, .sysfs = -EBADF };
        int r;

        if (unshare(CLONE_NEWNET) < 0)
                return err_errno(e, -errno, "new network namespace");
        r = fill(gid_first, gid_last, ipv6, &in, e);
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
