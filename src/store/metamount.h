/* metamount.h - mounting the metadata file system of an image.  Needs CAP_SYS_ADMIN; blocks briefly. */
#pragma once
#include <stddef.h>

#include "base/err.h"

/* @meta: the file system, @packs: its devices as erofs_devices() orders them.  All are paths of files
 * ("/proc/self/fd/N" does) on a kernel that can (6.12 and later), or all of loop devices.
 * Returns a detached mount, read-only and without devices.  -ENOTBLK: this kernel wants loop devices;
 * nothing was mounted.  What the kernel said goes into *e. */
int metamount(const char *meta, const char *const *packs, size_t n_packs, struct err *e);
