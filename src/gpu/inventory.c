/* inventory.c - what GPUs there are, as the driver describes them, and how they are. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "gpu/gpud.h"

#define MIB (1ULL << 20)
#define GIB (1ULL << 30)

typedef int string_fn(struct nvml_device *device, char *text, unsigned length);

/* What the library gives in a string, or NULL. */
static char *get_text(string_fn *fn, struct nvml_device *handle)
{
        char text[128] = "";

        if (!fn || fn(handle, text, sizeof text - 1) != NVML_SUCCESS || !text[0])
                return NULL;
        str_tame(text, '?');
        return str_dup(text);
}

static uint32_t numa_node(const struct gpud *d, const struct gpud_dev *dev)
{
        AUTO(free)
        char *path = str_fmt("sys/bus/pci/devices/%04x:%02x:%02x.0/numa_node", dev->pci.domain,
                             dev->pci.bus, dev->pci.device);
        AUTO(free) char *text = NULL;
        uint64_t v;

        /* nvmlDeviceGetNumaNodeId is another thing: the node that its memory is, where it is one.
         * "-1" where the machine has one node only, or its firmware does not say. */
        if (!path || fd_read_file(d->root_fd, path, 32, &text, NULL) < 0)
                return GPU_NUMA_UNKNOWN;
        return str_u64_prefix(text, 10, &v) >= 0 && v < GPU_NUMA_UNKNOWN ? (uint32_t) v
                                                                         : GPU_NUMA_UNKNOWN;
}

/* Its memory is named in eighths of the GPU's, rounded up: that is how 9.5 GiB come to be "10gb". */
void gpud_mig_profile(const struct nvml_attributes *a, uint64_t gpu_bytes, char ret[static 32])
{
        uint64_t all_gib = (gpu_bytes + GIB - 1) / GIB;
        uint64_t eighths = gpu_bytes ? (a->memory_mib * MIB * 8 + gpu_bytes - 1) / gpu_bytes : 0;
        uint64_t gib = (eighths * all_gib + 4) / 8;

        if (a->compute_slices == a->gpu_slices)
                (void) snprintf(ret, 32, "%ug.%llugb", a->gpu_slices, (unsigned long long) gib);
        else
                (void) snprintf(ret, 32, "%uc.%ug.%llugb", a->compute_slices, a->gpu_slices,
                                (unsigned long long) gib);
}

/* "NVIDIA A100-SXM4-80GB MIG 1g.10gb" of newer drivers; else put together. */
static char *profile_of(struct gpud *d, struct gpud_dev *dev, const char *name)
{
        const char *told = name ? strstr(name, " MIG ") : NULL;
        struct nvml_attributes a = { 0 };
        struct nvml_memory_v2 m;
        char text[32];

        if (told)
                return str_dup(told + strlen(" MIG "));
        if (!gpud_ok(d, dev, nvml_attributes(&d->nv, dev->handle, &a)) ||
            !gpud_ok(d, dev, nvml_memory(&d->nv, d->devs[dev->whole].handle, &m)))
                return NULL;
        gpud_mig_profile(&a, m.total, text);
        return str_dup(text);
}

static void describe_instance(struct gpud *d, struct gpud_dev *dev)
{
        const struct gpu *whole = &d->devs[dev->whole].info;
        AUTO(free) char *name = get_text(d->nv.f.nvmlDeviceGetName, dev->handle);
        struct gpu *g = &dev->info;

        dev->pci = d->devs[dev->whole].pci;
        g->name = str_dup(whole->name);
        g->pci = str_dup(whole->pci);
        g->parent = str_dup(whole->uuid);
        g->serial = str_dup(whole->serial);
        g->vbios = str_dup(whole->vbios);
        g->inforom = str_dup(whole->inforom);
        g->index = whole->index;
        g->minor = whole->minor;
        g->numa_node = whole->numa_node;
        g->ecc = whole->ecc;
        g->mig_profile = profile_of(d, dev, name);
        if (!g->mig_profile)
                g->mig_profile = str_dup("unknown");
        (void) gpud_ok(d, dev, NVML(&d->nv, nvmlDeviceGetGpuInstanceId, dev->handle, &g->gi));
        (void) gpud_ok(d, dev, NVML(&d->nv, nvmlDeviceGetComputeInstanceId, dev->handle, &g->ci));
}

static void describe_whole(struct gpud *d, struct gpud_dev *dev)
{
        const struct nvml_calls *f = &d->nv.f;
        unsigned on = NVML_DISABLED, pending;
        struct gpu *g = &dev->info;

        if (gpud_ok(d, dev, nvml_pci(&d->nv, dev->handle, &dev->pci)))
                g->pci =
                        str_fmt("%08x:%02x:%02x.0", dev->pci.domain, dev->pci.bus, dev->pci.device);
        g->name = get_text(f->nvmlDeviceGetName, dev->handle);
        g->serial = get_text(f->nvmlDeviceGetSerial, dev->handle);
        g->vbios = get_text(f->nvmlDeviceGetVbiosVersion, dev->handle);
        g->inforom = get_text(f->nvmlDeviceGetInforomImageVersion, dev->handle);
        (void) gpud_ok(d, dev, NVML(&d->nv, nvmlDeviceGetIndex, dev->handle, &g->index));
        (void) gpud_ok(d, dev, NVML(&d->nv, nvmlDeviceGetMinorNumber, dev->handle, &g->minor));
        g->numa_node = numa_node(d, dev);
        if (NVML(&d->nv, nvmlDeviceGetEccMode, dev->handle, &on, &pending) == NVML_SUCCESS)
                g->ecc = on == NVML_ENABLED;
}

void gpud_describe(struct gpud *d, struct gpud_dev *dev)
{
        struct gpud_dev *whole = &d->devs[dev->whole];
        struct nvml_memory_v2 m;

        if (dev == whole)
                describe_whole(d, dev);
        else
                describe_instance(d, dev);
        if (!dev->info.name)
                dev->info.name = str_dup("unknown");
        if (gpud_ok(d, dev, nvml_memory(&d->nv, dev->handle, &m)))
                dev->info.memory_mib = (uint32_t) (m.total / MIB);
}

/* ---- how it is ---- */

static void judge(const struct gpud *d, struct gpud_dev *dev)
{
        const struct gpud_dev *whole = &d->devs[dev->whole];
        struct gpu *g = &dev->info;

        free(g->reason);
        g->reason = NULL;
        if (whole->trouble != NVML_SUCCESS)
                g->reason = str_fmt("the driver says: %s", nvml_text(&d->nv, whole->trouble));
        else if (whole->remap_failed)
                g->reason = str_dup("bad memory rows can no longer be replaced: it wants repair");
        else if (whole->remap_pending)
                g->reason = str_dup("bad memory rows wait to be replaced: it wants a reset");
        g->state = g->reason ? GS_UNHEALTHY : GS_OK;
}

static int put_versions(const struct gpud *d, struct gpu_fleet *f)
{
        char text[NVML_VERSION_MAX] = "";
        int cuda = 0;

        if (!d->nv.running)
                return 0;
        if (NVML(&d->nv, nvmlSystemGetDriverVersion, text, sizeof text) == NVML_SUCCESS) {
                str_tame(text, '?');
                f->driver_version = str_fmt("%.60s", text);
        }
        if (nvml_cuda_version(&d->nv, &cuda) == NVML_SUCCESS)
                f->cuda_version = str_fmt("%d.%d", cuda / 1000, cuda % 1000 / 10);
        return 0;
}

/* The fleet borrows every GPU's strings for the length of the call. */
static json_t *fleet_json(struct gpud *d)
{
        struct gpu_fleet f = { .n = d->n, .note = d->note, .simulated = d->fleet_file != NULL };
        json_t *j = NULL;

        f.gpus = calloc(d->n + 1, sizeof *f.gpus);
        if (f.gpus && put_versions(d, &f) >= 0 && gpud_links(d, &f) >= 0) {
                for (size_t i = 0; i < d->n; i++) {
                        judge(d, &d->devs[i]);
                        f.gpus[i] = d->devs[i].info;
                }
                j = gpu_fleet_encode(&f);
        }
        free(f.gpus);
        free(f.links);
        free(f.partitions);
        free(f.driver_version);
        free(f.cuda_version);
        if (j && json_object_set_new(j, "type", json_string("fleet")) < 0)
                return json_put(j);
        return j;
}

void gpud_say_fleet(struct gpud *d, bool always)
{
        json_t *j = fleet_json(d);

        if (!j) {
                log_error("out of memory");
                d->gone = true;
        } else if (always || !d->fleet || !json_equal(j, d->fleet)) {
                json_decref(d->fleet);
                d->fleet = json_incref(j);
                gpud_send(d, json_incref(j));
        }
        json_decref(j);
}
