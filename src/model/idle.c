/* idle.c - see idle.h.  tensorone-api; pure. */
#include "model/idle.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/mem.h"

#define CPU_MCPU   100U
#define GPU_PCT    3U
#define WARN_MAX   (5 * 60 * US_PER_S)
#define GAP_US     (30 * US_PER_S) /* samples come every five seconds */
#define SAMPLE_MIN US_PER_S
#define WATCH_MAX  (60 * US_PER_S) /* after a gap, before it is stopped */
#define KEEP_STEPS 10U

const char *const idle_action_names[] = { "NONE", "STOP", "TERMINATE" };
const char *const idle_use_names[] = { "none", "start", "traffic", "session", "cpu", "gpu" };
const char *const idle_verdict_names[] = { "none", "keep", "warn", "over" };
static_assert(NELEM(idle_action_names) == IDLE_ACTION_COUNT, "names");
static_assert(NELEM(idle_use_names) == IDLE_USE_COUNT, "names");
static_assert(NELEM(idle_verdict_names) == IDLE_VERDICT_COUNT, "names");

struct idle_limits idle_limits_of(uint32_t timeout_s)
{
        return (struct idle_limits){ .timeout_us = timeout_s * US_PER_S,
                                     .cpu_mcpu = CPU_MCPU,
                                     .gpu_pct = GPU_PCT };
}

uint64_t idle_warn_us(const struct idle_limits *l)
{
        return l->timeout_us / 2 < WARN_MAX ? l->timeout_us / 2 : WARN_MAX;
}

static uint64_t watch_us(const struct idle_limits *l)
{
        return l->timeout_us / 2 < WATCH_MAX ? l->timeout_us / 2 : WATCH_MAX;
}

/* A counter that is lower than before was begun anew: all of it is new. */
static uint64_t more(uint64_t now, uint64_t before)
{
        return now >= before ? now - before : now;
}

/* @span_us: since the sample before; 0: not known, and then nothing is said of averages. */
static enum idle_use use_of(const struct idle_state *s, const struct idle_sample *x,
                            const struct idle_limits *l, uint64_t span_us)
{
        uint64_t cpu = more(x->cpu_us, s->cpu_us);

        if (x->has_traffic && (x->connections > 0 || more(x->bytes, s->bytes) > 0))
                return IDLE_USE_TRAFFIC;
        if (x->sessions > 0 || x->had_session)
                return IDLE_USE_SESSION;
        if (x->gpu_pct >= l->gpu_pct)
                return IDLE_USE_GPU;
        /* cpu / span >= mcpu / 1000, without a product that could be too large */
        if (span_us > 0 && cpu >= span_us / 1000 * l->cpu_mcpu)
                return IDLE_USE_CPU;
        return IDLE_USE_NONE;
}

static void remember(struct idle_state *s, const struct idle_sample *x)
{
        s->at_us = x->now_us;
        s->cpu_us = x->cpu_us;
        if (x->has_traffic)
                s->bytes = x->bytes;
}

void idle_restart(struct idle_state *s)
{
        s->idle_us = 0;
        s->warned = false;
        s->last_use = IDLE_USE_START;
}

/* What the clock says after this sample. */
static enum idle_verdict judge(struct idle_state *s, const struct idle_limits *l)
{
        if (s->warned)
                return s->idle_us >= l->timeout_us && s->seen_us >= watch_us(l) ? IDLE_OVER
                                                                                : IDLE_KEEP;
        if (s->idle_us + idle_warn_us(l) < l->timeout_us)
                return IDLE_KEEP;
        s->warned = true;
        return IDLE_WARN;
}

bool idle_due(const struct idle_state *s, uint64_t now_us)
{
        return !s->at_us || now_us >= s->at_us + SAMPLE_MIN;
}

enum idle_verdict idle_step(struct idle_state *s, const struct idle_sample *x,
                            const struct idle_limits *l)
{
        uint64_t span = s->at_us && x->now_us > s->at_us ? x->now_us - s->at_us : 0;
        bool gap = !s->at_us || span > GAP_US;
        enum idle_use use;

        if (x->run != s->run) {
                *s = (struct idle_state){ .run = x->run, .bytes = x->has_traffic ? x->bytes : 0 };
                idle_restart(s);
                remember(s, x);
                return IDLE_KEEP;
        }
        use = use_of(s, x, l, span);
        remember(s, x);
        s->seen_us = gap ? 0 : s->seen_us + span;
        if (use != IDLE_USE_NONE) {
                s->idle_us = 0;
                s->warned = false;
                s->last_use = use;
                return IDLE_KEEP;
        }
        if (x->blind || gap)
                return IDLE_KEEP;
        s->idle_us += span;
        return judge(s, l);
}

bool idle_worth_keeping(const struct idle_state *kept, const struct idle_state *now,
                        const struct idle_limits *l)
{
        uint64_t step = l->timeout_us / KEEP_STEPS;

        if (kept->run != now->run || kept->warned != now->warned)
                return true;
        return now->idle_us < kept->idle_us || now->idle_us - kept->idle_us >= step;
}

#define S(f) #f, .off = offsetof(struct idle_state, f)
static_assert(sizeof(enum idle_use) == sizeof(int), "J_ENUM wants an int");
static const struct jfield fields[] = {
        { S(idle_us), .kind = J_U64 },
        { S(run), .kind = J_U64 },
        { S(cpu_us), .kind = J_U64 },
        { S(bytes), .kind = J_U64 },
        { S(warned), .kind = J_BOOL },
        { S(last_use), .kind = J_ENUM, .names = idle_use_names, .max = IDLE_USE_COUNT },
};
#undef S

json_t *idle_encode(const struct idle_state *s)
{
        return jsonx_encode(fields, NELEM(fields), s);
}

void idle_decode(const json_t *j, struct idle_state *ret)
{
        struct idle_state s = { 0 };

        if (!json_is_object(j) || jsonx_decode(j, fields, NELEM(fields), &s, NULL) < 0)
                s = (struct idle_state){ 0 };
        *ret = s;
}

int idle_timeout_check(const char *field, int64_t seconds, struct err *e)
{
        if (seconds == 0 || (seconds >= IDLE_TIMEOUT_MIN_S && seconds <= IDLE_TIMEOUT_MAX_S))
                return 0;
        return err_set(e, -ERANGE, "%s: %lld is neither 0 (never) nor within %u..%u", field,
                       (long long) seconds, IDLE_TIMEOUT_MIN_S, IDLE_TIMEOUT_MAX_S);
}
