/* unit_secrets.c - the secrets that a cluster's variables name: asked for when it is about to be
 * started, kept for that start, and wiped.  Engine process, loop thread.
 *
 * What always holds: values are in memory only, and only between the control plane's answer and the
 * order to the operation that starts the cluster (with a pull in between when there is one).  Whatever
 * else happens to the cluster wipes them; the next start asks again. */
#include <errno.h>

#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/fleet/unit.h"
#include "model/secret.h"

int unit_need_secrets(struct unit *u, struct err *e)
{
        AUTO(strv_free) char **names = NULL;
        int r;

        if (u->secrets)
                return 0;
        r = secret_names(u->plan.env, &names, e);
        if (r < 0 || !names)
                return r;
        if (!u->wants_secrets) {
                u->wants_secrets = true;
                unit_report(u);
        }
        return 1;
}

void unit_take_secrets(struct unit *u, const json_t *answer)
{
        const char *error = jsonx_str(answer, "error");
        struct err e = { 0 };
        int r;

        if (!u->wants_secrets || u->row.state != CS_ACCEPTED || !unit_wanted(u))
                return;
        u->wants_secrets = false;
        if (error)
                r = err_set(&e, -ENOENT, "%s", error);
        else
                r = secret_decode(json_object_get(answer, "values"), &u->secrets, &e);
        if (r >= 0)
                return; /* whoever brought them settles */
        log_info("cluster %s: %s", u->row.cluster, e.msg);
        unit_event(u, CE_FAIL, "%s", e.msg);
}

void unit_secrets_forget(struct unit *u)
{
        u->wants_secrets = false;
        u->secrets = secrets_free(u->secrets);
}
