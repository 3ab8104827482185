/* cuda_probe.c - a CUDA program that needs no toolkit: what one GPU does in how long.  tests/gpu/run runs
 * it in a cluster and outside of it and compares.
 *
 *   cuda_probe [MIB] [ROUNDS]     exit status 0 and one line of JSON:
 *   {"gpus":1,"uuid":"0a1b...","kernel_us":N,"to_gpu_mib_s":N,"from_gpu_mib_s":N,"mismatches":0}
 *
 * The best of the rounds counts: what is compared is what the GPU can do, not who else was busy. */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gpu/cuda_abi.h"
#include "gpu/scrub_ptx.h"

#define MIB (1U << 20)

/* The library's functions are looked up under their own names. */
static struct {
#define X(name, args) int(*name) args;
        CUDA_FUNCTIONS(X)
#undef X
} cu;

static double now_us(void)
{
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (double) t.tv_sec * 1e6 + (double) t.tv_nsec / 1e3;
}

static void need(int code, const char *what)
{
        const char *why = "?";

        if (code == CUDA_OK)
                return;
        (void) cu.cuGetErrorString(code, &why);
        (void) fprintf(stderr, "%s: %s (%d)\n", what, why, code);
        exit(1);
}
#define CALL(name, ...) need(cu.name(__VA_ARGS__), #name)

static void open_library(void)
{
        void *lib = dlopen("libcuda.so.1", RTLD_NOW), *f;

        if (!lib) {
                (void) fprintf(stderr, "%s\n", dlerror());
                exit(2);
        }
#define X(name, args)                                                                              \
        f = dlsym(lib, #name);                                                                     \
        if (!f) {                                                                                  \
                (void) fprintf(stderr, "libcuda.so.1 has no " #name "\n");                         \
                exit(2);                                                                           \
        }                                                                                          \
        memcpy(&cu.name, &f, sizeof f);
        CUDA_FUNCTIONS(X)
#undef X
}

struct best {
        double kernel_us, to_us, from_us;
};

static void better(double *best, double took)
{
        if (*best <= 0 || took < *best)
                *best = took;
}

static void launch(struct cuda_function *f, cuda_pointer p, uint64_t words, cuda_pointer bad)
{
        uint64_t seed = 7, flip = 0;
        void *args[] = { &p, &words, &seed, &flip, &bad };

        CALL(cuLaunchKernel, f, 2048, 1, 1, 256, 1, 1, 0, NULL, args, NULL);
        need(cu.cuCtxSynchronize(), "cuCtxSynchronize");
}

static void one_round(struct cuda_function *write, cuda_pointer p, size_t bytes, void *host,
                      cuda_pointer bad, struct best *b)
{
        double at = now_us();

        launch(write, p, bytes / 8, bad);
        better(&b->kernel_us, now_us() - at);
        at = now_us();
        CALL(cuMemcpyDtoH_v2, host, p, bytes);
        better(&b->from_us, now_us() - at);
        at = now_us();
        CALL(cuMemcpyHtoD_v2, p, host, bytes);
        better(&b->to_us, now_us() - at);
}

int main(int argc, char **argv)
{
        size_t mib = argc > 1 ? strtoul(argv[1], NULL, 10) : 256, bytes = mib * MIB;
        unsigned long rounds = argc > 2 ? strtoul(argv[2], NULL, 10) : 50;
        struct cuda_function *write = NULL, *compare = NULL;
        struct cuda_context *context = NULL;
        struct cuda_module *module = NULL;
        cuda_pointer p = 0, bad = 0;
        uint64_t mismatches = 0;
        struct best b = { 0 };
        struct cuda_uuid uuid;
        void *host = bytes ? malloc(bytes) : NULL;
        int gpus = 0, device = 0;

        if (!host) {
                (void) fprintf(stderr, "no memory for %zu MiB\n", mib);
                return 1;
        }
        open_library();
        CALL(cuInit, 0);
        CALL(cuDeviceGetCount, &gpus);
        CALL(cuDeviceGet, &device, 0);
        CALL(cuDeviceGetUuid_v2, &uuid, device);
        CALL(cuDevicePrimaryCtxRetain, &context, device);
        CALL(cuCtxSetCurrent, context);
        CALL(cuModuleLoadData, &module, scrub_ptx);
        CALL(cuModuleGetFunction, &write, module, "scrub_write");
        CALL(cuModuleGetFunction, &compare, module, "scrub_compare");
        CALL(cuMemAlloc_v2, &bad, sizeof bad);
        CALL(cuMemsetD32_v2, bad, 0, 2);
        CALL(cuMemAlloc_v2, &p, bytes);
        for (unsigned long i = 0; i < rounds; i++)
                one_round(write, p, bytes, host, bad, &b);
        launch(compare, p, bytes / 8, bad);
        CALL(cuMemcpyDtoH_v2, &mismatches, bad, sizeof mismatches);
        (void) printf("{\"gpus\":%d,\"uuid\":\"", gpus);
        for (size_t i = 0; i < sizeof uuid.bytes; i++)
                (void) printf("%02x", uuid.bytes[i]);
        (void) printf("\",\"kernel_us\":%.1f,\"to_gpu_mib_s\":%.0f,\"from_gpu_mib_s\":%.0f,"
                      "\"mismatches\":%llu}\n",
                      b.kernel_us, (double) mib * 1e6 / b.to_us, (double) mib * 1e6 / b.from_us,
                      (unsigned long long) mismatches);
        return mismatches == 0 ? 0 : 1;
}
