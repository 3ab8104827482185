/* ssh.h - what the verbs of `ssh` share: the key of this computer, and fingerprints. */
#pragma once
#include <stdbool.h>

#include "base/err.h"
#include "model/sshkey.h"

/* The file of this computer's public key, ~/.tensorone/ssh/id_ed25519.pub, the caller's to free; the
 * private one lies beside it, without the ending.  -ENOENT: there is none; with @make ssh-keygen makes
 * it.  May block on that program. */
int ssh_own_key(bool make, char **ret, struct err *e);

/* "SHA256:..." */
int ssh_fingerprint(const struct sshkey *k, char ret[static SSHKEY_FINGERPRINT_LEN + 1],
                    struct err *e);
