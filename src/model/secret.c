/* secret.c - see secret.h.  Pure; engine and control plane. */
#include "model/secret.h"

#include <errno.h>
#include <string.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "model/limits.h"

static const char name_chars[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
static const char *const prefixes[] = { "TENSORONE_SECRET_", "RUNPOD_SECRET_" };

struct found {
        const char *name;     /* within the text */
        size_t name_len, len; /* of the whole placeholder */
        bool named;           /* the name is one */
};

bool secret_name_ok(const char *name)
{
        size_t n = name ? strlen(name) : 0;

        return n >= 1 && n <= LIMIT_SECRET_NAME_LEN && strspn(name, name_chars) == n;
}

/* What begins with "{{" at @s is a placeholder, or one but for its name. */
static bool parse(const char *s, struct found *ret)
{
        const char *p = s + 2 + strspn(s + 2, " \t"), *end, *name = NULL;

        for (size_t i = 0; i < NELEM(prefixes) && !name; i++)
                name = str_after(p, prefixes[i]);
        if (!name)
                return false;
        ret->name = name;
        ret->name_len = strspn(name, name_chars);
        end = name + ret->name_len;
        end += strspn(end, " \t");
        ret->named = ret->name_len >= 1 && ret->name_len <= LIMIT_SECRET_NAME_LEN &&
                     end[0] == '}' && end[1] == '}';
        ret->len = (size_t) (end - s) + 2;
        return true;
}

/* The next placeholder at or after @s, whose name is one unless @any; NULL: none. */
static const char *next(const char *s, bool any, struct found *ret)
{
        for (; (s = strstr(s, "{{")); s++)
                if (parse(s, ret) && (any || ret->named))
                        return s;
        return NULL;
}

static const char *value_of(const char *variable)
{
        const char *eq = strchr(variable, '=');

        return eq ? eq + 1 : variable + strlen(variable);
}

/* A variable's name for messages: never its value. */
static int key_len(const char *variable)
{
        size_t n = strcspn(variable, "=");

        return n < 64 ? (int) n : 64;
}

bool secret_in(const char *value)
{
        struct found f;

        return next(value, false, &f) != NULL;
}

static const char *look_up(char *const *secrets, const struct found *f)
{
        for (; secrets && *secrets; secrets++)
                if (strncmp(*secrets, f->name, f->name_len) == 0 && (*secrets)[f->name_len] == '=')
                        return *secrets + f->name_len + 1;
        return NULL;
}

static int add_name(char ***names, const struct found *f)
{
        char name[LIMIT_SECRET_NAME_LEN + 1];

        memcpy(name, f->name, f->name_len);
        name[f->name_len] = '\0';
        return strv_has(*names, name) ? 0 : strv_push(names, name);
}

int secret_names(char *const *env, char ***ret, struct err *e)
{
        AUTO(strv_free) char **names = NULL;

        for (; env && *env; env++) {
                struct found f;

                for (const char *s = value_of(*env); (s = next(s, false, &f)); s += f.len) {
                        if (add_name(&names, &f) < 0)
                                return err_set(e, -ENOMEM, "out of memory");
                        if (strv_len(names) > LIMIT_SECRETS)
                                return err_set(e, -E2BIG, "env: names more than %u secrets",
                                               LIMIT_SECRETS);
                }
        }
        *ret = TAKE(names);
        return 0;
}

int secret_check(char *const *env, struct err *e)
{
        for (; env && *env; env++) {
                struct found f;

                for (const char *s = value_of(*env); (s = next(s, true, &f)); s += 2)
                        if (!f.named)
                                return err_set(
                                        e, -EINVAL,
                                        "env: %.*s has a placeholder without a secret's name; write {{ TENSORONE_SECRET_name }}, of 1 to %u letters, digits, _ . -",
                                        key_len(*env), *env, LIMIT_SECRET_NAME_LEN);
        }
        return 0;
}

/* 1: put into @ret; 0: left out. */
static int expand_one(const char *variable, char *const *secrets, enum secret_missing missing,
                      char **ret, struct err *e)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        const char *at = variable, *s = value_of(variable);
        struct found f;

        for (; (s = next(s, false, &f)); at = s = s + f.len) {
                const char *value = look_up(secrets, &f);

                if (!value && missing == SECRET_LEAVE_OUT)
                        return 0;
                if (!value)
                        return err_set(e, -ENOENT,
                                       "env: %.*s names the secret %.*s, which is not there",
                                       key_len(variable), variable, (int) f.name_len, f.name);
                strbuf_add(&b, at, (size_t) (s - at));
                strbuf_str(&b, value);
                if (b.len >= LIMIT_ENV_BYTES)
                        break;
        }
        if (!s)
                strbuf_str(&b, at);
        if (b.len >= LIMIT_ENV_BYTES && b.s)
                explicit_bzero(b.s, b.len);
        if (b.len >= LIMIT_ENV_BYTES)
                return err_set(e, -E2BIG, "env: with its secrets, %.*s is over %u bytes",
                               key_len(variable), variable, LIMIT_ENV_BYTES);
        *ret = strbuf_take(&b);
        return *ret ? 1 : err_set(e, -ENOMEM, "out of memory");
}

int secret_expand(char *const *env, char *const *secrets, enum secret_missing missing, char ***ret,
                  struct err *e)
{
        AUTO(secrets_free) char **v = calloc(strv_len(env) + 1, sizeof *v);
        size_t n = 0;

        if (!v)
                return err_set(e, -ENOMEM, "out of memory");
        for (; env && *env; env++) {
                int r = expand_one(*env, secrets, missing, &v[n], e);

                if (r < 0)
                        return r;
                n += (size_t) r;
        }
        *ret = TAKE(v);
        return 0;
}

json_t *secret_encode(char *const *secrets)
{
        AUTO(json_put) json_t *j = json_object();

        for (; j && secrets && *secrets; secrets++) {
                const char *value = value_of(*secrets);
                char name[LIMIT_SECRET_NAME_LEN + 1];
                size_t n = strcspn(*secrets, "=");

                if (n >= sizeof name)
                        return NULL;
                memcpy(name, *secrets, n);
                name[n] = '\0';
                if (json_object_set_new(j, name, json_string(value)) < 0)
                        return NULL;
        }
        return TAKE(j);
}

int secret_decode(const json_t *j, char ***ret, struct err *e)
{
        AUTO(secrets_free) char **v = calloc(json_object_size(j) + 1, sizeof *v);
        const char *name;
        json_t *value;
        size_t n = 0;

        if (!v)
                return err_set(e, -ENOMEM, "out of memory");
        if (!json_is_object(j) || json_object_size(j) > LIMIT_SECRETS)
                return err_set(e, -EPROTO, "secrets: no object of at most %u", LIMIT_SECRETS);
        json_object_foreach((json_t *) (uintptr_t) j, name, value)
        {
                if (!secret_name_ok(name) || !json_is_string(value) ||
                    json_string_length(value) > LIMIT_SECRET_BYTES)
                        return err_set(e, -EPROTO, "secrets: one is none");
                v[n] = str_fmt("%s=%s", name, json_string_value(value));
                if (!v[n++])
                        return err_set(e, -ENOMEM, "out of memory");
        }
        *ret = TAKE(v);
        return 0;
}

char **secrets_free(char **v)
{
        for (char **p = v; p && *p; p++)
                explicit_bzero(*p, strlen(*p));
        return strv_free(v);
}
