/* stage_gpu.c - the gpu stage: the cluster's GPUs are claimed, over all engines of this machine, and
 * what it gets to see of them is opened.  The slice stage lets the nodes be opened, the session stage
 * puts nodes, files and links where the program finds them, and makes /proc/driver.  Operation process, but for
 * boot_take_gpus().
 *
 * The descriptors end with this process; the claims when the engine has looked at the GPUs
 * (gpu/handover.h). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "engine/boot/stage.h"
#include "engine/claim/claim.h"

int boot_take_gpus(struct boot *b, const struct gpu_fleet *fleet, struct err *e)
{
        size_t n = strv_len(b->plan.gpus), whole = 0, mine = 0;

        if (n == 0)
                return 0;
        b->gpus = calloc(n, sizeof *b->gpus);
        if (!b->gpus)
                return err_set(e, -ENOMEM, "out of memory");
        for (size_t i = 0; i < n; i++) {
                const struct gpu *g = gpu_fleet_find(fleet, b->plan.gpus[i]);
                int r;

                if (!g)
                        return err_set(e, -ENODEV, "gpu %s is not on this host", b->plan.gpus[i]);
                if (!gpu_is_for_rent(g))
                        return err_set(e, -EINVAL, "gpu %s is divided and cannot be had as a whole",
                                       b->plan.gpus[i]);
                r = gpu_copy(g, &b->gpus[i]);
                if (r < 0)
                        return err_set(e, r, "out of memory");
                b->n_gpus++;
                mine += !g->mig_profile;
        }
        for (size_t i = 0; i < fleet->n; i++)
                whole += !fleet->gpus[i].mig_profile;
        b->whole_fabric = mine == whole;
        return 0;
}

static int check(const struct boot *b, struct err *e)
{
        const struct gpu_driver *d = b->host->gpu_driver;

        if (!d || d->kind == GD_NONE)
                return err_set(e, -ENODEV, "gpuCount: this host has no GPU driver%s%s",
                               d && d->note ? ": " : "", d && d->note ? d->note : "");
        if (b->n_gpus != b->plan.gpu_count || strv_len(b->plan.gpus) != b->plan.gpu_count)
                return err_set(e, -EINVAL, "gpuCount: %u, but %zu GPUs are named",
                               b->plan.gpu_count, strv_len(b->plan.gpus));
        for (size_t i = 0; i < b->n_gpus; i++)
                if (!str_eq(b->gpus[i].uuid, b->plan.gpus[i]))
                        return err_set(e, -EINVAL, "gpu %s: nothing is known of it",
                                       b->plan.gpus[i]);
        return 0;
}

int stage_gpu_run(struct boot *b, struct err *e)
{
        static const char name[] = "NVIDIA_DRIVER_CAPABILITIES";
        const char *caps = strv_env_get(b->plan.env, name);
        int r;

        if (b->plan.gpu_count == 0)
                return 0;
        r = check(b, e);
        if (r >= 0)
                r = claim_gpus(b->host->claims, b->plan.cluster, b->plan.generation, b->plan.gpus,
                               e);
        if (!caps)
                caps = strv_env_get(b->image.config.env, name);
        return r < 0 ? r
                     : gpu_bind(b->host->gpu_driver, b->gpus, b->n_gpus, caps, b->whole_fabric,
                                &b->gpu, e);
}
