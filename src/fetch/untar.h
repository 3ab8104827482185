/* untar.h - a tar stream into a tree.  Runs in vmm-fetch; blocks. */
#pragma once
#include <stdint.h>

#include "base/err.h"
#include "fetch/result.h"
#include "fetch/stream.h"
#include "fetch/tree.h"

struct untar_limits {
        uint64_t max_bytes, max_entries;
};

struct untar_totals {
        uint64_t bytes, entries;
};

/* Read @s (uncompressed) up to and including its last byte and write what it describes.  Device
 * nodes are left out.  @res hears of the bytes written.  *e names the entry that was wrong. */
int untar(struct stream *s, struct tree *t, const struct untar_limits *limits, struct result *res,
          struct untar_totals *ret, struct err *e);
