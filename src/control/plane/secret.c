/* secret.c - an account's secrets, and the values for those of its clusters that wait to be started.
 * tensorone-api, loop thread.
 *
 * What always holds: a value is sealed from the moment it comes, and is opened for messages to the
 * engine alone: the answer to a report that asks, and a session in a cluster that runs.  What another
 * account has does not exist, in the same words. */
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/str.h"
#include "control/plane/plane_priv.h"
#include "model/limits.h"
#include "model/secret.h"

#define ID_CHARS 12U
#define TABLE    "secret"

const struct secret *plane_secret(const struct plane *p, const struct caller *who, const char *id)
{
        const struct secret *s = str_empty(id) ? NULL : map_get(p->secrets, id);

        return s && str_eq(s->account, who->account) ? s : NULL;
}

int plane_secrets(const struct plane *p, const struct caller *who,
                  int (*fn)(void *arg, const struct secret *s), void *arg)
{
        for (struct map_entry *i = map_first(p->secrets); i; i = map_next(i)) {
                const struct secret *s = map_value(i);
                int r = str_eq(s->account, who->account) ? fn(arg, s) : 0;

                if (r < 0)
                        return r;
        }
        return 0;
}

static const struct secret *by_name(const struct plane *p, const char *account, const char *name,
                                    size_t *ret_count)
{
        const struct secret *found = NULL;

        *ret_count = 0;
        for (struct map_entry *i = map_first(p->secrets); i; i = map_next(i)) {
                const struct secret *s = map_value(i);

                if (!str_eq(s->account, account))
                        continue;
                (*ret_count)++;
                if (str_eq(s->name, name))
                        found = s;
        }
        return found;
}

/* ---- opening ---- */

static int open_value(const struct plane *p, const struct secret *s, char **ret, struct err *e)
{
        const struct seal_place at = { TABLE, s->id, s->account };
        int r = seal_open(p->sealer, &at, s->value, ret, e);

        return r < 0 ? err_wrap(e, r, "secret %.64s cannot be opened", s->name) : 0;
}

/* {name: value} of all that @c's variables name; those that are not there are left out with @lenient. */
static int open_all(const struct plane *p, const struct cluster *c, bool lenient, json_t **ret,
                    struct err *e)
{
        AUTO(json_put) json_t *values = json_object();
        AUTO(strv_free) char **names = NULL;
        int r = values ? secret_names(c->env, &names, e) : err_set(e, -ENOMEM, "out of memory");

        for (char **n = names; r >= 0 && n && *n; n++) {
                AUTO(str_wipe_free) char *value = NULL;
                size_t count;
                const struct secret *s = by_name(p, c->account, *n, &count);

                if (!s && lenient)
                        continue;
                if (!s)
                        return err_set(
                                e, -ENOENT,
                                "the secret %.64s, which the cluster's variables name, was removed; create it again or change env",
                                *n);
                r = open_value(p, s, &value, e);
                if (r >= 0 && json_object_set_new(values, *n, json_string(value)) < 0)
                        r = err_set(e, -ENOMEM, "out of memory");
        }
        if (r >= 0)
                *ret = TAKE(values);
        return r;
}

json_t *secrets_answer(const struct plane *p, const struct cluster *c)
{
        json_t *values = NULL;
        struct err e = { 0 };

        return open_all(p, c, false, &values, &e) >= 0 ? json_pack("{s:o}", "values", values)
                                                       : json_pack("{s:s}", "error", e.msg);
}

json_t *plane_session_secrets(const struct plane *p, const struct cluster *c)
{
        json_t *values = NULL;
        struct err e = { 0 };

        if (open_all(p, c, true, &values, &e) >= 0)
                return values;
        log_warn("cluster %s: a session is started without its secrets: %s", c->id, e.msg);
        return json_object();
}

/* ---- before something is begun that names them ---- */

int secrets_check(const struct plane *p, const char *account, char *const *env, struct err *e)
{
        AUTO(strv_free) char **names = NULL;
        int r = secret_check(env, e);

        if (r >= 0)
                r = secret_names(env, &names, e);
        for (char **n = names; r >= 0 && n && *n; n++) {
                size_t count;

                if (!by_name(p, account, *n, &count))
                        r = err_set(
                                e, -ENOENT,
                                "env: secret %.64s not found; create it first, or take its placeholder out",
                                *n);
        }
        return r;
}

void secrets_probe(const struct plane *p)
{
        struct err e = { 0 };
        size_t bad = 0;

        for (struct map_entry *i = map_first(p->secrets); i; i = map_next(i)) {
                AUTO(str_wipe_free) char *value = NULL;

                bad += open_value(p, map_value(i), &value, &e) < 0;
        }
        if (bad)
                log_error("%zu of %zu secrets are of no use: %s", bad, map_len(p->secrets), e.msg);
}

/* ---- changing ---- */

/* Nothing of the value is ever quoted. */
static int check_value(const char *value, struct err *e)
{
        if (str_empty(value))
                return err_set(e, -EINVAL, "value: is missing");
        if (strlen(value) > LIMIT_SECRET_BYTES)
                return err_set(e, -E2BIG, "value: %zu bytes, at most %u are allowed", strlen(value),
                               LIMIT_SECRET_BYTES);
        for (const char *s = value; *s; s++)
                if (((unsigned char) *s < ' ' && !strchr("\t\r\n", *s)) || *s == 0x7f)
                        return err_set(e, -EINVAL,
                                       "value: has a control character; encode it, in base64 say");
        return 0;
}

static int check_input(const struct plane *p, const struct caller *who,
                       const struct secret_input *in, struct err *e)
{
        size_t count;

        if (str_empty(in->name))
                return err_set(e, -EINVAL, "name: is missing");
        if (!secret_name_ok(in->name))
                return err_set(
                        e, -EINVAL,
                        "name: '%.64s' is no name of a secret; use 1 to %u letters, digits, _ . -",
                        in->name, LIMIT_SECRET_NAME_LEN);
        if (in->description && strlen(in->description) > LIMIT_SECRET_TEXT_LEN)
                return err_set(e, -E2BIG, "description: %zu bytes, at most %u are allowed",
                               strlen(in->description), LIMIT_SECRET_TEXT_LEN);
        if (by_name(p, who->account, in->name, &count))
                return err_set(
                        e, -EEXIST,
                        "name: a secret '%.64s' exists already; delete it first to give it another value",
                        in->name);
        if (count >= LIMIT_SECRETS)
                return err_set(e, -EDQUOT, "an account has at most %u secrets", LIMIT_SECRETS);
        return check_value(in->value, e);
}

static int fill(const struct plane *p, const struct caller *who, const struct secret_input *in,
                struct secret *s, struct err *e)
{
        char id[ID_CHARS + 1];
        int r = rand_id(id, ID_CHARS);

        if (r >= 0)
                r = text_set(&s->id, id);
        if (r >= 0)
                r = text_set(&s->account, who->account);
        if (r >= 0)
                r = text_set(&s->name, in->name);
        if (r >= 0)
                r = text_set(&s->description, in->description);
        if (r < 0)
                return err_errno(e, r, "secret");
        s->created_us = clock_wall_us();
        return seal_close(p->sealer, &(struct seal_place){ TABLE, s->id, s->account }, in->value,
                          &s->value, e);
}

int plane_create_secret(struct plane *p, const struct caller *who, const struct secret_input *in,
                        const struct secret **ret, struct err *e)
{
        AUTO(secret_free) struct secret *s = calloc(1, sizeof *s);
        AUTO(store_txn_free) struct store_txn *t = store_txn_new();
        int r = plane_writable(p, e);

        if (r >= 0 && (!s || !t))
                r = err_set(e, -ENOMEM, "out of memory");
        if (r >= 0)
                r = plane_has_room(p, e);
        if (r >= 0)
                r = check_input(p, who, in, e);
        if (r >= 0)
                r = fill(p, who, in, s, e);
        if (r < 0)
                return r;
        if (map_set(p->secrets, s->id, s) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        plane_audit_object(p, NULL, s->id);
        store_put(t, ST_SECRET, secret_to_row(s));
        *ret = TAKE(s);
        plane_submit(p, TAKE(t));
        return 0;
}

int plane_delete_secret(struct plane *p, const struct caller *who, const char *id, struct err *e)
{
        AUTO(store_txn_free) struct store_txn *t = store_txn_new();
        int r = plane_writable(p, e);

        if (r < 0)
                return r;
        if (!plane_secret(p, who, id))
                return err_set(e, -ENOENT, "secret %.64s not found", id ? id : "");
        if (!t)
                return err_set(e, -ENOMEM, "out of memory");
        store_del(t, ST_SECRET, json_pack("{s:s}", "id", id));
        (void) secret_free(map_del(p->secrets, id));
        plane_submit(p, TAKE(t));
        return 0;
}
