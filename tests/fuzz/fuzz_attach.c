/* fuzz_attach.c - libFuzzer target for the attach protocol (src/model/attach_codec.c).
 *
 * The first two bytes choose the parser's buffer and how the rest is cut; the rest is the stream.
 * Checked beside memory errors: every payload lies in what was committed, the parser always makes
 * progress, what it says does not depend on the cuts, and every getter and the log parsers take
 * whatever comes.  A trap is a finding. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/attach_codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x))                                                                          \
                        __builtin_trap();                                                          \
        } while (0)

struct digest {
        uint64_t hash; /* of types, channels, payloads and packet ends */
        uint64_t packets;
        int result;
};

static void mix(struct digest *d, const void *p, size_t len)
{
        const uint8_t *b = p;

        for (size_t i = 0; i < len; i++)
                d->hash = (d->hash ^ b[i]) * 0x100000001b3ULL;
}

static void getters(const struct attach_packet *p)
{
        struct attach_hello h;
        uint16_t rows, cols;
        uint32_t bytes;
        uint64_t off;
        int a, b;
        const char *lines;
        size_t n;
        char text[64];

        (void) attach_get_hello(p, &h);
        (void) attach_get_resize(p, &rows, &cols);
        if (attach_get_signal(p, &a) == 0)
                CHECK(a >= 1 && a <= 64);
        (void) attach_get_credit(p, &bytes);
        (void) attach_get_follow(p, &off);
        if (attach_get_exit(p, &a, &b) == 0)
                CHECK(a >= 0 && a <= 255 && b >= 0 && b <= 64);
        if (attach_get_error(p, text, sizeof text) == 0)
                CHECK(memchr(text, 0, sizeof text));
        if (attach_get_log(p, &off, &lines, &n) == 0)
                CHECK(n == p->length - 8 && (const uint8_t *) lines + n == p->payload + p->length);
}

static struct digest run(const uint8_t *data, size_t size, size_t cap, size_t step)
{
        struct digest d = { .hash = 0xcbf29ce484222325ULL };
        uint8_t *buf = malloc(cap);
        struct attach_parser p;
        struct attach_packet pkt;
        bool inside = false;
        size_t at = 0;

        CHECK(buf);
        attach_parser_init(&p, buf, cap);
        while (at < size && d.result >= 0) {
                size_t room, n;
                uint8_t *to = attach_parser_space(&p, &room);

                CHECK(room > 0 && to >= buf && to + room <= buf + cap);
                n = step < room ? step : room;
                n = n < size - at ? n : size - at;
                memcpy(to, data + at, n);
                attach_parser_commit(&p, n);
                at += n;
                while ((d.result = attach_parser_next(&p, &pkt)) == 1) {
                        CHECK(pkt.payload >= buf && pkt.payload + pkt.length <= buf + cap);
                        CHECK(pkt.type > ATTACH_NONE && pkt.type < ATTACH_TYPE_COUNT);
                        CHECK(pkt.left == 0 || pkt.type == ATTACH_DATA);
                        CHECK(pkt.length > 0 || pkt.left == 0);
                        if (!inside) {
                                mix(&d, &pkt.type, 1);
                                mix(&d, &pkt.channel, 1);
                        }
                        mix(&d, pkt.payload, pkt.length);
                        inside = pkt.left > 0;
                        if (!inside) {
                                mix(&d, "|", 1);
                                d.packets++;
                        }
                        getters(&pkt);
                }
        }
        free(buf);
        return d;
}

static void log_parsers(const uint8_t *data, size_t size)
{
        const char *p = (const char *) data;
        struct attach_log_line l;
        uint64_t off;
        int r = attach_log_header_parse(p, size, &off);

        CHECK(r < 0 || ((size_t) r <= size && p[r - 1] == '\n' && off <= INT64_MAX));
        r = attach_log_line_parse(p, size, &l);
        CHECK(r <= 0 ||
              ((size_t) r <= size && p[r - 1] == '\n' && l.text + l.text_len + 1 == p + r));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct digest whole, pieces;
        size_t cap, step;

        if (size < 2)
                return 0;
        cap = ATTACH_PARSER_MIN + data[0] * 8U;
        step = 1U + data[1];
        data += 2;
        size -= 2;
        log_parsers(data, size);
        pieces = run(data, size, cap, step);
        whole = run(data, size, cap, size + 1);
        CHECK(pieces.result == whole.result);
        CHECK(pieces.packets == whole.packets);
        /* A broken stream may show more or less of its last packet before it breaks. */
        if (whole.result >= 0)
                CHECK(pieces.hash == whole.hash);
        return 0;
}
