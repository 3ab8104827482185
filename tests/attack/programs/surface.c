/* surface.c - ways into the kernel that a cluster has no use for.  Inside a cluster.
 *
 * "NAME ok" for one that opened, else "NAME ERRNO".  The operand is a directory of the cluster's own
 * for what is made on the way. */
#include "attack.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *dir;

static const char *in(const char *name)
{
        static char path[400];

        (void) snprintf(path, sizeof path, "%.300s/%s", dir, name);
        return path;
}

static int ns_user(void)
{
        return unshare(CLONE_NEWUSER);
}

static int ns_mount(void)
{
        return unshare(CLONE_NEWNS);
}

static int ns_net(void)
{
        return unshare(CLONE_NEWNET);
}

static int ns_clone(void)
{
        long r = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);

        if (r == 0)
                _exit(0);
        return (int) r;
}

static int ns_clone3(void)
{
        struct {
                unsigned long long flags, rest[10];
        } a = { .flags = CLONE_NEWUSER };
        long r = syscall(SYS_clone3, &a, sizeof a);

        if (r == 0)
                _exit(0);
        return (int) r;
}

static int ns_enter(void)
{
        int fd = open("/proc/1/ns/mnt", O_RDONLY | O_CLOEXEC);

        return fd < 0 ? fd : setns(fd, 0);
}

static int mount_tmpfs(void)
{
        (void) mkdir(in("m"), 0755);
        return mount("none", in("m"), "tmpfs", 0, NULL);
}

static int mount_proc(void)
{
        (void) mkdir(in("m"), 0755);
        return mount("none", in("m"), "proc", 0, NULL);
}

static int mount_cgroup(void)
{
        (void) mkdir(in("m"), 0755);
        return mount("none", in("m"), "cgroup", 0, "memory");
}

static int mount_cgroup2(void)
{
        (void) mkdir(in("m"), 0755);
        return mount("none", in("m"), "cgroup2", 0, NULL);
}

static int mount_new(void)
{
        return (int) syscall(SYS_fsopen, "tmpfs", 0);
}

static int mount_clone(void)
{
        return (int) syscall(SYS_open_tree, AT_FDCWD, "/", 1);
}

static int mount_writable(void)
{
        return mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL);
}

static int unmount(void)
{
        return umount2("/proc/sys", MNT_DETACH);
}

static int bpf_map(void)
{
        union bpf_attr a = {
                .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1
        };

        return (int) syscall(SYS_bpf, BPF_MAP_CREATE, &a, sizeof a);
}

static int keyctl_new(void)
{
        return (int) syscall(SYS_keyctl, 1, NULL, 0, 0, 0);
}

static int key_add(void)
{
        return (int) syscall(SYS_add_key, "user", "x", "y", 1, -4);
}

static int perf(void)
{
        struct perf_event_attr a = { .type = PERF_TYPE_SOFTWARE, .size = sizeof a };

        return (int) syscall(SYS_perf_event_open, &a, 0, -1, -1, 0);
}

static int uring(void)
{
        struct io_uring_params p = { .flags = 0 };

        return (int) syscall(SYS_io_uring_setup, 4, &p);
}

static int fault_fd(void)
{
        return (int) syscall(SYS_userfaultfd, O_CLOEXEC | 1);
}

static int kexec(void)
{
        return (int) syscall(SYS_kexec_load, 0, 0, NULL, 0);
}

static int kexec_file(void)
{
        int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

        return (int) syscall(SYS_kexec_file_load, fd, fd, 1, "", 0);
}

static int module(void)
{
        static char image[64] = "\177ELF";

        return (int) syscall(SYS_init_module, image, sizeof image, "");
}

static int module_file(void)
{
        int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

        return (int) syscall(SYS_finit_module, fd, "", 0);
}

static int module_gone(void)
{
        return (int) syscall(SYS_delete_module, "no-such-module", O_NONBLOCK);
}

static int raw4(void)
{
        return socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
}

static int raw6(void)
{
        return socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
}

static int packet(void)
{
        return socket(AF_PACKET, SOCK_RAW, 0x0300);
}

static int vsock(void)
{
        return socket(40, SOCK_STREAM, 0);
}

static int alg(void)
{
        return socket(38, SOCK_SEQPACKET, 0);
}

static int xdp(void)
{
        return socket(44, SOCK_RAW, 0);
}

static int nl_netfilter(void)
{
        return socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
}

static int nl_audit(void)
{
        return socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT);
}

static int nl_xfrm(void)
{
        return socket(AF_NETLINK, SOCK_RAW, NETLINK_XFRM);
}

static int link_down(void)
{
        struct ifreq r = { .ifr_name = "eth0" };
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        if (ioctl(fd, SIOCGIFFLAGS, &r) < 0)
                return -1;
        r.ifr_flags &= (short) ~IFF_UP;
        return ioctl(fd, SIOCSIFFLAGS, &r);
}

static int link_mac(void)
{
        struct ifreq r = { .ifr_name = "eth0", .ifr_hwaddr = { .sa_family = 1 } };
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        r.ifr_hwaddr.sa_data[0] = 2;
        return ioctl(fd, SIOCSIFHWADDR, &r);
}

static int node_kmsg(void)
{
        return mknod(in("kmsg"), S_IFCHR | 0666, makedev(1, 11)) < 0
                       ? -1
                       : open(in("kmsg"), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

static int node_disk(void)
{
        return mknod(in("disk"), S_IFBLK | 0666, makedev(7, 0)) < 0
                       ? -1
                       : open(in("disk"), O_RDONLY | O_CLOEXEC);
}

/* 0 0 is an overlay's whiteout, which the kernel lets anybody make; the filter says no to it, too */
static int node_fuse(void)
{
        return mknodat(AT_FDCWD, in("fuse"), S_IFCHR | 0666, makedev(10, 229)) < 0
                       ? -1
                       : open(in("fuse"), O_RDWR | O_CLOEXEC);
}

static int kernel_log(void)
{
        static char buf[1 << 18];
        int n = klogctl(3, buf, sizeof buf); /* all that is there */

        if (n > 0)
                (void) fwrite(buf, 1, (size_t) n, stdout);
        return n;
}

static int handle(void)
{
        struct {
                unsigned bytes;
                int type;
                char h[128];
        } h = { .bytes = 128 };
        int mnt, at = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

        if (syscall(SYS_name_to_handle_at, at, "", &h, &mnt, AT_EMPTY_PATH) < 0)
                return -1;
        return (int) syscall(SYS_open_by_handle_at, at, &h, O_RDONLY);
}

static int fanotify(void)
{
        return (int) syscall(SYS_fanotify_init, 0, O_RDONLY);
}

static int quota(void)
{
        return (int) syscall(SYS_quotactl, 0x80000100, NULL, 0, NULL);
}

static int swap_on(void)
{
        return swapon(in("x"), 0);
}

static int clock_set(void)
{
        struct timeval t;

        return gettimeofday(&t, NULL) < 0 ? -1 : settimeofday(&t, NULL);
}

static int port_io(void)
{
        return (int) syscall(SYS_iopl, 3);
}

static int reboot_now(void)
{
        return (int) syscall(SYS_reboot, 0xfee1dead, 672274793, 0, NULL); /* "no ctrl-alt-del" */
}

static int host_name(void)
{
        return (int) syscall(SYS_sethostname, "mine", 4);
}

static int nice_up(void)
{
        return setpriority(PRIO_PROCESS, 0, -5);
}

static int realtime(void)
{
        static const struct sched_param p = { .sched_priority = 1 };

        return sched_setscheduler(0, SCHED_FIFO, &p);
}

static int limit_up(void)
{
        struct rlimit r;

        if (getrlimit(RLIMIT_CORE, &r) < 0)
                return -1;
        r.rlim_max += 1 << 20;
        return setrlimit(RLIMIT_CORE, &r) < 0 || getrlimit(RLIMIT_CORE, &r) < 0 || r.rlim_max == 1
                       ? -1
                       : 0;
}

/* At 0 the kernel runs a core_pattern pipe of the host's */
static int limit_down(void)
{
        struct rlimit r = { 0, 0 }, old;

        if (setrlimit(RLIMIT_CORE, &r) < 0 || prlimit(0, RLIMIT_CORE, &r, &old) < 0 ||
            syscall(SYS_setrlimit, RLIMIT_CORE, &r) < 0 || getrlimit(RLIMIT_CORE, &r) < 0)
                return -1;
        return r.rlim_cur == 1 ? -1 : 0;
}

static int cap_back(void)
{
        return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 12, 0, 0);
}

static int type_in(void)
{
        return ioctl(STDIN_FILENO, TIOCSTI, "x");
}

static int transparent(void)
{
        int one = 1, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        return setsockopt(fd, 0 /* SOL_IP */, 19 /* IP_TRANSPARENT */, &one, sizeof one);
}

static int i386(void)
{
        long r;
        int status;
        pid_t pid = fork(); /* the filter ends whoever tries */

        if (pid == 0) {
                __asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "memory"); /* getpid */
                _exit(r > 0 ? 0 : 1);
        }
        if (waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0)
                return 0;
        errno = EPERM;
        return -1;
}

static const struct {
        const char *name;
        int (*try)(void);
} rows[] = {
        { "user namespace", ns_user },
        { "mount namespace", ns_mount },
        { "network namespace", ns_net },
        { "user namespace by clone", ns_clone },
        { "user namespace by clone3", ns_clone3 },
        { "setns", ns_enter },
        { "mount tmpfs", mount_tmpfs },
        { "mount proc", mount_proc },
        { "mount cgroup", mount_cgroup },
        { "mount cgroup2", mount_cgroup2 },
        { "fsopen", mount_new },
        { "open_tree", mount_clone },
        { "remount /proc/sys", mount_writable },
        { "unmount /proc/sys", unmount },
        { "bpf", bpf_map },
        { "keyctl", keyctl_new },
        { "add_key", key_add },
        { "perf", perf },
        { "io_uring", uring },
        { "userfaultfd", fault_fd },
        { "kexec", kexec },
        { "kexec by file", kexec_file },
        { "module", module },
        { "module by file", module_file },
        { "module removed", module_gone },
        { "raw socket", raw4 },
        { "raw socket v6", raw6 },
        { "packet socket", packet },
        { "vsock", vsock },
        { "crypto socket", alg },
        { "xdp socket", xdp },
        { "netfilter", nl_netfilter },
        { "audit", nl_audit },
        { "xfrm", nl_xfrm },
        { "link down", link_down },
        { "link address", link_mac },
        { "transparent socket", transparent },
        { "node kmsg", node_kmsg },
        { "node loop0", node_disk },
        { "node fuse", node_fuse },
        { "kernel log", kernel_log },
        { "file handle", handle },
        { "fanotify", fanotify },
        { "quota", quota },
        { "swap", swap_on },
        { "clock", clock_set },
        { "port I/O", port_io },
        { "reboot", reboot_now },
        { "host name", host_name },
        { "nice", nice_up },
        { "real time", realtime },
        { "core limit", limit_up },
        { "no core limit", limit_down },
        { "capability raised", cap_back },
        { "TIOCSTI", type_in },
        { "32-bit call", i386 },
};

int surface(int argc, char **argv)
{
        (void) argc;
        dir = argv[0];
        setvbuf(stdout, NULL, _IOLBF, 0);
        for (size_t i = 0; i < NELEM(rows); i++) {
                pid_t pid = fork();
                int status;

                if (pid == 0) {
                        errno = 0;
                        if (rows[i].try() >= 0)
                                printf("%s: ok\n", rows[i].name);
                        else
                                printf("%s: %s\n", rows[i].name, strerrorname_np(errno));
                        _exit(fflush(stdout));
                }
                if (pid < 0 || waitpid(pid, &status, 0) != pid)
                        return 1;
                if (WIFSIGNALED(status))
                        printf("%s: SIG%s\n", rows[i].name, sigabbrev_np(WTERMSIG(status)));
        }
        puts("done");
        return 0;
}
