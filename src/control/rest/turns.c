/* turns.c - see turns.h.
 *
 * Always holds: an account that has somebody waiting is in `waiting`, and the source is on as long as that is
 * not empty. */
#include "control/rest/turns.h"

#include <errno.h>
#include <stdbool.h>

#include "base/clock.h"
#include "base/map.h"

#define ACCOUNTS_KEPT 1024U /* more than so many: those that owe nothing are forgotten */

struct turn_account {
        uint64_t paid_until_us; /* monotonic: what it has taken is paid for with time */
        struct turn *first, **last;
        struct turn_account *next, **at; /* in `waiting`; NULL: nobody of its waits */
};

struct turns {
        struct turn_clocks clock;
        sd_event_source *src;
        struct map *accounts;
        struct turn_account *waiting;
};

static bool owes(const struct turns *t, const struct turn_account *a, uint64_t ahead_us)
{
        return a->paid_until_us > t->clock.mono_us() + ahead_us;
}

static void run(struct turns *t, struct turn_account *a, void (*fn)(void *arg), void *arg)
{
        uint64_t began = t->clock.thread_us(), now, used, most;

        fn(arg);
        used = t->clock.thread_us() - began;
        if (used <= TURN_FREE_US)
                return;
        now = t->clock.mono_us();
        most = now + TURN_DEBT_US;
        if (a->paid_until_us < now)
                a->paid_until_us = now;
        a->paid_until_us += (used - TURN_FREE_US) * TURN_SHARE;
        if (a->paid_until_us > most)
                a->paid_until_us = most;
}

void turn_leave(struct turn *w)
{
        struct turn_account *a = w->account;

        if (!a)
                return;
        *w->at = w->next;
        *(w->next ? &w->next->at : &a->last) = w->at;
        w->account = NULL;
        if (a->first)
                return;
        *a->at = a->next;
        if (a->next)
                a->next->at = a->at;
        a->at = NULL;
}

/* One at a time: whatever came meanwhile is first. */
static int on_idle(sd_event_source *s, void *arg)
{
        struct turns *t = arg;
        struct turn_account *least = t->waiting;
        struct turn *w;

        for (struct turn_account *a = least; a; a = a->next)
                if (a->paid_until_us < least->paid_until_us)
                        least = a;
        if (least) {
                w = least->first;
                turn_leave(w);
                run(t, least, w->fn, w->arg);
        }
        if (!t->waiting)
                (void) sd_event_source_set_enabled(s, SD_EVENT_OFF);
        return 0;
}

static void forget(struct turns *t)
{
        struct map_entry *next;

        if (map_len(t->accounts) <= ACCOUNTS_KEPT)
                return;
        for (struct map_entry *m = map_first(t->accounts); m; m = next) {
                struct turn_account *a = map_value(m);

                next = map_next(m);
                if (a->first || owes(t, a, 0))
                        continue;
                (void) map_del(t->accounts, map_key(m));
                free(a);
        }
}

static struct turn_account *account_of(struct turns *t, const char *id)
{
        struct turn_account *a = map_get(t->accounts, id);

        if (a)
                return a;
        forget(t);
        a = calloc(1, sizeof *a);
        if (!a || map_set(t->accounts, id, a) < 0) {
                free(a);
                return NULL;
        }
        a->last = &a->first;
        return a;
}

void turn_take(struct turns *t, const char *account, struct turn *w, void (*fn)(void *arg),
               void *arg)
{
        struct turn_account *a = account_of(t, account);

        if (!a) { /* out of memory: nobody is counted then */
                fn(arg);
                return;
        }
        if (!a->first && !owes(t, a, TURN_AHEAD_US)) {
                run(t, a, fn, arg);
                return;
        }
        *w = (struct turn){ .account = a, .at = a->last, .fn = fn, .arg = arg };
        *a->last = w;
        a->last = &w->next;
        if (!a->at) {
                a->at = &t->waiting;
                a->next = t->waiting;
                if (a->next)
                        a->next->at = &a->next;
                t->waiting = a;
        }
        (void) sd_event_source_set_enabled(t->src, SD_EVENT_ON);
}

int turns_new(sd_event *loop, const struct turn_clocks *clocks, struct turns **ret, struct err *e)
{
        static const struct turn_clocks kernel = { clock_mono_us, clock_thread_us };
        AUTO(turns_free) struct turns *t = calloc(1, sizeof *t);
        int r;

        if (!t || !(t->accounts = map_new()))
                return err_set(e, -ENOMEM, "out of memory");
        t->clock = clocks ? *clocks : kernel;
        r = sd_event_add_defer(loop, &t->src, on_idle, t);
        if (r >= 0)
                r = sd_event_source_set_priority(t->src, SD_EVENT_PRIORITY_IDLE);
        if (r >= 0)
                r = sd_event_source_set_enabled(t->src, SD_EVENT_OFF);
        if (r < 0)
                return err_errno(e, r, "event source");
        *ret = TAKE(t);
        return 0;
}

struct turns *turns_free(struct turns *t)
{
        if (!t)
                return NULL;
        for (struct map_entry *m = t->accounts ? map_first(t->accounts) : NULL; m; m = map_next(m))
                free(map_value(m));
        (void) map_free(t->accounts);
        t->src = sd_event_source_disable_unref(t->src);
        free(t);
        return NULL;
}
