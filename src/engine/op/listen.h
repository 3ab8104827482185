/* listen.h - unix stream sockets named relative to a directory descriptor, so that no path of any
 * length or owner is involved. */
#pragma once
#include "base/err.h"

/* Bind and listen at @name below @dirfd (an older socket of that name is replaced), mode 0600. */
int op_listen(int dirfd, const char *name, struct err *e);

/* Connect to it. */
int op_connect(int dirfd, const char *name, struct err *e);
