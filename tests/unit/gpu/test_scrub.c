/* test_scrub.c - the scrub against the stand-in CUDA library (tests/fakes/cuda, *simulated*): the way
 * through its calls, what it says of memory that does not keep, and what it does when calls fail.
 * Each case is a process of its own, as in the product: the library's state is the process's. */
#include "gpu/scrub.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "base/jsonx.h"

#define UUID "GPU-0a1b2c3d-0000-1111-2222-333344445555"

/* What @words make of a scrub: its own answer, "r covered total mismatches message". */
static void in_child(const char *words, const char *uuid, const char *cuda, char *ret, size_t size)
{
        int out[2], status = -1;
        size_t n = 0;
        ssize_t got;
        pid_t pid;

        assert_int_equal(pipe(out), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                const struct scrub_args a = { uuid, cuda };
                AUTO(json_put) json_t *j = NULL;
                struct err e = { 0 };
                int r;

                (void) alarm(20);
                (void) setenv("HVMM_FAKE_CUDA", words, 1);
                r = scrub_gpu(&a, &j, &e);
                (void) dprintf(out[1], "%d %lld %lld %lld %s", r,
                               json_integer_value(json_object_get(j, "covered_mib")),
                               json_integer_value(json_object_get(j, "total_mib")),
                               json_integer_value(json_object_get(j, "mismatches")), e.msg);
                _exit(0);
        }
        (void) close(out[1]);
        while ((got = read(out[0], ret + n, size - 1 - n)) > 0)
                n += (size_t) got;
        ret[n] = '\0';
        (void) close(out[0]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

static void test_scrub(void **state)
{
        static const struct {
                const char *words, *says;
                int r;
        } t[] = {
                /* all but what the context takes, to the MiB */
                { "", "0 59 64 0 ", 0 },
                { "size=37", "0 32 37 0 ", 0 },
                { "size=6", "0 1 6 0 ", 0 },
                { "size=4", "cuMemAlloc_v2: out of memory", -EIO },
                { "size=5", "no memory of the GPU could be had", -EIO },
                /* a bit that stays 1 is found once in each of the two rounds at most */
                { "flip=1000", "words of its memory did not keep", -EBADMSG },
                { "device=none", "shows 0 GPUs where " UUID, -ENODEV },
                { "device=other", "shows 0b1b2c3d-0000-1111-2222-333344445555 where " UUID,
                  -ENODEV },
                { "fail=cuInit", "cuInit: ", -EIO },
                { "fail=cuDeviceGetUuid_v2", "cuDeviceGetUuid_v2: ", -EIO },
                { "fail=cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRetain: ", -EIO },
                { "fail=cuModuleLoadData", "cuModuleLoadData: ", -EIO },
                { "fail=cuMemAlloc_v2", "cuMemAlloc_v2: ", -EIO },
                { "fail=cuLaunchKernel", "cuLaunchKernel: ", -EIO },
                { "fail=cuMemcpyDtoH_v2", "cuMemcpyDtoH_v2: an error (simulated) (1)", -EIO },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                char said[1024];

                in_child(t[i].words, UUID, FAKE_CUDA, said, sizeof said);
                if (strtol(said, NULL, 10) != t[i].r || !strstr(said, t[i].says))
                        fail_msg("row %zu (%s): %s", i, t[i].words, said);
        }
}

static void test_no_library(void **state)
{
        char said[1024];

        (void) state;
        in_child("", UUID, "/nonexistent/libcuda.so.1", said, sizeof said);
        assert_int_equal(strtol(said, NULL, 10), -ENOENT);
        assert_non_null(strstr(said, "there is no CUDA driver library"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_scrub),
                cmocka_unit_test(test_no_library),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
