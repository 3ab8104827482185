/* secrets.c - an account's secrets: listing, creating, deleting.  No field of any type gives a value
 * back.  tensorone-api, loop thread. */
#include <errno.h>

#include "base/jsonx.h"
#include "control/resolve/resolve_priv.h"

static int put_secret(void *arg, const struct secret *s)
{
        return gql_put_object(arg, s);
}

int r_my_secrets(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        int r = gql_list_begin(c);

        (void) obj;
        (void) e;
        if (r >= 0)
                r = plane_secrets(x->plane, &x->who, put_secret, c);
        return r < 0 ? r : gql_list_end(c);
}

int m_secret_create(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        const json_t *in = gql_arg(c, "input");
        const struct secret_input given = { jsonx_str(in, "name"), jsonx_str(in, "value"),
                                            jsonx_str(in, "description") };
        const struct secret *made = NULL;
        int r = plane_create_secret(x->plane, &x->who, &given, &made, e);

        (void) obj;
        return r < 0 ? r : gql_put_object(c, made);
}

int m_secret_delete(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        int r = plane_delete_secret(x->plane, &x->who, gql_arg_str(c, "id"), e);

        (void) obj;
        return r < 0 ? r : gql_put_null(c);
}
