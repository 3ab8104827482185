/* test_ca.c - src/edge/ca.c: made once, kept, made again when it has to be, and good for nothing else. */
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "base/str.h"
#include "edge/ca.h"
#include "edge/config.h"

#define NOW 1700000000ULL
#define DAY 86400ULL

static int new_dir(void **state)
{
        char path[] = "/tmp/hvmm-test-ca.XXXXXX";
        int *fd = malloc(sizeof *fd);

        if (!fd || !mkdtemp(path))
                return -1;
        *fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        *state = fd;
        return *fd < 0 ? -1 : 0;
}

static int rm_dir(void **state)
{
        char path[64], link[64];
        int *fd = *state;
        ssize_t n;

        (void) snprintf(link, sizeof link, "/proc/self/fd/%d", *fd);
        n = readlink(link, path, sizeof path - 1);
        (void) close(*fd);
        free(fd);
        if (n <= 0)
                return -1;
        path[n] = '\0';
        return fd_rm_rf(AT_FDCWD, path);
}

static X509 *read_cert(int dir, const char *file)
{
        size_t len = 0;
        char *text = NULL;
        BIO *b;
        X509 *x;

        assert_int_equal(fd_read_file(dir, file, 65536, &text, &len), 0);
        b = BIO_new_mem_buf(text, (int) len);
        x = PEM_read_bio_X509(b, NULL, NULL, NULL);
        (void) BIO_free(b);
        free(text);
        assert_non_null(x);
        return x;
}

static mode_t mode_of(int dir, const char *file)
{
        struct stat st;

        assert_int_equal(fstatat(dir, file, &st, AT_SYMLINK_NOFOLLOW), 0);
        return st.st_mode & 07777;
}

static void test_life(void **state)
{
        static const struct {
                const char *tenant, *api;
                uint64_t days; /* since the first */
                bool authority, certificates;
        } t[] = {
                { "localhost", "api.localhost", 0, true, true },
                { "localhost", "api.localhost", 0, false, false },
                { "localhost", "api.localhost", 366, false, false },
                { "localhost", "api.localhost", 368, false, true }, /* 30 days before their end */
                { "localhost", "v2.api.localhost", 368, false,
                  true }, /* below what it vouches for */
                { "localhost", "v2.api.localhost", 369, false, false },
                { "tenants.example", "api.cloud.test", 369, true, true },
                { "tenants.example", "api.cloud.test", 369 + 3640, true, true }, /* its own end */
        };
        const int dir = *(int *) *state;
        char last[CA_FINGERPRINT_MAX] = "";

        for (size_t i = 0; i < NELEM(t); i++) {
                const struct ca_spec spec = { "abcd1234", t[i].tenant, t[i].api,
                                              NOW + t[i].days * DAY };
                struct ca_result res;
                struct err e = { 0 };

                if (ca_ensure(dir, &spec, &res, &e) < 0)
                        fail_msg("row %zu: %s", i, e.msg);
                if (res.new_authority != t[i].authority ||
                    res.new_certificates != t[i].certificates ||
                    (strcmp(res.fingerprint, last) != 0) != t[i].authority)
                        fail_msg("row %zu: authority %d, certificates %d", i, res.new_authority,
                                 res.new_certificates);
                memcpy(last, res.fingerprint, sizeof last);
        }
        assert_int_equal(mode_of(dir, CA_KEY_FILE), 0600);
        assert_int_equal(mode_of(dir, CA_CERT_FILE), 0644);
        assert_int_equal(mode_of(dir, EDGE_TENANT_FILE), 0600);
        assert_int_equal(mode_of(dir, EDGE_API_FILE), 0600);
}

/* The clock was ahead when they were made, and is put right. */
static void test_clock_that_was_ahead(void **state)
{
        static const struct {
                uint64_t days;    /* that it was ahead */
                bool certificate; /* alone: the authority is older */
        } t[] = {
                { 2, false }, { 20, false }, { 400, false }, { 2, true }, { 20, true },
        };
        const int dir = *(int *) *state;

        for (size_t i = 0; i < NELEM(t); i++) {
                struct ca_spec spec = { "abcd1234", "localhost", "api.localhost", NOW };
                struct ca_result res;

                (void) unlinkat(dir, CA_CERT_FILE, 0);
                if (t[i].certificate)
                        assert_int_equal(ca_ensure(dir, &spec, &res, NULL), 0);
                (void) unlinkat(dir, EDGE_TENANT_FILE, 0);
                spec.now_s = NOW + t[i].days * DAY;
                assert_int_equal(ca_ensure(dir, &spec, &res, NULL), 0);
                spec.now_s = NOW;
                assert_int_equal(ca_ensure(dir, &spec, &res, NULL), 0);
                if (!res.new_certificates || res.new_authority == t[i].certificate)
                        fail_msg("row %zu: authority %d, certificates %d", i, res.new_authority,
                                 res.new_certificates);
                assert_int_equal(ca_ensure(dir, &spec, &res, NULL), 0);
                assert_false(res.new_authority || res.new_certificates);
        }
}

/* Whatever a kill or an operator left of a file: it is made again. */
static void test_damage(void **state)
{
        static const struct {
                const char *file, *content;
                bool authority;
        } t[] = {
                { CA_CERT_FILE, "", true },
                { CA_KEY_FILE, "-----BEGIN PRIVATE KEY-----\n", true },
                { EDGE_TENANT_FILE, "nothing", false },
                { EDGE_API_FILE, NULL, false },
        };
        const struct ca_spec spec = { "abcd1234", "localhost", "api.localhost", NOW };
        const int dir = *(int *) *state;
        struct ca_result res;

        assert_int_equal(ca_ensure(dir, &spec, &res, NULL), 0);
        for (size_t i = 0; i < NELEM(t); i++) {
                if (t[i].content)
                        assert_int_equal(fd_replace_file(dir, t[i].file, t[i].content,
                                                         strlen(t[i].content), 0600, false),
                                         0);
                else
                        assert_int_equal(unlinkat(dir, t[i].file, 0), 0);
                assert_int_equal(ca_ensure(dir, &spec, &res, NULL), 0);
                assert_int_equal(res.new_authority, t[i].authority);
                assert_true(res.new_certificates);
                assert_int_equal(ca_ensure(dir, &spec, &res, NULL), 0);
                assert_false(res.new_authority || res.new_certificates);
        }
}

static void test_names(void **state)
{
        static const struct {
                const char *file, *host;
                int good;
        } t[] = {
                { EDGE_TENANT_FILE, "abc-80.proxy.localhost", 1 },
                { EDGE_TENANT_FILE, "a.b.proxy.localhost", 0 },
                { EDGE_TENANT_FILE, "proxy.localhost", 0 },
                { EDGE_TENANT_FILE, "api.localhost", 0 },
                { EDGE_API_FILE, "api.localhost", 1 },
                { EDGE_API_FILE, "abc-80.proxy.localhost", 0 },
        };
        const struct ca_spec spec = { "abcd1234", "localhost", "api.localhost", NOW };
        const int dir = *(int *) *state;
        struct ca_result res;
        X509 *ca;

        assert_int_equal(ca_ensure(dir, &spec, &res, NULL), 0);
        for (size_t i = 0; i < NELEM(t); i++) {
                X509 *x = read_cert(dir, t[i].file);

                if (X509_check_host(x, t[i].host, 0, 0, NULL) != t[i].good)
                        fail_msg("row %zu: %s", i, t[i].host);
                X509_free(x);
        }
        ca = read_cert(dir, CA_CERT_FILE);
        assert_true(X509_get_extension_flags(ca) & EXFLAG_CA);
        assert_true(X509_get_ext_by_NID(ca, NID_name_constraints, -1) >= 0);
        assert_int_equal(X509_get_pathlen(ca), 0);
        X509_free(ca);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_life, new_dir, rm_dir),
                cmocka_unit_test_setup_teardown(test_clock_that_was_ahead, new_dir, rm_dir),
                cmocka_unit_test_setup_teardown(test_damage, new_dir, rm_dir),
                cmocka_unit_test_setup_teardown(test_names, new_dir, rm_dir),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
