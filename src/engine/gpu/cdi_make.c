/* cdi_make.c - see cdi_make.h.
 *
 * What belongs to which capability stands in the tables below, and nowhere else.  A library is looked
 * for by its exact name: the driver's version is known, and reading a directory of thousands of
 * files would take longer than the rest of a boot. */
#include "engine/gpu/cdi_make.h"

#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

#if defined(__x86_64__)
#define MACHINE "x86_64-linux-gnu"
#elif defined(__aarch64__)
#define MACHINE "aarch64-linux-gnu"
#endif

#define C GPU_CAP_COMPUTE
#define U GPU_CAP_UTILITY
#define G GPU_CAP_GRAPHICS
#define V GPU_CAP_VIDEO
#define D GPU_CAP_DISPLAY
#define N GPU_CAP_NGX

static const struct {
        const char *word;
        unsigned caps;
} cap_words[] = { { "compute", C },
                  { "utility", U },
                  { "graphics", G },
                  { "video", V },
                  { "display", D },
                  { "ngx", N },
                  { "compat32", GPU_CAP_COMPAT32 },
                  { "all", GPU_CAP_ALL } };

/* "<name>.<driver's version>"; EGL's go by versions of their own: what "<name>.1" leads to. */
static const struct {
        unsigned caps;
        const char *name;
} libraries[] = {
        { U, "libnvidia-ml.so" },
        { U, "libnvidia-cfg.so" },
        { U, "libnvidia-nscq.so" },
        { U, "libnvidia-sandboxutils.so" },
        { C, "libcuda.so" },
        { C, "libcudadebugger.so" },
        { C, "libnvidia-opencl.so" },
        { C | G | V, "libnvidia-gpucomp.so" },
        { C, "libnvidia-ptxjitcompiler.so" },
        { C, "libnvidia-fatbinaryloader.so" },
        { C | G, "libnvidia-allocator.so" },
        { C, "libnvidia-compiler.so" },
        { C, "libnvidia-pkcs11.so" },
        { C, "libnvidia-pkcs11-openssl3.so" },
        { C, "libnvidia-nvvm.so" },
        { C, "libnvidia-nvvm70.so" },
        { V, "libnvidia-encode.so" },
        { V, "libnvidia-opticalflow.so" },
        { V, "libnvcuvid.so" },
        { V, "vdpau/libvdpau_nvidia.so" },
        { G, "libnvidia-eglcore.so" },
        { G, "libnvidia-glcore.so" },
        { G, "libnvidia-tls.so" },
        { G, "libnvidia-glsi.so" },
        { G, "libnvidia-fbc.so" },
        { G, "libnvidia-rtcore.so" },
        { G, "libnvoptix.so" },
        { G, "libnvidia-glvkspirv.so" },
        { G, "libnvidia-vksc-core.so" },
        { G, "libnvidia-vulkan-producer.so" },
        { G, "libGLX_nvidia.so" },
        { G, "libEGL_nvidia.so" },
        { G, "libGLESv2_nvidia.so" },
        { G, "libGLESv1_CM_nvidia.so" },
        { G, "libnvidia-egl-gbm.so" },
        { G, "libnvidia-egl-wayland.so" },
        { G, "libnvidia-egl-wayland2.so" },
        { G, "libnvidia-egl-xcb.so" },
        { G, "libnvidia-egl-xlib.so" },
        { N, "libnvidia-ngx.so" },
};

/* Links that no library's own name gives; @to may hold one %s for the version. */
static const struct {
        unsigned caps;
        const char *path, *to, *needs; /* a library */
} links[] = {
        { C, "@lib/libcuda.so", "libcuda.so.1", "libcuda.so" },
        { V, "@lib/libnvidia-opticalflow.so", "libnvidia-opticalflow.so.1",
          "libnvidia-opticalflow.so" },
        { V, "@lib/libnvidia-encode.so", "libnvidia-encode.so.1", "libnvidia-encode.so" },
        { V, "@lib/libnvcuvid.so", "libnvcuvid.so.1", "libnvcuvid.so" },
        { V, "@lib/libvdpau_nvidia.so", "vdpau/libvdpau_nvidia.so.%s", "vdpau/libvdpau_nvidia.so" },
        { G, "@lib/libGLX_indirect.so.0", "libGLX_nvidia.so.%s", "libGLX_nvidia.so" },
        { G, "@lib/gbm/nvidia-drm_gbm.so", "../libnvidia-allocator.so.%s",
          "libnvidia-allocator.so" },
        { D, "/usr/lib/xorg/modules/extensions/libglxserver_nvidia.so", "libglxserver_nvidia.so.%s",
          NULL },
};

/* Programs and data, where they are; @path may hold one %s for the version. */
static const struct {
        unsigned caps;
        const char *path;
} files[] = {
        { U, "/usr/bin/nvidia-smi" },
        { U, "/usr/bin/nvidia-debugdump" },
        { C, "/usr/bin/nvidia-cuda-mps-control" },
        { C, "/usr/bin/nvidia-cuda-mps-server" },
        { G, "/usr/share/nvidia/nvoptix.bin" },
        { G, "/usr/share/glvnd/egl_vendor.d/10_nvidia.json" },
        { G, "/usr/share/vulkan/icd.d/nvidia_icd.json" },
        { G, "/usr/share/vulkan/icd.d/nvidia_icd.x86_64.json" },
        { G, "/etc/vulkan/icd.d/nvidia_icd.json" },
        { G, "/usr/share/vulkan/implicit_layer.d/nvidia_layers.json" },
        { G, "/etc/vulkan/implicit_layer.d/nvidia_layers.json" },
        { G, "/usr/share/egl/egl_external_platform.d/10_nvidia_wayland.json" },
        { G, "/usr/share/egl/egl_external_platform.d/15_nvidia_gbm.json" },
        { G, "/usr/share/egl/egl_external_platform.d/20_nvidia_xcb.json" },
        { G, "/usr/share/egl/egl_external_platform.d/20_nvidia_xlib.json" },
        { D, "/usr/share/X11/xorg.conf.d/nvidia-drm-outputclass.conf" },
        { D, "/usr/share/X11/xorg.conf.d/10-nvidia.conf" },
        { D, "/usr/lib/xorg/modules/drivers/nvidia_drv.so" },
        { D, "/usr/lib/xorg/modules/extensions/libglxserver_nvidia.so.%s" },
};

/* Nodes that all GPUs share. */
static const struct {
        unsigned caps;
        const char *name, *how; /* said when it is missing; NULL: then there is none */
} nodes[] = {
        { GPU_CAP_ALL, "nvidiactl", "load the driver's module, as root: nvidia-modprobe -c 255" },
        { C | G | V | N, "nvidia-uvm",
          "load the driver's module for unified memory, as root: nvidia-modprobe -u -c 0" },
        { C | G | V | N, "nvidia-uvm-tools", NULL },
        { G | D, "nvidia-modeset", NULL },
};

#undef C
#undef U
#undef G
#undef V
#undef D
#undef N

/* As driver.c has them. */
static const char *const lib_dirs[] = {
        "/usr/lib/" MACHINE,
        "/usr/lib64",
        "/usr/lib",
        "/usr/lib/" MACHINE "/nvidia/current",
        "/usr/lib64/nvidia",
        "/usr/local/lib",
        "/usr/local/nvidia/lib64",
        "/opt/nvidia/lib64",
        "/run/opengl-driver/lib",
        "/lib/" MACHINE,
};
static const char *const lib32_dirs[] = { "/usr/lib/i386-linux-gnu", "/usr/lib32" };

int gpu_caps_parse(const char *s, unsigned *ret, struct err *e)
{
        unsigned caps = 0;

        if (str_empty(s))
                s = "compute,utility";
        while (*s) {
                size_t n = strcspn(s, ","), i = 0;

                while (i < NELEM(cap_words) &&
                       (strlen(cap_words[i].word) != n || strncmp(cap_words[i].word, s, n) != 0))
                        i++;
                if (i == NELEM(cap_words))
                        return err_set(
                                e, -EINVAL,
                                "NVIDIA_DRIVER_CAPABILITIES: unknown word '%.*s'; the known ones: compute, utility, graphics, video, display, ngx, compat32, all",
                                (int) (n < 60 ? n : 60), s);
                caps |= cap_words[i].caps;
                s += n;
                s += *s == ',';
        }
        *ret = caps;
        return 0;
}

void gpu_pci_short(const char *pci, char ret[static 16])
{
        size_t n = pci ? strlen(pci) : 0;

        for (; n > 12 && *pci == '0'; n--) /* a domain may have more than its four digits */
                pci++;
        (void) snprintf(ret, 16, "%s", n ? pci : "");
        for (char *p = ret; *p; p++)
                *p = (char) tolower((unsigned char) *p);
}

/* ---- lists ------------------------------------------------------------------------------------ */

static int no_memory(struct err *e)
{
        return err_set(e, -ENOMEM, "out of memory");
}

static int add_node(struct cdi_edits *x, const char *name, struct err *e)
{
        struct cdi_node *n = cdi_grow(x->nodes, &x->n_nodes, sizeof *n);

        if (!n)
                return no_memory(e);
        x->nodes = n;
        n += x->n_nodes++;
        n->path = str_fmt("/dev/%s", name);
        n->permissions = strdup("rw");
        return n->path && n->permissions ? 0 : no_memory(e);
}

static int add_mount(struct cdi_edits *x, const char *host, const char *inside, struct err *e)
{
        static const char *const options[] = { "ro", "nosuid", "nodev", "rbind", "rprivate" };
        struct cdi_mount *m = cdi_grow(x->mounts, &x->n_mounts, sizeof *m);
        int r = 0;

        if (!m)
                return no_memory(e);
        x->mounts = m;
        m += x->n_mounts++;
        m->host_path = strdup(host);
        m->container_path = strdup(inside);
        for (size_t i = 0; i < NELEM(options) && r >= 0; i++)
                r = strv_push(&m->options, options[i]);
        return r >= 0 && m->host_path && m->container_path ? 0 : no_memory(e);
}

static int add_link(struct cdi_edits *x, const char *path, const char *to, struct err *e)
{
        struct cdi_link *l = cdi_grow(x->links, &x->n_links, sizeof *l);

        if (!l)
                return no_memory(e);
        x->links = l;
        l += x->n_links++;
        l->path = strdup(path);
        l->target = strdup(to);
        return l->path && l->target ? 0 : no_memory(e);
}

/* @path with the version in place of its %s, when it has one. */
static int with_version(char *ret, size_t size, const char *path, const char *version)
{
        const char *at = strstr(path, "%s");
        int n = at ? snprintf(ret, size, "%.*s%s%s", (int) (at - path), path, version, at + 2)
                   : snprintf(ret, size, "%s", path);

        return n < 0 || (size_t) n >= size ? -ENAMETOOLONG : 0;
}

/* ---- libraries -------------------------------------------------------------------------------- */

#define DIRS_MAX 12U

struct maker {
        const struct gpu_driver *d;
        const char *version;
        unsigned caps;
        struct cdi_edits *x;
        struct err *e;
};

static bool is_there(const struct maker *m, const char *path)
{
        AUTO(fd) int fd = fd_open_in_root(m->d->root_fd, path, O_PATH, 0);

        return fd >= 0;
}

/* The file's own name, where a link leads to it: "libnvidia-egl-gbm.so.1.1.1". */
static int real_name(const struct maker *m, const char *path, char ret[static 256])
{
        AUTO(fd) int fd = fd_open_in_root(m->d->root_fd, path, O_PATH, 0);
        char link[40], buf[PATH_MAX];
        const char *slash;
        ssize_t n;

        if (fd < 0)
                return fd;
        (void) snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        n = readlink(link, buf, sizeof buf - 1);
        if (n < 0)
                return -errno;
        buf[n] = '\0';
        slash = strrchr(buf, '/');
        if (!slash || strlen(slash + 1) >= 256)
                return -ENAMETOOLONG;
        (void) snprintf(ret, 256, "%s", slash + 1);
        return 0;
}

/* 1: found in @dir, and added as @prefix/... */
static int try_library(const struct maker *m, const char *dir, const char *prefix, const char *name)
{
        const char *slash = strrchr(name, '/');
        char path[PATH_MAX], inside[PATH_MAX], real[256] = "";
        int r;

        if (m->version && !strstr(name, "-egl-")) {
                (void) snprintf(path, sizeof path, "%s/%s.%s", dir, name, m->version);
                if (!is_there(m, path))
                        return 0;
                (void) snprintf(inside, sizeof inside, "%s%s.%s", prefix, name, m->version);
        } else {
                (void) snprintf(path, sizeof path, "%s/%s.1", dir, name);
                if (real_name(m, path, real) < 0)
                        return 0;
                (void) snprintf(inside, sizeof inside, "%s%.*s%s", prefix,
                                slash ? (int) (slash + 1 - name) : 0, name, real);
        }
        r = add_mount(m->x, path, inside, m->e);
        return r < 0 ? r : 1;
}

/* Directories of the driver's, those that there are. */
struct lib_dirs {
        const char *at[DIRS_MAX];
        size_t n;
};

static void find_dirs(const struct maker *m, const char *const *dirs, size_t n,
                      struct lib_dirs *ret)
{
        ret->n = 0;
        for (size_t i = 0; i < n; i++)
                if (is_there(m, dirs[i]))
                        ret->at[ret->n++] = dirs[i];
}

static int find_library(const struct maker *m, const struct lib_dirs *dirs, const char *prefix,
                        const char *name, char **first_dir)
{
        for (size_t i = 0; i < dirs->n; i++) {
                int r = try_library(m, dirs->at[i], prefix, name);

                if (r == 1 && !*first_dir && !(*first_dir = strdup(dirs->at[i])))
                        return no_memory(m->e);
                if (r != 0)
                        return r;
        }
        return 0;
}

static int add_libraries(const struct maker *m, struct cdi_spec *s)
{
        bool found[NELEM(libraries)] = { false };
        struct lib_dirs dirs, dirs32 = { .n = 0 };
        int r = 0;

        static_assert(NELEM(lib_dirs) <= DIRS_MAX && NELEM(lib32_dirs) <= DIRS_MAX, "room");
        find_dirs(m, lib_dirs, NELEM(lib_dirs), &dirs);
        if (m->caps & GPU_CAP_COMPAT32)
                find_dirs(m, lib32_dirs, NELEM(lib32_dirs), &dirs32);
        for (size_t i = 0; i < NELEM(libraries) && r >= 0; i++) {
                if (!(libraries[i].caps & m->caps))
                        continue;
                r = find_library(m, &dirs, "@lib/", libraries[i].name, &s->lib_dir);
                found[i] = r == 1;
                if (r >= 0)
                        r = find_library(m, &dirs32, "@lib32/", libraries[i].name, &s->lib32_dir);
        }
        for (size_t i = 0; i < NELEM(links) && r >= 0; i++) {
                char to[256];
                bool wanted = links[i].caps & m->caps;

                for (size_t k = 0; wanted && links[i].needs && k < NELEM(libraries); k++)
                        if (str_eq(libraries[k].name, links[i].needs))
                                wanted = found[k];
                if (wanted &&
                    with_version(to, sizeof to, links[i].to, m->version ? m->version : "1") >= 0)
                        r = add_link(m->x, links[i].path, to, m->e);
        }
        return r < 0 ? r : 0;
}

static int add_files(const struct maker *m)
{
        char path[256];
        int r = 0;

        for (size_t i = 0; i < NELEM(files) && r >= 0; i++)
                if (files[i].caps & m->caps &&
                    with_version(path, sizeof path, files[i].path, m->version ? m->version : "") >=
                            0 &&
                    is_there(m, path))
                        r = add_mount(m->x, path, path, m->e);
        return r;
}

/* ---- nodes ------------------------------------------------------------------------------------ */

static int add_common_nodes(const struct maker *m)
{
        int r = 0;

        for (size_t i = 0; i < NELEM(nodes) && r >= 0; i++) {
                char path[64];

                if (!(nodes[i].caps & m->caps))
                        continue;
                (void) snprintf(path, sizeof path, "/dev/%s", nodes[i].name);
                if (is_there(m, path))
                        r = add_node(m->x, nodes[i].name, m->e);
                else if (nodes[i].how)
                        return err_set(m->e, -ENODEV, "%s is missing: %s", path, nodes[i].how);
        }
        return r;
}

static int compare_names(const void *a, const void *b)
{
        return strverscmp(*(char *const *) a, *(char *const *) b);
}

/* Names in @path that begin with @prefix and go on with a digit, sorted. */
static int list_names(const struct maker *m, const char *path, const char *prefix, char ***ret)
{
        int fd = fd_open_in_root(m->d->root_fd, path, O_RDONLY | O_DIRECTORY, 0), r = 0;
        DIR *d = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *de;

        if (!d) {
                (void) fd_close(fd);
                return 0;
        }
        while (r >= 0 && (de = readdir(d)) != NULL) {
                const char *rest = str_after(de->d_name, prefix);

                if (rest && (isdigit((unsigned char) *rest) || !*rest))
                        r = strv_push(ret, de->d_name);
        }
        (void) closedir(d);
        if (*ret)
                qsort(*ret, strv_len(*ret), sizeof **ret, compare_names);
        return r < 0 ? no_memory(m->e) : 0;
}

/* NVSwitches and IMEX channels: only when nobody else is in the fabric. */
static int add_fabric(const struct maker *m)
{
        static const char *const rows[][2] = { { "/dev", "nvidia-nvswitch" },
                                               { "/dev", "nvidia-nvswitchctl" },
                                               { "/dev/nvidia-caps-imex-channels", "channel" } };
        int r = 0;

        for (size_t i = 0; i < NELEM(rows) && r >= 0; i++) {
                AUTO(strv_free) char **names = NULL;
                const char *sub = rows[i][0] + strlen("/dev");

                r = list_names(m, rows[i][0], rows[i][1], &names);
                for (char **n = names; n && *n && r >= 0; n++) {
                        char name[300];

                        (void) snprintf(name, sizeof name, "%s%s%s", *sub ? sub + 1 : "",
                                        *sub ? "/" : "", *n);
                        r = add_node(m->x, name, m->e);
                }
        }
        return r;
}

int cdi_make_fabric(const struct gpu_driver *d, struct cdi_edits *ret, struct err *e)
{
        const struct maker m = { d, d->version, 0, ret, e };

        return add_fabric(&m);
}

/* The GPU's own processor runs it.  Kernels before 5.10 look for it in the root of whoever opens the GPU
 * first; for others it is what a program finds that asks which one there is.  The directory is this
 * version's alone, and one mount is half the price of two. */
static int add_firmware(const struct maker *m)
{
        char path[96];

        (void) snprintf(path, sizeof path, "/lib/firmware/nvidia/%s", m->version ? m->version : "");
        return m->version && is_there(m, path) ? add_mount(m->x, path, path, m->e) : 0;
}

int cdi_make_common(const struct gpu_driver *d, unsigned caps, struct cdi_spec *ret, struct err *e)
{
        const struct maker m = { d, d->version, caps, &ret->edits, e };
        int r = 0;

        ret->version = strdup("0.6.0");
        ret->kind = strdup(CDI_KIND);
        if (!ret->version || !ret->kind ||
            strv_push(&ret->edits.env, "NVIDIA_VISIBLE_DEVICES=void") < 0)
                return no_memory(e);
        r = add_common_nodes(&m);
        if (r >= 0)
                r = add_libraries(&m, ret);
        if (r >= 0)
                r = add_files(&m);
        if (r >= 0)
                r = add_firmware(&m);
        if (r >= 0 && !ret->lib_dir)
                return err_set(
                        e, -ENOENT,
                        "the driver's libraries lie in none of the directories that are known");
        return r;
}

/* "DeviceFileMinor: 12" of an `access` file of the driver's. */
static int cap_minor(const struct maker *m, const char *path, uint64_t *ret)
{
        AUTO(fd) int fd = fd_open_in_root(m->d->root_fd, path, O_RDONLY, 0);
        char text[512];
        ssize_t n = fd < 0 ? fd : fd_read_full(fd, text, sizeof text - 1);
        const char *at;

        if (n < 0)
                return err_errno(m->e, (int) n, "%s", path);
        text[n] = '\0';
        at = strstr(text, "DeviceFileMinor:");
        if (!at || str_u64_prefix(at + strlen("DeviceFileMinor:"), 10, ret) < 0)
                return err_set(m->e, -EINVAL, "%s names no device", path);
        return 0;
}

/* A MIG instance is opened by way of two capabilities: of its GPU instance, and of its own. */
static int add_mig(const struct maker *m, const struct gpu *g)
{
        char path[2][160], name[64];
        int r = 0;

        (void) snprintf(path[0], sizeof path[0],
                        "/proc/driver/nvidia/capabilities/gpu%u/mig/gi%u/access", g->minor, g->gi);
        (void) snprintf(path[1], sizeof path[1],
                        "/proc/driver/nvidia/capabilities/gpu%u/mig/gi%u/ci%u/access", g->minor,
                        g->gi, g->ci);
        for (size_t i = 0; i < 2 && r >= 0; i++) {
                uint64_t minor = 0;

                r = cap_minor(m, path[i], &minor);
                (void) snprintf(name, sizeof name, "nvidia-caps/nvidia-cap%llu",
                                (unsigned long long) minor);
                if (r >= 0)
                        r = add_node(m->x, name, m->e);
        }
        return r;
}

/* The display's nodes: cardN, renderDN. */
static int add_dri(const struct maker *m, const struct gpu *g)
{
        static const char *const kinds[] = { "card", "renderD" };
        char pci[16], path[96];
        int r = 0;

        gpu_pci_short(g->pci, pci);
        (void) snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/drm", pci);
        for (size_t i = 0; i < NELEM(kinds) && r >= 0; i++) {
                AUTO(strv_free) char **names = NULL;

                r = list_names(m, path, kinds[i], &names);
                for (char **n = names; n && *n && r >= 0; n++) {
                        char name[300];

                        (void) snprintf(name, sizeof name, "dri/%s", *n);
                        r = add_node(m->x, name, m->e);
                }
        }
        return r;
}

int cdi_make_gpu(const struct gpu_driver *d, const struct gpu *g, unsigned caps,
                 struct cdi_edits *ret, struct err *e)
{
        const struct maker m = { d, d->version, caps, ret, e };
        char name[32];
        int r;

        (void) snprintf(name, sizeof name, "nvidia%u", g->minor);
        r = add_node(ret, name, e);
        if (r >= 0 && g->mig_profile)
                r = add_mig(&m, g);
        if (r >= 0 && caps & (GPU_CAP_GRAPHICS | GPU_CAP_DISPLAY))
                r = add_dri(&m, g);
        return r;
}
