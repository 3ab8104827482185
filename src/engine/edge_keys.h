/* edge_keys.h - HAProxy's map of API keys, which private ports of clusters are opened with, kept as the control plane
 * says (docs/node-protocol.md, "Keys").
 *
 * Engine process, loop thread.  A connection of its own to HAProxy's runtime socket; while there is none, or HAProxy is
 * started again, what it had as a file is what it knows, and after that all of it is said anew. */
#pragma once
#include <jansson.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/mem.h"
#include "engine/instance.h"

struct edge_keys;

int edge_keys_new(sd_event *loop, const struct instance *inst, struct edge_keys **ret,
                  struct err *e);
struct edge_keys *edge_keys_free(struct edge_keys *k);
DEFINE_AUTO(struct edge_keys *, edge_keys_free)

/* A control plane begins to tell. */
void edge_keys_begin(struct edge_keys *k);
/* A message of type "keys". */
int edge_keys_take(struct edge_keys *k, const json_t *msg, struct err *e);
