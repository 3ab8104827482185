/* confine.h - how a program of ours climbs down: what it needs is written in tables, everything else
 * is given up for good, in one order.
 *
 * The rungs: limits, no core dump, no debugger of the same uid; capabilities (effective, permitted,
 * inheritable, ambient and, where that is allowed, the bounding set); no_new_privs; Landlock (files,
 * TCP, abstract sockets, signals, as far as this kernel has it); the system call filter.
 *
 * Called while the process has one thread: what is made later inherits all of it.  Nothing here can
 * be undone, and after a failure only ending the process is left. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* What a row of paths allows on the file, or on everything below the directory. */
enum confine_access {
        CONFINE_READ = 1,   /* open for reading, list */
        CONFINE_WRITE = 2,  /* open for writing, truncate */
        CONFINE_MAKE = 4,   /* make, rename and remove regular files and directories */
        CONFINE_DEVICE = 8, /* ioctl on device files, from Landlock 5 on */
};

/* Nothing is allowed on a path that is not there: such a row is passed over. */
struct confine_path {
        const char *path;
        unsigned access;
};

#define CONFINE_ANY (-1)

/* One system call: @action (SCMP_ACT_*) when (argument & mask) == value, or always with
 * CONFINE_ANY.  @nr is a SCMP_SYS(). */
struct confine_call {
        int nr;
        uint32_t action;
        int arg;
        uint64_t mask, value;
};

#define CONFINE_ALLOW(name)                                                                        \
        {                                                                                          \
                SCMP_SYS(name), SCMP_ACT_ALLOW, CONFINE_ANY, 0, 0                                  \
        }
#define CONFINE_KILL(name)                                                                         \
        {                                                                                          \
                SCMP_SYS(name), SCMP_ACT_KILL_PROCESS, CONFINE_ANY, 0, 0                           \
        }
/* When the argument is @value; the second compares the low half, which is what the kernel takes of an
 * int. */
#define CONFINE_ALLOW_IF(name, arg, value)                                                         \
        {                                                                                          \
                SCMP_SYS(name), SCMP_ACT_ALLOW, arg, UINT64_MAX, value                             \
        }
#define CONFINE_ALLOW_IF32(name, arg, value)                                                       \
        {                                                                                          \
                SCMP_SYS(name), SCMP_ACT_ALLOW, arg, UINT32_MAX, value                             \
        }

struct confine_calls { /* several lists make one program's filter */
        const struct confine_call *rows;
        size_t n;
};
#define CONFINE_CALLS(t) ((struct confine_calls){ (t), NELEM(t) })

/* What it may still reach outside; without: no TCP connection (Landlock 4), no process (6), and never a
 * TCP port to listen on or an abstract socket. */
enum confine_reach {
        CONFINE_CONNECT = 1, /* begin TCP connections */
        CONFINE_SIGNAL = 2,  /* signal processes that the descent did not make */
};

struct confine {
        const char *program; /* for sentences */
        uint64_t nofile;     /* descriptors at most; 0: as many as it was given */
        bool traceable;      /* a driver's library reads its own /proc entries */
        const struct confine_path *paths;
        size_t n_paths;
        unsigned reach; /* enum confine_reach */
        const struct confine_calls *calls;
        size_t n_calls;
        uint32_t otherwise; /* SCMP_ACT_* of a call in no list */
};

/* All rungs.  Under a sanitizer, whose run-time traces and reads /proc, the last two are left out. */
int confine_descend(const struct confine *c, struct err *e);

/* The rungs by themselves, for a program with rungs of its own between them. */

/* Never above what it is: without the right to raise a limit it is lowered or kept. */
int confine_limit(int what, uint64_t max, struct err *e);
int confine_capabilities(struct err *e);
/* 0: this kernel has no Landlock; else its ABI. */
int confine_landlock(const struct confine_path *paths, size_t n, unsigned reach, struct err *e);
/* Sets no_new_privs, too. */
int confine_filter(const struct confine_calls *calls, size_t n, uint32_t otherwise, struct err *e);

/* Landlock's ABI here, 0: none.  What it takes for each thing that the rungs use. */
int confine_landlock_abi(void);
#define CONFINE_ABI_TCP    4
#define CONFINE_ABI_DEVICE 5
#define CONFINE_ABI_SCOPE  6 /* signals and abstract sockets */

/* Whether the last two rungs are left out in this build. */
bool confine_sanitized(void);

/* Lists that several programs share: memory, threads, time, what the C library does by itself. */
extern const struct confine_calls confine_calls_runtime;
/* Reading, writing and waiting on descriptors that are open. */
extern const struct confine_calls confine_calls_io;
/* Only a program that somebody has taken over tries these: it is ended. */
extern const struct confine_calls confine_calls_deadly;
