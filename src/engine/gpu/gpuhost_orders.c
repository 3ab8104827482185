/* gpuhost_orders.c - what others decide about GPUs: quarantine, leaving some alone, claims of other
 * engines.  Engine process, loop thread. */
#include <errno.h>
#include <stdio.h>

#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/claim/claim.h"
#include "engine/gpu/gpuhost_priv.h"

static void put_in_quarantine(struct journal_gpu *j, const char *reason, const char *cluster)
{
        (void) snprintf(j->quarantine, sizeof j->quarantine, "%s", reason);
        (void) snprintf(j->cluster, sizeof j->cluster, "%s", cluster ? cluster : "");
        j->since_us = clock_wall_us();
}

int gpuhost_quarantine(struct gpuhost *g, const char *uuid, const char *reason, const char *cluster,
                       struct err *e)
{
        struct gpu_row *row = gpuhost_row(g, uuid);
        struct journal_gpu j;
        int r = 1;

        if (row)
                j = row->j;
        else /* the driver does not list it since this engine runs */
                r = journal_gpu_get(g->spec.journal, uuid, &j, e);
        if (r == 0)
                return err_set(e, -ENOENT, "there is no GPU %.64s", uuid);
        if (r < 0)
                return r;
        put_in_quarantine(&j, reason ? reason : "", cluster);
        if (!reason) /* who releases it vouches for how it is: taken down when the driver says it anew */
                gpuhost_forget_first(&j);
        r = journal_gpu_save(g->spec.journal, &j, e);
        if (r < 0)
                return r;
        if (row) {
                row->j = j;
                row->unread = false;
                row->bad_xid_us = reason ? row->bad_xid_us : 0;
        }
        if (!reason && g->child) /* one that came back is known once the driver is opened anew */
                (void) gpuhost_send_open(g);
        gpuhost_settle(g, false);
        return 0;
}

int gpuhost_omit(struct gpuhost *g, char *const *uuids, struct err *e)
{
        char **copy = strv_dup(uuids);

        if (strv_len(uuids) && !copy)
                return err_set(e, -ENOMEM, "out of memory");
        (void) strv_free(g->omit);
        g->omit = copy;
        for (size_t i = 0; i < g->fleet.n; i++)
                g->rows[i].left_out = gpuhost_leaves_out(g, g->fleet.gpus[i].uuid);
        if (g->child && gpuhost_send_open(g) == -ENOMEM)
                return err_set(e, -ENOMEM, "out of memory");
        return 0; /* one that is being started gets the list then */
}

/* ---- other engines ---- */

static bool is_one_of(char *const *list, const char *uuid)
{
        for (; list && *list; list++)
                if (str_eq(*list, uuid))
                        return true;
        return false;
}

void gpuhost_look_at_claims(struct gpuhost *g)
{
        AUTO(strv_free) char **taken = NULL;
        struct err e = { 0 };

        if (!g->spec.host->claims)
                return;
        if (claim_gpus_elsewhere(g->spec.host->claims, &taken, &e) < 0) {
                log_warn("%s", e.msg);
                return;
        }
        for (size_t i = 0; i < g->fleet.n; i++) {
                const struct gpu *gpu = &g->fleet.gpus[i];

                /* who has the whole has its instances */
                g->rows[i].elsewhere = is_one_of(taken, gpu->uuid) ||
                                       (gpu->parent && is_one_of(taken, gpu->parent));
        }
}

void gpuhost_claims_changed(struct gpuhost *g)
{
        gpuhost_look_at_claims(g);
        gpuhost_settle(g, false);
}
