/* registry.c - credentials for registries: listing, saving, deleting.  No field of any type gives the
 * user's name or the password back.  tensorone-api. */
#include <errno.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "control/resolve/resolve_priv.h"

static int put_auth(void *arg, const struct registry_auth *a)
{
        return gql_put_object(arg, a);
}

int r_my_registry_auths(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        int r = gql_list_begin(c);

        (void) obj;
        (void) e;
        if (r >= 0)
                r = plane_registry_auths(x->plane, &x->who, put_auth, c);
        return r < 0 ? r : gql_list_end(c);
}

static int save(struct gql_call *c, bool update, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        const json_t *in = gql_arg(c, "input");
        const char *id = jsonx_str(in, "id");
        const struct registry_input given = { update ? (id ? id : "") : NULL, jsonx_str(in, "name"),
                                              jsonx_str(in, "username"),
                                              jsonx_str(in, "password") };
        const struct registry_auth *saved = NULL;
        int r = in ? plane_save_registry_auth(x->plane, &x->who, &given, &saved, e)
                   : err_set(e, -EINVAL, "input: is missing");

        return r < 0 ? r : gql_put_object(c, saved);
}

int m_save_registry_auth(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        return save(c, false, e);
}

int m_update_registry_auth(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        return save(c, true, e);
}

int m_delete_registry_auth(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        int r = plane_delete_registry_auth(x->plane, &x->who, gql_arg_str(c, "registryAuthId"), e);

        (void) obj;
        return r < 0 ? r : gql_put_null(c);
}

/* Of somebody else's public template, whose credentials nobody but its owner has: null. */
int r_template_registry_auth(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        const struct template *t = obj;
        bool own = t->account && str_eq(t->account, x->who.account);

        (void) e;
        return own && t->registry_auth ? gql_put_str(c, t->registry_auth) : gql_put_null(c);
}
