/* fetch_guard.h - what this host puts around each vmm-fetch: a group of its own with little memory and
 * few processes, and firewall rules for its ids.  See image.h for the three moments.
 *
 * In the operation process that runs a pull or an upload; fetch_guard_tidy() in the engine at start
 * and in an operation of upkeep. */
#pragma once
#include <stdbool.h>

#include "base/err.h"
#include "engine/host.h"
#include "engine/image/image.h"

struct fetch_guard {
        const struct host *host;
        bool allowed; /* what the configuration names has been let through */
};

/* @ret borrows @g, which borrows @host. */
void fetch_guard_init(struct fetch_guard *g, const struct host *host, struct image_guard *ret);

/* Groups and rules that a killed operation left go; those of ranges that somebody has stay, and their
 * number is returned, unless @alone: at start and end, when no operation of ours lives.  Without
 * @host->net, at the end of a start that failed: groups alone. */
int fetch_guard_tidy(const struct host *host, bool alone, struct err *e);
