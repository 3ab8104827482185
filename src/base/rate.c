/* rate.c - see rate.h.  In whatever process asks; pure.
 *
 * Bytes and time are summed up apart, and both sums lose by the same factor with every step.  So
 * their quotient is exact for a steady flow, whatever the steps, and forgets a change in about
 * SPAN_US, be it that more comes or nothing. */
#include "base/rate.h"

#include "base/clock.h"
#include "base/jsonx.h"

#define SPAN_US  (3 * US_PER_S)
#define EARLY_US (400 * US_PER_MS)

void rate_add(struct rate *r, uint64_t now_us, uint64_t bytes)
{
        double step = r->at_us && now_us > r->at_us ? (double) (now_us - r->at_us) : 0;
        double keep = (double) SPAN_US / ((double) SPAN_US + step);

        if (!r->at_us) {
                r->at_us = now_us;
                return;
        }
        if (now_us > r->at_us)
                r->at_us = now_us;
        r->bytes = (r->bytes + (double) bytes) * keep;
        r->us = (r->us + step) * keep;
}

uint64_t rate_per_s(const struct rate *r)
{
        double v = r->us < (double) EARLY_US ? 0 : r->bytes / r->us * (double) US_PER_S;

        return v < (double) JSONX_EXACT_MAX ? (uint64_t) v : JSONX_EXACT_MAX;
}
