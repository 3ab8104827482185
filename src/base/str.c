/* str.c - see str.h.  Pure memory; any program, any thread. */
#include "base/str.h"

#include <errno.h>
#include <stdio.h>

char *str_fmt(const char *fmt, ...)
{
        struct strbuf b = { 0 };
        va_list ap;

        va_start(ap, fmt);
        strbuf_vfmt(&b, fmt, ap);
        va_end(ap);
        return strbuf_take(&b);
}

void str_tame(char *s, char with)
{
        for (; *s; s++) {
                const unsigned char *u = (const unsigned char *) s;

                if (u[0] < 0x20 || u[0] == 0x7f)
                        *s = with;
                if (u[0] == 0xc2 && u[1] >= 0x80 && u[1] < 0xa0) {
                        *s++ = with;
                        *s = with;
                }
        }
}

char *str_dup(const char *s)
{
        return s ? strdup(s) : NULL;
}

const char *str_after(const char *s, const char *prefix)
{
        size_t n = strlen(prefix);

        return s && strncmp(s, prefix, n) == 0 ? s + n : NULL;
}

int str_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret)
{
        uint64_t v = 0;

        if (str_empty(s))
                return -EINVAL;
        for (; *s; s++) {
                if (*s < '0' || *s > '9')
                        return -EINVAL;
                if (__builtin_mul_overflow(v, 10, &v) ||
                    __builtin_add_overflow(v, (uint64_t) (*s - '0'), &v))
                        return -ERANGE;
        }
        if (v < min || v > max)
                return -ERANGE;
        *ret = v;
        return 0;
}

static int digit_of(char c, unsigned base)
{
        int d = -1;

        if (c >= '0' && c <= '9')
                d = c - '0';
        else if (c >= 'a' && c <= 'f')
                d = c - 'a' + 10;
        else if (c >= 'A' && c <= 'F')
                d = c - 'A' + 10;
        return d < (int) base ? d : -1;
}

int str_u64_prefix(const char *s, unsigned base, uint64_t *ret)
{
        uint64_t v = 0;
        int d;

        s += strspn(s, " \t");
        if (digit_of(*s, base) < 0)
                return -EINVAL;
        for (; (d = digit_of(*s, base)) >= 0; s++)
                if (__builtin_mul_overflow(v, base, &v) ||
                    __builtin_add_overflow(v, (uint64_t) d, &v))
                        return -ERANGE;
        *ret = v;
        return 0;
}

/* Digits, then one of the suffixes in @unit (the first row stands for no suffix). */
struct unit {
        const char *suffix;
        uint64_t factor;
};

static int scaled(const char *s, const struct unit *unit, size_t n_units, uint64_t *ret)
{
        char digits[24];
        uint64_t v;
        size_t n;
        int r;

        if (!s)
                return -EINVAL;
        n = strspn(s, "0123456789");
        if (n == 0 || n >= sizeof digits)
                return n == 0 ? -EINVAL : -ERANGE;
        memcpy(digits, s, n);
        digits[n] = '\0';
        r = str_u64(digits, 0, UINT64_MAX, &v);
        if (r < 0)
                return r;
        for (size_t i = 0; i < n_units; i++) {
                if (strcmp(s + n, unit[i].suffix) != 0)
                        continue;
                if (__builtin_mul_overflow(v, unit[i].factor, &v))
                        return -ERANGE;
                *ret = v;
                return 0;
        }
        return -EINVAL;
}

int str_duration_us(const char *s, uint64_t *ret)
{
        static const struct unit units[] = {
                { "", 1000000 },
                { "ms", 1000 },
                { "s", 1000000 },
                { "m", 60 * 1000000ULL },
                { "h", 3600 * 1000000ULL },
                { "d", 86400 * 1000000ULL },
        };

        return scaled(s, units, NELEM(units), ret);
}

int str_bytes(const char *s, uint64_t *ret)
{
        static const struct unit units[] = {
                { "", 1 },           { "K", 1ULL << 10 }, { "M", 1ULL << 20 },
                { "G", 1ULL << 30 }, { "T", 1ULL << 40 },
        };

        return scaled(s, units, NELEM(units), ret);
}

char **strv_free(char **v)
{
        for (size_t i = 0; v && v[i]; i++)
                free(v[i]);
        free(v);
        return NULL;
}

bool strv_has(char *const *v, const char *s)
{
        for (; v && *v; v++)
                if (str_eq(*v, s))
                        return true;
        return false;
}

size_t strv_len(char *const *v)
{
        size_t n = 0;

        while (v && v[n])
                n++;
        return n;
}

static int strv_take(char ***v, char *s)
{
        size_t n = strv_len(*v);
        char **grown;

        if (!s)
                return -ENOMEM;
        grown = realloc(*v, (n + 2) * sizeof *grown);
        if (!grown) {
                free(s);
                return -ENOMEM;
        }
        grown[n] = s;
        grown[n + 1] = NULL;
        *v = grown;
        return 0;
}

int strv_push(char ***v, const char *s)
{
        return strv_take(v, strdup(s));
}

char **strv_dup(char *const *v)
{
        AUTO(strv_free) char **copy = calloc(1, sizeof *copy);

        if (!copy)
                return NULL;
        for (size_t i = 0; v && v[i]; i++)
                if (strv_push(&copy, v[i]) < 0)
                        return NULL;
        return TAKE(copy);
}

/* One word from @p; returns the first byte behind it, or NULL inside an open quote. */
static const char *shell_word(const char *p, struct strbuf *word)
{
        char quote = '\0';

        for (; *p; p++) {
                if (quote == '\'') {
                        if (*p == '\'')
                                quote = '\0';
                        else
                                strbuf_char(word, *p);
                } else if (quote == '"') {
                        if (*p == '"')
                                quote = '\0';
                        else if (*p == '\\' && p[1] && strchr("\"\\$`\n", p[1])) {
                                if (*++p != '\n')
                                        strbuf_char(word, *p);
                        } else
                                strbuf_char(word, *p);
                } else if (*p == '\'' || *p == '"') {
                        quote = *p;
                } else if (*p == '\\' && p[1]) {
                        if (*++p != '\n')
                                strbuf_char(word, *p);
                } else if (strchr(" \t\r\n", *p)) {
                        break;
                } else {
                        strbuf_char(word, *p);
                }
        }
        return quote ? NULL : p;
}

int strv_split_shell(const char *line, size_t max, char ***ret, struct err *e)
{
        AUTO(strv_free) char **v = calloc(1, sizeof *v);
        const char *p = line;

        if (!v)
                return err_set(e, -ENOMEM, "out of memory");
        for (size_t n = 0;; n++) {
                AUTO(strbuf_done) struct strbuf word = { 0 };

                p += strspn(p, " \t\r\n");
                if (!*p)
                        break;
                if (n == max)
                        return err_set(e, -E2BIG, "more than %zu words", max);
                p = shell_word(p, &word);
                if (!p)
                        return err_set(e, -EINVAL, "a quote is opened and never closed");
                if (strv_take(&v, strbuf_take(&word)) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        *ret = TAKE(v);
        return 0;
}

int strv_env_set(char ***v, const char *key, const char *value)
{
        char *pair = str_fmt("%s=%s", key, value);
        size_t n = strlen(key);

        if (!pair)
                return -ENOMEM;
        for (char **p = *v; p && *p; p++) {
                if (strncmp(*p, key, n) == 0 && (*p)[n] == '=') {
                        free(*p);
                        *p = pair;
                        return 0;
                }
        }
        return strv_take(v, pair);
}

const char *strv_env_get(char *const *v, const char *key)
{
        size_t n = strlen(key);

        for (; v && *v; v++)
                if (strncmp(*v, key, n) == 0 && (*v)[n] == '=')
                        return *v + n + 1;
        return NULL;
}

static bool reserve(struct strbuf *b, size_t more)
{
        size_t need, cap;
        char *s;

        if (b->failed)
                return false;
        if (__builtin_add_overflow(b->len, more, &need) || need >= SIZE_MAX / 2) {
                b->failed = true;
                return false;
        }
        if (need < b->cap)
                return true;
        cap = need + 1 > 64 ? (need + 1) * 3 / 2 : 64;
        s = realloc(b->s, cap);
        if (!s) {
                b->failed = true;
                return false;
        }
        b->s = s;
        b->cap = cap;
        return true;
}

void strbuf_add(struct strbuf *b, const void *data, size_t len)
{
        if (len == 0 || !reserve(b, len))
                return;
        memcpy(b->s + b->len, data, len);
        b->len += len;
        b->s[b->len] = '\0';
}

void strbuf_str(struct strbuf *b, const char *s)
{
        strbuf_add(b, s, strlen(s));
}

void strbuf_char(struct strbuf *b, char c)
{
        strbuf_add(b, &c, 1);
}

void strbuf_vfmt(struct strbuf *b, const char *fmt, va_list ap)
{
        va_list again;
        int n;

        va_copy(again, ap);
        n = vsnprintf(NULL, 0, fmt, again);
        va_end(again);
        if (n < 0)
                b->failed = true;
        if (n < 0 || !reserve(b, (size_t) n))
                return;
        (void) vsnprintf(b->s + b->len, (size_t) n + 1, fmt, ap);
        b->len += (size_t) n;
}

void strbuf_fmt(struct strbuf *b, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        strbuf_vfmt(b, fmt, ap);
        va_end(ap);
}

void strbuf_drop_front(struct strbuf *b, size_t len)
{
        if (len >= b->len) {
                b->len = 0;
                if (b->s)
                        b->s[0] = '\0';
                return;
        }
        memmove(b->s, b->s + len, b->len - len + 1);
        b->len -= len;
}

void strbuf_done(struct strbuf *b)
{
        free(b->s);
        *b = (struct strbuf){ 0 };
}

char *strbuf_take(struct strbuf *b)
{
        char *s = NULL;

        if (!b->failed)
                s = b->s ? TAKE(b->s) : strdup("");
        strbuf_done(b);
        return s;
}
