/* scrub.c - see scrub.h.  The program vmm-gpu, started for one GPU; a user of its own, no capability.
 *
 * The memory is taken in pieces, large ones first, until nothing is left to take; a kernel writes a
 * pattern that depends on the place, another one compares, the same with every bit turned round, and
 * zeros are what stays.  The pattern is a different one each time, so that what an earlier scrub left
 * proves nothing.  What the driver keeps for itself (and our context) cannot be had: the answer says
 * how much was. */
#include "gpu/scrub.h"

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/proc.h"
#include "base/str.h"
#include "gpu/cuda_abi.h"
#include "gpu/scrub_ptx.h"

#define MIB         (1ULL << 20)
#define PIECE_MOST  (1024 * MIB)
#define PIECE_LEAST MIB
#define PIECES      4096U /* 4 TiB in large ones */
#define BLOCK       256U
#define GRID        2048U

struct cuda {
#define X(name, args) int(*name) args;
        CUDA_FUNCTIONS(X)
#undef X
};

struct piece {
        cuda_pointer at;
        size_t bytes;
};

struct scrub {
        struct cuda cu;
        struct piece pieces[PIECES];
        size_t n;
        cuda_pointer bad; /* a counter in the GPU's memory */
        struct cuda_function *write, *compare;
        size_t total, covered;
        uint64_t mismatches;
};

static int open_cuda(struct cuda *cu, const char *path, struct err *e)
{
        void *lib = dlopen(path ? path : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL), *f;

        if (!lib)
                return err_set(e, -ENOENT, "there is no CUDA driver library: %s", dlerror());
#define X(name, args)                                                                              \
        f = dlsym(lib, #name);                                                                     \
        if (!f)                                                                                    \
                return err_set(e, -ENOENT, "the CUDA driver library has no " #name);               \
        memcpy(&cu->name, &f, sizeof f);
        CUDA_FUNCTIONS(X)
#undef X
        return 0; /* the library stays until the process ends, which is soon */
}

static int check(const struct cuda *cu, const char *what, int code, struct err *e)
{
        const char *why = NULL;

        if (code == CUDA_OK)
                return 0;
        if (cu->cuGetErrorString(code, &why) != CUDA_OK || !why)
                why = "unknown error";
        return err_set(e, code == CUDA_NO_DEVICE || code == CUDA_INVALID_DEVICE ? -ENODEV : -EIO,
                       "%s: %s (%d)", what, why, code);
}

#define CALL(s, e, name, ...) check(&(s)->cu, #name, (s)->cu.name(__VA_ARGS__), e)

/* Until the GPU has done it all; what went wrong in a kernel is said here. */
static int synchronize(const struct scrub *s, struct err *e)
{
        return check(&s->cu, "cuCtxSynchronize", s->cu.cuCtxSynchronize(), e);
}

/* "GPU-01234567-89ab-..." are the sixteen bytes in hex. */
static void uuid_text(const struct cuda_uuid *u, char ret[static 37])
{
        char hex[33], *to = ret;

        hex_encode(u->bytes, sizeof u->bytes, hex);
        for (size_t i = 0; i < 32; i++) {
                if (i == 8 || i == 12 || i == 16 || i == 20)
                        *to++ = '-';
                *to++ = hex[i];
        }
        *to = '\0';
}

/* The library shows only what the environment names; whether it is the right one is asked, too. */
static int find_device(struct scrub *s, const char *uuid, int *ret, struct err *e)
{
        const char *bare = strchr(uuid, '-');
        struct cuda_uuid u;
        char text[37];
        int n = 0, r;

        if (setenv("CUDA_VISIBLE_DEVICES", uuid, 1) < 0 ||
            setenv("CUDA_CACHE_DISABLE", "1", 1) < 0 || unsetenv("CUDA_MPS_PIPE_DIRECTORY") < 0 ||
            unsetenv("CUDA_INJECTION64_PATH") < 0)
                return err_errno(e, -errno, "environment");
        r = CALL(s, e, cuInit, 0);
        if (r >= 0)
                r = CALL(s, e, cuDeviceGetCount, &n);
        if (r >= 0 && n != 1)
                r = err_set(e, -ENODEV, "CUDA shows %d GPUs where %s was asked for", n, uuid);
        if (r >= 0)
                r = CALL(s, e, cuDeviceGet, ret, 0);
        if (r >= 0)
                r = CALL(s, e, cuDeviceGetUuid_v2, &u, *ret);
        if (r < 0)
                return r;
        uuid_text(&u, text);
        if (!bare || strcasecmp(text, bare + 1) != 0)
                return err_set(e, -ENODEV, "CUDA shows %s where %s was asked for", text, uuid);
        return CALL(s, e, cuDeviceTotalMem_v2, &s->total, *ret);
}

static int prepare(struct scrub *s, int device, struct err *e)
{
        struct cuda_context *context = NULL;
        struct cuda_module *module = NULL;
        int r = CALL(s, e, cuDevicePrimaryCtxRetain, &context, device);

        if (r >= 0)
                r = CALL(s, e, cuCtxSetCurrent, context);
        if (r >= 0)
                r = CALL(s, e, cuModuleLoadData, &module, scrub_ptx);
        if (r >= 0)
                r = CALL(s, e, cuModuleGetFunction, &s->write, module, "scrub_write");
        if (r >= 0)
                r = CALL(s, e, cuModuleGetFunction, &s->compare, module, "scrub_compare");
        if (r >= 0)
                r = CALL(s, e, cuMemAlloc_v2, &s->bad, sizeof(uint64_t));
        return r < 0 ? r : CALL(s, e, cuMemsetD32_v2, s->bad, 0, 2);
}

static int take_all(struct scrub *s, struct err *e)
{
        for (size_t size = PIECE_MOST; size >= PIECE_LEAST && s->n < PIECES;) {
                struct piece *p = &s->pieces[s->n];
                int code = s->cu.cuMemAlloc_v2(&p->at, size);

                if (code == CUDA_OUT_OF_MEMORY) {
                        size /= 2;
                        continue;
                }
                if (code != CUDA_OK)
                        return check(&s->cu, "cuMemAlloc_v2", code, e);
                p->bytes = size;
                s->covered += size;
                s->n++;
        }
        return s->n ? 0 : err_set(e, -EIO, "no memory of the GPU could be had");
}

static int each_piece(struct scrub *s, struct cuda_function *kernel, uint64_t seed, uint64_t flip,
                      struct err *e)
{
        int r = 0;

        for (size_t i = 0; r >= 0 && i < s->n; i++) {
                uint64_t words = s->pieces[i].bytes / 8, own = seed + i;
                void *args[] = { &s->pieces[i].at, &words, &own, &flip, &s->bad };

                r = CALL(s, e, cuLaunchKernel, kernel, GRID, 1, 1, BLOCK, 1, 1, 0, NULL, args,
                         NULL);
        }
        return r < 0 ? r : synchronize(s, e);
}

static int work(struct scrub *s, struct err *e)
{
        uint64_t seed = 0;
        int r = rand_bytes(&seed, sizeof seed);

        if (r < 0)
                return err_errno(e, r, "random numbers");
        for (uint64_t flip = 0, round = 0; r >= 0 && round < 2; round++, flip = ~flip) {
                r = each_piece(s, s->write, seed, flip, e);
                if (r >= 0)
                        r = each_piece(s, s->compare, seed, flip, e);
        }
        for (size_t i = 0; r >= 0 && i < s->n; i++)
                r = CALL(s, e, cuMemsetD32_v2, s->pieces[i].at, 0, s->pieces[i].bytes / 4);
        if (r >= 0)
                r = synchronize(s, e);
        if (r >= 0)
                r = CALL(s, e, cuMemcpyDtoH_v2, &s->mismatches, s->bad, sizeof s->mismatches);
        if (r >= 0 && s->mismatches)
                r = err_set(e, -EBADMSG,
                            "%" PRIu64 " words of its memory did not keep what was written",
                            s->mismatches);
        return r;
}

int scrub_gpu(const struct scrub_args *a, json_t **ret, struct err *e)
{
        AUTO(free) struct scrub *s = calloc(1, sizeof *s);
        uint64_t began = clock_mono_us();
        int device = -1, r;

        if (!s)
                return err_set(e, -ENOMEM, "out of memory");
        r = open_cuda(&s->cu, a->cuda, e);
        if (r >= 0)
                r = find_device(s, a->uuid, &device, e);
        if (r >= 0)
                r = prepare(s, device, e);
        if (r >= 0)
                r = take_all(s, e);
        if (r >= 0)
                r = work(s, e);
        if (ret) {
                *ret = json_pack("{s:s, s:I, s:I, s:I, s:I}", "uuid", a->uuid, "total_mib",
                                 (json_int_t) (s->total / MIB), "covered_mib",
                                 (json_int_t) (s->covered / MIB), "mismatches",
                                 (json_int_t) s->mismatches, "ms",
                                 (json_int_t) ((clock_mono_us() - began) / US_PER_MS));
                if (!*ret && r >= 0)
                        r = err_set(e, -ENOMEM, "out of memory");
        }
        return r;
}

int scrub_main(const struct scrub_args *a)
{
        AUTO(json_put) json_t *j = NULL;
        AUTO(free) char *text = NULL;
        struct err e = { 0 };
        int r = scrub_gpu(a, &j, &e);

        if (!j)
                j = json_object();
        str_tame(e.msg, '?');
        if (r < 0 && j) {
                (void) json_object_set_new(j, "error", json_string(e.msg));
                (void) json_object_set_new(j, "errno", json_integer(-r));
        }
        text = j ? jsonx_dump(j) : NULL;
        if (!text || puts(text) < 0 || fflush(stdout) != 0)
                return 1;
        return r < 0 ? 1 : 0;
}
