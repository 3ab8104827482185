/* rate.h - how fast something comes, in bytes a second, smoothed over the last few seconds.  Pure. */
#pragma once
#include <stdint.h>

/* Zero-initialised: the clock has not begun. */
struct rate {
        uint64_t at_us;   /* when it was told last */
        double bytes, us; /* what came and how long it took, what is long ago weighing less */
};

/* @bytes more have come by @now_us (monotonic), 0 too: silence counts.  The first call begins the
 * clock; its bytes came in a time that nobody knows and are not counted. */
void rate_add(struct rate *r, uint64_t now_us, uint64_t bytes);

/* 0: nothing comes, or it is too early to say.  At most 2^53 - 1. */
uint64_t rate_per_s(const struct rate *r);
