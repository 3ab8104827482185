/* tcp_listen.h - listeners at an address that somebody has written down.  Engine process, at start. */
#pragma once
#include "base/err.h"
#include "model/published.h"

/* @at: "127.0.0.1:8080", "[::1]:8080"; @what names it in messages.  The check alone opens nothing. */
int tcp_listen_check(const char *what, const char *at, struct err *e);
/* -EINVAL: it is one of @public, where callers reach clusters; not so at a loopback address. */
int tcp_listen_check_public(const char *what, const char *at, struct port_range public,
                            struct err *e);
/* -EADDRINUSE among others. */
int tcp_listen(const char *what, const char *at, struct err *e);

/* Where a listener may be reached from this host, "127.0.0.1:8080": one at every address at the loopback's;
 * and its port. */
#define TCP_LISTEN_TEXT 64U
int tcp_listen_address(int fd, char ret[static TCP_LISTEN_TEXT], unsigned *ret_port);
