/* cert.h - a certificate with its chain and key, as text: what clients would say of it, before they do.
 * Pure, but for what OpenSSL keeps. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define CERT_PEM_MAX         14000U /* HAProxy takes a certificate in one command of 16 KiB */
#define CERT_FINGERPRINT_MAX 65U

struct cert {
        char *pem; /* certificate, chain, key, nothing else and no empty line; heap, with a secret in it */
        uint64_t begins_s, ends_s;              /* since 1970 */
        char fingerprint[CERT_FINGERPRINT_MAX]; /* SHA-256, lower-case hex */
};

/* What @text holds, in any order: the certificate is the one that the key belongs to, all others are its
 * chain.  @host has to be among its names; @names says in messages what that stands for.  -EBADMSG,
 * -EKEYREJECTED, -E2BIG: a sentence that follows the name of the file. */
int cert_read(const char *text, size_t len, const char *host, const char *names, struct cert *ret,
              struct err *e);
void cert_done(struct cert *c);
static inline void cert_done_cleanup(struct cert *c)
{
        cert_done(c);
}

/* -EKEYEXPIRED: not good at that time, and why. */
int cert_check_time(const struct cert *c, uint64_t now_s, struct err *e);

/* "2027-01-31", 11 bytes. */
void cert_date(uint64_t at_s, char ret[static 11]);
