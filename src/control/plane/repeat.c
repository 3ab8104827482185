/* repeat.c - orders that the engine has not taken are said again.  tensorone-api, loop thread.
 *
 * Theory of operation.  An engine that cannot write its journal refuses an order and goes on
 * reporting what is; a report that is behind what was told starts the repeats of that cluster, 1 s,
 * 2 s, ... 60 s apart, and one that has caught up ends them.  Most of the time an engine is behind
 * only because it is at work: an order that it has already is no news to it. */
#include "base/clock.h"
#include "control/plane/plane_priv.h"

#define REPEAT_FIRST_US (1 * US_PER_S)
#define REPEAT_LAST_US  (60 * US_PER_S)

static uint64_t delay_us(const struct cluster *c)
{
        uint64_t delay = REPEAT_FIRST_US << (c->repeats < 6 ? c->repeats : 6);

        return delay < REPEAT_LAST_US ? delay : REPEAT_LAST_US;
}

static void set_timer(struct plane *p)
{
        uint64_t next = 0;

        for (struct map_entry *i = map_first(p->clusters); i; i = map_next(i)) {
                const struct cluster *c = map_value(i);

                if (c->repeat_us && (!next || c->repeat_us < next))
                        next = c->repeat_us;
        }
        (void) sd_event_source_set_time(p->repeat, next);
        (void) sd_event_source_set_enabled(p->repeat, next ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

static int on_repeat(sd_event_source *s, uint64_t usec, void *arg)
{
        struct plane *p = arg;
        uint64_t now = clock_mono_us();

        (void) s;
        (void) usec;
        for (struct map_entry *i = map_first(p->clusters); i; i = map_next(i)) {
                struct cluster *c = map_value(i);

                if (!c->repeat_us || c->repeat_us > now)
                        continue;
                c->repeats++;
                c->repeat_us = now + delay_us(c);
                if (c->open == 0)
                        plane_push(p, c);
        }
        set_timer(p);
        return 0;
}

void plane_repeat(struct plane *p, struct cluster *c, bool behind)
{
        if (behind == (c->repeat_us != 0))
                return;
        if (!behind) { /* the timer may come for nothing */
                c->repeat_us = c->repeats = 0;
                return;
        }
        c->repeat_us = clock_mono_us() + delay_us(c);
        set_timer(p);
}

int plane_repeat_init(struct plane *p, struct err *e)
{
        int r = sd_event_add_time(p->loop, &p->repeat, CLOCK_MONOTONIC, 0, 100 * US_PER_MS,
                                  on_repeat, p);

        if (r >= 0)
                r = sd_event_source_set_enabled(p->repeat, SD_EVENT_OFF);
        return r < 0 ? err_errno(e, r, "timer") : 0;
}
