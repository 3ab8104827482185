/* edge_traffic.h - what HAProxy carries for each cluster, for the idle stop (docs/edge.md).
 *
 * Engine process, loop thread; nothing here blocks.  A connection of its own to the runtime socket: it asks
 * about a cluster when somebody asks here, and gives the answer to the question before. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/mem.h"
#include "engine/instance.h"

struct edge_traffic;

/* @inst stays borrowed.  NULL: out of memory. */
struct edge_traffic *edge_traffic_new(sd_event *loop, const struct instance *inst);
struct edge_traffic *edge_traffic_free(struct edge_traffic *t);

/* Bytes both ways over all its names since HAProxy has begun to count, and requests that are open (a
 * WebSocket is one).  False: not known (yet). */
bool edge_traffic_of(struct edge_traffic *t, const char *cluster, uint64_t *ret_bytes,
                     uint32_t *ret_open);
