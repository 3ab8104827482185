/* args.c - see args.h.  Pure; tensorone-api. */
#include "control/plane/args.h"

#include <errno.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "model/imageref.h"
#include "model/limits.h"

static int words(const json_t *obj, const char *key, char ***ret, bool *ret_there, struct err *e)
{
        const json_t *v = json_object_get(obj, key);
        AUTO(strv_free) char **list = NULL;
        size_t i;
        json_t *item;

        *ret_there = v && !json_is_null(v);
        if (!*ret_there)
                return 0;
        if (!json_is_array(v))
                return err_set(e, -EINVAL, "dockerArgs: %s must be a list of strings", key);
        if (json_array_size(v) > LIMIT_ARGV_ENTRIES)
                return err_set(e, -E2BIG, "dockerArgs: %s has %zu words, at most %u are allowed",
                               key, json_array_size(v), LIMIT_ARGV_ENTRIES);
        json_array_foreach(v, i, item)
        {
                if (!json_is_string(item))
                        return err_set(e, -EINVAL, "dockerArgs: %s must be a list of strings", key);
                if (strv_push(&list, json_string_value(item)) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        *ret = TAKE(list);
        return 0;
}

int docker_args_parse(const char *s, char ***ret_entrypoint, char ***ret_command, bool *ret_set,
                      struct err *e)
{
        AUTO(strv_free) char **entry = NULL, **cmd = NULL;
        AUTO(json_put) json_t *obj = NULL;
        bool has_entry = false, has_cmd = false;
        int r;

        *ret_entrypoint = NULL;
        *ret_command = NULL;
        *ret_set = false;
        if (str_empty(s))
                return 0;
        if (strlen(s) > LIMIT_ARGS_BYTES)
                return err_set(e, -E2BIG, "dockerArgs: %zu bytes, at most %u are allowed",
                               strlen(s), LIMIT_ARGS_BYTES);
        if (s[strspn(s, " \t\r\n")] == '{')
                obj = jsonx_parse(s, strlen(s), NULL);
        if (json_is_object(obj) &&
            (json_object_get(obj, "cmd") || json_object_get(obj, "entrypoint"))) {
                r = words(obj, "entrypoint", &entry, &has_entry, e);
                if (r >= 0)
                        r = words(obj, "cmd", &cmd, &has_cmd, e);
        } else {
                r = strv_split_shell(s, LIMIT_ARGV_ENTRIES, &cmd, e);
                if (r < 0)
                        return err_wrap(e, r, "dockerArgs");
                has_cmd = strv_len(cmd) > 0;
        }
        if (r < 0)
                return r;
        *ret_entrypoint = TAKE(entry);
        *ret_command = TAKE(cmd);
        *ret_set = has_cmd || has_entry; /* an entrypoint alone drops the image's command too */
        return 0;
}

/* "12.4" -> 12004; a number of one or two parts. */
static int cuda_version(const char *field, const char *s, unsigned *ret, struct err *e)
{
        uint64_t major, minor = 0;
        size_t n = str_empty(s) ? 0 : strcspn(s, ".");
        AUTO(free) char *first = n ? strndup(s, n) : NULL;

        if (!first || str_u64(first, 0, 999, &major) < 0 ||
            (s[n] == '.' && str_u64(s + n + 1, 0, 999, &minor) < 0))
                return err_set(e, -EINVAL, "%s: '%.20s' is no version such as 12.4", field,
                               s ? s : "");
        *ret = (unsigned) (major * 1000 + minor);
        return 0;
}

static int cuda_refuse(const char *field, const char *want, const char *have, struct err *e)
{
        return err_set(e, -ENOSPC, "%s: %.100s wanted, %s%.20s", field, want,
                       have ? "this host's driver has CUDA " : "this host has no driver",
                       have ? have : "");
}

static int cuda_allowed(const struct cuda_wish *w, unsigned is, const char *have, struct err *e)
{
        static const char field[] = "allowedCudaVersions";
        AUTO(strbuf_done) struct strbuf all = { 0 };
        bool found = false;

        for (char *const *v = w->allowed; v && *v; v++) {
                unsigned one;
                int r = str_empty(*v) ? 0 : cuda_version(field, *v, &one, e);

                if (r < 0)
                        return r;
                if (str_empty(*v))
                        continue;
                strbuf_fmt(&all, "%s%s", all.len ? ", " : "", *v);
                found = found || (have && one == is);
        }
        return found || all.len == 0 ? 0 : cuda_refuse(field, all.s, have, e);
}

int cuda_check(const struct cuda_wish *w, const char *have, struct err *e)
{
        static const char *const fields[NELEM(w->least)] = { "minCudaVersion", "cudaVersion" };
        unsigned is = 0;

        if (str_empty(have) || cuda_version("", have, &is, NULL) < 0)
                have = NULL;
        for (size_t i = 0; i < NELEM(fields); i++) {
                unsigned want;
                int r = str_empty(w->least[i]) ? 0 : cuda_version(fields[i], w->least[i], &want, e);

                if (r < 0)
                        return r;
                if (!str_empty(w->least[i]) && want > is)
                        return cuda_refuse(fields[i], w->least[i], have, e);
        }
        return cuda_allowed(w, is, have, e);
}

int image_check(const char *image, struct err *e)
{
        struct imageref ref;

        if (strlen(image) > LIMIT_IMAGE_REF_LEN)
                return err_set(e, -E2BIG, "imageName: %zu bytes, at most %u are allowed",
                               strlen(image), LIMIT_IMAGE_REF_LEN);
        return imageref_parse(image, &ref, e);
}

/* How much of KEY=VALUE a message may quote: the value may be a secret. */
static int key_len(const char *entry)
{
        size_t n = strcspn(entry, "=");

        return n < 64 ? (int) n : 64;
}

int env_check(char *const *env, struct err *e)
{
        static const char name_chars[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                         "0123456789_.-";

        if (strv_len(env) > LIMIT_ENV_ENTRIES)
                return err_set(e, -E2BIG, "env: %zu variables, at most %u are allowed",
                               strv_len(env), LIMIT_ENV_ENTRIES);
        for (; env && *env; env++) {
                size_t n = strspn(*env, name_chars);

                if (n == 0 || (*env)[n] != '=')
                        return err_set(e, -EINVAL,
                                       "env: '%.*s' is no variable name; use letters, digits and _",
                                       key_len(*env), *env);
                if (strlen(*env) >= LIMIT_ENV_BYTES)
                        return err_set(e, -E2BIG, "env: %.*s is over %u bytes", (int) n, *env,
                                       LIMIT_ENV_BYTES);
        }
        return 0;
}

int env_merge(char *const *base, char *const *over, char ***ret)
{
        AUTO(strv_free) char **v = calloc(1, sizeof *v);
        char *const *const lists[] = { base, over };

        if (!v)
                return -ENOMEM;
        for (size_t i = 0; i < NELEM(lists); i++) {
                for (char *const *p = lists[i]; p && *p; p++) {
                        const char *eq = strchr(*p, '=');
                        AUTO(free) char *key = eq ? strndup(*p, (size_t) (eq - *p)) : NULL;

                        if (!key || strv_env_set(&v, key, eq + 1) < 0)
                                return -ENOMEM;
                }
        }
        *ret = TAKE(v);
        return 0;
}
