/* check.c - the state of some GPUs now, for a hand-over.  What the driver does not say is left out, so
 * that nobody takes silence for a good answer. */
#include "base/jsonx.h"
#include "base/str.h"
#include "gpu/gpud.h"

#define MIB           (1ULL << 20)
#define PROCESSES_MAX 64U

static void put(json_t *row, const char *key, json_t *value)
{
        (void) json_object_set_new(row, key, value);
}

static void put_number(json_t *row, const char *key, uint64_t v)
{
        if (v <= JSONX_EXACT_MAX)
                put(row, key, json_integer((json_int_t) v));
}

static void put_processes(struct gpud *d, struct gpud_dev *dev, json_t *row)
{
        struct nvml_process list[PROCESSES_MAX];
        json_t *array = json_array();
        unsigned n = 0;

        gpud_at(d, dev->info.uuid, "nvmlDeviceGetComputeRunningProcesses");
        if (!gpud_ok(d, dev, nvml_processes(&d->nv, dev->handle, list, NELEM(list), &n))) {
                json_decref(array);
                return;
        }
        for (unsigned i = 0; i < n && i < NELEM(list); i++) {
                json_t *one = json_pack("{s:I}", "pid", (json_int_t) list[i].pid);

                put_number(one, "memory_mib",
                           list[i].memory == UINT64_MAX ? UINT64_MAX : list[i].memory / MIB);
                (void) json_array_append_new(array, one);
        }
        put(row, "processes", array);
}

/* Errors and versions belong to the whole GPU, also of an instance. */
static void put_whole(struct gpud *d, struct gpud_dev *whole, json_t *row)
{
        const struct nvml_calls *f = &d->nv.f;
        unsigned good, bad, pending = 0, failed = 0;
        char text[128] = "";
        uint64_t v;

        gpud_at(d, whole->info.uuid, "nvmlDeviceGetTotalEccErrors");
        if (gpud_ok(d, whole,
                    NVML(&d->nv, nvmlDeviceGetTotalEccErrors, whole->handle, NVML_ECC_UNCORRECTED,
                         NVML_ECC_VOLATILE, &v)))
                put_number(row, "ecc_uncorrected", v);
        if (gpud_ok(d, whole,
                    NVML(&d->nv, nvmlDeviceGetRemappedRows, whole->handle, &good, &bad, &pending,
                         &failed))) {
                put(row, "remap_pending", json_boolean(pending != 0));
                put(row, "remap_failed", json_boolean(failed != 0));
        }
        if (gpud_ok(d, whole,
                    NVML(&d->nv, nvmlDeviceGetRetiredPagesPendingStatus, whole->handle, &pending)))
                put(row, "retired_pending", json_boolean(pending != 0));
        put_number(row, "xid", whole->memory->xid);
        gpud_at(d, whole->info.uuid, "nvmlDeviceGetVbiosVersion");
        if (f->nvmlDeviceGetVbiosVersion &&
            gpud_ok(d, whole, f->nvmlDeviceGetVbiosVersion(whole->handle, text, sizeof text - 1))) {
                str_tame(text, '?');
                put(row, "vbios", json_string(text));
        }
        text[0] = '\0';
        if (f->nvmlDeviceGetInforomImageVersion &&
            gpud_ok(d, whole,
                    f->nvmlDeviceGetInforomImageVersion(whole->handle, text, sizeof text - 1))) {
                str_tame(text, '?');
                put(row, "inforom", json_string(text));
        }
}

static json_t *check_one(struct gpud *d, const char *uuid)
{
        struct gpud_dev *dev = gpud_find(d, uuid);
        json_t *row = json_pack("{s:s, s:b}", "uuid", uuid, "present", dev != NULL);
        struct nvml_memory_v2 m;

        if (!dev || !row)
                return row;
        put_processes(d, dev, row);
        gpud_at(d, dev->info.uuid, "nvmlDeviceGetMemoryInfo");
        if (gpud_ok(d, dev, nvml_memory(&d->nv, dev->handle, &m)))
                put_number(row, "memory_used_mib", m.used / MIB);
        put_whole(d, &d->devs[dev->whole], row);
        /* it went away while it was asked */
        if (d->devs[dev->whole].trouble == NVML_GPU_IS_LOST)
                put(row, "present", json_false());
        return row;
}

void gpud_check(struct gpud *d, json_int_t req, const json_t *gpus)
{
        json_t *rows = json_array(), *one;
        size_t i;

        gpud_drain(d); /* an Xid of the last second belongs to the answer */
        json_array_foreach(gpus, i, one)
        {
                const char *uuid = json_string_value(one);

                if (gpu_uuid_ok(uuid))
                        (void) json_array_append_new(rows, check_one(d, uuid));
        }
        gpud_send(d, json_pack("{s:s, s:I, s:o}", "type", "checked", "req", req, "gpus", rows));
        d->at_call = NULL;
}
