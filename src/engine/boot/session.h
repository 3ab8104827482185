/* session.h - what a cluster's first process gets to see: command line, environment and the small
 * files of ours.  Pure string work, so that it can be tested without a kernel. */
#pragma once
#include "engine/boot/boot.h"

/* Entry point and command of image and plan put together as Docker does; -EINVAL when both are
 * empty.  Heap vector. */
int session_argv(const struct plan *p, const struct image_config *c, char ***ret, struct err *e);

/* The image's variables, then @own (which win): the plan's with secrets in the place of their
 * placeholders; then defaults for PATH. */
int session_env(const struct plan *p, char *const *own, const struct image_config *c, char ***ret,
                struct err *e);

/* Adds where its published ports are reached from outside (RUNPOD_PUBLIC_IP, RUNPOD_TCP_PORT_22, and the same
 * as TENSORONE_...); nothing without any. */
int session_ports(const struct published *ports, const char *public_ip, char ***env, struct err *e);

/* /etc/hosts; heap.  Addresses may be "". */
char *session_hosts(const char *hostname, const struct net_lease *lease);

/* root's authorized_keys: of @env, SSH_PUBLIC_KEY where it is set, otherwise PUBLIC_KEY; heap, "" for none.
 * @env: of the plan, never of the image, whose author is nobody to let in.  The user's own lines go in as
 * they are: what is no key is passed over by the server. */
char *session_authorized_keys(char *const *env);
/* The same of an account's @keys, lines as vmm-ssh has them. */
char *session_account_keys(const char *keys);

/* /etc/profile.d/tensorone.sh: exports of @env for login shells, quoted for sh; heap.  It lies on the
 * disk: variables with placeholders for secrets are read from SESSION_SECRETS, which does not. */
char *session_profile(char *const *env);
#define SESSION_SECRETS "/dev/.tensorone-secrets.sh"
/* That file: exports of those variables of @env, with the values that @expanded has; "" without any. */
char *session_secret_profile(char *const *env, char *const *expanded);
