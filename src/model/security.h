/* security.h - how strictly a cluster is held.  Pure.
 *
 * What a profile means is data (data/policy/); here are only their names, as templates, requests and
 * plans spell them. */
#pragma once
#include "base/err.h"

enum security_profile {
        SECURITY_NONE,
        SECURITY_STANDARD, /* as a virtual server feels: debuggers and low ports work, sudo does not */
        SECURITY_STRICT, /* no ptrace, no listener below port 1024, the root file system is read-only */
        SECURITY_COMPAT, /* set-id programs count, so that sudo works */
        SECURITY_PROFILE_COUNT
};
extern const char *const security_profile_names[SECURITY_PROFILE_COUNT];

/* NULL and "" are the standard one.  -EINVAL names @field and lists what there is. */
int security_profile_parse(const char *field, const char *s, enum security_profile *ret,
                           struct err *e);
