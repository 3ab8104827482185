/* user.c - the caller's account.  tensorone-api, loop thread. */
#include <errno.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "control/resolve/resolve_priv.h"

static int put_me(struct gql_call *c, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        const struct account *a = accounts_get(plane_accounts(x->plane), x->who.account);

        return a ? gql_put_object(c, a) : err_set(e, -ENOENT, "account not found");
}

int q_myself(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        return put_me(c, e);
}

static int put_cluster(void *arg, const struct cluster *k)
{
        return gql_put_object(arg, k);
}

int r_my_clusters(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        int r = gql_list_begin(c);

        (void) obj;
        (void) e;
        if (r >= 0)
                r = plane_clusters(x->plane, &x->who, put_cluster, c);
        return r < 0 ? r : gql_list_end(c);
}

static int put_key(void *arg, const struct key_view *k)
{
        return gql_put_object(arg, k);
}

int r_my_keys(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        int r = gql_list_begin(c);

        (void) obj;
        (void) e;
        if (r >= 0)
                r = accounts_keys(plane_accounts(x->plane), x->who.account, put_key, c);
        return r < 0 ? r : gql_list_end(c);
}

int m_user_settings(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        const char *keys = jsonx_str(gql_arg(c, "input"), "pubKey");
        int r = keys ? plane_set_pub_key(x->plane, &x->who, keys, e) : 0;

        (void) obj;
        return r < 0 ? r : put_me(c, e);
}
