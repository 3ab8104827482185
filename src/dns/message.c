/* message.c - see message.h.  vmm-dns, and its fuzz target. */
#include "dns/message.h"

#include <errno.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

#define FLAG_ANSWER     0x80U /* third byte of a message */
#define FLAG_OPCODE     0x78U
#define FLAG_AUTHORITY  0x04U
#define FLAG_TRUNCATED  0x02U
#define FLAG_WANTED     0x01U /* recursion desired: goes back as it came */
#define FLAG_RECURSION  0x80U /* fourth byte */
#define CLASS_IN        1U
#define LABEL_MAX       63U
#define POINTER_TO_NAME 0xC00CU /* the question's name, right behind the header */

static uint16_t get16(const uint8_t *p)
{
        return (uint16_t) (p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, unsigned v)
{
        p[0] = (uint8_t) (v >> 8);
        p[1] = (uint8_t) v;
}

static bool is_plain(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* The name at @at; returns where it ends, 0: it does not, or is compressed. */
static size_t parse_name(const uint8_t *msg, size_t len, size_t at, struct dns_question *q)
{
        size_t n = 0;

        q->plain = true;
        while (at < len && msg[at]) {
                size_t label = msg[at++];

                if (label > LABEL_MAX || label > len - at || n + label + 2 > DNS_NAME_TEXT)
                        return 0;
                if (n)
                        q->name[n++] = '.';
                for (; label; label--) {
                        char c = (char) msg[at++];

                        c = c >= 'A' && c <= 'Z' ? (char) (c | 0x20) : c;
                        q->plain = q->plain && is_plain(c);
                        q->name[n++] = is_plain(c) ? c : '?';
                }
        }
        q->name[n] = '\0';
        return at < len ? at + 1 : 0;
}

int dns_question_parse(const uint8_t *msg, size_t len, struct dns_question *ret)
{
        struct dns_question q = { .type = 0 };
        size_t at;

        if (len < DNS_HEADER || len > DNS_MESSAGE || (msg[2] & FLAG_ANSWER))
                return -EBADMSG;
        if (msg[2] & FLAG_OPCODE)
                return DNS_NOTIMP;
        if (get16(msg + 4) != 1) /* questions */
                return DNS_FORMERR;
        at = parse_name(msg, len, DNS_HEADER, &q);
        if (!at || len - at < 4)
                return DNS_FORMERR;
        q.type = get16(msg + at);
        if (get16(msg + at + 2) != CLASS_IN)
                return DNS_NOTIMP;
        q.end = at + 4;
        *ret = q;
        return 0;
}

size_t dns_answer_begin(uint8_t *to, const uint8_t *msg, size_t end, enum dns_rcode rcode)
{
        memcpy(to, msg, end);
        to[2] = (uint8_t) (FLAG_ANSWER | FLAG_AUTHORITY | (msg[2] & (FLAG_OPCODE | FLAG_WANTED)));
        to[3] = (uint8_t) (FLAG_RECURSION | rcode);
        memset(to + 4, 0, DNS_HEADER - 4);
        put16(to + 4, end > DNS_HEADER ? 1 : 0);
        return end;
}

size_t dns_answer_add(uint8_t *to, size_t len, size_t size, enum dns_type type, uint32_t ttl_s,
                      const void *data, uint16_t data_len)
{
        uint8_t *p = to + len;

        if (size < len || size - len < 12U + data_len) {
                to[2] |= FLAG_TRUNCATED;
                return len;
        }
        put16(p, POINTER_TO_NAME);
        put16(p + 2, type);
        put16(p + 4, CLASS_IN);
        put16(p + 6, ttl_s >> 16);
        put16(p + 8, ttl_s & 0xFFFF);
        put16(p + 10, data_len);
        memcpy(p + 12, data, data_len);
        put16(to + 6, get16(to + 6) + 1U);
        return len + 12 + data_len;
}

size_t dns_name_encode(const char *name, uint8_t *to, size_t size)
{
        size_t n = 0;

        while (*name) {
                size_t label = strcspn(name, ".");

                if (label == 0 || label > LABEL_MAX || size - n < label + 2)
                        return 0;
                to[n++] = (uint8_t) label;
                memcpy(to + n, name, label);
                n += label;
                name += label + (name[label] == '.');
        }
        if (n >= size)
                return 0;
        to[n++] = 0;
        return n;
}

bool dns_answers(const uint8_t *answer, size_t len, const uint8_t *query, size_t end)
{
        return len >= end && end >= DNS_HEADER && memcmp(answer, query, 2) == 0 &&
               (answer[2] & FLAG_ANSWER) && get16(answer + 4) == 1 &&
               memcmp(answer + DNS_HEADER, query + DNS_HEADER, end - DNS_HEADER) == 0;
}

int dns_reverse4(const char *name, uint32_t *ret)
{
        uint32_t addr = 0;

        for (unsigned i = 0; i < 4; i++) {
                size_t n = strcspn(name, ".");
                char digits[4];
                uint64_t byte;

                if (n == 0 || n >= sizeof digits || name[n] != '.')
                        return -EINVAL;
                memcpy(digits, name, n);
                digits[n] = '\0';
                if (str_u64(digits, 0, 255, &byte) < 0)
                        return -EINVAL;
                addr |= (uint32_t) byte << (8 * i);
                name += n + 1;
        }
        if (!str_eq(name, "in-addr.arpa"))
                return -EINVAL;
        *ret = addr;
        return 0;
}
