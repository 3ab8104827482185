/* simulated_files.c - see simulated.h: the files that a driver's packages would have installed.  Engine
 * process, at start.
 *
 * libnvidia-ml.so.1, libcuda.so.1 and nvidia-smi are programs of ours; every other library is one small shared
 * object under the name, and with the SONAME, that the real one has. */
#include "engine/gpu/simulated.h"

#include <errno.h>
#include <fcntl.h>

#include "base/fd.h"
#include "base/str.h"

#ifdef __aarch64__
#define LIB "usr/lib/aarch64-linux-gnu"
#else
#define LIB "usr/lib/x86_64-linux-gnu"
#endif
#define FILE_MAX     (8U << 20)
#define SONAME_PLACE "lib-this-name-is-replaced-by-the-one-of-the-file.so.1"

/* where `ninja` and where `meson install` put them */
static const char *const program_places[] = { "tests/fakes/nvml", "simulated" };

/* @soname NULL: it is the file's own name, with the driver's version.  @dev: the link that compilers
 * want, too. */
static const struct {
        const char *dir, *name, *soname;
        bool dev;
} libraries[] = {
        { LIB, "libcudadebugger.so", "libcudadebugger.so.1", false },
        { LIB, "libnvcuvid.so", "libnvcuvid.so.1", true },
        { LIB, "libnvoptix.so", "libnvoptix.so.1", false },
        { LIB, "libnvidia-allocator.so", "libnvidia-allocator.so.1", false },
        { LIB, "libnvidia-api.so", "libnvidia-api.so.1", false },
        { LIB, "libnvidia-cfg.so", "libnvidia-cfg.so.1", false },
        { LIB, "libnvidia-egl-gbm.so", "libnvidia-egl-gbm.so.1", false },
        { LIB, "libnvidia-egl-wayland.so", "libnvidia-egl-wayland.so.1", false },
        { LIB, "libnvidia-eglcore.so", NULL, false },
        { LIB, "libnvidia-encode.so", "libnvidia-encode.so.1", true },
        { LIB, "libnvidia-fbc.so", "libnvidia-fbc.so.1", true },
        { LIB, "libnvidia-glcore.so", NULL, false },
        { LIB, "libnvidia-glsi.so", NULL, false },
        { LIB, "libnvidia-glvkspirv.so", NULL, false },
        { LIB, "libnvidia-gpucomp.so", NULL, false },
        { LIB, "libnvidia-ngx.so", "libnvidia-ngx.so.1", false },
        { LIB, "libnvidia-nvvm.so", "libnvidia-nvvm.so.4", false },
        { LIB, "libnvidia-opencl.so", "libnvidia-opencl.so.1", false },
        { LIB, "libnvidia-opticalflow.so", "libnvidia-opticalflow.so.1", true },
        { LIB, "libnvidia-pkcs11-openssl3.so", NULL, false },
        { LIB, "libnvidia-pkcs11.so", NULL, false },
        { LIB, "libnvidia-ptxjitcompiler.so", "libnvidia-ptxjitcompiler.so.1", false },
        { LIB, "libnvidia-rtcore.so", NULL, false },
        { LIB, "libnvidia-tls.so", NULL, false },
        { LIB, "libnvidia-vksc-core.so", "libnvidia-vksc-core.so.1", false },
        { LIB, "libnvidia-wayland-client.so", NULL, false },
        { LIB, "libEGL_nvidia.so", "libEGL_nvidia.so.0", false },
        { LIB, "libGLESv1_CM_nvidia.so", "libGLESv1_CM_nvidia.so.1", false },
        { LIB, "libGLESv2_nvidia.so", "libGLESv2_nvidia.so.2", false },
        { LIB, "libGLX_nvidia.so", "libGLX_nvidia.so.0", false },
        { LIB "/vdpau", "libvdpau_nvidia.so", "libvdpau_nvidia.so.1", false },
        { "usr/lib/xorg/modules/extensions", "libglxserver_nvidia.so", NULL, false },
};

/* %s: the driver's version */
static const struct {
        const char *path, *text;
} texts[] = {
        { "etc/OpenCL/vendors/nvidia.icd", "libnvidia-opencl.so.1\n" },
        { "etc/vulkan/icd.d/nvidia_icd.json",
          "{\"file_format_version\":\"1.0.0\",\"ICD\":{\"library_path\":\"libGLX_nvidia.so.0\",\"api_version\":\"1.3.277\"}}\n" },
        { "etc/vulkan/implicit_layer.d/nvidia_layers.json",
          "{\"file_format_version\":\"1.0.0\",\"layers\":[]}\n" },
        { "usr/share/glvnd/egl_vendor.d/10_nvidia.json",
          "{\"file_format_version\":\"1.0.0\",\"ICD\":{\"library_path\":\"libEGL_nvidia.so.0\"}}\n" },
        { "usr/share/egl/egl_external_platform.d/10_nvidia_wayland.json",
          "{\"file_format_version\":\"1.0.0\",\"ICD\":{\"library_path\":\"libnvidia-egl-wayland.so.1\"}}\n" },
        { "usr/share/egl/egl_external_platform.d/15_nvidia_gbm.json",
          "{\"file_format_version\":\"1.0.0\",\"ICD\":{\"library_path\":\"libnvidia-egl-gbm.so.1\"}}\n" },
        { "usr/share/X11/xorg.conf.d/nvidia-drm-outputclass.conf",
          "Section \"OutputClass\"\n    Identifier \"nvidia\"\n    MatchDriver \"nvidia-drm\"\n    Driver \"nvidia\"\nEndSection\n" },
        { "usr/share/nvidia/nvoptix.bin", "simulated\n" },
        { "lib/firmware/nvidia/%s/gsp_ga10x.bin", "simulated\n" },
        { "lib/firmware/nvidia/%s/gsp_tu10x.bin", "simulated\n" },
        { "usr/share/nvidia/nvidia-application-profiles-%s-rc", "{}\n" },
};

/* All of them are one program, which says by which name it was called. */
static const char *const programs[] = {
        "nvidia-smi",
        "nvidia-debugdump",
        "nvidia-persistenced",
        "nvidia-cuda-mps-control",
        "nvidia-cuda-mps-server",
};

struct copy {
        char *data;
        size_t len;
};

static void copy_cleanup(struct copy *c)
{
        free(c->data);
}

static int read_ours(const struct sim_tree *t, const char *name, struct copy *ret, struct err *e)
{
        AUTO(free) char *path = NULL;
        int r = sim_find(t->libexec, program_places, name, &path, e);

        if (r < 0)
                return r;
        r = fd_read_file(AT_FDCWD, path, FILE_MAX, &ret->data, &ret->len);
        return r < 0 ? err_errno(e, r, "read %s", path) : 0;
}

/* The file under its full name, and the links that ldconfig and packages make. */
static int put_library(const struct sim_tree *t, const char *dir, const char *name,
                       const char *soname, bool dev, const struct copy *c, struct err *e)
{
        AUTO(free) char *file = str_fmt("%s.%s", name, t->s->driver);
        AUTO(free) char *path = str_fmt("%s/%s", dir, file);
        AUTO(free) char *link = str_fmt("%s/%s", dir, soname);
        AUTO(free) char *plain = str_fmt("%s/%s", dir, name);
        int r;

        if (!file || !path || !link || !plain)
                return err_set(e, -ENOMEM, "out of memory");
        r = sim_put(t->root, 0755, path, c->data, c->len, e);
        if (r >= 0 && !str_eq(soname, file))
                r = sim_link(t->root, file, link, e);
        if (r >= 0 && dev)
                r = sim_link(t->root, soname, plain, e);
        return r;
}

static int put_stubs(const struct sim_tree *t, struct err *e)
{
        AUTO(copy) struct copy stub = { 0 };
        char *at;
        int r = read_ours(t, "libdriver-stub.so", &stub, e);

        if (r < 0)
                return r;
        at = memmem(stub.data, stub.len, SONAME_PLACE, sizeof SONAME_PLACE);
        if (!at)
                return err_set(e, -EINVAL, "libdriver-stub.so is not ours");
        for (size_t i = 0; r >= 0 && i < NELEM(libraries); i++) {
                AUTO(free) char *own = str_fmt("%s.%s", libraries[i].name, t->s->driver);
                const char *soname = libraries[i].soname ? libraries[i].soname : own;

                if (!own || strlen(soname) >= sizeof SONAME_PLACE)
                        return err_set(e, -ENOMEM, "out of memory");
                memset(at, 0, sizeof SONAME_PLACE);
                memcpy(at, soname, strlen(soname));
                r = put_library(t, libraries[i].dir, libraries[i].name, soname, libraries[i].dev,
                                &stub, e);
        }
        return r;
}

static int put_texts(const struct sim_tree *t, struct err *e)
{
        int r = 0;

        for (size_t i = 0; r >= 0 && i < NELEM(texts); i++) {
                const char *at = strstr(texts[i].path, "%s");
                AUTO(free)
                char *path = at ? str_fmt("%.*s%s%s", (int) (at - texts[i].path), texts[i].path,
                                          t->s->driver, at + 2)
                                : strdup(texts[i].path);

                r = path ? sim_put(t->root, 0644, path, texts[i].text, strlen(texts[i].text), e)
                         : err_set(e, -ENOMEM, "out of memory");
        }
        return r;
}

int sim_tree_files(const struct sim_tree *t, char **ret_nvml, struct err *e)
{
        AUTO(copy) struct copy nvml = { 0 };
        AUTO(copy) struct copy smi = { 0 };
        AUTO(copy) struct copy cuda = { 0 };
        int r = read_ours(t, "libnvidia-ml.so.1", &nvml, e);

        if (r >= 0)
                r = read_ours(t, "nvidia-smi", &smi, e);
        if (r >= 0)
                r = read_ours(t, "libcuda.so.1", &cuda, e);
        if (r >= 0)
                r = put_library(t, LIB, "libcuda.so", "libcuda.so.1", true, &cuda, e);
        if (r >= 0)
                r = put_library(t, LIB, "libnvidia-ml.so", "libnvidia-ml.so.1", true, &nvml, e);
        if (r >= 0)
                r = put_stubs(t, e);
        if (r >= 0)
                r = sim_link(t->root, "../libnvidia-allocator.so.1", LIB "/gbm/nvidia-drm_gbm.so",
                             e);
        if (r >= 0)
                r = put_texts(t, e);
        for (size_t i = 0; r >= 0 && i < NELEM(programs); i++) {
                AUTO(free) char *path = str_fmt("usr/bin/%s", programs[i]);

                r = path && i == 0 ? sim_put(t->root, 0755, path, smi.data, smi.len, e)
                    : path         ? sim_link(t->root, programs[0], path, e)
                                   : err_set(e, -ENOMEM, "out of memory");
        }
        if (r < 0)
                return r;
        *ret_nvml = strdup(LIB "/libnvidia-ml.so.1");
        return *ret_nvml ? 0 : err_set(e, -ENOMEM, "out of memory");
}
