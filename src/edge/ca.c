/* ca.c - see ca.h.  Engine process.
 *
 * Whether something that lies there will do is asked of the library as a client would: does the chain
 * verify, for that name, now and thirty days from now? */
#include "edge/ca.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "edge/config.h"

#define DAY_S       86400L
#define CA_DAYS     3650L
#define LEAF_DAYS   397L /* browsers take no longer */
#define RENEW_DAYS  30L
#define BACK_DAYS   1L /* clocks differ */
#define PEM_MAX     (64U << 10)
#define SERIAL_BITS 159

struct pair {
        X509 *cert;
        EVP_PKEY *key;
};

static void pair_done(struct pair *p)
{
        X509_free(p->cert);
        EVP_PKEY_free(p->key);
        *p = (struct pair){ 0 };
}

static inline void pair_done_cleanup(struct pair *p)
{
        pair_done(p);
}

static inline void X509_STORE_free_cleanup(X509_STORE **s)
{
        X509_STORE_free(*s);
}

static inline void X509_STORE_CTX_free_cleanup(X509_STORE_CTX **s)
{
        X509_STORE_CTX_free(*s);
}

static inline void BIO_free_cleanup(BIO **b)
{
        (void) BIO_free(*b);
}

static inline void X509_EXTENSION_free_cleanup(X509_EXTENSION **x)
{
        X509_EXTENSION_free(*x);
}

static inline void BIGNUM_free_cleanup(BIGNUM **n)
{
        BN_free(*n);
}

static int openssl_failed(struct err *e, const char *what)
{
        char text[160];

        ERR_error_string_n(ERR_get_error(), text, sizeof text);
        ERR_clear_error();
        return err_set(e, -EIO, "%s: %s", what, text);
}

/* What is in a file of ours; -EBADMSG: no certificate or no key, -ENOENT. */
static int load(int dir, const char *cert_file, const char *key_file, struct pair *ret)
{
        AUTO(pair_done) struct pair p = { 0 };
        const char *const file[] = { cert_file, key_file };

        for (size_t i = 0; i < NELEM(file); i++) {
                AUTO(free) char *text = NULL;
                AUTO(BIO_free) BIO *b = NULL;
                size_t len = 0;
                int r = fd_read_file(dir, file[i], PEM_MAX, &text, &len);

                if (r < 0)
                        return r;
                b = BIO_new_mem_buf(text, (int) len);
                if (b && i == 0)
                        p.cert = PEM_read_bio_X509(b, NULL, NULL, NULL);
                else if (b)
                        p.key = PEM_read_bio_PrivateKey(b, NULL, NULL, NULL);
                if (i == 1)
                        OPENSSL_cleanse(text, len);
        }
        ERR_clear_error();
        if (!p.cert || !p.key || X509_check_private_key(p.cert, p.key) != 1)
                return -EBADMSG;
        *ret = p;
        p = (struct pair){ 0 };
        return 0;
}

/* Would a client that trusts @ca take @leaf for @host at that time? */
static bool is_good(X509 *ca, X509 *leaf, const char *host, time_t when)
{
        AUTO(X509_STORE_free) X509_STORE *store = X509_STORE_new();
        AUTO(X509_STORE_CTX_free) X509_STORE_CTX *ctx = X509_STORE_CTX_new();
        X509_VERIFY_PARAM *param;
        bool good;

        if (!store || !ctx || X509_STORE_add_cert(store, ca) != 1 ||
            X509_STORE_CTX_init(ctx, store, leaf, NULL) != 1)
                return false;
        param = X509_STORE_CTX_get0_param(ctx);
        X509_VERIFY_PARAM_set_time(param, when);
        good = X509_VERIFY_PARAM_set1_host(param, host, 0) == 1 && X509_verify_cert(ctx) == 1;
        ERR_clear_error();
        return good;
}

static int add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
        AUTO(X509_EXTENSION_free) X509_EXTENSION *x = NULL;
        X509V3_CTX ctx;

        X509V3_set_ctx_nodb(&ctx);
        X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
        x = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
        return x && X509_add_ext(cert, x, -1) == 1 ? 0 : -EIO;
}

static int set_serial(X509 *cert)
{
        AUTO(BIGNUM_free) BIGNUM *n = BN_new();

        return n && BN_rand(n, SERIAL_BITS, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
                               BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert))
                       ? 0
                       : -EIO;
}

struct wish {
        const char *name;        /* for people */
        const char *constraints; /* of an authority */
        const char *names;       /* of a leaf: subjectAltName */
        long days;
        uint64_t now_s;
};

static int fill(X509 *cert, EVP_PKEY *key, const struct wish *w, const struct pair *ca)
{
        X509 *issuer = ca ? ca->cert : cert;
        time_t now = (time_t) w->now_s;
        X509_NAME *name = X509_get_subject_name(cert);

        if (X509_set_version(cert, X509_VERSION_3) != 1 || set_serial(cert) < 0 ||
            !X509_time_adj_ex(X509_getm_notBefore(cert), (int) -BACK_DAYS, 0, &now) ||
            !X509_time_adj_ex(X509_getm_notAfter(cert), (int) w->days, 0, &now) ||
            X509_set_pubkey(cert, key) != 1 ||
            X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *) w->name,
                                       -1, -1, 0) != 1 ||
            X509_set_issuer_name(cert, X509_get_subject_name(issuer)) != 1)
                return -EIO;
        if (add_extension(cert, issuer, NID_subject_key_identifier, "hash") < 0)
                return -EIO;
        if (!ca)
                return add_extension(cert, cert, NID_basic_constraints,
                                     "critical,CA:TRUE,pathlen:0") < 0 ||
                                       add_extension(cert, cert, NID_key_usage,
                                                     "critical,keyCertSign,cRLSign") < 0 ||
                                       add_extension(cert, cert, NID_name_constraints,
                                                     w->constraints) < 0
                               ? -EIO
                               : 0;
        return add_extension(cert, issuer, NID_authority_key_identifier, "keyid:always") < 0 ||
                               add_extension(cert, issuer, NID_basic_constraints,
                                             "critical,CA:FALSE") < 0 ||
                               add_extension(cert, issuer, NID_key_usage,
                                             "critical,digitalSignature") < 0 ||
                               add_extension(cert, issuer, NID_ext_key_usage, "serverAuth") < 0 ||
                               add_extension(cert, issuer, NID_subject_alt_name, w->names) < 0
                       ? -EIO
                       : 0;
}

/* Signed by @ca, or by itself. */
static int make(const struct wish *w, const struct pair *ca, struct pair *ret, struct err *e)
{
        AUTO(pair_done) struct pair p = { .cert = X509_new(), .key = EVP_EC_gen("P-256") };

        if (!p.cert || !p.key || fill(p.cert, p.key, w, ca) < 0 ||
            X509_sign(p.cert, ca ? ca->key : p.key, EVP_sha256()) == 0)
                return openssl_failed(e, w->name);
        *ret = p;
        p = (struct pair){ 0 };
        return 0;
}

static int save(int dir, const char *file, mode_t mode, X509 *cert, EVP_PKEY *key, struct err *e)
{
        AUTO(BIO_free) BIO *b = BIO_new(BIO_s_mem());
        char *text;
        long len;
        int r;

        if (!b || (cert && PEM_write_bio_X509(b, cert) != 1) ||
            (key && PEM_write_bio_PrivateKey(b, key, NULL, NULL, 0, NULL, NULL) != 1))
                return openssl_failed(e, file);
        len = BIO_get_mem_data(b, &text);
        r = fd_replace_file(dir, file, text, (size_t) len, mode, true);
        if (key)
                OPENSSL_cleanse(text, (size_t) len);
        return r < 0 ? err_errno(e, r, "write %s", file) : 0;
}

static int make_authority(int dir, const struct ca_spec *spec, struct pair *ret, struct err *e)
{
        AUTO(free) char *name = str_fmt("hypervisor-vmm host %s", spec->instance);
        AUTO(free)
        char *constraints = str_fmt(
                "critical,permitted;DNS:%s,permitted;DNS:%s,excluded;IP:0.0.0.0/0.0.0.0,excluded;IP:::/::",
                spec->tenant_domain, spec->api_domain);
        AUTO(pair_done) struct pair p = { 0 };
        int r;

        if (!name || !constraints)
                return err_set(e, -ENOMEM, "out of memory");
        r = make(&(struct wish){ name, constraints, NULL, CA_DAYS, spec->now_s }, NULL, &p, e);
        /* the key first: a certificate without its key would be trusted for nothing */
        if (r >= 0)
                r = save(dir, CA_KEY_FILE, 0600, NULL, p.key, e);
        if (r >= 0)
                r = save(dir, CA_CERT_FILE, 0644, p.cert, NULL, e);
        if (r < 0)
                return r;
        *ret = p;
        p = (struct pair){ 0 };
        return 0;
}

struct leaf {
        const char *file, *name, *host;
        char *alt;
};

/* From now on until then: whoever made it may have had a clock that was ahead. */
static bool is_good_until(X509 *ca, X509 *leaf, const char *host, time_t now, time_t then)
{
        return is_good(ca, leaf, host, now) && is_good(ca, leaf, host, then);
}

/* 1: made; 0: what is there will do; -EKEYREJECTED: this authority cannot. */
static int ensure_leaf(int dir, const struct ca_spec *spec, const struct pair *ca,
                       const struct leaf *l, struct err *e)
{
        const time_t now = (time_t) spec->now_s;
        AUTO(pair_done) struct pair p = { 0 };
        int r = load(dir, l->file, l->file, &p);

        if (r >= 0 && is_good_until(ca->cert, p.cert, l->host, now, now + RENEW_DAYS * DAY_S))
                return 0;
        pair_done(&p);
        r = make(&(struct wish){ l->name, NULL, l->alt, LEAF_DAYS, spec->now_s }, ca, &p, e);
        if (r < 0)
                return r;
        if (!is_good_until(ca->cert, p.cert, l->host, now, now + (LEAF_DAYS - 1) * DAY_S))
                return err_set(e, -EKEYREJECTED, "the authority cannot vouch for %s", l->host);
        r = save(dir, l->file, 0600, p.cert, p.key, e);
        return r < 0 ? r : 1;
}

static int ensure_leaves(int dir, const struct ca_spec *spec, const struct pair *ca,
                         struct ca_result *res, struct err *e)
{
        AUTO(free) char *tenant = str_fmt("cluster.proxy.%s", spec->tenant_domain);
        AUTO(free) char *tenant_alt = str_fmt("DNS:*.proxy.%s", spec->tenant_domain);
        AUTO(free) char *api_alt = str_fmt("DNS:%s", spec->api_domain);
        const struct leaf leaves[] = {
                { EDGE_TENANT_FILE, "clusters", tenant, tenant_alt },
                { EDGE_API_FILE, "API", spec->api_domain, api_alt },
        };

        if (!tenant || !tenant_alt || !api_alt)
                return err_set(e, -ENOMEM, "out of memory");
        for (size_t i = 0; i < NELEM(leaves); i++) {
                int r = ensure_leaf(dir, spec, ca, &leaves[i], e);

                if (r < 0)
                        return r;
                res->new_certificates |= r > 0;
        }
        return 0;
}

static int fingerprint(X509 *cert, struct ca_result *res, struct err *e)
{
        unsigned char hash[EVP_MAX_MD_SIZE];
        unsigned n = 0;

        if (X509_digest(cert, EVP_sha256(), hash, &n) != 1 || 2 * n + 1 > sizeof res->fingerprint)
                return openssl_failed(e, "fingerprint");
        hex_encode(hash, n, res->fingerprint);
        return 0;
}

int ca_ensure(int dir, const struct ca_spec *spec, struct ca_result *ret, struct err *e)
{
        struct ca_result res = { .new_authority = false };
        AUTO(pair_done) struct pair ca = { 0 };
        int r = load(dir, CA_CERT_FILE, CA_KEY_FILE, &ca);

        if (r < 0 && r != -ENOENT && r != -EBADMSG)
                return err_errno(e, r, "read " CA_CERT_FILE);
        if (r >= 0)
                r = ensure_leaves(dir, spec, &ca, &res, e);
        if (r == -ENOENT || r == -EBADMSG || r == -EKEYREJECTED) {
                pair_done(&ca);
                r = make_authority(dir, spec, &ca, e);
                res.new_authority = true;
                if (r >= 0)
                        r = ensure_leaves(dir, spec, &ca, &res, e);
        }
        if (r >= 0)
                r = fingerprint(ca.cert, &res, e);
        if (r < 0)
                return r;
        *ret = res;
        return 0;
}
