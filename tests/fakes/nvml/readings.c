/* readings.c - the calls that measure: what they say is a wave over time, different for each GPU and the
 * same for all who ask, so that displays live and a test can fix what it wants by a fault line. */
#include "fake.h"

#include "base/mem.h"

#define MIB        (1ULL << 20)
#define IDLE_MIB   4U            /* what is in use with nobody there */
#define RUNNING_S  1700000000ULL /* counters began then */
#define LINK_KIB_S 4096ULL       /* average of one NVLink at one percent load */

static uint64_t seed_of(const struct nvml_device *d, uint64_t salt)
{
        return gpu_sim_hash(gpu_of(d)->uuid, salt);
}

/* 0 to 100 and back, in 20 to 60 seconds; in one of four spans of two minutes nothing is done. */
static uint32_t load_pct(const struct nvml_device *d)
{
        const struct fault *f = fault_find(F_UTIL, d, 0);
        uint64_t h = seed_of(d, 1), t = now_ms() + h % 600000, period = (20 + h / 7 % 41) * 1000,
                 phase = t % period * 200 / period;

        if (f)
                return f->a > 100 ? 100 : (uint32_t) f->a;
        if ((t / 120000 + h) % 4 == 0)
                return 0;
        phase = phase > 100 ? 200 - phase : phase;
        return (uint32_t) (phase * (60 + h / 11 % 41) / 100);
}

static uint64_t running_s(void)
{
        uint64_t now = now_ms() / 1000;

        return now > RUNNING_S ? now - RUNNING_S : 0;
}

static uint32_t power_mw(const struct nvml_device *d)
{
        uint32_t limit = model_of(d)->power_w * 1000;

        return limit / 6 + (uint32_t) ((uint64_t) limit * 3 / 4 * load_pct(d) / 100) +
               (uint32_t) (seed_of(d, 2) % 3000);
}

static uint32_t temperature(const struct nvml_device *d)
{
        return (uint32_t) fault_number(F_TEMPERATURE, d,
                                       31 + seed_of(d, 3) % 5 + load_pct(d) * 2 / 5);
}

int nvmlDeviceGetUtilizationRates(struct nvml_device *device, struct nvml_utilization *utilization)
{
        int r = begin_whole("nvmlDeviceGetUtilizationRates", device);

        if (!r && gpu_of(device)->mig)
                r = NVML_NOT_SUPPORTED;
        if (r)
                return r;
        *utilization = (struct nvml_utilization){ load_pct(device), load_pct(device) * 2 / 3 };
        return NVML_SUCCESS;
}

static int coder(const char *call, const struct nvml_device *d, unsigned *pct, unsigned *period_us)
{
        int r = begin_whole(call, d);

        if (r)
                return r;
        *pct = 0;
        *period_us = 167000;
        return NVML_SUCCESS;
}

int nvmlDeviceGetEncoderUtilization(struct nvml_device *device, unsigned *pct, unsigned *period_us)
{
        return coder("nvmlDeviceGetEncoderUtilization", device, pct, period_us);
}

int nvmlDeviceGetDecoderUtilization(struct nvml_device *device, unsigned *pct, unsigned *period_us)
{
        return coder("nvmlDeviceGetDecoderUtilization", device, pct, period_us);
}

int nvmlDeviceGetTemperature(struct nvml_device *device, unsigned sensor, unsigned *celsius)
{
        int r = begin_whole("nvmlDeviceGetTemperature", device);

        if (!r && sensor != NVML_TEMPERATURE_GPU)
                r = NVML_INVALID_ARGUMENT;
        if (!r)
                *celsius = temperature(device);
        return r;
}

/* ---- memory and who uses it ---- */

static uint64_t used_mib(const struct nvml_device *d)
{
        const struct fault *f;
        uint64_t mib = IDLE_MIB;

        for (unsigned i = 0; (f = fault_find(F_LEAK, d, i)); i++)
                mib += f->a;
        for (unsigned i = 0; (f = fault_find(F_PROCESS, d, i)); i++)
                mib += f->b;
        return mib;
}

int nvmlDeviceGetMemoryInfo_v2(struct nvml_device *device, struct nvml_memory_v2 *memory)
{
        int r = begin_device("nvmlDeviceGetMemoryInfo_v2", device);
        uint64_t total, reserved, used;

        if (r)
                return r;
        if (memory->version != NVML_MEMORY_V2)
                return NVML_ARGUMENT_VERSION_MISMATCH;
        total = device->is_mig ? world.sim.migs[device->at].memory_mib
                               : model_of(device)->memory_mib;
        reserved = device->is_mig ? 0 : model_of(device)->reserved_mib;
        used = used_mib(device);
        if (used > total - reserved)
                used = total - reserved;
        memory->total = total * MIB;
        memory->reserved = reserved * MIB;
        memory->used = used * MIB;
        memory->free = (total - reserved - used) * MIB;
        return NVML_SUCCESS;
}

int nvmlDeviceGetMemoryInfo(struct nvml_device *device, struct nvml_memory *memory)
{
        struct nvml_memory_v2 now = { .version = NVML_MEMORY_V2 };
        int r = nvmlDeviceGetMemoryInfo_v2(device, &now);

        if (!r)
                *memory = (struct nvml_memory){ now.total, now.free, now.used + now.reserved };
        return r;
}

int nvmlDeviceGetComputeRunningProcesses_v3(struct nvml_device *device, unsigned *count,
                                            struct nvml_process *list)
{
        int r = begin_device("nvmlDeviceGetComputeRunningProcesses_v3", device);
        unsigned n = 0, room;

        if (r)
                return r;
        while (fault_find(F_PROCESS, device, n))
                n++;
        room = *count;
        *count = n;
        if (n > room || (n && !list))
                return NVML_INSUFFICIENT_SIZE;
        for (unsigned i = 0; i < n; i++) {
                const struct fault *f = fault_find(F_PROCESS, device, i);

                list[i] = (struct nvml_process){ .pid = (uint32_t) f->a,
                                                 .memory = f->b * MIB,
                                                 .gi = UINT32_MAX,
                                                 .ci = UINT32_MAX };
                if (device->is_mig) {
                        list[i].gi = world.sim.migs[device->at].gi;
                        list[i].ci = world.sim.migs[device->at].ci;
                }
        }
        return NVML_SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v2(struct nvml_device *device, unsigned *count,
                                            struct nvml_process *list)
{
        return nvmlDeviceGetComputeRunningProcesses_v3(device, count, list);
}

int nvmlDeviceGetComputeRunningProcesses(struct nvml_device *device, unsigned *count,
                                         struct nvml_process_v1 *list)
{
        struct nvml_process now[FAULTS_MAX];
        unsigned n = FAULTS_MAX, room = *count;
        int r = nvmlDeviceGetComputeRunningProcesses_v3(device, &n, now);

        if (r)
                return r;
        *count = n;
        if (n > room || (n && !list))
                return NVML_INSUFFICIENT_SIZE;
        for (unsigned i = 0; i < n; i++)
                list[i] = (struct nvml_process_v1){ now[i].pid, now[i].memory };
        return NVML_SUCCESS;
}

static int no_graphics(const char *call, const struct nvml_device *d, unsigned *count)
{
        int r = begin_device(call, d);

        if (!r)
                *count = 0;
        return r;
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(struct nvml_device *device, unsigned *count,
                                             struct nvml_process *list)
{
        (void) list;
        return no_graphics("nvmlDeviceGetGraphicsRunningProcesses_v3", device, count);
}

int nvmlDeviceGetGraphicsRunningProcesses_v2(struct nvml_device *device, unsigned *count,
                                             struct nvml_process *list)
{
        (void) list;
        return no_graphics("nvmlDeviceGetGraphicsRunningProcesses_v2", device, count);
}

int nvmlDeviceGetGraphicsRunningProcesses(struct nvml_device *device, unsigned *count,
                                          struct nvml_process_v1 *list)
{
        (void) list;
        return no_graphics("nvmlDeviceGetGraphicsRunningProcesses", device, count);
}

/* ---- errors ---- */

int nvmlDeviceGetEccMode(struct nvml_device *device, unsigned *current, unsigned *pending)
{
        int r = begin_whole("nvmlDeviceGetEccMode", device);

        if (!r && !model_of(device)->ecc)
                r = NVML_NOT_SUPPORTED;
        if (!r)
                *current = *pending = NVML_ENABLED;
        return r;
}

int nvmlDeviceGetTotalEccErrors(struct nvml_device *device, unsigned error_type,
                                unsigned counter_type, uint64_t *count)
{
        int r = begin_whole("nvmlDeviceGetTotalEccErrors", device);

        if (!r && !model_of(device)->ecc)
                r = NVML_NOT_SUPPORTED;
        if (!r && (error_type > NVML_ECC_UNCORRECTED || counter_type > NVML_ECC_AGGREGATE))
                r = NVML_INVALID_ARGUMENT;
        if (!r)
                *count = fault_number(error_type == NVML_ECC_CORRECTED ? F_ECC_CORRECTED : F_ECC,
                                      device, 0);
        return r;
}

int nvmlDeviceGetRemappedRows(struct nvml_device *device, unsigned *correctable,
                              unsigned *uncorrectable, unsigned *pending, unsigned *failed)
{
        int r = begin_whole("nvmlDeviceGetRemappedRows", device);
        const struct fault *f;

        if (!r && !model_of(device)->ecc)
                r = NVML_NOT_SUPPORTED;
        if (r)
                return r;
        f = fault_find(F_REMAP, device, 0);
        *correctable = 0;
        *uncorrectable = f != NULL;
        *pending = f && f->word[0] == 'p';
        *failed = f && f->word[0] == 'f';
        return NVML_SUCCESS;
}

int nvmlDeviceGetRetiredPagesPendingStatus(struct nvml_device *device, unsigned *pending)
{
        int r = begin_whole("nvmlDeviceGetRetiredPagesPendingStatus", device);

        if (!r)
                *pending = fault_find(F_RETIRED, device, 0) ? NVML_ENABLED : NVML_DISABLED;
        return r;
}

/* ---- power, clocks, fans ---- */

int nvmlDeviceGetPowerUsage(struct nvml_device *device, unsigned *mw)
{
        int r = begin_whole("nvmlDeviceGetPowerUsage", device);

        if (!r)
                *mw = power_mw(device);
        return r;
}

int nvmlDeviceGetEnforcedPowerLimit(struct nvml_device *device, unsigned *mw)
{
        int r = begin_whole("nvmlDeviceGetEnforcedPowerLimit", device);

        if (!r)
                *mw = model_of(device)->power_w * 1000;
        return r;
}

int nvmlDeviceGetPowerManagementLimit(struct nvml_device *device, unsigned *mw)
{
        return nvmlDeviceGetEnforcedPowerLimit(device, mw);
}

/* At half load since the counters began: never falls. */
int nvmlDeviceGetTotalEnergyConsumption(struct nvml_device *device, uint64_t *mj)
{
        int r = begin_whole("nvmlDeviceGetTotalEnergyConsumption", device);

        if (!r)
                *mj = running_s() * model_of(device)->power_w * 500;
        return r;
}

int nvmlDeviceGetClockInfo(struct nvml_device *device, unsigned clock, unsigned *mhz)
{
        int r = begin_whole("nvmlDeviceGetClockInfo", device);
        uint32_t top = 0;

        if (r)
                return r;
        if (clock > NVML_CLOCK_VIDEO)
                return NVML_INVALID_ARGUMENT;
        top = clock == NVML_CLOCK_MEM ? model_of(device)->mem_mhz : model_of(device)->sm_mhz;
        *mhz = load_pct(device) || clock == NVML_CLOCK_MEM ? top : 210;
        return NVML_SUCCESS;
}

int nvmlDeviceGetPerformanceState(struct nvml_device *device, unsigned *pstate)
{
        int r = begin_whole("nvmlDeviceGetPerformanceState", device);

        if (!r)
                *pstate = load_pct(device) || !model_of(device)->display ? 0 : 8;
        return r;
}

int nvmlDeviceGetFanSpeed(struct nvml_device *device, unsigned *pct)
{
        int r = begin_whole("nvmlDeviceGetFanSpeed", device);

        if (!r && !model_of(device)->fan)
                r = NVML_NOT_SUPPORTED;
        if (!r)
                *pct = 30 + load_pct(device) / 2;
        return r;
}

static int reasons_of(const char *call, const struct nvml_device *d, uint64_t *reasons)
{
        int r = begin_whole(call, d);

        if (!r)
                *reasons =
                        fault_number(F_THROTTLE, d, load_pct(d) ? 0 : (uint64_t) NVML_REASON_IDLE);
        return r;
}

int nvmlDeviceGetCurrentClocksEventReasons(struct nvml_device *device, uint64_t *reasons)
{
        return reasons_of("nvmlDeviceGetCurrentClocksEventReasons", device, reasons);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(struct nvml_device *device, uint64_t *reasons)
{
        return reasons_of("nvmlDeviceGetCurrentClocksThrottleReasons", device, reasons);
}

/* ---- traffic ---- */

int nvmlDeviceGetPcieThroughput(struct nvml_device *device, unsigned counter, unsigned *kib_s)
{
        int r = begin_whole("nvmlDeviceGetPcieThroughput", device);

        if (!r && counter > NVML_PCIE_RX)
                r = NVML_INVALID_ARGUMENT;
        if (!r)
                *kib_s = 500 + load_pct(device) * (counter == NVML_PCIE_RX ? 40000 : 12000);
        return r;
}

int nvmlDeviceGetPcieReplayCounter(struct nvml_device *device, unsigned *count)
{
        int r = begin_whole("nvmlDeviceGetPcieReplayCounter", device);

        if (!r)
                *count = 0;
        return r;
}

static void field_value(const struct nvml_device *d, struct nvml_field *f)
{
        const struct gpu_sim_model *m = model_of(d);
        uint64_t links = f->scope == NVML_SCOPE_ALL ? m->links : 1;

        f->timestamp_us = (int64_t) now_ms() * 1000;
        f->latency_us = 0;
        f->ret = NVML_SUCCESS;
        f->value_type = NVML_VALUE_UINT;
        f->value.u64 = 0;
        switch (f->field) {
        case NVML_FI_MEMORY_TEMPERATURE:
                f->value.u32 = temperature(d) + 6;
                if (m->display && !m->ecc)
                        f->ret = NVML_NOT_SUPPORTED;
                return;
        case NVML_FI_NVLINK_DATA_TX:
        case NVML_FI_NVLINK_DATA_RX:
                f->value_type = NVML_VALUE_ULLONG;
                f->value.u64 = running_s() * links * LINK_KIB_S * 50;
                if (!m->links)
                        f->ret = NVML_NOT_SUPPORTED;
                else if (f->scope != NVML_SCOPE_ALL && f->scope >= m->links)
                        f->ret = NVML_INVALID_ARGUMENT;
                return;
        case NVML_FI_POWER_INSTANT:
                f->value.u32 = power_mw(d);
                return;
        default:
                f->ret = NVML_NOT_SUPPORTED;
        }
}

int nvmlDeviceGetFieldValues(struct nvml_device *device, int count, struct nvml_field *values)
{
        int r = begin_whole("nvmlDeviceGetFieldValues", device);

        if (!r && (count < 0 || (count && !values)))
                r = NVML_INVALID_ARGUMENT;
        for (int i = 0; !r && i < count; i++)
                field_value(device, &values[i]);
        return r;
}
