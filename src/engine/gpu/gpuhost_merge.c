/* gpuhost_merge.c - see gpuhost_priv.h.  Pure. */
#include <errno.h>
#include <stdlib.h>

#include "base/str.h"
#include "engine/gpu/gpuhost_priv.h"

#define NOWHERE SIZE_MAX

/* For each GPU of the result where it lies in the two. */
struct origin {
        size_t was, now;
};

static size_t position(const struct gpu_fleet *f, const char *uuid)
{
        const struct gpu *g = gpu_fleet_find(f, uuid);

        return g ? (size_t) (g - f->gpus) : NOWHERE;
}

/* An instance that was taken apart does not come back; a GPU may. */
static bool is_kept(const struct gpu *g, const struct gpu_fleet *now)
{
        return !g->parent || !gpu_fleet_find(now, g->parent);
}

/* Today's in their order, then the missing ones.  Returns how many. */
static size_t find_origins(const struct gpu_fleet *was, const struct gpu_fleet *now,
                           struct origin *o, size_t *ret_missing)
{
        size_t n = 0;

        *ret_missing = 0;
        for (size_t i = 0; i < now->n; i++)
                o[n++] = (struct origin){ position(was, now->gpus[i].uuid), i };
        for (size_t i = 0; i < was->n && n < GPU_MAX; i++)
                if (position(now, was->gpus[i].uuid) == NOWHERE && is_kept(&was->gpus[i], now)) {
                        o[n++] = (struct origin){ i, NOWHERE };
                        (*ret_missing)++;
                }
        return n;
}

static int copy_gpu(const struct gpu *from, struct gpu *to)
{
        json_t *j = gpu_encode(from);
        int r = j ? gpu_decode(j, to, NULL) : -ENOMEM;

        json_decref(j);
        return r;
}

static struct gpu_link link_between(const struct gpu_fleet *was, const struct gpu_fleet *now,
                                    const struct origin *a, const struct origin *b)
{
        if (a->now != NOWHERE && b->now != NOWHERE)
                return now->links[a->now * now->n + b->now];
        if (a->was != NOWHERE && b->was != NOWHERE)
                return was->links[a->was * was->n + b->was];
        return (struct gpu_link){ 0 };
}

/* The sets of @from in positions of the result; @today says which of the two @from is. */
static int copy_partitions(const struct gpu_fleet *from, bool today, const struct origin *o,
                           size_t n, struct gpu_fleet *ret)
{
        ret->partitions = calloc(from->n_partitions + 1, sizeof *ret->partitions);
        if (!ret->partitions)
                return -ENOMEM;
        for (size_t p = 0; p < from->n_partitions; p++) {
                uint64_t set = 0, left = from->partitions[p];

                for (size_t i = 0; i < n; i++) {
                        size_t at = today ? o[i].now : o[i].was;

                        if (at == NOWHERE || !(from->partitions[p] >> at & 1))
                                continue;
                        set |= 1ULL << i;
                        left &= ~(1ULL << at);
                }
                if (!left) /* else one of them is no more */
                        ret->partitions[ret->n_partitions++] = set;
        }
        return 0;
}

static int fill(const struct gpu_fleet *was, const struct gpu_fleet *now, const struct origin *o,
                size_t n, bool whole, struct gpu_fleet *ret)
{
        const struct gpu_fleet *names = now->driver_version ? now : was;

        ret->gpus = calloc(n + 1, sizeof *ret->gpus);
        ret->links = calloc(n * n + 1, sizeof *ret->links);
        if (!ret->gpus || !ret->links)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++) {
                int r = copy_gpu(o[i].now != NOWHERE ? &now->gpus[o[i].now] : &was->gpus[o[i].was],
                                 &ret->gpus[i]);

                if (r < 0)
                        return r;
                ret->n = i + 1;
        }
        for (size_t a = 0; a < n; a++)
                for (size_t b = 0; b < n; b++)
                        ret->links[a * n + b] = link_between(was, now, &o[a], &o[b]);
        ret->driver_version = str_dup(names->driver_version);
        ret->cuda_version = str_dup(names->cuda_version);
        ret->note = str_dup(now->note);
        ret->simulated = now->simulated;
        return copy_partitions(whole || !was->n_partitions ? now : was, whole || !was->n_partitions,
                               o, n, ret);
}

int gpu_fleet_merge(const struct gpu_fleet *was, const struct gpu_fleet *now, struct gpu_fleet *ret)
{
        struct origin o[GPU_MAX];
        struct gpu_fleet f = { 0 };
        size_t missing, n = find_origins(was, now, o, &missing);
        int r = fill(was, now, o, n, missing == 0, &f);

        if (r < 0) {
                gpu_fleet_done(&f);
                return r;
        }
        *ret = f;
        return 0;
}
