/* bare_policy.c - takes the place of the tables that data/policy makes, in programs that measure what
 * the policy costs: every call is allowed, nothing is hidden, dropped, limited or set.  Linked into no
 * program that is installed. */
#include "engine/policy.h"
#include "engine/sandbox/filter.h"

#define R(n)                                                                                       \
        {                                                                                          \
                "any", (n), SECCOMP_RET_ALLOW, 0, { { 0, 0, 0 } }, SECURITY_NONE                   \
        }
#define R4(n)   R(n), R((n) + 1), R((n) + 2), R((n) + 3)
#define R16(n)  R4(n), R4((n) + 4), R4((n) + 8), R4((n) + 12)
#define R64(n)  R16(n), R16((n) + 16), R16((n) + 32), R16((n) + 48)
#define R256(n) R64(n), R64((n) + 64), R64((n) + 128), R64((n) + 192)

const struct filter_row policy_rows[] = { R256(0), R256(256) };
const size_t policy_n_rows = sizeof policy_rows / sizeof policy_rows[0];

const struct policy *policy_of(enum security_profile p)
{
        static const struct policy bare = { .capabilities = UINT64_MAX, .new_privs = true };

        return p < SECURITY_PROFILE_COUNT ? &bare : NULL;
}

const char *const policy_capability_names[] = {
        "CHOWN"
}; /* for profiles, which none of them has */
const size_t policy_n_capabilities =
        sizeof policy_capability_names / sizeof policy_capability_names[0];
