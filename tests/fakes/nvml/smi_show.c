/* smi_show.c - the stand-in's nvidia-smi for people: table, list, topology matrix. */
#include "smi.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"

#define MIB (1ULL << 20)

/* ---- the table ---- */

static void line(const char *left, char fill, const char *mid, const char *right)
{
        static const int widths[] = { 41, 24, 22 };

        (void) fputs(left, stdout);
        for (size_t i = 0; i < NELEM(widths); i++) {
                for (int k = 0; k < widths[i]; k++)
                        (void) putchar(fill);
                (void) fputs(i + 1 < NELEM(widths) ? mid : right, stdout);
        }
        (void) putchar('\n');
}

static void head(void)
{
        char driver[NVML_VERSION_MAX] = "", title[128], stamp[64] = "";
        time_t now = time(NULL);
        struct tm tm;
        int cuda = 0;
        char version[16];

        (void) nvmlSystemGetDriverVersion(driver, sizeof driver);
        (void) nvmlSystemGetCudaDriverVersion_v2(&cuda);
        if (gmtime_r(&now, &tm))
                (void) strftime(stamp, sizeof stamp, "%a %b %e %H:%M:%S %Y", &tm);
        (void) snprintf(title, sizeof title, "NVIDIA-SMI %s (simulated)", driver);
        (void) snprintf(version, sizeof version, "%d.%d", cuda / 1000, cuda % 1000 / 10);
        (void) printf("%s\n", stamp);
        line("+", '-', "-", "+");
        (void) printf("| %-33s Driver Version: %-14s CUDA Version: %-8s |\n", title, driver,
                      version);
        line("|", '-', "+", "+");
        (void) printf("| %-39s | %-22s | %20s |\n", "GPU  Name                 Persistence-M",
                      "Bus-Id          Disp.A", "Volatile Uncorr. ECC");
        (void) printf("| %-39s | %22s | %20s |\n", "Fan  Temp   Perf          Pwr:Usage/Cap",
                      "Memory-Usage", "GPU-Util  Compute M.");
        (void) printf("| %-39s | %-22s | %20s |\n", "", "", "MIG M.");
        line("|", '=', "+", "|");
}

static void row(struct nvml_device *d)
{
        char name[NVML_NAME_MAX] = "", fan[16] = "N/A", left[64], right[32], mid[48];
        struct nvml_memory_v2 mem = { .version = NVML_MEMORY_V2 };
        struct nvml_utilization util = { 0, 0 };
        struct nvml_pci pci = { .domain = 0 };
        unsigned index = 0, temp = 0, pstate = 0, mw = 0, limit = 0, pct, mode = 0, pending;
        uint64_t ecc = 0;
        bool has_ecc, has_mig, has_util;

        (void) nvmlDeviceGetIndex(d, &index);
        (void) nvmlDeviceGetName(d, name, sizeof name);
        (void) nvmlDeviceGetPciInfo_v3(d, &pci);
        (void) nvmlDeviceGetTemperature(d, NVML_TEMPERATURE_GPU, &temp);
        (void) nvmlDeviceGetPerformanceState(d, &pstate);
        (void) nvmlDeviceGetPowerUsage(d, &mw);
        (void) nvmlDeviceGetEnforcedPowerLimit(d, &limit);
        (void) nvmlDeviceGetMemoryInfo_v2(d, &mem);
        if (nvmlDeviceGetFanSpeed(d, &pct) == NVML_SUCCESS)
                (void) snprintf(fan, sizeof fan, "%2u%%", pct);
        has_ecc = nvmlDeviceGetTotalEccErrors(d, NVML_ECC_UNCORRECTED, NVML_ECC_VOLATILE, &ecc) ==
                  NVML_SUCCESS;
        has_mig = nvmlDeviceGetMigMode(d, &mode, &pending) == NVML_SUCCESS;
        has_util = nvmlDeviceGetUtilizationRates(d, &util) == NVML_SUCCESS;
        (void) snprintf(left, sizeof left, "%3u  %-27.27s    On", index, name);
        (void) snprintf(right, sizeof right, "%llu", (unsigned long long) ecc);
        (void) printf("| %-39s |   %-16s Off | %20s |\n", left, pci.bus_id,
                      has_ecc ? right : "N/A");
        (void) snprintf(left, sizeof left, "%-3s  %3uC    P%-2u          %4uW / %4uW", fan, temp,
                        pstate, mw / 1000, limit / 1000);
        (void) snprintf(mid, sizeof mid, "%7lluMiB / %6lluMiB",
                        (unsigned long long) (mem.used / MIB),
                        (unsigned long long) (mem.total / MIB));
        if (has_util)
                (void) snprintf(right, sizeof right, "%3u%%      Default", util.gpu);
        else
                (void) snprintf(right, sizeof right, " N/A      Default");
        (void) printf("| %-39s | %22s | %20s |\n", left, mid, right);
        (void) printf("| %-39s | %-22s | %20s |\n", "", "",
                      !has_mig ? "N/A"
                      : mode   ? "Enabled"
                               : "Disabled");
        line("+", '-', "+", "+");
}

static void processes(const struct smi_list *l)
{
        unsigned shown = 0;

        (void) puts("\nProcesses (simulated):\n  GPU       PID   GPU Memory");
        for (unsigned i = 0; i < l->n; i++) {
                struct nvml_process list[FAULTS_MAX];
                unsigned n = FAULTS_MAX, index = 0;

                (void) nvmlDeviceGetIndex(l->gpus[i], &index);
                if (nvmlDeviceGetComputeRunningProcesses_v3(l->gpus[i], &n, list) != NVML_SUCCESS)
                        continue;
                for (unsigned k = 0; k < n; k++, shown++)
                        (void) printf("  %3u  %8u   %7llu MiB\n", index, list[k].pid,
                                      (unsigned long long) (list[k].memory / MIB));
        }
        if (!shown)
                (void) puts("  none");
}

int smi_table(const struct smi_list *l)
{
        head();
        for (unsigned i = 0; i < l->n; i++)
                row(l->gpus[i]);
        processes(l);
        return 0;
}

/* ---- -L ---- */

int smi_names(const struct smi_list *l)
{
        for (unsigned i = 0; i < l->n; i++) {
                char name[NVML_NAME_MAX] = "", uuid[NVML_UUID_MAX] = "";
                struct nvml_device *mig;
                unsigned index = 0;

                (void) nvmlDeviceGetIndex(l->gpus[i], &index);
                (void) nvmlDeviceGetName(l->gpus[i], name, sizeof name);
                (void) nvmlDeviceGetUUID(l->gpus[i], uuid, sizeof uuid);
                (void) printf("GPU %u: %s (UUID: %s) (simulated)\n", index, name, uuid);
                for (unsigned k = 0;
                     nvmlDeviceGetMigDeviceHandleByIndex(l->gpus[i], k, &mig) == NVML_SUCCESS;
                     k++) {
                        (void) nvmlDeviceGetUUID(mig, uuid, sizeof uuid);
                        (void) printf("  MIG %-12s Device %2u: (UUID: %s) (simulated)\n",
                                      world.sim.migs[mig->at].profile, k, uuid);
                }
        }
        return 0;
}

/* ---- topo -m ---- */

static void link_text(struct nvml_device *a, struct nvml_device *b, char ret[static 16])
{
        static const struct {
                unsigned level;
                const char *name;
        } paths[] = { { NVML_TOPOLOGY_SINGLE, "PIX" },
                      { NVML_TOPOLOGY_MULTIPLE, "PXB" },
                      { NVML_TOPOLOGY_HOSTBRIDGE, "PHB" },
                      { NVML_TOPOLOGY_NODE, "NODE" } };
        uint32_t links = gpu_sim_nvlinks(&world.sim, gpu_of(a), gpu_of(b));
        unsigned level = NVML_TOPOLOGY_SYSTEM;
        const char *name = "SYS";

        (void) nvmlDeviceGetTopologyCommonAncestor(a, b, &level);
        for (size_t i = 0; i < NELEM(paths); i++)
                if (paths[i].level == level)
                        name = paths[i].name;
        if (a == b)
                (void) snprintf(ret, 16, " X ");
        else if (links)
                (void) snprintf(ret, 16, "NV%u", links);
        else
                (void) snprintf(ret, 16, "%s", name);
}

static void affinity(const struct nvml_device *d, char *buf, size_t size)
{
        char pci[16], path[80];
        ssize_t n;
        int fd;

        gpu_sim_pci_text(&gpu_of(d)->pci, pci);
        (void) snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/local_cpulist", pci);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? 0 : read(fd, buf, size - 1);
        if (fd >= 0)
                (void) close(fd);
        buf[n > 0 ? n : 0] = '\0';
        buf[strcspn(buf, "\n")] = '\0';
        if (!*buf)
                (void) snprintf(buf, size, "N/A");
}

int smi_topology(const struct smi_list *l)
{
        for (unsigned i = 0; i < l->n; i++)
                (void) printf("\tGPU%u", i);
        (void) puts("\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID");
        for (unsigned i = 0; i < l->n; i++) {
                char cpus[64], text[16], node[16] = "N/A";
                uint32_t numa = gpu_of(l->gpus[i])->numa;

                (void) printf("GPU%u", i);
                for (unsigned k = 0; k < l->n; k++) {
                        link_text(l->gpus[i], l->gpus[k], text);
                        (void) printf("\t%s", text);
                }
                affinity(l->gpus[i], cpus, sizeof cpus);
                if (numa != GPU_SIM_NONE)
                        (void) snprintf(node, sizeof node, "%u", numa);
                (void) printf("\t%s\t%s\t\tN/A\n", cpus, node);
        }
        (void) puts("\nLegend (simulated):\n\n  X    = Self\n  SYS  = across NUMA nodes\n"
                    "  NODE = across PCIe host bridges of one NUMA node\n"
                    "  PHB  = across one PCIe host bridge\n  PXB  = across several PCIe switches\n"
                    "  PIX  = across one PCIe switch\n  NV#  = by # NVLinks");
        return 0;
}
