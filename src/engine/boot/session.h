/* session.h - what a cluster's first process gets to see: command line, environment and the small
 * files of ours.  Pure string work, so that it can be tested without a kernel. */
#pragma once
#include "engine/boot/boot.h"

/* Entry point and command of image and plan put together as Docker does; -EINVAL when both are
 * empty.  Heap vector. */
int session_argv(const struct plan *p, const struct image_config *c, char ***ret, struct err *e);

/* The image's variables, then the plan's (which win), then defaults for PATH. */
int session_env(const struct plan *p, const struct image_config *c, char ***ret, struct err *e);

/* /etc/hosts; heap.  @ipv4 and @service may be "". */
char *session_hosts(const char *hostname, const char *ipv4, const char *service);

/* /etc/profile.d/tensorone.sh: exports of @env for login shells, quoted for sh; heap. */
char *session_profile(char *const *env);
