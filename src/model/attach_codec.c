/* attach_codec.c - see attach_codec.h.
 *
 * Runs in vmm-monitor, engine, API and CLI.  What always holds: nothing is read beyond what was
 * committed, nothing is written beyond the capacity given, and numbers cross by bytes, never by a
 * cast. */
#include "model/attach_codec.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#define HEADER_BYTES 8U
#define ERROR_BYTES  512U
#define SIGNAL_MAX   64

/* What a payload needs at least; DATA, EOF and ERROR may be empty. */
static const struct {
        const char *name;
        uint32_t min;
} types[] = {
        [ATTACH_NONE] = { "none", 0 },     [ATTACH_HELLO] = { "hello", 8 },
        [ATTACH_DATA] = { "data", 0 },     [ATTACH_EOF] = { "eof", 0 },
        [ATTACH_RESIZE] = { "resize", 4 }, [ATTACH_SIGNAL] = { "signal", 4 },
        [ATTACH_FOLLOW] = { "follow", 8 }, [ATTACH_LOG] = { "log", 8 },
        [ATTACH_EXIT] = { "exit", 8 },     [ATTACH_ERROR] = { "error", 0 },
        [ATTACH_CREDIT] = { "credit", 4 }, [ATTACH_LEAVE] = { "leave", 0 },
};
static_assert(NELEM(types) == ATTACH_TYPE_COUNT, "one row per type");

const char *attach_type_name(unsigned type)
{
        return type < NELEM(types) ? types[type].name : "unknown";
}

/* ---- numbers ------------------------------------------------------------------------------- */

static uint32_t get_le(const uint8_t *p, size_t bytes)
{
        uint32_t v = 0;

        for (size_t i = 0; i < bytes; i++)
                v |= (uint32_t) p[i] << (8 * i);
        return v;
}

static uint64_t get_u64(const uint8_t *p)
{
        return get_le(p, 4) | (uint64_t) get_le(p + 4, 4) << 32;
}

static void put_le(uint8_t *p, uint64_t v, size_t bytes)
{
        for (size_t i = 0; i < bytes; i++)
                p[i] = (uint8_t) (v >> (8 * i));
}

/* ---- reading ------------------------------------------------------------------------------- */

void attach_parser_init(struct attach_parser *p, void *buf, size_t cap)
{
        assert(cap >= ATTACH_PARSER_MIN);
        *p = (struct attach_parser){ .buf = buf, .cap = cap };
}

void *attach_parser_space(struct attach_parser *p, size_t *ret_len)
{
        if (p->start > 0) {
                memmove(p->buf, p->buf + p->start, p->end - p->start);
                p->end -= p->start;
                p->start = 0;
        }
        *ret_len = p->cap - p->end;
        return p->buf + p->end;
}

void attach_parser_commit(struct attach_parser *p, size_t len)
{
        assert(len <= p->cap - p->end);
        p->end += len;
}

/* Hand out what is there of a DATA packet of which p->left bytes are still to come. */
static int next_piece(struct attach_parser *p, struct attach_packet *ret)
{
        size_t have = p->end - p->start;
        uint32_t n = have < p->left ? (uint32_t) have : p->left;

        *ret = (struct attach_packet){ .type = ATTACH_DATA,
                                       .channel = p->channel,
                                       .payload = p->buf + p->start,
                                       .length = n,
                                       .left = p->left - n };
        p->start += n;
        p->left -= n;
        return 1;
}

static int parser_break(struct attach_parser *p, int r)
{
        p->broken = r;
        return r;
}

int attach_parser_next(struct attach_parser *p, struct attach_packet *ret)
{
        for (;;) {
                size_t have = p->end - p->start;
                const uint8_t *h = p->buf + p->start;
                uint32_t len;

                if (p->broken < 0)
                        return p->broken;
                if (p->skip > 0) {
                        uint32_t n = have < p->skip ? (uint32_t) have : p->skip;

                        p->start += n;
                        p->skip -= n;
                        if (p->skip > 0)
                                return 0;
                        continue;
                }
                if (p->left > 0)
                        return have > 0 ? next_piece(p, ret) : 0;
                if (have < HEADER_BYTES)
                        return 0;
                len = get_le(h + 4, 4);
                if (h[0] == ATTACH_NONE || h[2] != 0 || h[3] != 0)
                        return parser_break(p, -EPROTO);
                if (len > ATTACH_MAX_PAYLOAD)
                        return parser_break(p, -EMSGSIZE);
                if (h[0] >= ATTACH_TYPE_COUNT) {
                        p->start += HEADER_BYTES;
                        p->skip = len;
                        continue;
                }
                if (len < types[h[0]].min || h[1] > ATTACH_STDERR)
                        return parser_break(p, -EPROTO);
                if (h[0] == ATTACH_DATA && len > p->cap - HEADER_BYTES) {
                        p->channel = h[1];
                        p->left = len;
                        p->start += HEADER_BYTES;
                        continue;
                }
                if (len > p->cap - HEADER_BYTES)
                        return parser_break(p, -EMSGSIZE);
                if (have < HEADER_BYTES + len)
                        return 0;
                *ret = (struct attach_packet){
                        .type = h[0], .channel = h[1], .payload = h + HEADER_BYTES, .length = len
                };
                p->start += HEADER_BYTES + len;
                return 1;
        }
}

static bool is_type(const struct attach_packet *p, enum attach_type type)
{
        return p->type == type && p->length >= types[type].min;
}

int attach_get_hello(const struct attach_packet *p, struct attach_hello *ret)
{
        if (!is_type(p, ATTACH_HELLO))
                return -EPROTO;
        *ret = (struct attach_hello){ .version = get_le(p->payload, 4),
                                      .flags = get_le(p->payload + 4, 4) };
        if (p->length >= 24) {
                ret->log_start = get_u64(p->payload + 8);
                ret->log_end = get_u64(p->payload + 16);
        }
        return 0;
}

int attach_get_resize(const struct attach_packet *p, uint16_t *ret_rows, uint16_t *ret_cols)
{
        if (!is_type(p, ATTACH_RESIZE))
                return -EPROTO;
        *ret_rows = (uint16_t) get_le(p->payload, 2);
        *ret_cols = (uint16_t) get_le(p->payload + 2, 2);
        return 0;
}

int attach_get_signal(const struct attach_packet *p, int *ret_signal)
{
        uint32_t sig;

        if (!is_type(p, ATTACH_SIGNAL))
                return -EPROTO;
        sig = get_le(p->payload, 4);
        if (sig < 1 || sig > SIGNAL_MAX)
                return -EPROTO;
        *ret_signal = (int) sig;
        return 0;
}

int attach_get_credit(const struct attach_packet *p, uint32_t *ret_bytes)
{
        if (!is_type(p, ATTACH_CREDIT))
                return -EPROTO;
        *ret_bytes = get_le(p->payload, 4);
        return 0;
}

int attach_get_follow(const struct attach_packet *p, uint64_t *ret_offset)
{
        if (!is_type(p, ATTACH_FOLLOW))
                return -EPROTO;
        *ret_offset = get_u64(p->payload);
        return 0;
}

int attach_get_log(const struct attach_packet *p, uint64_t *ret_offset, const char **ret_lines,
                   size_t *ret_len)
{
        if (!is_type(p, ATTACH_LOG))
                return -EPROTO;
        *ret_offset = get_u64(p->payload);
        *ret_lines = (const char *) p->payload + 8;
        *ret_len = p->length - 8;
        return 0;
}

int attach_get_exit(const struct attach_packet *p, int *ret_code, int *ret_signal)
{
        uint32_t code, sig;

        if (!is_type(p, ATTACH_EXIT))
                return -EPROTO;
        code = get_le(p->payload, 4);
        sig = get_le(p->payload + 4, 4);
        if (code > 255 || sig > SIGNAL_MAX)
                return -EPROTO;
        *ret_code = (int) code;
        *ret_signal = (int) sig;
        return 0;
}

int attach_get_error(const struct attach_packet *p, char *buf, size_t len)
{
        size_t n;

        if (!is_type(p, ATTACH_ERROR) || len == 0)
                return -EPROTO;
        n = p->length < len - 1 ? p->length : len - 1;
        for (size_t i = 0; i < n; i++)
                buf[i] = p->payload[i] < 0x20 || p->payload[i] == 0x7f ? ' ' : (char) p->payload[i];
        buf[n] = '\0';
        return 0;
}

/* ---- writing ------------------------------------------------------------------------------- */

size_t attach_put_header(void *buf, enum attach_type type, enum attach_channel channel,
                         uint32_t payload_len)
{
        uint8_t *p = buf;

        p[0] = (uint8_t) type;
        p[1] = (uint8_t) channel;
        put_le(p + 2, 0, 2);
        put_le(p + 4, payload_len, 4);
        return HEADER_BYTES;
}

size_t attach_put_log_header(void *buf, uint64_t offset, uint32_t lines_len)
{
        size_t n = attach_put_header(buf, ATTACH_LOG, ATTACH_STDIN, lines_len + 8);

        put_le((uint8_t *) buf + n, offset, 8);
        return n + 8;
}

size_t attach_put(void *buf, size_t cap, enum attach_type type, enum attach_channel channel,
                  const void *payload, size_t len)
{
        if (len > ATTACH_MAX_PAYLOAD || cap < HEADER_BYTES || cap - HEADER_BYTES < len)
                return 0;
        attach_put_header(buf, type, channel, (uint32_t) len);
        if (len > 0)
                memcpy((uint8_t *) buf + HEADER_BYTES, payload, len);
        return HEADER_BYTES + len;
}

/* Two numbers of @bytes each; @bytes 0 leaves one out. */
static size_t put_numbers(void *buf, size_t cap, enum attach_type type, uint64_t a, size_t a_bytes,
                          uint64_t b, size_t b_bytes)
{
        uint8_t v[16];

        put_le(v, a, a_bytes);
        put_le(v + a_bytes, b, b_bytes);
        return attach_put(buf, cap, type, ATTACH_STDIN, v, a_bytes + b_bytes);
}

size_t attach_put_hello(void *buf, size_t cap, const struct attach_hello *h)
{
        uint8_t v[24];

        put_le(v, h->version, 4);
        put_le(v + 4, h->flags, 4);
        put_le(v + 8, h->log_start, 8);
        put_le(v + 16, h->log_end, 8);
        return attach_put(buf, cap, ATTACH_HELLO, ATTACH_STDIN, v, sizeof v);
}

size_t attach_put_eof(void *buf, size_t cap, enum attach_channel channel)
{
        return attach_put(buf, cap, ATTACH_EOF, channel, NULL, 0);
}

size_t attach_put_resize(void *buf, size_t cap, uint16_t rows, uint16_t cols)
{
        return put_numbers(buf, cap, ATTACH_RESIZE, rows, 2, cols, 2);
}

size_t attach_put_signal(void *buf, size_t cap, int sig)
{
        return put_numbers(buf, cap, ATTACH_SIGNAL, (uint32_t) sig, 4, 0, 0);
}

size_t attach_put_credit(void *buf, size_t cap, uint32_t bytes)
{
        return put_numbers(buf, cap, ATTACH_CREDIT, bytes, 4, 0, 0);
}

size_t attach_put_follow(void *buf, size_t cap, uint64_t offset)
{
        return put_numbers(buf, cap, ATTACH_FOLLOW, offset, 8, 0, 0);
}

size_t attach_put_exit(void *buf, size_t cap, int code, int sig)
{
        return put_numbers(buf, cap, ATTACH_EXIT, (uint32_t) code, 4, (uint32_t) sig, 4);
}

size_t attach_put_error(void *buf, size_t cap, const char *sentence)
{
        return attach_put(buf, cap, ATTACH_ERROR, ATTACH_STDIN, sentence,
                          strnlen(sentence, ERROR_BYTES));
}

/* ---- the log ------------------------------------------------------------------------------- */

int attach_log_header_format(char *buf, size_t cap, uint64_t offset)
{
        int n = snprintf(buf, cap, ATTACH_LOG_HEADER "%llu\n", (unsigned long long) offset);

        return n < 0 || (size_t) n >= cap ? -ENOSPC : n;
}

int attach_log_header_parse(const char *text, size_t len, uint64_t *ret_offset)
{
        size_t i = sizeof ATTACH_LOG_HEADER - 1;
        uint64_t v = 0;

        if (len < i + 2 || memcmp(text, ATTACH_LOG_HEADER, i) != 0 || text[i] == '\n')
                return -EPROTO;
        for (; i < len && text[i] >= '0' && text[i] <= '9'; i++) {
                unsigned digit = (unsigned) (text[i] - '0');

                if (v > ((uint64_t) INT64_MAX - digit) / 10)
                        return -EPROTO;
                v = v * 10 + digit;
        }
        if (i == len || text[i] != '\n')
                return -EPROTO;
        *ret_offset = v;
        return (int) i + 1;
}

int attach_log_line_parse(const char *data, size_t len, struct attach_log_line *ret)
{
        static const char *const names[] = {
                [ATTACH_STDOUT] = " stdout ", [ATTACH_STDERR] = " stderr "
        };
        const size_t name_len = 8;
        const char *end = memchr(data, '\n', len < ATTACH_LOG_LINE ? len : ATTACH_LOG_LINE);
        const char *sp;
        size_t line;

        if (!end)
                return len < ATTACH_LOG_LINE ? 0 : -EPROTO;
        line = (size_t) (end - data);
        sp = memchr(data, ' ', line);
        if (!sp || sp == data || (size_t) (end - sp) < name_len + 2)
                return -EPROTO;
        if ((sp[name_len] != 'F' && sp[name_len] != 'P') || sp[name_len + 1] != ' ')
                return -EPROTO;
        for (enum attach_channel c = ATTACH_STDOUT; c <= ATTACH_STDERR; c++) {
                if (memcmp(sp, names[c], name_len) != 0)
                        continue;
                *ret = (struct attach_log_line){ .stamp = data,
                                                 .stamp_len = (size_t) (sp - data),
                                                 .channel = c,
                                                 .whole = sp[name_len] == 'F',
                                                 .text = sp + name_len + 2 };
                ret->text_len = (size_t) (end - ret->text);
                return (int) line + 1;
        }
        return -EPROTO;
}
