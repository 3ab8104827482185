/* sweep.h - what instances that are gone for good left on this machine: a test that was killed, a
 * data directory that somebody removed.  Their firewall tables would judge our clusters' packets. */
#pragma once
#include "engine/host.h"

/* Remove firewall tables, links, groups and run directories of dead instances; logs what it cannot
 * remove and goes on.  At start, before anything of ours runs.  Blocks 60 ms per dead instance. */
void sweep_dead_instances(const struct host *host);
