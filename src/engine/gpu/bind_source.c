/* bind_source.c - where the edits of a binding come from: an operator's specs, or our own list.
 * Operation process, but for gpu_bind_prepare().
 *
 * Our own list for the usual capabilities, the libraries' names included, is found out at engine start
 * and inherited by every operation, files open: looking for 40 libraries takes half of what a boot
 * may.  It counts for as long as the kernel's driver says the same version; a package that is
 * installed anew in the same version shows with the next start. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "engine/gpu/bind_priv.h"
#include "engine/gpu/cdi_make.h"

#define VERSION_FILE "proc/driver/nvidia/version"
#define VERSION_MAX  4096U
#define GPUS         "proc/driver/nvidia/gpus"

/* The one piece of state: written once at engine start, inherited by every fork from then on. */
static struct {
        struct cdi_spec spec;    /* its files are open */
        struct cdi_edits fabric; /* switches and channels */
        unsigned caps;
        char *version; /* the kernel driver's text; NULL: nothing is prepared */
} prepared;

/* The engine knows the GPUs that vmm-gpu lists, which leaves out one that hangs, and knows none of before its
 * start that is lost; a neighbour may be in the fabric by one of them. */
bool bind_has_all(const struct gpu_driver *d, const struct gpu *gpus, size_t n)
{
        AUTO(fd) int fd = fd_open_in_root(d->root_fd, GPUS, O_RDONLY | O_DIRECTORY, 0);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        size_t mine = 0, all = 0;
        struct dirent *de;

        if (!dir)
                return false;
        (void) fd_take(&fd);
        while ((de = readdir(dir)) != NULL)
                all += de->d_name[0] != '.';
        (void) closedir(dir);
        for (size_t i = 0; i < n; i++)
                mine += !gpus[i].mig_profile;
        return mine > 0 && mine == all;
}

/* ---- specs ------------------------------------------------------------------------------------ */

static const struct cdi_device *find_device(const struct cdi_set *set, const struct gpu *g,
                                            const struct cdi_spec **spec)
{
        const struct cdi_device *dev = cdi_find(set, g->uuid, spec);
        char index[16];

        if (dev || g->mig_profile)
                return dev;
        (void) snprintf(index, sizeof index, "%u", g->index);
        return cdi_find(set, index, spec);
}

static int bind_device(struct binder *x, const struct cdi_spec *spec, const struct cdi_device *dev)
{
        int r;

        x->spec = spec->file;
        r = bind_edits(x, &spec->edits);
        return r < 0 ? r : bind_edits(x, &dev->edits);
}

int bind_set(struct binder *x, const struct cdi_set *set)
{
        const struct cdi_spec *spec = NULL;
        const struct cdi_device *all = x->fabric ? cdi_find(set, "all", &spec) : NULL, *dev;
        int r = all ? bind_device(x, spec, all) : 0; /* may have what no single one has: switches */

        for (size_t i = 0; i < x->n && r >= 0; i++) {
                dev = find_device(set, &x->gpus[i], &spec);
                if (dev)
                        r = bind_device(x, spec, dev);
                else if (!all)
                        return err_set(x->e, -ENOENT, "%s names no device for %s" BIND_STALE,
                                       set->specs[set->n - 1].file, x->gpus[i].uuid);
        }
        return r;
}

/* ---- our own ---------------------------------------------------------------------------------- */

static char *read_version(const struct gpu_driver *d)
{
        AUTO(fd) int fd = fd_open_in_root(d->root_fd, VERSION_FILE, O_RDONLY | O_NONBLOCK, 0);
        char text[VERSION_MAX];
        ssize_t n = fd < 0 ? fd : fd_read_full(fd, text, sizeof text - 1);

        if (n < 0)
                return NULL;
        text[n] = '\0';
        return strdup(text);
}

/* Files, and the directory of the firmware. */
static int open_ahead(const struct gpu_driver *d, struct cdi_mount *m, struct err *e)
{
        int fd = -EBADF, r = bind_look_at(d, m);

        if (r >= 0)
                r = bind_open(d, m, &fd);
        if (r > 0)
                m->held = fd;
        else
                (void) fd_close(fd);
        return r < 0 ? err_errno(e, r, "%s", m->host_path) : 0;
}

void gpu_bind_prepare(const struct gpu_driver *d)
{
        struct cdi_spec s = { .version = NULL };
        struct err e = { 0 };
        unsigned caps = 0;
        int r = gpu_caps_parse(NULL, &caps, &e);

        if (d->root_fd < 0 || prepared.version)
                return;
        if (r >= 0)
                r = cdi_make_common(d, caps, &s, &e);
        if (r >= 0)
                r = cdi_make_fabric(d, &prepared.fabric, &e);
        for (size_t i = 0; i < s.edits.n_mounts && r >= 0; i++)
                r = open_ahead(d, &s.edits.mounts[i], &e);
        if (r < 0) { /* may be mended before the first boot, which will say it else */
                log_info("GPU driver: %s", e.msg);
                for (size_t i = 0; i < s.edits.n_mounts; i++)
                        if (s.edits.mounts[i].held > 0)
                                (void) fd_close(s.edits.mounts[i].held);
                cdi_edits_done(&prepared.fabric);
                cdi_spec_done(&s);
                return;
        }
        prepared.version = read_version(d);
        prepared.caps = caps;
        prepared.spec = s;
}

static bool is_prepared(const struct gpu_driver *d, unsigned caps)
{
        AUTO(free) char *now = NULL;

        if (!prepared.version || prepared.caps != caps)
                return false;
        now = read_version(d);
        return str_eq(now, prepared.version);
}

/* What is the cluster's alone. */
static int bind_gpus(struct binder *x, unsigned caps, bool fabric)
{
        struct cdi_edits own = { .n_nodes = 0 };
        int r = fabric ? cdi_make_fabric(x->d, &own, x->e) : 0;

        for (size_t i = 0; i < x->n && r >= 0; i++)
                r = cdi_make_gpu(x->d, &x->gpus[i], caps, &own, x->e);
        if (r >= 0)
                r = bind_edits(x, &own);
        cdi_edits_done(&own);
        return r;
}

/* Its libraries carry the version that the kernel's driver has now, which may have been loaded anew since the
 * engine was started. */
static int bind_common(struct binder *x, unsigned caps)
{
        AUTO(free) char *text = read_version(x->d);
        AUTO(free) char *version = text ? gpu_driver_version_of(text) : NULL;
        struct cdi_spec s = { .version = NULL };
        struct gpu_driver now = *x->d;
        int r;

        if (version)
                now.version = version;
        r = cdi_make_common(&now, caps, &s, x->e);
        if (r >= 0)
                r = bind_edits(x, &s.edits);
        cdi_spec_done(&s);
        return r;
}

int bind_own(struct binder *x, unsigned caps)
{
        bool ahead = is_prepared(x->d, caps);
        int r = ahead ? bind_edits(x, &prepared.spec.edits) : bind_common(x, caps);

        if (r >= 0 && ahead && x->fabric)
                r = bind_edits(x, &prepared.fabric);
        return r < 0 ? r : bind_gpus(x, caps, x->fabric && !ahead);
}
