/* test_codec.c - the attach protocol's codec: what one end packs the other unpacks, whatever the
 * pieces it arrives in; what is not the protocol is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "model/attach_codec.h"

/* ---- helpers ------------------------------------------------------------------------------- */

/* What a stream came out as: one line of text per packet, DATA of one packet joined. */
struct seen {
        char text[4096];
        size_t len;
        bool joining;
};

static void see(struct seen *s, const struct attach_packet *p)
{
        if (!s->joining)
                s->len += (size_t) snprintf(s->text + s->len, sizeof s->text - s->len,
                                            "%s/%u:", attach_type_name(p->type), p->channel);
        for (uint32_t i = 0; i < p->length && s->len + 3 < sizeof s->text; i++)
                s->len += (size_t) snprintf(s->text + s->len, sizeof s->text - s->len, "%02x",
                                            p->payload[i]);
        s->joining = p->left > 0;
        if (!s->joining)
                s->text[s->len++] = '\n';
}

/* Feed @len bytes in steps of @step through a parser with a buffer of @cap; its last result. */
static int parse_all(const uint8_t *data, size_t len, size_t step, size_t cap, struct seen *s)
{
        AUTO(free) uint8_t *buf = malloc(cap);
        struct attach_parser p;
        struct attach_packet pkt;
        size_t at = 0;
        int r = 0;

        attach_parser_init(&p, buf, cap);
        while (at < len) {
                size_t room, n;
                uint8_t *to = attach_parser_space(&p, &room);

                assert_true(room > 0);
                n = step < room ? step : room;
                n = n < len - at ? n : len - at;
                memcpy(to, data + at, n);
                attach_parser_commit(&p, n);
                at += n;
                while ((r = attach_parser_next(&p, &pkt)) == 1)
                        see(s, &pkt);
                if (r < 0) {
                        assert_int_equal(attach_parser_next(&p, &pkt), r); /* for good */
                        return r;
                }
        }
        return r;
}

/* ---- packets ------------------------------------------------------------------------------- */

static size_t sample(uint8_t *b, size_t cap)
{
        const struct attach_hello h = { ATTACH_VERSION, ATTACH_F_STDIO, 7, 0x0102030405060708 };
        size_t n = 0;

        n += attach_put_hello(b + n, cap - n, &h);
        n += attach_put(b + n, cap - n, ATTACH_DATA, ATTACH_STDERR, "hello", 5);
        n += attach_put(b + n, cap - n, ATTACH_DATA, ATTACH_STDOUT, NULL, 0);
        memcpy(b + n, "\xf0\x07\0\0\x03\0\0\0xyz", 11); /* a type of the future */
        n += 11;
        n += attach_put_eof(b + n, cap - n, ATTACH_STDOUT);
        n += attach_put_resize(b + n, cap - n, 24, 0x150);
        n += attach_put_exit(b + n, cap - n, 137, 9);
        return n;
}

static const char sample_text[] = "hello/0:0100000001000000070000000000000008070605040302"
                                  "01\n"
                                  "data/2:68656c6c6f\n"
                                  "data/1:\n"
                                  "eof/1:\n"
                                  "resize/0:18005001\n"
                                  "exit/0:8900000009000000\n";

static void test_any_cut(void **state)
{
        uint8_t b[256];
        size_t n = sample(b, sizeof b);

        (void) state;
        for (size_t step = 1; step <= n; step++) {
                struct seen s = { 0 };

                assert_int_equal(parse_all(b, n, step, ATTACH_PARSER_MIN, &s), 0);
                assert_string_equal(s.text, sample_text);
        }
        /* every single cut in two */
        for (size_t cut = 1; cut < n; cut++) {
                uint8_t buf[ATTACH_PARSER_MIN];
                struct attach_parser p;
                struct attach_packet pkt;
                struct seen s = { 0 };
                const size_t part[2][2] = { { 0, cut }, { cut, n - cut } };

                attach_parser_init(&p, buf, sizeof buf);
                for (size_t i = 0; i < 2; i++) {
                        size_t room;
                        uint8_t *to = attach_parser_space(&p, &room);

                        assert_true(room >= part[i][1]);
                        memcpy(to, b + part[i][0], part[i][1]);
                        attach_parser_commit(&p, part[i][1]);
                        while (attach_parser_next(&p, &pkt) == 1)
                                see(&s, &pkt);
                }
                assert_string_equal(s.text, sample_text);
        }
}

static void test_data_in_pieces(void **state)
{
        static const size_t steps[] = { 1, 3, 100, 575, 576, 5000 };
        uint8_t b[3000], payload[1500];
        size_t n;

        (void) state;
        for (size_t i = 0; i < sizeof payload; i++)
                payload[i] = (uint8_t) (i * 7);
        n = attach_put(b, sizeof b, ATTACH_DATA, ATTACH_STDIN, payload, sizeof payload);
        n += attach_put_eof(b + n, sizeof b - n, ATTACH_STDIN);
        for (size_t i = 0; i < NELEM(steps); i++) {
                struct seen small = { 0 }, whole = { 0 };

                assert_int_equal(parse_all(b, n, steps[i], ATTACH_PARSER_MIN, &small), 0);
                assert_int_equal(parse_all(b, n, steps[i], ATTACH_PARSER_MAX, &whole), 0);
                assert_string_equal(small.text, whole.text);
                assert_int_equal(small.len, strlen("data/0:\neof/0:\n") + 2 * sizeof payload);
        }
}

static void test_largest_packet_comes_whole(void **state)
{
        AUTO(free) uint8_t *b = calloc(2, ATTACH_PARSER_MAX);
        AUTO(free) uint8_t *buf = malloc(ATTACH_PARSER_MAX);
        struct attach_parser p;
        struct attach_packet pkt;
        size_t n, room;

        (void) state;
        n = attach_put(b, ATTACH_PARSER_MAX, ATTACH_DATA, ATTACH_STDOUT, b + ATTACH_PARSER_MAX,
                       ATTACH_MAX_PAYLOAD);
        assert_int_equal(n, ATTACH_PARSER_MAX);
        attach_parser_init(&p, buf, ATTACH_PARSER_MAX);
        memcpy(attach_parser_space(&p, &room), b, n);
        assert_int_equal(room, n);
        attach_parser_commit(&p, n);
        assert_int_equal(attach_parser_next(&p, &pkt), 1);
        assert_int_equal(pkt.length, ATTACH_MAX_PAYLOAD);
        assert_int_equal(pkt.left, 0);
        assert_int_equal(attach_parser_next(&p, &pkt), 0);
}

static void test_refused(void **state)
{
        static const struct {
                const char *bytes;
                size_t len;
                int r;
        } t[] = {
                { "\0\0\0\0\0\0\0\0", 8, -EPROTO }, /* no type */
                { "\2\0\1\0\0\0\0\0", 8, -EPROTO }, /* zero that is not */
                { "\2\0\0\1\0\0\0\0", 8, -EPROTO },
                { "\2\3\0\0\0\0\0\0", 8, -EPROTO },   /* no such channel */
                { "\2\0\0\0\1\0\1\0", 8, -EMSGSIZE }, /* 65,537 bytes */
                { "\377\0\0\0\377\377\377\377", 8, -EMSGSIZE },
                { "\1\0\0\0\7\0\0\0", 8, -EPROTO },     /* hello of 7 bytes */
                { "\4\0\0\0\3\0\0\0", 8, -EPROTO },     /* resize of 3 */
                { "\5\0\0\0\3\0\0\0", 8, -EPROTO },     /* signal of 3 */
                { "\6\0\0\0\4\0\0\0", 8, -EPROTO },     /* follow of 4 */
                { "\10\0\0\0\7\0\0\0", 8, -EPROTO },    /* exit of 7 */
                { "\12\0\0\0\0\0\0\0", 8, -EPROTO },    /* credit of 0 */
                { "\11\0\0\0\71\2\0\0", 8, -EMSGSIZE }, /* error longer than the buffer */
                { "\1\0\0\0\10\0\0", 7, 0 },            /* not there yet */
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct seen s = { 0 };
                int r = parse_all((const uint8_t *) t[i].bytes, t[i].len, 1, ATTACH_PARSER_MIN, &s);

                if (r != t[i].r || s.len != 0)
                        fail_msg("row %zu: r=%d text '%s'", i, r, s.text);
        }
}

static void test_round_trips(void **state)
{
        uint8_t b[1024];
        struct attach_packet p;
        struct attach_parser parser;
        uint8_t buf[ATTACH_PARSER_MIN];
        struct attach_hello h = { 0 };
        const struct attach_hello sent = { 1, 5, 1ULL << 40, UINT64_MAX };
        uint16_t rows = 0, cols = 0;
        uint32_t bytes = 0;
        uint64_t offset = 0;
        int sig = 0, code = 0;
        char text[16];
        const char *lines = NULL;
        size_t n, room, len = 0;

#define TRIP(put)                                                                                  \
        do {                                                                                       \
                n = (put);                                                                         \
                assert_true(n >= 8);                                                               \
                attach_parser_init(&parser, buf, sizeof buf);                                      \
                memcpy(attach_parser_space(&parser, &room), b, n);                                 \
                attach_parser_commit(&parser, n);                                                  \
                assert_int_equal(attach_parser_next(&parser, &p), 1);                              \
        } while (0)

        (void) state;
        TRIP(attach_put_hello(b, sizeof b, &sent));
        assert_int_equal(attach_get_hello(&p, &h), 0);
        assert_memory_equal(&h, &sent, sizeof h);
        p.length = 8; /* a client's hello, without offsets */
        assert_int_equal(attach_get_hello(&p, &h), 0);
        assert_int_equal(h.log_start, 0);
        assert_int_equal(attach_get_exit(&p, &code, &sig), -EPROTO); /* of another type */
        TRIP(attach_put_resize(b, sizeof b, 65535, 1));
        assert_int_equal(attach_get_resize(&p, &rows, &cols), 0);
        assert_int_equal(rows, 65535);
        assert_int_equal(cols, 1);
        TRIP(attach_put_signal(b, sizeof b, 64));
        assert_int_equal(attach_get_signal(&p, &sig), 0);
        assert_int_equal(sig, 64);
        TRIP(attach_put_signal(b, sizeof b, 65));
        assert_int_equal(attach_get_signal(&p, &sig), -EPROTO);
        TRIP(attach_put_signal(b, sizeof b, 0));
        assert_int_equal(attach_get_signal(&p, &sig), -EPROTO);
        TRIP(attach_put_credit(b, sizeof b, UINT32_MAX));
        assert_int_equal(attach_get_credit(&p, &bytes), 0);
        assert_int_equal(bytes, UINT32_MAX);
        TRIP(attach_put_follow(b, sizeof b, UINT64_MAX - 1));
        assert_int_equal(attach_get_follow(&p, &offset), 0);
        assert_int_equal(offset, UINT64_MAX - 1);
        TRIP(attach_put_exit(b, sizeof b, 255, 0));
        assert_int_equal(attach_get_exit(&p, &code, &sig), 0);
        assert_int_equal(code, 255);
        TRIP(attach_put_exit(b, sizeof b, 256, 0));
        assert_int_equal(attach_get_exit(&p, &code, &sig), -EPROTO);
        TRIP(attach_put_error(b, sizeof b, "bad\nthing \x7f that is long"));
        assert_int_equal(attach_get_error(&p, text, sizeof text), 0);
        assert_string_equal(text, "bad thing   tha");
        n = attach_put_log_header(b, 99, 3);
        memcpy(b + n, "ab\n", 3);
        TRIP(n + 3);
        assert_int_equal(attach_get_log(&p, &offset, &lines, &len), 0);
        assert_int_equal(offset, 99);
        assert_int_equal(len, 3);
        assert_memory_equal(lines, "ab\n", 3);
#undef TRIP
}

static void test_no_room(void **state)
{
        uint8_t b[32], canary[32];

        (void) state;
        memset(b, 0x5a, sizeof b);
        memcpy(canary, b, sizeof b);
        for (size_t cap = 0; cap < 12; cap++)
                assert_int_equal(attach_put_credit(b, cap, 1), 0);
        assert_int_equal(
                attach_put(b, SIZE_MAX, ATTACH_DATA, ATTACH_STDOUT, b, ATTACH_MAX_PAYLOAD + 1), 0);
        assert_memory_equal(b, canary, sizeof b);
        assert_int_equal(attach_put_credit(b, 12, 1), 12);
}

static void test_names(void **state)
{
        (void) state;
        for (unsigned i = 0; i < ATTACH_TYPE_COUNT; i++)
                for (unsigned j = 0; j < i; j++)
                        assert_string_not_equal(attach_type_name(i), attach_type_name(j));
        assert_string_equal(attach_type_name(ATTACH_CREDIT), "credit");
        assert_string_equal(attach_type_name(200), "unknown");
}

/* ---- the log ------------------------------------------------------------------------------- */

static void test_log_header(void **state)
{
        static const struct {
                const char *text;
                int r;
                uint64_t offset;
        } t[] = {
                { "#log 0\n", 7, 0 },
                { "#log 33554432\nx", 14, 33554432 },
                { "#log 9223372036854775807\n", 25, INT64_MAX },
                { "#log 9223372036854775808\n", -EPROTO, 7777 },
                { "#log 12", -EPROTO, 7777 },
                { "#log \n", -EPROTO, 7777 },
                { "#log -1\n", -EPROTO, 7777 },
                { "#log 1x\n", -EPROTO, 7777 },
                { "#lgo 1\n", -EPROTO, 7777 },
                { "#lo", -EPROTO, 7777 },
                { "", -EPROTO, 7777 },
        };
        char buf[32];

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                uint64_t got = 7777;
                int r = attach_log_header_parse(t[i].text, strlen(t[i].text), &got);

                if (r != t[i].r || got != t[i].offset)
                        fail_msg("row %zu: r=%d offset=%llu", i, r, (unsigned long long) got);
        }
        assert_int_equal(attach_log_header_format(buf, sizeof buf, INT64_MAX), 25);
        assert_string_equal(buf, "#log 9223372036854775807\n");
        assert_int_equal(attach_log_header_format(buf, 25, INT64_MAX), -ENOSPC);
}

static void test_log_line(void **state)
{
        static const struct {
                const char *text;
                int r;
                enum attach_channel channel;
                bool whole;
                const char *body;
        } t[] = {
                { "2026-11-22T14:54:47.123456789Z stdout F text\nnext", 45, ATTACH_STDOUT, true,
                  "text" },
                { "T stderr P a b  c\n", 18, ATTACH_STDERR, false, "a b  c" },
                { "T stdout F \n", 12, ATTACH_STDOUT, true, "" },
                { "T stdout F\n", -EPROTO, 0, false, NULL },
                { "T stdin F x\n", -EPROTO, 0, false, NULL },
                { "T stdout X x\n", -EPROTO, 0, false, NULL },
                { " stdout F x\n", -EPROTO, 0, false, NULL },
                { "#log 12\n", -EPROTO, 0, false, NULL },
                { "\n", -EPROTO, 0, false, NULL },
                { "T stdout F te", 0, 0, false, NULL },
                { "", 0, 0, false, NULL },
        };
        static char endless[ATTACH_LOG_LINE + 1];
        struct attach_log_line l;

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                int r = attach_log_line_parse(t[i].text, strlen(t[i].text), &l);

                if (r != t[i].r)
                        fail_msg("row %zu: r=%d", i, r);
                if (r <= 0)
                        continue;
                assert_int_equal(l.channel, t[i].channel);
                assert_int_equal(l.whole, t[i].whole);
                assert_int_equal(l.text_len, strlen(t[i].body));
                assert_memory_equal(l.text, t[i].body, l.text_len);
        }
        memset(endless, 'x', sizeof endless);
        assert_int_equal(attach_log_line_parse(endless, sizeof endless, &l), -EPROTO);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_any_cut),
                cmocka_unit_test(test_data_in_pieces),
                cmocka_unit_test(test_largest_packet_comes_whole),
                cmocka_unit_test(test_refused),
                cmocka_unit_test(test_round_trips),
                cmocka_unit_test(test_no_room),
                cmocka_unit_test(test_names),
                cmocka_unit_test(test_log_header),
                cmocka_unit_test(test_log_line),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
