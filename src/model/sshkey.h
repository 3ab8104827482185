/* sshkey.h - public SSH keys as people paste them: one line each, "TYPE BASE64 COMMENT".
 *
 * An account's keys are one text of such lines; empty ones and those that begin with # mean nothing.
 * Options in front of a key, which OpenSSH's authorized_keys may have, are refused: they would mean
 * something else in each server.  Pure. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/limits.h"

#define SSHKEY_BLOB_MAX   4096U  /* bytes of a key, decoded: an RSA key of 16,384 bits has 2,071 */
#define SSHKEY_RSA_LEAST  2048U  /* bits */
#define SSHKEY_RSA_MOST   16384U /* bits */
#define SSHKEY_BASE64_MAX ((SSHKEY_BLOB_MAX + 2) / 3 * 4)

struct sshkey {
        const char *type; /* "ssh-ed25519", of our table */
        uint32_t bits;
        size_t len;
        uint8_t blob[SSHKEY_BLOB_MAX]; /* what a fingerprint is the digest of */
        const char *comment;           /* in the text that was read, behind the key; never NULL */
        size_t comment_len;
};

/* The key in the line that @text begins with; *@ret_next is where the next line begins.  0: there is none
 * in it, 1: *@ret holds it.  -EINVAL, -ERANGE, -E2BIG: *e names what is wrong, not where. */
int sshkey_line(const char *text, struct sshkey *ret, const char **ret_next, struct err *e);

/* Every line of @text is a key or means nothing, and there are at most LIMIT_SSH_KEYS in at most
 * LIMIT_SSH_KEYS_BYTES.  *e begins with @field and names the line.  Returns how many. */
int sshkey_check(const char *field, const char *text, struct err *e);

/* "SHA256:..." as ssh-keygen prints it, from the digest of a blob. */
#define SSHKEY_FINGERPRINT_LEN 50U
void sshkey_fingerprint(const uint8_t sha256[static 32],
                        char ret[static SSHKEY_FINGERPRINT_LEN + 1]);

/* Base64 of @len bytes, NUL behind it; @ret has sshkey_base64_len(@len) + 1 bytes. */
static inline size_t sshkey_base64_len(size_t len)
{
        return (len + 2) / 3 * 4;
}
void sshkey_base64(const uint8_t *data, size_t len, char *ret);
/* And back, canonical or not at all: how many bytes, or -EINVAL, also for more than @max. */
int sshkey_unbase64(const char *s, size_t len, uint8_t *ret, size_t max);
