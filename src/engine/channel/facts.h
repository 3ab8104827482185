/* facts.h - what is true of the host now and does not come from a cluster (this folder only): CPUs
 * that other engines on this machine hold, and a data directory that is nearly full.
 *
 * Level-triggered: sent whole when a control plane connects, and again whenever it has changed.
 * Loop thread; nothing blocks but short reads of /run and a statvfs(). */
#pragma once
#include "base/err.h"
#include "base/mem.h"

struct channel;
struct facts;

int facts_new(struct channel *c, struct facts **ret, struct err *e);
struct facts *facts_free(struct facts *f);
DEFINE_AUTO(struct facts *, facts_free)

/* Look, and send: always, or when something has changed. */
void facts_send(struct facts *f);
void facts_refresh(struct facts *f);
