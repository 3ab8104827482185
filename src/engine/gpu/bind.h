/* bind.h - what a cluster gets to see of its GPUs: device nodes, driver files, links, variables, its
 * own /proc/driver/nvidia.  Made from the host's CDI specs or, without any, from the installed driver.
 * Hooks of a spec are never run; those that everybody needs (links, loader cache) are read and done
 * by us.  Operation process; blocks on files alone; never opens a path that a tenant can influence. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/mem.h"
#include "engine/gpu/driver.h"
#include "engine/slice/slice.h"
#include "model/gpu.h"

struct gpu_device {
        char *name;     /* below /dev: "nvidia0", "nvidia-caps/nvidia-cap3" */
        int fd;         /* O_PATH, a checked character device */
        mode_t mode;    /* of the node inside */
        char access[4]; /* for the device rule: "rw" */
};
struct gpu_mount {
        char *target; /* absolute, inside; or "@lib/..": engine/sandbox/sandbox.h */
        int mnt;      /* detached, read-only, nosuid, nodev; a file or a directory */
};
struct gpu_symlink {
        char *target, *link; /* what it says; path of the link inside, as a mount's target */
};
struct gpu_library { /* a line of the loader's cache */
        char *name, *path;
        bool is_32;
};
struct gpu_binding {
        struct gpu_device *devices;
        size_t n_devices;
        struct gpu_mount *mounts;
        size_t n_mounts;
        struct gpu_symlink *symlinks;
        size_t n_symlinks;
        char **env; /* NVIDIA_VISIBLE_DEVICES=void and what the spec says; wins over the image */
        struct gpu_library *libraries;
        size_t n_libraries;
        int proc_mnt; /* detached, read-only: what lies at /proc/driver; -EBADF: not made yet */
};
void gpu_binding_init(struct gpu_binding *b);
void gpu_binding_done(struct gpu_binding *b); /* closes and frees */

/* @gpus: what the plan names, with the details that the engine knows.  @caps: the value of
 * NVIDIA_DRIVER_CAPABILITIES, from user, image or NULL ("compute,utility"); unknown words are refused.
 * @all_of_fabric: the cluster leases every GPU that the engine knows; when the kernel has no other, either,
 * it gets NVSwitch and IMEX nodes, too. */
int gpu_bind(const struct gpu_driver *d, const struct gpu *gpus, size_t n, const char *caps,
             bool all_of_fabric, struct gpu_binding *ret, struct err *e);

/* What lies at /proc/driver, into @b: apart, because nothing else needs it before the last moment.  Fails
 * also when the driver says by now that a node is another GPU's (-ESTALE). */
int gpu_bind_proc(const struct gpu_driver *d, const struct gpu *gpus, size_t n,
                  struct gpu_binding *b, struct err *e);

/* Find out ahead what is the same for every cluster.  Engine process, at start, before an operation is
 * forked; without it each binding does it by itself. */
void gpu_bind_prepare(const struct gpu_driver *d);

/* The rules that let these nodes be opened; *@ret is the caller's to free. */
int gpu_binding_rules(const struct gpu_binding *b, struct slice_device **ret, size_t *ret_n,
                      struct err *e);
