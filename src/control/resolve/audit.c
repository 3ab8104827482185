/* audit.c - each change that is asked for by GraphQL, told with what became of it (plane.h, "who did
 * what").  tensorone-api, loop thread. */
#include <errno.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "control/resolve/resolve_priv.h"

/* What the arguments say that it is about: a place in the input object, or of its own. */
static const char *object_of(struct gql_call *c)
{
        static const char *const keys[] = { "clusterId",    "id",         "registryAuthId",
                                            "templateName", "endpointId", "gpuId",
                                            "name" };
        const json_t *in = gql_arg(c, "input");

        for (size_t i = 0; i < NELEM(keys); i++) {
                const char *given = jsonx_str(in, keys[i]);

                if (!given)
                        given = gql_arg_str(c, keys[i]);
                if (!str_empty(given))
                        return given;
        }
        return NULL;
}

void audit_mutate(struct gql_call *c)
{
        struct resolve_ctx *x = gql_context(c);

        audit_begin(&x->audit, &x->who, "audit.change", gql_field_name(c), object_of(c));
        plane_audit_enter(x->plane, &x->audit);
}

void audit_mutated(struct gql_call *c, int r, const struct err *e)
{
        struct resolve_ctx *x = gql_context(c);

        plane_audit_leave(x->plane);
        if (x->who.right != KEY_NONE)
                plane_audit_end(x->plane, &x->audit,
                                r < 0              ? "refused"
                                : r == GQL_PENDING ? "begun"
                                                   : "done",
                                r < 0 && e ? e->msg : NULL);
}
