/* test_seal.c - what is sealed opens in its place and nowhere else, and every lost key says so. */
#include "control/seal/seal.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "base/str.h"

static const struct seal_place here = { "registry_auth", "row1", "acc1" };
static const char secret[] = "correct horse";

/* A key file in memory. */
static int file_of(const char *text)
{
        int fd = memfd_create("seal.key", MFD_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(fd_write_full(fd, text, strlen(text)), 0);
        return fd;
}

static struct sealer *sealer_of(int fd)
{
        struct sealer *s = NULL;

        assert_int_equal(sealer_new(fd, &s, NULL), 0);
        return s;
}

static void test_there_and_back(void **state)
{
        static const char *const texts[] = { "", "x", "correct horse", "\xc3\xa4 \"quoted\" \\" };
        AUTO(fd) int fd = file_of("");
        AUTO(sealer_free) struct sealer *s = sealer_of(fd), *again = sealer_of(fd);

        (void) state;
        assert_int_equal(lseek(fd, 0, SEEK_END), 65);
        for (size_t i = 0; i < NELEM(texts); i++) {
                AUTO(free) char *one = NULL, *two = NULL, *back = NULL;

                assert_int_equal(seal_close(s, &here, texts[i], &one, NULL), 0);
                assert_int_equal(seal_close(s, &here, texts[i], &two, NULL), 0);
                assert_string_not_equal(one, two); /* another nonce */
                assert_int_equal(strlen(one), 11 + 2 * (12 + strlen(texts[i]) + 16));
                assert_true(!*texts[i] || !strstr(one, texts[i]) || !texts[i][1]);
                assert_int_equal(seal_open(again, &here, one, &back, NULL), 0);
                assert_string_equal(back, texts[i]);
        }
}

static void test_other_places(void **state)
{
        static const struct seal_place others[] = {
                { "secret", "row1", "acc1" },        { "registry_auth", "row2", "acc1" },
                { "registry_auth", "row1", "acc2" }, { "registry_authrow1", "", "acc1" },
                { "registry_auth", "row1acc1", "" }, { "", "registry_authrow1acc1", "" },
        };
        AUTO(fd) int fd = file_of("");
        AUTO(sealer_free) struct sealer *s = sealer_of(fd);
        AUTO(free) char *sealed = NULL;

        (void) state;
        assert_int_equal(seal_close(s, &here, secret, &sealed, NULL), 0);
        for (size_t i = 0; i < NELEM(others); i++) {
                char *back = NULL;
                struct err e = { 0 };

                assert_int_equal(seal_open(s, &others[i], sealed, &back, &e), -EBADMSG);
                assert_null(back);
                assert_null(strstr(e.msg, secret));
        }
}

/* One digit of it changed, cut anywhere, or something else altogether. */
static void test_damage(void **state)
{
        static const char *const rubbish[] = { "",
                                               "1:",
                                               "2:",
                                               "1::",
                                               "1:00000000",
                                               "1:00000000:",
                                               "correct horse",
                                               "1:0:00",
                                               "1:000000000:00" };
        AUTO(fd) int fd = file_of("");
        AUTO(sealer_free) struct sealer *s = sealer_of(fd);
        AUTO(free) char *sealed = NULL;
        char *back = NULL;
        size_t n;

        (void) state;
        assert_int_equal(seal_close(s, &here, secret, &sealed, NULL), 0);
        n = strlen(sealed);
        for (size_t i = 0; i < n; i++) {
                char was = sealed[i];

                sealed[i] = was == '3' ? '4' : '3';
                assert_true(seal_open(s, &here, sealed, &back, NULL) < 0);
                sealed[i] = '\0';
                assert_true(seal_open(s, &here, sealed, &back, NULL) < 0);
                sealed[i] = 'G';
                assert_true(seal_open(s, &here, sealed, &back, NULL) < 0);
                sealed[i] = was;
        }
        for (size_t i = 0; i < NELEM(rubbish); i++)
                assert_true(seal_open(s, &here, rubbish[i], &back, NULL) < 0);
        assert_null(back);
        assert_int_equal(seal_open(s, &here, sealed, &back, NULL), 0);
        free(back);
}

static void test_keys(void **state)
{
        static const struct {
                const char *text;
                int r;
                const char *words;
        } t[] = {
                { "", -EKEYREJECTED, "has been replaced" },
                { "rubbish\n", -ENOKEY, "holds no key" },
                { "00112233445566778899aabbccddeeff", -ENOKEY, "holds no key" }, /* half of one */
                { "00112233445566778899aabbccddeeff00112233445566778899aabbccddeefG\n", -ENOKEY,
                  "holds no key" },
                { "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\nx", -ENOKEY,
                  "holds no key" },
                { "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n",
                  -EKEYREJECTED, "has been replaced" },
        };
        AUTO(fd) int fd = file_of("");
        AUTO(sealer_free) struct sealer *s = sealer_of(fd), *none = sealer_of(-EBADF);
        AUTO(free) char *sealed = NULL;
        char *back = NULL;
        struct err e = { 0 };

        (void) state;
        assert_int_equal(seal_close(s, &here, secret, &sealed, NULL), 0);
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(fd) int other = file_of(t[i].text);
                AUTO(sealer_free) struct sealer *o = sealer_of(other);
                off_t len = lseek(other, 0, SEEK_END);

                assert_int_equal(seal_open(o, &here, sealed, &back, &e), t[i].r);
                assert_non_null(strstr(e.msg, t[i].words));
                /* what is there is never overwritten */
                assert_int_equal(len, *t[i].text ? (off_t) strlen(t[i].text) : 65);
        }
        assert_int_equal(seal_close(none, &here, secret, &back, &e), -ENOKEY);
        assert_non_null(strstr(e.msg, "without a seal.key"));
        assert_null(back);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_there_and_back),
                cmocka_unit_test(test_other_places),
                cmocka_unit_test(test_damage),
                cmocka_unit_test(test_keys),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
