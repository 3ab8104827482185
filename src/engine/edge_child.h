/* edge_child.h - in standalone mode the engine starts and supervises HAProxy, and tells it which names lead
 * to which cluster.  HAProxy outlives the engine, and with it the connections that go through it.
 *
 * Engine process, loop thread.  Its listeners are the engine's, so that connections wait rather than fail
 * while it is started again. */
#pragma once
#include <stdbool.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/mem.h"
#include "edge/pages.h"
#include "engine/instance.h"

/* In the run directory: HAProxy's runtime socket. */
#define EDGE_ADMIN_SOCKET "edge.sock"

struct edge_child;

struct edge_child_spec {
        sd_event *loop;
        const struct instance *inst;
        int api_fd;                  /* where tensorone-api listens; borrowed */
        void (*on_ready)(void *arg); /* it knows all routes; called after every start of it */
        /* see edge_child_is_unrouted(); @cluster NULL: all that have no route */
        void (*on_unrouted)(void *arg, const char *cluster);
        void *arg;
};

/* Make what it reads, have it checked, start it.  *@ret is NULL where the configuration has no edge. */
int edge_child_start(const struct edge_child_spec *spec, struct edge_child **ret, struct err *e);
/* HAProxy goes on, as clusters do, and is found again by the next edge_child_start(). */
struct edge_child *edge_child_leave(struct edge_child *c);
DEFINE_AUTO(struct edge_child *, edge_child_leave)
/* HAProxy ends, too. */
struct edge_child *edge_child_stop(struct edge_child *c);

/* "DOMAIN[:PORT]": clients find a cluster's web port at https://ID-PORT.<that>.  Heap; NULL: out of memory. */
char *edge_child_domain(const struct edge_child *c);

/* Its names, one for each web port among to->ports ("8888/http,22/tcp"), lead to to->address, an IPv4 address, from
 * now on, or to a page; with neither, it has no names.  Saying again what is so costs next to nothing. */
void edge_child_route(struct edge_child *c, const char *cluster, const struct edge_to *to);

/* No request will begin a connection to where its routes led, which edge_child_route() has taken away: HAProxy has
 * said so, and that none is on its way from the look-up to the connection either; or it is dead.
 * False: not yet; spec.on_unrouted will tell. */
bool edge_child_is_unrouted(const struct edge_child *c, const char *cluster);
