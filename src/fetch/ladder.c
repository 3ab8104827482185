/* ladder.c - see ladder.h.  Runs in vmm-fetch, once, before it has read a stranger's byte.
 *
 * Where it begins: root of a user namespace of its own (65,536 ids that nobody else has), with its
 * own mount, pid, IPC and UTS namespaces, the host's network, and the host's files to read as
 * nobody.  The rungs:
 *   1. copy what name resolution reads (/etc/resolv.conf, hosts, nsswitch.conf...) into a tmpfs
 *   2. mount the staging directory in it at /layer, make that the root, let go of the host's tree;
 *      the tmpfs becomes read-only: /layer is the only place that can be written
 *   3. limits: no core file, little memory, few descriptors, few threads
 *   4. capabilities: none; a layer's owners and modes are only written down
 *   5. no_new_privs, and the system call filter */
#include "fetch/ladder.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <netinet/in.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"

#define ETC_FILE_MAX (1U << 20)
#define CA_FILE_MAX  (16U << 20)
#define MEMORY_BYTES (1ULL << 30) /* zstd windows of 128 MiB, TLS, buffers: well below */
#define THREADS      16U          /* two that read ahead, one that resolves names */
#define NOFILE       512U         /* the builder has one for each layer */

char *ladder_read_ca(size_t *ret_len)
{
        static const char *const places[] = {
                "/etc/ssl/certs/ca-certificates.crt", /* Debian, Ubuntu */
                "/etc/pki/tls/certs/ca-bundle.crt",
                "/etc/ssl/cert.pem",
        };
        char *text = NULL;

        for (size_t i = 0; i < NELEM(places); i++)
                if (fd_read_file(AT_FDCWD, places[i], CA_FILE_MAX, &text, ret_len) >= 0)
                        return text;
        return NULL;
}

/* What glibc reads when it resolves a name. */
static const char *const etc_files[] = {
        "resolv.conf", "hosts", "nsswitch.conf", "host.conf", "gai.conf", "services",
};

static int copy_etc(int root, struct err *e)
{
        AUTO(fd) int to = fd_mkdir_beneath(root, "etc", 0755);

        if (to < 0)
                return err_errno(e, to, "making /etc");
        for (size_t i = 0; i < NELEM(etc_files); i++) {
                AUTO(free) char *text = NULL;
                char path[64];
                AUTO(fd) int out = -EBADF;
                size_t len = 0;
                int r;

                (void) snprintf(path, sizeof path, "/etc/%s", etc_files[i]);
                if (fd_read_file(AT_FDCWD, path, ETC_FILE_MAX, &text, &len) < 0)
                        continue; /* most hosts lack one or the other */
                out = openat(to, etc_files[i], O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
                r = out < 0 ? -errno : fd_write_full(out, text, len);
                if (r < 0)
                        return err_errno(e, r, "copying %s", path);
        }
        return 0;
}

static int new_tmpfs(struct err *e)
{
        static const char *const options[][2] = { { "size", "8m" },
                                                  { "nr_inodes", "64" },
                                                  { "mode", "755" } };
        AUTO(fd) int fs = (int) syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
        int mnt;

        if (fs < 0)
                return err_errno(e, -errno, "tmpfs");
        for (size_t i = 0; i < NELEM(options); i++)
                if (syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, options[i][0], options[i][1],
                            0) < 0)
                        return err_errno(e, -errno, "tmpfs %s", options[i][0]);
        if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
                return err_errno(e, -errno, "tmpfs");
        mnt = (int) syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC,
                            MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
        return mnt < 0 ? err_errno(e, -errno, "tmpfs") : mnt;
}

/* The staging directory at /layer. */
static int mount_layer(int root, int root_mnt, struct err *e)
{
        AUTO(fd) int layer = fd_mkdir_beneath(root, "layer", 0755);

        if (layer < 0)
                return err_errno(e, layer, "making /layer");
        if (syscall(SYS_move_mount, root_mnt, "", layer, "",
                    MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
                return err_errno(e, -errno, "mounting the staging directory");
        return 0;
}

/* Rungs 1 and 2. */
static int change_root(int root_mnt, bool network, int *ret_root, struct err *e)
{
        AUTO(fd) int tmp = -EBADF, inside = -EBADF;
        struct mount_attr ro = { .attr_set = MOUNT_ATTR_RDONLY };
        int r;

        if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return err_errno(e, -errno, "making mounts private");
        tmp = new_tmpfs(e);
        if (tmp < 0)
                return tmp;
        r = network ? copy_etc(tmp, e) : 0;
        if (r < 0)
                return r;
        /* /proc: a directory that exists on every host; what it shows is never used here */
        if (syscall(SYS_move_mount, tmp, "", AT_FDCWD, "/proc", MOVE_MOUNT_F_EMPTY_PATH) < 0)
                return err_errno(e, -errno, "mounting the new root");
        r = root_mnt >= 0 ? mount_layer(tmp, root_mnt, e) : 0;
        if (r < 0)
                return r;
        if (fchdir(tmp) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
                return err_errno(e, -errno, "changing the root");
        if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
                return err_errno(e, -errno, "leaving the host's root");
        if (syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, &ro, sizeof ro) < 0)
                return err_errno(e, -errno, "making the root read-only");
        if (root_mnt >= 0) {
                inside = open("/layer", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                if (inside < 0)
                        return err_errno(e, -errno, "/layer");
        }
        *ret_root = fd_take(&inside);
        return 0;
}

static int limit(int what, rlim_t max, struct err *e)
{
        struct rlimit now;

        if (getrlimit((__rlimit_resource_t) what, &now) < 0)
                return err_errno(e, -errno, "getrlimit");
        if (now.rlim_max < max)
                max = now.rlim_max;
        now = (struct rlimit){ max, max };
        return setrlimit((__rlimit_resource_t) what, &now) < 0 ? err_errno(e, -errno, "setrlimit")
                                                               : 0;
}

/* Rung 3. */
static int set_limits(struct err *e)
{
        int r = limit(RLIMIT_CORE, 0, e);

        if (r >= 0)
                r = limit(RLIMIT_NOFILE, NOFILE, e);
        if (r >= 0)
                r = limit(RLIMIT_NPROC, THREADS, e);
#if !defined(__SANITIZE_ADDRESS__) /* its shadow memory needs terabytes */
        if (r >= 0) /* private memory: tables are mapped files, which may be larger */
                r = limit(RLIMIT_DATA, MEMORY_BYTES, e);
#endif
        return r;
}

/* Rung 4. */
static int drop_capabilities(struct err *e)
{
        capng_clear(CAPNG_SELECT_BOTH);
        if (capng_apply(CAPNG_SELECT_BOTH) < 0)
                return err_set(e, -EPERM, "dropping capabilities");
        return 0;
}

/* What reading layers, TLS and name resolution call. */
static const int allowed[] = {
        SCMP_SYS(read),
        SCMP_SYS(write),
        SCMP_SYS(readv),
        SCMP_SYS(writev),
        SCMP_SYS(pread64),
        SCMP_SYS(pwrite64),
        SCMP_SYS(close),
        SCMP_SYS(fcntl),
        SCMP_SYS(dup),
        SCMP_SYS(lseek),
        SCMP_SYS(ftruncate),
        SCMP_SYS(fallocate), /* the log of a layer's entries */
        SCMP_SYS(open),
        SCMP_SYS(openat),
        SCMP_SYS(openat2),
        SCMP_SYS(fstat),
        SCMP_SYS(stat),
        SCMP_SYS(lstat),
        SCMP_SYS(newfstatat),
        SCMP_SYS(statx),
        SCMP_SYS(access),
        SCMP_SYS(faccessat),
        SCMP_SYS(faccessat2),
        SCMP_SYS(mkdirat),
        SCMP_SYS(renameat),
        SCMP_SYS(unlinkat),
        SCMP_SYS(umask),
        SCMP_SYS(brk),
        SCMP_SYS(mmap),
        SCMP_SYS(munmap),
        SCMP_SYS(mremap),
        SCMP_SYS(mprotect),
        SCMP_SYS(madvise),
        SCMP_SYS(futex),
        SCMP_SYS(set_robust_list),
        SCMP_SYS(rseq),
        SCMP_SYS(sched_yield),
        SCMP_SYS(sched_getaffinity),
        SCMP_SYS(gettid),
        SCMP_SYS(getpid),
        SCMP_SYS(getppid),
        SCMP_SYS(getuid),
        SCMP_SYS(geteuid),
        SCMP_SYS(getgid),
        SCMP_SYS(getegid),
        SCMP_SYS(tgkill),
        SCMP_SYS(exit),
        SCMP_SYS(exit_group),
        SCMP_SYS(restart_syscall),
        SCMP_SYS(rt_sigaction),
        SCMP_SYS(rt_sigprocmask),
        SCMP_SYS(rt_sigreturn),
        SCMP_SYS(sigaltstack),
        SCMP_SYS(clock_gettime),
        SCMP_SYS(clock_getres),
        SCMP_SYS(clock_nanosleep),
        SCMP_SYS(nanosleep),
        SCMP_SYS(gettimeofday),
        SCMP_SYS(time),
        SCMP_SYS(getrandom),
        SCMP_SYS(uname),
        SCMP_SYS(sysinfo),
        SCMP_SYS(poll),
        SCMP_SYS(ppoll),
        SCMP_SYS(pipe2),
        SCMP_SYS(eventfd2),
};

/* And these, where there is a network to speak to. */
static const int network_calls[] = {
        SCMP_SYS(socketpair),  SCMP_SYS(connect),    SCMP_SYS(bind),       SCMP_SYS(getsockname),
        SCMP_SYS(getpeername), SCMP_SYS(getsockopt), SCMP_SYS(setsockopt), SCMP_SYS(sendto),
        SCMP_SYS(recvfrom),    SCMP_SYS(sendmsg),    SCMP_SYS(sendmmsg),   SCMP_SYS(recvmsg),
        SCMP_SYS(shutdown),
};

/* Nothing of ours ever tries these: whoever does has taken over the process. */
static const int deadly[] = {
        SCMP_SYS(execve),
        SCMP_SYS(execveat),
        SCMP_SYS(fork),
        SCMP_SYS(vfork),
        SCMP_SYS(ptrace),
        SCMP_SYS(mount),
        SCMP_SYS(umount2),
        SCMP_SYS(move_mount),
        SCMP_SYS(open_tree),
        SCMP_SYS(fsopen),
        SCMP_SYS(fsmount),
        SCMP_SYS(pivot_root),
        SCMP_SYS(chroot),
        SCMP_SYS(setns),
        SCMP_SYS(unshare),
        SCMP_SYS(bpf),
        SCMP_SYS(perf_event_open),
        SCMP_SYS(io_uring_setup),
        SCMP_SYS(userfaultfd),
        SCMP_SYS(keyctl),
        SCMP_SYS(add_key),
        SCMP_SYS(listen),
        SCMP_SYS(accept),
        SCMP_SYS(accept4),
        SCMP_SYS(process_vm_readv),
        SCMP_SYS(process_vm_writev),
        SCMP_SYS(name_to_handle_at),
        SCMP_SYS(open_by_handle_at),
};

static int add_rules(scmp_filter_ctx f, bool network)
{
        /* netlink is how glibc learns whether the host has IPv6; unix sockets would reach the
         * host's abstract ones, the network namespace being shared */
        static const int families[] = { AF_INET, AF_INET6, AF_NETLINK };
        static const scmp_datum_t ioctls[] = { FIONBIO, FIONREAD };
        const unsigned long thread = CLONE_THREAD | CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID |
                                     CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
        int r = 0;

        for (size_t i = 0; r >= 0 && i < NELEM(allowed); i++)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, allowed[i], 0);
        for (size_t i = 0; r >= 0 && i < NELEM(deadly); i++)
                r = seccomp_rule_add(f, SCMP_ACT_KILL_PROCESS, deadly[i], 0);
        for (size_t i = 0; r >= 0 && network && i < NELEM(network_calls); i++)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, network_calls[i], 0);
        for (size_t i = 0; r >= 0 && network && i < NELEM(families); i++)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
                                     SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t) families[i], 0));
        if (r >= 0)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                                     SCMP_A0(SCMP_CMP_MASKED_EQ, thread, CLONE_THREAD));
        if (r >= 0) /* its arguments lie in memory; glibc falls back to clone */
                r = seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
        for (size_t i = 0; r >= 0 && i < NELEM(ioctls); i++)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
                                     SCMP_A1(SCMP_CMP_EQ, ioctls[i], 0));
        if (r >= 0) /* reading a limit, never setting one */
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1,
                                     SCMP_A2(SCMP_CMP_EQ, 0, 0));
        return r;
}

/* Rung 5. */
static int filter_calls(bool network, struct err *e)
{
        scmp_filter_ctx f = seccomp_init(SCMP_ACT_ERRNO(EPERM));
        int r;

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return err_errno(e, -errno, "no_new_privs");
        if (!f)
                return err_set(e, -ENOMEM, "system call filter");
        r = seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2);
        if (r >= 0)
                r = add_rules(f, network);
        if (r >= 0)
                r = seccomp_load(f);
        seccomp_release(f);
        return r < 0 ? err_errno(e, r, "system call filter") : 0;
}

int ladder_descend(int root_mnt, bool network, int *ret_root, struct err *e)
{
        AUTO(fd) int root = -EBADF;
        int r = change_root(root_mnt, network, &root, e);

        if (r >= 0)
                r = set_limits(e);
        if (r >= 0)
                r = drop_capabilities(e);
#if !defined(__SANITIZE_ADDRESS__) /* the sanitizers make calls of their own */
        if (r >= 0)
                r = filter_calls(network, e);
#else
        (void) filter_calls;
#endif
        if (r < 0)
                return err_wrap(e, r, "sandbox of vmm-fetch");
        *ret_root = fd_take(&root);
        return 0;
}
