/* rights.c - see rights.h.
 *
 * The list was made by watching what the kernel asks for (its event capability:cap_capable) while the
 * tests ran.  The service's CapabilityBoundingSet is the same list; a test compares the two, and what
 * running programs have.  Where a host's root has less, a container for instance, it stays less. */
#include "engine/rights.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"

#define RIGHT(c, why)                                                                              \
        {                                                                                          \
#c, c, why                                                                         \
        }

const struct right rights[] = {
        RIGHT(CAP_CHOWN,
              "gives directories, sockets and disks to the ids of clusters and programs"),
        RIGHT(CAP_DAC_OVERRIDE, "reads and writes what belongs to clusters, overlayfs for them"),
        RIGHT(CAP_FOWNER, "modes and times of files that belong to clusters; overlayfs copies up"),
        RIGHT(CAP_FSETID, "set-id bits of files survive the copy to a cluster's own disk"),
        RIGHT(CAP_KILL, "ends processes of clusters, monitors and programs of other uids"),
        RIGHT(CAP_SETGID, "id maps of clusters; programs of ours become others"),
        RIGHT(CAP_SETUID, "the same"),
        RIGHT(CAP_SETPCAP, "drops capabilities from bounding sets, its own and those of children"),
        RIGHT(CAP_NET_BIND_SERVICE, "the API's and the resolver's listeners on ports below 1024"),
        RIGHT(CAP_NET_ADMIN, "links, addresses, routes and firewall of clusters"),
        RIGHT(CAP_SYS_CHROOT, "enters a running cluster's mount namespace for an exec session"),
        RIGHT(CAP_SYS_PTRACE, "namespaces and open files of processes with other ids, below /proc"),
        RIGHT(CAP_SYS_ADMIN, "mounts, namespaces, loop devices, control groups, fanotify"),
        RIGHT(CAP_SYS_NICE, "its loop before others; processes of clusters into a set of CPUs"),
        RIGHT(CAP_SYS_RESOURCE, "grows a disk that is mounted; blocks that a file system reserves"),
        RIGHT(CAP_MKNOD, "device nodes of clusters"),
        RIGHT(CAP_SETFCAP, "capabilities of an image's files survive the copy to a cluster's disk"),
        RIGHT(CAP_MAC_ADMIN, "loads and removes the AppArmor profiles of clusters"),
        RIGHT(CAP_AUDIT_READ, "the kernel's word on what seccomp and AppArmor stop in clusters"),
};
const size_t n_rights = NELEM(rights);

uint64_t rights_listed(void)
{
        uint64_t all = 0;

        for (size_t i = 0; i < n_rights; i++)
                all |= 1ULL << rights[i].cap;
        return all;
}

static int get(struct __user_cap_header_struct *h,
               struct __user_cap_data_struct d[static _LINUX_CAPABILITY_U32S_3], struct err *e)
{
        *h = (struct __user_cap_header_struct){ .version = _LINUX_CAPABILITY_VERSION_3 };
        return syscall(SYS_capget, h, d) < 0 ? err_errno(e, -errno, "capabilities") : 0;
}

int rights_effective(uint64_t *ret, struct err *e)
{
        struct __user_cap_header_struct h;
        struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3];
        int r = get(&h, d, e);

        if (r >= 0)
                *ret = d[0].effective | (uint64_t) d[1].effective << 32;
        return r;
}

int rights_keep(struct err *e)
{
        struct __user_cap_header_struct h;
        struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3];
        uint64_t keep = rights_listed();
        int r = get(&h, d, e);

        if (r < 0)
                return r;
        for (unsigned c = 0; prctl(PR_CAPBSET_READ, c, 0, 0, 0) >= 0; c++)
                if (!(keep & 1ULL << c) && prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0)
                        return err_errno(e, -errno, "drop capability %u", c);
        for (size_t i = 0; i < NELEM(d); i++) {
                uint32_t half = (uint32_t) (keep >> (32 * i));

                d[i].permitted &= half;
                d[i].effective &= half;
                d[i].inheritable = 0;
        }
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ||
            syscall(SYS_capset, &h, d) < 0)
                return err_errno(e, -errno, "drop capabilities");
        return 0;
}
