/* open.c - POST /v1/clusters/ID/open: the URL of a web port; of a private one with a signature that lets in
 * whoever has it, for a short time.  tensorone-api, loop thread. */
#include <errno.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "control/rest/http_priv.h"

struct ask {
        uint32_t port;
        char *path;
};

static const struct jfield fields[] = {
        { "port", .off = offsetof(struct ask, port), .kind = J_U32, .max = 65535 },
        { "path", .off = offsetof(struct ask, path), .kind = J_STR, .max = 65536 },
};

static int open_port(struct http_request *q, const struct ask *a, struct plane_link *ret,
                     struct err *e)
{
        const struct cluster *c = plane_cluster(q->plane, &q->ctx.who, q->arg);

        return c ? plane_open(q->plane, &q->ctx.who, c, a->port, str_empty(a->path) ? "/" : a->path,
                              ret, e)
                 : err_set(e, -ENOENT, "cluster not found");
}

void handle_open(struct http_request *q)
{
        struct err e = { 0 };
        AUTO(json_put) json_t *in = http_body_json(q, &e);
        struct plane_link link = { .url = NULL };
        struct ask a = { .path = NULL };
        int r = in ? jsonx_decode(in, fields, NELEM(fields), &a, &e) : -EINVAL;

        if (r >= 0)
                r = open_port(q, &a, &link, &e);
        if (r < 0)
                http_reply_error(q, http_status_of(r), "%s", e.msg);
        else
                http_reply_json(q, MHD_HTTP_OK,
                                link.until_s
                                        ? json_pack("{s:s, s:I}", "url", link.url, "expiresAt",
                                                    (json_int_t) link.until_s)
                                        : json_pack("{s:s, s:n}", "url", link.url, "expiresAt"));
        (void) str_wipe_free(link.url);
        jsonx_done(fields, NELEM(fields), &a);
}
