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
 *   5. no_new_privs; Landlock, which adds what mounts cannot say: it makes no TCP listener, and reaches
 *      no abstract socket and no process of the host, whose network it shares
 *   6. the system call filter */
#include "fetch/ladder.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/confine.h"
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

/* Rung 3. */
static int set_limits(struct err *e)
{
        int r = confine_limit(RLIMIT_CORE, 1, e); /* 1: not into a pipe either */

        if (r >= 0)
                r = confine_limit(RLIMIT_NOFILE, NOFILE, e);
        if (r >= 0)
                r = confine_limit(RLIMIT_NPROC, THREADS, e);
#if !defined(__SANITIZE_ADDRESS__) /* its shadow memory needs terabytes */
        if (r >= 0) /* private memory: tables are mapped files, which may be larger */
                r = confine_limit(RLIMIT_DATA, MEMORY_BYTES, e);
#endif
        return r;
}

/* A layer's directory, and what the C library opens for names and certificates. */
static const struct confine_call files[] = {
        CONFINE_ALLOW(open),      CONFINE_ALLOW(openat),     CONFINE_ALLOW(openat2),
        CONFINE_ALLOW(stat),      CONFINE_ALLOW(lstat),      CONFINE_ALLOW(access),
        CONFINE_ALLOW(faccessat), CONFINE_ALLOW(faccessat2), CONFINE_ALLOW(mkdirat),
        CONFINE_ALLOW(renameat),  CONFINE_ALLOW(unlinkat),
};

/* And these, where there is a network to speak to.  Netlink is how glibc learns whether the host has
 * IPv6; unix sockets would reach the host's. */
static const struct confine_call network_calls[] = {
        CONFINE_ALLOW_IF(socket, 0, AF_INET),
        CONFINE_ALLOW_IF(socket, 0, AF_INET6),
        CONFINE_ALLOW_IF(socket, 0, AF_NETLINK),
        CONFINE_ALLOW(socketpair),
        CONFINE_ALLOW(connect),
        CONFINE_ALLOW(bind), /* netlink's; a TCP port is refused by Landlock */
        CONFINE_ALLOW(getsockname),
        CONFINE_ALLOW(getpeername),
        CONFINE_ALLOW(getsockopt),
        CONFINE_ALLOW(setsockopt),
        CONFINE_ALLOW(sendto),
        CONFINE_ALLOW(recvfrom),
        CONFINE_ALLOW(sendmsg),
        CONFINE_ALLOW(sendmmsg),
        CONFINE_ALLOW(recvmsg),
        CONFINE_ALLOW(shutdown),
};

/* It is a client only. */
static const struct confine_call serving[] = { CONFINE_KILL(listen), CONFINE_KILL(accept),
                                               CONFINE_KILL(accept4) };

/* Rung 5.  The root file system is what change_root() has left of it. */
static int fence(struct err *e)
{
        static const struct confine_path all[] = {
                { "/", CONFINE_READ | CONFINE_WRITE | CONFINE_MAKE },
        };

        return confine_landlock(all, NELEM(all), CONFINE_CONNECT, e);
}

/* Rung 6. */
static int filter_calls(bool network, struct err *e)
{
        const struct confine_calls calls[] = {
                confine_calls_runtime, confine_calls_io,       confine_calls_deadly,
                CONFINE_CALLS(files),  CONFINE_CALLS(serving), CONFINE_CALLS(network_calls)
        };

        return confine_filter(calls, network ? NELEM(calls) : NELEM(calls) - 1,
                              SCMP_ACT_ERRNO(EPERM), e);
}

int ladder_descend(int root_mnt, bool network, int *ret_root, struct err *e)
{
        AUTO(fd) int root = -EBADF;
        int r = change_root(root_mnt, network, &root, e);

        if (r >= 0)
                r = set_limits(e);
        if (r >= 0)
                r = confine_capabilities(e); /* rung 4 */
        if (r >= 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                r = err_errno(e, -errno, "no_new_privs");
        if (r >= 0 && !confine_sanitized())
                r = fence(e);
        if (r >= 0 && !confine_sanitized()) /* the sanitizers make calls of their own */
                r = filter_calls(network, e);
        if (r < 0)
                return err_wrap(e, r, "sandbox of vmm-fetch");
        *ret_root = fd_take(&root);
        return 0;
}
