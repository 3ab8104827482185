/* each.h - what the kernel holds for an instance's networks, for tests. */
#pragma once
#include <stdint.h>

struct net_host;

/* @kind "link" (in use or ready), "dead link" (released, not yet deleted), "element" (of the firewall
 * sets; @name is the link's).  Stops when @fn returns < 0 and returns that. */
typedef int net_each_fn(void *arg, const char *kind, const char *name, uint32_t slot);
int net_each(struct net_host *h, net_each_fn *fn, void *arg);
