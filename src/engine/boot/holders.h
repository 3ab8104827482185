/* holders.h - who in a cluster still has a device. */
#pragma once
#include "base/err.h"
#include "engine/slice/slice.h"

/* In a group that is held still: 0 when no process has a character device open, mapped, or on its way
 * in a socket that neither slice_base_devices nor @allowed names.  -EBUSY says who has one. */
int holders_check(struct slice_host *h, const char *slice, const struct slice_device *allowed,
                  size_t n, struct err *e);
