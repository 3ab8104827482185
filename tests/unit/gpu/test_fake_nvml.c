/* test_fake_nvml.c - the stand-in for the driver library as vmm-gpu gets it: by dlopen(), every symbol
 * of the list, fleets from data/fleets, trouble on command.  Each case is a process of its own: what
 * the library knows is the process's. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"
#include "gpu/nvml_abi.h"

#define MIB (1ULL << 20)

static struct nvml_calls nv;
static char faults[64];

/* In a child; a hang ends it by SIGALRM. */
#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x)) {                                                                        \
                        (void) fprintf(stderr, "%s:%d: %s\n", __func__, __LINE__, #x);             \
                        _exit(1);                                                                  \
                }                                                                                  \
        } while (0)
#define OK(x) CHECK((x) == NVML_SUCCESS)

static void load(const char *fleet)
{
        AUTO(free) char *path = str_fmt("%s/%s", FLEETS, fleet);
        void *lib;

        (void) setenv("HVMM_SIMULATED_FLEET", path, 1);
        (void) setenv("HVMM_SIMULATED_FAULTS", faults, 1);
        (void) setenv("HVMM_SIMULATED_SEED", "unit", 1);
        lib = dlopen(FAKE_NVML, RTLD_NOW | RTLD_LOCAL);
        CHECK(lib);
#define X(symbol, args)                                                                            \
        *(void **) &nv.symbol = dlsym(lib, #symbol);                                               \
        CHECK(nv.symbol);
        NVML_CALLS(X)
#undef X
        *(void **) &nv.nvmlErrorString = dlsym(lib, "nvmlErrorString");
        CHECK(nv.nvmlErrorString);
}

static void say(const char *text)
{
        CHECK(fd_replace_file(AT_FDCWD, faults, text, strlen(text), 0600, false) >= 0);
}

static struct nvml_device *gpu(unsigned index)
{
        struct nvml_device *d = NULL;

        OK(nv.nvmlDeviceGetHandleByIndex_v2(index, &d));
        return d;
}

static int in_child(void (*body)(void))
{
        int status = -1;
        pid_t pid = fork();

        if (pid == 0) {
                (void) alarm(10);
                body();
                _exit(0);
        }
        assert_true(pid > 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return status;
}

static int set_up(void **state)
{
        int fd;

        (void) state;
        (void) snprintf(faults, sizeof faults, "/tmp/fake-nvml-XXXXXX");
        fd = mkstemp(faults);
        (void) fd_close(fd);
        return fd < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
        (void) state;
        (void) unlink(faults);
        return 0;
}

/* ---- bodies ---- */

static void inventory(void)
{
        char text[96], again[96];
        struct nvml_pci pci;
        struct nvml_device *d;
        unsigned n, v, w;
        int cuda;

        load("a100x8");
        CHECK(nv.nvmlDeviceGetCount_v2(&n) == NVML_UNINITIALIZED);
        OK(nv.nvmlInit_v2());
        OK(nv.nvmlInit_v2());
        OK(nv.nvmlShutdown());
        OK(nv.nvmlDeviceGetCount_v2(&n));
        CHECK(n == 8);
        CHECK(nv.nvmlDeviceGetHandleByIndex_v2(8, &d) == NVML_INVALID_ARGUMENT);
        OK(nv.nvmlSystemGetDriverVersion(text, sizeof text));
        CHECK(str_eq(text, "550.54.15"));
        OK(nv.nvmlSystemGetCudaDriverVersion_v2(&cuda));
        CHECK(cuda == 12040);
        OK(nv.nvmlDeviceGetName(gpu(3), text, sizeof text));
        CHECK(str_eq(text, "NVIDIA A100-SXM4-80GB"));
        CHECK(nv.nvmlDeviceGetName(gpu(3), text, 5) == NVML_INSUFFICIENT_SIZE);
        OK(nv.nvmlDeviceGetPciInfo_v3(gpu(3), &pci));
        CHECK(str_eq(pci.bus_id, "00000000:4E:00.0") && pci.device_id == 0x20b210de);
        OK(nv.nvmlDeviceGetUUID(gpu(5), text, sizeof text));
        OK(nv.nvmlDeviceGetHandleByUUID(text, &d));
        CHECK(d == gpu(5));
        OK(nv.nvmlDeviceGetUUID(gpu(6), again, sizeof again));
        CHECK(!str_eq(text, again));
        CHECK(nv.nvmlDeviceGetHandleByUUID("GPU-none", &d) == NVML_NOT_FOUND);
        OK(nv.nvmlDeviceGetHandleByPciBusId_v2("00000000:4E:00.0", &d));
        CHECK(d == gpu(3));
        OK(nv.nvmlDeviceGetMinorNumber(gpu(7), &v));
        CHECK(v == 7);
        CHECK(nv.nvmlDeviceGetNumaNodeId(gpu(7), &v) == NVML_NOT_SUPPORTED);
        OK(nv.nvmlDeviceGetMigMode(gpu(0), &v, &w));
        CHECK(v == NVML_DISABLED);
        CHECK(nv.nvmlDeviceGetMigDeviceHandleByIndex(gpu(0), 0, &d) == NVML_NOT_FOUND);
        CHECK(nv.nvmlDeviceGetUUID(NULL, text, sizeof text) == NVML_INVALID_ARGUMENT);
        CHECK(str_eq(nv.nvmlErrorString(NVML_GPU_IS_LOST), "GPU is lost"));
        CHECK(str_eq(nv.nvmlErrorString(12345), "Unknown error"));
        OK(nv.nvmlShutdown());
        CHECK(nv.nvmlShutdown() == NVML_UNINITIALIZED);
}

static void links(void)
{
        unsigned v, level, up = 0;
        struct nvml_pci pci;

        load("3090x8");
        OK(nv.nvmlInit_v2());
        for (unsigned l = 0; l < NVML_NVLINKS_MAX; l++)
                if (nv.nvmlDeviceGetNvLinkState(gpu(2), l, &v) == NVML_SUCCESS && v) {
                        OK(nv.nvmlDeviceGetNvLinkRemotePciInfo_v2(gpu(2), l, &pci));
                        CHECK(str_eq(pci.bus_id, "00000000:61:00.0"));
                        OK(nv.nvmlDeviceGetNvLinkRemoteDeviceType(gpu(2), l, &v));
                        CHECK(v == NVML_LINK_GPU);
                        up++;
                }
        CHECK(up == 4);
        OK(nv.nvmlDeviceGetTopologyCommonAncestor(gpu(0), gpu(1), &level));
        CHECK(level == NVML_TOPOLOGY_NODE);
        OK(nv.nvmlDeviceGetTopologyCommonAncestor(gpu(0), gpu(4), &level));
        CHECK(level == NVML_TOPOLOGY_SYSTEM);
        OK(nv.nvmlDeviceGetP2PStatus(gpu(0), gpu(1), NVML_P2P_NVLINK, &v));
        CHECK(v == NVML_P2P_OK);
        OK(nv.nvmlDeviceGetP2PStatus(gpu(0), gpu(2), NVML_P2P_READ, &v));
        CHECK(v == NVML_P2P_CHIPSET);
}

static void switches(void)
{
        unsigned v;

        load("h100x8");
        OK(nv.nvmlInit_v2());
        for (unsigned l = 0; l < 18; l++) {
                OK(nv.nvmlDeviceGetNvLinkState(gpu(0), l, &v));
                CHECK(v == NVML_ENABLED);
                OK(nv.nvmlDeviceGetNvLinkRemoteDeviceType(gpu(0), l, &v));
                CHECK(v == NVML_LINK_SWITCH);
        }
        CHECK(nv.nvmlDeviceGetNvLinkState(gpu(0), 18, &v) == NVML_INVALID_ARGUMENT);
        OK(nv.nvmlDeviceGetNvLinkVersion(gpu(0), 0, &v));
        CHECK(v == 4);
        OK(nv.nvmlDeviceGetP2PStatus(gpu(0), gpu(7), NVML_P2P_NVLINK, &v));
        CHECK(v == NVML_P2P_OK);
}

static void instances(void)
{
        struct nvml_attributes a;
        struct nvml_memory_v2 mem = { .version = NVML_MEMORY_V2 };
        struct nvml_utilization u;
        struct nvml_device *d, *parent;
        char text[96];
        unsigned v, w, n = 0;

        load("a100mig");
        OK(nv.nvmlInit_v2());
        OK(nv.nvmlDeviceGetMigMode(gpu(1), &v, &w));
        CHECK(v == NVML_ENABLED);
        while (nv.nvmlDeviceGetMigDeviceHandleByIndex(gpu(1), n, &d) == NVML_SUCCESS)
                n++;
        CHECK(n == 4);
        OK(nv.nvmlDeviceGetMigDeviceHandleByIndex(gpu(1), 1, &d));
        OK(nv.nvmlDeviceGetName(d, text, sizeof text));
        CHECK(str_eq(text, "NVIDIA A100-SXM4-80GB MIG 2g.20gb"));
        OK(nv.nvmlDeviceGetUUID(d, text, sizeof text));
        CHECK(strncmp(text, "MIG-", 4) == 0);
        OK(nv.nvmlDeviceGetGpuInstanceId(d, &v));
        OK(nv.nvmlDeviceGetComputeInstanceId(d, &w));
        CHECK(v == 3 && w == 0);
        OK(nv.nvmlDeviceGetAttributes_v2(d, &a));
        CHECK(a.gpu_slices == 2 && a.memory_mib == 19968 && a.multiprocessors == 28);
        OK(nv.nvmlDeviceGetMemoryInfo_v2(d, &mem));
        CHECK(mem.total == 19968 * MIB);
        OK(nv.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(d, &parent));
        CHECK(parent == gpu(1));
        CHECK(nv.nvmlDeviceGetMinorNumber(d, &v) == NVML_NOT_SUPPORTED);
        CHECK(nv.nvmlDeviceGetUtilizationRates(gpu(1), &u) == NVML_NOT_SUPPORTED);
        OK(nv.nvmlDeviceGetUtilizationRates(gpu(3), &u));
        CHECK(nv.nvmlDeviceGetGpuInstanceId(gpu(1), &v) == NVML_INVALID_ARGUMENT);
}

static void readings(void)
{
        struct nvml_memory_v2 mem = { .version = NVML_MEMORY_V2 };
        struct nvml_memory old;
        struct nvml_field f[3] = { { .field = NVML_FI_MEMORY_TEMPERATURE },
                                   { .field = NVML_FI_NVLINK_DATA_TX, .scope = NVML_SCOPE_ALL },
                                   { .field = 7777 } };
        struct nvml_process list[4];
        struct nvml_utilization u;
        unsigned v, n = 4;
        uint64_t big;

        say("util 0 40\nprocess 0 4321 1000\nleak 0 7\ntemperature 1 91\nthrottle 1 64\n");
        load("a100x8");
        OK(nv.nvmlInit_v2());
        OK(nv.nvmlDeviceGetUtilizationRates(gpu(0), &u));
        CHECK(u.gpu == 40);
        OK(nv.nvmlDeviceGetMemoryInfo_v2(gpu(0), &mem));
        CHECK(mem.used == 1011 * MIB && mem.total == 81920 * MIB && mem.reserved == 551 * MIB);
        CHECK(mem.used + mem.free + mem.reserved == mem.total);
        OK(nv.nvmlDeviceGetMemoryInfo(gpu(0), &old));
        CHECK(old.used == mem.used + mem.reserved);
        mem.version = 1;
        CHECK(nv.nvmlDeviceGetMemoryInfo_v2(gpu(0), &mem) == NVML_ARGUMENT_VERSION_MISMATCH);
        OK(nv.nvmlDeviceGetComputeRunningProcesses_v3(gpu(0), &n, list));
        CHECK(n == 1 && list[0].pid == 4321 && list[0].memory == 1000 * MIB);
        n = 0;
        CHECK(nv.nvmlDeviceGetComputeRunningProcesses_v3(gpu(0), &n, NULL) ==
              NVML_INSUFFICIENT_SIZE);
        CHECK(n == 1);
        n = 0;
        OK(nv.nvmlDeviceGetComputeRunningProcesses_v3(gpu(1), &n, NULL));
        OK(nv.nvmlDeviceGetTemperature(gpu(1), NVML_TEMPERATURE_GPU, &v));
        CHECK(v == 91);
        OK(nv.nvmlDeviceGetCurrentClocksEventReasons(gpu(1), &big));
        CHECK(big == NVML_REASON_HW_THERMAL);
        OK(nv.nvmlDeviceGetPowerUsage(gpu(2), &v));
        CHECK(v > 30000 && v < 410000);
        OK(nv.nvmlDeviceGetFieldValues(gpu(2), 3, f));
        CHECK(f[0].ret == NVML_SUCCESS && f[0].value.u32 > 30 && f[0].value.u32 < 110);
        CHECK(f[1].ret == NVML_SUCCESS && f[1].value_type == NVML_VALUE_ULLONG &&
              f[1].value.u64 > 0);
        CHECK(f[2].ret == NVML_NOT_SUPPORTED);
        CHECK(nv.nvmlDeviceGetFanSpeed(gpu(2), &v) == NVML_NOT_SUPPORTED);
}

static void troubles(void)
{
        unsigned v, pending, failed, w;
        char text[64];
        uint64_t big;

        load("a100x8");
        OK(nv.nvmlInit_v2());
        OK(nv.nvmlDeviceGetVbiosVersion(gpu(2), text, sizeof text));
        CHECK(str_eq(text, "92.00.45.00.05"));
        say("vbios 2 66.66\ninforom 2 G9\nfail 3 nvmlDeviceGetPowerUsage 999\necc 2 5\n"
            "ecc-corrected 2 9\nremap 4 pending\nremap 5 failed\nretired 4\nlose 6\n"
            "# a comment\nnonsense 1\nleak 0 x\nfail - nvmlDeviceGetCount_v2 17\n");
        OK(nv.nvmlDeviceGetVbiosVersion(gpu(2), text, sizeof text));
        CHECK(str_eq(text, "66.66"));
        OK(nv.nvmlDeviceGetInforomImageVersion(gpu(2), text, sizeof text));
        CHECK(str_eq(text, "G9"));
        CHECK(nv.nvmlDeviceGetPowerUsage(gpu(3), &v) == NVML_UNKNOWN);
        OK(nv.nvmlDeviceGetPowerUsage(gpu(2), &v));
        OK(nv.nvmlDeviceGetTotalEccErrors(gpu(2), NVML_ECC_UNCORRECTED, NVML_ECC_VOLATILE, &big));
        CHECK(big == 5);
        OK(nv.nvmlDeviceGetTotalEccErrors(gpu(2), NVML_ECC_CORRECTED, NVML_ECC_VOLATILE, &big));
        CHECK(big == 9);
        OK(nv.nvmlDeviceGetRemappedRows(gpu(4), &v, &w, &pending, &failed));
        CHECK(pending == 1 && failed == 0);
        OK(nv.nvmlDeviceGetRemappedRows(gpu(5), &v, &w, &pending, &failed));
        CHECK(pending == 0 && failed == 1);
        OK(nv.nvmlDeviceGetRetiredPagesPendingStatus(gpu(4), &v));
        CHECK(v == NVML_ENABLED);
        CHECK(nv.nvmlDeviceGetCount_v2(&v) == NVML_OPERATING_SYSTEM);
        say("lose 6\n");
        OK(nv.nvmlDeviceGetCount_v2(&v));
        CHECK(v == 8);
        {
                struct nvml_device *d;

                CHECK(nv.nvmlDeviceGetHandleByIndex_v2(6, &d) == NVML_GPU_IS_LOST);
                CHECK(nv.nvmlDeviceGetPowerUsage(d, &v) == NVML_GPU_IS_LOST);
        }
        OK(nv.nvmlShutdown());
        OK(nv.nvmlInit_v2());
        OK(nv.nvmlDeviceGetCount_v2(&v));
        CHECK(v == 7);
        OK(nv.nvmlDeviceGetMinorNumber(gpu(6), &v));
        CHECK(v == 7);
}

static void events(void)
{
        struct nvml_event_set *set, *late;
        struct nvml_event e;

        say("xid 1 13\n"); /* before anybody listens */
        load("a100x8");
        OK(nv.nvmlInit_v2());
        OK(nv.nvmlEventSetCreate(&set));
        for (unsigned i = 0; i < 4; i++)
                OK(nv.nvmlDeviceRegisterEvents(gpu(i), NVML_EVENT_XID | NVML_EVENT_ECC_DOUBLE,
                                               set));
        CHECK(nv.nvmlDeviceRegisterEvents(gpu(0), NVML_EVENT_CLOCK, set) == NVML_NOT_SUPPORTED);
        CHECK(nv.nvmlEventSetWait_v2(set, &e, 30) == NVML_TIMEOUT);
        say("xid 1 13\nxid 2 79\nxid 5 48\n");
        OK(nv.nvmlEventSetWait_v2(set, &e, 1000));
        CHECK(e.device == gpu(2) && e.type == NVML_EVENT_XID && e.data == 79);
        CHECK(nv.nvmlEventSetWait_v2(set, &e, 30) == NVML_TIMEOUT);
        say("xid 1 13\nxid 2 79\nxid 2 79 again\necc 3 2\n");
        OK(nv.nvmlEventSetWait_v2(set, &e, 1000));
        CHECK(e.device == gpu(2) && e.data == 79);
        OK(nv.nvmlEventSetWait_v2(set, &e, 1000));
        CHECK(e.device == gpu(3) && e.type == NVML_EVENT_ECC_DOUBLE);
        OK(nv.nvmlEventSetCreate(&late));
        OK(nv.nvmlDeviceRegisterEvents(gpu(2), NVML_EVENT_XID, late));
        CHECK(nv.nvmlEventSetWait_v2(late, &e, 0) == NVML_TIMEOUT);
        OK(nv.nvmlEventSetFree(set));
        OK(nv.nvmlEventSetFree(late));
}

static void hang_gpu(void)
{
        unsigned v;

        say("hang 1 nvmlDeviceGetPowerUsage\n");
        load("a100x8");
        OK(nv.nvmlInit_v2());
        OK(nv.nvmlDeviceGetPowerUsage(gpu(0), &v));
        CHECK(nv.nvmlDeviceGetFanSpeed(gpu(1), &v) == NVML_NOT_SUPPORTED);
        (void) alarm(1);
        (void) nv.nvmlDeviceGetPowerUsage(gpu(1), &v);
}

static void hang_start(void)
{
        say("hang - nvmlInit_v2\n");
        load("a100x8");
        (void) alarm(1);
        (void) nv.nvmlInit_v2();
}

static void no_description(void)
{
        load("nothing");
        CHECK(nv.nvmlInit_v2() == NVML_UNKNOWN);
        (void) unsetenv("HVMM_SIMULATED_FLEET");
        CHECK(nv.nvmlInit_v2() == NVML_DRIVER_NOT_LOADED); /* there is none on this machine */
}

#define CASE(name)                                                                                 \
        static void test_##name(void **state)                                                      \
        {                                                                                          \
                (void) state;                                                                      \
                assert_int_equal(in_child(name), 0);                                               \
        }
CASE(inventory)
CASE(links)
CASE(switches)
CASE(instances)
CASE(readings)
CASE(troubles)
CASE(events)
CASE(no_description)

static void test_hangs(void **state)
{
        (void) state;
        assert_int_equal(in_child(hang_gpu), SIGALRM);
        assert_int_equal(in_child(hang_start), SIGALRM);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)
        const struct CMUnitTest tests[] = {
                T(inventory), T(links),  T(switches), T(instances),      T(readings),
                T(troubles),  T(events), T(hangs),    T(no_description),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
