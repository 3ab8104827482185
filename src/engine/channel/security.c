/* security.c - what a cluster did that it should not, or what was done to it, told to the control plane.
 * Engine process, loop thread.
 *
 * While no control plane listens, the last ones wait. */
#include "base/jsonx.h"
#include "base/log.h"
#include "base/mem.h"
#include "engine/channel/channel_priv.h"

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
        AUTO(json_put)
        json_t *j =
                json_pack("{s:s, s:s, s:I, s:s, s:s}", "type", "security", "cluster", cluster,
                          "generation", (json_int_t) generation, "kind", kind, "message", message);

        log_info("cluster %s: %s: %s", cluster, kind, message);
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
