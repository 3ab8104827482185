/* sshkeys.c - an account's public SSH keys.  tensorone-api, loop thread. */
#include <errno.h>

#include "control/plane/plane_priv.h"

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
        return 0;
}
