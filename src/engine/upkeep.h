/* upkeep.h - the host's housekeeping beside the clusters: the firewall that somebody else may wipe,
 * and links of released networks, which are expensive to delete and therefore deleted later. */
#pragma once
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/mem.h"
#include "engine/host.h"

struct upkeep;
struct op_runner;

int upkeep_new(sd_event *loop, struct op_runner *runner, const struct host *host,
               struct upkeep **ret, struct err *e);
struct upkeep *upkeep_free(struct upkeep *u);
DEFINE_AUTO(struct upkeep *, upkeep_free)

/* A cluster's network was released: reap it a few seconds from now. */
void upkeep_released(void *upkeep);
