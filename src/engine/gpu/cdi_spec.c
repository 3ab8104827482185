/* cdi_spec.c - the whole driver as one spec, for other runtimes.  `hypervisor-vmm cdi generate`.
 *
 * What GPUs there are is read below /proc/driver/nvidia, not asked of the driver's library, so that
 * nothing of the driver runs.  Their order there, by PCI address, is the order in which the library
 * counts them.  MIG instances have no name in those files, and are left out. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/gpu/cdi_make.h"

#define GPUS "proc/driver/nvidia/gpus"

/* What stands behind @key, without blanks; NULL: nothing. */
static char *value_of(const char *text, const char *key)
{
        const char *at = strstr(text, key);

        if (!at)
                return NULL;
        at += strlen(key);
        at += strspn(at, " \t");
        return strndup(at, strcspn(at, " \t\n"));
}

/* 1: there is a GPU at this address that has a name. */
static int read_gpu(const struct gpu_driver *d, const char *pci, struct gpu *ret, struct err *e)
{
        AUTO(free) char *path = str_fmt(GPUS "/%s/information", pci), *minor = NULL;
        struct gpu g = { .pci = strdup(pci) };
        AUTO(fd) int fd = path ? fd_open_in_root(d->root_fd, path, O_RDONLY, 0) : -ENOMEM;
        char text[4096];
        ssize_t n = fd < 0 ? fd : fd_read_full(fd, text, sizeof text - 1);
        uint64_t v;

        if (n >= 0) {
                text[n] = '\0';
                g.uuid = value_of(text, "GPU UUID:");
                minor = value_of(text, "Device Minor:");
        }
        if (n < 0 || !g.pci) {
                gpu_done(&g);
                return err_errno(e, n < 0 ? (int) n : -ENOMEM, "/" GPUS "/%s", pci);
        }
        if (!g.uuid || !gpu_uuid_ok(g.uuid) || !minor || str_u64(minor, 0, UINT32_MAX, &v) < 0) {
                gpu_done(&g); /* fallen off the bus */
                return 0;
        }
        g.minor = (uint32_t) v;
        *ret = g;
        return 1;
}

static int compare_names(const void *a, const void *b)
{
        return strcmp(*(char *const *) a, *(char *const *) b);
}

static int list_addresses(const struct gpu_driver *d, char ***ret, struct err *e)
{
        int fd = fd_open_in_root(d->root_fd, GPUS, O_RDONLY | O_DIRECTORY, 0), r = 0;
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *de;

        if (!dir) {
                r = fd < 0 ? fd : -errno;
                (void) fd_close(fd);
                return err_errno(e, r, "there is no NVIDIA driver: /" GPUS);
        }
        while (r >= 0 && (de = readdir(dir)) != NULL)
                if (isxdigit((unsigned char) de->d_name[0]))
                        r = strv_push(ret, de->d_name);
        (void) closedir(dir);
        if (*ret)
                qsort(*ret, strv_len(*ret), sizeof **ret, compare_names);
        return r < 0 ? err_set(e, r, "out of memory") : 0;
}

static struct cdi_device *add_device(struct cdi_spec *s, const char *name)
{
        struct cdi_device *d = cdi_grow(s->devices, &s->n_devices, sizeof *d);

        if (!d)
                return NULL;
        s->devices = d;
        d += s->n_devices++;
        d->name = strdup(name);
        return d->name ? d : NULL;
}

static int add_gpu(const struct gpu_driver *d, const struct gpu *g, struct cdi_spec *s,
                   struct err *e)
{
        char index[16];
        const char *const names[] = { index, g->uuid };
        int r = 0;

        (void) snprintf(index, sizeof index, "%u", g->index);
        for (size_t i = 0; i < NELEM(names) && r >= 0; i++) {
                struct cdi_device *dev = add_device(s, names[i]);

                r = dev ? cdi_make_gpu(d, g, GPU_CAP_ALL, &dev->edits, e)
                        : err_set(e, -ENOMEM, "out of memory");
        }
        return r;
}

int cdi_make_spec(const struct gpu_driver *d, struct cdi_spec *ret, struct err *e)
{
        AUTO(strv_free) char **list = NULL;
        struct cdi_edits all = { .n_nodes = 0 };
        uint32_t index = 0;
        int r = list_addresses(d, &list, e);

        if (r >= 0)
                r = cdi_make_common(d, GPU_CAP_ALL, ret, e);
        for (char **pci = list; pci && *pci && r >= 0; pci++) {
                struct gpu g = { 0 };

                r = read_gpu(d, *pci, &g, e);
                if (r != 1)
                        continue;
                g.index = index++;
                r = add_gpu(d, &g, ret, e);
                if (r >= 0)
                        r = cdi_make_gpu(d, &g, GPU_CAP_ALL, &all, e);
                gpu_done(&g);
        }
        if (r >= 0 && index == 0)
                r = err_set(e, -ENODEV, "the NVIDIA driver has no GPU");
        if (r >= 0) {
                struct cdi_device *dev = add_device(ret, "all");

                r = cdi_make_fabric(d, &all, e);
                if (dev) {
                        dev->edits = all;
                        all = (struct cdi_edits){ .n_nodes = 0 };
                } else {
                        r = err_set(e, -ENOMEM, "out of memory");
                }
        }
        cdi_edits_done(&all);
        return r < 0 ? r : 0;
}
