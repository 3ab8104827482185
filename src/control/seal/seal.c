/* seal.c - see seal.h.  tensorone-api; pure memory but for reading the key.
 *
 * What always holds: nonces are random and never reused on purpose; with 96 bits of them one key is
 * good for 2^32 secrets.  The secret and the key appear in no message. */
#include "control/seal/seal.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/str.h"

#define KEY_BYTES   32U
#define KEY_HEX     (2 * KEY_BYTES)
#define ID_HEX      8U
#define NONCE_BYTES 12U
#define TAG_BYTES   16U
#define PREFIX      "1:"
#define HEAD_CHARS  (sizeof PREFIX - 1 + ID_HEX + 1)
#define SEALED_MAX  (1U << 20)

struct sealer {
        unsigned char key[KEY_BYTES];
        char id[ID_HEX + 1]; /* "": there is no key */
        struct err why;
};

static int digit(char c)
{
        return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* @n bytes from twice as many digits. */
static bool hex_decode(const char *hex, unsigned char *out, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                int high = digit(hex[2 * i]), low = high < 0 ? -1 : digit(hex[2 * i + 1]);

                if (low < 0)
                        return false;
                out[i] = (unsigned char) (high << 4 | low);
        }
        return true;
}

/* ---- the key ---- */

static int set_id(struct sealer *s)
{
        unsigned char md[32];

        if (EVP_Digest(s->key, KEY_BYTES, md, NULL, EVP_sha256(), NULL) != 1)
                return -ENOMEM;
        hex_encode(md, ID_HEX / 2, s->id);
        return 0;
}

static int make_key(struct sealer *s, int fd, struct err *e)
{
        char text[KEY_HEX + 2];
        int r = rand_bytes(s->key, KEY_BYTES);

        if (r < 0)
                return err_errno(e, r, "make " SEAL_KEY_FILE);
        hex_encode(s->key, KEY_BYTES, text);
        text[KEY_HEX] = '\n';
        r = lseek(fd, 0, SEEK_SET) < 0 ? -errno : fd_write_full(fd, text, KEY_HEX + 1);
        explicit_bzero(text, sizeof text);
        if (r >= 0 && fsync(fd) < 0)
                r = -errno;
        return r < 0 ? err_errno(e, r, "write " SEAL_KEY_FILE) : set_id(s);
}

static int read_key(struct sealer *s, int fd, struct err *e)
{
        char text[KEY_HEX + 3] = "";
        ssize_t n = pread(fd, text, sizeof text - 1, 0);
        int r = 0;

        if (n < 0)
                return err_errno(e, -errno, "read " SEAL_KEY_FILE);
        if (n == 0)
                return make_key(s, fd, e);
        if (strcspn(text, "\n") == KEY_HEX && (size_t) n <= KEY_HEX + 1 &&
            hex_decode(text, s->key, KEY_BYTES))
                r = set_id(s);
        else
                (void) err_set(
                        &s->why, -ENOKEY,
                        SEAL_KEY_FILE
                        " holds no key; put the old one back, or empty it to have a new one made (what the old one sealed is lost then)");
        explicit_bzero(text, sizeof text);
        return r;
}

int sealer_new(int fd, struct sealer **ret, struct err *e)
{
        AUTO(sealer_free) struct sealer *s = calloc(1, sizeof *s);
        int r = 0;

        if (!s)
                return err_set(e, -ENOMEM, "out of memory");
        if (fd < 0)
                (void) err_set(&s->why, -ENOKEY,
                               "this API was started without a " SEAL_KEY_FILE
                               " and can keep no secrets");
        else
                r = read_key(s, fd, e);
        if (r < 0)
                return r;
        if (fd >= 0 && !*s->id)
                log_error("%s", s->why.msg);
        *ret = TAKE(s);
        return 0;
}

struct sealer *sealer_free(struct sealer *s)
{
        if (s)
                explicit_bzero(s, sizeof *s);
        free(s);
        return NULL;
}

/* ---- one secret ---- */

static int feed_place(EVP_CIPHER_CTX *c, bool seal, const struct seal_place *at)
{
        const char *const part[] = { at->table, at->id, at->account };

        for (size_t i = 0; i < NELEM(part); i++) { /* each with its NUL: no two places are alike */
                const unsigned char *p = (const unsigned char *) part[i];
                int n = (int) strlen(part[i]) + 1, out;

                if ((seal ? EVP_EncryptUpdate(c, NULL, &out, p, n)
                          : EVP_DecryptUpdate(c, NULL, &out, p, n)) != 1)
                        return -EIO;
        }
        return 0;
}

/* @out: nonce, @len bytes, tag. */
static int encrypt(const struct sealer *s, const struct seal_place *at, const char *secret,
                   size_t len, unsigned char *out)
{
        EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
        unsigned char *text = out + NONCE_BYTES;
        int n = 0, r = c ? rand_bytes(out, NONCE_BYTES) : -ENOMEM;

        if (r >= 0 && EVP_EncryptInit_ex2(c, EVP_aes_256_gcm(), s->key, out, NULL) != 1)
                r = -EIO;
        if (r >= 0)
                r = feed_place(c, true, at);
        if (r >= 0 &&
            (EVP_EncryptUpdate(c, text, &n, (const unsigned char *) secret, (int) len) != 1 ||
             EVP_EncryptFinal_ex(c, text + n, &n) != 1 ||
             EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, text + len) != 1))
                r = -EIO;
        EVP_CIPHER_CTX_free(c);
        return r;
}

static int decrypt(const struct sealer *s, const struct seal_place *at, unsigned char *in,
                   size_t len, char *out)
{
        EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
        unsigned char *text = in + NONCE_BYTES, *to = (unsigned char *) out;
        int n = 0, r = c ? 0 : -ENOMEM;

        if (r >= 0 && EVP_DecryptInit_ex2(c, EVP_aes_256_gcm(), s->key, in, NULL) != 1)
                r = -EIO;
        if (r >= 0)
                r = feed_place(c, false, at);
        if (r >= 0 && (EVP_DecryptUpdate(c, to, &n, text, (int) len) != 1 ||
                       EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, TAG_BYTES, text + len) != 1 ||
                       EVP_DecryptFinal_ex(c, to + n, &n) != 1))
                r = -EBADMSG;
        EVP_CIPHER_CTX_free(c);
        return r;
}

int seal_close(const struct sealer *s, const struct seal_place *at, const char *secret, char **ret,
               struct err *e)
{
        size_t len = strlen(secret), bytes = NONCE_BYTES + len + TAG_BYTES;
        AUTO(free) unsigned char *raw = NULL;
        AUTO(free) char *text = NULL;
        int r;

        if (!*s->id)
                return err_copy(e, &s->why);
        if (len > SEALED_MAX)
                return err_set(e, -E2BIG, "a secret has at most %u bytes", SEALED_MAX);
        raw = malloc(bytes);
        text = malloc(HEAD_CHARS + 2 * bytes + 1);
        if (!raw || !text)
                return err_set(e, -ENOMEM, "out of memory");
        r = encrypt(s, at, secret, len, raw);
        if (r < 0)
                return err_set(e, r, "a secret could not be sealed");
        (void) snprintf(text, HEAD_CHARS + 1, PREFIX "%s:", s->id);
        hex_encode(raw, bytes, text + HEAD_CHARS);
        *ret = TAKE(text);
        return 0;
}

int seal_open(const struct sealer *s, const struct seal_place *at, const char *sealed, char **ret,
              struct err *e)
{
        const char *id = str_after(sealed, PREFIX), *hex = id ? strchr(id, ':') : NULL;
        size_t digits = hex ? strlen(hex + 1) : 0, bytes = digits / 2, len;
        AUTO(free) unsigned char *raw = NULL;
        AUTO(free) char *text = NULL;
        int r;

        if (!*s->id)
                return err_copy(e, &s->why);
        if (!hex || hex != id + ID_HEX || digits % 2 || bytes < NONCE_BYTES + TAG_BYTES)
                return err_set(e, -EBADMSG, "the sealed text is damaged");
        if (memcmp(id, s->id, ID_HEX) != 0)
                return err_set(e, -EKEYREJECTED,
                               "sealed with another key: " SEAL_KEY_FILE " has been replaced");
        len = bytes - NONCE_BYTES - TAG_BYTES;
        raw = malloc(bytes);
        text = calloc(1, len + 1);
        if (!raw || !text)
                return err_set(e, -ENOMEM, "out of memory");
        r = hex_decode(hex + 1, raw, bytes) ? decrypt(s, at, raw, len, text) : -EBADMSG;
        if (r < 0) {
                explicit_bzero(text, len);
                return err_set(e, r, "the sealed text is damaged, or belongs to another row");
        }
        *ret = TAKE(text);
        return 0;
}
