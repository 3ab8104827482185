/* lex.c - see lex.h.  API program; every byte here comes from a stranger.
 *
 * Commas, blanks, line ends and a byte order mark mean nothing, so lists, fields and arguments may
 * be written with or without commas.  Every byte is looked at a constant number of times. */
#include "control/graphql/lex.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#define PARSE_FAILED "GRAPHQL_PARSE_FAILED"

int fault_set(struct gql_fault *f, int r, const char *code, uint32_t off, const char *fmt, ...)
{
        va_list ap;

        f->code = code;
        f->off = off;
        f->err.code = r;
        va_start(ap, fmt);
        (void) vsnprintf(f->err.msg, sizeof f->err.msg, fmt, ap);
        va_end(ap);
        return r;
}

void lex_position(const char *src, uint32_t len, uint32_t off, uint32_t *ret_line,
                  uint32_t *ret_column)
{
        uint32_t line = 1, start = 0;

        for (uint32_t i = 0; i < off && i < len; i++) {
                if (src[i] == '\n' || (src[i] == '\r' && !(i + 1 < len && src[i + 1] == '\n'))) {
                        line++;
                        start = i + 1;
                }
        }
        *ret_line = line;
        *ret_column = off - start + 1;
}

static bool name_start(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool digit(char c)
{
        return c >= '0' && c <= '9';
}

static int hex(char c)
{
        if (digit(c))
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        if (c >= 'A' && c <= 'F')
                return c - 'A' + 10;
        return -1;
}

/* Skip what means nothing; a comment ends with its line. */
static void skip_blank(struct lexer *l)
{
        while (l->pos < l->len) {
                char c = l->src[l->pos];

                if (c == ' ' || c == ',' || c == '\n' || c == '\t' || c == '\r') {
                        l->pos++;
                } else if (c == '#') {
                        while (l->pos < l->len && l->src[l->pos] != '\n' && l->src[l->pos] != '\r')
                                l->pos++;
                } else if (c == '\xef' && l->len - l->pos >= 3 &&
                           memcmp(l->src + l->pos, "\xef\xbb\xbf", 3) == 0) {
                        l->pos += 3;
                } else {
                        break;
                }
        }
}

static uint32_t skip_digits(const struct lexer *l, uint32_t p)
{
        while (p < l->len && digit(l->src[p]))
                p++;
        return p;
}

static int bad_number(const struct lexer *l, uint32_t p, struct gql_fault *f)
{
        if (p >= l->len)
                return fault_set(f, -EINVAL, PARSE_FAILED, p, "a number ends in the middle");
        return fault_set(f, -EINVAL, PARSE_FAILED, p, "a number cannot go on like this");
}

static int lex_number(struct lexer *l, struct token *t, struct gql_fault *f)
{
        uint32_t start = l->pos, p = start, q;

        t->kind = TOK_INT;
        if (l->src[p] == '-')
                p++;
        q = skip_digits(l, p);
        if (q == p || (l->src[p] == '0' && q - p > 1))
                return bad_number(l, q == p ? p : p + 1, f);
        p = q;
        if (p < l->len && l->src[p] == '.') {
                t->kind = TOK_FLOAT;
                q = skip_digits(l, p + 1);
                if (q == p + 1)
                        return bad_number(l, q, f);
                p = q;
        }
        if (p < l->len && (l->src[p] == 'e' || l->src[p] == 'E')) {
                t->kind = TOK_FLOAT;
                p++;
                if (p < l->len && (l->src[p] == '+' || l->src[p] == '-'))
                        p++;
                q = skip_digits(l, p);
                if (q == p)
                        return bad_number(l, q, f);
                p = q;
        }
        if (p < l->len && (name_start(l->src[p]) || l->src[p] == '.'))
                return bad_number(l, p, f);
        t->at = (struct slice){ start, p - start };
        l->pos = p;
        return 0;
}

/* One code unit behind "\u": XXXX or {X...}.  Returns the length read, 0 when malformed. */
static uint32_t unicode_escape(const char *p, uint32_t left, uint32_t *ret)
{
        uint32_t v = 0, n = 0;

        if (left > 0 && p[0] == '{') {
                for (n = 1; n < left && hex(p[n]) >= 0 && v <= 0x10ffff; n++)
                        v = v * 16 + (uint32_t) hex(p[n]);
                *ret = v;
                if (n == 1 || n >= left || p[n] != '}' || v > 0x10ffff ||
                    (v >= 0xd800 && v <= 0xdfff))
                        return 0;
                return n + 1;
        }
        for (n = 0; n < 4; n++) {
                if (n >= left || hex(p[n]) < 0)
                        return 0;
                v = v * 16 + (uint32_t) hex(p[n]);
        }
        *ret = v;
        return 4;
}

/* Read one escape at p ("\..."), give the character it stands for and return its length; 0 when
 * it is malformed.  A high surrogate takes the low one that must follow. */
static uint32_t escape(const char *p, uint32_t left, uint32_t *ret)
{
        static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
        const char *at;
        uint32_t n, m, low;

        if (left < 2 || p[1] == '\0')
                return 0;
        at = strchr(from, p[1]);
        if (at) {
                *ret = (unsigned char) to[at - from];
                return 2;
        }
        if (p[1] != 'u')
                return 0;
        n = unicode_escape(p + 2, left - 2, ret);
        if (n == 0 || *ret < 0xd800 || *ret > 0xdfff)
                return n == 0 ? 0 : n + 2;
        if (*ret > 0xdbff || left < n + 4 || p[n + 2] != '\\' || p[n + 3] != 'u')
                return 0;
        m = unicode_escape(p + n + 4, left - n - 4, &low);
        if (m == 0 || low < 0xdc00 || low > 0xdfff)
                return 0;
        *ret = 0x10000 + ((*ret - 0xd800) << 10) + (low - 0xdc00);
        return n + m + 4;
}

static int lex_string(struct lexer *l, struct token *t, struct gql_fault *f)
{
        uint32_t start = l->pos, p = start + 1;

        while (p < l->len && l->src[p] != '"') {
                unsigned char c = (unsigned char) l->src[p];
                uint32_t n = 1, v = 1;

                if (c == '\n' || c == '\r')
                        break;
                if (c < 0x20 && c != '\t')
                        return fault_set(
                                f, -EINVAL, PARSE_FAILED, p,
                                "a string holds the control character 0x%02x: write \\u%04x", c, c);
                if (c == '\\')
                        n = escape(l->src + p, l->len - p, &v);
                if (n == 0)
                        return fault_set(f, -EINVAL, PARSE_FAILED, p,
                                         "a string holds an escape that does not exist");
                if (v == 0)
                        return fault_set(f, -EINVAL, PARSE_FAILED, p,
                                         "a string holds the character NUL");
                p += n;
        }
        if (p >= l->len || l->src[p] != '"')
                return fault_set(f, -EINVAL, PARSE_FAILED, start,
                                 "a string is not closed on its line");
        t->kind = TOK_STRING;
        t->at = (struct slice){ start, p + 1 - start };
        l->pos = p + 1;
        return 0;
}

static int lex_block(struct lexer *l, struct token *t, struct gql_fault *f)
{
        uint32_t start = l->pos, p = start + 3;

        for (; l->len - p >= 3; p++) {
                const char *s = l->src + p;

                if (*s == '\0')
                        return fault_set(f, -EINVAL, PARSE_FAILED, p,
                                         "a block string holds the character NUL");
                if (*s == '\\' && l->len - p >= 4 && memcmp(s + 1, "\"\"\"", 3) == 0) {
                        p += 3;
                } else if (memcmp(s, "\"\"\"", 3) == 0) {
                        t->kind = TOK_BLOCK;
                        t->at = (struct slice){ start, p + 3 - start };
                        l->pos = p + 3;
                        return 0;
                }
        }
        return fault_set(f, -EINVAL, PARSE_FAILED, start, "a block string is not closed");
}

static int lex_other(struct lexer *l, struct token *t, struct gql_fault *f)
{
        unsigned char c = (unsigned char) l->src[l->pos];

        t->kind = TOK_PUNCT;
        t->punct = (char) c;
        if (c != 0 && strchr("!$&():=@[]{|}", c)) {
                t->at = (struct slice){ l->pos++, 1 };
                return 0;
        }
        if (l->len - l->pos >= 3 && memcmp(l->src + l->pos, "...", 3) == 0) {
                t->at = (struct slice){ l->pos, 3 };
                l->pos += 3;
                return 0;
        }
        if (c > 0x20 && c < 0x7f)
                return fault_set(f, -EINVAL, PARSE_FAILED, l->pos, "unexpected character '%c'", c);
        return fault_set(f, -EINVAL, PARSE_FAILED, l->pos, "unexpected byte 0x%02x", c);
}

int lex_next(struct lexer *l, struct token *t, struct gql_fault *f)
{
        char c;

        skip_blank(l);
        *t = (struct token){ .kind = TOK_EOF, .at = { l->pos, 0 } };
        if (l->pos >= l->len)
                return 0;
        if (l->max_tokens && ++l->tokens > l->max_tokens)
                return fault_set(f, -E2BIG, PARSE_FAILED, l->pos, "query: more than %u tokens",
                                 l->max_tokens);
        c = l->src[l->pos];
        if (name_start(c)) {
                uint32_t p = l->pos + 1;

                while (p < l->len && (name_start(l->src[p]) || digit(l->src[p])))
                        p++;
                t->kind = TOK_NAME;
                t->at = (struct slice){ l->pos, p - l->pos };
                l->pos = p;
                return 0;
        }
        if (digit(c) || c == '-')
                return lex_number(l, t, f);
        if (c == '"')
                return l->len - l->pos >= 3 && memcmp(l->src + l->pos, "\"\"\"", 3) == 0
                               ? lex_block(l, t, f)
                               : lex_string(l, t, f);
        return lex_other(l, t, f);
}

static void add_utf8(struct strbuf *out, uint32_t v)
{
        char b[4];
        size_t n;

        if (v < 0x80) {
                b[0] = (char) v;
                n = 1;
        } else if (v < 0x800) {
                b[0] = (char) (0xc0 | (v >> 6));
                b[1] = (char) (0x80 | (v & 0x3f));
                n = 2;
        } else if (v < 0x10000) {
                b[0] = (char) (0xe0 | (v >> 12));
                b[1] = (char) (0x80 | ((v >> 6) & 0x3f));
                b[2] = (char) (0x80 | (v & 0x3f));
                n = 3;
        } else {
                b[0] = (char) (0xf0 | (v >> 18));
                b[1] = (char) (0x80 | ((v >> 12) & 0x3f));
                b[2] = (char) (0x80 | ((v >> 6) & 0x3f));
                b[3] = (char) (0x80 | (v & 0x3f));
                n = 4;
        }
        strbuf_add(out, b, n);
}

static void unquote_plain(const char *p, const char *end, struct strbuf *out)
{
        while (p < end) {
                const char *q = memchr(p, '\\', (size_t) (end - p));
                uint32_t v = 0, n;

                strbuf_add(out, p, (size_t) ((q ? q : end) - p));
                if (!q)
                        return;
                n = escape(q, (uint32_t) (end - q), &v);
                if (n == 0)
                        return; /* the lexer has refused such a string */
                add_utf8(out, v);
                p = q + n;
        }
}

/* The end of the line that begins at @p, and where the next one begins. */
static const char *line_end(const char *p, const char *end, const char **next)
{
        while (p < end && *p != '\n' && *p != '\r')
                p++;
        *next = p < end ? p + (*p == '\r' && p + 1 < end && p[1] == '\n' ? 2 : 1) : end;
        return p;
}

static size_t indent_of(const char *p, const char *end)
{
        const char *q = p;

        while (q < end && (*q == ' ' || *q == '\t'))
                q++;
        return (size_t) (q - p);
}

/* Block strings lose the indentation that all lines but the first share, and blank lines at both
 * ends. */
static void unquote_block(const char *start, const char *end, struct strbuf *out)
{
        size_t common = SIZE_MAX, keep = out->len;
        const char *p, *next;
        bool any = false;

        for (p = start; p < end; p = next) {
                const char *stop = line_end(p, end, &next);
                size_t n = indent_of(p, stop);

                if (p != start && p + n < stop && n < common)
                        common = n;
        }
        for (p = start; p < end; p = next) {
                const char *stop = line_end(p, end, &next);
                size_t n = indent_of(p, stop), cut = p == start ? 0 : n < common ? n : common;
                bool blank = p + n == stop;

                if (blank && !any)
                        continue;
                if (any)
                        strbuf_char(out, '\n');
                any = true;
                for (p += cut; p < stop; p++) {
                        if (*p == '\\' && stop - p >= 4 && memcmp(p + 1, "\"\"\"", 3) == 0)
                                p++;
                        strbuf_char(out, *p);
                }
                if (!blank)
                        keep = out->len;
        }
        if (!out->failed && out->s && out->len > keep) {
                out->len = keep;
                out->s[keep] = '\0';
        }
}

void lex_unquote(const char *src, struct slice at, bool block, struct strbuf *out)
{
        uint32_t quotes = block ? 3 : 1;
        const char *p = src + at.off + quotes, *end = src + at.off + at.len - quotes;

        if (block)
                unquote_block(p, end, out);
        else
                unquote_plain(p, end, out);
}
