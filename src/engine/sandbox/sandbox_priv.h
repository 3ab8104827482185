/* sandbox_priv.h - what the files of this folder share.
 *
 * Three processes take part, each a fork of the one before:
 *   operation   sandbox_start() / sandbox_exec(), root on the host        sandbox.c, dev.c
 *   launcher    becomes vmm-monitor; in the monitor's group               launcher.c
 *   first       becomes the cluster's program; in its namespaces          first.c and all others
 * The operation talks with the other two in notes, over a socket pair each. */
#pragma once
#include <limits.h>

#include "engine/sandbox/filter.h"
#include "engine/sandbox/sandbox.h"

#define SANDBOX_IDS     65536U
#define SANDBOX_TTY_GID 5U /* "tty" in every distribution */

/* Detached mounts that the operation makes while launcher and first process are being born. */
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

struct launch {
        const struct sandbox_spec *s;
        int join;           /* pidfd of a running first process: an exec session; else -EBADF */
        int program;        /* O_PATH on vmm-monitor */
        int up;             /* launcher's way to the operation */
        int report;         /* first's way to the operation */
        int mnt[MNT_COUNT]; /* made by the operation, reach first with NOTE_GO; not with join */
        int io[3];          /* the program's stdin (an exec session's), stdout, stderr; no tty */
        int monitor_io[3];  /* their other ends; [0] alone is the pty's master with a tty */
        const struct filter *filter;
        const struct cgroup_view *view;
};

/* ---- notes (note.c) */
enum note_type {
        NOTE_NONE,
        NOTE_CHILD, /* launcher -> operation: pid, pidfd; its id map is in place */
        NOTE_GO,    /* operation -> first: enum mnt, in order */
        NOTE_PTY,   /* first -> operation: master of its terminal */
        NOTE_EXEC,  /* first -> operation: execve comes next; an end of file then is its success */
        NOTE_RUN,   /* operation -> launcher: become the monitor; the master of the terminal */
        NOTE_ERROR  /* to the operation: err says why nothing was started */
};
struct note {
        enum note_type type;
        pid_t pid;
        struct err err;
};
#define NOTE_FDS 5U /* with one note, at most */
int note_send(int sock, const struct note *n, const int *fds, size_t n_fds);
/* 1, 0 at the end, or a negative errno.  @fds has NOTE_FDS places, the unused ones -EBADF. */
int note_recv(int sock, struct note *n, int *fds);
/* The same for notes that bring at most one descriptor; further ones are closed. */
int note_recv_one(int sock, struct note *n, int *fd);

/* ---- launcher.c, first.c: never return */
_Noreturn void launcher_run(struct launch *l);
_Noreturn void first_run(struct launch *l);
/* clone3() with @flags into group @s (v2; on v1 the child enters by itself); *pidfd is set. */
pid_t clone_into(uint64_t flags, const struct slice_enter *s, int *pidfd);
/* KILL and reap a child of ours. */
void kill_wait(int pidfd);

/* ---- dev.c: operation process, host root */
int mounts_make(const struct cgroup_view *v, uint32_t id_base, int mnt[MNT_COUNT], struct err *e);
/* What depends on the cluster: its devices and the size of its shared memory. */
int mounts_finish(const struct sandbox_spec *s, const int mnt[MNT_COUNT], struct err *e);

/* ---- mounts.c: first process, root of its user namespace */
/* Everything below / in place and nothing of the host in sight; returns O_PATH on /. */
int mounts_setup(const struct launch *l, struct err *e);
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
int masks_apply(int proc, int sys, int null, int empty, struct err *e);

/* ---- rootfs.c: paths inside the new root, resolved as the program would */
/* Directory @path (absolute), made with its parents when missing; O_PATH descriptor. */
int root_mkdirs(int root, const char *path, mode_t mode);
int root_write_file(int root, const struct sandbox_file *f, struct err *e);
int root_bind(int root, const struct sandbox_bind *b, uint64_t attrs, struct err *e);

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
int user_resolve(int root, const char *spec, struct user *ret, struct err *e);

/* ---- confine.c: the ladder down, in this order */
int confine_limits(const struct sandbox_spec *s, struct err *e);
int confine_rights(const struct launch *l, const struct user *u, struct err *e);
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
int overlay_make(int lower_mnt, const char *const *layers, size_t n_layers, int upper_mnt,
                 enum overlay_way way, struct err *e);
/* Which way is the first to try on this kernel.  An older one logs an error each time that it is
 * given detached layers, so this is asked once. */
enum overlay_way overlay_probe(void);
