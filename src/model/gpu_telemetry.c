/* gpu_telemetry.c - see gpu_telemetry.h.  The DCGM names and units are those of dcgm-exporter's default
 * counters. */
#include "model/gpu_telemetry.h"

#include <errno.h>
#include <stdio.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "model/gpu.h"

#define G "gauge"
#define C "counter"

const struct gpu_metric_info gpu_metrics[GM_COUNT] = {
        [GM_UTIL_PCT] = { "util_pct", "DCGM_FI_DEV_GPU_UTIL", G, 1, "GPU utilization (in %)." },
        [GM_MEM_UTIL_PCT] = { "mem_util_pct", "DCGM_FI_DEV_MEM_COPY_UTIL", G, 1,
                              "Memory utilization (in %)." },
        [GM_ENC_UTIL_PCT] = { "enc_util_pct", "DCGM_FI_DEV_ENC_UTIL", G, 1,
                              "Encoder utilization (in %)." },
        [GM_DEC_UTIL_PCT] = { "dec_util_pct", "DCGM_FI_DEV_DEC_UTIL", G, 1,
                              "Decoder utilization (in %)." },
        [GM_MEMORY_USED_MIB] = { "memory_used_mib", "DCGM_FI_DEV_FB_USED", G, 1,
                                 "Framebuffer memory used (in MiB)." },
        [GM_MEMORY_TOTAL_MIB] = { "memory_total_mib", "DCGM_FI_DEV_FB_TOTAL", G, 1,
                                  "Framebuffer memory in all (in MiB)." },
        [GM_MEMORY_RESERVED_MIB] = { "memory_reserved_mib", "DCGM_FI_DEV_FB_RESERVED", G, 1,
                                     "Framebuffer memory reserved by the driver (in MiB)." },
        [GM_TEMPERATURE_C] = { "temperature_c", "DCGM_FI_DEV_GPU_TEMP", G, 1,
                               "GPU temperature (in C)." },
        [GM_MEMORY_TEMPERATURE_C] = { "memory_temperature_c", "DCGM_FI_DEV_MEMORY_TEMP", G, 1,
                                      "Memory temperature (in C)." },
        [GM_FAN_PCT] = { "fan_pct", "DCGM_FI_DEV_FAN_SPEED", G, 1, "Fan speed (in %)." },
        [GM_POWER_MW] = { "power_mw", "DCGM_FI_DEV_POWER_USAGE", G, 1e-3, "Power draw (in W)." },
        [GM_POWER_LIMIT_MW] = { "power_limit_mw", "DCGM_FI_DEV_POWER_MGMT_LIMIT", G, 1e-3,
                                "Power limit (in W)." },
        [GM_ENERGY_MJ] = { "energy_mj", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", C, 1,
                           "Energy since the driver was loaded (in mJ)." },
        [GM_SM_CLOCK_MHZ] = { "sm_clock_mhz", "DCGM_FI_DEV_SM_CLOCK", G, 1,
                              "SM clock frequency (in MHz)." },
        [GM_MEM_CLOCK_MHZ] = { "mem_clock_mhz", "DCGM_FI_DEV_MEM_CLOCK", G, 1,
                               "Memory clock frequency (in MHz)." },
        [GM_PSTATE] = { "pstate", "DCGM_FI_DEV_PSTATE", G, 1, "Performance state (0-15)." },
        [GM_PCIE_TX_KIB_S] = { "pcie_tx_kib_s", NULL, G, 1, "PCIe traffic sent (in KiB/s)." },
        [GM_PCIE_RX_KIB_S] = { "pcie_rx_kib_s", NULL, G, 1, "PCIe traffic received (in KiB/s)." },
        [GM_PCIE_REPLAYS] = { "pcie_replays", "DCGM_FI_DEV_PCIE_REPLAY_COUNTER", C, 1,
                              "PCIe retries." },
        [GM_NVLINK_TX_KIB_S] = { "nvlink_tx_kib_s", NULL, G, 1, "NVLink traffic sent (in KiB/s)." },
        [GM_NVLINK_RX_KIB_S] = { "nvlink_rx_kib_s", NULL, G, 1,
                                 "NVLink traffic received (in KiB/s)." },
        [GM_ECC_CORRECTED] = { "ecc_corrected", "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", C, 1,
                               "Single-bit ECC errors since the driver was loaded." },
        [GM_ECC_UNCORRECTED] = { "ecc_uncorrected", "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", C, 1,
                                 "Double-bit ECC errors since the driver was loaded." },
        [GM_REMAPPED_CORRECTABLE] = { "remapped_correctable",
                                      "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", C, 1,
                                      "Remapped rows for correctable errors." },
        [GM_REMAPPED_UNCORRECTABLE] = { "remapped_uncorrectable",
                                        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", C, 1,
                                        "Remapped rows for uncorrectable errors." },
        [GM_REMAP_PENDING] = { "remap_pending", "DCGM_FI_DEV_ROW_REMAP_PENDING", G, 1,
                               "Whether a row is to be remapped at the next reset." },
        [GM_REMAP_FAILED] = { "remap_failed", "DCGM_FI_DEV_ROW_REMAP_FAILURE", G, 1,
                              "Whether remapping of rows has failed." },
        [GM_THROTTLE] = { "throttle", "DCGM_FI_DEV_CLOCKS_EVENT_REASONS", G, 1,
                          "Why clocks are held back, a bit set." },
        [GM_XID] = { "xid", "DCGM_FI_DEV_XID_ERRORS", G, 1, "Value of the last XID error." },
        [GM_PROCESSES] = { "processes", NULL, G, 1, "Processes that hold the GPU." },
};
#undef G
#undef C

void gpu_telemetry_init(struct gpu_telemetry *t, const char *uuid)
{
        (void) snprintf(t->uuid, sizeof t->uuid, "%s", uuid);
        for (size_t i = 0; i < GM_COUNT; i++)
                t->value[i] = GPU_UNKNOWN;
}

int gpu_telemetry_decode(const json_t *j, struct gpu_telemetry *ret, struct err *e)
{
        const char *uuid = jsonx_str(j, "uuid");

        if (!gpu_uuid_ok(uuid))
                return err_set(e, -EINVAL, "telemetry: uuid is none");
        gpu_telemetry_init(ret, uuid);
        for (size_t i = 0; i < GM_COUNT; i++) {
                const json_t *v = json_object_get(j, gpu_metrics[i].name);

                if (v && (!json_is_integer(v) || json_integer_value(v) < 0))
                        return err_set(e, -EINVAL, "telemetry: %s is no number of that kind",
                                       gpu_metrics[i].name);
                if (v)
                        ret->value[i] = (uint64_t) json_integer_value(v);
        }
        return 0;
}

json_t *gpu_telemetry_encode(const struct gpu_telemetry *t)
{
        AUTO(json_put) json_t *j = json_pack("{s:s}", "uuid", t->uuid);

        for (size_t i = 0; j && i < GM_COUNT; i++)
                if (t->value[i] <= JSONX_EXACT_MAX &&
                    json_object_set_new(j, gpu_metrics[i].name,
                                        json_integer((json_int_t) t->value[i])) < 0)
                        return NULL;
        return TAKE(j);
}
