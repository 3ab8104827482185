/* nvml.h - the driver library at run time: found by dlopen(), its functions by name, older names where
 * the newer ones are missing.  Any call may hang for good when a GPU is broken. */
#pragma once
#include <stdbool.h>

#include "base/err.h"
#include "gpu/nvml_abi.h"

struct nvml {
        void *handle;
        struct nvml_calls f;  /* NULL: this library has no such function */
        bool running;         /* initialised */
        bool wide_process_v3; /* nvml_abi.h, known trouble */
};

/* Load @path (NULL: as the loader finds libnvidia-ml.so.1) and initialise it.  Returns 0, or
 * -ENOENT (no library), -ENODEV (no driver behind it), -ELIBBAD (versions do not fit), -EIO, with *e a
 * sentence for people.  A library that failed is unloaded again: it may be another one next time. */
int nvml_start(struct nvml *n, const char *path, struct err *e);
/* Closes every device that the library has open. */
void nvml_stop(struct nvml *n);

/* The library's word for one of its results; borrowed. */
const char *nvml_text(const struct nvml *n, int ret);

/* Call what is there: nvml_abi.h's result, NVML_FUNCTION_NOT_FOUND where nothing is. */
#define NVML(n, fn, ...) ((n)->f.fn ? (n)->f.fn(__VA_ARGS__) : NVML_FUNCTION_NOT_FOUND)

/* Those that have several names or layouts. */
int nvml_count(const struct nvml *n, unsigned *ret);
int nvml_by_index(const struct nvml *n, unsigned index, struct nvml_device **ret);
int nvml_cuda_version(const struct nvml *n, int *ret);
int nvml_pci(const struct nvml *n, struct nvml_device *d, struct nvml_pci *ret);
int nvml_remote_pci(const struct nvml *n, struct nvml_device *d, unsigned link,
                    struct nvml_pci *ret);
int nvml_attributes(const struct nvml *n, struct nvml_device *d, struct nvml_attributes *ret);
/* ret->reserved is UINT64_MAX where `used` contains it. */
int nvml_memory(const struct nvml *n, struct nvml_device *d, struct nvml_memory_v2 *ret);
int nvml_clock_reasons(const struct nvml *n, struct nvml_device *d, uint64_t *ret);
int nvml_event_wait(const struct nvml *n, struct nvml_event_set *set, struct nvml_event *ret,
                    unsigned timeout_ms);
/* Compute and graphics, each process once; @max rows at most.  *ret_n counts those that did not fit,
 * too. */
int nvml_processes(const struct nvml *n, struct nvml_device *d, struct nvml_process *ret,
                   unsigned max, unsigned *ret_n);
