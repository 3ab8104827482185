/* driver.c - see driver.h: which driver the configuration wants and whether it is there.  Engine
 * process, at start.  Nothing of the driver is loaded here; vmm-gpu does that. */
#include "engine/gpu/driver.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/gpu/simulated.h"

#define VERSION_FILE "proc/driver/nvidia/version"
#define LIBRARY      "libnvidia-ml.so.1"

/* Where distributions and the vendor's installers put 64-bit libraries. */
static const char *const library_dirs[] = {
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/lib/x86_64-linux-gnu/nvidia/current",
        "/usr/lib/aarch64-linux-gnu/nvidia/current",
        "/usr/lib64/nvidia",
        "/usr/local/lib",
        "/usr/local/nvidia/lib64",
        "/opt/nvidia/lib64",
        "/run/opengl-driver/lib",
};

/* The first word that is a version: "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue".
 * The file is the kernel's; what is taken from it is checked anyway. */
char *gpu_driver_version_of(const char *text)
{
        while (*text && *text != '\n') {
                size_t n = strspn(text, "0123456789."), word = strcspn(text, " \t\n");

                if (n == word && n >= 3 && n < 32 && *text != '.' && memchr(text, '.', n))
                        return strndup(text, n);
                text += word;
                text += strspn(text, " \t");
        }
        return NULL;
}

/* "libnvidia-ml.so.550.54.15" behind the link: its version; NULL: it does not say. */
static char *library_version(const char *path)
{
        AUTO(free) char *real = realpath(path, NULL);
        const char *at = real ? strstr(real, "libnvidia-ml.so.") : NULL;

        if (!at)
                return NULL;
        at += strlen("libnvidia-ml.so.");
        return strchr(at, '.') ? strdup(at) : NULL;
}

static int find_library(struct gpu_driver *d, struct err *e)
{
        AUTO(free) char *version = NULL;

        for (size_t i = 0; i < NELEM(library_dirs) && !d->nvml; i++) {
                char path[PATH_MAX];

                (void) snprintf(path, sizeof path, "%s/" LIBRARY, library_dirs[i]);
                if (access(path, R_OK) < 0)
                        continue;
                d->nvml = strdup(path);
                if (!d->nvml)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        if (!d->nvml)
                d->note = str_fmt("the NVIDIA driver %s is loaded, its library " LIBRARY
                                  " was not found",
                                  d->version);
        version = d->nvml ? library_version(d->nvml) : NULL;
        if (version && !str_eq(version, d->version))
                d->note = str_fmt("the NVIDIA kernel module is of version %s, %s of %s: %s",
                                  d->version, d->nvml, version,
                                  "restart the host, or unload and load the module");
        return !d->nvml && !d->note ? err_set(e, -ENOMEM, "out of memory") : 0;
}

static int none(struct gpu_driver *d, const char *note, struct err *e)
{
        d->kind = GD_NONE;
        d->note = strdup(note);
        return d->note ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static int open_real(struct gpu_driver *d, struct err *e)
{
        AUTO(fd) int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        AUTO(free) char *text = NULL;
        int r;

        if (root < 0)
                return err_errno(e, -errno, "open /");
        r = fd_read_file(root, VERSION_FILE, 4096, &text, NULL);
        if (r == -ENOENT)
                return none(d, "no NVIDIA driver is loaded", e);
        if (r < 0)
                return none(d, "/" VERSION_FILE " cannot be read", e);
        d->version = gpu_driver_version_of(text);
        if (!d->version)
                return none(d, "/" VERSION_FILE " says no version", e);
        d->root_path = strdup("/");
        if (!d->root_path)
                return err_set(e, -ENOMEM, "out of memory");
        d->kind = GD_NVIDIA;
        d->root_fd = fd_take(&root);
        return find_library(d, e);
}

static inline void close_cleanup(struct gpu_driver *d)
{
        gpu_driver_close(d);
}

static int unknown_wish(const char *want, struct err *e)
{
        return err_set(e, -EINVAL,
                       "[engine] gpu_driver: '%.60s' is not auto, none or simulated:FLEET", want);
}

int gpu_driver_open(const struct instance *inst, struct gpu_driver *ret, struct err *e)
{
        AUTO(close) struct gpu_driver d = { .root_fd = -EBADF };
        const char *want = inst->conf.gpu_driver, *fleet = str_after(want, "simulated:");
        int r;

        if (fleet)
                r = simulated_open(inst, fleet, &d, e);
        else if (str_eq(want, "none"))
                r = none(&d, "gpu_driver = none", e);
        else if (str_empty(want) || str_eq(want, "auto"))
                r = open_real(&d, e);
        else
                r = unknown_wish(want, e);
        if (r < 0)
                return r;
        *ret = d;
        d = (struct gpu_driver){ .root_fd = -EBADF };
        return 0;
}

void gpu_driver_close(struct gpu_driver *d)
{
        if (d->kind == GD_SIMULATED && d->root_path)
                simulated_remove(d->root_path);
        d->root_fd = fd_close(d->root_fd);
        free(d->root_path);
        free(d->nvml);
        free(d->fleet_file);
        free(d->version);
        free(d->note);
        *d = (struct gpu_driver){ .root_fd = -EBADF };
}

int gpu_driver_describe(const char *want, const char *libexec, char **ret, struct err *e)
{
        struct gpu_driver d = { .root_fd = -EBADF };
        const char *fleet = str_after(want, "simulated:");
        int r;

        if (fleet)
                return simulated_describe(libexec, fleet, ret, e);
        if (str_eq(want, "none"))
                r = none(&d, "gpu_driver = none", e);
        else if (str_empty(want) || str_eq(want, "auto"))
                r = open_real(&d, e);
        else
                r = unknown_wish(want, e);
        if (r >= 0) {
                *ret = d.kind == GD_NONE || d.note ? strdup(d.note)
                                                   : str_fmt("%s, %s", d.version, d.nvml);
                r = *ret ? d.kind == GD_NVIDIA && !d.note : err_set(e, -ENOMEM, "out of memory");
        }
        gpu_driver_close(&d);
        return r;
}
