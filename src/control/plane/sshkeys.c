/* sshkeys.c - an account's public SSH keys.  tensorone-api, loop thread. */
#include <errno.h>

#include "base/str.h"

#include "control/plane/plane_priv.h"

const char *ssh_keys_of(const struct plane *p, const struct cluster *c)
{
        const struct account *a = accounts_get(p->accounts, c->account);

        if (!c->start_ssh || strv_env_get(c->env, "PUBLIC_KEY") ||
            strv_env_get(c->env, "SSH_PUBLIC_KEY"))
                return NULL;
        return a && a->pub_key ? a->pub_key : "";
}

/* Those that run are said again, with the keys of now.  One that is being changed is said after that, and all
 * of them when the engine is back. */
static void tell_clusters(struct plane *p, const char *account)
{
        for (struct map_entry *i = map_first(p->clusters); i; i = map_next(i)) {
                const struct cluster *c = map_value(i);

                if (c->open == 0 && c->desired == DESIRED_RUNNING && c->start_ssh &&
                    str_eq(c->account, account))
                        plane_push(p, c);
        }
}

int plane_set_pub_key(struct plane *p, const struct caller *who, const char *keys, struct err *e)
{
        AUTO(store_txn_free) struct store_txn *t = store_txn_new();
        int r = plane_writable(p, e);

        if (r >= 0)
                r = plane_has_room(p, e);
        if (r >= 0 && !t)
                r = err_set(e, -ENOMEM, "out of memory");
        if (r >= 0)
                r = accounts_set_pub_key(p->accounts, t, who->account, keys, e);
        if (r < 0)
                return r;
        plane_submit(p, TAKE(t));
        tell_clusters(p, who->account);
        return 0;
}
