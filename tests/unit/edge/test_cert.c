/* test_cert.c - src/edge/cert.c: what is taken, in which order it comes out, and what is said of the rest. */
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"
#include "edge/cert.h"

#define NOW  1700000000ULL
#define DAY  86400ULL
#define HOST "cluster.proxy.tenants.example"

struct made {
        char *cert, *key, *locked; /* locked: with a passphrase */
};

static struct made own, other, chain, elsewhere, fat;

static char *take(BIO *b)
{
        char *text, *ret;
        long n = BIO_get_mem_data(b, &text);

        ret = strndup(text, (size_t) n);
        assert_non_null(ret);
        (void) BIO_free(b);
        return ret;
}

static struct made make(const char *alt)
{
        EVP_PKEY *key = EVP_EC_gen("P-256");
        X509 *x = X509_new();
        time_t now = (time_t) NOW;
        BIO *b[3] = { BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()) };
        struct made m;

        assert_true(key && x && b[0] && b[1] && b[2]);
        (void) X509_set_version(x, X509_VERSION_3);
        (void) X509_time_adj_ex(X509_getm_notBefore(x), -1, 0, &now);
        (void) X509_time_adj_ex(X509_getm_notAfter(x), 90, 0, &now);
        (void) X509_set_pubkey(x, key);
        (void) X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                                          (const unsigned char *) "test", -1, -1, 0);
        (void) X509_set_issuer_name(x, X509_get_subject_name(x));
        if (alt) {
                X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, alt);

                assert_true(e && X509_add_ext(x, e, -1) == 1);
                X509_EXTENSION_free(e);
        }
        assert_true(X509_sign(x, key, EVP_sha256()) > 0);
        assert_true(PEM_write_bio_X509(b[0], x) == 1);
        assert_true(PEM_write_bio_PrivateKey(b[1], key, NULL, NULL, 0, NULL, NULL) == 1);
        assert_true(PEM_write_bio_PrivateKey(b[2], key, EVP_aes_128_cbc(), NULL, 0, NULL,
                                             (void *) (uintptr_t) "secret") == 1);
        m = (struct made){ take(b[0]), take(b[1]), take(b[2]) };
        X509_free(x);
        EVP_PKEY_free(key);
        return m;
}

static int make_all(void **state)
{
        struct strbuf names = { 0 };

        (void) state;
        own = make("DNS:*.proxy.tenants.example");
        other = make("DNS:*.proxy.tenants.example");
        chain = make(NULL);
        elsewhere = make("DNS:api.cloud.example,DNS:x.example");
        strbuf_str(&names, "DNS:*.proxy.tenants.example");
        for (int i = 0; i < 60; i++)
                strbuf_fmt(&names, ",DNS:%d.a-long-name-that-takes-its-room.tenants.example", i);
        fat = make(names.s);
        strbuf_done(&names);
        return 0;
}

static int free_all(void **state)
{
        struct made *all[] = { &own, &other, &chain, &elsewhere, &fat };

        (void) state;
        for (size_t i = 0; i < NELEM(all); i++) {
                free(all[i]->cert);
                free(all[i]->key);
                free(all[i]->locked);
        }
        return 0;
}

static void test_what_is_taken(void **state)
{
        static const char params[] =
                "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        const struct {
                const char *parts[5];
                int chain; /* certificates behind its own */
        } t[] = {
                { { own.cert, own.key }, 0 },
                { { own.key, own.cert }, 0 },
                { { own.cert, chain.cert, own.key }, 1 },
                { { chain.cert, own.cert, own.key }, 1 }, /* in no order */
                { { "subject=CN = test\n\n", own.cert, "\n\n", own.key }, 0 },
                { { own.cert, params, own.key }, 0 },
                { { own.cert, own.key, chain.cert, other.cert }, 2 },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct strbuf b = { 0 };
                struct cert c = { .pem = NULL };
                struct err e = { 0 };
                int n = 0;

                for (size_t k = 0; k < NELEM(t[i].parts) && t[i].parts[k]; k++)
                        strbuf_str(&b, t[i].parts[k]);
                if (cert_read(b.s, b.len, HOST, "*.proxy.tenants.example", &c, &e) < 0)
                        fail_msg("row %zu: %s", i, e.msg);
                for (const char *s = c.pem; (s = strstr(s, "-----BEGIN CERTIFICATE-----\n")); s++)
                        n++;
                if (n != t[i].chain + 1 || !str_after(c.pem, own.cert) || !strstr(c.pem, own.key) ||
                    strstr(c.pem, "\n\n") || strstr(c.pem, "PARAMETERS") ||
                    strstr(c.pem, "subject"))
                        fail_msg("row %zu: %d certificates: %s", i, n, c.pem);
                assert_int_equal(strlen(c.fingerprint), 64);
                assert_true(c.begins_s == NOW - DAY && c.ends_s == NOW + 90 * DAY);
                cert_done(&c);
                strbuf_done(&b);
        }
}

static char *repeat(const char *text, int n)
{
        struct strbuf b = { 0 };

        while (n-- > 0)
                strbuf_str(&b, text);
        return strbuf_take(&b);
}

static void test_what_is_not(void **state)
{
        char *no_key = strdup(own.key), *cut_cert = strndup(own.cert, strlen(own.cert) - 40),
             *cut_key = strndup(own.key, strlen(own.key) - 40), *bent = strdup(own.cert);
        AUTO(free) char *many = repeat(own.cert, 17), *large = repeat(fat.cert, 5);
        const struct {
                const char *parts[3];
                int r;
                const char *says;
        } t[] = {
                { { "" }, -EBADMSG, "no certificate in it" },
                { { "localhost\n" }, -EBADMSG, "no certificate in it" },
                { { own.key }, -EBADMSG, "no certificate in it" },
                { { own.cert }, -EBADMSG, "no private key in it" },
                { { cut_cert, own.key },
                  -EBADMSG,
                  "what follows certificate 0 in it is damaged or cut off" },
                { { own.cert, cut_cert, own.key },
                  -EBADMSG,
                  "what follows certificate 1 in it is damaged" },
                { { bent, own.key }, -EBADMSG, "what follows certificate 0 in it is damaged" },
                { { own.cert, cut_key },
                  -EBADMSG,
                  "what follows certificate 1 in it is damaged or cut off" },
                { { own.cert, no_key }, -EBADMSG, "the private key in it is damaged" },
                { { own.cert, own.locked }, -EBADMSG, "its key wants a passphrase" },
                { { own.cert, other.key }, -EKEYREJECTED, "belongs to another certificate" },
                { { elsewhere.cert, elsewhere.key },
                  -EKEYREJECTED,
                  "is for api.cloud.example, not for *.proxy.tenants.example" },
                { { chain.cert, chain.key }, -EKEYREJECTED, "is for no name, not for" },
                { { fat.key, large }, -E2BIG, "leave out what clients have anyway" },
                { { own.key, many }, -E2BIG, "more than 16 certificates" },
        };

        (void) state;
        assert_true(no_key && cut_cert && cut_key && bent);
        memset(no_key + 40, 'A', 30);
        memset(bent + 100, 'A', 200);
        for (size_t i = 0; i < NELEM(t); i++) {
                struct cert c = { .pem = (char *) 1 };
                struct err e = { 0 };
                struct strbuf b = { 0 };
                int r;

                for (size_t k = 0; k < NELEM(t[i].parts) && t[i].parts[k]; k++)
                        strbuf_str(&b, t[i].parts[k]);
                r = cert_read(b.s ? b.s : "", b.len, HOST, "*.proxy.tenants.example", &c, &e);
                if (r != t[i].r || !strstr(e.msg, t[i].says) || c.pem != (char *) 1)
                        fail_msg("row %zu: %d %s", i, r, e.msg);
                strbuf_done(&b);
        }
        free(no_key);
        free(cut_cert);
        free(cut_key);
        free(bent);
}

static void test_times(void **state)
{
        static const struct {
                int64_t days;
                int r;
                const char *says;
        } t[] = {
                { 0, 0, "" },
                { 89, 0, "" },
                { 90, -EKEYEXPIRED, "has ended, on 2024-02-12" },
                { 400, -EKEYEXPIRED, "has ended, on 2024-02-12" },
                { -2, -EKEYEXPIRED, "is good from 2023-11-13 on" },
        };
        const struct cert c = { .begins_s = NOW - DAY, .ends_s = NOW + 90 * DAY };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct err e = { 0 };
                int r = cert_check_time(&c, NOW + (uint64_t) t[i].days * DAY, &e);

                if (r != t[i].r || !strstr(e.msg, t[i].says))
                        fail_msg("row %zu: %d %s", i, r, e.msg);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_what_is_taken),
                cmocka_unit_test(test_what_is_not),
                cmocka_unit_test(test_times),
        };

        return cmocka_run_group_tests(tests, make_all, free_all);
}
