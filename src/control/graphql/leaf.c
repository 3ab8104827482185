/* leaf.c - see leaf.h.  API program; values come from strangers.  The table of what is taken for what
 * stands at the top of coerce.c. */
#include "control/graphql/leaf.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/clock.h"
#include "control/graphql/out.h"

static const char *const scalar_want[SC_COUNT] = {
        [SC_NONE] = "a value",
        [SC_INT] = "an Int",
        [SC_FLOAT] = "a Float",
        [SC_STRING] = "a String",
        [SC_BOOLEAN] = "a Boolean (true or false)",
        [SC_ID] = "an ID",
        [SC_DATETIME] = "a DateTime such as \"2026-11-22T15:04:05Z\"",
        [SC_ANY] = "a value",
};

int coerce_refuse(struct coerce *c, uint32_t off, const char *fmt, ...)
{
        char why[288];
        va_list ap;

        va_start(ap, fmt);
        (void) vsnprintf(why, sizeof why, fmt, ap);
        va_end(ap);
        return fault_set(c->fault, -EINVAL, c->code, off, "%s%s: %s", c->path,
                         strchr(c->path, '(') ? ")" : "", why);
}

int coerce_no_memory(struct coerce *c)
{
        return fault_set(c->fault, -ENOMEM, "INTERNAL_SERVER_ERROR", UINT32_MAX, "out of memory");
}

/* What was given, for a message.  Strings are shown only where a secret makes no sense. */
static const char *shown(const struct leaf *l, char *buf, size_t len)
{
        if (l->kind == LEAF_BOOL)
                return l->b ? "true" : "false";
        if (l->kind == LEAF_OTHER)
                return l->s;
        if (l->s)
                (void) snprintf(buf, len, l->kind == LEAF_STRING ? "\"%.*s\"" : "%.*s",
                                (int) (l->len > 40 ? 40 : l->len), l->s);
        else if (l->kind == LEAF_INT)
                (void) snprintf(buf, len, "%lld", (long long) l->i);
        else
                (void) snprintf(buf, len, "%g", l->d);
        return buf;
}

static int mismatch(struct coerce *c, const struct stype *t, const struct leaf *l)
{
        char buf[64];

        if (l->huge)
                return coerce_refuse(c, l->off, "%s is too large a number",
                                     shown(l, buf, sizeof buf));
        return coerce_refuse(c, l->off, "expected %s, got %s",
                             t->kind == TK_SCALAR ? scalar_want[t->scalar] : t->n.name,
                             shown(l, buf, sizeof buf));
}

bool leaf_number(const char *s, size_t len, double *ret_d, json_int_t *ret_i, bool *ret_int)
{
        char buf[64], *end;
        size_t n = 0;

        if (len == 0 || len >= sizeof buf)
                return false;
        memcpy(buf, s, len);
        buf[len] = '\0';
        n = strspn(buf, "+-0123456789.eE");
        if (n != len || !strpbrk(buf, "0123456789"))
                return false;
        errno = 0;
        *ret_i = strtoll(buf, &end, 10);
        *ret_int = !*end && errno == 0;
        if (*ret_int) {
                *ret_d = (double) *ret_i;
                return true;
        }
        errno = 0;
        *ret_d = strtod(buf, &end);
        return !*end && isfinite(*ret_d);
}

static bool whole(double d, json_int_t *ret)
{
        if (!(fabs(d) <= 9007199254740992.0) || d != floor(d))
                return false;
        *ret = (json_int_t) d;
        return true;
}

static int to_number(struct coerce *c, const struct stype *t, const struct leaf *l, json_t **ret)
{
        double d = l->kind == LEAF_INT ? (double) l->i : l->d;
        bool is_int = l->kind == LEAF_INT && !l->huge;
        json_int_t i = l->i;

        if (l->kind == LEAF_STRING && !leaf_number(l->s, l->len, &d, &i, &is_int))
                return mismatch(c, t, l);
        if (l->kind != LEAF_STRING && l->kind != LEAF_INT && l->kind != LEAF_FLOAT)
                return mismatch(c, t, l);
        if (t->scalar == SC_FLOAT) {
                if (l->huge && !leaf_number(l->s, l->len, &d, &i, &is_int))
                        return mismatch(c, t, l);
                *ret = json_real(d);
        } else {
                if (l->huge || (!is_int && !whole(d, &i)))
                        return mismatch(c, t, l);
                *ret = json_integer(i);
        }
        return *ret ? 0 : coerce_no_memory(c);
}

static int to_string(struct coerce *c, const struct stype *t, const struct leaf *l, json_t **ret)
{
        AUTO(strbuf_done) struct strbuf number = { 0 };
        const char *s = l->s;
        size_t len = l->len;

        if (l->kind == LEAF_BOOL || l->kind == LEAF_OTHER)
                return mismatch(c, t, l);
        if (!s) {
                if (l->kind == LEAF_INT)
                        out_int(&number, l->i);
                else
                        out_num(&number, l->d);
                s = number.s;
                len = number.len;
        }
        *ret = s ? json_stringn(s, len) : NULL;
        if (!*ret)
                return coerce_refuse(c, l->off, "a string that is not valid UTF-8");
        return 0;
}

static int to_boolean(struct coerce *c, const struct stype *t, const struct leaf *l, json_t **ret)
{
        bool text = l->kind == LEAF_STRING || l->kind == LEAF_WORD;
        bool b = l->b;

        if (text && l->len == 4 && memcmp(l->s, "true", 4) == 0)
                b = true;
        else if (text && l->len == 5 && memcmp(l->s, "false", 5) == 0)
                b = false;
        else if (l->kind == LEAF_INT && !l->huge && (l->i == 0 || l->i == 1))
                b = l->i == 1;
        else if (l->kind != LEAF_BOOL)
                return mismatch(c, t, l);
        *ret = json_boolean(b);
        return 0;
}

static int to_datetime(struct coerce *c, const struct stype *t, const struct leaf *l, json_t **ret)
{
        char buf[64];
        uint64_t us;

        if (l->kind != LEAF_STRING || l->len >= sizeof buf)
                return mismatch(c, t, l);
        memcpy(buf, l->s, l->len);
        buf[l->len] = '\0';
        if (clock_parse(buf, &us) < 0)
                return mismatch(c, t, l);
        *ret = json_stringn(l->s, l->len);
        return *ret ? 0 : coerce_no_memory(c);
}

static int to_enum(struct coerce *c, const struct stype *t, const struct leaf *l, json_t **ret)
{
        const struct named *near;

        if (l->kind != LEAF_STRING && l->kind != LEAF_WORD)
                return mismatch(c, t, l);
        if (!names_find(&t->members, l->s, l->len)) {
                near = names_nearest(&t->members, l->s, l->len);
                if (!near)
                        near = t->members.first;
                return coerce_refuse(c, l->off, "%s has no value \"%.*s\"; did you mean %s?",
                                     t->n.name, (int) (l->len > 40 ? 40 : l->len), l->s,
                                     near ? near->name : "null");
        }
        *ret = json_stringn(l->s, l->len);
        return *ret ? 0 : coerce_no_memory(c);
}

static int to_any(struct coerce *c, const struct stype *t, const struct leaf *l, json_t **ret)
{
        if (l->kind == LEAF_BOOL)
                *ret = json_boolean(l->b);
        else if (l->kind == LEAF_INT && !l->huge)
                *ret = json_integer(l->i);
        else if (l->kind == LEAF_INT || l->kind == LEAF_FLOAT)
                *ret = json_real(l->d);
        else
                return to_string(c, t, l, ret);
        return *ret ? 0 : coerce_no_memory(c);
}

int leaf_convert(struct coerce *c, const struct stype *t, const struct leaf *l, json_t **ret)
{
        bool texts = t->kind == TK_SCALAR && (t->scalar == SC_STRING || t->scalar == SC_ANY);

        if (l->kind == LEAF_STRING && l->len == 0 && !texts)
                return 0; /* "" means: not set */
        if (t->kind == TK_ENUM)
                return to_enum(c, t, l, ret);
        switch (t->kind == TK_SCALAR ? t->scalar : SC_NONE) {
        case SC_INT:
        case SC_FLOAT:
                return to_number(c, t, l, ret);
        case SC_STRING:
        case SC_ID:
                return to_string(c, t, l, ret);
        case SC_BOOLEAN:
                return to_boolean(c, t, l, ret);
        case SC_DATETIME:
                return to_datetime(c, t, l, ret);
        case SC_ANY:
                return to_any(c, t, l, ret);
        case SC_NONE:
        case SC_COUNT:
        default:
                return mismatch(c, t, l);
        }
}

struct leaf leaf_of_json(const json_t *j, uint32_t off)
{
        struct leaf l = { .kind = LEAF_OTHER, .s = "an object", .off = off };

        if (json_is_string(j)) {
                l.kind = LEAF_STRING;
                l.s = json_string_value(j);
                l.len = json_string_length(j);
        } else if (json_is_integer(j)) {
                l.kind = LEAF_INT;
                l.i = json_integer_value(j);
                l.d = (double) l.i;
                l.s = NULL;
        } else if (json_is_real(j)) {
                l.kind = LEAF_FLOAT;
                l.d = json_real_value(j);
                l.s = NULL;
        } else if (json_is_boolean(j)) {
                l.kind = LEAF_BOOL;
                l.b = json_is_true(j);
        } else if (json_is_array(j)) {
                l.s = "a list";
        }
        return l;
}
