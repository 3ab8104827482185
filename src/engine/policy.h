/* policy.h - what holds a cluster, as a table; generated from data/policy at build time.  Pure.
 *
 * Most of a sandbox is made before it is known for whom.  So the row of SECURITY_NONE is what can be
 * done by then: it keeps what any profile keeps, and covers and sets what all have in common.  A
 * profile's own row comes on top, when a program is started.  What its system calls may be is in
 * engine/sandbox/filter.h, because only the engine needs that table. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/security.h"

struct policy_rlimit {
        int what; /* RLIMIT_... */
        uint64_t value;
};

enum policy_mask_kind { POLICY_MASK_NONE, POLICY_HIDE, POLICY_RDONLY, POLICY_MASK_COUNT };
struct policy_mask {
        enum policy_mask_kind kind;
        const char *path; /* "/proc/kcore", "/sys/firmware" */
};

struct policy_memory { /* a directory that lies in memory */
        const char *path, *mode;
        unsigned share_pct; /* of the cluster's memory, at most */
};

struct policy_sysctl {
        const char *path, *value; /* value NULL: the range of the cluster's groups */
        bool may_lack;            /* a kernel without it does without */
};

struct policy {
        uint64_t capabilities;               /* a bit each; all others are gone for good */
        bool new_privs;                      /* set-id programs and file capabilities count */
        bool root_rdonly;                    /* all that is no mount of its own */
        const struct policy_rlimit *rlimits; /* the common ones too */
        size_t n_rlimits;
        const struct policy_mask *masks; /* of SECURITY_NONE: the common ones; else beside those */
        size_t n_masks;
        const struct policy_memory *memory;
        size_t n_memory;
        const struct policy_sysctl *sysctls; /* as masks */
        size_t n_sysctls;
};

/* NULL: there is no such profile. */
const struct policy *policy_of(enum security_profile p);

/* "CHOWN", by number. */
extern const char *const policy_capability_names[];
extern const size_t policy_n_capabilities;
