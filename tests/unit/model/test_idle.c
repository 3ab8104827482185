/* test_idle.c - when a cluster counts as unused: rows of samples, and whole days in milliseconds. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* cmocka needs the above */
#include <cmocka.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/mem.h"
#include "model/idle.h"

#define S        US_PER_S
#define MINUTE   (60 * S)
#define HOUR     (60 * MINUTE)
#define STEP_US  (5 * S) /* between two reports */
#define MAX_ROWS 16

/* What is added to the counters, and what is so now. */
struct seen {
        uint64_t after_s, cpu_ms, bytes;
        uint32_t connections, sessions, gpu_pct;
        bool had_session, blind, no_traffic;
        enum idle_verdict want;
};

static void run_rows(const char *name, uint32_t timeout_s, const struct seen *rows)
{
        const struct idle_limits l = idle_limits_of(timeout_s);
        struct idle_state s = { 0 };
        struct idle_sample x = { .now_us = 1000 * HOUR, .run = 3, .has_traffic = true };

        if (idle_step(&s, &x, &l) != IDLE_KEEP)
                fail_msg("%s: the first sample is no end", name);
        for (size_t i = 0; rows[i].want; i++) {
                const struct seen *r = &rows[i];
                enum idle_verdict got;

                x.now_us += r->after_s * S;
                x.cpu_us += r->cpu_ms * 1000;
                x.bytes += r->bytes;
                x.connections = r->connections;
                x.sessions = r->sessions;
                x.had_session = r->had_session;
                x.gpu_pct = r->gpu_pct;
                x.blind = r->blind;
                x.has_traffic = !r->no_traffic;
                got = idle_step(&s, &x, &l);
                if (got != r->want)
                        fail_msg("%s, row %zu: %s, not %s (idle %llu us)", name, i,
                                 idle_verdict_names[got], idle_verdict_names[r->want],
                                 (unsigned long long) s.idle_us);
        }
}

#define K .want = IDLE_KEEP
#define W .want = IDLE_WARN
#define O .want = IDLE_OVER

static void test_verdicts(void **state)
{
        static const struct {
                const char *name;
                uint32_t timeout_s;
                struct seen rows[MAX_ROWS];
        } t[] = {
                { "nothing at all: it counts from its start",
                  20,
                  { { 5, K }, { 5, W }, { 5, K }, { 5, O }, { 5, O } } },
                { "the shortest", 10, { { 5, W }, { 5, O } } },
                { "a byte", 20, { { 5, K }, { 5, .bytes = 1, K }, { 5, K }, { 5, W }, { 10, O } } },
                { "a byte takes the warning back",
                  20,
                  { { 10, W }, { 5, .bytes = 9, K }, { 5, K }, { 5, W }, { 5, K }, { 5, O } } },
                { "somebody is connected, and silent",
                  20,
                  { { 15, .connections = 1, K }, { 15, .connections = 1, K }, { 10, W } } },
                { "a terminal is open",
                  20,
                  { { 15, .sessions = 1, K }, { 15, .sessions = 2, K }, { 10, W } } },
                { "a session came and went", 20, { { 10, .had_session = true, K }, { 10, W } } },
                { "a GPU works", 20, { { 10, .gpu_pct = 3, K }, { 10, .gpu_pct = 2, W } } },
                { "a tenth of a CPU", 20, { { 10, .cpu_ms = 1000, K }, { 10, .cpu_ms = 999, W } } },
                { "what its daemons need is no use", 20, { { 10, .cpu_ms = 500, W }, { 10, O } } },
                { "nobody knows of traffic: the rest counts",
                  20,
                  { { 10, .no_traffic = true, .connections = 7, .bytes = 7, W },
                    { 5, .no_traffic = true, .sessions = 1, K },
                    { 15, .no_traffic = true, W },
                    { 10, .no_traffic = true, O } } },
                { "what came while traffic was not known is seen afterwards",
                  20,
                  { { 5, .no_traffic = true, .bytes = 10, K }, { 10, K }, { 10, W } } },
                { "what cannot be seen is not counted, and what can be seen is",
                  20,
                  { { 9, K },
                    { 25, .blind = true, K },
                    { 25, .blind = true, K },
                    { 1, W },
                    { 5, .blind = true, .bytes = 1, K },
                    { 9, K },
                    { 1, W } } },
                { "time that nobody watched is not counted",
                  20,
                  { { 9, K }, { 31, K }, { 1, W }, { 9, K }, { 1, O } } },
                { "after it, it is watched for a while before its end",
                  20,
                  { { 19, W }, { 3600, K }, { 5, K }, { 4, K }, { 1, O } } },
                { "use in that time counts", 20, { { 19, W }, { 3600, .bytes = 1, K }, { 9, K } } },
                { "so does the average of its CPUs",
                  20,
                  { { 19, W },
                    { 100, .cpu_ms = 9000, K },
                    { 1, K },
                    { 100, .cpu_ms = 10000, K },
                    { 9, K },
                    { 1, W } } },
                { "no end without a warning, however late the sample is",
                  20,
                  { { 30, W }, { 5, O } } },
                { "five minutes at most",
                  7200,
                  { { 30, K }, { 30, .cpu_ms = 60000, K }, { 30, K } } },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++)
                run_rows(t[i].name, t[i].timeout_s, t[i].rows);
}

static void test_warning(void **state)
{
        static const struct {
                uint32_t timeout_s;
                uint64_t warn_us;
        } t[] = { { 10, 5 * S }, { 599, 299500000 }, { 600, 5 * MINUTE }, { 86400, 5 * MINUTE } };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                const struct idle_limits l = idle_limits_of(t[i].timeout_s);

                assert_int_equal(idle_warn_us(&l), t[i].warn_us);
        }
}

/* Another start begins anew, whatever its counters say; a counter that begins anew is no less use. */
static void test_counters(void **state)
{
        const struct idle_limits l = idle_limits_of(20);
        struct idle_state s = { 0 };
        struct idle_sample x = {
                .now_us = 7, .run = 1, .cpu_us = 9 * HOUR, .bytes = 1000, .has_traffic = true
        };

        (void) state;
        assert_int_equal(idle_step(&s, &x, &l), IDLE_KEEP); /* what was before is not its use */
        assert_int_equal(s.last_use, IDLE_USE_START);
        x.now_us += 15 * S;
        assert_int_equal(idle_step(&s, &x, &l), IDLE_WARN);
        x.now_us += 15 * S;
        x.run = 2;
        x.cpu_us = 0;
        assert_int_equal(idle_step(&s, &x, &l), IDLE_KEEP);
        assert_int_equal(s.idle_us, 0);
        assert_false(s.warned);
        x.now_us += 5 * S;
        x.bytes = 500; /* the edge was started again, and has carried so much since */
        assert_int_equal(idle_step(&s, &x, &l), IDLE_KEEP);
        assert_int_equal(s.last_use, IDLE_USE_TRAFFIC);
        x.now_us += 5 * S;
        x.bytes = 0; /* again, and nothing came */
        assert_int_equal(idle_step(&s, &x, &l), IDLE_KEEP);
        assert_int_equal(s.idle_us, 5 * S);
        x.now_us += 5 * S;
        x.cpu_us = UINT64_MAX; /* nonsense is use, not a crash */
        assert_int_equal(idle_step(&s, &x, &l), IDLE_KEEP);
        assert_int_equal(s.last_use, IDLE_USE_CPU);
}

/* ---- a day ---- */

struct day {
        const char *name;
        uint32_t timeout_s;
        /* adds to the counters and says what is so, at second @at of the day */
        void (*world)(uint64_t at, struct idle_sample *x);
        bool over;
        uint64_t from_s, to_s; /* when it ends */
};

/* Somebody opens a page every @every seconds between eight and six o'clock. */
static void office(uint64_t at, struct idle_sample *x, uint64_t every)
{
        if (at >= 8 * 3600 && at < 18 * 3600 && at % every < 5)
                x->bytes += 40000;
        x->cpu_us += 20000; /* 4 mCPU of waiting daemons */
}

static void office_world(uint64_t at, struct idle_sample *x)
{
        office(at, x, 900);
}

static void nobody_world(uint64_t at, struct idle_sample *x)
{
        (void) at;
        x->cpu_us += 20000;
}

/* A job on one CPU that waits for its disk every now and then, until five in the morning. */
static void training_world(uint64_t at, struct idle_sample *x)
{
        if (at < 5 * 3600 && at % 300 >= 60)
                x->cpu_us += 4800000;
}

static void gpu_world(uint64_t at, struct idle_sample *x)
{
        x->gpu_pct = at < 23 * 3600 && at % 600 < 10 ? 90 : 0;
}

static void browser_tab_world(uint64_t at, struct idle_sample *x)
{
        x->connections = at >= 600;
}

static void terminal_world(uint64_t at, struct idle_sample *x)
{
        x->sessions = at < 12 * 3600;
}

static void test_days(void **state)
{
        static const struct day days[] = {
                { "an office with half an hour ends after its day", 1800, office_world, true, 1795,
                  1810 },
                { "an office with eight hours and more lives on", 9 * 3600, office_world, false, 0,
                  0 },
                { "nobody comes", 3600, nobody_world, true, 3600, 3610 },
                { "a training ends, then its cluster", 1800, training_world, true, 5 * 3600 + 1795,
                  5 * 3600 + 1810 },
                { "a GPU works every ten minutes until eleven", 900, gpu_world, true,
                  23 * 3600 - 590 + 895, 23 * 3600 - 590 + 915 },
                { "a browser tab that stays open", 900, browser_tab_world, false, 0, 0 },
                { "a terminal until noon", 900, terminal_world, true, 12 * 3600 + 890,
                  12 * 3600 + 910 },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(days); i++) {
                const struct day *d = &days[i];
                const struct idle_limits l = idle_limits_of(d->timeout_s);
                struct idle_state s = { 0 };
                struct idle_sample x = { .run = 1, .has_traffic = true };
                uint64_t warned = 0, over = 0;

                for (uint64_t at = 0; at < 24 * 3600 && !over; at += 5) {
                        enum idle_verdict v;

                        x.now_us = HOUR + at * S;
                        d->world(at, &x);
                        v = idle_step(&s, &x, &l);
                        warned = v == IDLE_WARN ? at : warned;
                        over = v == IDLE_OVER ? at : 0;
                }
                if (d->over != (over > 0) || (over && (over < d->from_s || over > d->to_s)))
                        fail_msg("%s: over at second %llu", d->name, (unsigned long long) over);
                if (over && (warned == 0 || over - warned > (idle_warn_us(&l) + STEP_US) / S))
                        fail_msg("%s: warned at second %llu", d->name, (unsigned long long) warned);
        }
}

/* The caller is restarted every two minutes for a day: what it writes down now and then is enough, and no
 * start of it is an end at once. */
static void test_restarts(void **state)
{
        const struct idle_limits l = idle_limits_of(7200);
        struct idle_state s = { 0 }, kept = { 0 };
        struct idle_sample x = { .run = 1, .has_traffic = true };
        uint64_t over = 0, started = 0, writes = 0;

        (void) state;
        for (uint64_t at = 0; at < 24 * 3600 && !over; at += 5) {
                enum idle_verdict v;

                if (at % 120 == 0) {
                        AUTO(json_put) json_t *j = idle_encode(&kept);

                        idle_decode(j, &s);
                        started = at;
                }
                x.now_us = HOUR + at * S;
                v = idle_step(&s, &x, &l);
                if (idle_worth_keeping(&kept, &s, &l) || at % 120 == 115) { /* an orderly end */
                        kept = s;
                        writes++;
                }
                if (v == IDLE_OVER) {
                        over = at;
                        assert_true(at - started >= 60);
                }
        }
        /* of each two minutes five seconds are not watched */
        if (over < 7200 || over > 7200 + 7200 / 115 * 5 + 130)
                fail_msg("over at second %llu", (unsigned long long) over);
        assert_true(writes < 100);
}

static void test_keeping(void **state)
{
        const struct idle_limits l = idle_limits_of(1000);
        static const struct {
                struct idle_state kept, now;
                bool want;
        } t[] = {
                { { .run = 1 }, { .run = 1 }, false },
                { { .run = 1 }, { .run = 2 }, true },
                { { .run = 1 }, { .run = 1, .idle_us = 99 * S }, false },
                { { .run = 1 }, { .run = 1, .idle_us = 100 * S }, true },
                { { .run = 1, .idle_us = 100 * S }, { .run = 1, .idle_us = 0 }, true },
                { { .run = 1 }, { .run = 1, .warned = true }, true },
                /* one that is in use all day long is not written */
                { { .run = 1 }, { .run = 1, .bytes = 1U << 30, .cpu_us = HOUR }, false },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++)
                if (idle_worth_keeping(&t[i].kept, &t[i].now, &l) != t[i].want)
                        fail_msg("row %zu", i);
}

static void test_round_trip(void **state)
{
        const struct idle_state s = { .idle_us = 5 * S,
                                      .seen_us = 1,
                                      .at_us = 2,
                                      .run = 3,
                                      .cpu_us = 4,
                                      .bytes = 6,
                                      .warned = true,
                                      .last_use = IDLE_USE_GPU };
        static const char *const bad[] = { "[]", "{\"idle_us\":-1}", "{\"last_use\":\"soon\"}",
                                           "null", "{\"warned\":3}" };
        struct idle_state back = { .idle_us = 77 };
        AUTO(json_put) json_t *j = idle_encode(&s);

        (void) state;
        idle_decode(j, &back);
        assert_int_equal(back.idle_us, s.idle_us);
        assert_int_equal(back.run, s.run);
        assert_int_equal(back.cpu_us, s.cpu_us);
        assert_int_equal(back.bytes, s.bytes);
        assert_true(back.warned);
        assert_int_equal(back.last_use, IDLE_USE_GPU);
        assert_int_equal(back.at_us, 0); /* of another life */
        assert_int_equal(back.seen_us, 0);
        for (size_t i = 0; i < NELEM(bad); i++) {
                AUTO(json_put) json_t *b = json_loads(bad[i], JSON_DECODE_ANY, NULL);

                back.idle_us = 77;
                idle_decode(b, &back);
                assert_int_equal(back.idle_us, 0);
        }
}

static void test_due(void **state)
{
        const struct idle_state s = { .at_us = 100 * S }, none = { 0 };

        (void) state;
        assert_true(idle_due(&none, 1));
        assert_false(idle_due(&s, 100 * S));
        assert_false(idle_due(&s, 101 * S - 1));
        assert_true(idle_due(&s, 101 * S));
}

static void test_bounds(void **state)
{
        static const struct {
                int64_t in;
                int r;
        } t[] = {
                { 0, 0 },       { 1, -ERANGE },       { 9, -ERANGE },  { 10, 0 },
                { 2592000, 0 }, { 2592001, -ERANGE }, { -1, -ERANGE }, { INT64_MAX, -ERANGE },
        };
        struct err e;

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                int r = idle_timeout_check("idleTimeoutSeconds", t[i].in, &e);

                if (r != t[i].r || (r < 0 && !strstr(e.msg, "idleTimeoutSeconds: ")))
                        fail_msg("row %zu: %d", i, r);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_verdicts),   cmocka_unit_test(test_warning),
                cmocka_unit_test(test_counters),   cmocka_unit_test(test_days),
                cmocka_unit_test(test_restarts),   cmocka_unit_test(test_keeping),
                cmocka_unit_test(test_round_trip), cmocka_unit_test(test_due),
                cmocka_unit_test(test_bounds),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
