/* sandbox.h - the launcher: from descriptors and a command to a running, confined first process.
 *
 * Runs inside an operation process (single-threaded, root).  sandbox_start() forks the process that
 * becomes vmm-monitor; that one clone3()s the cluster's first process into its namespaces, and
 * execs vmm-monitor once the first process's own execve has succeeded, so the monitor is its parent
 * from the first instant.  No path that a tenant can influence is resolved on the host; no hook
 * exists.  Descriptors in an order are above 2: the launcher's 0 to 2 become /dev/null. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "engine/slice/slice.h"

struct sandbox_bind {
        int mnt;            /* detached mount, idmapped where needed; consumed by move_mount in the
                             * child, the caller closes its own copy */
        const char *target; /* absolute path inside; created below the root when missing, resolved
                             * with RESOLVE_IN_ROOT | NO_MAGICLINKS */
};

struct sandbox_file {       /* small file of ours, shown read-only or writable over the image's */
        const char *target; /* "/etc/hosts" */
        const char *content;
        mode_t mode;
        bool if_absent; /* an image that has its own keeps it */
};

struct sandbox_device {
        const char *name; /* "null", or "nvidia0" */
        int fd;           /* O_PATH on the host's node, opened and checked by the caller */
};

/* The mounts that are the same for every cluster with these ids (/dev and what lies in it).  Making
 * them takes 0.15 ms, so a pool may do it ahead. */
#define SANDBOX_MOUNTS 5U
struct sandbox_mounts {
        int fd[SANDBOX_MOUNTS];
};
int sandbox_mounts_make(uint32_t id_base, struct sandbox_mounts *ret, struct err *e);
void sandbox_mounts_done(struct sandbox_mounts *m); /* closes; also after a start has used them */

struct sandbox_spec {
        const char *cluster, *hostname;
        uint32_t id_base;     /* host id of root inside; 65,536 ids */
        uint32_t monitor_uid; /* uid and gid of vmm-monitor */
        const char *libexec;  /* where vmm-monitor lies */
        int root_mnt;         /* detached overlay mount that becomes / */
        int netns, sysfs_mnt; /* from net_prepare(); netns -EBADF: a fresh empty one (tests) */
        const struct sandbox_mounts *mounts; /* made ahead, used once; NULL: made by the start */
        const struct slice_enter *slice;
        const struct slice_enter *monitor_slice; /* vmm-monitor's own group, entered by the
                                                  * launcher before clone3(); NULL: none */
        const struct sandbox_bind *binds;
        size_t n_binds;
        const struct sandbox_file *files;
        size_t n_files;
        const struct sandbox_device *devices; /* beside the base set */
        size_t n_devices;
        uint64_t shm_bytes;
        char *const *argv, *const *env;
        const char *argv_field; /* where a message says argv came from, "dockerArgs"; or NULL */
        const char *cwd;        /* created when missing, as Docker does; NULL = "/" */
        const char *user; /* "1000", "1000:1000", "name[:group]" from the image; NULL = root */
        uint64_t nofile;
        bool new_privs; /* do not set no_new_privs */
        bool tty;
        /* the monitor's */
        int listen_fd, status_fd, log_fd[2];
};

struct sandbox_proc {
        pid_t monitor, init; /* as seen on the host */
        int monitor_pidfd, init_pidfd;
};
void sandbox_proc_done(struct sandbox_proc *p); /* closes; the processes go on */

/* Start; returns when the program's execve is done.  On failure nothing is left running and *e
 * names the step ("exec /bin/nope: No such file or directory").  Blocks 1-3 ms.  The monitor's own
 * execve follows and is not waited for: its socket listens already, and should it fail, that shows
 * as a monitor that ended. */
int sandbox_start(const struct sandbox_spec *s, struct sandbox_proc *ret, struct err *e);

/* Run a further process in a running sandbox: joins all its namespaces and its cgroup, drops the
 * same capabilities, same seccomp filter; a vmm-monitor --exec of its own is its parent.
 * Uses of @s: cluster, id_base, monitor_uid, libexec, slice, argv, env, cwd, user, nofile,
 * new_privs, tty, listen_fd, status_fd. */
int sandbox_exec(const struct sandbox_spec *s, int init_pidfd, struct sandbox_proc *ret,
                 struct err *e);

/* Compile the seccomp policy once; later starts inherit it by fork.  Call at engine start. */
int sandbox_prepare(struct err *e);

/* Overlay of read-only @lower (detached, idmapped; sub-directories @layers, topmost first, named
 * relative to it) over the writable tree on @upper_mnt (detached, idmapped; directories "upper" and
 * "work" are made in it).  Returns a detached mount.  On kernels before 6.15 both mounts may have
 * been used up; the caller closes them in any case. */
int sandbox_overlay(int lower_mnt, const char *const *layers, size_t n_layers, int upper_mnt,
                    struct err *e);
