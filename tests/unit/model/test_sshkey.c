/* test_sshkey.c - public SSH keys: what is taken, what is not and why, and fingerprints. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
/* cmocka needs the above */
#include <cmocka.h>

#include "base/mem.h"
#include "base/str.h"
#include "model/sshkey.h"

#define ED25519 "AAAAC3NzaC1lZDI1NTE5AAAAIMGWhrF1Vyoymb+P7ewy3AddaQ7bdQkNBvc5F88wPq96"
#define RSA3072                                                                                       \
        "AAAAB3NzaC1yc2EAAAADAQABAAABgQDVyZT06D04JiNmCFw5v3+oolv9+nXDxOpSY9kqlkvToEpOL0uktSdbZhkmvF"  \
        "Ristchr2/guFt/DTDtO4tJh8XLPq/4FnHJDNvlBV41FLtzbetFQ/2PyCU4KwDNKE/8Aw6Y4cJzLKAvMP9pGgEhugsA"  \
        "8ZriPCl0/GiqWvGPoYabOL6QsSb7Sk33pw1j3frc6swLhX32PofJnL7C07WFhzJ8gr9JSQg4VTn066Dth00hdeuYfJY" \
        "LRhWs6b5MV7ltu+IUOe7Jj9nRC5ZBcCyaklzqsYpsJCl8W9by0VfR9x6dTFWsQcjg3W+Fk1unqRFww5vcdieJ7VxDih" \
        "lcbkhpEq9pHceuV9LEC6WJ5zH3n15+SO6Fd1gO4QRQin7dBMlnzoa3s9HHjWkV9+DIGtqD48TMnqSv6TaRlIvVpJ0uP" \
        "biACGUsb5gTdxapINhh/9AoDWwrGdsy10D0VsAEjlJ3sy+z5KLPi1MwGd+0WqkypSeDrNJo5HgqOYr4r0vZyUzzbHk="
#define RSA1024                                                                                      \
        "AAAAB3NzaC1yc2EAAAADAQABAAAAgQCjCe8iRpD1JgAViJKZT9JmbB3K1o07kVSOUdJWceCDIG0eNgLTCQ9P9conh5" \
        "DBph6t2VLYn6nsr/KIV2NWlN2xY8gUyLf6ey0Zt6wiHFaQupjom+Z2TGLJz9UnOYjMutM7oy+Yv9H+9dJwQScH+1HG" \
        "DBZUVDC/hbvBan7SzdELUw=="
#define P256                                                                                         \
        "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBPMX9MYw7z6uJzq36rBDkl0SbIJkJZhA5CD4Rr" \
        "bAw5QukxGewh+MalnKLZHICv8rVohqtoEBLietxo58BF3YUvM="
#define P521                                                                                         \
        "AAAAE2VjZHNhLXNoYTItbmlzdHA1MjEAAAAIbmlzdHA1MjEAAACFBABulJx8OsQO8AFPYfeAGLrt/X1eUgmLLs/vlO" \
        "WgZFzMeeBnpdRcz0wuOyThJ4w8NbDtLMoXq5hiYV803NTNiLpowwA8lrXppyVZe4vAF41dwgH6oq/SmD5xy1csMO0b" \
        "IEhFGkIKUXI3REAnTJLW95/Qwt7FdN5w+Tsz2i7Mb1zMqltEBA=="

static void test_lines(void **state)
{
        static const struct {
                const char *in;
                int r;
                uint32_t bits;
                const char *says; /* the comment, or a part of the reason */
        } t[] = {
                { "", 0, 0, NULL },
                { "   \r", 0, 0, NULL },
                { "# ssh-ed25519 " ED25519, 0, 0, NULL },
                { "ssh-ed25519 " ED25519, 1, 256, "" },
                { "  ssh-ed25519\t" ED25519 "  ada on her \"new\" laptop \r", 1, 256,
                  "ada on her \"new\" laptop" },
                { "ssh-rsa " RSA3072 " ada@rsa", 1, 3072, "ada@rsa" },
                { "ecdsa-sha2-nistp256 " P256, 1, 256, "" },
                { "ecdsa-sha2-nistp521 " P521 " root@vm", 1, 521, "root@vm" },
                { "ssh-rsa " RSA1024, -ERANGE, 0, "has 1024 bits, 2048 to 16384 are taken" },
                { "ssh-dss AAAA x", -EINVAL, 0, "DSA keys are not taken" },
                { "-----BEGIN OPENSSH PRIVATE KEY-----", -EINVAL, 0, "this is a private key" },
                { "---- BEGIN SSH2 PUBLIC KEY ----", -EINVAL, 0, "ssh-keygen -i -f FILE" },
                { "PuTTY-User-Key-File-3: ssh-ed25519", -EINVAL, 0, "PuTTY's file" },
                { "command=\"id\" ssh-ed25519 " ED25519, -EINVAL, 0, "hold no options" },
                { ED25519, -EINVAL, 0, "must begin with the key's type" },
                { "ssh-ed25519", -EINVAL, 0, "is no whole key of that type" },
                { "ssh-ed25519 AAAA x", -EINVAL, 0, "is no whole key of that type" },
                /* of another type; cut short; something behind it */
                { "ssh-rsa " ED25519, -EINVAL, 0, "follows ssh-rsa is no whole key" },
                { "ecdsa-sha2-nistp384 " P256, -EINVAL, 0, "no whole key" },
                { "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMGWhrF1Vyoymb+P7ewy3AddaQ7bdQkNBvc5F88wPq==",
                  -EINVAL, 0, "no whole key" },
                { "ssh-ed25519 " ED25519 "AAAA", -EINVAL, 0, "no whole key" },
                /* base64 that no encoder writes */
                { "ecdsa-sha2-nistp521 AAAAE2VjZHNh=AAA", -EINVAL, 0, "no whole key" },
                { "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMGWhrF1Vyoymb+P7ewy3AddaQ7bdQkNBvc5F88wPq9!",
                  -EINVAL, 0, "no whole key" },
                { "ssh-ed25519 " ED25519 " a\033[2Jb", -EINVAL, 0, "control character" },
                { "ssh-ed25519 " ED25519 " a\177", -EINVAL, 0, "control character" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct sshkey k = { .bits = 7777 };
                struct err e = { 0 };
                const char *next = NULL;
                int r = sshkey_line(t[i].in, &k, &next, &e);

                if (r != t[i].r || *next)
                        fail_msg("row %zu '%s': %d, %s", i, t[i].in, r, e.msg);
                if (r < 0 && !strstr(e.msg, t[i].says))
                        fail_msg("row %zu '%s': %s", i, t[i].in, e.msg);
                if (r == 1 && (k.bits != t[i].bits || k.comment_len != strlen(t[i].says) ||
                               memcmp(k.comment, t[i].says, k.comment_len) != 0))
                        fail_msg("row %zu '%s': %u bits, '%.*s'", i, t[i].in, k.bits,
                                 (int) k.comment_len, k.comment);
        }
}

/* Every prefix of a key is refused or means nothing, and nothing is read behind its end. */
static void test_prefixes(void **state)
{
        static const char whole[] = "ecdsa-sha2-nistp256 " P256;

        (void) state;
        for (size_t n = 0; n < strlen(whole); n++) {
                AUTO(free) char *cut = strndup(whole, n);
                struct sshkey k;
                const char *next;

                assert_non_null(cut);
                assert_true(sshkey_line(cut, &k, &next, NULL) == (n ? -EINVAL : 0));
        }
}

static void test_whole_lists(void **state)
{
        static const char one[] = "ssh-ed25519 " ED25519 " ada\n";
        struct err e = { 0 };
        AUTO(strbuf_done) struct strbuf b = { 0 };

        (void) state;
        assert_int_equal(sshkey_check("pubKey", "", &e), 0);
        assert_int_equal(
                sshkey_check("pubKey", "ssh-ed25519 " ED25519 "\r\n\n\nssh-rsa " RSA3072, &e), 2);
        assert_int_equal(sshkey_check("keys", "\n# mine\nssh-ed25519 x\n", &e), -EINVAL);
        assert_non_null(strstr(e.msg, "keys: line 3: what follows ssh-ed25519"));
        for (unsigned i = 0; i < LIMIT_SSH_KEYS; i++)
                strbuf_str(&b, one);
        assert_int_equal(sshkey_check("pubKey", b.s, &e), LIMIT_SSH_KEYS);
        strbuf_str(&b, one);
        assert_int_equal(sshkey_check("pubKey", b.s, &e), -E2BIG);
        assert_non_null(strstr(e.msg, "pubKey: 101 keys, at most 100 are allowed; remove some"));
        while (b.len <= LIMIT_SSH_KEYS_BYTES)
                strbuf_char(&b, '\n');
        assert_int_equal(sshkey_check("pubKey", b.s, &e), -E2BIG);
        assert_non_null(strstr(e.msg, "pubKey: 65537 bytes, at most 65536 are allowed"));
}

static void test_fingerprint(void **state)
{
        uint8_t digest[32];
        char text[SSHKEY_FINGERPRINT_LEN + 1], plain[9];

        (void) state;
        for (unsigned i = 0; i < sizeof digest; i++)
                digest[i] = (uint8_t) (i * 7);
        sshkey_fingerprint(digest, text);
        assert_string_equal(text, "SHA256:AAcOFRwjKjE4P0ZNVFtiaXB3foWMk5qhqK+2vcTL0tk");
        sshkey_base64((const uint8_t *) "hello", 5, plain);
        assert_string_equal(plain, "aGVsbG8=");
        sshkey_base64((const uint8_t *) "", 0, plain);
        assert_string_equal(plain, "");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_lines),
                cmocka_unit_test(test_prefixes),
                cmocka_unit_test(test_whole_lists),
                cmocka_unit_test(test_fingerprint),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
