/* driver.h - which GPU driver this host has, and where its files lie: under "/", or, for a simulated
 * one, under a tree of ours that looks the same.  Everything else about GPUs opens files relative to
 * `root_fd` and does not know the difference; that is the one seam.
 *
 * Below the root:  dev/nvidia0.. dev/nvidiactl dev/nvidia-caps/..   device nodes
 *                  proc/driver/nvidia/{version,params,gpus/<pci>/information,capabilities/..}
 *                  sys/bus/pci/devices/<pci>/{numa_node,local_cpulist,vendor,..}
 *                  usr/lib.., usr/bin/nvidia-smi, etc/cdi, var/run/cdi   the driver's files and CDI specs */
#pragma once
#include <stdbool.h>

#include "base/err.h"
#include "base/mem.h"
#include "engine/instance.h"

enum gpu_driver_kind { GD_NONE, GD_NVIDIA, GD_SIMULATED, GD_KIND_COUNT };

struct gpu_driver {
        enum gpu_driver_kind kind;
        int root_fd;     /* O_PATH directory; -EBADF for GD_NONE */
        char *root_path; /* for people and for vmm-gpu's arguments */
        char *nvml; /* whole path of libnvidia-ml.so.1, root and all; NULL: the loader's search */
        char *fleet_file; /* simulated: the description it was made from */
        char *version;    /* of the kernel's driver, from proc/driver/nvidia/version; NULL */
        char *note;       /* why there is none, or what does not fit together; NULL */
};

/* As `gpu_driver` of the configuration says: "auto", "none", "simulated:<fleet or file>".  Makes a
 * simulated tree below the run directory (made anew at each start; the same names each time).
 * -EINVAL: an unknown fleet (the message lists the known ones) or a description with a mistake.
 * A real driver that is missing or broken is no failure: GD_NONE and a note.  Engine process, at
 * start; blocks on files alone. */
int gpu_driver_open(const struct instance *inst, struct gpu_driver *ret, struct err *e);
/* A simulated tree goes with it; clusters keep what they have of it. */
void gpu_driver_close(struct gpu_driver *d);

/* For people, without making anything: "550.54.15, /usr/lib/..", "simulated: 8 x NVIDIA A100-SXM4-80GB
 * (a100x8)", or why there is none.  1: GPUs can be used; 0: not, or not well. */
int gpu_driver_describe(const char *want, const char *libexec, char **ret, struct err *e);
/* The version in a text like /proc/driver/nvidia/version; heap; NULL: none. */
char *gpu_driver_version_of(const char *text);
