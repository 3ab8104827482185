/* fake.h - inside of the stand-in for the driver library: what the calls share.
 *
 * The world is read once, by nvmlInit(), and does not change until the last nvmlShutdown(); faults come
 * from a file that is read again by every call.  Everything is for tests and demonstrations: it
 * serves what a description says and measures nothing. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gpu/nvml_abi.h"
#include "model/gpu_sim.h"

/* What programs may call; everything else is hidden. */
#pragma GCC visibility push(default)
#define X(symbol, args) int symbol args;
NVML_CALLS(X)
#undef X
const char *nvmlErrorString(int ret);
#pragma GCC visibility pop

struct nvml_device {
        bool is_mig;
        uint32_t at; /* index in world.sim.gpus or .migs */
};

struct world {
        unsigned users; /* nvmlInit() without nvmlShutdown(); 0: nothing below holds */
        struct gpu_sim sim;
        bool is_host;                /* by a description; else by what can be seen */
        uint32_t shown[GPU_SIM_MAX]; /* GPUs in the order of their indexes */
        uint32_t n_shown;            /* without those that were lost at nvmlInit() */
        struct nvml_device gpus[GPU_SIM_MAX], migs[GPU_SIM_MAX];
};
extern struct world world;

/* From the description or from /proc and /dev: an NVML code. */
int world_load(struct world *w);

/* ---- faults ---- */
enum fault_kind {
        F_NONE,
        F_HANG,
        F_FAIL,
        F_LOSE,
        F_XID,
        F_LEAK,
        F_VBIOS,
        F_INFOROM,
        F_ECC,
        F_ECC_CORRECTED,
        F_REMAP,
        F_RETIRED,
        F_UTIL,
        F_TEMPERATURE,
        F_THROTTLE,
        F_PROCESS,
        F_COUNT
};
struct fault {
        enum fault_kind kind;
        char gpu[48];  /* UUID or index in the description; "-": calls about none, "*": any */
        char word[64]; /* name of a call, a text */
        uint64_t a, b;
        uint64_t hash; /* of the line: what has been reported already */
};
#define FAULTS_MAX 128U

/* Read the file again. */
void faults_refresh(void);
/* The @nth fault of this kind that is about this device (NULL: none), or NULL.  A copy would be too
 * much: valid until the next refresh, by the same thread. */
const struct fault *fault_find(enum fault_kind kind, const struct nvml_device *d, unsigned nth);
/* The number that the first one says, or @preset. */
uint64_t fault_number(enum fault_kind kind, const struct nvml_device *d, uint64_t preset);

/* ---- each call begins with one of these: 0 or an NVML code; hangs when a fault says so ---- */
int begin(const char *call);
int begin_device(const char *call, const struct nvml_device *d);
/* The same, for what only a whole GPU can say. */
int begin_whole(const char *call, const struct nvml_device *d);

/* ---- */
const struct gpu_sim_gpu *
gpu_of(const struct nvml_device *d); /* of an instance: the GPU below it */
const struct gpu_sim_model *model_of(const struct nvml_device *d);
int give_text(const char *from, char *to, unsigned length);
uint64_t now_ms(void); /* wall clock */
void pause_ms(unsigned ms);
