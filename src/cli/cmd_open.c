/* cmd_open.c - `open`: the URL of a cluster's web port; of a private one with a signature in it.  Runs in
 * tensoronecli. */
#include <errno.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "cli/api.h"
#include "cli/cli.h"
#include "cli/clusters.h"
#include "cli/out.h"

static int body_of(const struct cli *c, json_t **ret, struct err *e)
{
        AUTO(json_put) json_t *body = json_object();
        uint64_t port;

        if (c->n_operands > 1) {
                if (str_u64(c->operands[1], 1, 65535, &port) < 0)
                        return err_set(e, -EINVAL, "'%s' is not a port number from 1 to 65535",
                                       c->operands[1]);
                (void) json_object_set_new(body, "port", json_integer((json_int_t) port));
        }
        if (c->opt[OPT_URL_PATH].given &&
            json_object_set_new(body, "path", json_string(c->opt[OPT_URL_PATH].s)) < 0)
                return err_set(e, -EINVAL, "--path: not UTF-8 text");
        *ret = TAKE(body);
        return *ret ? 0 : err_set(e, -ENOMEM, "out of memory");
}

int cmd_open(struct cli *c, struct err *e)
{
        AUTO(json_put) json_t *body = NULL, *made = NULL;
        AUTO(strbuf_done) struct strbuf path = { 0 };
        struct api_request q = { .method = "POST", .ret_json = &made };
        AUTO(free) char *id = NULL;
        int r = body_of(c, &body, e);

        if (r >= 0)
                r = cluster_find(c->api, c->operands[0], &id, e);
        if (r < 0)
                return r;
        strbuf_fmt(&path, "/v1/clusters/%s/open", id);
        if (path.failed)
                return err_set(e, -ENOMEM, "out of memory");
        q.path = path.s;
        q.body = body;
        r = api_request(c->api, &q, e);
        if (r < 0)
                return r;
        if (str_empty(jsonx_str(made, "url")))
                return err_set(e, -EPROTO, "the API's answer has no URL");
        return cli_json(c) ? out_json(made, e) : out_printf(e, "%s\n", jsonx_str(made, "url"));
}
