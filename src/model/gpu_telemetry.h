/* gpu_telemetry.h - what is measured of a GPU once a second: one table of rows that vmm-gpu fills, the
 * engine passes on and the control plane shows (GraphQL, Prometheus, command line).  Pure. */
#pragma once
#include <jansson.h>
#include <stdint.h>

#include "base/err.h"

#define GPU_UNKNOWN UINT64_MAX /* the driver does not say; left out of the JSON */

enum gpu_metric {
        GM_UTIL_PCT,     /* of the last sample period in which a kernel ran */
        GM_MEM_UTIL_PCT, /* memory controller */
        GM_ENC_UTIL_PCT,
        GM_DEC_UTIL_PCT,
        GM_MEMORY_USED_MIB, /* without what the driver reserves */
        GM_MEMORY_TOTAL_MIB,
        GM_MEMORY_RESERVED_MIB,
        GM_TEMPERATURE_C,
        GM_MEMORY_TEMPERATURE_C,
        GM_FAN_PCT,
        GM_POWER_MW,
        GM_POWER_LIMIT_MW,
        GM_ENERGY_MJ, /* since the driver was loaded */
        GM_SM_CLOCK_MHZ,
        GM_MEM_CLOCK_MHZ,
        GM_PSTATE,
        GM_PCIE_TX_KIB_S,
        GM_PCIE_RX_KIB_S,
        GM_PCIE_REPLAYS,
        GM_NVLINK_TX_KIB_S,
        GM_NVLINK_RX_KIB_S,
        GM_ECC_CORRECTED, /* volatile: since the driver was loaded */
        GM_ECC_UNCORRECTED,
        GM_REMAPPED_CORRECTABLE,
        GM_REMAPPED_UNCORRECTABLE,
        GM_REMAP_PENDING, /* 0 or 1: a reset is due */
        GM_REMAP_FAILED,  /* 0 or 1: replace it */
        GM_THROTTLE,      /* NVML's clocks event reasons, a bit set */
        GM_XID,           /* the last one, 0: none since the driver was loaded */
        GM_PROCESSES,
        GM_COUNT
};

struct gpu_metric_info {
        const char *name; /* "util_pct": the JSON key */
        const char *dcgm; /* what users of dcgm-exporter know: "DCGM_FI_DEV_GPU_UTIL"; NULL: ours */
        const char *type; /* Prometheus: "gauge" or "counter" */
        double scale;     /* from our unit to DCGM's */
        const char *help; /* one sentence */
};
extern const struct gpu_metric_info gpu_metrics[GM_COUNT];

struct gpu_telemetry {
        char uuid[72];
        uint64_t value[GM_COUNT];
};
void gpu_telemetry_init(struct gpu_telemetry *t, const char *uuid); /* all unknown */
int gpu_telemetry_decode(const json_t *j, struct gpu_telemetry *ret, struct err *e);
json_t *gpu_telemetry_encode(const struct gpu_telemetry *t); /* new reference or NULL */
