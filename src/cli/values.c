/* values.c - see values.h.  Runs in tensoronecli. */
#include "cli/values.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/str.h"
#include "model/idle.h"

static json_t *value_of(const struct option *o, const struct opt_value *v)
{
        switch (o->kind) {
        case OPT_KIND_BOOL:
                return json_boolean(v->b);
        case OPT_KIND_STR:
                return json_string(v->s);
        case OPT_KIND_INT:
                return json_integer((json_int_t) v->n);
        case OPT_KIND_FLOAT:
                return json_real(v->f);
        case OPT_KIND_NONE:
        case OPT_KIND_LIST:
        case OPT_KIND_COUNT:
                break;
        }
        return NULL;
}

int values_json(const struct cli *c, const struct field_row *row, size_t n, bool given_only,
                json_t *input, struct err *e)
{
        for (size_t i = 0; i < n; i++) {
                const struct option *o = &options[row[i].opt];
                const struct opt_value *v = &c->opt[row[i].opt];
                json_t *j;

                if (!v->given && (given_only || !o->preset))
                        continue;
                j = value_of(o, v);
                if (!j && o->kind == OPT_KIND_STR)
                        return err_set(e, -EINVAL, "--%s: not UTF-8 text", o->name);
                if (json_object_set_new(input, row[i].field, j) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        return 0;
}

/* Length of the NAME when @s begins with "NAME=", else 0. */
static size_t env_name(const char *s)
{
        static const char first[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
        size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789");

        return n > 0 && strchr(first, *s) && s[n] == '=' ? n : 0;
}

bool values_is_env(const char *s)
{
        return env_name(s) > 0;
}

/* One use of the option, one or more variables. */
static int add_env(const char *s, json_t *list, struct err *e)
{
        while (s) {
                size_t name = env_name(s), len;
                const char *value = s + name + 1, *comma = NULL;
                json_t *pair;

                if (name == 0)
                        return err_set(e, -EINVAL, "wrong env value: \"%s\" is not KEY=VALUE", s);
                for (comma = strchr(value, ','); comma && env_name(comma + 1) == 0;)
                        comma = strchr(comma + 1, ',');
                len = comma ? (size_t) (comma - value) : strlen(value);
                pair = json_pack("{s:s%,s:s%}", "key", s, name, "value", value, len);
                if (!pair)
                        return err_set(e, -EINVAL, "wrong env value: %.*s: not UTF-8 text",
                                       (int) name, s);
                if (json_array_append_new(list, pair) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
                s = comma ? comma + 1 : NULL;
        }
        return 0;
}

int values_env(const struct cli *c, enum opt_id id, json_t *input, struct err *e)
{
        AUTO(json_put) json_t *list = json_array();

        if (!c->opt[id].given)
                return 0;
        for (char **p = c->opt[id].list; p && *p; p++) {
                int r = add_env(*p, list, e);

                if (r < 0)
                        return r;
        }
        return json_object_set(input, "env", list) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

int values_split(const char *list, char ***ret, struct err *e)
{
        AUTO(strv_free) char **v = calloc(1, sizeof *v);

        if (!v)
                return err_set(e, -ENOMEM, "out of memory");
        for (const char *p = list; p && *p;) {
                size_t n = strcspn(p, ","), skip = strspn(p, " \t"), len;
                AUTO(free) char *word = NULL;

                skip = skip > n ? n : skip;
                len = n - skip;
                while (len > 0 && (p[skip + len - 1] == ' ' || p[skip + len - 1] == '\t'))
                        len--;
                word = strndup(p + skip, len);
                if (!word || (*word && strv_push(&v, word) < 0))
                        return err_set(e, -ENOMEM, "out of memory");
                p += n + (p[n] == ',');
        }
        *ret = TAKE(v);
        return 0;
}

static int add_list(const struct cli *c, enum opt_id id, const char *field, json_t *input,
                    struct err *e)
{
        AUTO(json_put) json_t *list = json_array();

        if (!c->opt[id].given)
                return 0;
        for (char **p = c->opt[id].list; p && *p; p++) {
                AUTO(strv_free) char **words = NULL;
                int r = values_split(*p, &words, e);

                if (r < 0)
                        return r;
                for (char **w = words; *w; w++)
                        if (json_array_append_new(list, json_string(*w)) < 0)
                                return err_set(e, -EINVAL, "--%s: not UTF-8 text", field);
        }
        if (id == OPT_ALLOWED_IPS && json_array_size(list) == 1 &&
            str_eq(json_string_value(json_array_get(list, 0)), "all"))
                (void) json_array_clear(list);
        return json_object_set(input, field, list) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

int values_egress(const struct cli *c, enum opt_id id, json_t *input, struct err *e)
{
        return add_list(c, id, "egressAllow", input, e);
}

int values_allowed_ips(const struct cli *c, json_t *input, struct err *e)
{
        return add_list(c, OPT_ALLOWED_IPS, "allowedIps", input, e);
}

int values_idle(const struct cli *c, json_t *input, struct err *e)
{
        const struct opt_value *span = &c->opt[OPT_IDLE_TIMEOUT],
                               *action = &c->opt[OPT_IDLE_ACTION];
        const char *word = NULL;
        uint64_t us = 0;

        if (span->given && str_duration_us(span->s, &us) < 0)
                return err_set(e, -EINVAL, "--idleTimeout: \"%s\" is no time such as 30m or 2h",
                               span->s);
        if (span->given && us % US_PER_S)
                return err_set(e, -EINVAL, "--idleTimeout: \"%s\" is not a number of seconds",
                               span->s);
        if (span->given && idle_timeout_check("--idleTimeout", (int64_t) (us / US_PER_S), e) < 0)
                return -ERANGE;
        for (enum idle_action a = IDLE_STOP; action->given && a < IDLE_ACTION_COUNT; a++)
                if (strcasecmp(action->s, idle_action_names[a]) == 0)
                        word = idle_action_names[a];
        if ((span->given && json_object_set_new(input, "idleTimeoutSeconds",
                                                json_integer((json_int_t) (us / US_PER_S))) < 0) ||
            (word && json_object_set_new(input, "idleAction", json_string(word)) < 0))
                return err_set(e, -ENOMEM, "out of memory");
        return 0;
}

int values_ports(const struct cli *c, enum opt_id id, json_t *input, struct err *e)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };

        if (!c->opt[id].given)
                return 0;
        for (char **p = c->opt[id].list; p && *p; p++) {
                AUTO(strv_free) char **words = NULL;
                int r = values_split(*p, &words, e);

                if (r < 0)
                        return r;
                for (char **w = words; *w; w++)
                        strbuf_fmt(&b, "%s%s", b.len ? "," : "", *w);
        }
        if (b.failed || json_object_set_new(input, "ports", json_string(b.s ? b.s : "")) < 0)
                return err_set(e, -EINVAL, "--ports: not UTF-8 text");
        return 0;
}

int values_pick(const json_t *list, const char *word, const char *none, json_t **ret, struct err *e)
{
        json_t *j;
        size_t i;

        json_array_foreach(list, i, j)
        {
                if (!str_eq(jsonx_str(j, "id"), word) && !str_eq(jsonx_str(j, "name"), word))
                        continue;
                *ret = j;
                return 0;
        }
        return err_set(e, -ENOENT, "%s \"%s\"", none, word);
}
