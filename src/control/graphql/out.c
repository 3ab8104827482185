/* out.c - see out.h.  API program; strings may hold anything. */
#include "control/graphql/out.h"

#include <math.h>
#include <stdio.h>

bool out_grow(struct strbuf *b, size_t more)
{
        size_t need, cap;
        char *s;

        if (b->failed || __builtin_add_overflow(b->len, more, &need) || need >= SIZE_MAX / 4) {
                b->failed = true;
                return false;
        }
        cap = b->cap < 2048 ? 4096 : b->cap * 2;
        if (cap <= need)
                cap = need + 1;
        s = realloc(b->s, cap);
        if (!s) {
                b->failed = true;
                return false;
        }
        b->s = s;
        b->cap = cap;
        return true;
}

static const char two_digits[] = "00010203040506070809101112131415161718192021222324"
                                 "25262728293031323334353637383940414243444546474849"
                                 "50515253545556575859606162636465666768697071727374"
                                 "75767778798081828384858687888990919293949596979899";

void out_u64(struct strbuf *b, uint64_t v)
{
        char buf[20], *p = buf + sizeof buf;

        while (v >= 100) {
                p -= 2;
                memcpy(p, two_digits + v % 100 * 2, 2);
                v /= 100;
        }
        if (v >= 10) {
                p -= 2;
                memcpy(p, two_digits + v * 2, 2);
        } else {
                *--p = (char) ('0' + v);
        }
        out_raw(b, p, (size_t) (buf + sizeof buf - p));
}

void out_int(struct strbuf *b, int64_t v)
{
        if (v < 0)
                out_char(b, '-');
        out_u64(b, v < 0 ? 0 - (uint64_t) v : (uint64_t) v);
}

/* Prices have a few decimals: n / 10^6 with a whole n is exact in both directions, because the
 * division is rounded as reading the text would be. */
static bool out_short(struct strbuf *b, double v)
{
        double scaled = v * 1e6, n = nearbyint(scaled);
        uint64_t whole, rest;
        char frac[7];
        size_t len = 6;

        if (!(fabs(n) < 9007199254740992.0) || n / 1e6 != v)
                return false;
        if (n < 0)
                out_char(b, '-');
        whole = (uint64_t) fabs(n) / 1000000;
        rest = (uint64_t) fabs(n) % 1000000;
        out_u64(b, whole);
        if (rest == 0)
                return true;
        frac[0] = '.';
        for (size_t i = 6; i > 0; i--) {
                frac[i] = (char) ('0' + rest % 10);
                rest /= 10;
        }
        while (frac[len] == '0')
                len--;
        out_raw(b, frac, len + 1);
        return true;
}

void out_num(struct strbuf *b, double v)
{
        char buf[40];
        int n = 0;

        if (!isfinite(v)) {
                OUT_LITERAL(b, "null");
                return;
        }
        if (out_short(b, v))
                return;
        for (int digits = 15; digits <= 17; digits++) {
                n = snprintf(buf, sizeof buf, "%.*g", digits, v);
                if (strtod(buf, NULL) == v)
                        break;
        }
        if (n > 0)
                out_raw(b, buf, (size_t) n);
}

/* Length of the valid UTF-8 sequence at @p, 0 when there is none. */
static size_t utf8_sequence(const unsigned char *p, size_t left)
{
        size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
        uint32_t v = p[0] & (0x7fU >> n);

        if (p[0] < 0xc2 || p[0] > 0xf4 || left < n)
                return 0;
        for (size_t i = 1; i < n; i++) {
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
                v = v << 6 | (p[i] & 0x3f);
        }
        if ((n == 3 && v < 0x800) || (n == 4 && (v < 0x10000 || v > 0x10ffff)) ||
            (v >= 0xd800 && v <= 0xdfff))
                return 0;
        return n;
}

/* One byte that JSON cannot take as it is.  Returns how many source bytes it stood for. */
static size_t out_special(struct strbuf *b, const unsigned char *p, size_t left)
{
        static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
        const char *at;
        size_t n;

        if (*p >= 0x80) {
                n = utf8_sequence(p, left);
                if (n == 0)
                        OUT_LITERAL(b, "\xef\xbf\xbd");
                else
                        out_raw(b, (const char *) p, n);
                return n == 0 ? 1 : n;
        }
        at = *p ? strchr(from, (char) *p) : NULL;
        if (at) {
                out_char(b, '\\');
                out_char(b, to[at - from]);
        } else {
                char hex[8];

                (void) snprintf(hex, sizeof hex, "\\u%04x", *p);
                out_raw(b, hex, 6);
        }
        return 1;
}

#define EACH(byte) (0x0101010101010101ULL * (byte))

/* Whether one of eight bytes needs a look: below 0x20, above 0x7f, '"' or '\\'. */
static bool any_special(uint64_t w)
{
        uint64_t quote = w ^ EACH('"'), slash = w ^ EACH('\\');

        return ((w | (w - EACH(0x20)) | ((quote - EACH(1)) & ~quote) |
                 ((slash - EACH(1)) & ~slash)) &
                EACH(0x80)) != 0;
}

static bool is_special(unsigned char c)
{
        return c < 0x20 || c >= 0x80 || c == '"' || c == '\\';
}

/* Copy up to the first special byte; there is room for @len bytes. */
static size_t copy_plain(char *to, const char *from, size_t len)
{
        size_t n = 0;
        uint64_t w;

        for (; len - n >= 8; n += 8) {
                memcpy(&w, from + n, 8);
                if (any_special(w))
                        break;
                memcpy(to + n, &w, 8);
        }
        for (; n < len && !is_special((unsigned char) from[n]); n++)
                to[n] = from[n];
        return n;
}

void out_str(struct strbuf *b, const char *s, size_t len)
{
        out_char(b, '"');
        for (;;) {
                size_t n;

                if (!out_room(b, len + 1))
                        return;
                n = copy_plain(b->s + b->len, s, len);
                b->len += n;
                s += n;
                len -= n;
                if (len == 0)
                        break;
                n = out_special(b, (const unsigned char *) s, len);
                s += n;
                len -= n;
        }
        out_char(b, '"');
}
