/* sshkey.c - see sshkey.h.  Pure; control plane, engine and tensoronecli.
 *
 * Always holds: a key that is let through has exactly the fields of its type, nothing behind them, and
 * no byte in its line that a terminal or a shell script would take for more than text. */
#include "model/sshkey.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/mem.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

enum shape { SHAPE_NONE, SHAPE_RSA, SHAPE_CURVE, SHAPE_ED25519 };

/* What is taken.  Of a curve: its name, the length of a point, and whether an application's name follows,
 * as it does in keys of hardware tokens. */
static const struct key_type {
        const char *name;
        enum shape shape;
        const char *curve;
        uint32_t bits, point;
        bool application;
} types[] = {
        { "ssh-ed25519", SHAPE_ED25519, NULL, 256, 32, false },
        { "ssh-rsa", SHAPE_RSA, NULL, 0, 0, false },
        { "ecdsa-sha2-nistp256", SHAPE_CURVE, "nistp256", 256, 65, false },
        { "ecdsa-sha2-nistp384", SHAPE_CURVE, "nistp384", 384, 97, false },
        { "ecdsa-sha2-nistp521", SHAPE_CURVE, "nistp521", 521, 133, false },
        { "sk-ssh-ed25519@openssh.com", SHAPE_ED25519, NULL, 256, 32, true },
        { "sk-ecdsa-sha2-nistp256@openssh.com", SHAPE_CURVE, "nistp256", 256, 65, true },
};

/* What people paste by mistake: how the line begins, and what it is. */
static const struct {
        const char *start, *what;
} mistakes[] = {
        { "-----BEGIN", "this is a private key; give its public half, the file that ends in .pub" },
        { "---- BEGIN SSH2",
          "this is another form of a public key; ssh-keygen -i -f FILE prints the "
          "one that is wanted" },
        { "ssh-dss", "DSA keys are not taken by SSH servers any more; make an ed25519 key" },
        { "PuTTY-User-Key", "this is PuTTY's file with a private key; give the line that PuTTYgen "
                            "shows for authorized_keys" },
};

/* ---- base64 -------------------------------------------------------------------------------- */

void sshkey_base64(const uint8_t *data, size_t len, char *ret)
{
        for (size_t i = 0; i < len; i += 3) {
                size_t left = len - i;
                uint32_t v = (uint32_t) data[i] << 16 |
                             (left > 1 ? (uint32_t) data[i + 1] << 8 : 0) |
                             (left > 2 ? data[i + 2] : 0);

                *ret++ = alphabet[v >> 18 & 63];
                *ret++ = alphabet[v >> 12 & 63];
                *ret++ = left > 1 ? alphabet[v >> 6 & 63] : '=';
                *ret++ = left > 2 ? alphabet[v & 63] : '=';
        }
        *ret = '\0';
}

int sshkey_unbase64(const char *s, size_t len, uint8_t *ret, size_t max)
{
        size_t n = 0, pad = 0;

        if (len == 0 || len % 4 != 0 || len / 4 * 3 > max + 2)
                return -EINVAL;
        while (pad < 2 && s[len - 1 - pad] == '=')
                pad++;
        for (size_t i = 0; i < len; i += 4) {
                size_t want = i + 4 == len ? 4 - pad : 4;
                uint32_t v = 0;

                for (size_t k = 0; k < 4; k++) {
                        const char *at = k < want ? memchr(alphabet, s[i + k], 64) : alphabet;

                        if (!at)
                                return -EINVAL;
                        v = v << 6 | (uint32_t) (at - alphabet);
                }
                if ((want == 2 && v & 0xffff) || (want == 3 && v & 0xff))
                        return -EINVAL; /* bits that no encoder writes: two texts of one key */
                for (size_t k = 0; k + 1 < want; k++) {
                        if (n == max)
                                return -EINVAL;
                        ret[n++] = (uint8_t) (v >> (16 - 8 * k));
                }
        }
        return (int) n;
}

void sshkey_fingerprint(const uint8_t sha256[static 32],
                        char ret[static SSHKEY_FINGERPRINT_LEN + 1])
{
        char text[45];

        sshkey_base64(sha256, 32, text);
        text[43] = '\0'; /* without the "=" */
        memcpy(ret, "SHA256:", 7);
        memcpy(ret + 7, text, 44);
}

/* ---- the fields of a key ------------------------------------------------------------------- */

struct field {
        const uint8_t *data;
        size_t len;
};

/* The next string: a length of four bytes, then that many. */
static bool take(const uint8_t **p, size_t *left, struct field *ret)
{
        uint32_t n;

        if (*left < 4)
                return false;
        n = (uint32_t) (*p)[0] << 24 | (uint32_t) (*p)[1] << 16 | (uint32_t) (*p)[2] << 8 | (*p)[3];
        if (n > *left - 4)
                return false;
        *ret = (struct field){ *p + 4, n };
        *p += 4 + n;
        *left -= 4 + n;
        return true;
}

static bool is_text(const struct field *f, const char *s)
{
        return f->len == strlen(s) && memcmp(f->data, s, f->len) == 0;
}

/* Bits of a positive number without needless zeros in front; 0: it is none. */
static uint32_t number_bits(const struct field *f)
{
        const uint8_t *p = f->data;
        size_t n = f->len;
        uint32_t bits;

        if (n == 0 || p[0] & 0x80)
                return 0;
        if (p[0] == 0) {
                if (n == 1 || !(p[1] & 0x80))
                        return 0;
                p++;
                n--;
        }
        bits = (uint32_t) (n - 1) * 8;
        for (unsigned top = p[0]; top; top >>= 1)
                bits++;
        return bits;
}

static int check_rsa(const uint8_t **p, size_t *left, uint32_t *ret_bits, struct err *e)
{
        struct field exponent, modulus;

        if (!take(p, left, &exponent) || !take(p, left, &modulus) || number_bits(&exponent) < 2 ||
            (*ret_bits = number_bits(&modulus)) == 0)
                return -EINVAL;
        if (*ret_bits < SSHKEY_RSA_LEAST || *ret_bits > SSHKEY_RSA_MOST)
                return err_set(e, -ERANGE,
                               "the RSA key has %u bits, %u to %u are taken; make an ed25519 key",
                               *ret_bits, SSHKEY_RSA_LEAST, SSHKEY_RSA_MOST);
        return 0;
}

static int check_curve(const struct key_type *t, const uint8_t **p, size_t *left)
{
        struct field curve, point;

        if (t->curve && (!take(p, left, &curve) || !is_text(&curve, t->curve)))
                return -EINVAL;
        if (!take(p, left, &point) || point.len != t->point)
                return -EINVAL;
        return t->shape == SHAPE_CURVE && point.data[0] != 4 ? -EINVAL : 0; /* uncompressed */
}

/* -EINVAL without a word: it is not what its type says. */
static int check_blob(const struct key_type *t, struct sshkey *k, struct err *e)
{
        const uint8_t *p = k->blob;
        size_t left = k->len;
        struct field f;
        int r;

        if (!take(&p, &left, &f) || !is_text(&f, t->name))
                return -EINVAL;
        k->bits = t->bits;
        r = t->shape == SHAPE_RSA ? check_rsa(&p, &left, &k->bits, e) : check_curve(t, &p, &left);
        if (r >= 0 && t->application && (!take(&p, &left, &f) || f.len == 0))
                r = -EINVAL;
        return r >= 0 && left > 0 ? -EINVAL : r;
}

/* ---- lines --------------------------------------------------------------------------------- */

static bool is_blank(char c)
{
        return c == ' ' || c == '\t';
}

static size_t word_len(const char *s, size_t len)
{
        size_t n = 0;

        while (n < len && !is_blank(s[n]))
                n++;
        return n;
}

static const char *skip_blanks(const char *s, const char *end)
{
        while (s < end && is_blank(*s))
                s++;
        return s;
}

static int refuse_type(const char *s, size_t len, struct err *e)
{
        for (size_t i = 0; i < NELEM(mistakes); i++) {
                size_t n = strlen(mistakes[i].start);

                if (len >= n && memcmp(s, mistakes[i].start, n) == 0)
                        return err_set(e, -EINVAL, "%s", mistakes[i].what);
        }
        return err_set(e, -EINVAL,
                       "it must begin with the key's type, such as ssh-ed25519, ssh-rsa or "
                       "ecdsa-sha2-nistp256, and hold no options");
}

/* @s to @end is one line without blanks around it, and not empty. */
static int read_key(const char *s, const char *end, struct sshkey *ret, struct err *e)
{
        const struct key_type *t = NULL;
        struct err why = { 0 };
        size_t n = word_len(s, (size_t) (end - s));
        int len, r;

        for (const char *p = s; p < end; p++)
                if (((unsigned char) *p < ' ' && *p != '\t') || *p == 0x7f)
                        return err_set(e, -EINVAL, "it holds a control character");
        for (size_t i = 0; i < NELEM(types); i++)
                if (strlen(types[i].name) == n && memcmp(types[i].name, s, n) == 0)
                        t = &types[i];
        if (!t)
                return refuse_type(s, (size_t) (end - s), e);
        s = skip_blanks(s + n, end);
        n = word_len(s, (size_t) (end - s));
        if (n > SSHKEY_BASE64_MAX)
                return err_set(e, -E2BIG, "the %s key is longer than any that is taken", t->name);
        len = sshkey_unbase64(s, n, ret->blob, sizeof ret->blob);
        ret->len = len < 0 ? 0 : (size_t) len;
        r = len < 0 ? len : check_blob(t, ret, &why);
        if (r < 0 && why.msg[0])
                return err_copy(e, &why);
        if (r < 0)
                return err_set(e, -EINVAL,
                               "what follows %s is no whole key of that type; it must be the one "
                               "line of a .pub file",
                               t->name);
        ret->type = t->name;
        ret->comment = skip_blanks(s + n, end);
        ret->comment_len = (size_t) (end - ret->comment);
        return 1;
}

int sshkey_line(const char *text, struct sshkey *ret, const char **ret_next, struct err *e)
{
        const char *end = text + strcspn(text, "\n"), *start = skip_blanks(text, end);

        *ret_next = end + (*end == '\n');
        while (end > start && (is_blank(end[-1]) || end[-1] == '\r'))
                end--;
        return start == end || *start == '#' ? 0 : read_key(start, end, ret, e);
}

int sshkey_check(const char *field, const char *text, struct err *e)
{
        size_t bytes = strlen(text);
        unsigned line = 1, n = 0;
        struct sshkey key;

        if (bytes > LIMIT_SSH_KEYS_BYTES)
                return err_set(e, -E2BIG, "%s: %zu bytes, at most %u are allowed", field, bytes,
                               LIMIT_SSH_KEYS_BYTES);
        for (const char *p = text; *p; line++) {
                struct err why = { 0 };
                int r = sshkey_line(p, &key, &p, &why);

                if (r < 0)
                        return err_set(e, r, "%s: line %u: %s", field, line, why.msg);
                n += (unsigned) r;
        }
        if (n > LIMIT_SSH_KEYS)
                return err_set(e, -E2BIG, "%s: %u keys, at most %u are allowed; remove some", field,
                               n, LIMIT_SSH_KEYS);
        return (int) n;
}
