/* accounts.c - accounts and their keys, for administrators.  tensorone-api, loop thread.
 * A key's text leaves in the one answer that makes it. */
#include <errno.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "control/rest/http_priv.h"

/* Submit @t and answer with @answer (stolen) when it is durable. */
static void reply_after(struct http_request *q, struct store_txn *t, unsigned status,
                        json_t *answer)
{
        plane_submit(q->plane, t);
        http_reply_durable(q, status, answer);
}

void handle_accounts(struct http_request *q)
{
        const struct map *all = accounts_all(plane_accounts(q->plane));
        json_t *list = json_array();

        for (struct map_entry *i = map_first(all); i; i = map_next(i)) {
                const struct account *a = map_value(i);

                (void) json_array_append_new(list, json_pack("{s:s, s:s, s:b}", "id", a->id, "name",
                                                             a->name, "admin", a->admin));
        }
        http_reply_json(q, MHD_HTTP_OK, list);
}

void handle_account_new(struct http_request *q)
{
        struct accounts *all = plane_accounts(q->plane);
        AUTO(store_txn_free) struct store_txn *t = plane_txn(q->plane);
        struct err e = { 0 };
        AUTO(json_put) json_t *in = http_body_json(q, &e);
        AUTO(str_wipe_free) char *key = NULL;
        const struct account *a = NULL;
        const char *id = NULL;
        uint64_t now = clock_wall_us();
        int r = !t    ? err_set(&e, -ENOMEM, "out of memory")
                : !in ? -EINVAL
                      : accounts_add(all, t, jsonx_str(in, "name"), false, now, &a, &e);

        if (r >= 0)
                r = accounts_add_key(all, t, a->id, KEY_WRITE, "first", now, &key, &id, &e);
        if (r < 0) {
                http_reply_error(q, http_status_of(r), "%s", e.msg);
                return;
        }
        plane_tell_keys(q->plane, a->id);
        plane_audit_object(q->plane, a->id, a->id);
        reply_after(q, TAKE(t), MHD_HTTP_CREATED,
                    json_pack("{s:s, s:s, s:s, s:s}", "id", a->id, "name", a->name, "keyId", id,
                              "key", key));
}

void handle_key_new(struct http_request *q)
{
        struct accounts *all = plane_accounts(q->plane);
        AUTO(store_txn_free) struct store_txn *t = plane_txn(q->plane);
        struct err e = { 0 };
        AUTO(json_put) json_t *in = http_body_json(q, &e);
        const struct account *a = accounts_get(all, q->arg);
        AUTO(str_wipe_free) char *key = NULL;
        const char *id = NULL, *rights = jsonx_str(in, "rights");
        enum key_right right = str_eq(rights, "read") ? KEY_READ
                               : a && a->admin        ? KEY_ADMIN
                                                      : KEY_WRITE;
        int r = !t ? err_set(&e, -ENOMEM, "out of memory") : !in ? -EINVAL : 0;

        if (r >= 0 && rights && !str_eq(rights, "read") && !str_eq(rights, "write"))
                r = err_set(&e, -EINVAL, "rights: must be read or write");
        if (r >= 0)
                r = accounts_add_key(all, t, q->arg, right, jsonx_str(in, "name"), clock_wall_us(),
                                     &key, &id, &e);
        if (r < 0) {
                http_reply_error(q, http_status_of(r), "%s", e.msg);
                return;
        }
        plane_tell_keys(q->plane, q->arg);
        plane_audit_object(q->plane, q->arg, id); /* the account hears of its new key */
        reply_after(q, TAKE(t), MHD_HTTP_CREATED, json_pack("{s:s, s:s}", "id", id, "key", key));
}

void handle_key_remove(struct http_request *q)
{
        struct accounts *all = plane_accounts(q->plane);
        AUTO(store_txn_free) struct store_txn *t = plane_txn(q->plane);
        AUTO(free) char *owner = str_dup(accounts_key_account(all, q->arg));
        const char *of = q->ctx.who.right == KEY_ADMIN ? NULL : q->ctx.who.account;
        struct err e = { 0 };
        int r = t ? accounts_del_key(all, t, of, q->arg, &e)
                  : err_set(&e, -ENOMEM, "out of memory");

        if (r < 0) {
                http_reply_error(q, http_status_of(r), "%s", e.msg);
                return;
        }
        http_keys_removed(q->server);
        plane_tell_keys(q->plane, owner);
        plane_audit_object(q->plane, owner, q->arg); /* the account hears of it */
        reply_after(q, TAKE(t), MHD_HTTP_OK, json_object());
}
