/* gpu.h - what GPUs a host has and how they are joined: the object that travels from vmm-gpu to the
 * engine and from there to the control plane, and that chooser and binding work from.  Pure.
 *
 * One entry is one thing that can be rented: a whole GPU, or one MIG instance of a GPU that is in
 * MIG mode (the GPU itself is then listed too, and is not for rent).  The JSON form is in
 * docs/gpu.md. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

enum gpu_state {
        GS_NONE,
        GS_OK,
        GS_UNHEALTHY,   /* the driver says so, or a call about it hung; back to ok by itself */
        GS_LOST,        /* it was here and the driver does not list it any more */
        GS_QUARANTINED, /* a hand-over check failed: only an operator's release ends it */
        GS_ELSEWHERE,   /* held by a cluster of another engine on this machine */
        GS_OPEN,        /* a cluster that was not given it may have it open; until that ends */
        GS_STATE_COUNT
};
extern const char *const gpu_state_names[GS_STATE_COUNT]; /* "none", "ok", "unhealthy", ... */

#define GPU_NUMA_UNKNOWN 65535U
#define GPU_MAX          64U /* LIMIT_GPUS: a set of them is one uint64_t */

struct gpu {
        char *uuid;        /* "GPU-8-4-4-4-12 hex digits" or "MIG-...": the name of the resource */
        char *name;        /* the driver's product name: "NVIDIA A100-SXM4-80GB" */
        char *pci;         /* "00000000:07:00.0", of the GPU that it is or lies on */
        char *mig_profile; /* "1g.10gb"; NULL: a whole GPU */
        char *parent;      /* UUID of the GPU that a MIG instance lies on */
        char *serial, *vbios, *inforom; /* NULL: the driver does not say */
        char *reason; /* why `state` is not ok, a sentence for people; else NULL */
        enum gpu_state state;
        uint32_t index; /* in the driver's order, as nvidia-smi counts; of the parent */
        uint32_t minor; /* /dev/nvidia<minor>; of the parent */
        uint32_t memory_mib;
        uint32_t numa_node; /* or GPU_NUMA_UNKNOWN */
        uint32_t gi, ci;    /* MIG: GPU and compute instance */
        bool mig_mode;      /* a whole GPU that is divided: not for rent as a whole */
        bool ecc;
};

/* How two GPUs are joined, as `nvidia-smi topo -m` says it; the better, the larger. */
enum gpu_path {
        GP_NONE,
        GP_SYS,  /* across NUMA nodes */
        GP_NODE, /* across PCIe host bridges of one NUMA node */
        GP_PHB,  /* across one host bridge */
        GP_PXB,  /* across several PCIe switches */
        GP_PIX,  /* across one PCIe switch */
        GP_SELF,
        GP_PATH_COUNT
};
/* Whether each reads and writes the other's memory by itself, as `nvidia-smi topo -p2p` says it. */
enum gpu_p2p {
        GPP_UNKNOWN,
        GPP_OK,
        GPP_CHIPSET,  /* the chipset forbids */
        GPP_GPU,      /* these GPUs cannot */
        GPP_TOPOLOGY, /* not across what lies between */
        GPP_DISABLED, /* switched off in the driver */
        GPP_NOT,      /* not, for another reason */
        GPP_COUNT
};
extern const char *const gpu_p2p_names[GPP_COUNT]; /* "", "OK", "CNS", "GNS", "TNS", "DR", "NS" */
struct gpu_link {
        uint8_t path;    /* enum gpu_path; known beside NVLinks, too */
        uint8_t nvlinks; /* direct or through NVSwitch; 0: none */
        uint8_t p2p;     /* enum gpu_p2p; of a GPU with itself: unknown */
};
/* "X", "NV12", "PIX", "PXB", "PHB", "NODE", "SYS"; with NVLinks and a known path the wire says
 * "NV12/SYS". */
void gpu_link_text(struct gpu_link l, bool with_path, char ret[static 16]);
int gpu_link_parse(const char *s, struct gpu_link *ret);

struct gpu_fleet {
        struct gpu *gpus;
        size_t n;
        struct gpu_link *links; /* n * n, symmetric; of MIG instances all zero */
        /* sets of GPUs (bit i: gpus[i]) that the NVSwitch fabric can be divided into; none: no such
         * fabric, every set is legal */
        uint64_t *partitions;
        size_t n_partitions;
        char *driver_version, *cuda_version; /* "550.54.15", "12.4"; NULL: no driver */
        char *note;                          /* why there is none, or what is odd; else NULL */
        bool simulated;
};

int gpu_fleet_decode(const json_t *j, struct gpu_fleet *ret, struct err *e);
json_t *gpu_fleet_encode(const struct gpu_fleet *f); /* new reference or NULL */
int gpu_decode(const json_t *j, struct gpu *ret, struct err *e);
json_t *gpu_encode(const struct gpu *g);
void gpu_done(struct gpu *g);
int gpu_copy(const struct gpu *g, struct gpu *ret);
void gpu_fleet_done(struct gpu_fleet *f);
int gpu_fleet_copy(const struct gpu_fleet *f, struct gpu_fleet *ret);

/* NULL: there is none. */
struct gpu *gpu_fleet_find(const struct gpu_fleet *f, const char *uuid);
/* Whole and not divided, or an instance. */
bool gpu_is_for_rent(const struct gpu *g);
/* [A-Za-z0-9-], "GPU-" or "MIG-" first, at most 64 bytes: safe as a file name. */
bool gpu_uuid_ok(const char *uuid);
