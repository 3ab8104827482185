/* sshkeys.c - /v2/account/ssh-keys: the public SSH keys of the caller's account, the whole list at once.
 * tensorone-api, loop thread. */
#include <errno.h>
#include <string.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "control/rest/http_priv.h"

/* Lines that hold something, comments too: what is put is given back. */
static json_t *list_of(const char *text)
{
        AUTO(json_put) json_t *list = json_array();

        for (const char *p = text ? text : ""; list && *p;) {
                size_t n = strcspn(p, "\r\n");

                if (n > 0 && json_array_append_new(list, json_stringn(p, n)) < 0)
                        return NULL;
                p += n + (p[n] != '\0');
        }
        return list ? json_pack("{s:O}", "keys", list) : NULL;
}

static json_t *keys_of(const struct http_request *q)
{
        const struct account *a = accounts_get(plane_accounts(q->plane), q->ctx.who.account);

        return list_of(a ? a->pub_key : NULL);
}

void handle_ssh_keys(struct http_request *q)
{
        http_reply_json(q, MHD_HTTP_OK, keys_of(q));
}

/* A text of one key a line from the list. */
static int join(const json_t *in, struct strbuf *b, struct err *e)
{
        const json_t *keys = json_object_get(in, "keys"), *one;
        size_t i;

        if (!json_is_array(keys))
                return err_set(e, -EINVAL, "keys: must be the list of all keys, each a text");
        json_array_foreach(keys, i, one)
        {
                const char *s = json_string_value(one);

                if (!s || strpbrk(s, "\r\n"))
                        return err_set(e, -EINVAL, "keys: number %zu is no text of one line",
                                       i + 1);
                strbuf_fmt(b, "%s%s", i ? "\n" : "", s);
        }
        return b->failed ? err_set(e, -ENOMEM, "out of memory") : 0;
}

void handle_ssh_keys_set(struct http_request *q)
{
        struct err e = { 0 };
        AUTO(json_put) json_t *in = http_body_json(q, &e);
        AUTO(strbuf_done) struct strbuf b = { 0 };
        int r = in ? join(in, &b, &e) : -EINVAL;

        if (r >= 0)
                r = plane_set_pub_key(q->plane, &q->ctx.who, b.s ? b.s : "", &e);
        if (r < 0)
                http_reply_error(q, http_status_of(r), "%s", e.msg);
        else
                http_reply_durable(q, MHD_HTTP_OK, keys_of(q));
}
