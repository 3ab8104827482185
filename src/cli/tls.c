/* tls.c - see tls.h.  Runs in tensoronecli, as the user. */
#include "cli/tls.h"

#include <curl/curl.h>
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#include "base/proc.h"
#include "base/str.h"
#include "cli/cli.h"

#define CHAIN_MAX   16 /* certificates */
#define CONNECT_S   10L
#define FINGERPRINT 64U

static inline void BIO_free_cleanup(BIO **b)
{
        (void) BIO_free(*b);
}

static inline void X509_free_cleanup(X509 **x)
{
        X509_free(*x);
}

static inline void X509_STORE_free_cleanup(X509_STORE **s)
{
        X509_STORE_free(*s);
}

static inline void X509_STORE_CTX_free_cleanup(X509_STORE_CTX **s)
{
        X509_STORE_CTX_free(*s);
}

static void chain_free_cleanup(STACK_OF(X509) * *chain)
{
        sk_X509_pop_free(*chain, X509_free);
}

static inline void curl_easy_cleanup_cleanup(CURL **c)
{
        curl_easy_cleanup(*c);
}

bool tls_setup(void *curl, const char *ca)
{
        return curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK &&
               curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK &&
               curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2) ==
                       CURLE_OK &&
               (!ca || (curl_easy_setopt(curl, CURLOPT_CAINFO, ca) == CURLE_OK &&
                        curl_easy_setopt(curl, CURLOPT_CAPATH, NULL) == CURLE_OK));
}

/* ---- what to say -------------------------------------------------------------------------------- */

static int unknown_authority(const struct tls_trust *t, struct err *e)
{
        if (t->ca)
                return err_set(
                        e, -EKEYREJECTED,
                        "who vouches for %s is not in %s (from %s); if its operator says that this has changed, run: " CLI_PROGRAM
                        " config --apiUrl %s",
                        t->url, t->ca, t->from, t->url);
        return err_set(
                e, -EKEYREJECTED,
                "this computer does not know who vouches for %s; to trust a private authority run: " CLI_PROGRAM
                " config --apiUrl %s, or name its certificate: --ca FILE",
                t->url, t->url);
}

static int not_verified(CURL *c, const struct tls_trust *t, struct err *e)
{
        long why = 0;

        (void) curl_easy_getinfo(c, CURLINFO_SSL_VERIFYRESULT, &why);
        switch (why) {
        case X509_V_OK: /* libcurl compares the name itself, and says neither */
        case X509_V_ERR_UNSPECIFIED:
        case X509_V_ERR_HOSTNAME_MISMATCH:
        case X509_V_ERR_IP_ADDRESS_MISMATCH:
                return err_set(
                        e, -EACCES,
                        "%s shows a certificate for another name; ask its operator which name the API has",
                        t->url);
        case X509_V_ERR_CERT_HAS_EXPIRED:
                return err_set(
                        e, -EACCES,
                        "the certificate of %s has ended; its operator has to renew it, or the clock of this computer is wrong",
                        t->url);
        case X509_V_ERR_CERT_NOT_YET_VALID:
                return err_set(
                        e, -EACCES,
                        "the certificate of %s is not valid yet; is the clock of this computer right?",
                        t->url);
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
        case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        case X509_V_ERR_CERT_SIGNATURE_FAILURE:
        case X509_V_ERR_CERT_UNTRUSTED:
                return unknown_authority(t, e);
        default:
                return err_set(e, -EACCES, "the certificate of %s is not accepted: %s", t->url,
                               X509_verify_cert_error_string(why));
        }
}

int tls_error(void *curl, int code, const struct tls_trust *t, struct err *e)
{
        switch (code) {
        case CURLE_PEER_FAILED_VERIFICATION:
                return not_verified(curl, t, e);
        case CURLE_SSL_CACERT_BADFILE:
                return err_set(e, -ENOENT, "%s (from %s): not a PEM file with certificates in it",
                               t->ca ? t->ca : "the system's authorities",
                               t->from ? t->from : "libcurl");
        case CURLE_SSL_CONNECT_ERROR:
                return err_set(
                        e, -EACCES,
                        "%s does not speak TLS as it has to be; an API without it has an address with http://",
                        t->url);
        default:
                return 0;
        }
}

/* ---- connecting --------------------------------------------------------------------------------- */

static CURL *new_probe(const char *url)
{
        CURL *c = curl_global_init(CURL_GLOBAL_DEFAULT) == 0 ? curl_easy_init() : NULL;

        if (c && curl_easy_setopt(c, CURLOPT_URL, url) == CURLE_OK &&
            curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "https") == CURLE_OK &&
            curl_easy_setopt(c, CURLOPT_CONNECT_ONLY, 1L) == CURLE_OK &&
            curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
            curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, CONNECT_S) == CURLE_OK)
                return c;
        curl_easy_cleanup(c);
        return NULL;
}

static int not_reached(CURLcode code, const char *url, struct err *e)
{
        return err_set(e, code == CURLE_OPERATION_TIMEDOUT ? -ETIMEDOUT : -ECONNREFUSED,
                       "%s cannot be reached: %s", url, curl_easy_strerror(code));
}

int tls_try(const struct tls_trust *t, struct err *e)
{
        AUTO(curl_easy_cleanup) CURL *c = new_probe(t->url);
        CURLcode code;
        int r;

        if (!c || !tls_setup(c, t->ca))
                return err_set(e, -ENOMEM, "out of memory");
        code = curl_easy_perform(c);
        if (code == CURLE_OK)
                return 0;
        r = tls_error(c, (int) code, t, e);
        return r < 0 ? r : not_reached(code, t->url, e);
}

static X509 *parse(const char *pem)
{
        AUTO(BIO_free) BIO *b = BIO_new_mem_buf(pem, -1);
        X509 *x = b ? PEM_read_bio_X509(b, NULL, NULL, NULL) : NULL;

        ERR_clear_error();
        return x;
}

static int get_chain(CURL *c, STACK_OF(X509) * chain, struct err *e)
{
        struct curl_certinfo *info = NULL;

        (void) curl_easy_getinfo(c, CURLINFO_CERTINFO, &info);
        for (int i = 0; info && i < info->num_of_certs && i < CHAIN_MAX; i++)
                for (const struct curl_slist *l = info->certinfo[i]; l; l = l->next) {
                        const char *pem = str_after(l->data, "Cert:");
                        X509 *x = pem ? parse(pem) : NULL;

                        if (x && sk_X509_push(chain, x) <= 0) {
                                X509_free(x);
                                return err_set(e, -ENOMEM, "out of memory");
                        }
                }
        return 0;
}

/* "https://[::1]:8443/x" -> "::1"; heap. */
static char *host_of(const char *url)
{
        const char *host = strstr(url, "://") + 3, *end = strchr(host, ']');

        if (*host == '[' && end)
                return strndup(host + 1, (size_t) (end - host) - 1);
        return strndup(host, strcspn(host, ":/"));
}

/* Whether @root vouches for the first of @chain under that name. */
static int vouches(X509 *root, STACK_OF(X509) * chain, const char *url, struct err *e)
{
        AUTO(X509_STORE_free) X509_STORE *store = X509_STORE_new();
        AUTO(X509_STORE_CTX_free) X509_STORE_CTX *ctx = X509_STORE_CTX_new();
        AUTO(free) char *host = host_of(url);
        X509_VERIFY_PARAM *param;

        if (!store || !ctx || !host || X509_STORE_add_cert(store, root) != 1 ||
            X509_STORE_CTX_init(ctx, store, sk_X509_value(chain, 0), chain) != 1 ||
            X509_STORE_CTX_set_purpose(ctx, X509_PURPOSE_SSL_SERVER) != 1)
                return err_set(e, -ENOMEM, "out of memory");
        param = X509_STORE_CTX_get0_param(ctx);
        if (X509_VERIFY_PARAM_set1_ip_asc(param, host) != 1 &&
            X509_VERIFY_PARAM_set1_host(param, host, 0) != 1)
                return err_set(e, -ENOMEM, "out of memory");
        ERR_clear_error();
        if (X509_verify_cert(ctx) == 1)
                return 0;
        ERR_clear_error();
        return err_set(e, -EACCES,
                       "the authority that %s shows does not vouch for it: %s; ask its operator",
                       url, X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)));
}

static int describe(X509 *x, struct tls_authority *ret, struct err *e)
{
        AUTO(BIO_free) BIO *b = BIO_new(BIO_s_mem());
        unsigned char hash[EVP_MAX_MD_SIZE];
        unsigned n = 0;
        char *text;
        long len;

        if (!b || PEM_write_bio_X509(b, x) != 1 || X509_digest(x, EVP_sha256(), hash, &n) != 1 ||
            2 * n >= sizeof ret->fingerprint)
                return err_set(e, -ENOMEM, "out of memory");
        hex_encode(hash, n, ret->fingerprint);
        if (X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, ret->name,
                                      sizeof ret->name) < 0)
                (void) snprintf(ret->name, sizeof ret->name, "(without a name)");
        str_tame(ret->name, '?');
        len = BIO_get_mem_data(b, &text);
        ret->pem = strndup(text, (size_t) len);
        return ret->pem ? 0 : err_set(e, -ENOMEM, "out of memory");
}

int tls_look(const char *url, struct tls_authority *ret, struct err *e)
{
        AUTO(curl_easy_cleanup) CURL *c = new_probe(url);
        AUTO(chain_free) STACK_OF(X509) *chain = sk_X509_new_null();
        X509 *root = NULL;
        CURLcode code;
        int r;

        if (!c || !chain || curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 0L) != CURLE_OK ||
            curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 0L) != CURLE_OK ||
            curl_easy_setopt(c, CURLOPT_CERTINFO, 1L) != CURLE_OK)
                return err_set(e, -ENOMEM, "out of memory");
        code = curl_easy_perform(c);
        if (code != CURLE_OK)
                return not_reached(code, url, e);
        r = get_chain(c, chain, e);
        if (r < 0)
                return r;
        for (int i = 0; i < sk_X509_num(chain); i++)
                if (X509_check_issued(sk_X509_value(chain, i), sk_X509_value(chain, i)) ==
                    X509_V_OK)
                        root = sk_X509_value(chain, i);
        if (!root)
                return err_set(
                        e, -EKEYREJECTED,
                        "this computer does not know who vouches for %s, and it does not show that itself; ask its operator for the authority's certificate, and name it: --ca FILE",
                        url);
        r = vouches(root, chain, url, e);
        return r < 0 ? r : describe(root, ret, e);
}

void tls_authority_done(struct tls_authority *a)
{
        free(a->pem);
        a->pem = NULL;
}

/* ---- text --------------------------------------------------------------------------------------- */

int tls_count(const char *pem)
{
        AUTO(BIO_free) BIO *b = BIO_new_mem_buf(pem, -1);
        int n = 0;

        for (; b; n++) {
                AUTO(X509_free) X509 *x = PEM_read_bio_X509(b, NULL, NULL, NULL);

                if (!x)
                        break;
        }
        ERR_clear_error();
        return n ? n : -EBADMSG;
}

int tls_fingerprint(const char *text, char ret[static TLS_FINGERPRINT_MAX], struct err *e)
{
        char got[TLS_FINGERPRINT_MAX];
        size_t n = 0;

        for (const char *p = text; *p; p++) {
                const char *digits = "0123456789abcdef0123456789ABCDEF", *at = strchr(digits, *p);

                if (*p == ':' && n > 0 && n % 2 == 0)
                        continue;
                if (!at || n == FINGERPRINT)
                        n = sizeof got;
                if (n >= sizeof got)
                        break;
                got[n++] = digits[(at - digits) % 16];
        }
        if (n != FINGERPRINT)
                return err_set(
                        e, -EINVAL,
                        "\"%.80s\" is not the SHA-256 of a certificate: 64 hexadecimal digits, with colons between them or without",
                        text);
        got[n] = '\0';
        memcpy(ret, got, sizeof got);
        return 0;
}
