/* registry.c - /v1/containerregistryauth.  tensorone-api, loop thread. */
#include <errno.h>

#include "base/jsonx.h"
#include "control/rest/http_priv.h"

static json_t *auth_json(const struct registry_auth *a)
{
        return json_pack("{s:s, s:s}", "id", a->id, "name", a->name);
}

static int add(void *arg, const struct registry_auth *a)
{
        return json_array_append_new(arg, auth_json(a));
}

void handle_registry_auths(struct http_request *q)
{
        json_t *list = json_array();

        if (list && plane_registry_auths(q->plane, &q->ctx.who, add, list) >= 0) {
                http_reply_json(q, MHD_HTTP_OK, list);
                return;
        }
        json_decref(list);
        http_reply_error(q, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
}

void handle_registry_auth(struct http_request *q)
{
        const struct registry_auth *a = plane_registry_auth(q->plane, &q->ctx.who, q->arg);

        if (a)
                http_reply_json(q, MHD_HTTP_OK, auth_json(a));
        else
                http_reply_error(q, MHD_HTTP_NOT_FOUND, "registry credentials %.64s not found",
                                 q->arg);
}

void handle_registry_auth_new(struct http_request *q)
{
        struct err e = { 0 };
        AUTO(json_put) json_t *in = http_body_json(q, &e);
        const struct registry_input given = { NULL, jsonx_str(in, "name"),
                                              jsonx_str(in, "username"),
                                              jsonx_str(in, "password") };
        const struct registry_auth *saved = NULL;
        int r = in ? plane_save_registry_auth(q->plane, &q->ctx.who, &given, &saved, &e) : -EINVAL;

        if (r < 0)
                http_reply_error(q, http_status_of(r), "%s", e.msg);
        else
                http_reply_durable(q, MHD_HTTP_OK, auth_json(saved));
}

void handle_registry_auth_remove(struct http_request *q)
{
        struct err e = { 0 };
        int r = plane_delete_registry_auth(q->plane, &q->ctx.who, q->arg, &e);

        if (r < 0)
                http_reply_error(q, http_status_of(r), "%s", e.msg);
        else
                http_reply_durable(q, MHD_HTTP_NO_CONTENT, NULL);
}
