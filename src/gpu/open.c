/* open.c - the driver library is started and its devices are opened, all but those that the engine
 * wants left alone.
 *
 * The library opens a device's node when it is asked for the device's handle, so one that is to be
 * omitted must not be touched to find out which it is: the kernel's driver tells under /proc which
 * UUID lies at which PCI address.  Only where it does not is a device opened first and passed over
 * afterwards. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "gpu/gpud.h"

#define PROC_GPUS "proc/driver/nvidia/gpus"

struct gpud_dev *gpud_find(struct gpud *d, const char *uuid)
{
        for (size_t i = 0; i < d->n; i++)
                if (str_eq(d->devs[i].info.uuid, uuid))
                        return &d->devs[i];
        return NULL;
}

struct gpud_dev *gpud_by_handle(struct gpud *d, const struct nvml_device *handle)
{
        for (size_t i = 0; i < d->n; i++)
                if (d->devs[i].handle == handle)
                        return &d->devs[i];
        return NULL;
}

bool gpud_ok(struct gpud *d, struct gpud_dev *dev, int ret)
{
        struct gpud_dev *whole = &d->devs[dev->whole];

        if (ret == NVML_GPU_IS_LOST || ret == NVML_RESET_REQUIRED) {
                d->rescan = d->rescan || whole->trouble != ret;
                d->reopen = d->reopen || ret == NVML_GPU_IS_LOST;
                whole->trouble = ret;
        }
        return ret == NVML_SUCCESS;
}

/* The first one again when there are more UUIDs than anybody has GPUs. */
static struct gpud_memory *memory_of(struct gpud *d, const char *uuid)
{
        struct gpud_memory *m = NULL;

        for (size_t i = 0; i < d->n_memory && !m; i++)
                if (str_eq(d->memory[i].uuid, uuid))
                        m = &d->memory[i];
        if (m)
                return m;
        m = &d->memory[d->n_memory < NELEM(d->memory) ? d->n_memory++ : 0];
        *m = (struct gpud_memory){ .pcie_kib_s = { GPU_UNKNOWN, GPU_UNKNOWN } };
        (void) snprintf(m->uuid, sizeof m->uuid, "%.71s", uuid);
        return m;
}

/* What goes wrong with one GPU does not hide the others. */
static void add_note(struct gpud *d, const char *what, const char *why)
{
        char *old = d->note;

        log_warn("%s: %s", what, why);
        d->note = str_fmt("%s%s%s: %s", old ? old : "", old ? "; " : "", what, why);
        free(old);
        if (d->note && strlen(d->note) > 500)
                d->note[500] = '\0';
}

static bool is_omitted(const struct gpud *d, const char *uuid)
{
        for (char **o = d->omit; o && *o; o++)
                if (str_eq(*o, uuid))
                        return true;
        return false;
}

/* @handle belongs to d->devs[d->n] from here on, or to nobody. */
static struct gpud_dev *add(struct gpud *d, struct nvml_device *handle, size_t whole)
{
        struct gpud_dev *dev = &d->devs[d->n];
        char uuid[NVML_UUID_MAX] = "";
        int r;

        if (d->n == GPU_MAX) {
                add_note(d, "there are more GPUs than can be managed", "the rest is left out");
                return NULL;
        }
        *dev = (struct gpud_dev){ .handle = handle, .whole = whole };
        r = NVML(&d->nv, nvmlDeviceGetUUID, handle, uuid, sizeof uuid);
        if (r != NVML_SUCCESS || !gpu_uuid_ok(uuid)) {
                add_note(d, "a GPU has no UUID", nvml_text(&d->nv, r));
                return NULL;
        }
        if (is_omitted(d, uuid) || gpud_find(d, uuid))
                return NULL;
        dev->info.uuid = str_dup(uuid);
        dev->memory = memory_of(d, uuid);
        if (!dev->info.uuid)
                return NULL;
        d->n++;
        return dev;
}

static void add_instances(struct gpud *d, size_t whole)
{
        struct nvml_device *handle = d->devs[whole].handle;
        unsigned on = NVML_DISABLED, pending, max = 0;

        if (NVML(&d->nv, nvmlDeviceGetMigMode, handle, &on, &pending) != NVML_SUCCESS ||
            on != NVML_ENABLED)
                return;
        d->devs[whole].info.mig_mode = true;
        if (NVML(&d->nv, nvmlDeviceGetMaxMigDeviceCount, handle, &max) != NVML_SUCCESS)
                return;
        for (unsigned i = 0; i < max; i++) {
                struct nvml_device *mig = NULL;
                struct gpud_dev *dev;

                if (NVML(&d->nv, nvmlDeviceGetMigDeviceHandleByIndex, handle, i, &mig) !=
                    NVML_SUCCESS)
                        continue; /* numbers without an instance */
                dev = add(d, mig, whole);
                if (dev)
                        gpud_describe(d, dev);
        }
}

static void add_whole(struct gpud *d, struct nvml_device *handle)
{
        struct gpud_dev *dev = add(d, handle, d->n);

        if (!dev)
                return;
        gpud_at(d, dev->info.uuid, "nvmlDeviceGetPciInfo");
        gpud_describe(d, dev);
        add_instances(d, dev->whole);
}

/* The UUID in a GPU's "information", or "". */
static void read_uuid(int dir, const char *pci, char ret[static 72])
{
        AUTO(free) char *path = str_fmt("%s/information", pci), *text = NULL;
        const char *p;
        size_t n;

        ret[0] = '\0';
        if (!path || fd_read_file(dir, path, 4096, &text, NULL) < 0)
                return;
        p = strstr(text, "GPU UUID:");
        if (!p)
                return;
        p += strlen("GPU UUID:");
        p += strspn(p, " \t");
        n = strcspn(p, " \t\n");
        if (n < 72)
                (void) snprintf(ret, 72, "%.*s", (int) n, p);
}

struct proc_gpu {
        char pci[32], uuid[72];
};

static int by_address(const void *a, const void *b)
{
        return strcmp(((const struct proc_gpu *) a)->pci, ((const struct proc_gpu *) b)->pci);
}

/* Every GPU of the driver by its PCI address, which is the library's order, too.  Returns how many of
 * those that are to be omitted were found. */
static size_t read_proc(const struct gpud *d, struct proc_gpu *list, size_t *ret_n)
{
        int fd = openat(d->root_fd, PROC_GPUS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        size_t n = 0, found = 0;
        struct dirent *de;

        if (!dir) {
                (void) fd_close(fd);
                return 0;
        }
        while ((de = readdir(dir)) != NULL && n < GPU_MAX) {
                if (de->d_name[0] == '.' || strlen(de->d_name) >= sizeof list[n].pci)
                        continue;
                memcpy(list[n].pci, de->d_name, strlen(de->d_name) + 1);
                read_uuid(fd, de->d_name, list[n].uuid);
                found += is_omitted(d, list[n].uuid);
                n++;
        }
        (void) closedir(dir);
        qsort(list, n, sizeof *list, by_address);
        *ret_n = n;
        return found;
}

/* Opening may take seconds, the GPU starts up. */
static void open_one(struct gpud *d, const struct proc_gpu *p, int index)
{
        const struct nvml_calls *f = &d->nv.f;
        struct nvml_device *handle = NULL;
        char what[48];
        int r;

        d->at_call = NULL;
        gpud_at(d, p && gpu_uuid_ok(p->uuid) ? p->uuid : "", "nvmlDeviceGetHandle");
        if (index < 0)
                r = f->nvmlDeviceGetHandleByPciBusId_v2(p->pci, &handle);
        else
                r = nvml_by_index(&d->nv, (unsigned) index, &handle);
        d->at_call = NULL;
        if (p)
                (void) snprintf(what, sizeof what, "GPU %s", p->pci);
        else
                (void) snprintf(what, sizeof what, "GPU %d", index);
        if (r == NVML_SUCCESS)
                add_whole(d, handle);
        else
                add_note(d, what, nvml_text(&d->nv, r));
}

static void open_devices(struct gpud *d)
{
        struct proc_gpu list[GPU_MAX];
        size_t n = 0, found = read_proc(d, list, &n);

        if (strv_len(d->omit) && found == strv_len(d->omit) &&
            d->nv.f.nvmlDeviceGetHandleByPciBusId_v2) {
                for (size_t i = 0; i < n; i++)
                        if (!is_omitted(d, list[i].uuid))
                                open_one(d, &list[i], -1);
                return;
        }
        for (unsigned i = 0; i < d->count; i++)
                open_one(d, n == d->count ? &list[i] : NULL, (int) i);
}

void gpud_open(struct gpud *d)
{
        struct err e = { 0 };
        int r;

        d->rescan = d->reopen = false;
        d->opened_us = d->looked_us = clock_mono_us();
        d->at_call = NULL;
        gpud_at(d, "", "nvmlInit");
        if (nvml_start(&d->nv, d->nvml_path, &e) < 0) {
                log_warn("%s", e.msg);
                d->note = str_dup(e.msg);
                return;
        }
        r = nvml_count(&d->nv, &d->count);
        if (r != NVML_SUCCESS) {
                add_note(d, "the driver does not list its GPUs", nvml_text(&d->nv, r));
                d->count = 0;
        }
        open_devices(d);
        gpud_watch(d);
}

void gpud_close(struct gpud *d)
{
        d->at_call = NULL;
        gpud_at(d, "", "nvmlShutdown");
        gpud_unwatch(d);
        for (size_t i = 0; i < d->n; i++)
                gpu_done(&d->devs[i].info);
        d->n = 0;
        d->count = 0;
        nvml_stop(&d->nv);
        free(d->note);
        d->note = NULL;
}
