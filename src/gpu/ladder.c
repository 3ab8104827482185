/* ladder.c - the way down of vmm-gpu, in which the driver's library runs: megabytes of code that nobody
 * but its maker has read, and that hears what a GPU says while tenants use it.
 *
 * Where it begins: a uid of its own without capabilities.  The rungs:
 *   1. no core dump; no capability, no new privileges (base/confine.h); it may read its own /proc
 *      entries, which the library does
 *   2. Landlock: the driver's device nodes that there are now, libraries, /proc/driver and /sys; no
 *      other device, nobody's data, nothing to write to; no TCP, no abstract socket, no signal
 *   3. an allow-list of system calls as wide as a driver wants (any ioctl, but only those nodes can be
 *      opened): no program, no process, no socket, no trace, no mount, no code for the kernel.  What is
 *      not listed fails and does not kill: libraries try things and live without them (starting
 *      nvidia-modprobe, for one, which is the operator's to run) */
#include "gpu/ladder.h"

#include <errno.h>
#include <limits.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/confine.h"
#include "base/mem.h"
#include "model/gpu.h"

#define SWITCHES_MAX 16U
#define NODES_MAX    (16U + GPU_MAX + SWITCHES_MAX)
#define PATHS_MAX    (NODES_MAX + 32U)

static const struct confine_call files[] = {
        CONFINE_ALLOW(open),       CONFINE_ALLOW(openat),
        CONFINE_ALLOW(getdents64), /* /sys/bus/pci/devices, /proc/driver/nvidia/gpus */
        CONFINE_ALLOW(stat),       CONFINE_ALLOW(lstat),
        CONFINE_ALLOW(statfs),     CONFINE_ALLOW(fstatfs),
        CONFINE_ALLOW(access),     CONFINE_ALLOW(faccessat),
        CONFINE_ALLOW(faccessat2), CONFINE_ALLOW(readlink),
        CONFINE_ALLOW(readlinkat), CONFINE_ALLOW(getcwd),
        CONFINE_ALLOW(dup2),       CONFINE_ALLOW(dup3),
        CONFINE_ALLOW(flock),
};

static const struct confine_call driver[] = {
        CONFINE_ALLOW(ioctl), /* on what could be opened */
        CONFINE_ALLOW(mincore),
        CONFINE_ALLOW(msync),
        CONFINE_ALLOW(mlock),
        CONFINE_ALLOW(munlock),
        CONFINE_ALLOW(memfd_create), /* the library shares memory with its own threads by it */
        CONFINE_ALLOW(get_mempolicy),
        CONFINE_ALLOW(mbind), /* memory near to the GPU */
        CONFINE_ALLOW(set_mempolicy),
        CONFINE_ALLOW(getcpu),
        CONFINE_ALLOW(sched_setaffinity),
        CONFINE_ALLOW(sched_getparam),
        CONFINE_ALLOW(sched_getscheduler),
        CONFINE_ALLOW(membarrier),
        CONFINE_ALLOW(arch_prctl),
        CONFINE_ALLOW(getrusage),
        CONFINE_ALLOW(times),
        CONFINE_ALLOW(getrlimit),
        CONFINE_ALLOW(getpriority),
        CONFINE_ALLOW(getpgrp),
        CONFINE_ALLOW(getsid),
        CONFINE_ALLOW(getresuid),
        CONFINE_ALLOW(getresgid),
        CONFINE_ALLOW(getgroups),
        CONFINE_ALLOW(select),
        CONFINE_ALLOW(pselect6),
        CONFINE_ALLOW(epoll_create1),
        CONFINE_ALLOW(epoll_ctl),
        CONFINE_ALLOW(epoll_wait),
        CONFINE_ALLOW(epoll_pwait),
        CONFINE_ALLOW(timerfd_create),
        CONFINE_ALLOW(timerfd_settime),
        CONFINE_ALLOW(pipe),
        CONFINE_ALLOW_IF(prctl, 0, PR_SET_NAME),
        CONFINE_ALLOW_IF(prctl, 0, PR_GET_NAME),
        CONFINE_ALLOW_IF(prctl, 0, PR_GET_DUMPABLE),
        /* the connection to the engine */
        CONFINE_ALLOW(sendto),
        CONFINE_ALLOW(recvfrom),
        CONFINE_ALLOW(sendmsg),
        CONFINE_ALLOW(recvmsg),
};

/* CUDA binds an abstract socket for handing descriptors to other processes, and does not start
 * without; Landlock keeps it from reaching anybody's. */
static const struct confine_call cuda[] = {
        CONFINE_ALLOW_IF(socket, 0, AF_UNIX),
        CONFINE_ALLOW_IF(socketpair, 0, AF_UNIX),
        CONFINE_ALLOW(bind),
        CONFINE_ALLOW(listen),
        CONFINE_ALLOW(accept4),
        CONFINE_ALLOW(getsockname),
        CONFINE_ALLOW(setsockopt),
        CONFINE_ALLOW(getsockopt),
        CONFINE_ALLOW(shutdown),
};

/* Below the driver's root. */
static const char *const nodes[] = {
        "nvidiactl",
        "nvidia-modeset",
        "nvidia-uvm",
        "nvidia-caps",
        "nvidia-nvswitchctl",
        "nvidia-uvm-tools",
        "nvidia-caps-imex-channels",
};

static const struct {
        const char *prefix;
        unsigned n;
} numbered[] = { { "nvidia", GPU_MAX }, { "nvidia-nvswitch", SWITCHES_MAX } };

/* What a library of the driver's reads, on a host and in every distribution. */
static const struct confine_path readable[] = {
        { "/usr", CONFINE_READ }, /* libraries, and the driver's own data in share/nvidia */
        { "/lib", CONFINE_READ },
        { "/lib64", CONFINE_READ },
        { "/etc/ld.so.cache", CONFINE_READ },
        { "/etc/nvidia", CONFINE_READ },
        { "/sys", CONFINE_READ },         /* PCI addresses, NUMA nodes */
        { "/proc/driver", CONFINE_READ }, /* which GPUs there are */
        { "/proc/self", CONFINE_READ },   /* its own mappings */
        { "/proc/sys", CONFINE_READ },
        { "/proc/devices", CONFINE_READ }, /* major numbers */
        { "/proc/modules", CONFINE_READ },
        { "/proc/meminfo", CONFINE_READ },
        { "/proc/cpuinfo", CONFINE_READ },
        { "/proc/stat", CONFINE_READ },
        { "/proc/version", CONFINE_READ },
        { "/dev/null", CONFINE_READ | CONFINE_WRITE },
        { "/dev/zero", CONFINE_READ | CONFINE_WRITE },
        { "/dev/urandom", CONFINE_READ },
};

struct paths {
        struct confine_path list[PATHS_MAX];
        size_t n;
        char nodes[NODES_MAX][64], library[PATH_MAX], fleet[PATH_MAX];
};

/* The n-th name that a device node of the driver's may have; false: there are no more. */
static bool node_name(const struct ladder_args *a, size_t i, char *ret, size_t size)
{
        const char *root = strcmp(a->root, "/") == 0 ? "" : a->root;

        if (i < NELEM(nodes))
                return snprintf(ret, size, "%s/dev/%s", root, nodes[i]) < (int) size;
        i -= NELEM(nodes);
        for (size_t k = 0; k < NELEM(numbered); k++) {
                if (i < numbered[k].n)
                        return snprintf(ret, size, "%s/dev/%s%zu", root, numbered[k].prefix, i) <
                               (int) size;
                i -= numbered[k].n;
        }
        return false;
}

uint64_t ladder_nodes(const struct ladder_args *a)
{
        uint64_t sum = 0;
        char path[64];
        struct stat st;

        for (size_t i = 0; !a->fleet && node_name(a, i, path, sizeof path); i++)
                if (stat(path, &st) == 0) /* in each place another weight */
                        sum = sum * 1099511628211U + i + 1 + (uint64_t) st.st_ino * 31 +
                              (uint64_t) st.st_rdev * 17;
        return sum;
}

static void add(struct paths *p, const char *path, unsigned access)
{
        p->list[p->n++] = (struct confine_path){ path, access };
}

/* The directory of @file, in @buf; NULL: none that is named. */
static const char *folder(const char *file, char buf[static PATH_MAX])
{
        char *slash;

        if (!file || file[0] != '/' || strlen(file) >= PATH_MAX)
                return NULL;
        memcpy(buf, file, strlen(file) + 1);
        slash = strrchr(buf, '/');
        slash[slash == buf ? 1 : 0] = '\0';
        return buf;
}

static void collect(const struct ladder_args *a, struct paths *p)
{
        const char *dir;

        for (size_t i = 0; i < NELEM(readable); i++)
                p->list[p->n++] = readable[i];
        dir = folder(a->library, p->library);
        if (dir)
                add(p, dir, CONFINE_READ);
        if (a->fleet) { /* a tree of ours with everything in it */
                if (strcmp(a->root, "/") != 0)
                        add(p, a->root, CONFINE_READ | CONFINE_WRITE | CONFINE_DEVICE);
                dir = folder(a->fleet, p->fleet);
                if (dir)
                        add(p, dir, CONFINE_READ);
                return;
        }
        for (size_t i = 0; i < NODES_MAX && node_name(a, i, p->nodes[i], sizeof p->nodes[i]); i++)
                add(p, p->nodes[i], CONFINE_READ | CONFINE_WRITE | CONFINE_DEVICE);
}

int ladder_descend(const struct ladder_args *a, struct err *e)
{
        const struct confine_calls calls[] = { confine_calls_runtime, confine_calls_io,
                                               CONFINE_CALLS(files), CONFINE_CALLS(driver),
                                               CONFINE_CALLS(cuda) };
        struct confine c = { .program = "vmm-gpu",
                             .traceable = true,
                             .calls = calls,
                             .n_calls = a->cuda ? NELEM(calls) : NELEM(calls) - 1,
                             .otherwise = SCMP_ACT_ERRNO(EPERM) };
        AUTO(free) struct paths *p = calloc(1, sizeof *p);

        if (!p)
                return err_set(e, -ENOMEM, "sandbox of vmm-gpu");
        collect(a, p);
        c.paths = p->list;
        c.n_paths = p->n;
        return confine_descend(&c, e);
}
