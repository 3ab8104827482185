/* domains.h - which domains the edge may serve.  Pure, but that the public suffix list is read. */
#pragma once
#include "base/err.h"

/* Two host names that share no cookies: tenants' pages must not be of one site with the API, by the
 * public suffix list.  -EINVAL with the option, what is wrong and the way out. */
int edge_domains_check(const char *tenant_domain, const char *api_domain, struct err *e);
