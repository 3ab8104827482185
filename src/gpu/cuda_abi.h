/* cuda_abi.h - the few functions of the CUDA driver library (libcuda.so.1) that a scrub and tests/gpu need, declared
 * by ourselves because building must not need the vendor's header.  src/gpu/scrub.c looks them up at run
 * time; tests/fakes/cuda defines them.
 *
 * Names are the library's symbols: where the interface changed once, the old symbol is another
 * function, so each is asked for by its suffix.  The newest of them is of CUDA 11.4 (driver 470).  Every
 * function returns int, 0 is success. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct cuda_context;
struct cuda_module;
struct cuda_function;
struct cuda_stream;

typedef uint64_t cuda_pointer; /* an address of the GPU's memory */

enum {
        CUDA_OK = 0,
        CUDA_INVALID_VALUE = 1,
        CUDA_OUT_OF_MEMORY = 2,
        CUDA_NOT_INITIALIZED = 3,
        CUDA_NO_DEVICE = 100,
        CUDA_INVALID_DEVICE = 101,
        CUDA_INVALID_IMAGE = 200,
        CUDA_INVALID_CONTEXT = 201,
        CUDA_NOT_FOUND = 500
};

struct cuda_uuid {
        unsigned char bytes[16];
};

/* X(symbol, arguments) */
#define CUDA_FUNCTIONS(X)                                                                          \
        X(cuInit, (unsigned flags))                                                                \
        X(cuDeviceGetCount, (int *ret))                                                            \
        X(cuDeviceGet, (int *ret, int ordinal))                                                    \
        X(cuDeviceGetUuid_v2, (struct cuda_uuid * ret, int device))                                \
        X(cuDeviceTotalMem_v2, (size_t * ret, int device))                                         \
        X(cuDevicePrimaryCtxRetain, (struct cuda_context * *ret, int device))                      \
        X(cuCtxSetCurrent, (struct cuda_context * context))                                        \
        X(cuCtxSynchronize, (void) )                                                               \
        X(cuMemAlloc_v2, (cuda_pointer * ret, size_t bytes))                                       \
        X(cuMemsetD32_v2, (cuda_pointer p, unsigned value, size_t words))                          \
        X(cuMemcpyHtoD_v2, (cuda_pointer to, const void *from, size_t bytes))                      \
        X(cuMemcpyDtoH_v2, (void *to, cuda_pointer from, size_t bytes))                            \
        X(cuModuleLoadData, (struct cuda_module * *ret, const void *image))                        \
        X(cuModuleGetFunction,                                                                     \
          (struct cuda_function * *ret, struct cuda_module * module, const char *name))            \
        X(cuLaunchKernel,                                                                          \
          (struct cuda_function * function, unsigned grid_x, unsigned grid_y, unsigned grid_z,     \
           unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,            \
           struct cuda_stream *stream, void **arguments, void **extra))                            \
        X(cuGetErrorString, (int error, const char **ret))
