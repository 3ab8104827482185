/* netns.h - a fresh network namespace with our sysctls, and things of it to hold on to.
 * Changes the calling process's network namespace for a moment: one thread only. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/net/nl.h"

/* The namespace that the process is in now. */
int netns_own(struct err *e);

/* Make one; groups @gid_first..@gid_last may send ICMP echo in it, any user may bind any port, and
 * without @ipv6 that is off except on lo; with it no link
 * makes itself an address or believes a router.  On success the caller closes the namespace *@ret, the detached
 * read-only sysfs mount *@ret_sysfs and the rtnetlink socket *@ret_rtnl, which lies inside.
 * @own: where to come back to.  -ENOTRECOVERABLE: the process could not come back and must end. */
int netns_make(int own, uint32_t gid_first, uint32_t gid_last, bool ipv6, int *ret, int *ret_sysfs,
               struct nl_sock *ret_rtnl, struct err *e);
