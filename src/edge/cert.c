/* cert.c - see cert.h.  Engine process, and `doctor`.
 *
 * Whoever writes certificates into place may be half-way through; nothing here is surprised by that. */
#include "edge/cert.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"

#define CHAIN_MAX 16 /* certificates */

static inline void BIO_free_cleanup(BIO **b)
{
        (void) BIO_free(*b);
}

static inline void EVP_PKEY_free_cleanup(EVP_PKEY **k)
{
        EVP_PKEY_free(*k);
}

struct chain {
        X509 *cert[CHAIN_MAX];
        int n;
};

static void chain_done_cleanup(struct chain *c)
{
        for (int i = 0; i < c->n; i++)
                X509_free(c->cert[i]);
}

void cert_done(struct cert *c)
{
        c->pem = str_wipe_free(c->pem);
}

/* Instead of OpenSSL's own, which would ask at a terminal. */
static int no_passphrase(char *buf, int size, int writing, void *asked)
{
        (void) buf;
        (void) size;
        (void) writing;
        *(bool *) asked = true;
        return -1;
}

/* Whether nothing more was there, which is no error; forgets what OpenSSL has to say. */
static bool at_end(void)
{
        unsigned long said = ERR_peek_last_error();

        ERR_clear_error();
        return ERR_GET_LIB(said) == ERR_LIB_PEM && ERR_GET_REASON(said) == PEM_R_NO_START_LINE;
}

static int read_chain(const char *text, size_t len, struct chain *ret, struct err *e)
{
        AUTO(BIO_free) BIO *b = BIO_new_mem_buf(text, (int) len);
        bool asked = false;
        X509 *x;

        if (!b)
                return err_set(e, -ENOMEM, "out of memory");
        while ((x = PEM_read_bio_X509(b, NULL, no_passphrase, &asked))) {
                if (ret->n == CHAIN_MAX) {
                        X509_free(x);
                        return err_set(e, -E2BIG, "more than %d certificates", CHAIN_MAX);
                }
                ret->cert[ret->n++] = x;
        }
        if (!at_end())
                return err_set(e, -EBADMSG,
                               "what follows certificate %d in it is damaged or cut off", ret->n);
        return ret->n ? 0 : err_set(e, -EBADMSG, "no certificate in it");
}

static int read_key(const char *text, size_t len, EVP_PKEY **ret, struct err *e)
{
        AUTO(BIO_free) BIO *b = BIO_new_mem_buf(text, (int) len);
        bool asked = false;

        if (!b)
                return err_set(e, -ENOMEM, "out of memory");
        *ret = PEM_read_bio_PrivateKey(b, NULL, no_passphrase, &asked);
        ERR_clear_error();
        if (*ret)
                return 0;
        if (asked)
                return err_set(
                        e, -EBADMSG,
                        "its key wants a passphrase, and nobody is there to type it; store it without one, readable by root alone");
        return err_set(e, -EBADMSG,
                       strstr(text, " PRIVATE KEY-----")
                               ? "the private key in it is damaged or cut off"
                               : "no private key in it");
}

/* To the front of the chain. */
static int find_own(struct chain *c, EVP_PKEY *key, struct err *e)
{
        for (int i = 0; i < c->n; i++) {
                X509 *own = c->cert[i];
                bool fits = X509_check_private_key(own, key) == 1;

                ERR_clear_error();
                if (!fits)
                        continue;
                memmove(c->cert + 1, c->cert, (size_t) i * sizeof *c->cert);
                c->cert[0] = own;
                return 0;
        }
        return err_set(e, -EKEYREJECTED, "the private key belongs to another certificate");
}

static int check_name(X509 *x, const char *host, const char *names, struct err *e)
{
        GENERAL_NAMES *all;
        char first[128] = "no name";

        if (X509_check_host(x, host, 0, 0, NULL) == 1)
                return 0;
        all = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
        for (int i = 0; i < sk_GENERAL_NAME_num(all); i++) {
                const GENERAL_NAME *n = sk_GENERAL_NAME_value(all, i);

                if (n->type != GEN_DNS)
                        continue;
                (void) snprintf(first, sizeof first, "%.*s", ASN1_STRING_length(n->d.dNSName),
                                (const char *) ASN1_STRING_get0_data(n->d.dNSName));
                str_tame(first, '?');
                break;
        }
        GENERAL_NAMES_free(all);
        ERR_clear_error();
        return err_set(e, -EKEYREJECTED, "the certificate is for %s, not for %s", first, names);
}

static int to_seconds(const ASN1_TIME *t, uint64_t *ret)
{
        struct tm tm;
        time_t s;

        if (ASN1_TIME_to_tm(t, &tm) != 1)
                return -EBADMSG;
        s = timegm(&tm);
        *ret = s < 0 ? 0 : (uint64_t) s;
        return 0;
}

static int write_pem(const struct chain *c, EVP_PKEY *key, char **ret, struct err *e)
{
        AUTO(BIO_free) BIO *b = BIO_new(BIO_s_secmem());
        bool good = b != NULL;
        char *text = NULL;
        long len;

        for (int i = 0; good && i < c->n; i++)
                good = PEM_write_bio_X509(b, c->cert[i]) == 1;
        good = good && PEM_write_bio_PrivateKey(b, key, NULL, NULL, 0, NULL, NULL) == 1;
        ERR_clear_error();
        if (!good)
                return err_set(e, -ENOMEM, "out of memory");
        len = BIO_get_mem_data(b, &text);
        if (len < 0 || (size_t) len > CERT_PEM_MAX)
                return err_set(
                        e, -E2BIG,
                        "certificate, chain and key are %ld bytes together, and HAProxy takes %u; leave out what clients have anyway, such as the root",
                        len, CERT_PEM_MAX);
        *ret = strndup(text, (size_t) len);
        return *ret ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static int describe(X509 *x, struct cert *ret)
{
        unsigned char hash[EVP_MAX_MD_SIZE];
        unsigned n = 0;

        if (to_seconds(X509_get0_notBefore(x), &ret->begins_s) < 0 ||
            to_seconds(X509_get0_notAfter(x), &ret->ends_s) < 0 ||
            X509_digest(x, EVP_sha256(), hash, &n) != 1 || 2 * n >= sizeof ret->fingerprint)
                return -EBADMSG;
        hex_encode(hash, n, ret->fingerprint);
        return 0;
}

int cert_read(const char *text, size_t len, const char *host, const char *names, struct cert *ret,
              struct err *e)
{
        AUTO(chain_done) struct chain chain = { .n = 0 };
        AUTO(EVP_PKEY_free) EVP_PKEY *key = NULL;
        AUTO(cert_done) struct cert c = { .pem = NULL };
        int r;

        ERR_clear_error();
        r = read_chain(text, len, &chain, e);
        if (r >= 0)
                r = read_key(text, len, &key, e);
        if (r >= 0)
                r = find_own(&chain, key, e);
        if (r >= 0)
                r = check_name(chain.cert[0], host, names, e);
        if (r >= 0 && describe(chain.cert[0], &c) < 0)
                r = err_set(e, -EBADMSG, "its certificate has no times that can be read");
        if (r >= 0)
                r = write_pem(&chain, key, &c.pem, e);
        if (r < 0)
                return r;
        *ret = c;
        c.pem = NULL;
        return 0;
}

void cert_date(uint64_t at_s, char ret[static 11])
{
        time_t t = (time_t) at_s;
        struct tm tm;

        if (!gmtime_r(&t, &tm) || strftime(ret, 11, "%Y-%m-%d", &tm) == 0)
                (void) snprintf(ret, 11, "?");
}

int cert_check_time(const struct cert *c, uint64_t now_s, struct err *e)
{
        char date[11];

        if (now_s >= c->begins_s && now_s < c->ends_s)
                return 0;
        cert_date(now_s < c->begins_s ? c->begins_s : c->ends_s, date);
        return now_s < c->begins_s
                       ? err_set(e, -EKEYEXPIRED, "the certificate is good from %s on", date)
                       : err_set(e, -EKEYEXPIRED, "the certificate has ended, on %s", date);
}
