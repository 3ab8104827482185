/* inventory.h - what this host has to give, for the node protocol's hello. */
#pragma once
#include <jansson.h>

#include "base/err.h"
#include "engine/instance.h"

/* A new object (docs/node-protocol.md, inventory); @apparmor: whether clusters have profiles.  Reads /proc, /sys and statvfs. */
int inventory_read(const struct instance *inst, bool apparmor, json_t **ret, struct err *e);
