/* security.c - see security.h. */
#include "model/security.h"

#include <assert.h>
#include <errno.h>

#include "base/mem.h"
#include "base/str.h"

const char *const security_profile_names[] = { "none", "standard", "strict", "compat" };
static_assert(NELEM(security_profile_names) == SECURITY_PROFILE_COUNT, "a name for each profile");

int security_profile_parse(const char *field, const char *s, enum security_profile *ret,
                           struct err *e)
{
        enum security_profile p = str_empty(s) ? SECURITY_STANDARD : SECURITY_NONE;

        for (int i = SECURITY_STANDARD; p == SECURITY_NONE && i < SECURITY_PROFILE_COUNT; i++)
                if (str_eq(s, security_profile_names[i]))
                        p = (enum security_profile) i;
        if (p == SECURITY_NONE)
                return err_set(e, -EINVAL, "%s: '%.32s' is none of standard, strict, compat", field,
                               s);
        *ret = p;
        return 0;
}
