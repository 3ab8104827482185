/* events.c - Xids and ECC errors as they happen: a set gets what fault lines appear after a GPU was
 * registered with it, each line once. */
#include "fake.h"

#include <stdlib.h>

#define STEP_MS     20U
#define SEEN_MAX    512U
#define EVENT_KNOWN (NVML_EVENT_ECC_SINGLE | NVML_EVENT_ECC_DOUBLE | NVML_EVENT_XID)

struct nvml_event_set {
        uint64_t types[GPU_SIM_MAX]; /* by GPU */
        uint64_t seen[SEEN_MAX];     /* hashes of lines, a ring */
        size_t n_seen;
};

static const struct {
        enum fault_kind kind;
        uint64_t type;
} sources[] = {
        { F_XID, NVML_EVENT_XID },
        { F_ECC, NVML_EVENT_ECC_DOUBLE },
        { F_ECC_CORRECTED, NVML_EVENT_ECC_SINGLE },
};

/* A line is about one GPU once, though it may name several. */
static uint64_t key_of(const struct fault *f, uint32_t gpu)
{
        return f->hash * 131 + gpu;
}

static bool note(struct nvml_event_set *set, uint64_t key)
{
        for (size_t i = 0; i < set->n_seen && i < SEEN_MAX; i++)
                if (set->seen[i] == key)
                        return false;
        set->seen[set->n_seen++ % SEEN_MAX] = key;
        return true;
}

static bool next(struct nvml_event_set *set, uint32_t gpu, uint64_t types, struct nvml_event *ret)
{
        const struct fault *f;

        for (size_t k = 0; k < sizeof sources / sizeof *sources; k++)
                for (unsigned i = 0; (f = fault_find(sources[k].kind, &world.gpus[gpu], i)); i++)
                        if ((types & sources[k].type) && note(set, key_of(f, gpu))) {
                                *ret = (struct nvml_event){ .device = &world.gpus[gpu],
                                                            .type = sources[k].type,
                                                            .data = f->a,
                                                            .gi = UINT32_MAX,
                                                            .ci = UINT32_MAX };
                                return true;
                        }
        return false;
}

int nvmlDeviceGetSupportedEventTypes(struct nvml_device *device, uint64_t *types)
{
        int r = begin_whole("nvmlDeviceGetSupportedEventTypes", device);

        if (!r)
                *types = model_of(device)->ecc ? EVENT_KNOWN : NVML_EVENT_XID;
        return r;
}

int nvmlEventSetCreate(struct nvml_event_set **set)
{
        int r = begin("nvmlEventSetCreate");

        if (r)
                return r;
        *set = calloc(1, sizeof **set);
        return *set ? NVML_SUCCESS : NVML_MEMORY;
}

int nvmlEventSetFree(struct nvml_event_set *set)
{
        int r = begin("nvmlEventSetFree");

        if (!r)
                free(set);
        return r;
}

int nvmlDeviceRegisterEvents(struct nvml_device *device, uint64_t types, struct nvml_event_set *set)
{
        int r = begin_whole("nvmlDeviceRegisterEvents", device);
        struct nvml_event old;
        uint64_t known = 0;

        if (r)
                return r;
        (void) nvmlDeviceGetSupportedEventTypes(device, &known);
        if (types & ~known)
                return NVML_NOT_SUPPORTED;
        while (next(set, device->at, types, &old)) /* has happened */
                ;
        set->types[device->at] |= types;
        return NVML_SUCCESS;
}

int nvmlEventSetWait_v2(struct nvml_event_set *set, struct nvml_event *event, unsigned timeout_ms)
{
        uint64_t until = now_ms() + timeout_ms;

        for (;;) {
                int r = begin("nvmlEventSetWait_v2");

                for (uint32_t i = 0; !r && i < world.sim.n_gpus; i++)
                        if (set->types[i] && next(set, i, set->types[i], event))
                                return NVML_SUCCESS;
                if (r || now_ms() >= until)
                        return r ? r : NVML_TIMEOUT;
                pause_ms(STEP_MS);
        }
}

int nvmlEventSetWait(struct nvml_event_set *set, struct nvml_event_v1 *event, unsigned timeout_ms)
{
        struct nvml_event now;
        int r = nvmlEventSetWait_v2(set, &now, timeout_ms);

        if (!r)
                *event = (struct nvml_event_v1){ now.device, now.type, now.data };
        return r;
}
