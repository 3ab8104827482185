/* edge_certs.h - the two certificates that HAProxy shows, and how they change while it runs.
 *
 * Every second it is looked at what lies where they come from.  What two looks have found alike, is in
 * order and is not what HAProxy has, HAProxy is told through its runtime socket: no connection is dropped, new ones
 * see the new certificate.  What is not in order is said once, and HAProxy keeps what it has.
 *
 * What always holds: the files that HAProxy starts with are ones that it has accepted, or that its check will be
 * asked about (edge_certs_put()).  Engine process, loop thread; blocks on the disk. */
#pragma once
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/mem.h"
#include "engine/edge_files.h"
#include "engine/instance.h"

struct edge_certs;

/* Fails where the configuration names something that will not do, unless what it named before is still
 * there for HAProxy.  @inst and @files stay borrowed. */
int edge_certs_new(sd_event *loop, const struct instance *inst, const struct edge_files *files,
                   struct edge_certs **ret, struct err *e);
struct edge_certs *edge_certs_free(struct edge_certs *c);
DEFINE_AUTO(struct edge_certs *, edge_certs_free)

/* Before a process is started for the first time: what it is to begin with. */
int edge_certs_put(struct edge_certs *c, struct err *e);
/* A process has been started: it has read what lies there.  Nothing said to one before it counts. */
void edge_certs_started(struct edge_certs *c);
/* A process goes on that was told who knows what: it is told all. */
void edge_certs_found(struct edge_certs *c);
