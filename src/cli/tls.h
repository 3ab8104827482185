/* tls.h - HTTPS to the API: whose word counts, what to say when it does not, and a look at who vouches for an
 * API that this computer does not know.  Handles are libcurl's; what connects blocks. */
#pragma once
#include <stdbool.h>

#include "base/err.h"
#include "base/mem.h"

#define TLS_FINGERPRINT_MAX 65U

/* Who is believed. */
struct tls_trust {
        const char *url;  /* of the API, for messages */
        const char *ca;   /* a PEM file: nobody else; NULL: whom the system believes */
        const char *from; /* where @ca was named */
};

/* Names and authorities are checked, always.  False: out of memory. */
bool tls_setup(void *curl, const char *ca);
/* Why a transfer failed when it is a matter of TLS: -EKEYREJECTED: an authority that is not believed, else
 * -EACCES, -ENOENT; 0: it is not, and *e is untouched. */
int tls_error(void *curl, int code, const struct tls_trust *t, struct err *e);

/* Connect, and hang up: as tls_error(); -ECONNREFUSED, -ETIMEDOUT: nobody is there to be checked. */
int tls_try(const struct tls_trust *t, struct err *e);

/* The authority that an API brings along, which vouches for its name. */
struct tls_authority {
        char *pem;                             /* heap */
        char name[128];                        /* fit for a terminal */
        char fingerprint[TLS_FINGERPRINT_MAX]; /* SHA-256, lower-case hex */
};

/* Sends nothing but the handshake, and believes nobody. */
int tls_look(const char *url, struct tls_authority *ret, struct err *e);
void tls_authority_done(struct tls_authority *a);
static inline void tls_authority_done_cleanup(struct tls_authority *a)
{
        tls_authority_done(a);
}

/* Certificates of a file, at least one: the number, or -EBADMSG.  Pure. */
int tls_count(const char *pem);
/* "AB:CD:..." or "abcd..." -> "abcd..."; -EINVAL.  Pure. */
int tls_fingerprint(const char *text, char ret[static TLS_FINGERPRINT_MAX], struct err *e);
