/* sandbox.h - the launcher: from descriptors and a command to a running, confined first process.
 *
 * In two steps, because most of the work is the same for every cluster and can be done ahead:
 *
 *   sandbox_shell_make()  two processes, forked and waiting: the launcher, which will become
 *                         vmm-monitor, and its child, which will become the cluster's program and
 *                         sits already in all of its namespaces and groups, with /proc, /sys and
 *                         /dev in place.  4 ms; a pool keeps them ready.
 *   sandbox_start()       root file system, files, volumes, rights, execve.  0.8 ms.
 *
 * Both run in an operation process (single-threaded, root).  vmm-monitor is the program's parent
 * from the first instant.  No path that a tenant can influence is resolved on the host; no hook
 * exists. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "engine/slice/slice.h"
#include "model/security.h"

struct sandbox_bind {
        int mnt;            /* detached mount, idmapped where needed; consumed by move_mount in the
                             * child, the caller closes its own copy */
        const char *target; /* absolute path inside; created below the root when missing, resolved
                             * with RESOLVE_IN_ROOT | NO_MAGICLINKS */
        bool host; /* a file of the host's: its mount has its attributes already, a link or node that
                    * the image has in its place gives way, and the target may be SANDBOX_LIB's */
};
#define SANDBOX_BINDS_MAX 256U

/* "@lib/NAME": in the directory where the image keeps its libraries, which is
 * /usr/lib/<machine>-linux-gnu, /usr/lib64 or /usr/lib; "@lib32/NAME": where it keeps those for i386. */
#define SANDBOX_LIB   "@lib/"
#define SANDBOX_LIB32 "@lib32/"

struct sandbox_symlink {           /* replaces what the image has there, unless it is a directory */
        const char *target, *link; /* what it says; its own path, as a host bind's */
};

struct sandbox_library {         /* a line of the loader's cache */
        const char *name, *path; /* "libcuda.so.1"; where, as a host bind's target */
        bool is_32;
};

struct sandbox_file {       /* small file of ours, shown read-only or writable over the image's */
        const char *target; /* "/etc/hosts"; "~/..." in the home of the image's root */
        const char *content;
        mode_t mode;
        bool if_absent; /* an image that has its own keeps it */
};

struct sandbox_device {
        const char *name; /* "null", or "nvidia0" */
        int fd;           /* O_PATH on the host's node, opened and checked by the caller */
        mode_t mode;      /* of the node inside; 0: 0666 */
};

/* What does not depend on the cluster, only on its slot. */
struct sandbox_place {
        uint32_t id_base;     /* host id of root inside; 65,536 ids */
        uint32_t monitor_uid; /* uid and gid of vmm-monitor */
        const char *libexec;  /* where vmm-monitor lies */
        int netns, sysfs_mnt; /* from net_prepare(); netns -EBADF: a fresh empty one (tests) */
        const struct slice_enter *slice;
        const struct slice_enter *monitor_slice; /* vmm-monitor's own group, entered by the
                                                  * launcher before clone3(); NULL: none */
};

/* A sandbox without a program.  Its processes end by themselves as soon as nobody holds @up and
 * @report any more, so one that is forgotten, or whose engine dies, leaves nothing. */
struct sandbox_shell {
        pid_t launcher, first; /* as seen on the host */
        int launcher_pidfd, first_pidfd;
        int up, report; /* the ways to the two */
        int dev, shm;   /* mounts of /dev and /dev/shm, to be completed for a cluster */
};
#define SANDBOX_SHELL_FDS 6U
int *sandbox_shell_fd(struct sandbox_shell *s, size_t i); /* each of them in turn, to pass on */
void sandbox_shell_init(struct sandbox_shell *s);         /* none */
void sandbox_shell_done(struct sandbox_shell *s);         /* closes */
bool sandbox_shell_ready(const struct sandbox_shell *s);  /* there is one, and it lives */

int sandbox_shell_make(const struct sandbox_place *p, struct sandbox_shell *ret, struct err *e);

struct sandbox_spec {
        const char *cluster, *hostname;
        int root_mnt; /* detached overlay mount that becomes / */
        /* Called when the order is out and the first process at work on its root: for what takes a while and is
         * not needed before.  It may open mounts of host binds, which are negative until then.  NULL: nothing. */
        int (*meanwhile)(void *arg, struct err *e);
        void *meanwhile_arg;
        const struct sandbox_bind *binds;
        size_t n_binds;
        const struct sandbox_file *files;
        size_t n_files;
        const struct sandbox_symlink *symlinks;
        size_t n_symlinks;
        const struct sandbox_library *libraries; /* added to /etc/ld.so.cache */
        size_t n_libraries;
        const struct sandbox_device *devices; /* beside the base set */
        size_t n_devices;
        uint64_t shm_bytes;
        char *const *argv, *const *env;
        const char *argv_field; /* where a message says argv came from, "dockerArgs"; or NULL */
        const char *cwd;        /* created when missing, as Docker does; NULL = "/" */
        const char *user;      /* "1000", "1000:1000", "name[:group]" from the image; NULL = root */
        uint64_t nofile;       /* at most so many open files; 0: as the policy says */
        uint64_t memory_bytes; /* the cluster's, of which directories in memory get a share */
        enum security_profile profile; /* what holds it: engine/policy.h */
        const char *apparmor;          /* the loaded profile that it runs under; NULL or "": none */
        bool tty;
        uint16_t rows, cols; /* of the terminal, when known already */
        /* the monitor's */
        int listen_fd, status_fd, log_fd[2];
        uint32_t log_rate; /* bytes a second; 0: any number */
        uint32_t keep_s;   /* of an exec session: see --keep in model/attach.h */
};

struct sandbox_proc {
        pid_t monitor, init; /* as seen on the host */
        int monitor_pidfd, init_pidfd;
};
void sandbox_proc_done(struct sandbox_proc *p); /* closes; the processes go on */

/* Start @s in the shell, which is used up in any case, also where it failed.  @id_base: the shell's.
 * Returns when the program's execve is done.  On failure nothing is left running and *e names the
 * step ("exec /bin/nope: No such file or directory"); -EOWNERDEAD: launcher or first process was
 * killed, and a second try may go well.  The monitor's own execve follows and is not
 * waited for: its socket listens already, and should it fail, that shows as a monitor that ended. */
int sandbox_start(const struct sandbox_spec *s, uint32_t id_base, struct sandbox_shell *shell,
                  struct sandbox_proc *ret, struct err *e);

/* Run a further process in a running sandbox: joins all its namespaces and its cgroup, drops the
 * same capabilities, same seccomp filter; a vmm-monitor --exec of its own is its parent.
 * Uses of @s: cluster, argv, env, cwd, user, nofile, profile, apparmor, tty, keep_s, listen_fd, status_fd; of @p:
 * all but the network. */
int sandbox_exec(const struct sandbox_spec *s, const struct sandbox_place *p, int init_pidfd,
                 struct sandbox_proc *ret, struct err *e);

/* Other devices for a sandbox that runs. */
struct sandbox_live {
        int init_pidfd;
        uint32_t id_base;
        /* of @spec: its profile; devices (all that there shall be beside the base set); and binds,
         * symlinks and libraries of the host's, which are added where they are not there yet */
        const struct sandbox_spec *spec;
        const struct slice_device *allowed; /* nodes of others are taken away */
        size_t n_allowed;
        int proc_mnt; /* what lies at /proc/driver from now on; -EBADF: nothing */
};
/* The sandbox's processes must be held still: slice_freeze().  May be repeated after a kill. */
int sandbox_change(const struct sandbox_live *l, struct err *e);

/* Compile the seccomp policy once for each profile; later starts inherit them by fork.  Call at engine
 * start. */
int sandbox_prepare(struct err *e);

/* Hold vmm-launch and vmm-monitor from now on: a package upgrade under a running engine changes
 * nothing until its restart.  Call at engine start; without it each shell opens them. */
int sandbox_hold_programs(const char *libexec, struct err *e);

/* Overlay of the read-only tree on @lower_mnt (detached, idmapped) over the writable one on @upper_mnt
 * (detached, idmapped; directories "upper" and "work" are made in it).  @data_mnt: where the tree's
 * redirects lead, a detached mount, or -EBADF.  Returns a detached mount.  On kernels before 6.15 the
 * mounts may have been used up; the caller closes them in any case. */
int sandbox_overlay(int lower_mnt, int data_mnt, int upper_mnt, struct err *e);
/* Whether this kernel can take data from such a mount (6.5 and later). */
bool sandbox_overlay_objects(void);
