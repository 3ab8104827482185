/* simulated.h - a driver's tree that is none: made from a description below the run directory, so that
 * everything else about GPUs finds what it would find on a host that has them.  For driver.c; engine
 * process, at start.
 *
 * theory of operation: the description is copied with the instance's id as its seed (so vmm-gpu and
 * the tree say the same), the tree is a tmpfs in the engine's private mount namespace (device nodes
 * work there, and it ends with the engine; clusters keep their own mounts of its files), and nothing
 * of it is taken over from the start before: it is always the same. */
#pragma once
#include "base/err.h"
#include "engine/gpu/driver.h"
#include "engine/instance.h"
#include "model/gpu_sim.h"

/* @fleet: a name, or a path when there is a slash in it.  Fills @d. */
int simulated_open(const struct instance *inst, const char *fleet, struct gpu_driver *d,
                   struct err *e);
/* The tree goes; faults and description stay until the run directory does. */
void simulated_remove(const char *root_path);
/* "simulated: 8 x NVIDIA A100-SXM4-80GB (a100x8)": 1, or an error. */
int simulated_describe(const char *libexec, const char *fleet, char **ret, struct err *e);

/* The tree's parts, each below @root.  @major: GPUs, nvidia-uvm, nvidia-caps. */
enum { SIM_MAJOR_GPU, SIM_MAJOR_UVM, SIM_MAJOR_CAPS, SIM_MAJOR_COUNT };
struct sim_tree {
        int root;
        const struct gpu_sim *s;
        const char *libexec;
        unsigned major[SIM_MAJOR_COUNT];
};
int sim_tree_dev(const struct sim_tree *t, struct err *e);
int sim_tree_proc(const struct sim_tree *t, struct err *e);
int sim_tree_sys(const struct sim_tree *t, struct err *e);
int sim_tree_files(const struct sim_tree *t, char **ret_nvml, struct err *e);

/* Below @root, parents made; for these files alone. */
int sim_put(int root, mode_t mode, const char *path, const void *data, size_t len, struct err *e);
int sim_put_text(int root, const char *path, struct err *e, const char *fmt, ...)
        __attribute__((format(printf, 4, 5)));
int sim_link(int root, const char *target, const char *path, struct err *e);
int sim_dir(int root, const char *path, struct err *e);
/* A name beside a fleet: where our own files for this lie, in a build or installed. */
int sim_find(const char *libexec, const char *const *places, const char *name, char **ret,
             struct err *e);
