/* slice.h - the cluster's cgroup: pinned vCPUs or quota, memory, pids, device rules; on cgroup v2
 * and on v1/hybrid hosts.  One directory per cluster, "<root>/<name>", on v1 once per hierarchy.
 * The machine's own mounts and groups are never changed; only groups below our root are made.
 * Calls block on the kernel only; slice_kill waits up to its deadline. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/mem.h"

struct slice_host; /* which version, controller directories, our root's descriptors */

/* Find the mounts, make the root group "hvmm-<instance>" in each hierarchy.  @version_forced 0; tests
 * say 1 or 2, and then a controller that is missing is an error only where a limit needs it.  On v2
 * the needed controllers are enabled down to the root.  -ENOTSUP names what this host lacks. */
int slice_host_open(const char *instance, int version_forced, struct slice_host **ret,
                    struct err *e);
struct slice_host *slice_host_close(struct slice_host *h);
DEFINE_AUTO(struct slice_host *, slice_host_close)
int slice_version(const struct slice_host *h); /* 1 or 2 */
/* At most @pids processes and threads in all groups below our root; 0: no such limit. */
int slice_host_limit_pids(struct slice_host *h, uint32_t pids, struct err *e);
/* Whether this kernel holds groups to slice_io, and tells pressure of them. */
bool slice_has_io(const struct slice_host *h);
bool slice_has_pressure(const struct slice_host *h);

struct slice_device {
        char type;            /* 'c' or 'b' */
        int32_t major, minor; /* -1 = any */
        const char *access;   /* of "rwm" */
};

/* How fast one block device may be read and written by the group; 0: as fast as it goes.  On v2 all of
 * a file system's writes count; on v1 what the kernel writes behind a program's back does not: pages
 * that nobody waits for, and a journal. */
struct slice_io {
        uint32_t major, minor;
        uint64_t read_bytes, write_bytes, read_ops, write_ops; /* a second */
};
#define SLICE_IO_MAX 2U

struct slice_limits {
        const uint32_t *cpus; /* pinned set, or none: quota below */
        size_t n_cpus;
        const char *mems;      /* NUMA nodes "0" or "0-1"; NULL: all */
        uint32_t quota_mcpu;   /* 1000 = one CPU; 0 = no quota */
        uint64_t memory_bytes; /* no swap beyond it; tmpfs counts */
        uint64_t memory_high; /* from here on whoever takes more is slowed down; v2 alone; 0 = no */
        uint32_t pids;
        uint32_t weight;                  /* CPU and disk: 1..10000, 100 = normal; 0 = leave */
        struct slice_io io[SLICE_IO_MAX]; /* devices that are not named stay as they are */
        size_t n_io;
        const struct slice_device *devices; /* allowed beside slice_base_devices */
        size_t n_devices;
};

/* What every cluster may open: null zero full random urandom tty, ptmx and pts, and mknod nothing. */
extern const struct slice_device slice_base_devices[];
extern const size_t slice_n_base_devices;

/* Make the group with these limits; -EEXIST when it is there already. */
int slice_create(struct slice_host *h, const char *name, const struct slice_limits *l,
                 struct err *e);

/* Group names: 1 to 40 of a-z, 0-9 and '-', not a dash first; "m<slot>" is a monitor's.
 *
 * For a pool: rename is not possible on v1, so groups are made ahead, with what suits a process that
 * waits in them, and limited at lease time.  A bare group has no limits, and refuses all devices but
 * the base set from birth, as every other does.  Applying may be repeated with other values, also
 * while processes sit inside; devices in @l are allowed from then on, beside those that are
 * already: slice_devices() takes away. */
int slice_create_bare(struct slice_host *h, const char *name, struct err *e);
int slice_apply(struct slice_host *h, const char *name, const struct slice_limits *l,
                struct err *e);

/* Descriptors that let a child put itself into the group: on v2 one cgroup directory for
 * clone3(CLONE_INTO_CGROUP), on v1 one open `tasks` file per hierarchy, into which the child writes
 * "0" (0.15 ms against 8 ms for its pid into cgroup.procs). */
#define SLICE_ENTER_MAX 16U
struct slice_enter {
        int v2_dir;   /* -EBADF on v1 */
        int pressure; /* v1: the group in a v2 hierarchy beside it, for clone3(); 0 or less: none */
        int v1_tasks[SLICE_ENTER_MAX];
        size_t n_v1;
};
int slice_enter_open(struct slice_host *h, const char *name, struct slice_enter *ret,
                     struct err *e);
void slice_enter_done(struct slice_enter *s);
/* In the child, single-threaded; async-signal-safe. */
int slice_enter_self(const struct slice_enter *s);

struct slice_usage {
        uint64_t cpu_us, memory_bytes, memory_peak_bytes, oom_kills, pids;
        /* Hundredths of a percent of the last ten seconds in which some process of it waited for that;
         * UINT64_MAX: this kernel does not tell. */
        uint64_t pressure_cpu, pressure_memory, pressure_io;
};
int slice_usage(struct slice_host *h, const char *name, struct slice_usage *ret, struct err *e);

/* Exactly these devices beside slice_base_devices, from now on.  What is open stays open: look first, in a
 * group that is held still. */
int slice_devices(struct slice_host *h, const char *name, const struct slice_device *d, size_t n,
                  struct err *e);
/* Devices that processes of the group were refused, since @program is its device program: another
 * number counts from 0.  v2 alone: -ENOTSUP on v1, which does not tell. */
#define SLICE_REFUSED_MAX 8U
struct slice_refusals {
        uint64_t program;
        struct slice_refused {
                char type; /* 'c' or 'b' */
                uint32_t major, minor;
                uint64_t count;
        } dev[SLICE_REFUSED_MAX];
        size_t n;
        uint64_t others; /* of devices that found no place in the table */
};
int slice_refusals(struct slice_host *h, const char *name, struct slice_refusals *ret,
                   struct err *e);
/* Hold every process of the group still.  -ETIMEDOUT at @deadline_us (monotonic); on failure none is. */
int slice_freeze(struct slice_host *h, const char *name, uint64_t deadline_us, struct err *e);
/* Let them go on; idempotent. */
int slice_thaw(struct slice_host *h, const char *name, struct err *e);

/* Memory that the group cannot do without: what it uses less the file pages that the kernel drops when
 * asked. */
int slice_memory_held(struct slice_host *h, const char *name, uint64_t *ret_bytes, struct err *e);
/* What it is limited to now; UINT64_MAX: nothing. */
int slice_memory_limit(struct slice_host *h, const char *name, uint64_t *ret_bytes, struct err *e);
/* Lower its limit to @bytes while processes run in it, without ending any: the kernel gives back what
 * it can, and when that is not enough the limit stays what it was.  -EBUSY.  May take a second. */
int slice_memory_lower(struct slice_host *h, const char *name, uint64_t bytes, struct err *e);

/* Processes in the group (and below); at most @max into @ret; returns how many there are. */
int slice_pids(struct slice_host *h, const char *name, pid_t *ret, size_t max, struct err *e);

/* KILL everything inside until it is empty: cgroup.kill on v2, a signal loop on v1.  0 also when
 * the group does not exist; -ETIMEDOUT at @deadline_us (monotonic). */
int slice_kill(struct slice_host *h, const char *name, uint64_t deadline_us, struct err *e);
/* Remove the empty group everywhere; idempotent. */
int slice_remove(struct slice_host *h, const char *name, struct err *e);
/* Remove our root when nothing is below it (clean shutdown). */
int slice_host_remove(struct slice_host *h, struct err *e);

typedef int slice_each_fn(void *arg, const char *name);
int slice_each(struct slice_host *h, slice_each_fn *fn, void *arg); /* groups below the root */
