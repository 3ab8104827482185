/* smi_query.c - the stand-in's nvidia-smi for programs: --query-gpu as a table of fields. */
#include "smi.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/str.h"

#define MIB        (1ULL << 20)
#define FIELDS_MAX 64U

/* Each writes the value without its unit; false: the GPU has no such thing. */
typedef bool field_fn(struct nvml_device *d, char *to, unsigned size);

static bool put(char *to, unsigned size, unsigned long long v)
{
        (void) snprintf(to, size, "%llu", v);
        return true;
}

static bool watts(char *to, unsigned size, unsigned mw)
{
        (void) snprintf(to, size, "%u.%02u", mw / 1000, mw % 1000 / 10);
        return true;
}

static bool f_name(struct nvml_device *d, char *to, unsigned size)
{
        return nvmlDeviceGetName(d, to, size) == NVML_SUCCESS;
}

static bool f_uuid(struct nvml_device *d, char *to, unsigned size)
{
        return nvmlDeviceGetUUID(d, to, size) == NVML_SUCCESS;
}

static bool f_index(struct nvml_device *d, char *to, unsigned size)
{
        unsigned v;

        return nvmlDeviceGetIndex(d, &v) == NVML_SUCCESS && put(to, size, v);
}

static bool f_count(struct nvml_device *d, char *to, unsigned size)
{
        unsigned v;

        (void) d;
        return nvmlDeviceGetCount_v2(&v) == NVML_SUCCESS && put(to, size, v);
}

static bool f_driver(struct nvml_device *d, char *to, unsigned size)
{
        (void) d;
        return nvmlSystemGetDriverVersion(to, size) == NVML_SUCCESS;
}

static bool f_pci(struct nvml_device *d, char *to, unsigned size)
{
        struct nvml_pci pci;

        if (nvmlDeviceGetPciInfo_v3(d, &pci) != NVML_SUCCESS)
                return false;
        (void) snprintf(to, size, "%s", pci.bus_id);
        return true;
}

static bool f_serial(struct nvml_device *d, char *to, unsigned size)
{
        return nvmlDeviceGetSerial(d, to, size) == NVML_SUCCESS;
}

static bool f_vbios(struct nvml_device *d, char *to, unsigned size)
{
        return nvmlDeviceGetVbiosVersion(d, to, size) == NVML_SUCCESS;
}

static bool f_inforom(struct nvml_device *d, char *to, unsigned size)
{
        return nvmlDeviceGetInforomImageVersion(d, to, size) == NVML_SUCCESS;
}

static struct nvml_memory_v2 memory_of(struct nvml_device *d)
{
        struct nvml_memory_v2 m = { .version = NVML_MEMORY_V2 };

        (void) nvmlDeviceGetMemoryInfo_v2(d, &m);
        return m;
}

static bool f_total(struct nvml_device *d, char *to, unsigned size)
{
        return put(to, size, memory_of(d).total / MIB);
}

static bool f_used(struct nvml_device *d, char *to, unsigned size)
{
        return put(to, size, memory_of(d).used / MIB);
}

static bool f_free(struct nvml_device *d, char *to, unsigned size)
{
        return put(to, size, memory_of(d).free / MIB);
}

static bool f_reserved(struct nvml_device *d, char *to, unsigned size)
{
        return put(to, size, memory_of(d).reserved / MIB);
}

static bool f_util(struct nvml_device *d, char *to, unsigned size)
{
        struct nvml_utilization u;

        return nvmlDeviceGetUtilizationRates(d, &u) == NVML_SUCCESS && put(to, size, u.gpu);
}

static bool f_mem_util(struct nvml_device *d, char *to, unsigned size)
{
        struct nvml_utilization u;

        return nvmlDeviceGetUtilizationRates(d, &u) == NVML_SUCCESS && put(to, size, u.memory);
}

static bool f_temp(struct nvml_device *d, char *to, unsigned size)
{
        unsigned v;

        return nvmlDeviceGetTemperature(d, NVML_TEMPERATURE_GPU, &v) == NVML_SUCCESS &&
               put(to, size, v);
}

static bool f_power(struct nvml_device *d, char *to, unsigned size)
{
        unsigned v;

        return nvmlDeviceGetPowerUsage(d, &v) == NVML_SUCCESS && watts(to, size, v);
}

static bool f_limit(struct nvml_device *d, char *to, unsigned size)
{
        unsigned v;

        return nvmlDeviceGetEnforcedPowerLimit(d, &v) == NVML_SUCCESS && watts(to, size, v);
}

static bool f_sm(struct nvml_device *d, char *to, unsigned size)
{
        unsigned v;

        return nvmlDeviceGetClockInfo(d, NVML_CLOCK_SM, &v) == NVML_SUCCESS && put(to, size, v);
}

static bool f_mem(struct nvml_device *d, char *to, unsigned size)
{
        unsigned v;

        return nvmlDeviceGetClockInfo(d, NVML_CLOCK_MEM, &v) == NVML_SUCCESS && put(to, size, v);
}

static bool f_pstate(struct nvml_device *d, char *to, unsigned size)
{
        unsigned v;

        if (nvmlDeviceGetPerformanceState(d, &v) != NVML_SUCCESS)
                return false;
        (void) snprintf(to, size, "P%u", v);
        return true;
}

static bool f_fan(struct nvml_device *d, char *to, unsigned size)
{
        unsigned v;

        return nvmlDeviceGetFanSpeed(d, &v) == NVML_SUCCESS && put(to, size, v);
}

static bool f_ecc_mode(struct nvml_device *d, char *to, unsigned size)
{
        unsigned v, pending;

        if (nvmlDeviceGetEccMode(d, &v, &pending) != NVML_SUCCESS)
                return false;
        (void) snprintf(to, size, v ? "Enabled" : "Disabled");
        return true;
}

static bool f_ecc(struct nvml_device *d, char *to, unsigned size)
{
        uint64_t v;

        return nvmlDeviceGetTotalEccErrors(d, NVML_ECC_UNCORRECTED, NVML_ECC_VOLATILE, &v) ==
                       NVML_SUCCESS &&
               put(to, size, v);
}

static bool f_mig(struct nvml_device *d, char *to, unsigned size)
{
        unsigned v, pending;

        if (nvmlDeviceGetMigMode(d, &v, &pending) != NVML_SUCCESS)
                return false;
        (void) snprintf(to, size, v ? "Enabled" : "Disabled");
        return true;
}

static bool f_time(struct nvml_device *d, char *to, unsigned size)
{
        time_t now = time(NULL);
        struct tm tm;

        (void) d;
        return gmtime_r(&now, &tm) && strftime(to, size, "%Y/%m/%d %H:%M:%S.000", &tm) > 0;
}

static const struct field {
        const char *name, *unit;
        field_fn *get;
} fields[] = {
        { "timestamp", NULL, f_time },
        { "name", NULL, f_name },
        { "gpu_name", NULL, f_name },
        { "uuid", NULL, f_uuid },
        { "gpu_uuid", NULL, f_uuid },
        { "index", NULL, f_index },
        { "count", NULL, f_count },
        { "driver_version", NULL, f_driver },
        { "pci.bus_id", NULL, f_pci },
        { "gpu_bus_id", NULL, f_pci },
        { "serial", NULL, f_serial },
        { "gpu_serial", NULL, f_serial },
        { "vbios_version", NULL, f_vbios },
        { "inforom.img", NULL, f_inforom },
        { "memory.total", "MiB", f_total },
        { "memory.reserved", "MiB", f_reserved },
        { "memory.used", "MiB", f_used },
        { "memory.free", "MiB", f_free },
        { "utilization.gpu", "%", f_util },
        { "utilization.memory", "%", f_mem_util },
        { "temperature.gpu", NULL, f_temp },
        { "power.draw", "W", f_power },
        { "power.limit", "W", f_limit },
        { "clocks.sm", "MHz", f_sm },
        { "clocks.current.sm", "MHz", f_sm },
        { "clocks.gr", "MHz", f_sm },
        { "clocks.mem", "MHz", f_mem },
        { "clocks.current.memory", "MHz", f_mem },
        { "pstate", NULL, f_pstate },
        { "fan.speed", "%", f_fan },
        { "ecc.mode.current", NULL, f_ecc_mode },
        { "ecc.errors.uncorrected.volatile.total", NULL, f_ecc },
        { "mig.mode.current", NULL, f_mig },
};

static bool has_word(const char *list, const char *word)
{
        size_t n = strlen(word);

        for (const char *p = list; *p;) {
                size_t len = strcspn(p, ",");

                if (len == n && strncmp(p, word, n) == 0)
                        return true;
                p += len + (p[len] == ',');
        }
        return false;
}

static int choose(const char *list, const struct field *ret[static FIELDS_MAX], size_t *ret_n)
{
        size_t n = 0;

        for (const char *p = list; *p;) {
                size_t len = strcspn(p, ","), i = 0;

                while (i < NELEM(fields) &&
                       (strlen(fields[i].name) != len || strncmp(fields[i].name, p, len) != 0))
                        i++;
                if (i == NELEM(fields) || n == FIELDS_MAX) {
                        (void) fprintf(stderr, "Field \"%.*s\" is not a valid field to query.\n",
                                       (int) len, p);
                        return -1;
                }
                ret[n++] = &fields[i];
                p += len + (p[len] == ',');
                p += strspn(p, " ");
        }
        *ret_n = n;
        return n ? 0 : -1;
}

int smi_query(const struct smi_list *l, const char *list, const char *format)
{
        bool units = !has_word(format, "nounits");
        const struct field *use[FIELDS_MAX];
        size_t n = 0;

        if (!has_word(format, "csv")) {
                (void) fprintf(stderr, "nvidia-smi (simulated): --format must contain csv\n");
                return 2;
        }
        if (choose(list, use, &n) < 0)
                return 2;
        for (size_t i = 0; i < n && !has_word(format, "noheader"); i++)
                (void) printf("%s%s%s%s%s", use[i]->name, units && use[i]->unit ? " [" : "",
                              units && use[i]->unit ? use[i]->unit : "",
                              units && use[i]->unit ? "]" : "", i + 1 < n ? ", " : "\n");
        for (unsigned g = 0; g < l->n; g++)
                for (size_t i = 0; i < n; i++) {
                        char text[128] = "";
                        bool ok = use[i]->get(l->gpus[g], text, sizeof text);

                        (void) printf("%s%s%s%s", ok ? text : "[N/A]",
                                      ok && units && use[i]->unit ? " " : "",
                                      ok && units && use[i]->unit ? use[i]->unit : "",
                                      i + 1 < n ? ", " : "\n");
                }
        return 0;
}
