/* run.c - see run.h. */
#include "run.h"

#include <errno.h>
#include <sys/statvfs.h>

#include "base/clock.h"

#define GRACE_US (2 * US_PER_S) /* fetchers report a deadline better than we do */
#define WATCH_MS 250            /* how often free space and progress are looked at */

/* The host keeps a twentieth of the file system, at most 1 GiB, for everything but images; and of its
 * inodes, where their number is fixed: each object takes one. */
static int check_space(const struct run *run, struct err *e)
{
        struct statvfs v;
        uint64_t keep;

        if (fstatvfs(run->store->staging_fd, &v) < 0)
                return err_errno(e, -errno, "statvfs");
        keep = v.f_blocks * v.f_frsize / 20;
        if (keep > 1ULL << 30)
                keep = 1ULL << 30;
        if (v.f_bavail * v.f_frsize < keep)
                return err_set(e, -ENOSPC, "no space is left on the host's image store");
        if (v.f_files && v.f_favail < v.f_files / 20)
                return err_set(e, -ENOSPC, "no inodes are left on the host's image store");
        return 0;
}

int run_listen(const struct run *run, struct pollfd *p, size_t n, struct err *e)
{
        int r = poll(p, (nfds_t) n, WATCH_MS);

        if (r < 0 && errno != EINTR)
                return err_errno(e, -errno, "poll");
        for (size_t i = 0; r <= 0 && i < n; i++)
                p[i].revents = 0;
        if (run->deadline_us && clock_mono_us() > run->deadline_us + GRACE_US)
                return err_set(e, -ETIMEDOUT, "it took longer than allowed");
        return check_space(run, e);
}

int run_alone(const struct run *run, const struct fetcher_spec *spec, uint64_t stall_us,
              void (*fn)(void *arg, uint64_t done_bytes), void *arg, struct fetcher *f,
              struct err *e)
{
        uint64_t moved_us = clock_mono_us(), seen = 0;
        int r = fetcher_start(run->store->inst, run->store->guard, spec, f, e);

        while (r >= 0 && !f->ended) {
                struct pollfd p = { .fd = f->result_fd, .events = POLLIN };

                r = run_listen(run, &p, 1, e);
                if (p.revents)
                        fetcher_hear(f);
                if (fn)
                        fn(arg, f->done_bytes);
                if (f->done_bytes != seen)
                        moved_us = clock_mono_us();
                seen = f->done_bytes;
                if (r >= 0 && stall_us && clock_mono_us() > moved_us + stall_us)
                        r = err_set(e, -ETIMEDOUT, "nothing has come for %llu s",
                                    (unsigned long long) (stall_us / US_PER_S));
        }
        if (r >= 0 && !f->done)
                r = err_copy(e, &f->err);
        return r;
}
