/* fuzz_ldcache.c - libFuzzer target for /etc/ld.so.cache of an image (src/engine/sandbox/ldcache.c).
 *
 * Input: the cache.  Checked beside memory errors: what is written is a cache that is read again and
 * then stays as it is, and ours is in it.  A trap is a finding. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/sandbox/ldcache.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x))                                                                          \
                        __builtin_trap();                                                          \
        } while (0)

static const struct ldcache_entry ours[] = { { "libcuda.so.1", "/l/libcuda.so.1", LDCACHE_NATIVE },
                                             { "libcuda.so", "/l/libcuda.so", LDCACHE_NATIVE } };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        AUTO(free) void *one = NULL, *two = NULL;
        size_t one_len = 0, two_len = 0;
        struct err e = { .code = 0 };
        int r = ldcache_merge(data, size, ours, NELEM(ours), &one, &one_len, &e);

        if (r < 0) {
                CHECK(r == -EBADMSG && !one && e.code == r && e.msg[0]);
                return 0;
        }
        CHECK(one_len >= 48 + 2 * 24 && memcmp(one, "glibc-ld.so.cache1.1", 20) == 0);
        CHECK(memmem(one, one_len, "/l/libcuda.so.1", 16));
        CHECK(ldcache_merge(one, one_len, ours, NELEM(ours), &two, &two_len, &e) == 0);
        CHECK(one_len == two_len && memcmp(one, two, one_len) == 0);
        return 0;
}
