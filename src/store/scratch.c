/* scratch.c - see scratch.h. */
#include "store/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "store/bytes.h"

#define FIRST_BYTES (1ULL << 20)
#define STEP_BYTES  (64ULL << 20) /* doubles up to here, then grows in steps */

void scratch_init(struct scratch *s, int fd, uint64_t max)
{
        *s = (struct scratch){ .fd = fd, .max = max };
}

void scratch_done(struct scratch *s)
{
        if (s->p)
                (void) munmap(s->p, s->cap);
        s->p = NULL;
        s->len = s->cap = 0;
}

static int grow(struct scratch *s, uint64_t cap)
{
        void *p;
        int r;

        if (s->fd >= 0) {
                r = posix_fallocate(s->fd, (off_t) s->cap, (off_t) (cap - s->cap));
                if (r != 0)
                        return -r;
        }
        if (s->p)
                p = mremap(s->p, s->cap, cap, MREMAP_MAYMOVE);
        else
                p = mmap(NULL, cap, PROT_READ | PROT_WRITE,
                         s->fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS,
                         s->fd >= 0 ? s->fd : -1, 0);
        if (p == MAP_FAILED)
                return -errno;
        s->p = p;
        s->cap = cap;
        return 0;
}

int scratch_add(struct scratch *s, uint64_t n, void *ret, struct err *e)
{
        void *at;

        if (n > s->max || s->len > s->max - n)
                return err_set(e, -E2BIG,
                               "its entries need more than the %llu MiB that are allowed",
                               (unsigned long long) (s->max >> 20));
        if (s->len + n > s->cap) {
                uint64_t step = s->cap < STEP_BYTES ? s->cap : STEP_BYTES, cap;
                int r;

                cap = s->cap + (step > n ? step : n);
                r = grow(s, round_up(cap > FIRST_BYTES ? cap : FIRST_BYTES, 4096));
                if (r == -ENOSPC || r == -EDQUOT)
                        return err_set(e, r, "no space is left on the host's image store");
                if (r < 0)
                        return err_errno(e, r, "growing a table");
        }
        at = s->p + s->len;
        memcpy(ret, &at, sizeof at);
        s->len += n;
        return 0;
}
