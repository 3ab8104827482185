/* gpud.h - vmm-gpu's state and the parts it is made of, shared by the files of this folder.
 *
 * One thread, one loop: the engine's messages, and once a second everything that is measured.  Before
 * a call that may hang gpud_at() tells the engine which one; that is all the care there is, for the
 * engine ends this program when it falls silent. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/frame.h"
#include "gpu/nvml.h"
#include "model/gpu.h"
#include "model/gpu_telemetry.h"

/* What is kept of a GPU from one second to the next, by UUID: it outlives a re-open. */
struct gpud_memory {
        char uuid[NVML_UUID_MAX];
        uint64_t nvlink_kib[2], nvlink_at_us; /* counters sent, received, when they were read */
        uint64_t pcie_kib_s[2];
        uint64_t xid;         /* the last one since this program runs */
        uint64_t throttle_us; /* when clocks were last said to be held back */
        uint64_t throttle;    /* the reasons a second ago */
};

struct gpud_dev {
        struct nvml_device *handle;
        size_t whole; /* position of the GPU that it lies on; its own for a whole one */
        struct gpu info;
        unsigned links_to_switch; /* NVLinks that are up and lead to an NVSwitch */
        struct nvml_pci pci;      /* of the whole GPU */
        struct gpud_memory *memory;
        int trouble; /* what the driver last answered instead: enum nvml_ret; NVML_SUCCESS: none */
        bool remap_pending, remap_failed;
};

struct gpud {
        struct frame_conn *conn;
        bool gone; /* the engine is */
        const char *nvml_path, *fleet_file;
        int root_fd; /* O_PATH */
        bool asked;  /* the engine has sent its first "open" */
        char **omit;
        struct nvml nv;
        struct nvml_event_set *events;
        unsigned count; /* of GPUs that the library lists */
        struct gpud_dev devs[GPU_MAX];
        size_t n;
        struct gpud_memory memory[2 * GPU_MAX];
        size_t n_memory;
        char *note;    /* for the fleet */
        json_t *fleet; /* as it was said last */
        bool rescan;   /* something has changed: look at all of it again now */
        bool reopen;   /* a GPU is gone: see whether the driver still lists it */
        uint64_t looked_us, opened_us, reopened_us; /* monotonic */
        unsigned pcie_next;                         /* whose turn it is, see metrics.c */
        const char *at_uuid, *at_call;              /* what was said last by gpud_at() */
};

/* wire.c: messages, as docs/gpu.md has them */
/* Says it when it is not what was said last (compared by address). */
void gpud_at(struct gpud *d, const char *uuid, const char *call);
void gpud_send(struct gpud *d, json_t *msg); /* takes the reference; NULL is out of memory */
void gpud_event(struct gpud *d, const char *uuid, const char *kind, uint64_t code,
                const char *text);
int gpud_receive(struct gpud *d); /* all that has come; < 0: the engine is gone */

/* open.c: the library and its devices */
void gpud_open(struct gpud *d); /* never fails: without GPUs there is a note */
void gpud_close(struct gpud *d);
struct gpud_dev *gpud_find(struct gpud *d, const char *uuid);
struct gpud_dev *gpud_by_handle(struct gpud *d, const struct nvml_device *handle);
/* Note what the driver answered; true: it was NVML_SUCCESS. */
bool gpud_ok(struct gpud *d, struct gpud_dev *dev, int ret);

/* inventory.c */
void gpud_describe(struct gpud *d, struct gpud_dev *dev); /* fill dev->info */
/* Tell the engine about the fleet when it has changed, or when @always. */
void gpud_say_fleet(struct gpud *d, bool always);
/* "1g.10gb" from what a MIG device is told to have; @gpu_bytes: of the GPU it lies on. */
void gpud_mig_profile(const struct nvml_attributes *a, uint64_t gpu_bytes, char ret[static 32]);

/* links.c */
int gpud_links(struct gpud *d, struct gpu_fleet *f); /* fills links and partitions; -ENOMEM */
/* Sets of GPUs that an NVSwitch fabric of the GPUs in @joined may be divided into: aligned blocks of 1,
 * 2, 4 and 8 of them in their order, and all; @ret has room for 2 * GPU_MAX.  Returns how many. */
size_t gpud_partitions(uint64_t joined, uint64_t *ret);

/* metrics.c */
void gpud_measure(struct gpud *d);

/* events.c */
void gpud_watch(struct gpud *d); /* ask the driver for events of all devices */
void gpud_unwatch(struct gpud *d);
void gpud_drain(struct gpud *d); /* tell the engine what has come */
void gpud_note_throttle(struct gpud *d, struct gpud_dev *dev, uint64_t reasons);

/* check.c */
void gpud_check(struct gpud *d, json_int_t req, const json_t *gpus);
