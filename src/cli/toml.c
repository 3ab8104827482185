/* toml.c - see toml.h.  Runs in tensoronecli; the file is the user's own. */
#include "cli/toml.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

/* One line [@s, @s + @len) without its line break. */
struct line {
        const char *s;
        size_t len;
};

static const char *next_line(const char *p, struct line *ret)
{
        size_t n = strcspn(p, "\n");

        ret->s = p;
        ret->len = n > 0 && p[n - 1] == '\r' ? n - 1 : n;
        return p[n] ? p + n + 1 : p + n;
}

static const char *skip_blanks(const char *p, const char *end)
{
        while (p < end && (*p == ' ' || *p == '\t'))
                p++;
        return p;
}

/* What follows "key =" in @l, or NULL; the key may be quoted. */
static const char *value_of(const struct line *l, const char *key)
{
        const char *end = l->s + l->len, *p = skip_blanks(l->s, end);
        size_t n = strlen(key);
        char quote = p < end && (*p == '"' || *p == '\'') ? *p : '\0';

        p += quote != '\0';
        if ((size_t) (end - p) < n || strncmp(p, key, n) != 0)
                return NULL;
        p += n;
        if (quote && (p >= end || *p++ != quote))
                return NULL;
        p = skip_blanks(p, end);
        return p < end && *p == '=' ? skip_blanks(p + 1, end) : NULL;
}

static bool is_table(const struct line *l)
{
        const char *p = skip_blanks(l->s, l->s + l->len);

        return p < l->s + l->len && *p == '[';
}

static void add_utf8(struct strbuf *b, unsigned long cp)
{
        if (cp < 0x80) {
                strbuf_char(b, (char) cp);
        } else if (cp < 0x800) {
                strbuf_char(b, (char) (0xc0 | cp >> 6));
                strbuf_char(b, (char) (0x80 | (cp & 0x3f)));
        } else if (cp < 0x10000) {
                strbuf_char(b, (char) (0xe0 | cp >> 12));
                strbuf_char(b, (char) (0x80 | (cp >> 6 & 0x3f)));
                strbuf_char(b, (char) (0x80 | (cp & 0x3f)));
        } else {
                strbuf_char(b, (char) (0xf0 | cp >> 18));
                strbuf_char(b, (char) (0x80 | (cp >> 12 & 0x3f)));
                strbuf_char(b, (char) (0x80 | (cp >> 6 & 0x3f)));
                strbuf_char(b, (char) (0x80 | (cp & 0x3f)));
        }
}

static int hex_digit(char c)
{
        const char *digits = "0123456789abcdef", *at;

        at = c ? strchr(digits, c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c) : NULL;
        return at ? (int) (at - digits) : -1;
}

/* \uXXXX or \UXXXXXXXX; @p stands on the u.  Returns the last byte read, or NULL. */
static const char *unescape_unicode(const char *p, const char *end, struct strbuf *b)
{
        int n = *p == 'u' ? 4 : 8;
        unsigned long cp = 0;

        for (int i = 0; i < n; i++) {
                int d = ++p < end ? hex_digit(*p) : -1;

                if (d < 0)
                        return NULL;
                cp = cp << 4 | (unsigned long) d;
        }
        if (cp == 0 || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
                return NULL;
        add_utf8(b, cp);
        return p;
}

/* A basic ("...") or literal ('...') string that fills the line but for a comment. */
static int read_string(const char *p, const char *end, struct strbuf *b)
{
        static const char from[] = "\"\\bfnrt", to[] = "\"\\\b\f\n\r\t";
        char quote = p < end ? *p++ : '\0';

        if (quote != '"' && quote != '\'')
                return -EINVAL;
        for (; p < end && *p != quote; p++) {
                const char *at;

                if (quote == '\'' || *p != '\\') {
                        strbuf_char(b, *p);
                        continue;
                }
                if (++p >= end)
                        return -EINVAL;
                if (*p == 'u' || *p == 'U') {
                        p = unescape_unicode(p, end, b);
                        if (!p)
                                return -EINVAL;
                        continue;
                }
                at = strchr(from, *p);
                if (!*p || !at)
                        return -EINVAL;
                strbuf_char(b, to[at - from]);
        }
        if (p >= end)
                return -EINVAL;
        p = skip_blanks(p + 1, end);
        return p == end || *p == '#' ? 0 : -EINVAL;
}

int toml_get(const char *text, const char *key, char **ret, struct err *e)
{
        struct line l;
        unsigned n = 0;

        for (const char *p = text; p && *p;) {
                AUTO(strbuf_done) struct strbuf b = { 0 };
                const char *v;

                p = next_line(p, &l);
                n++;
                if (is_table(&l))
                        break;
                v = value_of(&l, key);
                if (!v)
                        continue;
                if (read_string(v, l.s + l.len, &b) < 0)
                        return err_set(e, -EINVAL, "line %u: %s must be a string in quotes", n,
                                       key);
                *ret = strbuf_take(&b);
                return *ret ? 0 : err_set(e, -ENOMEM, "out of memory");
        }
        return 0;
}

static void add_entry(struct strbuf *b, const char *key, const char *value)
{
        strbuf_fmt(b, "%s = \"", key);
        for (const unsigned char *p = (const unsigned char *) value; *p; p++) {
                if (*p == '"' || *p == '\\')
                        strbuf_char(b, '\\');
                if (*p < 0x20 || *p == 0x7f)
                        strbuf_fmt(b, "\\u%04X", *p);
                else
                        strbuf_char(b, (char) *p);
        }
        strbuf_str(b, "\"\n");
}

int toml_set(const char *text, const char *key, const char *value, char **ret)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        bool done = false, in_table = false;
        struct line l;

        for (const char *p = text; p && *p;) {
                p = next_line(p, &l);
                if (!done && !in_table && is_table(&l)) {
                        add_entry(&b, key, value); /* must stand before the first table */
                        done = true;
                }
                in_table = in_table || is_table(&l);
                if (!in_table && value_of(&l, key)) {
                        if (!done)
                                add_entry(&b, key, value);
                        done = true;
                        continue;
                }
                strbuf_add(&b, l.s, l.len);
                strbuf_char(&b, '\n');
        }
        if (!done)
                add_entry(&b, key, value);
        *ret = strbuf_take(&b);
        return *ret ? 0 : -ENOMEM;
}
