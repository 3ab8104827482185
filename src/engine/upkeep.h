/* upkeep.h - the host's housekeeping beside the clusters: the firewall that somebody else may wipe,
 * links of released networks, which are expensive to delete and therefore deleted later, mounts of
 * images without clusters, and what an image operation that was killed has left. */
#pragma once
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/mem.h"
#include "engine/host.h"
#include "engine/net/net.h"

struct upkeep;
struct op_runner;

int upkeep_new(sd_event *loop, struct op_runner *runner, const struct host *host,
               struct upkeep **ret, struct err *e);
struct upkeep *upkeep_free(struct upkeep *u);
DEFINE_AUTO(struct upkeep *, upkeep_free)

/* Which images have clusters or are about to: ids into @ret, at most @max; returns how many. */
typedef size_t upkeep_images_fn(void *arg, uint64_t *ret, size_t max);
void upkeep_watch_images(struct upkeep *u, upkeep_images_fn *fn, void *arg);

/* What a cluster may do on the network, for making that again: first of all now, since somebody may have
 * wiped the firewall while no engine ran.  NULL: nobody knows any more. */
void upkeep_watch_policies(struct upkeep *u, net_policy_fn *fn, void *arg);

/* A cluster's network was released: reap it a few seconds from now, and the mount of its image when
 * no other cluster has it. */
void upkeep_released(void *upkeep);
/* An image operation ended in the middle: collect what it was writing. */
void upkeep_image_died(void *upkeep);
