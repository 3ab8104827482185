/* gpu_sim.h - the description of a simulated GPU fleet: a text file that the engine makes a driver's
 * tree from and that our stand-in for the driver library (tests/fakes/nvml) serves.  Pure; no heap, so
 * that the stand-in needs next to nothing of the C library that it finds in a cluster.
 *
 * The format, one thing a line, `#` begins a comment, "..." holds a word with blanks:
 *
 *   driver VERSION cuda=VERSION                     once, first
 *   model "NAME" KEY=VALUE...                       all GPUs below are of this model
 *   gpu ADDRESS KEY=VALUE...                        a GPU at this PCI address, in the driver's order
 *   mig ADDRESS PROFILE KEY=VALUE...                an instance on a GPU with mig=on
 *   seed WORD                                       what UUIDs and serial numbers are derived from
 *
 * Keys of a model: memory, reserved (MiB; what the driver keeps), device, subsystem (PCI, four hex
 * digits), vbios, inforom, ecc (on, off), power (W), sm, mem (MHz, highest), links (NVLinks),
 * nvlink (their version), fan, display (a VGA controller with an audio function), divisible (has MIG).
 *
 * Keys of a GPU: numa, bridge, switch, leaf (numbers that say where it hangs: same leaf PIX, same switch
 * PXB, same bridge PHB, same numa NODE, else SYS; without one it shares it with nobody), fabric (a
 * number: all links go to the NVSwitches of that fabric), peer=ADDRESS/LINKS (direct NVLinks; may be
 * repeated), module (place on the board), mig (on: divided), and, for the tree: minor, uuid, serial.
 *
 * Keys of an instance: gi, ci, memory (MiB), sms, uuid. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define GPU_SIM_MAX       64U
#define GPU_SIM_PEERS     8U
#define GPU_SIM_TEXT_MAX  65536U /* bytes of a description */
#define GPU_SIM_NONE      UINT32_MAX
#define GPU_SIM_LINKS_MAX 18U
#define GPU_SIM_SWITCHES  6U /* NVSwitches of one fabric that the tree shows */
#define GPU_SIM_LINE_MAX  1024U

struct gpu_sim_model {
        char name[64], vbios[32], inforom[16];
        uint32_t memory_mib, reserved_mib, device, subsystem, power_w, sm_mhz, mem_mhz;
        uint32_t links, nvlink;
        bool ecc, fan, display, divisible;
};
struct gpu_sim_pci {
        uint32_t domain, bus, slot;
};
struct gpu_sim_peer {
        struct gpu_sim_pci pci;
        uint32_t links;
};
struct gpu_sim_gpu {
        struct gpu_sim_pci pci;
        uint32_t model, minor, module;
        uint32_t numa, bridge, sw, leaf, fabric; /* GPU_SIM_NONE: none of its kind */
        struct gpu_sim_peer peers[GPU_SIM_PEERS];
        uint32_t n_peers;
        bool mig;
        char uuid[48], serial[24];
};
struct gpu_sim_mig {
        uint32_t gpu; /* index of its GPU */
        uint32_t gi, ci, memory_mib, sms, slices;
        char profile[24], uuid[48];
};
struct gpu_sim {
        char driver[24], cuda[12], seed[32];
        struct gpu_sim_model models[GPU_SIM_MAX];
        struct gpu_sim_gpu gpus[GPU_SIM_MAX];
        struct gpu_sim_mig migs[GPU_SIM_MAX];
        uint32_t n_models, n_gpus, n_migs;
};

/* @seed: NULL takes the description's own.  @part: some GPUs of a whole, so a peer may be missing.
 * *@ret is undefined after a failure.  -EINVAL names line and word. */
int gpu_sim_parse(const char *text, const char *seed, bool part, struct gpu_sim *ret,
                  struct err *e);

/* "0000:07:00.0" (four digits, lower case, as below /proc and /sys), and back; GPUs are function 0. */
void gpu_sim_pci_text(const struct gpu_sim_pci *pci, char ret[static 16]);
int gpu_sim_pci_parse(const char *s, struct gpu_sim_pci *ret);
bool gpu_sim_pci_eq(const struct gpu_sim_pci *a, const struct gpu_sim_pci *b);

/* The lines that describe this GPU (model and gpu) or instance alone, uuid and all; each with
 * @prefix in front.  What lies in a tree's files, so that its reader knows what a driver knows.
 * Returns the length; 0: it did not fit. */
size_t gpu_sim_gpu_lines(const struct gpu_sim *s, uint32_t gpu, const char *prefix, char *buf,
                         size_t size);
size_t gpu_sim_mig_lines(const struct gpu_sim *s, uint32_t mig, const char *prefix, char *buf,
                         size_t size);

/* Numbers that are always the same for the same words. */
uint64_t gpu_sim_hash(const char *word, uint64_t salt);

/* Where two GPUs meet, as NVML counts it: 10 (one switch), 20, 30, 40, 50 (across NUMA nodes). */
uint32_t gpu_sim_level(const struct gpu_sim_gpu *a, const struct gpu_sim_gpu *b);
/* NVLinks between two GPUs, direct or through NVSwitches of one fabric. */
uint32_t gpu_sim_nvlinks(const struct gpu_sim *s, const struct gpu_sim_gpu *a,
                         const struct gpu_sim_gpu *b);

/* The number of MIG capability files, as the driver's own table has them: those of a GPU instance (@ci
 * GPU_SIM_NONE) and of a compute instance. */
uint32_t gpu_sim_cap_minor(uint32_t minor, uint32_t gi, uint32_t ci);
