/* vfio.c - see vfio.h.  Engine process (doctor and the request gpu.vfio).
 *
 * Nothing is opened but sysfs; links in it are followed below the given root only.  What is missing or
 * odd makes a device look less fit, never more. */
#include "engine/gpu/vfio.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/jsonx.h"

#define MAX_DEVICES    8192U
#define VALUE_SIZE     128U
#define MAX_NAMED      4U /* members of a group that a sentence names */
#define CLASS_DISPLAY  0x03U
#define CLASS_ACCEL    0x12U
#define CLASS_BRIDGE   0x06U
#define SUBCLASS_OTHER 0x80U /* of bridges: NVSwitches say so, and are devices */

/* "0000:07:00.0": a domain has four digits or more. */
static bool is_address(const char *s)
{
        unsigned domain, bus, dev, fn;
        int n = 0;

        return strlen(s) < sizeof((struct vfio_device *) NULL)->pci &&
               sscanf(s, "%8x:%2x:%2x.%1x%n", &domain, &bus, &dev, &fn, &n) == 4 && s[n] == '\0';
}

/* Cut to what there is room for, and fit for a terminal. */
static void take(const char *s, char *ret, size_t size)
{
        size_t n = strlen(s);

        n = n < size ? n : size - 1;
        memcpy(ret, s, n);
        ret[n] = '\0';
        str_tame(ret, '?');
}

/* A one-line value; "" when there is none. */
static void value(int dir, const char *name, char *ret, size_t size)
{
        AUTO(free) char *s = NULL;

        ret[0] = '\0';
        if (fd_read_file(dir, name, VALUE_SIZE, &s, NULL) < 0)
                return;
        s[strcspn(s, "\n")] = '\0';
        take(s, ret, size);
}

static uint32_t hex(int dir, const char *name)
{
        char s[32];
        uint64_t v = 0;
        const char *digits;

        value(dir, name, s, sizeof s);
        digits = str_after(s, "0x");
        return digits && str_u64_prefix(digits, 16, &v) >= 0 ? (uint32_t) v : 0;
}

/* Last component of what a link says. */
static void link_name(int dir, const char *name, char *ret, size_t size)
{
        char to[256];
        ssize_t n = readlinkat(dir, name, to, sizeof to - 1);
        const char *slash;

        ret[0] = '\0';
        if (n <= 0)
                return;
        to[n] = '\0';
        slash = strrchr(to, '/');
        take(slash ? slash + 1 : to, ret, size);
}

/* Newer kernels name their ways to reset; older ones only have the file that does it. */
static void read_resets(int dir, char *ret, size_t size)
{
        value(dir, "reset_method", ret, size);
        if (!*ret && faccessat(dir, "reset", F_OK, 0) == 0 &&
            faccessat(dir, "reset_method", F_OK, 0) < 0)
                (void) snprintf(ret, size, "unnamed");
}

static void read_device(int dir, const char *pci, struct vfio_device *d)
{
        char text[32];
        uint64_t v;

        *d = (struct vfio_device){ .vendor = hex(dir, "vendor"),
                                   .device = hex(dir, "device"),
                                   .class = hex(dir, "class") & 0xffffff,
                                   .group = VFIO_NO_GROUP,
                                   .numa_node = UINT32_MAX };
        take(pci, d->pci, sizeof d->pci); /* is_address() has seen that it fits */
        link_name(dir, "driver", d->driver, sizeof d->driver);
        read_resets(dir, d->resets, sizeof d->resets);
        link_name(dir, "iommu_group", text, sizeof text);
        if (*text && str_u64(text, 0, VFIO_NO_GROUP - 1, &v) >= 0)
                d->group = (uint32_t) v;
        value(dir, "numa_node", text, sizeof text);
        if (*text && str_u64(text, 0, 65534, &v) >= 0) /* -1: none */
                d->numa_node = (uint32_t) v;
}

static int add_device(struct vfio_inventory *v, size_t *cap, int bus, const char *pci)
{
        AUTO(free) char *path = str_fmt("bus/pci/devices/%s", pci);
        AUTO(fd) int dir = path ? fd_open_in_root(bus, path, O_RDONLY | O_DIRECTORY, 0) : -ENOMEM;

        if (dir < 0)
                return dir == -ENOMEM ? -ENOMEM : 0; /* it went away while we looked */
        if (v->n == *cap) {
                size_t more = *cap ? *cap * 2 : 64;
                struct vfio_device *d = reallocarray(v->devices, more, sizeof *d);

                if (!d)
                        return -ENOMEM;
                v->devices = d;
                *cap = more;
        }
        read_device(dir, pci, &v->devices[v->n++]);
        return 0;
}

static int by_address(const void *a, const void *b)
{
        const struct vfio_device *x = a, *y = b;

        return strcmp(x->pci, y->pci);
}

static bool any_entry(int sys, const char *path)
{
        AUTO(fd) int fd = fd_open_in_root(sys, path, O_RDONLY | O_DIRECTORY, 0);
        DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
        struct dirent *de;
        bool any = false;

        if (!dir)
                return false;
        (void) fd_take(&fd);
        while (!any && (de = readdir(dir)) != NULL)
                any = de->d_name[0] != '.';
        (void) closedir(dir);
        return any;
}

static bool is_there(int sys, const char *path)
{
        AUTO(fd) int fd = fd_open_in_root(sys, path, O_PATH, 0);

        return fd >= 0;
}

int vfio_read(int sys, struct vfio_inventory *ret, struct err *e)
{
        AUTO(vfio_done) struct vfio_inventory v = { 0 };
        AUTO(fd) int fd = fd_open_in_root(sys, "bus/pci/devices", O_RDONLY | O_DIRECTORY, 0);
        DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
        char unsafe[8] = "";
        struct dirent *de;
        size_t cap = 0;
        int r = 0;

        if (!dir && fd != -ENOENT)
                return err_errno(e, fd < 0 ? fd : -errno, "list PCI devices");
        if (dir)
                (void) fd_take(&fd);
        while (dir && r >= 0 && v.n < MAX_DEVICES && (de = readdir(dir)) != NULL)
                if (is_address(de->d_name))
                        r = add_device(&v, &cap, sys, de->d_name);
        if (dir)
                (void) closedir(dir);
        if (r < 0)
                return err_errno(e, r, "list PCI devices");
        if (v.n)
                qsort(v.devices, v.n, sizeof *v.devices, by_address);
        v.iommu = any_entry(sys, "kernel/iommu_groups");
        v.vfio_pci = is_there(sys, "bus/pci/drivers/vfio-pci");
        value(sys, "module/vfio/parameters/enable_unsafe_noiommu_mode", unsafe, sizeof unsafe);
        v.unsafe = *unsafe == 'Y';
        *ret = v;
        v.devices = NULL;
        return 0;
}

void vfio_done(struct vfio_inventory *v)
{
        free(v->devices);
        *v = (struct vfio_inventory){ 0 };
}

bool vfio_is_gpu(const struct vfio_device *d)
{
        uint32_t base = d->class >> 16;

        return base == CLASS_DISPLAY || base == CLASS_ACCEL;
}

bool vfio_is_bridge(const struct vfio_device *d)
{
        return d->class >> 16 == CLASS_BRIDGE && ((d->class >> 8) & 0xff) != SUBCLASS_OTHER;
}

static bool same_slot(const struct vfio_device *a, const struct vfio_device *b)
{
        size_t n = strcspn(a->pci, ".");

        return n == strcspn(b->pci, ".") && strncmp(a->pci, b->pci, n) == 0;
}

/* Somebody else in the group whom the machine would have to get, too. */
static bool goes_along(const struct vfio_inventory *v, size_t i, size_t k)
{
        return k != i && v->devices[k].group == v->devices[i].group &&
               !vfio_is_bridge(&v->devices[k]);
}

static void name_some(struct strbuf *b, const struct vfio_device *d, size_t n)
{
        if (n < MAX_NAMED)
                strbuf_fmt(b, "%s%s%s%s%s", n ? ", " : "", d->pci, *d->driver ? " (" : "",
                           d->driver, *d->driver ? ")" : "");
        else if (n == MAX_NAMED)
                strbuf_str(b, ", ...");
}

/* Functions of its own card go along as a matter of course; anything else in the group means that the
 * way between the two is not watched by the IOMMU. */
static int need_group(const struct vfio_inventory *v, size_t i, char ***ret)
{
        AUTO(strbuf_done) struct strbuf own = { 0 }, others = { 0 };
        size_t n_own = 0, n_others = 0;
        AUTO(free) char *text = NULL;
        int r = 0;

        for (size_t k = 0; k < v->n; k++) {
                const struct vfio_device *d = &v->devices[k];

                if (!goes_along(v, i, k))
                        continue;
                if (!same_slot(d, &v->devices[i]))
                        name_some(&others, d, n_others++);
                else if (!str_eq(d->driver, "vfio-pci"))
                        name_some(&own, d, n_own++);
        }
        if (own.failed || others.failed)
                return -ENOMEM;
        if (n_own) {
                text = str_fmt("functions of the same card must be bound to vfio-pci, too: %s",
                               own.s);
                r = text ? strv_push(ret, text) : -ENOMEM;
        }
        if (r >= 0 && n_others) {
                free(text);
                text = str_fmt(
                        "IOMMU group %" PRIu32
                        " holds other devices, which would have to go along (no ACS between them; another slot may help): %s",
                        v->devices[i].group, others.s);
                r = text ? strv_push(ret, text) : -ENOMEM;
        }
        return r;
}

int vfio_needs(const struct vfio_inventory *v, size_t i, char ***ret)
{
        const struct vfio_device *d = &v->devices[i];
        AUTO(strv_free) char **list = NULL;
        AUTO(free) char *text = NULL;
        int r = 0;

        if (!v->iommu)
                r = strv_push(
                        &list,
                        "the IOMMU is off: switch it on in the firmware and with intel_iommu=on or amd_iommu=on");
        else if (d->group == VFIO_NO_GROUP)
                r = strv_push(&list, "it is in no IOMMU group");
        if (r >= 0 && v->unsafe)
                r = strv_push(
                        &list,
                        "vfio's enable_unsafe_noiommu_mode must be off: a machine could write to all memory");
        if (r >= 0 && !v->vfio_pci)
                r = strv_push(&list, "the driver vfio-pci is not loaded");
        if (r >= 0 && !*d->resets)
                r = strv_push(
                        &list,
                        "it cannot be reset, so what one machine left in it would reach the next");
        if (r >= 0 && *d->driver && !str_eq(d->driver, "vfio-pci")) {
                text = str_fmt("it must be taken from the driver %s", d->driver);
                r = text ? strv_push(&list, text) : -ENOMEM;
        }
        if (r >= 0 && d->group != VFIO_NO_GROUP)
                r = need_group(v, i, &list);
        if (r < 0)
                return r;
        *ret = TAKE(list);
        return 0;
}

static json_t *encode_strv(char *const *list)
{
        AUTO(json_put) json_t *j = json_array();

        for (; j && list && *list; list++)
                if (json_array_append_new(j, json_string(*list)) < 0)
                        return NULL;
        return TAKE(j);
}

static json_t *encode_members(const struct vfio_inventory *v, size_t i)
{
        AUTO(json_put) json_t *j = json_array();

        for (size_t k = 0; j && v->devices[i].group != VFIO_NO_GROUP && k < v->n; k++) {
                const struct vfio_device *d = &v->devices[k];

                if (k == i || d->group != v->devices[i].group)
                        continue;
                if (json_array_append_new(j, json_pack("{s:s, s:s, s:b}", "pci", d->pci, "driver",
                                                       d->driver, "bridge", vfio_is_bridge(d))) < 0)
                        return NULL;
        }
        return TAKE(j);
}

static json_t *encode_device(const struct vfio_inventory *v, size_t i)
{
        const struct vfio_device *d = &v->devices[i];
        AUTO(strv_free) char **needs = NULL;
        char id[16], class[16];
        AUTO(json_put) json_t *j = NULL;

        if (vfio_needs(v, i, &needs) < 0)
                return NULL;
        (void) snprintf(id, sizeof id, "%04x:%04x", d->vendor & 0xffff, d->device & 0xffff);
        (void) snprintf(class, sizeof class, "%06x", d->class & 0xffffff);
        j = json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:o, s:o}", "pci", d->pci, "id", id, "class",
                      class, "driver", d->driver, "resets", d->resets, "resettable",
                      *d->resets != 0, "members", encode_members(v, i), "needs",
                      encode_strv(needs));
        if (j && d->group != VFIO_NO_GROUP)
                (void) json_object_set_new(j, "group", json_integer(d->group));
        if (j && d->numa_node != UINT32_MAX)
                (void) json_object_set_new(j, "numa_node", json_integer(d->numa_node));
        return TAKE(j);
}

json_t *vfio_encode(const struct vfio_inventory *v)
{
        AUTO(json_put) json_t *list = json_array();

        for (size_t i = 0; list && i < v->n; i++)
                if (vfio_is_gpu(&v->devices[i]) &&
                    json_array_append_new(list, encode_device(v, i)) < 0)
                        return NULL;
        return list ? json_pack("{s:b, s:b, s:O}", "iommu", v->iommu, "vfio_pci", v->vfio_pci,
                                "devices", list)
                    : NULL;
}

void vfio_summary(const struct vfio_inventory *v, char *ret, size_t size)
{
        size_t gpus = 0, ready = 0;

        for (size_t i = 0; i < v->n; i++) {
                AUTO(strv_free) char **needs = NULL;

                if (!vfio_is_gpu(&v->devices[i]))
                        continue;
                gpus++;
                ready += vfio_needs(v, i, &needs) >= 0 && !needs;
        }
        (void) snprintf(ret, size, "%s, %zu GPU%s, %zu could be handed over now",
                        v->iommu ? "groups are there" : "off or absent", gpus, gpus == 1 ? "" : "s",
                        ready);
}
