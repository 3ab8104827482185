/* listen.c - who waits for events is told when there are new ones, on disk.  tensorone-api, loop thread.
 *
 * Theory of operation.  Whoever writes an event calls listen_news(), before its transaction is submitted;
 * one turn of the loop later it has been, and a fence behind it says when everything so far is durable.
 * Listeners read the journal themselves, as far as `durable_us`: nothing is kept for any of them, and one
 * that is slow costs nobody anything. */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "control/plane/plane_priv.h"

struct plane_listen {
        struct plane *plane;
        struct plane_listen *prev, *next;
        void (*fn)(void *arg);
        void *arg;
};

static uint64_t newest_us(const struct plane *p)
{
        uint64_t audit = audit_newest_us(p);

        return p->event_us > audit ? p->event_us : audit;
}

uint64_t listen_time(const struct plane *p)
{
        uint64_t now = clock_wall_us(), last = newest_us(p);

        last = p->fence_us > last ? p->fence_us : last;
        return now > last ? now : last + 1;
}

static void on_durable(int r, void *arg)
{
        struct plane *p = arg;

        p->fenced = false;
        if (r >= 0 && p->fence_us > p->durable_us)
                p->durable_us = p->fence_us;
        listen_news(p); /* what came meanwhile */
        for (struct plane_listen *l = p->listens, *next; l && r >= 0; l = next) {
                next = l->next;
                l->fn(l->arg);
        }
}

static int on_turn(sd_event_source *s, void *arg)
{
        struct plane *p = arg;

        (void) s;
        if (p->fenced || newest_us(p) <= p->durable_us)
                return 0;
        p->fenced = true;
        p->fence_us = newest_us(p);
        store_fence(p->store, on_durable, p);
        return 0;
}

int listen_init(struct plane *p, struct err *e)
{
        int r = sd_event_add_defer(p->loop, &p->news, on_turn, p);

        if (r >= 0)
                r = sd_event_source_set_enabled(p->news, SD_EVENT_OFF);
        return r < 0 ? err_errno(e, r, "event source") : 0;
}

void listen_news(struct plane *p)
{
        if (p->news && p->listens && !p->fenced && newest_us(p) > p->durable_us)
                (void) sd_event_source_set_enabled(p->news, SD_EVENT_ONESHOT);
}

struct plane_listen *plane_listen_new(struct plane *p, void (*fn)(void *arg), void *arg)
{
        struct plane_listen *l = calloc(1, sizeof *l);

        if (!l)
                return NULL;
        *l = (struct plane_listen){ .plane = p, .next = p->listens, .fn = fn, .arg = arg };
        if (l->next)
                l->next->prev = l;
        p->listens = l;
        listen_news(p);
        return l;
}

struct plane_listen *plane_listen_free(struct plane_listen *l)
{
        if (!l)
                return NULL;
        if (l->prev)
                l->prev->next = l->next;
        else
                l->plane->listens = l->next;
        if (l->next)
                l->next->prev = l->prev;
        free(l);
        return NULL;
}

uint64_t plane_events_newest_us(const struct plane *p)
{
        return newest_us(p);
}

uint64_t plane_events_durable_us(const struct plane *p)
{
        return p->durable_us;
}

uint64_t plane_events_oldest_us(const struct plane *p)
{
        return event_oldest_us(p);
}
