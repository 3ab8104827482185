/* test_message.c - queries are read, answers are written byte for byte. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "dns/message.h"

/* id 0x1234, recursion desired, one question */
#define HEAD "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
#define Q_A  "\x00\x01\x00\x01"

struct text {
        const char *at;
        size_t len;
};
#define T(s)                                                                                       \
        {                                                                                          \
                s, sizeof(s) - 1                                                                   \
        }

static void test_questions(void **state)
{
        static const struct {
                struct text msg;
                int r;
                const char *name;
                bool plain;
        } t[] = {
                { T(HEAD "\x03"
                         "aBc"
                         "\x08"
                         "internal"
                         "\x00" Q_A),
                  0, "abc.internal", true },
                { T(HEAD "\x00" Q_A), 0, "", true },
                { T(HEAD "\x03"
                         "a.b"
                         "\x00" Q_A),
                  0, "a?b", false },
                { T(HEAD "\x03"
                         "a\0b"
                         "\x00" Q_A),
                  0, "a?b", false },
                { T(HEAD "\x01"
                         "*"
                         "\x00" Q_A "more behind"),
                  0, "?", false },
                { T(HEAD "\x03"
                         "abc"
                         "\x00"
                         "\x00\x01\x00\x03"),
                  DNS_NOTIMP, NULL, false },
                { T(HEAD "\x03"
                         "abc"
                         "\x00"
                         "\x00\x01\x00"),
                  DNS_FORMERR, NULL, false },
                { T(HEAD "\x03"
                         "abc"),
                  DNS_FORMERR, NULL, false },
                { T(HEAD "\x03"
                         "ab"),
                  DNS_FORMERR, NULL, false },
                { T(HEAD "\xC0\x0C" Q_A), DNS_FORMERR, NULL, false }, /* compressed */
                { T(HEAD), DNS_FORMERR, NULL, false },
                { T("\x12\x34\x01\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00" Q_A), DNS_FORMERR, NULL,
                  false },
                { T("\x12\x34\x28\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00" Q_A), DNS_NOTIMP, NULL,
                  false }, /* an update */
                { T("\x12\x34\x81\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00" Q_A), -EBADMSG, NULL,
                  false }, /* an answer */
                { T("\x12\x34\x01"), -EBADMSG, NULL, false },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct dns_question q = { .type = 7777 };
                int r = dns_question_parse((const uint8_t *) t[i].msg.at, t[i].msg.len, &q);

                assert_int_equal(r, t[i].r);
                if (r != 0) {
                        assert_int_equal(q.type, 7777);
                        continue;
                }
                assert_string_equal(q.name, t[i].name);
                assert_int_equal(q.plain, t[i].plain);
                assert_int_equal(q.type, 1);
                assert_true(q.end <= t[i].msg.len);
        }
}

static void test_longest_name(void **state)
{
        uint8_t msg[DNS_HEADER + 300];
        struct dns_question q;
        size_t n = DNS_HEADER;

        (void) state;
        memcpy(msg, HEAD, DNS_HEADER);
        for (int i = 0; i < 5; i++) { /* 5 * 64 > 255 */
                msg[n++] = 58;
                memset(msg + n, 'a', 58);
                n += 58;
        }
        assert_int_equal(dns_question_parse(msg, n, &q), DNS_FORMERR);
        n = DNS_HEADER + (size_t) 4 * 59;
        msg[n++] = 0;
        memcpy(msg + n, Q_A, 4);
        assert_int_equal(dns_question_parse(msg, n + 4, &q), 0);
        assert_int_equal(strlen(q.name), 4 * 59 - 1);
}

static void test_answer(void **state)
{
        static const char query[] = HEAD "\x01"
                                         "a"
                                         "\x00" Q_A "\x00\x00\x29"; /* and an OPT begins */
        static const char want[] =
                "\x12\x34\x85\x80\x00\x01\x00\x01\x00\x00\x00\x00"
                "\x01"
                "a"
                "\x00" Q_A "\xC0\x0C\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x64\x60\x00\x07";
        static const uint8_t addr[4] = { 100, 96, 0, 7 };
        struct dns_question q;
        uint8_t to[64];
        size_t n;

        (void) state;
        assert_int_equal(dns_question_parse((const uint8_t *) query, sizeof query - 1, &q), 0);
        n = dns_answer_begin(to, (const uint8_t *) query, q.end, DNS_OK);
        n = dns_answer_add(to, n, sizeof to, DNS_TYPE_A, 5, addr, sizeof addr);
        assert_int_equal(n, sizeof want - 1);
        assert_memory_equal(to, want, n);
        assert_true(dns_answers(to, n, (const uint8_t *) query, q.end));
        to[1] ^= 1;
        assert_false(dns_answers(to, n, (const uint8_t *) query, q.end));
        to[1] ^= 1;
        to[DNS_HEADER + 1] = 'b';
        assert_false(dns_answers(to, n, (const uint8_t *) query, q.end));
        assert_false(dns_answers(to, q.end - 1, (const uint8_t *) query, q.end));
}

static void test_answer_that_does_not_fit(void **state)
{
        static const char query[] = HEAD "\x00" Q_A;
        static const uint8_t addr[4] = { 0 };
        uint8_t to[40];
        size_t n = dns_answer_begin(to, (const uint8_t *) query, sizeof query - 1, DNS_OK), more;

        (void) state;
        memset(to + n, 0x77, sizeof to - n);
        more = dns_answer_add(to, n, n + 15, DNS_TYPE_A, 5, addr, sizeof addr);
        assert_int_equal(more, n);
        assert_int_equal(to[2] & 2, 2); /* truncated */
        assert_int_equal(to[7], 0);     /* no record */
        assert_int_equal(to[n], 0x77);
}

static void test_names(void **state)
{
        uint8_t to[16];
        uint32_t addr = 0;

        (void) state;
        assert_int_equal(dns_name_encode("ab.c", to, sizeof to), 6);
        assert_memory_equal(to,
                            "\x02"
                            "ab"
                            "\x01"
                            "c",
                            6);
        assert_int_equal(dns_name_encode("", to, sizeof to), 1);
        assert_int_equal(dns_name_encode("a..b", to, sizeof to), 0);
        assert_int_equal(dns_name_encode("abcdefgh.ijklmnop", to, sizeof to), 0);
        assert_int_equal(dns_reverse4("7.0.96.100.in-addr.arpa", &addr), 0);
        assert_int_equal(addr, 0x64600007);
        assert_int_equal(dns_reverse4("256.0.96.100.in-addr.arpa", &addr), -EINVAL);
        assert_int_equal(dns_reverse4("7.0.96.in-addr.arpa", &addr), -EINVAL);
        assert_int_equal(dns_reverse4("7.0.96.100.in-addr.arpa.x", &addr), -EINVAL);
        assert_int_equal(dns_reverse4("", &addr), -EINVAL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_questions), cmocka_unit_test(test_longest_name),
                cmocka_unit_test(test_answer),    cmocka_unit_test(test_answer_that_does_not_fit),
                cmocka_unit_test(test_names),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
