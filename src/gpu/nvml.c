/* nvml.c - see nvml.h.  vmm-gpu. */
#include "gpu/nvml.h"

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

#define LIBRARY       "libnvidia-ml.so.1"
#define PROCESSES_MAX 1024U

#define X(symbol, args) { #symbol, offsetof(struct nvml_calls, symbol) },
static const struct {
        const char *name;
        size_t off;
} symbols[] = { NVML_CALLS(X){ "nvmlErrorString", offsetof(struct nvml_calls, nvmlErrorString) } };
#undef X

static const struct {
        int ret, code;
        const char *text;
} start_errors[] = {
        { NVML_DRIVER_NOT_LOADED, -ENODEV, "the kernel's NVIDIA driver is not loaded" },
        { NVML_NO_PERMISSION, -ENODEV, "the driver's device nodes may not be opened" },
        { NVML_VERSION_MISMATCH, -ELIBBAD,
          "the driver library is not of the kernel driver's version: reboot this host, or load the driver anew" },
        { NVML_GPU_NOT_FOUND, -ENODEV, "the driver finds no GPU" },
};

const char *nvml_text(const struct nvml *n, int ret)
{
        const char *s = n->f.nvmlErrorString ? n->f.nvmlErrorString(ret) : NULL;

        return s ? s : "an error without a name";
}

static void find_symbols(struct nvml *n)
{
        n->f = (struct nvml_calls){ 0 };
        for (size_t i = 0; i < NELEM(symbols); i++) {
                void *p = dlsym(n->handle, symbols[i].name);

                memcpy((char *) &n->f + symbols[i].off, &p, sizeof p);
        }
}

static int start_error(const struct nvml *n, int ret, struct err *e)
{
        for (size_t i = 0; i < NELEM(start_errors); i++)
                if (start_errors[i].ret == ret)
                        return err_set(e, start_errors[i].code, "%s", start_errors[i].text);
        return err_set(e, -EIO, "the driver library cannot be started: %s", nvml_text(n, ret));
}

/* 535.43 to 535.97 have rows of another length behind the newest name. */
static bool has_wide_process_v3(const struct nvml *n)
{
        char version[NVML_VERSION_MAX] = "";
        const char *minor;
        uint64_t v;

        if (NVML(n, nvmlSystemGetDriverVersion, version, sizeof version) != NVML_SUCCESS)
                return false;
        minor = str_after(version, "535.");
        return minor && str_u64_prefix(minor, 10, &v) >= 0 && v < 98;
}

int nvml_start(struct nvml *n, const char *path, struct err *e)
{
        const char *name = path ? path : LIBRARY;
        int ret;

        *n = (struct nvml){ .handle = dlopen(name, RTLD_NOW | RTLD_LOCAL) };
        if (!n->handle)
                return err_set(e, -ENOENT, "the driver library cannot be loaded: %s", dlerror());
        find_symbols(n);
        ret = n->f.nvmlInit_v2 ? n->f.nvmlInit_v2() : NVML_FUNCTION_NOT_FOUND;
        if (ret == NVML_FUNCTION_NOT_FOUND && n->f.nvmlInit)
                ret = n->f.nvmlInit();
        if (ret != NVML_SUCCESS) {
                int r = start_error(n, ret, e);

                nvml_stop(n);
                return r;
        }
        n->running = true;
        n->wide_process_v3 = has_wide_process_v3(n);
        return 0;
}

void nvml_stop(struct nvml *n)
{
        if (n->running && n->f.nvmlShutdown)
                (void) n->f.nvmlShutdown();
        if (n->handle)
                (void) dlclose(n->handle);
        *n = (struct nvml){ 0 };
}

int nvml_count(const struct nvml *n, unsigned *ret)
{
        int r = NVML(n, nvmlDeviceGetCount_v2, ret);

        return r == NVML_FUNCTION_NOT_FOUND ? NVML(n, nvmlDeviceGetCount, ret) : r;
}

int nvml_by_index(const struct nvml *n, unsigned index, struct nvml_device **ret)
{
        int r = NVML(n, nvmlDeviceGetHandleByIndex_v2, index, ret);

        return r == NVML_FUNCTION_NOT_FOUND ? NVML(n, nvmlDeviceGetHandleByIndex, index, ret) : r;
}

int nvml_cuda_version(const struct nvml *n, int *ret)
{
        int r = NVML(n, nvmlSystemGetCudaDriverVersion_v2, ret);

        return r == NVML_FUNCTION_NOT_FOUND ? NVML(n, nvmlSystemGetCudaDriverVersion, ret) : r;
}

static void widen_pci(const struct nvml_pci_v2 *from, struct nvml_pci *to)
{
        *to = (struct nvml_pci){ .domain = from->domain,
                                 .bus = from->bus,
                                 .device = from->device,
                                 .device_id = from->device_id,
                                 .subsystem_id = from->subsystem_id };
}

int nvml_pci(const struct nvml *n, struct nvml_device *d, struct nvml_pci *ret)
{
        struct nvml_pci_v2 old = { .bus_id = "" };
        int r = NVML(n, nvmlDeviceGetPciInfo_v3, d, ret);

        if (r != NVML_FUNCTION_NOT_FOUND)
                return r;
        r = NVML(n, nvmlDeviceGetPciInfo_v2, d, &old);
        if (r == NVML_FUNCTION_NOT_FOUND)
                r = NVML(n, nvmlDeviceGetPciInfo, d, &old);
        if (r == NVML_SUCCESS)
                widen_pci(&old, ret);
        return r;
}

int nvml_remote_pci(const struct nvml *n, struct nvml_device *d, unsigned link,
                    struct nvml_pci *ret)
{
        struct nvml_pci_v2 old = { .bus_id = "" };
        int r = NVML(n, nvmlDeviceGetNvLinkRemotePciInfo_v2, d, link, ret);

        if (r != NVML_FUNCTION_NOT_FOUND)
                return r;
        r = NVML(n, nvmlDeviceGetNvLinkRemotePciInfo, d, link, &old);
        if (r == NVML_SUCCESS)
                widen_pci(&old, ret);
        return r;
}

int nvml_attributes(const struct nvml *n, struct nvml_device *d, struct nvml_attributes *ret)
{
        int r = NVML(n, nvmlDeviceGetAttributes_v2, d, ret);

        return r == NVML_FUNCTION_NOT_FOUND ? NVML(n, nvmlDeviceGetAttributes, d, ret) : r;
}

int nvml_memory(const struct nvml *n, struct nvml_device *d, struct nvml_memory_v2 *ret)
{
        struct nvml_memory old;
        int r;

        *ret = (struct nvml_memory_v2){ .version = NVML_MEMORY_V2 };
        r = NVML(n, nvmlDeviceGetMemoryInfo_v2, d, ret);
        if (r == NVML_SUCCESS)
                return r;
        /* also where the newer call is there and does not know its own struct: seen with MIG */
        r = NVML(n, nvmlDeviceGetMemoryInfo, d, &old);
        if (r == NVML_SUCCESS)
                *ret = (struct nvml_memory_v2){ .total = old.total,
                                                .free = old.free,
                                                .used = old.used,
                                                .reserved = UINT64_MAX };
        return r;
}

int nvml_clock_reasons(const struct nvml *n, struct nvml_device *d, uint64_t *ret)
{
        int r = NVML(n, nvmlDeviceGetCurrentClocksEventReasons, d, ret);

        return r == NVML_FUNCTION_NOT_FOUND
                       ? NVML(n, nvmlDeviceGetCurrentClocksThrottleReasons, d, ret)
                       : r;
}

int nvml_event_wait(const struct nvml *n, struct nvml_event_set *set, struct nvml_event *ret,
                    unsigned timeout_ms)
{
        struct nvml_event_v1 old;
        int r = NVML(n, nvmlEventSetWait_v2, set, ret, timeout_ms);

        if (r != NVML_FUNCTION_NOT_FOUND)
                return r;
        r = NVML(n, nvmlEventSetWait, set, &old, timeout_ms);
        if (r == NVML_SUCCESS)
                *ret = (struct nvml_event){ .device = old.device,
                                            .type = old.type,
                                            .data = old.data,
                                            .gi = UINT32_MAX,
                                            .ci = UINT32_MAX };
        return r;
}

/* ---- processes ---- */

typedef int list_fn(struct nvml_device *d, unsigned *count, struct nvml_process *list);
typedef int list_v1_fn(struct nvml_device *d, unsigned *count, struct nvml_process_v1 *list);

static int list_v1(list_v1_fn *fn, struct nvml_device *d, unsigned *count,
                   struct nvml_process *list)
{
        struct nvml_process_v1 old[PROCESSES_MAX];
        int r = fn ? fn(d, count, old) : NVML_FUNCTION_NOT_FOUND;

        for (unsigned i = 0; r == NVML_SUCCESS && i < *count && i < PROCESSES_MAX; i++)
                list[i] = (struct nvml_process){ .pid = old[i].pid,
                                                 .memory = old[i].memory,
                                                 .gi = UINT32_MAX,
                                                 .ci = UINT32_MAX };
        return r;
}

/* @list has room for PROCESSES_MAX; *ret_n is how many it holds then. */
static int list_one(list_fn *newest, list_v1_fn *oldest, struct nvml_device *d,
                    struct nvml_process *list, unsigned *ret_n)
{
        unsigned count = PROCESSES_MAX;
        int r = newest ? newest(d, &count, list) : list_v1(oldest, d, &count, list);

        if (r == NVML_SUCCESS)
                *ret_n = count < PROCESSES_MAX ? count : PROCESSES_MAX;
        return r;
}

static void merge(const struct nvml_process *from, unsigned n, struct nvml_process *ret,
                  unsigned max, unsigned *ret_n)
{
        for (unsigned i = 0; i < n; i++) {
                unsigned k = 0, have = *ret_n < max ? *ret_n : max;

                while (k < have && ret[k].pid != from[i].pid)
                        k++;
                if (k < have)
                        continue;
                if (*ret_n < max)
                        ret[*ret_n] = from[i];
                (*ret_n)++;
        }
}

int nvml_processes(const struct nvml *n, struct nvml_device *d, struct nvml_process *ret,
                   unsigned max, unsigned *ret_n)
{
        const struct nvml_calls *f = &n->f;
        list_fn *compute = f->nvmlDeviceGetComputeRunningProcesses_v3,
                *graphics = f->nvmlDeviceGetGraphicsRunningProcesses_v3;
        struct nvml_process list[PROCESSES_MAX];
        unsigned count = 0;
        int r;

        if (!compute || n->wide_process_v3)
                compute = f->nvmlDeviceGetComputeRunningProcesses_v2;
        if (!graphics || n->wide_process_v3)
                graphics = f->nvmlDeviceGetGraphicsRunningProcesses_v2;
        r = list_one(compute, f->nvmlDeviceGetComputeRunningProcesses, d, list, &count);
        if (r != NVML_SUCCESS)
                return r;
        *ret_n = 0;
        merge(list, count, ret, max, ret_n);
        count = 0; /* graphics processes are not there on every kind of GPU */
        if (list_one(graphics, f->nvmlDeviceGetGraphicsRunningProcesses, d, list, &count) ==
            NVML_SUCCESS)
                merge(list, count, ret, max, ret_n);
        return NVML_SUCCESS;
}
