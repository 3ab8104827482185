/* inventory.c - the calls that say what a GPU is: start and end, names, numbers, instances. */
#include "fake.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

#define MIB (1ULL << 20)

int nvmlInit_v2(void)
{
        int r = NVML_SUCCESS;

        if (world.users == 0)
                r = world_load(&world);
        if (r != NVML_SUCCESS)
                return r;
        world.users++;
        r = begin("nvmlInit_v2");
        if (r != NVML_SUCCESS)
                world.users--;
        return r;
}

int nvmlInit(void)
{
        return nvmlInit_v2();
}

int nvmlShutdown(void)
{
        int r = begin("nvmlShutdown");

        if (r == NVML_SUCCESS)
                world.users--;
        return r;
}

const char *nvmlErrorString(int ret)
{
        static const char *const names[] = {
                "Success",
                "Uninitialized",
                "Invalid argument",
                "Not supported",
                "Insufficient permissions",
                "Already initialized",
                "Not found",
                "Insufficient size",
                "Insufficient external power",
                "Driver not loaded",
                "Timeout",
                "Interrupt request issue",
                "NVML shared library not found",
                "Function not found",
                "Corrupted infoROM",
                "GPU is lost",
                "GPU requires reset",
                "Operating system call failed",
                "Driver/library version mismatch",
                "In use by another client",
                "Insufficient memory",
                "No data",
        };

        return ret >= 0 && (size_t) ret < NELEM(names) ? names[ret] : "Unknown error";
}

int nvmlSystemGetDriverVersion(char *version, unsigned length)
{
        int r = begin("nvmlSystemGetDriverVersion");

        return r ? r : give_text(world.sim.driver, version, length);
}

int nvmlSystemGetNVMLVersion(char *version, unsigned length)
{
        char text[64];
        int r = begin("nvmlSystemGetNVMLVersion");

        (void) snprintf(text, sizeof text, "12.%s", world.sim.driver);
        return r ? r : give_text(text, version, length);
}

int nvmlSystemGetCudaDriverVersion_v2(int *version)
{
        int r = begin("nvmlSystemGetCudaDriverVersion_v2"), v[2] = { 0, 0 }, at = 0;

        for (const char *p = world.sim.cuda; *p; p++) {
                if (*p == '.' && at++ == 1)
                        break;
                if (*p >= '0' && *p <= '9')
                        v[at] = v[at] * 10 + (*p - '0');
        }
        if (r)
                return r;
        *version = v[0] * 1000 + v[1] * 10;
        return NVML_SUCCESS;
}

int nvmlSystemGetCudaDriverVersion(int *version)
{
        return nvmlSystemGetCudaDriverVersion_v2(version);
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
        int r = begin("nvmlDeviceGetCount_v2");

        if (r)
                return r;
        *count = world.n_shown;
        return NVML_SUCCESS;
}

int nvmlDeviceGetCount(unsigned *count)
{
        return nvmlDeviceGetCount_v2(count);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct nvml_device **device)
{
        int r = begin("nvmlDeviceGetHandleByIndex_v2");

        if (r)
                return r;
        if (index >= world.n_shown)
                return NVML_INVALID_ARGUMENT;
        *device = &world.gpus[world.shown[index]];
        return begin_device("nvmlDeviceGetHandleByIndex_v2", *device);
}

int nvmlDeviceGetHandleByIndex(unsigned index, struct nvml_device **device)
{
        return nvmlDeviceGetHandleByIndex_v2(index, device);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, struct nvml_device **device)
{
        int r = begin("nvmlDeviceGetHandleByUUID");

        if (r)
                return r;
        *device = NULL;
        for (uint32_t i = 0; i < world.n_shown; i++)
                if (str_eq(world.sim.gpus[world.shown[i]].uuid, uuid))
                        *device = &world.gpus[world.shown[i]];
        for (uint32_t i = 0; i < world.sim.n_migs; i++)
                if (str_eq(world.sim.migs[i].uuid, uuid))
                        *device = &world.migs[i];
        return *device ? begin_device("nvmlDeviceGetHandleByUUID", *device) : NVML_NOT_FOUND;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, struct nvml_device **device)
{
        int r = begin("nvmlDeviceGetHandleByPciBusId_v2");
        struct gpu_sim_pci pci;

        if (r)
                return r;
        if (gpu_sim_pci_parse(bus_id, &pci) < 0)
                return NVML_INVALID_ARGUMENT;
        for (uint32_t i = 0; i < world.n_shown; i++)
                if (gpu_sim_pci_eq(&world.sim.gpus[world.shown[i]].pci, &pci)) {
                        *device = &world.gpus[world.shown[i]];
                        return begin_device("nvmlDeviceGetHandleByPciBusId_v2", *device);
                }
        return NVML_NOT_FOUND;
}

int nvmlDeviceGetUUID(struct nvml_device *device, char *uuid, unsigned length)
{
        int r = begin_device("nvmlDeviceGetUUID", device);

        if (r)
                return r;
        return give_text(device->is_mig ? world.sim.migs[device->at].uuid
                                        : world.sim.gpus[device->at].uuid,
                         uuid, length);
}

int nvmlDeviceGetName(struct nvml_device *device, char *name, unsigned length)
{
        int r = begin_device("nvmlDeviceGetName", device);
        char text[128];

        if (r)
                return r;
        (void) snprintf(text, sizeof text, "%s%s%s", model_of(device)->name,
                        device->is_mig ? " MIG " : "",
                        device->is_mig ? world.sim.migs[device->at].profile : "");
        return give_text(text, name, length);
}

int nvmlDeviceGetIndex(struct nvml_device *device, unsigned *index)
{
        int r = begin_whole("nvmlDeviceGetIndex", device);

        if (r)
                return r;
        for (uint32_t i = 0; i < world.n_shown; i++)
                if (world.shown[i] == device->at)
                        *index = i;
        return NVML_SUCCESS;
}

int nvmlDeviceGetMinorNumber(struct nvml_device *device, unsigned *minor)
{
        int r = begin_whole("nvmlDeviceGetMinorNumber", device);

        if (r)
                return r;
        *minor = gpu_of(device)->minor;
        return NVML_SUCCESS;
}

int nvmlDeviceGetModuleId(struct nvml_device *device, unsigned *id)
{
        int r = begin_whole("nvmlDeviceGetModuleId", device);

        if (r)
                return r;
        *id = gpu_of(device)->module;
        return NVML_SUCCESS;
}

/* Not where its CPUs are: the node that its memory is, and of these boards none has that. */
int nvmlDeviceGetNumaNodeId(struct nvml_device *device, unsigned *node)
{
        int r = begin_whole("nvmlDeviceGetNumaNodeId", device);

        (void) node;
        return r ? r : NVML_NOT_SUPPORTED;
}

int nvmlDeviceGetSerial(struct nvml_device *device, char *serial, unsigned length)
{
        int r = begin_whole("nvmlDeviceGetSerial", device);

        if (!r && model_of(device)->display && !model_of(device)->ecc)
                r = NVML_NOT_SUPPORTED; /* cards for games have none */
        return r ? r : give_text(gpu_of(device)->serial, serial, length);
}

int nvmlDeviceGetVbiosVersion(struct nvml_device *device, char *version, unsigned length)
{
        int r = begin_whole("nvmlDeviceGetVbiosVersion", device);
        const struct fault *f = r ? NULL : fault_find(F_VBIOS, device, 0);

        return r ? r : give_text(f ? f->word : model_of(device)->vbios, version, length);
}

int nvmlDeviceGetInforomImageVersion(struct nvml_device *device, char *version, unsigned length)
{
        int r = begin_whole("nvmlDeviceGetInforomImageVersion", device);
        const struct fault *f = r ? NULL : fault_find(F_INFOROM, device, 0);

        if (!r && !model_of(device)->inforom[0])
                r = NVML_NOT_SUPPORTED;
        return r ? r : give_text(f ? f->word : model_of(device)->inforom, version, length);
}

static void fill_pci(const struct gpu_sim_pci *at, uint32_t device, uint32_t subsystem,
                     struct nvml_pci *pci)
{
        *pci = (struct nvml_pci){ .domain = at->domain,
                                  .bus = at->bus,
                                  .device = at->slot,
                                  .device_id = device << 16 | 0x10de,
                                  .subsystem_id = subsystem << 16 | 0x10de };
        (void) snprintf(pci->bus_id_legacy, sizeof pci->bus_id_legacy, "%04X:%02X:%02X.0",
                        at->domain & 0xffff, at->bus & 0xff, at->slot & 0x1f);
        (void) snprintf(pci->bus_id, sizeof pci->bus_id, "%08X:%02X:%02X.0", at->domain,
                        at->bus & 0xff, at->slot & 0x1f);
}

int nvmlDeviceGetPciInfo_v3(struct nvml_device *device, struct nvml_pci *pci)
{
        int r = begin_whole("nvmlDeviceGetPciInfo_v3", device);

        if (!r)
                fill_pci(&gpu_of(device)->pci, model_of(device)->device,
                         model_of(device)->subsystem, pci);
        return r;
}

static void to_v2(const struct nvml_pci *from, struct nvml_pci_v2 *to)
{
        *to = (struct nvml_pci_v2){ .domain = from->domain,
                                    .bus = from->bus,
                                    .device = from->device,
                                    .device_id = from->device_id,
                                    .subsystem_id = from->subsystem_id };
        memcpy(to->bus_id, from->bus_id_legacy, sizeof to->bus_id);
}

int nvmlDeviceGetPciInfo_v2(struct nvml_device *device, struct nvml_pci_v2 *pci)
{
        struct nvml_pci now;
        int r = nvmlDeviceGetPciInfo_v3(device, &now);

        if (!r)
                to_v2(&now, pci);
        return r;
}

int nvmlDeviceGetPciInfo(struct nvml_device *device, struct nvml_pci_v2 *pci)
{
        struct nvml_pci now;
        int r = nvmlDeviceGetPciInfo_v3(device, &now);

        if (r)
                return r;
        memcpy(pci->bus_id, now.bus_id_legacy, sizeof pci->bus_id);
        pci->domain = now.domain;
        pci->bus = now.bus;
        pci->device = now.device;
        pci->device_id = now.device_id;
        return NVML_SUCCESS;
}

/* ---- instances ---- */

int nvmlDeviceGetMigMode(struct nvml_device *device, unsigned *current, unsigned *pending)
{
        int r = begin_whole("nvmlDeviceGetMigMode", device);

        if (r)
                return r;
        if (!model_of(device)->divisible)
                return NVML_NOT_SUPPORTED;
        *current = *pending = gpu_of(device)->mig ? NVML_ENABLED : NVML_DISABLED;
        return NVML_SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(struct nvml_device *device, unsigned *count)
{
        int r = begin_whole("nvmlDeviceGetMaxMigDeviceCount", device);

        if (r)
                return r;
        *count = gpu_of(device)->mig ? 7 : 0;
        return NVML_SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct nvml_device *device, unsigned index,
                                        struct nvml_device **mig)
{
        int r = begin_whole("nvmlDeviceGetMigDeviceHandleByIndex", device);

        if (r)
                return r;
        for (uint32_t i = 0; i < world.sim.n_migs; i++)
                if (world.sim.migs[i].gpu == device->at && index-- == 0) {
                        *mig = &world.migs[i];
                        return NVML_SUCCESS;
                }
        return NVML_NOT_FOUND;
}

int nvmlDeviceIsMigDeviceHandle(struct nvml_device *device, unsigned *is)
{
        int r = begin_device("nvmlDeviceIsMigDeviceHandle", device);

        if (!r)
                *is = device->is_mig;
        return r;
}

static int begin_mig(const char *call, const struct nvml_device *d)
{
        int r = begin_device(call, d);

        return r ? r : d->is_mig ? NVML_SUCCESS : NVML_INVALID_ARGUMENT;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(struct nvml_device *mig,
                                                 struct nvml_device **device)
{
        int r = begin_mig("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", mig);

        if (!r)
                *device = &world.gpus[world.sim.migs[mig->at].gpu];
        return r;
}

int nvmlDeviceGetGpuInstanceId(struct nvml_device *mig, unsigned *id)
{
        int r = begin_mig("nvmlDeviceGetGpuInstanceId", mig);

        if (!r)
                *id = world.sim.migs[mig->at].gi;
        return r;
}

int nvmlDeviceGetComputeInstanceId(struct nvml_device *mig, unsigned *id)
{
        int r = begin_mig("nvmlDeviceGetComputeInstanceId", mig);

        if (!r)
                *id = world.sim.migs[mig->at].ci;
        return r;
}

int nvmlDeviceGetAttributes_v2(struct nvml_device *mig, struct nvml_attributes *attributes)
{
        int r = begin_mig("nvmlDeviceGetAttributes_v2", mig);
        const struct gpu_sim_mig *m = r ? NULL : &world.sim.migs[mig->at];

        if (r)
                return r;
        *attributes = (struct nvml_attributes){ .multiprocessors = m->sms,
                                                .copy_engines = m->slices,
                                                .decoders = m->slices / 2,
                                                .gpu_slices = m->slices,
                                                .compute_slices = m->slices,
                                                .memory_mib = m->memory_mib };
        return NVML_SUCCESS;
}

int nvmlDeviceGetAttributes(struct nvml_device *mig, struct nvml_attributes *attributes)
{
        return nvmlDeviceGetAttributes_v2(mig, attributes);
}
