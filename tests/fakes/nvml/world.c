/* world.c - which GPUs there are: from the description that HVMM_SIMULATED_FLEET names or, without it,
 * as a driver would find them: below /proc/driver/nvidia and by the device nodes that can be opened.
 * A node of a simulated GPU has nothing behind it, so that ENXIO means "may be opened". */
#include "fake.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

#define PROC   "/proc/driver/nvidia"
#define PREFIX "Simulated: "

struct world world;

static int read_text(const char *path, char *buf, size_t size)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        size_t len = 0;
        ssize_t n = 0;

        if (fd < 0)
                return -errno;
        while (len + 1 < size && (n = read(fd, buf + len, size - 1 - len)) > 0)
                len += (size_t) n;
        (void) close(fd);
        buf[len] = '\0';
        return n < 0 ? -EIO : 0;
}

/* 0: there is such a node and we may open it. */
static int node_opens(const char *path)
{
        int fd = open(path, O_RDWR | O_CLOEXEC);

        if (fd < 0)
                return errno == ENXIO || errno == ENODEV ? 0 : -errno;
        (void) close(fd);
        return 0;
}

/* ---- a cluster's view: the lines that the tree's files keep for us, put together again ---- */

struct view {
        char text[GPU_SIM_TEXT_MAX];
        size_t len;
        bool has_driver;
};

static void take_lines(struct view *v, const char *file)
{
        for (const char *p = file; (p = strstr(p, PREFIX));) {
                size_t n = strcspn(p, "\n") - strlen(PREFIX);
                bool driver = strncmp(p + strlen(PREFIX), "driver ", 7) == 0;

                p += strlen(PREFIX);
                if (!(driver && v->has_driver) && v->len + n + 2 < sizeof v->text) {
                        memcpy(v->text + v->len, p, n);
                        v->len += n;
                        v->text[v->len++] = '\n';
                        v->text[v->len] = '\0';
                }
                v->has_driver |= driver;
                p += n;
        }
}

static int by_name(const void *a, const void *b)
{
        return strcmp(a, b);
}

/* Sorted names of a directory, at most GPU_SIM_MAX of 31 bytes; how many. */
static size_t list(const char *path, char names[GPU_SIM_MAX][32])
{
        DIR *dir = opendir(path);
        size_t n = 0;

        if (!dir)
                return 0;
        for (const struct dirent *d; n < GPU_SIM_MAX && (d = readdir(dir));)
                if (d->d_name[0] != '.' && strlen(d->d_name) < sizeof names[0]) {
                        memcpy(names[n], d->d_name, strlen(d->d_name) + 1);
                        n++;
                }
        (void) closedir(dir);
        qsort(names, n, sizeof names[0], by_name);
        return n;
}

static unsigned number_after(const char *text, const char *key)
{
        const char *p = strstr(text, key);
        unsigned v = 0;

        if (!p)
                return UINT32_MAX;
        for (p += strlen(key); *p == ' ' || *p == '\t';)
                p++;
        for (; *p >= '0' && *p <= '9'; p++)
                v = v * 10 + (unsigned) (*p - '0');
        return v;
}

static bool cap_opens(const char *access, char *text, size_t size)
{
        char node[64];

        if (read_text(access, text, size) < 0)
                return false;
        (void) snprintf(node, sizeof node, "/dev/nvidia-caps/nvidia-cap%u",
                        number_after(text, "DeviceFileMinor:"));
        return node_opens(node) == 0;
}

static void take_instances(struct view *v, unsigned minor)
{
        static char gis[GPU_SIM_MAX][32], cis[GPU_SIM_MAX][32];
        char dir[64], path[160], text[2048];
        size_t n;

        (void) snprintf(dir, sizeof dir, PROC "/capabilities/gpu%u/mig", minor);
        n = list(dir, gis);
        for (size_t i = 0; i < n; i++) {
                size_t m;

                (void) snprintf(path, sizeof path, "%s/%s/access", dir, gis[i]);
                if (!cap_opens(path, text, sizeof text))
                        continue;
                (void) snprintf(path, sizeof path, "%s/%s", dir, gis[i]);
                m = list(path, cis);
                for (size_t k = 0; k < m; k++) {
                        (void) snprintf(path, sizeof path, "%s/%s/%s/access", dir, gis[i], cis[k]);
                        if (strncmp(cis[k], "ci", 2) == 0 && cap_opens(path, text, sizeof text))
                                take_lines(v, text);
                }
        }
}

static int load_view(struct world *w)
{
        static struct view v;
        static char names[GPU_SIM_MAX][32], text[4096];
        unsigned minors[GPU_SIM_MAX];
        size_t n, seen = 0;
        int r;

        v = (struct view){ .len = 0 };
        if (read_text(PROC "/version", text, sizeof text) < 0)
                return NVML_DRIVER_NOT_LOADED;
        take_lines(&v, text); /* the driver's own, should there be no GPU */
        r = node_opens("/dev/nvidiactl");
        if (r < 0)
                return r == -EPERM || r == -EACCES ? NVML_NO_PERMISSION : NVML_DRIVER_NOT_LOADED;
        n = list(PROC "/gpus", names);
        for (size_t i = 0; i < n; i++) {
                char path[96], node[32];
                unsigned minor;

                (void) snprintf(path, sizeof path, PROC "/gpus/%s/information", names[i]);
                if (read_text(path, text, sizeof text) < 0)
                        continue;
                minor = number_after(text, "Device Minor:");
                (void) snprintf(node, sizeof node, "/dev/nvidia%u", minor);
                if (node_opens(node) < 0)
                        continue;
                take_lines(&v, text);
                minors[seen++] = minor;
        }
        for (size_t i = 0; i < seen; i++)
                take_instances(&v, minors[i]);
        return gpu_sim_parse(v.text, NULL, true, &w->sim, NULL) < 0 ? NVML_UNKNOWN : NVML_SUCCESS;
}

static int load_host(struct world *w, const char *path)
{
        static char text[GPU_SIM_TEXT_MAX];
        struct err e = { 0 };
        int r = read_text(path, text, sizeof text);

        if (r >= 0)
                r = gpu_sim_parse(text, getenv("HVMM_SIMULATED_SEED"), false, &w->sim, &e);
        else
                (void) err_set(&e, r, "cannot be read");
        if (r < 0)
                (void) fprintf(stderr, "simulated driver: %s: %s\n", path, e.msg);
        return r < 0 ? NVML_UNKNOWN : NVML_SUCCESS;
}

int world_load(struct world *w)
{
        const char *fleet = getenv("HVMM_SIMULATED_FLEET");
        int r;

        w->is_host = fleet != NULL;
        r = fleet ? load_host(w, fleet) : load_view(w);
        if (r != NVML_SUCCESS)
                return r;
        w->n_shown = 0;
        for (uint32_t i = 0; i < w->sim.n_migs; i++)
                w->migs[i] = (struct nvml_device){ .is_mig = true, .at = i };
        faults_refresh();
        for (uint32_t i = 0; i < w->sim.n_gpus; i++) {
                w->gpus[i] = (struct nvml_device){ .at = i };
                if (!fault_find(F_LOSE, &w->gpus[i], 0))
                        w->shown[w->n_shown++] = i;
        }
        return NVML_SUCCESS;
}

const struct gpu_sim_gpu *gpu_of(const struct nvml_device *d)
{
        return &world.sim.gpus[d->is_mig ? world.sim.migs[d->at].gpu : d->at];
}

const struct gpu_sim_model *model_of(const struct nvml_device *d)
{
        return &world.sim.models[gpu_of(d)->model];
}
