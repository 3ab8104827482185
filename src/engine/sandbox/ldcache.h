/* ldcache.h - the dynamic loader's cache (/etc/ld.so.cache, glibc's format since 2.2): read, add to,
 * write.  What ldconfig would do, without running a program of the image's or looking at its files.
 *
 * The old cache comes out of an image, so every byte of it is doubted; it is read by the first
 * process inside the cluster's namespaces, which has no right outside.  Pure. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct ldcache_entry {
        const char *name, *path; /* "libcuda.so.1", "/usr/lib64/libcuda.so.1" */
        uint32_t flags;          /* LDCACHE_NATIVE or LDCACHE_32 */
};

#define LDCACHE_LIBC6 0x0003U /* ELF, libc 6 */
#if defined(__x86_64__)
#define LDCACHE_NATIVE (LDCACHE_LIBC6 | 0x0300U)
#elif defined(__aarch64__)
#define LDCACHE_NATIVE (LDCACHE_LIBC6 | 0x0a00U)
#else
#error "the loader's flag for 64-bit libraries of this machine"
#endif
#define LDCACHE_32 LDCACHE_LIBC6 /* i386 */

#define LDCACHE_MAX_BYTES (8U << 20) /* of an old cache; Debian's is 20 KiB, a desktop's 200 */
#define LDCACHE_MAX_LIBS  65536U

/* A new cache (heap, the caller's) of what the @len bytes at @old say and of @add; an entry of
 * @old with the same name for the same kind of machine gives way.  NULL: there was none.  -EBADMSG: it
 * is no cache, which the loader would pass over, too; call again without it. */
int ldcache_merge(const void *old, size_t len, const struct ldcache_entry *add, size_t n,
                  void **ret, size_t *ret_len, struct err *e);

/* How the loader orders names: by runs of digits as numbers, by bytes else. */
int ldcache_compare(const char *a, const char *b);
