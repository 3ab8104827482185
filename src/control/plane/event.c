/* event.c - the journal for people: who did what to which cluster, and why it ended.
 * tensorone-api.  A ring of EVENT_MAX rows in the store, written together with what it tells. */
#include <stdio.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/str.h"
#include "control/plane/plane_priv.h"

#define EVENT_MAX 20000U

int event_keep(struct plane *p, const json_t *row)
{
        uint64_t id, at = (uint64_t) json_integer_value(json_object_get(row, "at_us"));

        if (str_u64(jsonx_str(row, "id"), 0, EVENT_MAX - 1, &id) >= 0 && at >= p->event_us) {
                p->event_us = at;
                p->event_next = (unsigned) (id + 1) % EVENT_MAX;
        }
        return 0;
}

void event_add(struct plane *p, struct store_txn *t, const struct cluster *c, const char *kind)
{
        const char *message = c->reason ? c->reason : c->status_change;
        uint64_t now = clock_wall_us();
        char id[16];

        p->event_us =
                now > p->event_us ? now : p->event_us + 1; /* a clock set back changes no order */
        (void) snprintf(id, sizeof id, "%05u", p->event_next);
        p->event_next = (p->event_next + 1) % EVENT_MAX;
        store_put(t, ST_EVENT,
                  json_pack("{s:s, s:I, s:s, s:s, s:s, s:s?}", "id", id, "at_us",
                            (json_int_t) p->event_us, "account", c->account, "cluster", c->id,
                            "kind", kind, "message", message));
}
