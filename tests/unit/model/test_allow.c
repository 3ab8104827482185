/* test_allow.c - src/model/allow.c: lists of networks, and the entries that the edge compares addresses with. */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/str.h"
#include "model/allow.h"

static void test_entries(void **state)
{
        static const struct {
                const char *net, *entries;
        } t[] = {
                { "0.0.0.0/0", "4" },
                { "::/0", "6" },
                { "127.0.0.1", "47F000001" },
                { "198.51.100.0/24", "4C63364" },
                { "10.0.0.0/8", "40A" },
                { "128.0.0.0/1", "48 49 4A 4B 4C 4D 4E 4F" },
                { "192.0.0.0/2", "4C 4D 4E 4F" },
                { "10.32.0.0/11", "40A2 40A3" },
                { "10.0.0.4/30", "40A000004 40A000005 40A000006 40A000007" },
                { "2001:db8::/32", "620010DB8" },
                { "2001:db8::/33", "620010DB80 620010DB81 620010DB82 620010DB83 620010DB84 "
                                   "620010DB85 620010DB86 620010DB87" },
                { "2001:db8::1", "620010DB8000000000000000000000001" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                char got[ALLOW_ENTRIES][ALLOW_ENTRY_MAX], all[512] = "";
                struct network n;
                size_t many;

                assert_int_equal(network_parse("f", t[i].net, strlen(t[i].net), &n, NULL), 0);
                many = allow_entries(&n, got);
                for (size_t k = 0; k < many; k++) {
                        (void) strcat(all, k ? " " : "");
                        (void) strcat(all, got[k]);
                }
                assert_string_equal(all, t[i].entries);
        }
}

/* Every prefix length: an address begins with one of the entries exactly when it is in the network. */
static void test_every_length(void **state)
{
        (void) state;
        srand(1);
        for (unsigned bits = 0; bits <= 128; bits++) {
                for (int round = 0; round < 64; round++) {
                        bool v6 = bits > 32 || round % 2;
                        struct network n = { .v6 = v6, .bits = (uint8_t) bits }, one = n;
                        char got[ALLOW_ENTRIES][ALLOW_ENTRY_MAX],
                                whole[ALLOW_ENTRIES][ALLOW_ENTRY_MAX];
                        size_t bytes = v6 ? 16 : 4, many, found = 0;

                        one.bits = v6 ? 128 : 32;
                        for (size_t i = 0; i < bytes; i++)
                                one.addr[i] = n.addr[i] = (uint8_t) rand();
                        for (unsigned b = bits; b < bytes * 8; b++)
                                n.addr[b / 8] = (uint8_t) (n.addr[b / 8] & ~(0x80U >> b % 8));
                        if (bits && round % 4 > 1) { /* one bit of the prefix is another */
                                unsigned b = (unsigned) rand() % bits;

                                one.addr[b / 8] = (uint8_t) (one.addr[b / 8] ^ 0x80U >> b % 8);
                        }
                        many = allow_entries(&n, got);
                        assert_int_equal(allow_entries(&one, whole), 1);
                        for (size_t k = 0; k < many; k++)
                                found += str_after(whole[0], got[k]) != NULL;
                        assert_int_equal(found, network_holds(&n, &one));
                }
        }
}

static void test_lists(void **state)
{
        static const struct {
                const char *list;
                int r;
                size_t n;
                const char *says;
        } t[] = {
                { "", 0, 0, NULL },
                { "10.0.0.0/8", 0, 1, NULL },
                { "127.0.0.1 ::1", 0, 2, NULL },
                { "10.0.0.0/8 10.1.0.0/16 10.0.0.1", 0, 1, NULL },
                { "10.1.0.0/16 10.2.0.0/16 10.0.0.0/8 ::/0", 0, 2, NULL },
                { "10.0.0.0/25 10.0.0.0/26 10.0.0.128/26", 0, 2, NULL },
                { "10.0.0.1/8", -EINVAL, 0,
                  "f: 10.0.0.1/8 does not start at its base, 10.0.0.0/8" },
                { "example.org", -EINVAL, 0, "f: 'example.org' is not a network" },
                { "10.0.0.0/33", -EINVAL, 0, "is not a network" },
                { "::ffff:10.0.0.0/104", -EINVAL, 0, "write it as IPv4" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(strv_free) char **list = NULL;
                AUTO(free) char *copy = strdup(t[i].list);
                struct allow a = { .n = 7777 };
                struct err e = { 0 };
                char *save = NULL;
                int r;

                for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
                        assert_int_equal(strv_push(&list, w), 0);
                r = allow_parse("f", list, &a, &e);
                if (r != t[i].r || (r >= 0 && a.n != t[i].n) || (r < 0 && a.n != 7777) ||
                    (t[i].says && !strstr(e.msg, t[i].says)))
                        fail_msg("row %zu: %d, %zu: %s", i, r, a.n, e.msg);
        }
}

static void test_too_many(void **state)
{
        AUTO(strv_free) char **list = NULL;
        struct allow a;
        struct err e = { 0 };

        (void) state;
        for (unsigned i = 0; i <= LIMIT_ALLOWED_IPS; i++) {
                char text[32];

                assert_int_equal(allow_parse("f", list, &a, &e), 0);
                (void) snprintf(text, sizeof text, "10.0.%u.0/24", i);
                assert_int_equal(strv_push(&list, text), 0);
        }
        assert_int_equal(allow_parse("f", list, &a, &e), -E2BIG);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_entries),
                cmocka_unit_test(test_every_length),
                cmocka_unit_test(test_lists),
                cmocka_unit_test(test_too_many),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
