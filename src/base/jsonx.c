/* jsonx.c - see jsonx.h.  Pure memory; any program, any thread. */
#include "base/jsonx.h"

#include <errno.h>

#include "base/str.h"

static int wrong(struct err *e, const struct jfield *f, const char *want)
{
        return err_set(e, -EINVAL, "%s: must be %s", f->name, want);
}

static int decode_str(const json_t *v, const struct jfield *f, char **ret, struct err *e)
{
        size_t max = f->max ? f->max : 4096;

        if (!json_is_string(v))
                return wrong(e, f, "a string");
        if (json_string_length(v) > max)
                return err_set(e, -E2BIG, "%s: %zu bytes, at most %zu are allowed", f->name,
                               json_string_length(v), max);
        *ret = strdup(json_string_value(v));
        return *ret ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static int decode_strv(const json_t *v, const struct jfield *f, char ***ret, struct err *e)
{
        size_t max = f->max ? f->max : 1024, i;
        json_t *item;

        if (!json_is_array(v))
                return wrong(e, f, "a list of strings");
        if (json_array_size(v) > max)
                return err_set(e, -E2BIG, "%s: %zu elements, at most %zu are allowed", f->name,
                               json_array_size(v), max);
        *ret = calloc(1, sizeof **ret);
        if (!*ret)
                return err_set(e, -ENOMEM, "out of memory");
        json_array_foreach(v, i, item)
        {
                if (!json_is_string(item))
                        return wrong(e, f, "a list of strings");
                if (strv_push(ret, json_string_value(item)) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        return 0;
}

static int decode_u64(const json_t *v, const struct jfield *f, uint64_t top, uint64_t *ret,
                      struct err *e)
{
        uint64_t max = f->max ? f->max : top;
        json_int_t n = json_integer_value(v);

        if (!json_is_integer(v))
                return wrong(e, f, "a whole number");
        if (n < 0 || (uint64_t) n < f->min || (uint64_t) n > max)
                return err_set(e, -ERANGE, "%s: %lld is outside %llu..%llu", f->name, (long long) n,
                               (unsigned long long) f->min, (unsigned long long) max);
        *ret = (uint64_t) n;
        return 0;
}

static int decode_enum(const json_t *v, const struct jfield *f, int *ret, struct err *e)
{
        const char *s = json_string_value(v);

        for (uint64_t i = 0; s && i < f->max; i++) {
                if (!str_eq(s, f->names[i]))
                        continue;
                *ret = (int) i;
                return 0;
        }
        return err_set(e, -EINVAL, "%s: '%s' is not a known value", f->name, s ? s : "?");
}

static int decode_one(const json_t *v, const struct jfield *f, void *at, struct err *e)
{
        uint64_t n = 0;
        int r;

        switch (f->kind) {
        case J_STR:
                return decode_str(v, f, at, e);
        case J_STRV:
                return decode_strv(v, f, at, e);
        case J_U32:
                r = decode_u64(v, f, UINT32_MAX, &n, e);
                if (r >= 0)
                        *(uint32_t *) at = (uint32_t) n;
                return r;
        case J_U64:
                return decode_u64(v, f, INT64_MAX, at, e);
        case J_BOOL:
                if (!json_is_boolean(v))
                        return wrong(e, f, "true or false");
                *(bool *) at = json_is_true(v);
                return 0;
        case J_ENUM:
                return decode_enum(v, f, at, e);
        case J_SUB:
                if (!json_is_object(v))
                        return wrong(e, f, "an object");
                r = jsonx_decode(v, f->sub, f->max, at, e);
                return r < 0 ? err_wrap(e, r, "%s", f->name) : 0;
        case J_NONE:
        case J_KIND_COUNT:
                break;
        }
        return err_set(e, -EINVAL, "%s: a field without a kind", f->name);
}

int jsonx_decode(const json_t *obj, const struct jfield *f, size_t n, void *out, struct err *e)
{
        if (!json_is_object(obj))
                return err_set(e, -EINVAL, "an object is expected");
        for (size_t i = 0; i < n; i++) {
                const json_t *v = json_object_get(obj, f[i].name);
                int r;

                if (!v || json_is_null(v)) {
                        if (f[i].required)
                                return err_set(e, -EINVAL, "%s: is missing", f[i].name);
                        continue;
                }
                r = decode_one(v, &f[i], (char *) out + f[i].off, e);
                if (r < 0)
                        return r;
        }
        return 0;
}

static json_t *encode_strv(char *const *v)
{
        AUTO(json_put) json_t *list = json_array();

        for (; list && v && *v; v++)
                if (json_array_append_new(list, json_string_nocheck(*v)) < 0)
                        return NULL;
        return TAKE(list);
}

/* A new reference, NULL when out of memory; json_null() means "leave it out". */
static json_t *encode_one(const struct jfield *f, const void *at)
{
        const char *s;

        switch (f->kind) {
        case J_STR:
                s = *(char *const *) at;
                return s ? json_string_nocheck(s) : json_null();
        case J_STRV:
                return *(char **const *) at ? encode_strv(*(char **const *) at) : json_null();
        case J_U32:
                return json_integer(*(const uint32_t *) at);
        case J_U64:
                return json_integer((json_int_t) * (const uint64_t *) at);
        case J_BOOL:
                return json_boolean(*(const bool *) at);
        case J_ENUM:
                return json_string(f->names[*(const int *) at]);
        case J_SUB:
                return jsonx_encode(f->sub, f->max, at);
        case J_NONE:
        case J_KIND_COUNT:
                break;
        }
        return json_null();
}

json_t *jsonx_encode(const struct jfield *f, size_t n, const void *in)
{
        AUTO(json_put) json_t *obj = json_object();

        for (size_t i = 0; obj && i < n; i++) {
                json_t *v = encode_one(&f[i], (const char *) in + f[i].off);

                if (!v)
                        return NULL;
                if (json_is_null(v)) {
                        json_decref(v);
                        continue;
                }
                if (json_object_set_new_nocheck(obj, f[i].name, v) < 0)
                        return NULL;
        }
        return TAKE(obj);
}

void jsonx_done(const struct jfield *f, size_t n, void *out)
{
        for (size_t i = 0; i < n; i++) {
                void *at = (char *) out + f[i].off;

                if (f[i].kind == J_STR) {
                        free(*(char **) at);
                        *(char **) at = NULL;
                } else if (f[i].kind == J_STRV) {
                        *(char ***) at = strv_free(*(char ***) at);
                } else if (f[i].kind == J_SUB) {
                        jsonx_done(f[i].sub, f[i].max, at);
                }
        }
}

json_t *jsonx_parse(const char *text, size_t len, struct err *e)
{
        json_error_t je;
        json_t *j;

        if (memchr(text, '\0', len)) { /* jansson passes over one that stands behind a number */
                (void) err_set(e, -EINVAL, "not JSON: line 1, column 0: a NUL byte");
                return NULL;
        }
        j = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
        if (!j)
                (void) err_set(e, -EINVAL, "not JSON: line %d, column %d: %s", je.line, je.column,
                               je.text);
        return j;
}

const char *jsonx_str(const json_t *obj, const char *key)
{
        return json_string_value(json_object_get(obj, key));
}

char *jsonx_dump(const json_t *j)
{
        return json_dumps(j, JSON_COMPACT);
}
