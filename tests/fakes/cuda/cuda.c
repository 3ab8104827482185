/* cuda.c - a libcuda.so.1 that works on a little of the host's memory: what a scrub does runs for real
 * here, without a GPU.  *Simulated*: it knows the kernels of src/gpu/scrub.c and tests/gpu by their names
 * and computes in C what their PTX says; it is no CUDA.
 *
 * $HVMM_FAKE_CUDA, or the file "cuda-faults" beside the fleet's description ($HVMM_SIMULATED_FLEET),
 * changes how it behaves; words separated by blanks:  size=MIB (64)  flip=N (a bit of word N never keeps 0)  hang (cuCtxSynchronize does not come
 * back)  fail=SYMBOL  device=none|other  */
#include <glob.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpu/cuda_abi.h"

#define DEFAULT_MIB 64
#define OWN_BYTES   (4U << 20) /* what a context takes */
#define ALIGN       256U
#define KERNELS     2

struct cuda_function {
        bool compare;
};

/* The library's state is the process's, as in the real one. */
static struct {
        bool up;
        unsigned char *memory;
        size_t size, used;
        struct cuda_function kernels[KERNELS];
        char words[512];
} fake;

/* The value behind "name=", "" for the bare word, NULL when it is not there. */
static const char *option(const char *name)
{
        const char *at = fake.words;
        size_t n = strlen(name);

        while ((at = strstr(at, name)) != NULL) {
                bool begins = at == fake.words || at[-1] == ' ';

                at += n;
                if (begins && *at == '=')
                        return at + 1;
                if (begins && (*at == ' ' || *at == '\0'))
                        return "";
        }
        return NULL;
}

static bool option_is(const char *name, const char *value)
{
        const char *v = option(name);
        size_t n = strlen(value);

        return v && strncmp(v, value, n) == 0 && (v[n] == ' ' || v[n] == '\0');
}

static void read_options(void)
{
        const char *words = getenv("HVMM_FAKE_CUDA"), *fleet = getenv("HVMM_SIMULATED_FLEET");
        const char *slash = fleet ? strrchr(fleet, '/') : NULL;
        char path[512];
        FILE *f;

        if (words || !slash) {
                (void) snprintf(fake.words, sizeof fake.words, "%s", words ? words : "");
                return;
        }
        (void) snprintf(path, sizeof path, "%.*s/cuda-faults", (int) (slash - fleet), fleet);
        f = fopen(path, "re");
        if (f) {
                size_t n = fread(fake.words, 1, sizeof fake.words - 1, f);

                fake.words[n] = '\0';
                fake.words[strcspn(fake.words, "\n")] = '\0';
                (void) fclose(f);
        }
}

#define CHECK(symbol)                                                                              \
        do {                                                                                       \
                if (!fake.up)                                                                      \
                        return CUDA_NOT_INITIALIZED;                                               \
                if (option_is("fail", #symbol))                                                    \
                        return CUDA_INVALID_VALUE;                                                 \
        } while (0)

#define X(name, args) int name args;
CUDA_FUNCTIONS(X)
#undef X

int cuInit(unsigned flags)
{
        read_options();
        fake.up = true;
        CHECK(cuInit);
        return flags == 0 ? CUDA_OK : CUDA_INVALID_VALUE;
}

/* What the driver's /proc says of the first GPU that can be seen. */
static void look_in_proc(char *ret, size_t size)
{
        static const char key[] = "GPU UUID:";
        char line[256];
        glob_t g;

        if (glob("/proc/driver/nvidia/gpus/*/information", 0, NULL, &g) != 0)
                return;
        for (size_t i = 0; i < g.gl_pathc && !*ret; i++) {
                FILE *f = fopen(g.gl_pathv[i], "re");

                while (f && fgets(line, sizeof line, f)) {
                        if (strncmp(line, key, sizeof key - 1) != 0)
                                continue;
                        (void) snprintf(ret, size, "%s",
                                        line + sizeof key - 1 +
                                                strspn(line + sizeof key - 1, " \t"));
                        ret[strcspn(ret, "\n")] = '\0';
                }
                if (f)
                        (void) fclose(f);
        }
        globfree(&g);
}

/* One GPU at most: the one that the environment names by its UUID, or the first one of a cluster. */
static const char *the_gpu(void)
{
        static char uuid[80];
        const char *visible = getenv("CUDA_VISIBLE_DEVICES");

        uuid[0] = '\0';
        if (visible && strchr(visible, '-'))
                (void) snprintf(uuid, sizeof uuid, "%s", visible);
        else if (!visible)
                look_in_proc(uuid, sizeof uuid);
        return uuid;
}

int cuDeviceGetCount(int *ret)
{
        CHECK(cuDeviceGetCount);
        *ret = *the_gpu() && !option_is("device", "none");
        return CUDA_OK;
}

int cuDeviceGet(int *ret, int ordinal)
{
        int n = 0;

        CHECK(cuDeviceGet);
        if (cuDeviceGetCount(&n) != CUDA_OK || ordinal < 0 || ordinal >= n)
                return CUDA_INVALID_DEVICE;
        *ret = ordinal;
        return CUDA_OK;
}

int cuDeviceGetUuid_v2(struct cuda_uuid *ret, int device)
{
        const char *at = strchr(the_gpu(), '-');

        CHECK(cuDeviceGetUuid_v2);
        if (device != 0 || !at)
                return CUDA_INVALID_DEVICE;
        for (size_t i = 0; i < sizeof ret->bytes; i++) {
                unsigned byte = 0;

                at += *at == '-';
                if (sscanf(at, "%2x", &byte) != 1)
                        return CUDA_INVALID_DEVICE;
                ret->bytes[i] = (unsigned char) byte;
                at += 2;
        }
        ret->bytes[0] ^= option_is("device", "other");
        return CUDA_OK;
}

static size_t total(void)
{
        const char *size = option("size");

        return (size ? strtoul(size, NULL, 10) : DEFAULT_MIB) << 20;
}

int cuDeviceTotalMem_v2(size_t *ret, int device)
{
        CHECK(cuDeviceTotalMem_v2);
        *ret = total();
        return device == 0 ? CUDA_OK : CUDA_INVALID_DEVICE;
}

int cuDevicePrimaryCtxRetain(struct cuda_context **ret, int device)
{
        CHECK(cuDevicePrimaryCtxRetain);
        if (device != 0)
                return CUDA_INVALID_DEVICE;
        if (!fake.memory) {
                fake.size = total() > OWN_BYTES ? total() - OWN_BYTES : 0;
                fake.memory = aligned_alloc(ALIGN, fake.size);
                if (!fake.memory)
                        return CUDA_OUT_OF_MEMORY;
                memset(fake.memory, 0xa5, fake.size); /* what somebody else left there */
        }
        *ret = (struct cuda_context *) (void *) fake.memory;
        return CUDA_OK;
}

int cuCtxSetCurrent(struct cuda_context *context)
{
        CHECK(cuCtxSetCurrent);
        return context && (void *) context == (void *) fake.memory ? CUDA_OK : CUDA_INVALID_CONTEXT;
}

int cuCtxSynchronize(void)
{
        CHECK(cuCtxSynchronize);
        while (option("hang"))
                (void) pause();
        return CUDA_OK;
}

int cuMemAlloc_v2(cuda_pointer *ret, size_t bytes)
{
        size_t whole = (bytes + ALIGN - 1) / ALIGN * ALIGN;

        CHECK(cuMemAlloc_v2);
        if (!fake.memory)
                return CUDA_INVALID_CONTEXT;
        if (whole > fake.size - fake.used)
                return CUDA_OUT_OF_MEMORY;
        *ret = (cuda_pointer) (uintptr_t) (fake.memory + fake.used);
        fake.used += whole;
        return CUDA_OK;
}

/* The bytes at @p when all of them were allocated. */
static void *host(cuda_pointer p, size_t bytes)
{
        uintptr_t at = (uintptr_t) p, base = (uintptr_t) fake.memory;

        return fake.memory && at >= base && at - base <= fake.used &&
                               bytes <= fake.used - (at - base)
                       ? fake.memory + (at - base)
                       : NULL;
}

int cuMemsetD32_v2(cuda_pointer p, unsigned value, size_t words)
{
        unsigned *to = host(p, words * 4);

        CHECK(cuMemsetD32_v2);
        if (!to)
                return CUDA_INVALID_VALUE;
        for (size_t i = 0; i < words; i++)
                to[i] = value;
        return CUDA_OK;
}

int cuMemcpyHtoD_v2(cuda_pointer to, const void *from, size_t bytes)
{
        void *at = host(to, bytes);

        CHECK(cuMemcpyHtoD_v2);
        if (!at)
                return CUDA_INVALID_VALUE;
        memcpy(at, from, bytes);
        return CUDA_OK;
}

int cuMemcpyDtoH_v2(void *to, cuda_pointer from, size_t bytes)
{
        const void *at = host(from, bytes);

        CHECK(cuMemcpyDtoH_v2);
        if (!at)
                return CUDA_INVALID_VALUE;
        memcpy(to, at, bytes);
        return CUDA_OK;
}

int cuModuleLoadData(struct cuda_module **ret, const void *image)
{
        CHECK(cuModuleLoadData);
        if (!strstr(image, ".version ") || !strstr(image, ".entry scrub_write("))
                return CUDA_INVALID_IMAGE;
        *ret = (struct cuda_module *) (void *) &fake;
        return CUDA_OK;
}

int cuModuleGetFunction(struct cuda_function **ret, struct cuda_module *module, const char *name)
{
        static const char *const names[KERNELS] = { "scrub_write", "scrub_compare" };

        CHECK(cuModuleGetFunction);
        for (size_t i = 0; module && i < KERNELS; i++) {
                if (strcmp(name, names[i]) != 0)
                        continue;
                fake.kernels[i].compare = i == 1;
                *ret = &fake.kernels[i];
                return CUDA_OK;
        }
        return CUDA_NOT_FOUND;
}

int cuLaunchKernel(struct cuda_function *function, unsigned grid_x, unsigned grid_y,
                   unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
                   unsigned shared_bytes, struct cuda_stream *stream, void **arguments,
                   void **extra)
{
        uint64_t n = *(uint64_t *) arguments[1], seed = *(uint64_t *) arguments[2];
        uint64_t flip = *(uint64_t *) arguments[3];
        uint64_t *p = host(*(cuda_pointer *) arguments[0], n * 8);
        uint64_t *bad = host(*(cuda_pointer *) arguments[4], 8);
        const char *weak = option("flip");
        uint64_t weak_at = weak ? strtoull(weak, NULL, 10) : UINT64_MAX;

        CHECK(cuLaunchKernel);
        if (!p || !bad || !grid_x || !block_x || grid_y * grid_z * block_y * block_z != 1 ||
            shared_bytes || stream || extra)
                return CUDA_INVALID_VALUE;
        for (uint64_t i = 0; i < n; i++) {
                uint64_t want = (i * 0x9E3779B97F4A7C15U + seed) ^ flip;

                if (!function->compare)
                        p[i] = i == weak_at ? want | 1 : want;
                else if (p[i] != want)
                        ++*bad;
        }
        return CUDA_OK;
}

int cuGetErrorString(int error, const char **ret)
{
        *ret = error == CUDA_OUT_OF_MEMORY ? "out of memory (simulated)" : "an error (simulated)";
        return CUDA_OK;
}
