/* refused.c - see refused.h.
 *
 * What always holds: a refusal that was counted is in exactly one sentence, or waits in a place whose
 * hour is not over; a place is given to another device only when nothing waits in it. */
#include "engine/fleet/refused.h"

#include <stdio.h>
#include <stdlib.h>

struct place {
        struct slice_refused dev; /* type 0: nobody's, or that of all others */
        uint64_t waiting;         /* refusals that are not told yet */
        uint64_t told_us;         /* 0: never */
};

struct refused {
        struct slice_refusals last;
        struct place at[REFUSED_TOLD_MAX];
};

#define OTHERS (REFUSED_TOLD_MAX - 1U)

struct refused *refused_new(const struct slice_refusals *before)
{
        struct refused *s = calloc(1, sizeof *s);

        if (s && before)
                s->last = *before;
        return s;
}

struct refused *refused_free(struct refused *s)
{
        free(s);
        return NULL;
}

static bool is_same(const struct slice_refused *a, const struct slice_refused *b)
{
        return a->type == b->type && a->major == b->major && a->minor == b->minor;
}

/* Its number at the last look; another program began at 0. */
static uint64_t last_count(const struct refused *s, uint64_t program, const struct slice_refused *d)
{
        for (size_t i = 0; program == s->last.program && i < s->last.n; i++)
                if (is_same(&s->last.dev[i], d))
                        return s->last.dev[i].count;
        return 0;
}

static bool is_due(const struct place *p, uint64_t now_us)
{
        return p->told_us == 0 || now_us - p->told_us >= REFUSED_EVERY_US;
}

/* Its own place, or an empty one, or that of a device whose hour is over; else that of all others. */
static struct place *place_of(struct refused *s, const struct slice_refused *d, uint64_t now_us)
{
        struct place *free_one = NULL;

        for (size_t i = 0; i < OTHERS; i++) {
                struct place *p = &s->at[i];

                if (p->dev.type && is_same(&p->dev, d))
                        return p;
                if (!free_one && (p->dev.type == 0 || (p->waiting == 0 && is_due(p, now_us))))
                        free_one = p;
        }
        if (!free_one)
                return &s->at[OTHERS];
        *free_one = (struct place){ .dev = *d };
        return free_one;
}

static void say(const struct place *p, void (*tell)(void *arg, const char *sentence), void *arg)
{
        char text[160], device[64] = "other devices";

        if (p->dev.type)
                (void) snprintf(device, sizeof device, "%s device %u:%u",
                                p->dev.type == 'b' ? "block" : "character", p->dev.major,
                                p->dev.minor);
        (void) snprintf(text, sizeof text, "%s refused, %llu time%s: no device of this cluster's",
                        device, (unsigned long long) p->waiting, p->waiting == 1 ? "" : "s");
        tell(arg, text);
}

void refused_look(struct refused *s, const struct slice_refusals *now, uint64_t now_us,
                  void (*tell)(void *arg, const char *sentence), void *arg)
{
        bool same = now->program == s->last.program;

        for (size_t i = 0; i < now->n; i++) {
                uint64_t more = now->dev[i].count - last_count(s, now->program, &now->dev[i]);

                if (more)
                        place_of(s, &now->dev[i], now_us)->waiting += more;
        }
        s->at[OTHERS].waiting += now->others - (same ? s->last.others : 0);
        s->last = *now;
        for (size_t i = 0; i < NELEM(s->at); i++) {
                struct place *p = &s->at[i];

                if (p->waiting == 0 || !is_due(p, now_us))
                        continue;
                say(p, tell, arg);
                p->waiting = 0;
                p->told_us = now_us;
        }
}
