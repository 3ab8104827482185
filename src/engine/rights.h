/* rights.h - the capabilities of the engine, its operations and what they start: a list with a reason for
 * each, and no other.  Engine process, at its start; clusters have capabilities in their own user
 * namespaces, which this does not touch. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct right {
        const char *name; /* as systemd writes it: "CAP_CHOWN" */
        unsigned cap;
        const char *why;
};
extern const struct right rights[];
extern const size_t n_rights;

/* Keep the listed capabilities that there are, and drop every other one from all sets, also from the
 * bounding set: no program that is started later gets it back.  With one thread. */
int rights_keep(struct err *e);

/* One bit for each capability: the listed ones, and those that a process (0: us) has now. */
uint64_t rights_listed(void);
int rights_effective(uint64_t *ret, struct err *e);
