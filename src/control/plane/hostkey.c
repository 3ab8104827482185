/* hostkey.c - the key by which a cluster's SSH server is known.  tensorone-api; pure but for OpenSSL.
 *
 * Derived from the secret that keys of clusters are derived from, so it is the cluster's own, the same
 * after every stop, restart and move, and lies in no store; the public half can be told before the
 * cluster has ever run. */
#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

#include "base/str.h"
#include "control/plane/plane_priv.h"
#include "model/sshkey.h"

#define TYPE      "ssh-ed25519"
#define KEY_BYTES 32U

struct blob {
        uint8_t data[128];
        size_t len;
};

static void add(struct blob *b, const void *data, size_t len)
{
        memcpy(b->data + b->len, data, len);
        b->len += len;
}

/* The length of what follows. */
static void add_length(struct blob *b, size_t n)
{
        const uint8_t text[4] = { 0, 0, 0, (uint8_t) n };

        add(b, text, sizeof text);
}

static char *blob_text(const char *before, const struct blob *b)
{
        char text[(sizeof b->data + 2) / 3 * 4 + 1];
        char *r;

        sshkey_base64(b->data, b->len, text);
        r = str_fmt("%s%s", before, text);
        explicit_bzero(text, sizeof text);
        return r;
}

static int public_half(const uint8_t seed[static KEY_BYTES], uint8_t ret[static KEY_BYTES])
{
        EVP_PKEY *k = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, KEY_BYTES);
        size_t len = KEY_BYTES;
        int r = k && EVP_PKEY_get_raw_public_key(k, ret, &len) == 1 && len == KEY_BYTES ? 0
                                                                                        : -ENOMEM;

        EVP_PKEY_free(k);
        return r;
}

/* dropbear's form of the pair with @private, otherwise the public half as ssh knows it. */
static char *key_text(const struct plane *p, const struct cluster *c, bool private)
{
        uint8_t seed[KEY_BYTES], public[KEY_BYTES];
        struct blob b = { .len = 0 };
        char *text;

        if (accounts_cluster_seed(p->accounts, "ssh-host-key", c->id, c->created_us, seed) < 0)
                return NULL;
        if (public_half(seed, public) < 0) {
                explicit_bzero(seed, sizeof seed);
                return NULL;
        }
        add_length(&b, strlen(TYPE));
        add(&b, TYPE, strlen(TYPE));
        add_length(&b, private ? 2 * KEY_BYTES : KEY_BYTES);
        if (private)
                add(&b, seed, KEY_BYTES);
        add(&b, public, KEY_BYTES);
        text = blob_text(private ? "" : TYPE " ", &b);
        explicit_bzero(seed, sizeof seed);
        explicit_bzero(&b, sizeof b);
        return text;
}

char *plane_host_key_private(const struct plane *p, const struct cluster *c)
{
        return key_text(p, c, true);
}

char *plane_host_key(const struct plane *p, const struct cluster *c)
{
        return key_text(p, c, false);
}
