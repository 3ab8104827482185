/* secrets.c - /v2/secrets and /v2/clusters/{id}/secrets.  tensorone-api, loop thread.
 *
 * What always holds: no answer has a value, and no sentence quotes one.  Secrets are an account's;
 * under the path of a cluster are those that its variables may name, which are the same ones. */
#include <errno.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "control/rest/http_priv.h"

static json_t *secret_json(const struct secret *s)
{
        char made[32];

        clock_format(s->created_us, made, sizeof made);
        return json_pack("{s:s, s:s, s:s?, s:s}", "id", s->id, "name", s->name, "description",
                         s->description, "createdAt", made);
}

static int add(void *arg, const struct secret *s)
{
        return json_array_append_new(arg, secret_json(s));
}

void handle_secrets(struct http_request *q)
{
        json_t *list = json_array();

        if (list && plane_secrets(q->plane, &q->ctx.who, add, list) >= 0) {
                http_reply_json(q, MHD_HTTP_OK, json_pack("{s:o}", "secrets", list));
                return;
        }
        json_decref(list);
        http_reply_error(q, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
}

void handle_secret(struct http_request *q)
{
        const struct secret *s = plane_secret(q->plane, &q->ctx.who, q->arg);

        if (s)
                http_reply_json(q, MHD_HTTP_OK, secret_json(s));
        else
                http_reply_error(q, MHD_HTTP_NOT_FOUND, "secret %.64s not found", q->arg);
}

/* A number would otherwise be taken for nothing, and refused as missing. */
static int check_texts(const json_t *in, struct err *e)
{
        static const char *const fields[] = { "name", "value", "description" };

        if (!json_is_object(in))
                return err_set(e, -EINVAL, "the body is not an object of JSON");
        for (size_t i = 0; i < NELEM(fields); i++) {
                const json_t *v = json_object_get(in, fields[i]);

                if (v && !json_is_string(v) && !json_is_null(v))
                        return err_set(e, -EINVAL, "%s: is no text; put it in quotes", fields[i]);
        }
        return 0;
}

void handle_secret_new(struct http_request *q)
{
        struct err e = { 0 };
        AUTO(json_put) json_t *in = http_body_json(q, &e);
        const struct secret_input given = { jsonx_str(in, "name"), jsonx_str(in, "value"),
                                            jsonx_str(in, "description") };
        const struct secret *made = NULL;
        int r = in ? check_texts(in, &e) : -EINVAL;

        if (r >= 0)
                r = plane_create_secret(q->plane, &q->ctx.who, &given, &made, &e);
        if (r < 0)
                http_reply_error(q, http_status_of(r), "%s", e.msg);
        else
                http_reply_durable(q, MHD_HTTP_CREATED, secret_json(made));
}

void handle_secret_remove(struct http_request *q)
{
        struct err e = { 0 };
        int r = plane_delete_secret(q->plane, &q->ctx.who, q->arg, &e);

        if (r < 0)
                http_reply_error(q, http_status_of(r), "%s", e.msg);
        else
                http_reply_durable(q, MHD_HTTP_NO_CONTENT, NULL);
}

/* ---- under the path of a cluster ---- */

static bool is_ours(struct http_request *q)
{
        if (plane_cluster(q->plane, &q->ctx.who, q->arg))
                return true;
        http_reply_error(q, MHD_HTTP_NOT_FOUND, "cluster not found");
        return false;
}

void handle_cluster_secrets(struct http_request *q)
{
        if (is_ours(q))
                handle_secrets(q);
}

void handle_cluster_secret_new(struct http_request *q)
{
        if (is_ours(q))
                handle_secret_new(q);
}
