/* templates.c - templates: listing, saving, deleting, and their environment lists.  tensorone-api. */
#include <errno.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "control/resolve/resolve_priv.h"
#include "model/limits.h"

int env_from_args(const json_t *list, char ***ret, struct err *e)
{
        AUTO(strv_free) char **env = NULL;
        size_t i;
        json_t *item;

        if (!list)
                return 0;
        if (json_array_size(list) > LIMIT_ENV_ENTRIES)
                return err_set(e, -E2BIG, "env: %zu variables, at most %u are allowed",
                               json_array_size(list), LIMIT_ENV_ENTRIES);
        env = calloc(1, sizeof *env);
        if (!env)
                return err_set(e, -ENOMEM, "out of memory");
        json_array_foreach(list, i, item)
        {
                const char *key = jsonx_str(item, "key"), *value = jsonx_str(item, "value");

                if (str_empty(key) || strchr(key, '='))
                        return err_set(e, -EINVAL, "env: '%.64s' is no variable name",
                                       key ? key : "");
                if (strv_env_set(&env, key, value ? value : "") < 0)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        *ret = TAKE(env);
        return 0;
}

static int put_template(void *arg, const struct template *t)
{
        return gql_put_object(arg, t);
}

static int put_list(struct gql_call *c, bool own, bool builtin)
{
        const struct resolve_ctx *x = ctx_of(c);
        int r = gql_list_begin(c);

        if (r >= 0)
                r = plane_templates(x->plane, &x->who, own, builtin, put_template, c);
        return r < 0 ? r : gql_list_end(c);
}

/* isRunpod: only what is not the account's; absent: everything visible. */
int q_templates(struct gql_call *c, const void *obj, struct err *e)
{
        const json_t *only = json_object_get(gql_arg(c, "input"), "isRunpod");

        (void) obj;
        (void) e;
        return put_list(c, !json_is_true(only), !json_is_false(only));
}

int q_my_templates(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        return put_list(c, true, false);
}

int q_template(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        const char *id = gql_arg_str(c, "id");

        (void) obj;
        (void) e;
        return gql_put_object(c, id ? plane_template(x->plane, &x->who, id) : NULL);
}

#define T(n, f) n, .off = offsetof(struct template, f)
static const struct jfield save_fields[] = {
        { T("id", id), .kind = J_STR },
        { T("name", name), .kind = J_STR },
        { T("imageName", image), .kind = J_STR },
        { T("dockerArgs", docker_args), .kind = J_STR, .max = LIMIT_QUERY_BYTES },
        { T("ports", ports), .kind = J_STR },
        { T("volumeMountPath", volume_path), .kind = J_STR },
        { T("volumeInGb", volume_gib), .kind = J_U32, .max = LIMIT_DISK_GIB },
        { T("containerDiskInGb", container_disk_gib), .kind = J_U32, .max = LIMIT_DISK_GIB },
        { T("readme", readme), .kind = J_STR, .max = LIMIT_QUERY_BYTES },
        { T("category", category), .kind = J_STR },
        { T("startScript", start_script), .kind = J_STR, .max = LIMIT_QUERY_BYTES },
        { T("containerRegistryAuthId", registry_auth), .kind = J_STR },
        { T("securityProfile", security_profile), .kind = J_STR },
        { T("readinessPath", readiness_path), .kind = J_STR },
        { T("egressAllow", egress), .kind = J_STRV, .max = LIMIT_EGRESS },
        { T("isServerless", is_serverless), .kind = J_BOOL },
        { T("isPublic", is_public), .kind = J_BOOL },
        { T("startSsh", start_ssh), .kind = J_BOOL },
        { T("startJupyter", start_jupyter), .kind = J_BOOL },
        { T("advancedStart", advanced_start), .kind = J_BOOL },
};
#undef T

int m_save_template(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        const json_t *in = gql_arg(c, "input");
        AUTO(template_free) struct template *t = calloc(1, sizeof *t);
        const struct template *saved = NULL;
        struct idle_wish idle = { 0 };
        int r;

        (void) obj;
        if (!t)
                return err_set(e, -ENOMEM, "out of memory");
        if (!in)
                return err_set(e, -EINVAL, "input: is missing");
        r = jsonx_decode(in, save_fields, NELEM(save_fields), t, e);
        if (r >= 0)
                r = egress_said(&t->egress, e);
        if (r >= 0)
                r = idle_said(in, &idle, e);
        t->idle_timeout_s = idle.timeout_s;
        t->idle_action = idle.action;
        if (r >= 0)
                r = env_from_args(json_object_get(in, "env"), &t->env, e);
        if (r >= 0)
                r = plane_save_template(x->plane, &x->who, TAKE(t), &saved, e);
        return r < 0 ? r : gql_put_object(c, saved);
}

int m_delete_template(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        const char *name = gql_arg_str(c, "templateName");
        int r = plane_delete_template(x->plane, &x->who, name ? name : "", e);

        (void) obj;
        return r < 0 ? r : gql_put_null(c);
}

int r_env_list(struct gql_call *c, const void *obj, struct err *e)
{
        const struct template *t = obj;
        int r = gql_list_begin(c);

        (void) e;
        for (char **v = t->env; r >= 0 && v && *v; v++)
                r = gql_put_object(c, *v); /* the object is the string itself */
        return r < 0 ? r : gql_list_end(c);
}

int r_env_key(struct gql_call *c, const void *obj, struct err *e)
{
        (void) e;
        return gql_put_strn(c, obj, strcspn(obj, "="));
}

int r_env_value(struct gql_call *c, const void *obj, struct err *e)
{
        const char *s = obj, *eq = strchr(s, '=');

        (void) e;
        return gql_put_str(c, eq ? eq + 1 : "");
}
