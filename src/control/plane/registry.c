/* registry.c - credentials for registries, an account's own.  tensorone-api, loop thread.
 *
 * What always holds: a password is sealed from the moment it comes; it is opened for one message to the
 * engine, or to nobody.  What another account has does not exist, in the same words. */
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/str.h"
#include "control/plane/plane_priv.h"
#include "model/limits.h"

#define ID_CHARS 12U
#define TABLE    "registry_auth"

const struct registry_auth *plane_registry_auth(const struct plane *p, const struct caller *who,
                                                const char *id)
{
        const struct registry_auth *a = str_empty(id) ? NULL : map_get(p->registry_auths, id);

        return a && str_eq(a->account, who->account) ? a : NULL;
}

int plane_registry_auths(const struct plane *p, const struct caller *who,
                         int (*fn)(void *arg, const struct registry_auth *a), void *arg)
{
        for (struct map_entry *i = map_first(p->registry_auths); i; i = map_next(i)) {
                const struct registry_auth *a = map_value(i);
                int r = str_eq(a->account, who->account) ? fn(arg, a) : 0;

                if (r < 0)
                        return r;
        }
        return 0;
}

int registry_auth_check(const struct plane *p, const struct caller *who, const char *id,
                        struct err *e)
{
        return str_empty(id) || plane_registry_auth(p, who, id)
                       ? 0
                       : err_set(e, -ENOENT,
                                 "containerRegistryAuthId: registry credentials %.64s not found",
                                 id);
}

/* ---- opening ---- */

static int open_password(const struct plane *p, const struct registry_auth *a, char **ret,
                         struct err *e)
{
        const struct seal_place at = { TABLE, a->id, a->account };
        int r = seal_open(p->sealer, &at, a->password, ret, e);

        return r < 0 ? err_wrap(e, r, "registry credentials %s (%.191s) cannot be opened", a->id,
                                a->name)
                     : 0;
}

int plane_open_registry_auth(const struct plane *p, const struct caller *who, const char *id,
                             const char **ret_username, char **ret_password, struct err *e)
{
        const struct registry_auth *a = plane_registry_auth(p, who, id);
        int r = a ? open_password(p, a, ret_password, e)
                  : err_set(e, -ENOENT, "registry credentials %.64s not found", id);

        if (r >= 0)
                *ret_username = a->username;
        return r;
}

json_t *registry_login(const struct plane *p, const struct cluster *c)
{
        const struct registry_auth *a =
                str_empty(c->registry_auth) ? NULL : map_get(p->registry_auths, c->registry_auth);
        AUTO(str_wipe_free) char *password = NULL;
        struct err e = { 0 };

        if (!a || !str_eq(a->account, c->account))
                (void) err_set(&e, -ENOENT,
                               "registry credentials %.64s, which the cluster names, were removed",
                               c->registry_auth ? c->registry_auth : "");
        else if (open_password(p, a, &password, &e) >= 0)
                return json_pack("{s:s, s:s}", "username", a->username, "password", password);
        return json_pack("{s:s}", "error", e.msg);
}

void registry_auths_probe(const struct plane *p)
{
        struct err e = { 0 };
        size_t bad = 0;

        for (struct map_entry *i = map_first(p->registry_auths); i; i = map_next(i)) {
                AUTO(str_wipe_free) char *password = NULL;

                bad += open_password(p, map_value(i), &password, &e) < 0;
        }
        if (bad)
                log_error("%zu of %zu registry credentials are of no use: %s", bad,
                          map_len(p->registry_auths), e.msg);
}

/* ---- changing ---- */

static int check_size(const char *field, const char *value, size_t max, struct err *e)
{
        if (str_empty(value))
                return err_set(e, -EINVAL, "%s: is missing", field);
        if (strlen(value) > max)
                return err_set(e, -E2BIG, "%s: %zu bytes, at most %zu are allowed", field,
                               strlen(value), max);
        return 0;
}

static int check_line(const char *field, const char *value, size_t max, const char *not_allowed,
                      struct err *e)
{
        int r = check_size(field, value, max, e);

        if (r < 0)
                return r;
        for (const char *s = value; *s; s++)
                if ((unsigned char) *s < ' ' || *s == 0x7f || strchr(not_allowed, *s))
                        return err_set(e, -EINVAL, "%s: has a character that is not allowed: %s",
                                       field, *s == ':' ? "a colon" : "a control character");
        return 0;
}

static int check_new(const struct plane *p, const struct caller *who,
                     const struct registry_input *in, struct err *e)
{
        size_t n = 0;
        int r = check_line("name", in->name, LIMIT_NAME_LEN, "", e);

        for (struct map_entry *i = map_first(p->registry_auths); r >= 0 && i; i = map_next(i)) {
                const struct registry_auth *a = map_value(i);

                if (!str_eq(a->account, who->account))
                        continue;
                n++;
                if (str_eq(a->name, in->name))
                        r = err_set(
                                e, -EEXIST,
                                "name: registry credentials '%.64s' exist already; names are unique in an account",
                                in->name);
        }
        if (r >= 0 && n >= LIMIT_REGISTRY_AUTHS)
                r = err_set(e, -EDQUOT, "an account has at most %u registry credentials",
                            LIMIT_REGISTRY_AUTHS);
        return r;
}

/* What is not given stays; of new ones nothing may be missing. */
static int check_input(const struct plane *p, const struct caller *who,
                       const struct registry_input *in, const struct registry_auth *old,
                       struct err *e)
{
        int r = old ? 0 : check_new(p, who, in, e);

        if (r >= 0 && old && str_empty(in->username) && str_empty(in->password))
                r = err_set(e, -EINVAL, "username, password: neither is given, nothing to change");
        if (r >= 0 && (!old || !str_empty(in->username))) /* a colon would end it in the header */
                r = check_line("username", in->username, LIMIT_REGISTRY_USER_LEN, ":", e);
        /* any text: a service account's key is a JSON file of many lines; the header has it in base64 */
        if (r >= 0 && (!old || !str_empty(in->password)))
                r = check_size("password", in->password, LIMIT_REGISTRY_PASSWORD_LEN, e);
        return r;
}

static int fill(const struct plane *p, const struct caller *who, const struct registry_input *in,
                const struct registry_auth *old, struct registry_auth *a, struct err *e)
{
        char id[ID_CHARS + 1];
        int r = old ? 0 : rand_id(id, ID_CHARS);

        if (r >= 0)
                r = text_set(&a->id, old ? old->id : id);
        if (r >= 0)
                r = text_set(&a->account, who->account);
        if (r >= 0)
                r = text_set(&a->name, old ? old->name : in->name);
        if (r >= 0)
                r = text_set(&a->username, str_empty(in->username) ? old->username : in->username);
        if (r >= 0 && str_empty(in->password))
                r = text_set(&a->password, old->password);
        if (r < 0)
                return err_errno(e, r, "registry credentials");
        a->created_us = old ? old->created_us : clock_wall_us();
        if (!str_empty(in->password))
                r = seal_close(p->sealer, &(struct seal_place){ TABLE, a->id, a->account },
                               in->password, &a->password, e);
        return r;
}

int plane_save_registry_auth(struct plane *p, const struct caller *who,
                             const struct registry_input *in, const struct registry_auth **ret,
                             struct err *e)
{
        AUTO(registry_auth_free) struct registry_auth *a = calloc(1, sizeof *a);
        AUTO(store_txn_free) struct store_txn *t = store_txn_new();
        const struct registry_auth *old = in->id ? plane_registry_auth(p, who, in->id) : NULL;
        int r = plane_writable(p, e);

        if (r >= 0 && in->id && !old)
                r = err_set(e, -ENOENT, "id: registry credentials %.64s not found", in->id);
        if (r >= 0 && (!a || !t))
                r = err_set(e, -ENOMEM, "out of memory");
        if (r >= 0)
                r = plane_has_room(p, e);
        if (r >= 0)
                r = check_input(p, who, in, old, e);
        if (r >= 0)
                r = fill(p, who, in, old, a, e);
        if (r < 0)
                return r;
        if (map_set(p->registry_auths, a->id, a) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        (void) registry_auth_free((struct registry_auth *) (uintptr_t) old);
        plane_audit_object(p, NULL, a->id);
        store_put(t, ST_REGISTRY_AUTH, registry_auth_to_row(a));
        *ret = TAKE(a);
        plane_submit(p, TAKE(t));
        return 0;
}

int plane_delete_registry_auth(struct plane *p, const struct caller *who, const char *id,
                               struct err *e)
{
        AUTO(store_txn_free) struct store_txn *t = store_txn_new();
        int r = plane_writable(p, e);

        if (r < 0)
                return r;
        if (!plane_registry_auth(p, who, id))
                return err_set(e, -ENOENT, "registry credentials %.64s not found", id ? id : "");
        if (!t)
                return err_set(e, -ENOMEM, "out of memory");
        store_del(t, ST_REGISTRY_AUTH, json_pack("{s:s}", "id", id));
        (void) registry_auth_free(map_del(p->registry_auths, id));
        plane_submit(p, TAKE(t));
        return 0;
}
