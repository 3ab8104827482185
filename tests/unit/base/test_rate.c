/* test_rate.c - smoothing (src/base/rate.c) against a clock of our own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/mem.h"
#include "base/rate.h"

#define START (1000 * US_PER_S)

/* @per_s for @seconds in steps of @step_ms, from *@now on. */
static void flow(struct rate *r, uint64_t *now, uint64_t per_s, double seconds, uint64_t step_ms)
{
        uint64_t steps = (uint64_t) (seconds * 1000) / step_ms;

        for (uint64_t i = 0; i < steps; i++) {
                *now += step_ms * US_PER_MS;
                rate_add(r, *now, per_s * step_ms / 1000);
        }
}

static void between(const struct rate *r, uint64_t low, uint64_t high)
{
        uint64_t v = rate_per_s(r);

        if (v < low || v > high)
                fail_msg("%llu is not within %llu..%llu", (unsigned long long) v,
                         (unsigned long long) low, (unsigned long long) high);
}

static void test_steady(void **state)
{
        static const struct {
                uint64_t per_s, step_ms;
        } t[] = { { 1000000, 100 },
                  { 1000000, 250 },
                  { 1000000, 3000 },
                  { 1000, 1 },
                  { 40000000000, 50 } };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct rate r = { 0 };
                uint64_t now = START;

                rate_add(&r, now, 0);
                flow(&r, &now, t[i].per_s, 6, t[i].step_ms);
                between(&r, t[i].per_s * 999 / 1000, t[i].per_s * 1001 / 1000);
        }
}

static void test_changes(void **state)
{
        struct rate r = { 0 };
        uint64_t now = START;

        (void) state;
        rate_add(&r, now, 12345678); /* before the clock began */
        between(&r, 0, 0);
        flow(&r, &now, 1000000, 0.2, 100);
        between(&r, 0, 0); /* too early to say */
        flow(&r, &now, 1000000, 0.4, 100);
        between(&r, 999000, 1001000);
        flow(&r, &now, 1000000, 20, 100);
        flow(&r, &now, 4000000, 1, 100); /* one second says little */
        between(&r, 1500000, 2200000);
        flow(&r, &now, 4000000, 9, 100); /* ten say all */
        between(&r, 3800000, 4000000);
        flow(&r, &now, 0, 5, 250); /* silence counts */
        between(&r, 500000, 1200000);
        flow(&r, &now, 0, 60, 250);
        between(&r, 0, 10);
}

/* Much at once now and then is no faster than little all the time. */
static void test_bursts(void **state)
{
        struct rate r = { 0 };
        uint64_t now = START;

        (void) state;
        rate_add(&r, now, 0);
        for (int i = 0; i < 40; i++) {
                flow(&r, &now, 0, 0.4, 100);
                now += 100 * US_PER_MS;
                rate_add(&r, now, 500000);
                between(&r, 800000, i < 4 ? 1300000 : 1100000);
        }
}

static void test_odd(void **state)
{
        struct rate r = { 0 };

        (void) state;
        rate_add(&r, START, 0);
        rate_add(&r, START, 100); /* at the same instant */
        rate_add(&r, START - 1, 100);
        between(&r, 0, 0);
        rate_add(&r, START + US_PER_S, 100);
        between(&r, 300, 300);
        rate_add(&r, START + 2 * US_PER_S, UINT64_MAX);
        between(&r, JSONX_EXACT_MAX, JSONX_EXACT_MAX);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_steady),
                cmocka_unit_test(test_changes),
                cmocka_unit_test(test_bursts),
                cmocka_unit_test(test_odd),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
