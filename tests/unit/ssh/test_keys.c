/* test_keys.c - root's authorized_keys while the account's keys change, and whom dropbear says it let in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "ssh/ssh_priv.h"

#define A  "AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define B  "AAAAC3NzaC1lZDI1NTE5AAAAIBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"
#define C  "AAAAC3NzaC1lZDI1NTE5AAAAICCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC"
#define T  "ssh-ed25519 "
#define PA "SHA256:aaaa " T A " ada\n"
#define PB "SHA256:bbbb " T B "\n"

static void test_merge(void **state)
{
        static const struct {
                const char *file, *old, *now, *want;
        } t[] = {
                { "", "", "", "" },
                { "", "", PA, T A " ada\n" },
                { T A " ada\n", PA, "", "" },
                { T A " ada\n" T B "\n", PA PB, PB, T B "\n" },
                /* what the tenant has added stays, in its place */
                { "# mine\n" T C " c\n" T A "\n\n", PA, PB, "# mine\n" T C " c\n\n" T B "\n" },
                /* however it got there: twice, with options, in quotes, without a line's end */
                { T A "\n" T A " again\n", PA, "", "" },
                { "from=\"1.2.3.4 \",no-pty " T A " x\n" T C, PA, "", T C "\n" },
                { "\tcommand=\"echo hi\"\t" T A "\r\n", PA, "", "" },
                { T A, PA, "", "" },
                /* a key that is only mentioned is gone, too: too much rather than too little */
                { "#" T A "\n", PA, "", "" },
                /* that is there already comes once */
                { T A " other name\n", "", PA, T A " ada\n" },
                { T "AAAA\n", PA, PB, T "AAAA\n" T B "\n" },
                { "\n\n", "", "", "\n\n" },
                { T A "x\n", PA, "", T A "x\n" }, /* another key, that begins the same */
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(free) char *got = keys_merge(t[i].file, t[i].old, t[i].now);
                AUTO(free) char *again = got ? keys_merge(got, t[i].now, t[i].now) : NULL;

                if (!got || strcmp(got, t[i].want) != 0)
                        fail_msg("row %zu: got '%s', want '%s'", i, got, t[i].want);
                if (!again || strcmp(again, got) != 0)
                        fail_msg("row %zu: a second time it is '%s'", i, again);
        }
}

static void test_fewer(void **state)
{
        (void) state;
        assert_false(keys_fewer("", ""));
        assert_false(keys_fewer("", PA));
        assert_false(keys_fewer(PA, PA PB));
        assert_false(keys_fewer("SHA256:aaaa " T A " one name\n", PA));
        assert_true(keys_fewer(PA PB, PA));
        assert_true(keys_fewer(PA, ""));
        assert_true(keys_fewer(PA, PB));
        assert_true(keys_have(PA PB, "SHA256:bbbb"));
        assert_false(keys_have(PA PB, "SHA256:bbb"));
        assert_false(keys_have(PA PB, "ssh-ed25519"));
        assert_false(keys_have("", "SHA256:bbbb"));
}

static void test_home(void **state)
{
        static const struct {
                const char *passwd, *want;
        } t[] = {
                { "", "/root" },
                { "root:x:0:0:root:/root:/bin/sh\n", "/root" },
                { "root:x:0:0::/home/admin:/bin/sh", "/home/admin" },
                { "daemon:x:1:1::/:/bin/sh\nroot:x:0:0::/:/bin/sh\n", "/" },
                { "root:x:0:0::relative:/bin/sh\n", "/root" },
                { "root:x:0:0::/short", "/short" },
                { "root:x:0\nroot:x:0:0::/later:/bin/sh\n", "/later" },
                { "rooty:x:0:0::/no:/bin/sh\n", "/root" },
                { "root::::::::::\n", "/root" },
        };
        char home[32], longer[400];

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                keys_home(t[i].passwd, home, sizeof home);
                if (strcmp(home, t[i].want) != 0)
                        fail_msg("row %zu: got %s, want %s", i, home, t[i].want);
        }
        (void) snprintf(longer, sizeof longer, "root:x:0:0::/%0300d:/bin/sh\n", 1);
        keys_home(longer, home, sizeof home);
        assert_string_equal(home, "/root");
}

static void test_log(void **state)
{
        static const struct {
                const char *line;
                pid_t pid;
                const char *print;
        } t[] = {
                { "[71] Nov 23 14:00:01 Pubkey auth succeeded for 'root' with ssh-ed25519 key "
                  "SHA256:8eoG0pcUzm2G8OAYT8VJJb9KSWYTmqJHQgBjtMTM2Nc from 192.0.2.1:50000",
                  71, "SHA256:8eoG0pcUzm2G8OAYT8VJJb9KSWYTmqJHQgBjtMTM2Nc" },
                { "[71] Nov 23 14:00:01 Child connection from 192.0.2.1:50000", 0, NULL },
                { "[0] Nov 23 14:00:01 Pubkey auth succeeded for 'r' with a key SHA256:x from", 0,
                  NULL },
                { "[-5] Nov 23 14:00:01 Pubkey auth succeeded for 'r' with a key SHA256:x from", 0,
                  NULL },
                { "[7 Nov 23 14:00:01 Pubkey auth succeeded for 'r' with a key SHA256:x from", 0,
                  NULL },
                { "[99999999999999999999] Pubkey auth succeeded for 'r' with a key SHA256:x", 0,
                  NULL },
                { "Pubkey auth succeeded for 'root' with ssh-rsa key SHA256:x from", 0, NULL },
                { "[7] Nov 23 14:00:01 Pubkey auth succeeded for 'root' with ssh-rsa key md5 aa:bb",
                  0, NULL },
                { "[7] x Pubkey auth succeeded for 'root' with ssh-rsa key SHA256:"
                  "8888888888888888888888888888888888888888888888888888888888888",
                  0, NULL },
                { "", 0, NULL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                char print[SSH_PRINT_LEN + 1] = "";
                pid_t pid = 0;
                bool heard = sessions_parse(t[i].line, &pid, print);

                if (heard != (t[i].pid != 0) || pid != t[i].pid ||
                    strcmp(print, t[i].print ? t[i].print : "") != 0)
                        fail_msg("row %zu: %d, %d %s", i, heard, (int) pid, print);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_merge),
                cmocka_unit_test(test_fewer),
                cmocka_unit_test(test_home),
                cmocka_unit_test(test_log),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
