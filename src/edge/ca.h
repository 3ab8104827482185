/* ca.h - a certificate authority of this host alone, and the two certificates that it signs for the edge.
 *
 * In a directory of root's: ca.key (0600), ca.pem (0644, what clients trust), tenant.pem and api.pem
 * (0600; certificate and key).  The authority can vouch for names below the two domains and for nothing
 * else, so whoever trusts it risks no other name.  Blocks on the disk; a few milliseconds. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define CA_CERT_FILE "ca.pem"
#define CA_KEY_FILE  "ca.key"

#define CA_FINGERPRINT_MAX 65U

struct ca_spec {
        const char *instance; /* in its name, for people */
        const char *tenant_domain, *api_domain;
        uint64_t now_s; /* since 1970 */
};

struct ca_result {
        char fingerprint
                [CA_FINGERPRINT_MAX]; /* SHA-256 of the authority's certificate, lower-case hex */
        bool new_authority, new_certificates;
};

/* Make in @dir whatever is not there, cannot be read, is for other names, or ends within 30 days.  An
 * authority that can sign what is wanted stays.  -EIO: what OpenSSL says. */
int ca_ensure(int dir, const struct ca_spec *spec, struct ca_result *ret, struct err *e);
