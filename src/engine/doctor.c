/* doctor.c - see doctor.h.  One row per question; a probe leaves nothing behind. */
#include "engine/doctor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/confine.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"
#include "engine/doctor_priv.h"
#include "engine/gpu/driver.h"
#include "engine/gpu/vfio.h"
#include "engine/instance.h"
#include "engine/net/net.h"
#include "engine/rights.h"
#include "engine/sandbox/apparmor.h"
#include "engine/sshtree.h"

#define MIN_MAJOR 6
#define MIN_MINOR 1

static bool exists(const char *path)
{
        return access(path, F_OK) == 0;
}

static struct finding probe_kernel(void)
{
        struct utsname u;
        int major = 0, minor = 0;

        if (uname(&u) < 0 || sscanf(u.release, "%d.%d", &major, &minor) != 2)
                return found(MISSING, "unknown");
        return found(major > MIN_MAJOR || (major == MIN_MAJOR && minor >= MIN_MINOR) ? GOOD
                                                                                     : MISSING,
                     "Linux %s", u.release);
}

static struct finding probe_root(void)
{
        return geteuid() == 0 ? found(GOOD, "root") : found(MISSING, "uid %u", geteuid());
}

/* Those of the engine's list that this root has not: a container's, or a service's with less. */
static struct finding probe_capabilities(void)
{
        struct finding f = { .grade = GOOD, .what = "all that the engine uses" };
        uint64_t have = 0;
        size_t n = 0;

        if (rights_effective(&have, NULL) < 0)
                return found(LESS, "cannot be read");
        for (size_t i = 0; i < n_rights && n < sizeof f.what; i++)
                if (!(have & 1ULL << rights[i].cap)) {
                        n += (size_t) snprintf(f.what + n, sizeof f.what - n, "%s%s",
                                               n ? ", " : "without ", rights[i].name);
                        f.grade = LESS;
                }
        return f;
}

static struct finding probe_landlock(void)
{
        int abi = confine_landlock_abi();

        if (abi == 0)
                return found(LESS, "not in this kernel, or not in its lsm= list");
        return found(abi >= CONFINE_ABI_SCOPE ? GOOD : LESS, "ABI %d: files%s%s%s", abi,
                     abi >= CONFINE_ABI_TCP ? ", TCP" : "",
                     abi >= CONFINE_ABI_DEVICE ? ", devices" : "",
                     abi >= CONFINE_ABI_SCOPE ? ", signals and abstract sockets" : "");
}

static struct finding probe_seccomp(void)
{
        const uint32_t kill = SECCOMP_RET_KILL_PROCESS;

        if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &kill) < 0)
                return found(MISSING, "no filters in this kernel");
        return found(GOOD, "filters");
}

static struct finding probe_cgroup(void)
{
        if (exists("/sys/fs/cgroup/cgroup.controllers"))
                return found(GOOD, "version 2");
        if (exists("/sys/fs/cgroup/memory") && exists("/sys/fs/cgroup/devices"))
                return found(LESS, "version 1%s",
                             exists("/sys/fs/cgroup/unified") ? " (hybrid)" : "");
        return found(MISSING, "none mounted at /sys/fs/cgroup");
}

/* In a child, so that nothing of it stays with us. */
static bool child_can(int flags)
{
        pid_t pid = fork();
        int status = 1;

        if (pid == 0)
                _exit(unshare(flags) == 0 ? 0 : 1);
        return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static struct finding probe_namespaces(void)
{
        if (!child_can(CLONE_NEWUSER))
                return found(MISSING, "user namespaces are switched off");
        if (!child_can(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS |
                       CLONE_NEWCGROUP))
                return found(MISSING, "some kinds are missing");
        return found(GOOD, "all");
}

static struct finding probe_apparmor(void)
{
        struct err e = { 0 };

        return apparmor_probe(&e) >= 0 ? found(GOOD, "a profile for each cluster")
                                       : found(LESS, "%s", str_after(e.msg, "AppArmor: "));
}

/* Asked as the engine will: a module that is installed is loaded by this. */
static bool file_system(const char *name)
{
        AUTO(fd) int fd = (int) syscall(SYS_fsopen, name, FSOPEN_CLOEXEC);

        return fd >= 0;
}

static struct finding probe_overlay(void)
{
        return file_system("overlay") ? found(GOOD, "yes") : found(MISSING, "not in this kernel");
}

static struct finding probe_erofs(void)
{
        struct utsname u;
        int major = 0, minor = 0;

        if (!file_system("erofs"))
                return found(LESS, "not in this kernel");
        if (uname(&u) == 0 && sscanf(u.release, "%d.%d", &major, &minor) == 2 &&
            (major > 6 || (major == 6 && minor >= 12)))
                return found(GOOD, "file-backed mounts");
        return found(LESS, "only through loop devices");
}

static struct finding probe_loop(void)
{
        AUTO(fd) int fd = open("/dev/loop-control", O_RDWR | O_CLOEXEC);

        if (fd < 0)
                return found(MISSING, "/dev/loop-control: %s", strerror(errno));
        return ioctl(fd, LOOP_CTL_GET_FREE) >= 0 ? found(GOOD, "yes")
                                                 : found(MISSING, "none free: %s", strerror(errno));
}

static struct finding probe_idmap(void)
{
        /* the call exists when it fails for its arguments and not for its number */
        struct mount_attr a = { 0 };

        if (syscall(SYS_mount_setattr, -1, "", AT_EMPTY_PATH, &a, sizeof a) < 0 && errno == ENOSYS)
                return found(MISSING, "not in this kernel");
        return found(GOOD, "yes");
}

static struct finding probe_nft(void)
{
        AUTO(free) char *list = NULL;

        if (fd_read_file(AT_FDCWD, "/proc/net/netfilter/nf_log", 4096, &list, NULL) >= 0)
                return found(GOOD, "nf_tables");
        return exists("/proc/net/nf_conntrack") || exists("/sys/module/nf_tables")
                       ? found(GOOD, "nf_tables")
                       : found(LESS, "not loaded yet");
}

static struct finding probe_ipv6(const struct instance *conf)
{
        struct err e = { 0 };
        bool advertised;

        if (str_eq(conf->conf.network_pool6, "none"))
                return found(GOOD, "not wanted (pool6 = none)");
        return net_probe_ipv6(&advertised, &e) >= 0 ? found(GOOD, "clusters get it, translated")
                                                    : found(LESS, "%s", e.msg);
}

/* Forwarding may cost the host what it has from routers. */
static struct finding probe_advertisements(void)
{
        bool advertised = false;
        int r = net_probe_ipv6(&advertised, NULL);

        if (!advertised)
                return r == 1 ? found(LESS,
                                      "not needed now; none would be heard once clusters have IPv6")
                              : found(GOOD, "the host has no route from one");
        return r < 0 ? found(LESS,
                             "the host lives by them, and its kernel cannot forward beside that")
                     : found(GOOD, "the host lives by them, and goes on");
}

/* Of what is needed with this configuration, or not. */
static struct finding lacking(bool needed, const struct err *why)
{
        if (why->code == -EPERM)
                return found(LESS, "only root can try it");
        return found(needed ? MISSING : LESS, "%s", why->msg);
}

static struct finding probe_bandwidth(const struct instance *conf)
{
        struct err e = { 0 };
        struct finding f;

        if (net_probe_bandwidth(&e) >= 0)
                return found(GOOD, "token bucket (tbf)");
        f = lacking(conf->conf.network_bandwidth > 0, &e);
        if (f.grade == MISSING)
                f.then = "no cluster starts: `bandwidth` in [network] needs it";
        return f;
}

static struct finding probe_connections(const struct instance *conf)
{
        struct err e = { 0 };

        if (net_probe_connections(&e) >= 0)
                return found(GOOD, "counted for each address (ct count)");
        return lacking(conf->conf.network_connections > 0, &e);
}

static struct finding probe_room(const struct instance *conf)
{
        struct net_room room;
        struct err e = { 0 };
        struct finding f;

        if (conf->conf.network_connections == 0) {
                f = found(LESS, "one cluster can fill it (connections = 0)");
                f.then = "set `connections` in [network]";
                return f;
        }
        if (net_room(conf, &room, &e) < 0)
                return e.code == -ENOENT
                               ? found(GOOD, "not loaded yet: the engine's start looks again")
                               : found(LESS, "%s", e.msg);
        return found(room.entries >= room.wanted ? GOOD : LESS,
                     "%llu entries, %llu clusters and the host may use %llu",
                     (unsigned long long) room.entries, (unsigned long long) room.clusters,
                     (unsigned long long) room.wanted);
}

static struct finding probe_prjquota(void)
{
        AUTO(free) char *mounts = NULL;

        if (fd_read_file(AT_FDCWD, "/proc/mounts", 1 << 20, &mounts, NULL) >= 0 &&
            strstr(mounts, "prjquota"))
                return found(GOOD, "a mount has them");
        return found(LESS, "no mount has them");
}

static struct finding probe_ssh(void)
{
        return access(SSHTREE_DROPBEAR, X_OK) == 0
                       ? found(GOOD, SSHTREE_DROPBEAR)
                       : found(LESS, "no " SSHTREE_DROPBEAR " (package dropbear-bin)");
}

static struct finding probe_kvm(void)
{
        AUTO(fd) int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

        return fd >= 0 ? found(GOOD, "/dev/kvm opens") : found(LESS, "%s", strerror(errno));
}

static struct finding probe_iommu(void)
{
        AUTO(vfio_done) struct vfio_inventory v = { 0 };
        AUTO(fd) int sys = open("/sys", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct finding f = { .grade = LESS };

        if (sys < 0 || vfio_read(sys, &v, NULL) < 0)
                return found(LESS, "its groups cannot be read");
        vfio_summary(&v, f.what, sizeof f.what);
        f.grade = v.iommu ? GOOD : LESS;
        return f;
}

/* GPUs that the kernel's driver has taken. */
static unsigned count_gpus(void)
{
        DIR *dir = opendir("/proc/driver/nvidia/gpus");
        const struct dirent *de;
        unsigned n = 0;

        while (dir && (de = readdir(dir)) != NULL)
                n += de->d_name[0] != '.';
        if (dir)
                (void) closedir(dir);
        return n;
}

/* What the configuration asks for: the driver that is there, none, or a simulated one. */
static struct finding probe_gpus(const struct instance *conf)
{
        AUTO(free) char *libexec = NULL, *text = NULL;
        struct err e = { 0 };
        unsigned n;
        int r = instance_find_libexec(&libexec, &e);

        if (r >= 0)
                r = gpu_driver_describe(conf->conf.gpu_driver, libexec, &text, &e);
        if (r < 0)
                return found(MISSING, "%s", e.msg);
        if (!r || str_after(conf->conf.gpu_driver, "simulated:"))
                return found(r ? GOOD : LESS, "%s", text);
        if (!exists("/dev/nvidiactl")) /* vmm-gpu may not make it */
                return found(LESS, "%.160s; /dev/nvidiactl is missing: run nvidia-modprobe", text);
        n = count_gpus();
        return found(n ? GOOD : LESS, "%.160s, %u GPU%s", text, n, n == 1 ? "" : "s");
}

static const struct {
        const char *name;
        struct finding (*probe)(void);
        struct finding (*probe_conf)(const struct instance *conf); /* instead */
        const char *without; /* what follows when it is missing or less */
} checks[] = {
        { "kernel", probe_kernel, NULL, "Linux 6.1 or newer is needed" },
        { "rights", probe_root, NULL, "the engine must run as root" },
        { "capabilities", probe_capabilities, NULL,
          "what takes them is refused; CAP_SYS_RESOURCE is for disks that grow while mounted" },
        { "seccomp", probe_seccomp, NULL, "neither clusters nor our own programs can be held" },
        { "Landlock", probe_landlock, NULL,
          "our own programs are held by their users, mounts and system call filters where it ends" },
        { "cgroups", probe_cgroup, NULL,
          "version 1 works; memory pressure figures and I/O weight per cluster are coarser" },
        { "namespaces", probe_namespaces, NULL, "clusters cannot be isolated" },
        { "AppArmor", probe_apparmor, NULL,
          "clusters are confined by user namespace, seccomp and capabilities only; require_apparmor = yes refuses to start" },
        { "overlayfs", probe_overlay, NULL, "images cannot be mounted" },
        { "EROFS", probe_erofs, NULL,
          "images are mounted from unpacked layers or through loop devices" },
        { "loop devices", probe_loop, NULL, "container disks and volumes cannot be mounted" },
        { "idmapped mounts", probe_idmap, NULL, "images and disks cannot be given to a cluster" },
        { "nftables", probe_nft, NULL,
          "is loaded by the first rule; without it clusters get no network" },
        { .name = "IPv6", .probe_conf = probe_ipv6, .without = "clusters have IPv4 only" },
        { "router adverts", probe_advertisements, NULL,
          "set an IPv6 route by hand, or accept_ra = 2 on the uplink, or take Linux 6.17 or later" },
        { .name = "bandwidth",
          .probe_conf = probe_bandwidth,
          .without =
                  "`bandwidth` in [network] has to stay 0: no cluster's share of the uplink is held" },
        { .name = "connections",
          .probe_conf = probe_connections,
          .without =
                  "`connections` in [network] has to be 0: one cluster can fill the host's table of them" },
        { .name = "conntrack table",
          .probe_conf = probe_room,
          .without =
                  "one account can fill it for all: set net.netfilter.nf_conntrack_max (sysctl) to the larger number, or lower `connections` in [network]" },
        { "project quotas", probe_prjquota, NULL,
          "none needed: disks are files of exactly their size with an ext4 inside" },
        { .name = "HAProxy", .probe_conf = doctor_haproxy },
        { .name = "edge address", .probe_conf = doctor_edge_address, .without = "try it as root" },
        { .name = "edge domains", .probe_conf = doctor_edge_domains },
        { .name = "edge names", .probe_conf = doctor_edge_names },
        { .name = "cert: clusters", .probe_conf = doctor_edge_tenant, .without = "try it as root" },
        { .name = "cert: API", .probe_conf = doctor_edge_api, .without = "try it as root" },
        { "SSH server", probe_ssh, NULL, "clusters with startSsh are refused" },
        { "KVM", probe_kvm, NULL, "isolation: vm is not available" },
        { "IOMMU", probe_iommu, NULL, "GPUs cannot be handed to microVMs" },
        { .name = "NVIDIA driver",
          .probe_conf = probe_gpus,
          .without = "clusters run with gpuCount 0 only" },
};

int doctor_run(FILE *out, const char *config, struct err *e)
{
        AUTO(instance_close) struct instance *conf = NULL;
        static const char *const mark[] = { "ok", "note", "MISSING" };
        int bad = 0, r = instance_read_conf(config, &conf, e);

        if (r < 0)
                return r;
        for (size_t i = 0; i < NELEM(checks); i++) {
                struct finding f = checks[i].probe ? checks[i].probe() : checks[i].probe_conf(conf);

                (void) fprintf(out, "%-8s %-16s %s\n", mark[f.grade], checks[i].name, f.what);
                if (f.grade != GOOD)
                        (void) fprintf(out, "%-8s %-16s -> %s\n", "", "",
                                       f.then ? f.then
                                       : checks[i].probe_conf && f.grade == MISSING
                                               ? "the engine does not start with this configuration"
                                               : checks[i].without);
                bad |= f.grade == MISSING;
        }
        (void) fprintf(out, "\n%s\n",
                       bad ? "This host cannot run clusters until what is MISSING is mended."
                           : "This host can run clusters.");
        return bad ? err_set(e, -ENOTSUP, "this host cannot run clusters") : 0;
}
