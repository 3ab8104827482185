/* gpu_vfio.c - the query gpuVfio: what would have to be done before a GPU could be given to a virtual
 * machine as it is.  tensorone-api; the engine looks (engine/gpu/vfio.h), this only passes it on. */
#include <errno.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "control/resolve/resolve_priv.h"

#define TIMEOUT_US (10 * US_PER_S)

static int put_found(struct gql_call *c, const void *obj, struct err *e)
{
        (void) e;
        return gql_put_json(c, obj);
}

static void on_found(void *arg, struct node_reply *reply)
{
        struct gql_pending *pending = arg;
        struct err e = { 0 };

        if (reply->r >= 0) {
                gql_complete_with(pending, put_found, reply->result);
                return;
        }
        (void) err_set(&e, reply->r, "%s", reply->message);
        gql_fail(pending, NULL, &e);
}

int q_gpu_vfio(struct gql_call *c, const void *obj, struct err *e)
{
        struct gql_pending *pending = gql_defer(c);
        int64_t r;

        (void) obj;
        if (!pending)
                return err_set(e, -ENOMEM, "out of memory");
        r = node_request(plane_node(ctx_of(c)->plane), "gpu.vfio", json_object(), NULL, 0,
                         TIMEOUT_US, on_found, NULL, pending, e);
        if (r < 0)
                gql_fail(pending, NULL, e);
        return GQL_PENDING;
}
