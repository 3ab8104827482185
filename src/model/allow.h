/* allow.h - the networks from which a cluster's web ports may be asked, and how the edge looks one up.
 *
 * The edge has an address in hexadecimal digits behind '4' or '6' ("47F000001") and asks for the longest entry that it begins with.  A
 * network is up to eight such entries, because a digit is four bits of a prefix.  Pure. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "model/egress.h"
#include "model/limits.h"

struct allow {
        size_t n;                              /* 0: all addresses */
        struct network net[LIMIT_ALLOWED_IPS]; /* none within another */
};

/* @list may be NULL.  -EINVAL and -E2BIG name @field, the entry and the way out. */
int allow_parse(const char *field, char *const *list, struct allow *ret, struct err *e);

#define ALLOW_ENTRY_MAX 34U /* with the NUL */
#define ALLOW_ENTRIES   8U  /* of one network, at most */
size_t allow_entries(const struct network *n, char ret[ALLOW_ENTRIES][ALLOW_ENTRY_MAX]);
/* One of @a's networks has that entry. */
bool allow_has_entry(const struct allow *a, const char *entry);
bool allow_same(const struct allow *a, const struct allow *b);
