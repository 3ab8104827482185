/* slice_priv.h - what the files of this folder (and their unit tests) share.  See slice.h. */
#pragma once
#include <linux/bpf.h>

#include "base/str.h"
#include "engine/slice/slice.h"

/* The controllers that a cluster is held by.  On v2 cpuacct is part of the core and devices is a
 * BPF program, so neither is ever missing there. */
enum slice_ctrl {
        SLICE_CTRL_NONE,
        SLICE_CTRL_CPU,
        SLICE_CTRL_CPUACCT,
        SLICE_CTRL_CPUSET,
        SLICE_CTRL_MEMORY,
        SLICE_CTRL_DEVICES,
        SLICE_CTRL_PIDS,
        /* from here on: done without where a host has none */
        SLICE_CTRL_IO,
        SLICE_CTRL_PRESSURE, /* v2's files of that name, also beside v1 */
        SLICE_CTRL_COUNT
};

#define SLICE_NAME_MAX 40U /* characters of a group's name */
#define SLICE_HIER_MAX SLICE_ENTER_MAX
#define SLICE_NO_HIER  0xFFU

struct slice_hier {
        int mount; /* the hierarchy's top as it is mounted here */
        int root;  /* "hvmm-<instance>" below it */
};

struct slice_host {
        int version;
        bool forced; /* tests: a missing controller is an error only when a limit needs it */
        bool memsw;  /* v1: swap is counted, so that it can be limited */
        bool swap;   /* v2: memory.swap.max exists */
        char group[SLICE_NAME_MAX + 16];        /* "hvmm-<instance>" */
        struct slice_hier hier[SLICE_HIER_MAX]; /* v2: one */
        size_t n_hier;
        uint8_t at[SLICE_CTRL_COUNT]; /* which hierarchy holds it, SLICE_NO_HIER: none */
        int freezer;                  /* v1: the top of that hierarchy, or -EBADF
                        * (v2 freezes by itself) */
        size_t pressure_hier;         /* v1: that of SLICE_CTRL_PRESSURE, or n_hier */
        int base_prog; /* v2: the loaded program for slice_base_devices; v1: -EBADF */
};

const char *slice_ctrl_name(enum slice_ctrl c); /* as v2 calls it */
/* 0, or -EINVAL with the reason: names are [a-z0-9-], at most SLICE_NAME_MAX, begin with [a-z0-9]. */
int slice_name_check(const char *name, struct err *e);

/* "name/file" into @buf of at least SLICE_PATH_MAX bytes; @name was checked, @file is ours. */
#define SLICE_PATH_MAX (SLICE_NAME_MAX + 48U)
const char *slice_path(char *buf, const char *name, const char *file);

/* Where cgroup file systems are mounted, from the text of /proc/self/mountinfo. */
struct slice_mounts {
        struct slice_mount {
                char path[128];
                uint32_t ctrls; /* 1 << enum slice_ctrl */
        } v1[SLICE_HIER_MAX];
        size_t n_v1;
        char v2[128]; /* "" = none */
        char freezer[128];
};
void slice_mounts_parse(const char *mountinfo, struct slice_mounts *ret);

/* A v2 host over an open directory: what slice_host_open() ends in; tests hand in a stand-in
 * tree and no program (@base_prog -EBADF: device rules cannot be applied).  Takes @mount. */
int slice_host_open_v2(const char *instance, int mount, int base_prog, bool forced,
                       struct slice_host **ret, struct err *e);

/* Limits as rows "write this text to that file", in the order of writing. */
#define SLICE_VALUES_MAX 28U
struct slice_value {
        enum slice_ctrl ctrl;
        const char *file;
        const char *text; /* borrowed from num, or from the limits and lists below */
        bool again;       /* -EINVAL: once more after the others (limit above the swap limit) */
        bool if_there;    /* a host without this file holds nobody to it */
        char num[128];
};
struct slice_values {
        struct slice_value row[SLICE_VALUES_MAX];
        size_t n;
        struct strbuf cpus;
};
int slice_values_v1(const struct slice_limits *l, bool memsw, struct slice_values *ret,
                    struct err *e);
int slice_values_v2(const struct slice_limits *l, bool swap, struct slice_values *ret,
                    struct err *e);
void slice_values_done(struct slice_values *v);

static inline void slice_values_done_cleanup(struct slice_values *v)
{
        slice_values_done(v);
}

/* "0-3,8" from a list in any order; duplicates are an error.  -EINVAL, -ENOMEM. */
int slice_cpu_list(const uint32_t *cpus, size_t n, struct strbuf *ret, struct err *e);
/* "c 1:3 rw" as the v1 controller wants it. */
int slice_device_rule(const struct slice_device *d, char *buf, size_t size, struct err *e);

/* Bytes of file pages that the kernel drops when asked, from the text of memory.stat. */
uint64_t slice_memory_droppable(const char *stat, int version);

/* Hundredths of a percent from "some avg10=1.25 ..."; UINT64_MAX: it is not that. */
uint64_t slice_pressure_parse(const char *text);

/* One line of devices.list, "c 195:0 rw"; @ret refers to @access. */
int slice_device_parse(const char *line, char access[static 4], struct slice_device *ret);

/* The v2 device program: allowed when one rule covers type, numbers and every wanted access. */
#define SLICE_BPF_INSNS_PER_RULE 8U
int slice_bpf_generate(const struct slice_device *const *sets, const size_t *n_set, size_t n_sets,
                       int map, struct bpf_insn *ret, size_t max, size_t *ret_n, struct err *e);
/* Load the program for the base set and @extra; returns its descriptor. */
int slice_bpf_load(const struct slice_device *extra, size_t n_extra, struct err *e);
int slice_bpf(int cmd, union bpf_attr *attr); /* bpf(2); a negative errno */
/* Ids of the device programs on the group @dir. */
int slice_bpf_query(int dir, uint32_t *ids, size_t max, size_t *ret_n);

/* What the program counts of a group, and its end, which does: slice_refused.c. */
struct slice_refused_value {
        struct slice_refused_place {
                uint64_t key; /* type << 32 | major << 20 | minor; 0: empty */
                uint64_t count;
        } at[SLICE_REFUSED_MAX];
        uint64_t others;
};
#define SLICE_REFUSED_INSNS (14U + 7U * SLICE_REFUSED_MAX)
/* Instructions that count in @map and refuse; returns how many. */
size_t slice_refused_tail(int map, struct bpf_insn to[static SLICE_REFUSED_INSNS]);
int slice_refused_map(struct err *e); /* a new one; its descriptor */
/* Make @prog the only device program of the group @dir: attach first, then detach what was there,
 * so that there is no instant without one. */
int slice_bpf_attach(int dir, int prog, struct err *e);
