/* jail.h - a root file system with nothing in it but what a program of ours needs.
 *
 * For a child of the engine that is about to become another user and another program; such a program
 * cannot make it itself, having no rights.  What it shows is a bind mount of the host's. */
#pragma once
#include <stddef.h>

#include "base/err.h"

enum jail_kind {
        JAIL_NONE,
        JAIL_READ,   /* a file or a directory with what is mounted below it, read-only */
        JAIL_WRITE,  /* the same, writable; no program runs from it */
        JAIL_DEVICE, /* a device node; on all others devices are no devices */
        JAIL_KIND_COUNT
};

/* Shown at the same place.  One that the host lacks is passed over; a symbolic link is a link inside
 * as well, so what it leads to wants a row of its own. */
struct jail_row {
        const char *path; /* absolute */
        enum jail_kind kind;
};

/* Enter a mount namespace of its own whose root, read-only, holds the rows.  The working directory
 * is "/" afterwards.  Takes CAP_SYS_ADMIN; after a failure only _exit() is left.
 * #syscalls unshare mount fsopen fsconfig fsmount open_tree mount_setattr move_mount pivot_root umount2 */
int jail_enter(const struct jail_row *rows, size_t n, struct err *e);
