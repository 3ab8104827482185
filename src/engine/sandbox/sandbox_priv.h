/* sandbox_priv.h - what the files of this folder share.
 *
 * Three processes take part, each a child of the one before:
 *   operation   sandbox_shell_make(), _start(), _exec(), root on the host   shell.c, sandbox.c, dev.c
 *   launcher    vmm-launch, becomes vmm-monitor; in the monitor's group     launcher.c
 *   first       becomes the cluster's program; in its namespaces            first.c and all others
 * The last two are a program of their own, small and static: they wait for hours and must not hold
 * what an operation knows, they cost little memory, and the less there is of a process, the faster is
 * its execve.
 * The operation talks with the other two in notes, over a socket pair each.  The one that makes a
 * shell and the one that starts a program in it may be two operations, hours apart; what the second
 * wants of the first process travels as one text (program.c). */
#pragma once
#include <limits.h>

#include "engine/policy.h"
#include "engine/sandbox/filter.h"
#include "engine/sandbox/sandbox.h"

#define SANDBOX_BYTES_PER_INODE 4096U /* of a tmpfs, as the kernel does by itself */
#define SANDBOX_IDS             65536U
#define SANDBOX_TTY_GID         5U /* "tty" in every distribution */

/* Detached mounts that the operation makes ahead and the first process inherits. */
enum mnt {
        MNT_DEV,    /* tmpfs with nodes, links and directories */
        MNT_PTS,    /* devpts for /dev/pts */
        MNT_SHM,    /* tmpfs for /dev/shm */
        MNT_EMPTY,  /* read-only tmpfs that hides directories */
        MNT_CGROUP, /* tmpfs with a directory for each v1 hierarchy */
        MNT_COUNT
};

/* v1 hierarchies that hold a cluster's limits, as /proc/self/cgroup names them: "cpu,cpuacct". */
#define CGROUP_VIEW_MAX 8U
struct cgroup_view {
        char list[CGROUP_VIEW_MAX][64];
        size_t n;
};

/* What launcher and first process are born with. */
struct launch {
        const struct sandbox_place *place;
        int join;           /* pidfd of a running first process: an exec session; else -EBADF */
        int launcher;       /* vmm-launch, in memory; the operation's alone */
        int program;        /* O_PATH on vmm-monitor */
        int up;             /* launcher's way to the operation */
        int report;         /* first's way to the operation */
        int proc;           /* the host's /proc, from the launcher to its child */
        int label;          /* first's own attribute that names its AppArmor profile, or why not */
        int mnt[MNT_COUNT]; /* not with join */
        const struct cgroup_view *view;
};

/* Fills in what was prepared at engine start; both programs are the caller's to close. */
int launch_prepare(struct launch *l, struct err *e);

/* The operation's side of both, shell.c. */
int shell_make(const struct sandbox_place *p, int join, struct sandbox_shell *ret, struct err *e);
/* Both processes are gone when this returns; the launcher first, who could still clone. */
void shell_kill(struct sandbox_shell *s);

/* ---- notes (note.c) */
enum note_type {
        NOTE_NONE,
        NOTE_CHILD, /* launcher -> operation: pid, pidfd; its id map is in place */
        NOTE_GO,    /* operation -> first: you are known and mapped, begin */
        NOTE_READY, /* first -> operation: waiting for a program */
        NOTE_ORDER, /* operation -> first: enum order_fd */
        NOTE_BINDS, /* operation -> first: /dev is complete; host binds, all that fit or the rest */
        NOTE_PTY,   /* first -> operation: master of its terminal */
        NOTE_EXEC,  /* first -> operation: execve comes next; an end of file then is its success */
        NOTE_RUN,   /* operation -> launcher: become the monitor; enum run_fd */
        NOTE_ERROR  /* to the operation: err says why nothing was started */
};
/* Descriptors of a NOTE_ORDER. */
enum order_fd {
        ORDER_PROGRAM, /* memory file, program.c */
        ORDER_ROOT,    /* the root's mount; not with join */
        ORDER_IN,      /* the program's stdin (an exec session's), stdout, stderr; no tty */
        ORDER_OUT,
        ORDER_ERR,
        ORDER_BINDS /* the cluster's own; the host's follow in NOTE_BINDS */
};
/* Of a NOTE_RUN. */
enum run_fd {
        RUN_LISTEN,
        RUN_STATUS,
        RUN_LOG0,
        RUN_LOG1,
        RUN_IN, /* other ends of the program's pipes; or the terminal's master */
        RUN_OUT,
        RUN_ERR,
        RUN_COUNT
};
#define NOTE_FDS 24U /* with one note, at most: a bit each in its `fds` */
struct note {
        enum note_type type;
        pid_t pid;
        uint32_t fds; /* which descriptors came along; note_send() fills it in */
        bool tty;
        uint32_t log_rate; /* the monitor's; 0: none */
        uint32_t keep_s;   /* likewise */
        char cluster[64];
        struct err err;
};
/* Descriptors that are negative are not sent, and the others keep their places. */
int note_send(int sock, struct note *n, const int *fds, size_t n_fds);
/* 1, 0 at the end, or a negative errno.  @fds has NOTE_FDS places, the unused ones -EBADF. */
int note_recv(int sock, struct note *n, int *fds);
/* The same for notes that bring at most one descriptor; further ones are closed. */
int note_recv_one(int sock, struct note *n, int *fd);
void note_close(int fds[static NOTE_FDS]);

/* ---- program.c: the part of a spec that the first process needs, as bytes in a memory file.  Both
 * ends are of one build, so there is no version. */
int program_write(const struct sandbox_spec *s, const struct filter *f,
                  struct err *e); /* a descriptor */
struct program {
        struct sandbox_spec spec; /* strings lie in text */
        struct filter *filter;
        char *text;
        char **argv, **env;
        struct sandbox_file *files;
        struct sandbox_bind *binds; /* spec's, writable */
        struct sandbox_symlink *symlinks;
        struct sandbox_library *libraries;
};
int program_read(int fd, struct program *ret, struct err *e);
void program_done(struct program *p);
static inline void program_done_cleanup(struct program *p)
{
        program_done(p);
}

#define LAUNCH_OTHER_BUILD 3 /* exit status of vmm-launch */
/* ---- birth.c: a struct launch as bytes in a memory file, descriptors as numbers to be inherited.
 * vmm-launch is of the same build, or refuses. */
int birth_write(const struct launch *l, struct err *e); /* a descriptor */
int birth_inherit(const struct launch *l); /* in the child: keeps what @l names over its execve */
struct birth {
        struct launch launch;
        struct sandbox_place place;
        struct slice_enter slice, monitor_slice;
        struct cgroup_view view;
};
int birth_read(int fd, struct birth *ret, struct err *e); /* @ret must stay where it is */

/* ---- launcher.c, first.c: never return */
_Noreturn void launcher_run(struct launch *l);
_Noreturn void first_run(struct launch *l);
/* clone3() with @flags into group @s (v2; on v1 the child enters by itself); *pidfd is set. */
pid_t clone_into(uint64_t flags, const struct slice_enter *s, int *pidfd);
/* KILL, and wait for the end; reaped when it is a child of ours. */
void kill_wait(int pidfd);

/* ---- dev.c: operation process, host root */
int mounts_make(const struct cgroup_view *v, uint32_t id_base, int mnt[MNT_COUNT], struct err *e);
/* What depends on the cluster: its devices and the size of its shared memory. */
int mounts_finish(const struct sandbox_spec *s, uint32_t id_base, int dev, int shm, struct err *e);

/* ---- mounts.c: first process, root of its user namespace */
/* Ahead of the program: /dev, /proc and /sys complete, in an empty tree of our own, and nothing of
 * the host in sight. */
struct tree {
        int dev, proc, sys;
};
int mounts_prepare(const struct launch *l, struct tree *ret, struct err *e);
/* The cluster's root becomes /, with those three and its volumes; returns O_PATH on /. */
int mounts_enter(const struct sandbox_spec *s, const struct tree *t, struct err *e);
/* What the host adds, and files. */
struct inject_wait;
int mounts_fill(int root, const struct sandbox_spec *s, const struct inject_wait *w, struct err *e);
/* The last step below @root: read-only, where the profile wants it. */
int mounts_seal(const struct sandbox_spec *s, int root, struct err *e);
/* fsopen, options ("key", "value" or NULL for a flag; ended by NULL), fsmount: a detached mount. */
int mount_make(const char *type, const char *const (*options)[2], unsigned attrs, struct err *e);
/* What holds for the root and for every bind. */
uint64_t mount_attrs_for(const struct sandbox_spec *s);
int mount_restrict(int mnt, uint64_t attrs, struct err *e);
int mount_attach(int mnt, int dir, const char *path, struct err *e); /* @path "" is @dir itself */

/* ---- cgroup.c */
void cgroup_view_parse(const char *proc_self_cgroup, struct cgroup_view *ret);
int cgroup_dirs(const struct cgroup_view *v, int dir);            /* mount points in MNT_CGROUP */
int cgroup_mount(const struct launch *l, int sys, struct err *e); /* first process */

/* ---- masks.c: @proc and @sys are our own fresh mounts, @null a node of our own /dev, @empty a
 * detached read-only tmpfs */
struct mask_base {
        int proc, sys, null, empty;
};
int masks_apply(const struct mask_base *b, const struct policy_mask *rows, size_t n, struct err *e);

/* ---- sysctls.c: operation process, which enters the network namespace of @pidfd for a moment.
 * -ENOTRECOVERABLE: it could not come back and must end. */
int sysctls_apply(int pidfd, const struct policy_sysctl *rows, size_t n, struct err *e);

/* ---- rootfs.c: paths inside the new root, resolved as the program would */
/* Directory @path (absolute), made with its parents when missing; O_PATH descriptor. */
int root_mkdirs(int root, const char *path, mode_t mode);
int root_write_file(int root, const struct sandbox_file *f, struct err *e);
int root_bind(int root, const struct sandbox_bind *b, uint64_t attrs, struct err *e);
/* -EXDEV for what must not be mounted on: the root itself, and kernel trees. */
int root_check_target(int root, int fd);
/* The directory that holds @path, made when missing; *@name is its last component (borrowed). */
int root_parent(int root, const char *path, const char **name);
/* A plain file to write, whatever lay there: links, FIFOs and devices are replaced. */
int root_open_plain(int dir, const char *name, mode_t mode);

/* ---- inject.c: links, loader cache, files of the host's; host binds alone.  @w: how to wait for the mounts
 * of those, when they are not there yet; or NULL */
struct inject_wait {
        int (*fn)(void *arg, struct err *e);
        void *arg;
};
int inject_all(int root, const struct sandbox_spec *s, const struct inject_wait *w, struct err *e);

/* ---- user.c */
#define USER_GROUPS_MAX 256U
struct user {
        uid_t uid;
        gid_t gid;
        size_t n_groups;
        gid_t groups[USER_GROUPS_MAX];
        char home[256];
};
/* @passwd and @group are the files' contents, NULL when missing.  @spec NULL or "": root. */
int user_parse(const char *passwd, const char *group, const char *spec, struct user *ret,
               struct err *e);
/* The same from the files below @root; one that cannot be read counts as missing.  Never waits. */
int user_resolve(int root, const char *spec, struct user *ret, struct err *e);

/* ---- confine.c: the ladder down, in this order */
int confine_limits(const struct sandbox_spec *s, struct err *e);
/* The host's /proc, checked to be one; before the launcher enters anything of a cluster's. */
int confine_open_proc(struct err *e);
/* In the process that shall be confined: its attribute below @proc, or a negative errno. */
int confine_open_label(int proc);
/* The next execve happens under the profile @name. */
int confine_label(int label, const char *name, struct err *e);
/* Nothing outside the kept set can come back through an execve.  Ahead of the program of what any
 * profile keeps; confine_rights() narrows it to that of its own. */
int confine_bounding(const struct policy *p, struct err *e);
int confine_rights(const struct filter *f, const struct sandbox_spec *s, const struct user *u,
                   struct err *e);
/* execve with a PATH look-up as execvp() does it; comes back only with an error. */
int confine_exec(char *const *argv, char *const *env, struct err *e);
/* Default actions and an empty mask. */
void confine_signals(void);
/* The launcher: an id of its own, no capability, now and by execve. */
int confine_monitor(uint32_t uid, struct err *e);

/* ---- overlay.c: sandbox_overlay() with a choice, for tests: what older kernels need. */
enum overlay_way {
        OVERLAY_ANY,       /* the first that works */
        OVERLAY_NAMESPACE, /* layers attached in a namespace made for it */
        OVERLAY_OPTIONS,   /* there, and by mount(2) */
        OVERLAY_DETACHED   /* as they are */
};
int overlay_make(int lower_mnt, int data_mnt, int upper_mnt, enum overlay_way way, struct err *e);
/* Which way is the first to try on this kernel.  An older one logs an error each time that it is
 * given detached layers, so this is asked once. */
enum overlay_way overlay_probe(void);
