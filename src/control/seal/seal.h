/* seal.h - secrets as text that may lie in the store: AES-256-GCM under the one key of this control
 * plane, which lies beside the store and never in it.
 *
 * Sealed text opens only in its own place (table, row, account), so rows cannot be swapped.  It is
 * "1:KEYID:HEX", HEX: nonce (12 bytes), ciphertext, tag (16); KEYID: the first 8 hex digits of the
 * key's SHA-256, so that another key can be told from damage.  Nothing blocks but sealer_new(). */
#pragma once
#include "base/err.h"
#include "base/mem.h"

#define SEAL_KEY_FILE "seal.key" /* what messages call it */

struct sealer;

/* Read the key from @fd, a file of ours with mode 0600; an empty one gets a new key, durably.  A file
 * without a key in it, or none at all (@fd < 0), makes a sealer that refuses everything and says why:
 * what else there is goes on. */
int sealer_new(int fd, struct sealer **ret, struct err *e);
struct sealer *sealer_free(struct sealer *s); /* wipes the key */
DEFINE_AUTO(struct sealer *, sealer_free)

struct seal_place {
        const char *table, *id, *account;
};

/* *@ret is the caller's.  -ENOKEY: there is no key. */
int seal_close(const struct sealer *s, const struct seal_place *at, const char *secret, char **ret,
               struct err *e);
/* *@ret is the caller's to wipe and free.  -ENOKEY: no key; -EKEYREJECTED: sealed with another one;
 * -EBADMSG: damaged, or from another place. */
int seal_open(const struct sealer *s, const struct seal_place *at, const char *sealed, char **ret,
              struct err *e);
