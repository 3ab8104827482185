/* mem.h - ownership helpers used everywhere.
 *
 * AUTO(f) frees an owning local when it leaves scope: `AUTO(free) char *s = NULL;`,
 * `AUTO(fd) int fd = -EBADF;`, or any type that has a DEFINE_AUTO() beside its destructor.
 * TAKE(p) hands a pointer on and leaves NULL behind, so that the one success exit keeps it. */
#pragma once
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define AUTO(f)  __attribute__((cleanup(f##_cleanup)))
#define NELEM(a) (sizeof(a) / sizeof((a)[0]))
#define TAKE(p)  mem_take(&(p))

/* Declare that locals of type @T may be AUTO(@f); @f accepts the value and NULL. */
#define DEFINE_AUTO(T, f)                                                                          \
        static inline void f##_cleanup(T *p)                                                       \
        {                                                                                          \
                if (*p)                                                                            \
                        (void) f(*p);                                                              \
        }

static inline void *mem_take(void *pp)
{
        void *p, *null = NULL;

        memcpy(&p, pp, sizeof p);
        memcpy(pp, &null, sizeof null);
        return p;
}

static inline void free_cleanup(void *pp)
{
        free(mem_take(pp));
}

/* Overwrite a secret in a way that the compiler keeps, then free it.  Accepts NULL. */
static inline char *str_wipe_free(char *s)
{
        if (s)
                explicit_bzero(s, strlen(s));
        free(s);
        return NULL;
}

DEFINE_AUTO(char *, str_wipe_free)
