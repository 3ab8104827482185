/* nvml_abi.h - the part of the driver library's (libnvidia-ml.so.1) binary interface that we use:
 * numbers, layouts and the list of functions with their arguments, declared by ourselves because
 * building must not need the vendor's header.  vmm-gpu looks the functions up at run time;
 * tests/fakes/nvml defines them.
 *
 * Where the facts come from: NVML's public API documentation and the layouts that every public
 * binding (Go, Rust, Python) has declared for years.  The library keeps them stable: a changed
 * layout gets a new symbol with a suffix (_v2, _v3), and the old symbol keeps the old layout.  All
 * structs have C's natural alignment on x86-64 and arm64; sizes are asserted.
 *
 * Every function returns int, one of enum nvml_ret, except nvmlErrorString().  A newer library may
 * return numbers that are not in the list.  Handles are pointers of the library's own.
 *
 * Known trouble: from 535.43 to 535.97 the _v3 process lists have rows of 32 bytes (struct nvml_process_535),
 * before and afterwards of 24; with those drivers ask _v2. */
#pragma once
#include <assert.h>
#include <stdint.h>

struct nvml_device;
struct nvml_event_set;

enum nvml_ret {
        NVML_SUCCESS,
        NVML_UNINITIALIZED,
        NVML_INVALID_ARGUMENT,
        NVML_NOT_SUPPORTED,
        NVML_NO_PERMISSION,
        NVML_ALREADY_INITIALIZED,
        NVML_NOT_FOUND,
        NVML_INSUFFICIENT_SIZE,
        NVML_INSUFFICIENT_POWER,
        NVML_DRIVER_NOT_LOADED,
        NVML_TIMEOUT,
        NVML_IRQ_ISSUE,
        NVML_LIBRARY_NOT_FOUND,
        NVML_FUNCTION_NOT_FOUND,
        NVML_CORRUPTED_INFOROM,
        NVML_GPU_IS_LOST,
        NVML_RESET_REQUIRED,
        NVML_OPERATING_SYSTEM,
        NVML_VERSION_MISMATCH, /* library and kernel module are not of one version */
        NVML_IN_USE,
        NVML_MEMORY,
        NVML_NO_DATA,
        NVML_VGPU_ECC_NOT_SUPPORTED,
        NVML_INSUFFICIENT_RESOURCES,
        NVML_FREQ_NOT_SUPPORTED,
        NVML_ARGUMENT_VERSION_MISMATCH,
        NVML_DEPRECATED,
        NVML_NOT_READY,
        NVML_GPU_NOT_FOUND,
        NVML_INVALID_STATE,
        NVML_UNKNOWN = 999
};
static_assert(NVML_GPU_IS_LOST == 15 && NVML_VERSION_MISMATCH == 18 && NVML_INVALID_STATE == 29,
              "the order is the library's");

/* Lengths that are always enough for the strings that the library writes. */
enum {
        NVML_UUID_MAX = 96,
        NVML_NAME_MAX = 96,
        NVML_SERIAL_MAX = 30,
        NVML_VBIOS_MAX = 32,
        NVML_INFOROM_MAX = 16,
        NVML_VERSION_MAX = 80
};

enum { NVML_DISABLED, NVML_ENABLED };              /* nvmlEnableState_t */
enum { NVML_ECC_CORRECTED, NVML_ECC_UNCORRECTED }; /* nvmlMemoryErrorType_t */
enum { NVML_ECC_VOLATILE, NVML_ECC_AGGREGATE };    /* nvmlEccCounterType_t */
enum { NVML_TEMPERATURE_GPU };
enum { NVML_CLOCK_GRAPHICS, NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_CLOCK_VIDEO };
enum { NVML_PCIE_TX, NVML_PCIE_RX }; /* KiB/s, over the last 20 ms */
enum { NVML_PSTATE_UNKNOWN = 32 };   /* 0 (fastest) to 15 */
enum { NVML_NVLINKS_MAX = 18 };      /* link numbers: 0 to 17 */

/* nvmlDeviceGetTopologyCommonAncestor() */
enum nvml_topology {
        NVML_TOPOLOGY_INTERNAL = 0,    /* one board with two GPUs */
        NVML_TOPOLOGY_SINGLE = 10,     /* PIX */
        NVML_TOPOLOGY_MULTIPLE = 20,   /* PXB */
        NVML_TOPOLOGY_HOSTBRIDGE = 30, /* PHB */
        NVML_TOPOLOGY_NODE = 40,       /* NODE */
        NVML_TOPOLOGY_SYSTEM = 50      /* SYS */
};

enum { NVML_P2P_READ, NVML_P2P_WRITE, NVML_P2P_NVLINK, NVML_P2P_ATOMICS, NVML_P2P_PCI };
enum nvml_p2p_status {
        NVML_P2P_OK,
        NVML_P2P_CHIPSET,
        NVML_P2P_GPU,
        NVML_P2P_IOH,
        NVML_P2P_REGKEY,
        NVML_P2P_NOT_SUPPORTED,
        NVML_P2P_UNKNOWN
};

/* what is at the other end of an NVLink */
enum nvml_link_device {
        NVML_LINK_GPU = 0,
        NVML_LINK_NPU = 1,
        NVML_LINK_SWITCH = 2,
        NVML_LINK_UNKNOWN = 255
};

/* event types and clocks event (throttle) reasons: bit sets in 64 bits */
#define NVML_EVENT_ECC_SINGLE 0x1ULL
#define NVML_EVENT_ECC_DOUBLE 0x2ULL
#define NVML_EVENT_PSTATE     0x4ULL
#define NVML_EVENT_XID        0x8ULL
#define NVML_EVENT_CLOCK      0x10ULL
#define NVML_EVENT_POWER      0x80ULL
#define NVML_EVENT_MIG_CONFIG 0x100ULL

#define NVML_REASON_IDLE        0x1ULL
#define NVML_REASON_APP_CLOCKS  0x2ULL
#define NVML_REASON_SW_POWER    0x4ULL
#define NVML_REASON_HW_SLOWDOWN 0x8ULL
#define NVML_REASON_SYNC_BOOST  0x10ULL
#define NVML_REASON_SW_THERMAL  0x20ULL
#define NVML_REASON_HW_THERMAL  0x40ULL
#define NVML_REASON_POWER_BRAKE 0x80ULL
#define NVML_REASON_DISPLAY     0x100ULL
/* those that say that something is wrong, not merely idle or configured */
#define NVML_REASONS_THROTTLE                                                                      \
        (NVML_REASON_HW_SLOWDOWN | NVML_REASON_SW_THERMAL | NVML_REASON_HW_THERMAL |               \
         NVML_REASON_POWER_BRAKE)

/* field numbers of nvmlDeviceGetFieldValues() */
enum {
        NVML_FI_MEMORY_TEMPERATURE = 82, /* degrees Celsius, unsigned int */
        NVML_FI_NVLINK_DATA_TX = 138,    /* KiB since the driver was loaded; scope: link, or all */
        NVML_FI_NVLINK_DATA_RX = 139,
        NVML_FI_POWER_INSTANT = 186 /* mW */
};
#define NVML_SCOPE_ALL UINT32_MAX /* of the NVLink counters: all links together */

enum nvml_value_type {
        NVML_VALUE_DOUBLE,
        NVML_VALUE_UINT,
        NVML_VALUE_ULONG,
        NVML_VALUE_ULLONG,
        NVML_VALUE_SLLONG,
        NVML_VALUE_SINT,
        NVML_VALUE_USHORT
};

/* ---- layouts ---- */

struct nvml_memory { /* bytes; `used` contains what the driver reserves */
        uint64_t total, free, used;
};
struct nvml_memory_v2 {   /* `used` without `reserved` */
        uint32_t version; /* NVML_MEMORY_V2, set by the caller */
        uint64_t total, reserved, free, used;
};
/* versions of versioned structs: size, and the number in the highest byte */
#define NVML_MEMORY_V2 ((uint32_t) sizeof(struct nvml_memory_v2) | 2U << 24)

struct nvml_pci {               /* nvmlDeviceGetPciInfo_v3, nvmlDeviceGetNvLinkRemotePciInfo_v2 */
        char bus_id_legacy[16]; /* "0000:07:00.0" */
        uint32_t domain, bus, device;
        uint32_t device_id, subsystem_id; /* device << 16 | vendor */
        char bus_id[32];                  /* "00000000:07:00.0", upper-case digits */
};
struct nvml_pci_v2 { /* nvmlDeviceGetPciInfo_v2 and without suffix (which leaves the end alone) */
        char bus_id[16];
        uint32_t domain, bus, device;
        uint32_t device_id, subsystem_id;
        uint32_t reserved[4];
};

struct nvml_utilization {
        uint32_t gpu, memory; /* percent */
};

struct nvml_process { /* _v2 and _v3 */
        uint32_t pid;
        uint64_t memory; /* bytes; UINT64_MAX: not known */
        uint32_t gi, ci; /* UINT32_MAX: not MIG */
};
struct nvml_process_v1 { /* without suffix */
        uint32_t pid;
        uint64_t memory;
};
struct nvml_process_535 { /* _v3 of 535.43 to 535.97, see above */
        uint32_t pid;
        uint64_t memory;
        uint32_t gi, ci;
        uint64_t protected_memory;
};

struct nvml_attributes { /* of a MIG device */
        uint32_t multiprocessors, copy_engines, decoders, encoders, jpegs, ofas;
        uint32_t gpu_slices, compute_slices;
        uint64_t memory_mib;
};

struct nvml_field {
        uint32_t field, scope;
        int64_t timestamp_us, latency_us;
        uint32_t value_type; /* enum nvml_value_type */
        int32_t ret;         /* of this field alone */
        union {
                double d;
                uint32_t u32;
                uint64_t u64; /* ULONG and ULLONG: 64 bits both */
                int64_t i64;
                int32_t i32;
                uint16_t u16;
        } value;
};

struct nvml_event {
        struct nvml_device *device;
        uint64_t type; /* one bit of NVML_EVENT_ */
        uint64_t data; /* XID: its number */
        uint32_t gi, ci;
};
struct nvml_event_v1 { /* nvmlEventSetWait without suffix */
        struct nvml_device *device;
        uint64_t type, data;
};

static_assert(sizeof(struct nvml_memory) == 24, "nvmlMemory_t");
static_assert(sizeof(struct nvml_memory_v2) == 40, "nvmlMemory_v2_t");
static_assert(NVML_MEMORY_V2 == 0x02000028, "nvmlMemory_v2");
static_assert(sizeof(struct nvml_pci) == 68, "nvmlPciInfo_t");
static_assert(sizeof(struct nvml_pci_v2) == 52, "nvmlPciInfo_t before 9");
static_assert(sizeof(struct nvml_process) == 24, "nvmlProcessInfo_v2_t");
static_assert(sizeof(struct nvml_process_v1) == 16, "nvmlProcessInfo_v1_t");
static_assert(sizeof(struct nvml_process_535) == 32, "nvmlProcessInfo_t of early 535");
static_assert(sizeof(struct nvml_attributes) == 40, "nvmlDeviceAttributes_t");
static_assert(sizeof(struct nvml_field) == 40, "nvmlFieldValue_t");
static_assert(sizeof(struct nvml_event) == 32, "nvmlEventData_t");
static_assert(sizeof(struct nvml_event_v1) == 24, "nvmlEventData_t before 11");

/* ---- functions ----
 * X(symbol, arguments).  A pair with and without suffix has the same layout unless the argument's
 * type says otherwise: newest first, so a caller takes the first that is there.  Array sizes go in
 * through the pointer as capacity and come back as count; INSUFFICIENT_SIZE tells the count. */
#define NVML_CALLS(X)                                                                              \
        X(nvmlInit_v2, (void) )                                                                    \
        X(nvmlInit, (void) )                                                                       \
        X(nvmlShutdown, (void) )                                                                   \
        X(nvmlSystemGetDriverVersion, (char *version, unsigned length))                            \
        X(nvmlSystemGetNVMLVersion, (char *version, unsigned length))                              \
        X(nvmlSystemGetCudaDriverVersion_v2, (int *version)) /* 12040: 12.4 */                     \
        X(nvmlSystemGetCudaDriverVersion, (int *version))                                          \
        X(nvmlDeviceGetCount_v2, (unsigned *count))                                                \
        X(nvmlDeviceGetCount, (unsigned *count))                                                   \
        X(nvmlDeviceGetHandleByIndex_v2, (unsigned index, struct nvml_device **device))            \
        X(nvmlDeviceGetHandleByIndex, (unsigned index, struct nvml_device **device))               \
        X(nvmlDeviceGetHandleByUUID, (const char *uuid, struct nvml_device **device))              \
        X(nvmlDeviceGetHandleByPciBusId_v2, (const char *bus_id, struct nvml_device **device))     \
        X(nvmlDeviceGetUUID, (struct nvml_device * device, char *uuid, unsigned length))           \
        X(nvmlDeviceGetName, (struct nvml_device * device, char *name, unsigned length))           \
        X(nvmlDeviceGetIndex, (struct nvml_device * device, unsigned *index))                      \
        X(nvmlDeviceGetMinorNumber, (struct nvml_device * device, unsigned *minor))                \
        X(nvmlDeviceGetModuleId, (struct nvml_device * device, unsigned *id)) /* on the board */   \
        X(nvmlDeviceGetNumaNodeId,                                                                 \
          (struct nvml_device * device, unsigned *node)) /* of its memory */                       \
        X(nvmlDeviceGetSerial, (struct nvml_device * device, char *serial, unsigned length))       \
        X(nvmlDeviceGetVbiosVersion,                                                               \
          (struct nvml_device * device, char *version, unsigned length))                           \
        X(nvmlDeviceGetInforomImageVersion,                                                        \
          (struct nvml_device * device, char *version, unsigned length))                           \
        X(nvmlDeviceGetPciInfo_v3, (struct nvml_device * device, struct nvml_pci * pci))           \
        X(nvmlDeviceGetPciInfo_v2, (struct nvml_device * device, struct nvml_pci_v2 * pci))        \
        X(nvmlDeviceGetPciInfo, (struct nvml_device * device, struct nvml_pci_v2 * pci))           \
        X(nvmlDeviceGetMemoryInfo_v2,                                                              \
          (struct nvml_device * device, struct nvml_memory_v2 * memory))                           \
        X(nvmlDeviceGetMemoryInfo, (struct nvml_device * device, struct nvml_memory * memory))     \
        X(nvmlDeviceGetMigMode,                                                                    \
          (struct nvml_device * device, unsigned *current, unsigned *pending))                     \
        X(nvmlDeviceGetMaxMigDeviceCount, (struct nvml_device * device, unsigned *count))          \
        X(nvmlDeviceGetMigDeviceHandleByIndex,                                                     \
          (struct nvml_device * device, unsigned index, struct nvml_device **mig))                 \
        X(nvmlDeviceIsMigDeviceHandle, (struct nvml_device * device, unsigned *is))                \
        X(nvmlDeviceGetDeviceHandleFromMigDeviceHandle,                                            \
          (struct nvml_device * mig, struct nvml_device * *device))                                \
        X(nvmlDeviceGetGpuInstanceId, (struct nvml_device * mig, unsigned *id))                    \
        X(nvmlDeviceGetComputeInstanceId, (struct nvml_device * mig, unsigned *id))                \
        X(nvmlDeviceGetAttributes_v2,                                                              \
          (struct nvml_device * mig, struct nvml_attributes * attributes))                         \
        X(nvmlDeviceGetAttributes,                                                                 \
          (struct nvml_device * mig, struct nvml_attributes * attributes))                         \
        X(nvmlDeviceGetNvLinkState,                                                                \
          (struct nvml_device * device, unsigned link, unsigned *active))                          \
        X(nvmlDeviceGetNvLinkVersion,                                                              \
          (struct nvml_device * device, unsigned link, unsigned *version))                         \
        X(nvmlDeviceGetNvLinkRemotePciInfo_v2,                                                     \
          (struct nvml_device * device, unsigned link, struct nvml_pci *pci))                      \
        X(nvmlDeviceGetNvLinkRemotePciInfo,                                                        \
          (struct nvml_device * device, unsigned link, struct nvml_pci_v2 *pci))                   \
        X(nvmlDeviceGetNvLinkRemoteDeviceType,                                                     \
          (struct nvml_device * device, unsigned link, unsigned *type))                            \
        X(nvmlDeviceGetTopologyCommonAncestor,                                                     \
          (struct nvml_device * a, struct nvml_device * b, unsigned *level))                       \
        X(nvmlDeviceGetP2PStatus,                                                                  \
          (struct nvml_device * a, struct nvml_device * b, unsigned what, unsigned *status))       \
        X(nvmlDeviceGetEccMode,                                                                    \
          (struct nvml_device * device, unsigned *current, unsigned *pending))                     \
        X(nvmlDeviceGetTotalEccErrors, (struct nvml_device * device, unsigned error_type,          \
                                        unsigned counter_type, uint64_t *count))                   \
        X(nvmlDeviceGetRemappedRows,                                                               \
          (struct nvml_device * device, unsigned *correctable, unsigned *uncorrectable,            \
           unsigned *pending, unsigned *failed))                                                   \
        X(nvmlDeviceGetRetiredPagesPendingStatus,                                                  \
          (struct nvml_device * device, unsigned *pending))                                        \
        X(nvmlDeviceGetUtilizationRates,                                                           \
          (struct nvml_device * device, struct nvml_utilization * utilization))                    \
        X(nvmlDeviceGetEncoderUtilization,                                                         \
          (struct nvml_device * device, unsigned *pct, unsigned *period_us))                       \
        X(nvmlDeviceGetDecoderUtilization,                                                         \
          (struct nvml_device * device, unsigned *pct, unsigned *period_us))                       \
        X(nvmlDeviceGetTemperature,                                                                \
          (struct nvml_device * device, unsigned sensor, unsigned *celsius))                       \
        X(nvmlDeviceGetFieldValues,                                                                \
          (struct nvml_device * device, int count, struct nvml_field *values))                     \
        X(nvmlDeviceGetPowerUsage, (struct nvml_device * device, unsigned *mw))                    \
        X(nvmlDeviceGetEnforcedPowerLimit, (struct nvml_device * device, unsigned *mw))            \
        X(nvmlDeviceGetPowerManagementLimit, (struct nvml_device * device, unsigned *mw))          \
        X(nvmlDeviceGetTotalEnergyConsumption, (struct nvml_device * device, uint64_t * mj))       \
        X(nvmlDeviceGetClockInfo, (struct nvml_device * device, unsigned clock, unsigned *mhz))    \
        X(nvmlDeviceGetPerformanceState, (struct nvml_device * device, unsigned *pstate))          \
        X(nvmlDeviceGetFanSpeed, (struct nvml_device * device, unsigned *pct))                     \
        X(nvmlDeviceGetPcieThroughput,                                                             \
          (struct nvml_device * device, unsigned counter, unsigned *kib_s))                        \
        X(nvmlDeviceGetPcieReplayCounter, (struct nvml_device * device, unsigned *count))          \
        X(nvmlDeviceGetCurrentClocksEventReasons,                                                  \
          (struct nvml_device * device, uint64_t * reasons))                                       \
        X(nvmlDeviceGetCurrentClocksThrottleReasons,                                               \
          (struct nvml_device * device, uint64_t * reasons))                                       \
        X(nvmlDeviceGetComputeRunningProcesses_v3,                                                 \
          (struct nvml_device * device, unsigned *count, struct nvml_process *list))               \
        X(nvmlDeviceGetComputeRunningProcesses_v2,                                                 \
          (struct nvml_device * device, unsigned *count, struct nvml_process *list))               \
        X(nvmlDeviceGetComputeRunningProcesses,                                                    \
          (struct nvml_device * device, unsigned *count, struct nvml_process_v1 *list))            \
        X(nvmlDeviceGetGraphicsRunningProcesses_v3,                                                \
          (struct nvml_device * device, unsigned *count, struct nvml_process *list))               \
        X(nvmlDeviceGetGraphicsRunningProcesses_v2,                                                \
          (struct nvml_device * device, unsigned *count, struct nvml_process *list))               \
        X(nvmlDeviceGetGraphicsRunningProcesses,                                                   \
          (struct nvml_device * device, unsigned *count, struct nvml_process_v1 *list))            \
        X(nvmlDeviceGetSupportedEventTypes, (struct nvml_device * device, uint64_t * types))       \
        X(nvmlEventSetCreate, (struct nvml_event_set * *set))                                      \
        X(nvmlDeviceRegisterEvents,                                                                \
          (struct nvml_device * device, uint64_t types, struct nvml_event_set * set))              \
        X(nvmlEventSetWait_v2,                                                                     \
          (struct nvml_event_set * set, struct nvml_event * event, unsigned timeout_ms))           \
        X(nvmlEventSetWait,                                                                        \
          (struct nvml_event_set * set, struct nvml_event_v1 * event, unsigned timeout_ms))        \
        X(nvmlEventSetFree, (struct nvml_event_set * set))

/* The one that does not return int, NVML_CALLS's companion. */
#define NVML_ERROR_STRING nvmlErrorString
typedef const char *nvml_error_string_fn(int ret);

/* A table of pointers, filled by dlsym() from the same list: NULL where the library has none. */
struct nvml_calls {
#define X(symbol, args) int(*symbol) args;
        NVML_CALLS(X)
#undef X
        nvml_error_string_fn *nvmlErrorString;
};
