/* gpuhost_journal.c - what is remembered of each GPU, and for how long.  Engine process, loop thread. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/gpu/gpuhost_priv.h"
#include "engine/journal/journal.h"

#define SEEN_US (86400 * US_PER_S)      /* that it is here is written down so often */
#define GONE_US (30 * 86400 * US_PER_S) /* not here for so long, it is forgotten */

void gpuhost_remember(struct gpuhost *g, const struct journal_gpu *j)
{
        struct err e = { 0 };

        if (journal_gpu_save(g->spec.journal, j, &e) < 0)
                log_warn("GPU %s: %s", j->uuid, e.msg);
}

/* How it is when nobody has touched it yet: what a later check compares with. */
void gpuhost_first_seen(const struct gpuhost *g, const struct gpu *gpu, struct journal_gpu *j)
{
        const char *driver = g->fleet.driver_version;

        (void) snprintf(j->vbios, sizeof j->vbios, "%s", gpu->vbios ? gpu->vbios : "");
        (void) snprintf(j->inforom, sizeof j->inforom, "%s", gpu->inforom ? gpu->inforom : "");
        (void) snprintf(j->driver, sizeof j->driver, "%s", driver ? driver : "");
        j->memory_mib = JOURNAL_GPU_UNKNOWN;
}

void gpuhost_forget_first(struct journal_gpu *j)
{
        j->vbios[0] = j->inforom[0] = '\0';
        j->memory_mib = JOURNAL_GPU_UNKNOWN;
}

static bool is_forgotten(const struct journal_gpu *j, const struct gpu *gpu)
{
        return !*j->vbios && !*j->inforom && !*j->quarantine && (gpu->vbios || gpu->inforom);
}

void gpuhost_recall(struct gpuhost *g, const struct gpu *gpu, struct gpu_row *row)
{
        struct journal_gpu *j = &row->j;
        const char *driver = g->fleet.driver_version ? g->fleet.driver_version : "";
        struct err e = { 0 };
        int r = journal_gpu_get(g->spec.journal, gpu->uuid, j, &e);

        if (r <= 0) {
                *j = (struct journal_gpu){ .first_us = clock_wall_us() };
                (void) snprintf(j->uuid, sizeof j->uuid, "%s", gpu->uuid);
                gpuhost_first_seen(g, gpu, j);
        }
        if (r < 0) { /* it may be in quarantine: so it is, and what is written stays as it is */
                (void) snprintf(j->quarantine, sizeof j->quarantine,
                                "what is known of it cannot be read: %.150s", e.msg);
                j->since_us = clock_wall_us();
                row->unread = true;
        } else if (r == 0) {
                gpuhost_remember(g, j);
        } else if (!str_eq(j->driver,
                           driver)) { /* another one needs more memory for itself, or less */
                (void) snprintf(j->driver, sizeof j->driver, "%s", driver);
                j->memory_mib = JOURNAL_GPU_UNKNOWN;
                gpuhost_remember(g, j);
        }
        if (journal_rebooted(g->spec.journal) && j->xid) { /* the driver has forgotten it, too */
                j->xid = 0;
                gpuhost_remember(g, j);
        }
}

/* One write a day: what lasts is whether it was here within a month. */
void gpuhost_seen(struct gpuhost *g, const struct gpu *gpu, struct gpu_row *row)
{
        uint64_t now = clock_wall_us();
        bool due = row->j.seen_us > now || now - row->j.seen_us >= SEEN_US;

        if (is_forgotten(&row->j, gpu))
                gpuhost_first_seen(g, gpu, &row->j);
        else if (!due || row->unread)
                return;
        row->j.seen_us = now;
        gpuhost_remember(g, &row->j);
}

void gpuhost_forget_gone(struct gpuhost *g)
{
        uint64_t now = clock_wall_us(), mono = clock_mono_us();
        struct err e = { 0 };
        int r;

        if (g->looked_us && mono - g->looked_us < SEEN_US)
                return;
        g->looked_us = mono;
        for (size_t i = 0; i < g->fleet.n; i++)
                if (g->rows[i].listed)
                        gpuhost_seen(g, &g->fleet.gpus[i], &g->rows[i]);
        r = now > GONE_US ? journal_gpu_expire(g->spec.journal, now - GONE_US, &e) : 0;
        if (r < 0)
                log_warn("%s", e.msg);
        else if (r > 0)
                log_info("%d GPUs that have not been here for 30 days are forgotten", r);
}

const struct journal_gpu *gpuhost_remembered(const struct gpuhost *g, const char *uuid)
{
        const struct gpu *gpu = gpu_fleet_find(&g->fleet, uuid);

        return gpu ? &g->rows[gpu - g->fleet.gpus].j : NULL;
}
