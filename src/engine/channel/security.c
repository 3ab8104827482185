/* security.c - what a cluster did that it should not, or what was done to it, told to the control plane.
 * Engine process, loop thread.
 *
 * A cluster can make such events as fast as it can fork, so each has a few of a sort in a minute; the
 * next one says that more are not told.  While no control plane listens, the last ones wait. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/channel/channel_priv.h"

#define A_MINUTE  (60 * US_PER_S)
#define IN_MINUTE 10U

/* The place in the table where this cluster's events of that sort are counted; who shares it with
 * another begins anew. */
static struct security_rate *rate_of(struct channel *c, const char *cluster, const char *kind)
{
        uint32_t h = 2166136261U;

        for (const char *s = cluster; *s; s++)
                h = (h ^ (unsigned char) *s) * 16777619U;
        for (const char *s = kind; *s; s++)
                h = (h ^ (unsigned char) *s) * 16777619U;
        return &c->rates[h % NELEM(c->rates)];
}

/* 1: tell it, 2: tell that more are not told, 0: nothing. */
static unsigned allowed(struct channel *c, const char *cluster, const char *kind)
{
        struct security_rate *r = rate_of(c, cluster, kind);
        uint64_t now = clock_mono_us();

        if (!str_eq(r->cluster, cluster) || !str_eq(r->kind, kind) ||
            now > r->since_us + A_MINUTE) {
                *r = (struct security_rate){ .since_us = now };
                (void) snprintf(r->cluster, sizeof r->cluster, "%s", cluster);
                (void) snprintf(r->kind, sizeof r->kind, "%s", kind);
        }
        if (r->n > IN_MINUTE)
                return 0;
        return ++r->n > IN_MINUTE ? 2 : 1;
}

static void wait_for_peer(struct channel *c, json_t *msg)
{
        json_t **place = &c->waiting[c->n_waiting++ % NELEM(c->waiting)];

        json_decref(*place);
        *place = json_incref(msg);
}

void channel_security_event(void *channel, const char *cluster, uint64_t generation,
                            const char *kind, const char *message)
{
        struct channel *c = channel;
        unsigned how = allowed(c, cluster, kind);
        AUTO(json_put) json_t *j = NULL;

        if (how == 0)
                return;
        log_info("cluster %s: %s: %s", cluster, kind, message);
        j = json_pack("{s:s, s:s, s:I, s:s, s:s}", "type", "security", "cluster", cluster,
                      "generation", (json_int_t) generation, "kind", kind, "message",
                      how == 1 ? message
                               : "more of the same sort within a minute, which are not told");
        if (!j)
                log_error("cluster %s: cannot tell of that", cluster);
        else if (c->welcome)
                channel_send(c, j, NULL, 0);
        else
                wait_for_peer(c, j);
}

void security_send_waiting(struct channel *c)
{
        size_t n = c->n_waiting < NELEM(c->waiting) ? c->n_waiting : NELEM(c->waiting);

        for (size_t i = 0; i < n; i++) {
                json_t **place = &c->waiting[(c->n_waiting - n + i) % NELEM(c->waiting)];

                channel_send(c, *place, NULL, 0);
                json_decref(*place);
                *place = NULL;
        }
        c->n_waiting = 0;
}

void security_forget(struct channel *c)
{
        for (size_t i = 0; i < NELEM(c->waiting); i++)
                json_decref(c->waiting[i]);
}
