/* metrics.c - what is measured of every GPU once a second.
 *
 * The library measures PCIe traffic by looking twice, 20 ms apart, for each direction.  So only so many
 * GPUs are asked in one second, in turn, that the second is not full; the others say what was measured
 * last. */
#include <string.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "gpu/gpud.h"

#define MIB           (1ULL << 20)
#define PCIE_A_SECOND 12U

typedef int number_fn(struct nvml_device *device, unsigned *ret);

/* one number each, as it comes */
static const struct {
        enum gpu_metric metric;
        size_t off; /* of a number_fn */
} numbers[] = {
        { GM_POWER_MW, offsetof(struct nvml_calls, nvmlDeviceGetPowerUsage) },
        { GM_POWER_LIMIT_MW, offsetof(struct nvml_calls, nvmlDeviceGetEnforcedPowerLimit) },
        { GM_FAN_PCT, offsetof(struct nvml_calls, nvmlDeviceGetFanSpeed) },
        { GM_PCIE_REPLAYS, offsetof(struct nvml_calls, nvmlDeviceGetPcieReplayCounter) },
};

static const struct {
        enum gpu_metric metric;
        unsigned clock;
} clocks[] = { { GM_SM_CLOCK_MHZ, NVML_CLOCK_SM }, { GM_MEM_CLOCK_MHZ, NVML_CLOCK_MEM } };

static const struct {
        enum gpu_metric metric;
        unsigned type;
} ecc[] = { { GM_ECC_CORRECTED, NVML_ECC_CORRECTED },
            { GM_ECC_UNCORRECTED, NVML_ECC_UNCORRECTED } };

static void use(struct gpud *d, struct gpud_dev *dev, struct gpu_telemetry *t)
{
        struct nvml_utilization u;
        unsigned pct, period;

        gpud_at(d, dev->info.uuid, "nvmlDeviceGetUtilizationRates");
        if (gpud_ok(d, dev, NVML(&d->nv, nvmlDeviceGetUtilizationRates, dev->handle, &u))) {
                t->value[GM_UTIL_PCT] = u.gpu;
                t->value[GM_MEM_UTIL_PCT] = u.memory;
        }
        if (gpud_ok(d, dev,
                    NVML(&d->nv, nvmlDeviceGetEncoderUtilization, dev->handle, &pct, &period)))
                t->value[GM_ENC_UTIL_PCT] = pct;
        if (gpud_ok(d, dev,
                    NVML(&d->nv, nvmlDeviceGetDecoderUtilization, dev->handle, &pct, &period)))
                t->value[GM_DEC_UTIL_PCT] = pct;
}

static void memory(struct gpud *d, struct gpud_dev *dev, struct gpu_telemetry *t)
{
        struct nvml_memory_v2 m;

        gpud_at(d, dev->info.uuid, "nvmlDeviceGetMemoryInfo");
        if (!gpud_ok(d, dev, nvml_memory(&d->nv, dev->handle, &m)))
                return;
        t->value[GM_MEMORY_USED_MIB] = m.used / MIB;
        t->value[GM_MEMORY_TOTAL_MIB] = m.total / MIB;
        if (m.reserved != UINT64_MAX)
                t->value[GM_MEMORY_RESERVED_MIB] = m.reserved / MIB;
}

static void sensors(struct gpud *d, struct gpud_dev *dev, struct gpu_telemetry *t)
{
        unsigned v;
        uint64_t mj;

        gpud_at(d, dev->info.uuid, "nvmlDeviceGetPowerUsage");
        for (size_t i = 0; i < NELEM(numbers); i++) {
                number_fn *fn;

                memcpy(&fn, (const char *) &d->nv.f + numbers[i].off, sizeof fn);
                if (fn && gpud_ok(d, dev, fn(dev->handle, &v)))
                        t->value[numbers[i].metric] = v;
        }
        for (size_t i = 0; i < NELEM(clocks); i++)
                if (gpud_ok(d, dev,
                            NVML(&d->nv, nvmlDeviceGetClockInfo, dev->handle, clocks[i].clock, &v)))
                        t->value[clocks[i].metric] = v;
        if (gpud_ok(d, dev,
                    NVML(&d->nv, nvmlDeviceGetTemperature, dev->handle, NVML_TEMPERATURE_GPU, &v)))
                t->value[GM_TEMPERATURE_C] = v;
        if (gpud_ok(d, dev, NVML(&d->nv, nvmlDeviceGetPerformanceState, dev->handle, &v)) &&
            v < NVML_PSTATE_UNKNOWN)
                t->value[GM_PSTATE] = v;
        if (gpud_ok(d, dev, NVML(&d->nv, nvmlDeviceGetTotalEnergyConsumption, dev->handle, &mj)))
                t->value[GM_ENERGY_MJ] = mj;
        if (gpud_ok(d, dev, nvml_clock_reasons(&d->nv, dev->handle, &mj))) {
                t->value[GM_THROTTLE] = mj;
                gpud_note_throttle(d, dev, mj);
        }
}

static uint64_t field_value(const struct nvml_field *f)
{
        switch (f->value_type) {
        case NVML_VALUE_UINT:
                return f->value.u32;
        case NVML_VALUE_ULONG:
        case NVML_VALUE_ULLONG:
                return f->value.u64;
        default:
                return GPU_UNKNOWN;
        }
}

/* Counters become a rate; one that has gone backwards was begun anew. */
static uint64_t rate_kib_s(uint64_t was, uint64_t now, uint64_t us)
{
        return was == GPU_UNKNOWN || now == GPU_UNKNOWN || now < was || !us
                       ? GPU_UNKNOWN
                       : (uint64_t) ((double) (now - was) * (double) US_PER_S / (double) us);
}

static void fields(struct gpud *d, struct gpud_dev *dev, struct gpu_telemetry *t)
{
        struct nvml_field f[] = { { .field = NVML_FI_MEMORY_TEMPERATURE },
                                  { .field = NVML_FI_NVLINK_DATA_TX, .scope = NVML_SCOPE_ALL },
                                  { .field = NVML_FI_NVLINK_DATA_RX, .scope = NVML_SCOPE_ALL } };
        uint64_t v[NELEM(f)], now = clock_mono_us();
        struct gpud_memory *m = dev->memory;

        gpud_at(d, dev->info.uuid, "nvmlDeviceGetFieldValues");
        if (!gpud_ok(d, dev,
                     NVML(&d->nv, nvmlDeviceGetFieldValues, dev->handle, (int) NELEM(f), f)))
                return;
        for (size_t i = 0; i < NELEM(f); i++)
                v[i] = f[i].ret == NVML_SUCCESS ? field_value(&f[i]) : GPU_UNKNOWN;
        t->value[GM_MEMORY_TEMPERATURE_C] = v[0];
        if (m->nvlink_at_us) {
                uint64_t us = now - m->nvlink_at_us;

                t->value[GM_NVLINK_TX_KIB_S] = rate_kib_s(m->nvlink_kib[0], v[1], us);
                t->value[GM_NVLINK_RX_KIB_S] = rate_kib_s(m->nvlink_kib[1], v[2], us);
        }
        m->nvlink_kib[0] = v[1];
        m->nvlink_kib[1] = v[2];
        m->nvlink_at_us = now;
}

static void pcie(struct gpud *d, struct gpud_dev *dev, bool its_turn, struct gpu_telemetry *t)
{
        uint64_t *last = dev->memory->pcie_kib_s;
        unsigned v;

        if (its_turn) {
                gpud_at(d, dev->info.uuid, "nvmlDeviceGetPcieThroughput");
                last[0] = last[1] = GPU_UNKNOWN;
                if (gpud_ok(d, dev,
                            NVML(&d->nv, nvmlDeviceGetPcieThroughput, dev->handle, NVML_PCIE_TX,
                                 &v)))
                        last[0] = v;
                if (gpud_ok(d, dev,
                            NVML(&d->nv, nvmlDeviceGetPcieThroughput, dev->handle, NVML_PCIE_RX,
                                 &v)))
                        last[1] = v;
        }
        t->value[GM_PCIE_TX_KIB_S] = last[0];
        t->value[GM_PCIE_RX_KIB_S] = last[1];
}

static void errors(struct gpud *d, struct gpud_dev *dev, struct gpu_telemetry *t)
{
        unsigned good, bad, pending, failed;
        uint64_t v;

        gpud_at(d, dev->info.uuid, "nvmlDeviceGetTotalEccErrors");
        for (size_t i = 0; i < NELEM(ecc); i++)
                if (gpud_ok(d, dev,
                            NVML(&d->nv, nvmlDeviceGetTotalEccErrors, dev->handle, ecc[i].type,
                                 NVML_ECC_VOLATILE, &v)))
                        t->value[ecc[i].metric] = v;
        t->value[GM_XID] = d->devs[dev->whole].memory->xid;
        if (!gpud_ok(d, dev,
                     NVML(&d->nv, nvmlDeviceGetRemappedRows, dev->handle, &good, &bad, &pending,
                          &failed)))
                return;
        t->value[GM_REMAPPED_CORRECTABLE] = good;
        t->value[GM_REMAPPED_UNCORRECTABLE] = bad;
        t->value[GM_REMAP_PENDING] = pending != 0;
        t->value[GM_REMAP_FAILED] = failed != 0;
        d->rescan = d->rescan || dev->remap_pending != (pending != 0) ||
                    dev->remap_failed != (failed != 0);
        dev->remap_pending = pending != 0;
        dev->remap_failed = failed != 0;
}

static void processes(struct gpud *d, struct gpud_dev *dev, struct gpu_telemetry *t)
{
        struct nvml_process list[256];
        unsigned n;

        gpud_at(d, dev->info.uuid, "nvmlDeviceGetComputeRunningProcesses");
        if (gpud_ok(d, dev, nvml_processes(&d->nv, dev->handle, list, NELEM(list), &n)))
                t->value[GM_PROCESSES] = n;
}

static void measure_one(struct gpud *d, size_t i, struct gpu_telemetry *t)
{
        struct gpud_dev *dev = &d->devs[i];
        int trouble = dev->trouble;
        bool its_turn = d->n <= PCIE_A_SECOND || (i + d->n - d->pcie_next) % d->n < PCIE_A_SECOND;

        gpu_telemetry_init(t, dev->info.uuid);
        if (d->devs[dev->whole].trouble == NVML_GPU_IS_LOST)
                return;
        if (dev->whole == i)
                dev->trouble = NVML_SUCCESS; /* unless it says so again */
        use(d, dev, t);
        memory(d, dev, t);
        sensors(d, dev, t);
        fields(d, dev, t);
        if (dev->whole == i)
                pcie(d, dev, its_turn, t);
        errors(d, dev, t);
        processes(d, dev, t);
        d->rescan = d->rescan || (dev->whole == i && dev->trouble != trouble);
}

void gpud_measure(struct gpud *d)
{
        json_t *list = json_array();

        for (size_t i = 0; i < d->n; i++) {
                struct gpu_telemetry t;

                measure_one(d, i, &t);
                (void) json_array_append_new(list, gpu_telemetry_encode(&t));
        }
        d->pcie_next = d->n ? (d->pcie_next + PCIE_A_SECOND) % (unsigned) d->n : 0;
        gpud_send(d, json_pack("{s:s, s:I, s:o}", "type", "telemetry", "at_us",
                               (json_int_t) clock_wall_us(), "gpus", list));
        d->at_call = NULL; /* the next second says where it is from the start */
}
