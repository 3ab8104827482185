/* simulated_tree.c - see simulated.h: what the kernel would show of a simulated driver: device nodes, /proc
 * and /sys.  Engine process, at start.
 *
 * The lines "Simulated: ..." of version, information and access files are what the stand-in library
 * reads inside a cluster (tests/fakes/nvml/world.c); everything else is for programs that know the
 * real ones. */
#include "engine/gpu/simulated.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"

#define PREFIX       "Simulated: "
#define LINES_MAX    4096
#define MINOR_CTL    255U
#define MINOR_MODE   254U
#define MINOR_RENDER 128U /* of each GPU: these are of our number, not of DRM's */
#define MINOR_SWITCH 192U /* nvswitch0.., then nvswitchctl */
#define MINOR_CARD   256U
#define CHANNEL0     240U

static bool has_fabric(const struct gpu_sim *s)
{
        for (uint32_t i = 0; i < s->n_gpus; i++)
                if (s->gpus[i].fabric != GPU_SIM_NONE)
                        return true;
        return false;
}

/* ---- /dev ---- */

static int node(const struct sim_tree *t, mode_t mode, unsigned major, unsigned minor,
                struct err *e, const char *fmt, ...) __attribute__((format(printf, 6, 7)));

static int node(const struct sim_tree *t, mode_t mode, unsigned major, unsigned minor,
                struct err *e, const char *fmt, ...)
{
        char name[64];
        va_list ap;

        va_start(ap, fmt);
        (void) vsnprintf(name, sizeof name, fmt, ap);
        va_end(ap);
        /* the directory is there; a node's mode is set apart, whatever the umask is */
        if (mknodat(t->root, name, S_IFCHR | mode, makedev(major, minor)) < 0 ||
            fchmodat(t->root, name, mode, 0) < 0)
                return err_errno(e, -errno, "simulated driver: make %s", name);
        return 0;
}

static int dev_caps(const struct sim_tree *t, struct err *e)
{
        const struct gpu_sim *s = t->s;
        unsigned major = t->major[SIM_MAJOR_CAPS];
        int r = sim_dir(t->root, "dev/nvidia-caps", e);

        if (r >= 0)
                r = node(t, 0400, major, 1, e, "dev/nvidia-caps/nvidia-cap1"); /* configure */
        if (r >= 0)
                r = node(t, 0444, major, 2, e, "dev/nvidia-caps/nvidia-cap2"); /* monitor */
        for (uint32_t i = 0; r >= 0 && i < s->n_migs; i++) {
                const struct gpu_sim_mig *m = &s->migs[i];
                unsigned minor = s->gpus[m->gpu].minor,
                         gi = gpu_sim_cap_minor(minor, m->gi, GPU_SIM_NONE),
                         ci = gpu_sim_cap_minor(minor, m->gi, m->ci);
                char name[64];

                (void) snprintf(name, sizeof name, "dev/nvidia-caps/nvidia-cap%u", gi);
                if (faccessat(t->root, name, F_OK, 0) < 0) /* several compute instances share it */
                        r = node(t, 0444, major, gi, e, "dev/nvidia-caps/nvidia-cap%u", gi);
                if (r >= 0)
                        r = node(t, 0444, major, ci, e, "dev/nvidia-caps/nvidia-cap%u", ci);
        }
        return r;
}

static int dev_fabric(const struct sim_tree *t, struct err *e)
{
        unsigned major = t->major[SIM_MAJOR_GPU];
        int r = sim_dir(t->root, "dev/nvidia-caps-imex-channels", e);

        for (unsigned i = 0; r >= 0 && i < GPU_SIM_SWITCHES; i++)
                r = node(t, 0666, major, MINOR_SWITCH + i, e, "dev/nvidia-nvswitch%u", i);
        if (r >= 0)
                r = node(t, 0666, major, MINOR_SWITCH + GPU_SIM_SWITCHES, e,
                         "dev/nvidia-nvswitchctl");
        if (r >= 0)
                r = node(t, 0666, major, CHANNEL0, e, "dev/nvidia-caps-imex-channels/channel0");
        return r;
}

static int dev_dri(const struct sim_tree *t, struct err *e)
{
        int r = sim_dir(t->root, "dev/dri", e);

        for (uint32_t i = 0; r >= 0 && i < t->s->n_gpus; i++) {
                r = node(t, 0660, t->major[SIM_MAJOR_GPU], MINOR_CARD + i, e, "dev/dri/card%u", i);
                if (r >= 0)
                        r = node(t, 0660, t->major[SIM_MAJOR_GPU], MINOR_RENDER + i, e,
                                 "dev/dri/renderD%u", 128 + i);
        }
        return r;
}

int sim_tree_dev(const struct sim_tree *t, struct err *e)
{
        const struct gpu_sim *s = t->s;
        unsigned major = t->major[SIM_MAJOR_GPU];
        int r = sim_dir(t->root, "dev", e);

        for (uint32_t i = 0; r >= 0 && i < s->n_gpus; i++)
                r = node(t, 0666, major, s->gpus[i].minor, e, "dev/nvidia%u", s->gpus[i].minor);
        if (r >= 0)
                r = node(t, 0666, major, MINOR_CTL, e, "dev/nvidiactl");
        if (r >= 0)
                r = node(t, 0666, major, MINOR_MODE, e, "dev/nvidia-modeset");
        if (r >= 0)
                r = node(t, 0666, t->major[SIM_MAJOR_UVM], 0, e, "dev/nvidia-uvm");
        if (r >= 0)
                r = node(t, 0666, t->major[SIM_MAJOR_UVM], 1, e, "dev/nvidia-uvm-tools");
        if (r >= 0)
                r = dev_caps(t, e);
        if (r >= 0)
                r = dev_dri(t, e);
        if (r >= 0 && has_fabric(s))
                r = dev_fabric(t, e);
        return r;
}

/* ---- /proc ---- */

static int proc_gpu(const struct sim_tree *t, uint32_t i, struct err *e)
{
        const struct gpu_sim_gpu *g = &t->s->gpus[i];
        const struct gpu_sim_model *m = &t->s->models[g->model];
        char path[96], pci[16], lines[LINES_MAX];
        int r;

        if (!gpu_sim_gpu_lines(t->s, i, PREFIX, lines, sizeof lines))
                return err_set(e, -EINVAL, "simulated driver: a GPU has too many words");
        gpu_sim_pci_text(&g->pci, pci);
        (void) snprintf(path, sizeof path, "proc/driver/nvidia/gpus/%s/information", pci);
        r = sim_put_text(t->root, path, e,
                         "Model: \t\t %s\nIRQ:   \t\t %u\nGPU UUID: \t %s\nVideo BIOS: \t %s\n"
                         "Bus Type: \t PCIe\nDMA Size: \t 47 bits\nDMA Mask: \t 0x7fffffffffff\n"
                         "Bus Location: \t %s\nDevice Minor: \t %u\nGPU Firmware: \t %s\n"
                         "GPU Excluded:\t No\n%s",
                         m->name, 100 + i, g->uuid, m->vbios, pci, g->minor, t->s->driver, lines);
        (void) snprintf(path, sizeof path, "proc/driver/nvidia/gpus/%s/power", pci);
        if (r >= 0)
                r = sim_put_text(t->root, path, e,
                                 "Runtime D3 status:          Disabled by default\n"
                                 "Video Memory:               Active\n");
        (void) snprintf(path, sizeof path, "proc/driver/nvidia/gpus/%s/registry", pci);
        return r < 0 ? r : sim_put_text(t->root, path, e, "Binary: \"\"\n");
}

static int access_file(const struct sim_tree *t, const char *path, unsigned minor, unsigned mode,
                       const char *more, struct err *e)
{
        return sim_put_text(t->root, path, e,
                            "DeviceFileMinor: %u\nDeviceFileMode: %u\nDeviceFileModify: 1\n%s",
                            minor, mode, more);
}

static int proc_mig(const struct sim_tree *t, uint32_t i, struct strbuf *minors, struct err *e)
{
        const struct gpu_sim_mig *m = &t->s->migs[i];
        unsigned gpu = t->s->gpus[m->gpu].minor, gi = gpu_sim_cap_minor(gpu, m->gi, GPU_SIM_NONE),
                 ci = gpu_sim_cap_minor(gpu, m->gi, m->ci);
        char path[128], lines[LINES_MAX];
        int r = 0;

        if (!gpu_sim_mig_lines(t->s, i, PREFIX, lines, sizeof lines))
                return err_set(e, -EINVAL, "simulated driver: an instance has too many words");
        (void) snprintf(path, sizeof path, "proc/driver/nvidia/capabilities/gpu%u/mig/gi%u/access",
                        gpu, m->gi);
        if (faccessat(t->root, path, F_OK, 0) < 0) {
                r = access_file(t, path, gi, 0444, "", e);
                strbuf_fmt(minors, "gpu%u/gi%u/access %u\n", gpu, m->gi, gi);
        }
        (void) snprintf(path, sizeof path,
                        "proc/driver/nvidia/capabilities/gpu%u/mig/gi%u/ci%u/access", gpu, m->gi,
                        m->ci);
        strbuf_fmt(minors, "gpu%u/gi%u/ci%u/access %u\n", gpu, m->gi, m->ci, ci);
        return r < 0 ? r : access_file(t, path, ci, 0444, lines, e);
}

static int proc_caps(const struct sim_tree *t, struct err *e)
{
        AUTO(strbuf_done) struct strbuf minors = { 0 };
        int r = access_file(t, "proc/driver/nvidia/capabilities/mig/config", 1, 0400, "", e);

        if (r >= 0)
                r = access_file(t, "proc/driver/nvidia/capabilities/mig/monitor", 2, 0444, "", e);
        strbuf_str(&minors, "config 1\nmonitor 2\n");
        for (uint32_t i = 0; r >= 0 && i < t->s->n_migs; i++)
                r = proc_mig(t, i, &minors, e);
        if (r < 0 || minors.failed)
                return r < 0 ? r : err_set(e, -ENOMEM, "out of memory");
        return sim_put(t->root, 0444, "proc/driver/nvidia-caps/mig-minors", minors.s, minors.len,
                       e);
}

int sim_tree_proc(const struct sim_tree *t, struct err *e)
{
        int r = sim_put_text(
                t->root, "proc/driver/nvidia/version", e,
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  %s  Tue Mar  5 22:23:56 UTC 2024\n"
                "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n" PREFIX
                "driver %s cuda=%s\n",
                t->s->driver, t->s->driver, t->s->cuda);

        if (r >= 0)
                r = sim_put_text(t->root, "proc/driver/nvidia/params", e,
                                 "ResmanDebugLevel: 4294967295\nModifyDeviceFiles: 1\n"
                                 "DeviceFileUID: 0\nDeviceFileGID: 0\nDeviceFileMode: 438\n"
                                 "InitializeSystemMemoryAllocations: 1\nEnableMSI: 1\n"
                                 "EnablePCIeGen3: 0\nMemoryPoolSize: 0\n"
                                 "DynamicPowerManagement: 3\nEnableGpuFirmware: 18\n"
                                 "RegistryDwords: \"\"\nRmMsg: \"\"\nExcludedGpus: \"\"\n");
        if (r >= 0)
                r = sim_put_text(t->root, "proc/driver/nvidia/registry", e, "Binary: \"\"\n");
        if (r >= 0)
                r = sim_put_text(t->root, "proc/devices", e,
                                 "Character devices:\n%3u nvidia\n%3u nvidia-uvm\n"
                                 "%3u nvidia-caps\n\nBlock devices:\n",
                                 t->major[SIM_MAJOR_GPU], t->major[SIM_MAJOR_UVM],
                                 t->major[SIM_MAJOR_CAPS]);
        for (uint32_t i = 0; r >= 0 && i < t->s->n_gpus; i++)
                r = proc_gpu(t, i, e);
        return r < 0 ? r : proc_caps(t, e);
}

/* ---- /sys ---- */

struct function { /* a PCI function: a GPU, its sound, an NVSwitch */
        const char *pci, *driver;
        unsigned class, device, subsystem, numa, bridge, group;
};

/* The CPUs of that node as this machine has it, or all. */
static char *cpus_of(unsigned numa)
{
        char path[64];
        char *text = NULL;

        (void) snprintf(path, sizeof path, "/sys/devices/system/node/node%u/cpulist", numa);
        if (fd_read_file(AT_FDCWD, path, 4096, &text, NULL) < 0)
                (void) fd_read_file(AT_FDCWD, "/sys/devices/system/cpu/online", 4096, &text, NULL);
        return text;
}

static int sys_links(const struct sim_tree *t, const struct function *f, const char *dir,
                     struct err *e)
{
        char path[160], target[160];
        int r;

        (void) snprintf(path, sizeof path, "sys/bus/pci/devices/%s", f->pci);
        (void) snprintf(target, sizeof target, "../../../%s", dir + strlen("sys/"));
        r = sim_link(t->root, target, path, e);
        (void) snprintf(path, sizeof path, "sys/kernel/iommu_groups/%u/devices/%s", f->group,
                        f->pci);
        (void) snprintf(target, sizeof target, "../../../../%s", dir + strlen("sys/"));
        if (r >= 0)
                r = sim_link(t->root, target, path, e);
        (void) snprintf(path, sizeof path, "%s/iommu_group", dir);
        (void) snprintf(target, sizeof target, "../../../kernel/iommu_groups/%u", f->group);
        if (r >= 0)
                r = sim_link(t->root, target, path, e);
        (void) snprintf(path, sizeof path, "sys/bus/pci/drivers/%s", f->driver);
        if (r >= 0)
                r = sim_dir(t->root, path, e);
        (void) snprintf(path, sizeof path, "%s/driver", dir);
        (void) snprintf(target, sizeof target, "../../../bus/pci/drivers/%s", f->driver);
        return r < 0 ? r : sim_link(t->root, target, path, e);
}

static int sys_function(const struct sim_tree *t, const struct function *f, struct err *e)
{
        AUTO(free) char *cpus = cpus_of(f->numa);
        char dir[96], numbers[4][16];
        const struct {
                const char *name, *text;
        } files[] = {
                { "vendor", "0x10de\n" },
                { "device", numbers[0] },
                { "subsystem_vendor", "0x10de\n" },
                { "subsystem_device", numbers[1] },
                { "class", numbers[2] },
                { "revision", "0xa1\n" },
                { "numa_node", numbers[3] },
                { "local_cpulist", cpus ? cpus : "0\n" },
                { "enable", "1\n" },
                { "reset", "" },
                { "reset_method", "bus\n" },
                { "current_link_speed", "16.0 GT/s PCIe\n" },
                { "max_link_speed", "16.0 GT/s PCIe\n" },
                { "current_link_width", "16\n" },
                { "max_link_width", "16\n" },
        };
        int r = 0;

        (void) snprintf(numbers[0], sizeof numbers[0], "0x%04x\n", f->device);
        (void) snprintf(numbers[1], sizeof numbers[1], "0x%04x\n", f->subsystem);
        (void) snprintf(numbers[2], sizeof numbers[2], "0x%06x\n", f->class);
        (void) snprintf(numbers[3], sizeof numbers[3], "%d\n",
                        f->numa == GPU_SIM_NONE ? -1 : (int) f->numa);
        (void) snprintf(dir, sizeof dir, "sys/devices/pci%.4s:%02x/%s", f->pci, f->bridge & 0xff,
                        f->pci);
        for (size_t i = 0; r >= 0 && i < NELEM(files); i++) {
                AUTO(free) char *path = str_fmt("%s/%s", dir, files[i].name);

                r = path ? sim_put_text(t->root, path, e, "%s", files[i].text)
                         : err_set(e, -ENOMEM, "out of memory");
        }
        return r < 0 ? r : sys_links(t, f, dir, e);
}

/* Which nodes below /dev/dri are this GPU's. */
static int sys_drm(const struct sim_tree *t, const struct function *f, uint32_t i, struct err *e)
{
        char path[128];
        int r;

        (void) snprintf(path, sizeof path, "sys/devices/pci%.4s:%02x/%s/drm/card%u", f->pci,
                        f->bridge & 0xff, f->pci, i);
        r = sim_dir(t->root, path, e);
        (void) snprintf(path, sizeof path, "sys/devices/pci%.4s:%02x/%s/drm/renderD%u", f->pci,
                        f->bridge & 0xff, f->pci, 128 + i);
        return r < 0 ? r : sim_dir(t->root, path, e);
}

static int sys_gpu(const struct sim_tree *t, uint32_t i, struct err *e)
{
        const struct gpu_sim_gpu *g = &t->s->gpus[i];
        const struct gpu_sim_model *m = &t->s->models[g->model];
        char pci[16];
        struct function f = { .pci = pci,
                              .driver = "nvidia",
                              .class = m->display ? 0x030000 : 0x030200,
                              .device = m->device,
                              .subsystem = m->subsystem,
                              .numa = g->numa,
                              .bridge = g->bridge == GPU_SIM_NONE ? 0 : g->bridge,
                              .group = 20 + i };
        int r;

        gpu_sim_pci_text(&g->pci, pci);
        r = sys_function(t, &f, e);
        if (r >= 0)
                r = sys_drm(t, &f, i, e);
        if (r < 0 || !m->display)
                return r;
        pci[strlen(pci) - 1] = '1'; /* function 1: the monitor's sound */
        f.driver = "snd_hda_intel";
        f.class = 0x040300;
        f.device = 0x1aef;
        return sys_function(t, &f, e);
}

int sim_tree_sys(const struct sim_tree *t, struct err *e)
{
        int r = 0;

        for (uint32_t i = 0; r >= 0 && i < t->s->n_gpus; i++)
                r = sys_gpu(t, i, e);
        for (unsigned i = 0; r >= 0 && has_fabric(t->s) && i < GPU_SIM_SWITCHES; i++) {
                const struct gpu_sim_pci at = { t->s->gpus[0].pci.domain, 0xf0 + i, 0 };
                char pci[16];
                const struct function f = { .pci = pci,
                                            .driver = "nvidia-nvswitch",
                                            .class = 0x068000,
                                            .device = 0x1af1,
                                            .subsystem = 0x1af1,
                                            .numa = t->s->gpus[0].numa,
                                            .bridge = 0xf0,
                                            .group = 10 + i };

                gpu_sim_pci_text(&at, pci);
                r = sys_function(t, &f, e);
        }
        return r;
}
