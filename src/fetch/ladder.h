/* ladder.h - how vmm-fetch gives up what it does not need, in one written order. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* Climb down: see ladder.c for the rungs.  Afterwards the process sees an almost empty root file
 * system, has no capabilities even inside its own user namespace, cannot execute anything, and a
 * filter holds it to the system calls of its work.
 * @root_mnt is the detached mount of the staging directory and *@ret_root a descriptor on it, or both
 * are -EBADF.  Without @network it can make no socket.
 * The process has one thread until this returns. */
int ladder_descend(int root_mnt, bool network, int *ret_root, struct err *e);

/* The host's certificate bundle, read before the descent; NULL when there is none. */
char *ladder_read_ca(size_t *ret_len);
