/* change_gpu.c - other GPUs for a cluster that runs.  Operation process.
 *
 * What shall be there is bound as at a start (gpu_bind), and then made so in one go while the
 * cluster's processes are held still: nobody may hold a device that goes, the group opens exactly the
 * new set, and nodes, /proc/driver and, for the first GPU, the driver's files follow.  It is the whole
 * set each time, so that any earlier state will do.
 *
 * Claims are taken before (boot/change.c) and given back by the engine, after the check of a GPU that
 * was taken away. */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/str.h"
#include "engine/boot/change.h"
#include "engine/boot/holders.h"
#include "engine/claim/claim.h"
#include "engine/gpu/bind.h"

#define FREEZE_US (5 * US_PER_S)

/* One set of GPUs, opened. */
struct set {
        struct gpu *gpus; /* borrowed contents */
        size_t n;
        struct gpu_binding bound;
        struct slice_device *rules;
        size_t n_rules;
};

static void set_done_cleanup(struct set *s)
{
        gpu_binding_done(&s->bound);
        free(s->rules);
        free(s->gpus);
}

static const struct gpu *known(const struct boot *b, const char *uuid)
{
        for (size_t i = 0; i < b->n_gpus; i++)
                if (str_eq(b->gpus[i].uuid, uuid))
                        return &b->gpus[i];
        return NULL;
}

/* The engine says whether all that it named together is all that there is. */
static bool is_whole_fabric(const struct boot *b, const struct plan *p)
{
        size_t all = 0, mine = 0;

        for (size_t i = 0; i < b->n_gpus; i++)
                all += !b->gpus[i].mig_profile;
        for (char *const *id = p->gpus; id && *id; id++) {
                const struct gpu *g = known(b, *id);

                mine += g && !g->mig_profile;
        }
        return b->whole_fabric && all == mine;
}

/* @strict: each of them must be known; else those that are lost are passed over. */
static int open_set(const struct change *c, const struct plan *p, bool strict, struct set *ret,
                    struct err *e)
{
        const struct boot *b = c->b;
        static const char name[] = "NVIDIA_DRIVER_CAPABILITIES";
        const struct gpu_driver *d = b->host->gpu_driver;
        const char *caps = strv_env_get(p->env, name);
        int r;

        gpu_binding_init(&ret->bound);
        ret->gpus = calloc(strv_len(p->gpus) + 1, sizeof *ret->gpus);
        if (!ret->gpus)
                return err_set(e, -ENOMEM, "out of memory");
        for (char *const *id = p->gpus; id && *id; id++) {
                const struct gpu *g = known(b, *id);

                if (!g && strict)
                        return err_set(e, -ENODEV, "gpu %s is not on this host", *id);
                if (g)
                        ret->gpus[ret->n++] = *g;
        }
        if (ret->n == 0)
                return 0;
        if (!d || d->kind == GD_NONE)
                return err_set(e, -ENODEV, "gpuCount: this host has no GPU driver");
        if (!caps)
                caps = strv_env_get(b->image.config.env, name);
        r = gpu_bind(d, ret->gpus, ret->n, caps, is_whole_fabric(b, p), &ret->bound, e);
        if (r >= 0)
                r = gpu_bind_proc(d, ret->gpus, ret->n, &ret->bound, e);
        return r < 0 ? r : gpu_binding_rules(&ret->bound, &ret->rules, &ret->n_rules, e);
}

/* Nodes, /proc/driver and files inside. */
static int show(const struct change *c, const struct set *s, bool files, struct err *e)
{
        const struct gpu_binding *g = &s->bound;
        AUTO(free) struct sandbox_device *dev = calloc(g->n_devices + 1, sizeof *dev);
        AUTO(free) struct sandbox_bind *bind = calloc(g->n_mounts + 1, sizeof *bind);
        AUTO(free) struct sandbox_symlink *link = calloc(g->n_symlinks + 1, sizeof *link);
        AUTO(free) struct sandbox_library *lib = calloc(g->n_libraries + 1, sizeof *lib);
        struct sandbox_spec spec = { .profile = plan_profile(&c->b->plan),
                                     .devices = dev,
                                     .n_devices = g->n_devices,
                                     .binds = bind,
                                     .symlinks = link,
                                     .libraries = lib };
        const struct sandbox_live live = { .init_pidfd = c->b->proc.init_pidfd,
                                           .id_base = claim_id_base(c->b->slot),
                                           .spec = &spec,
                                           .allowed = s->rules,
                                           .n_allowed = s->n_rules,
                                           .proc_mnt = g->proc_mnt };

        if (!dev || !bind || !link || !lib)
                return err_set(e, -ENOMEM, "out of memory");
        for (size_t i = 0; i < g->n_devices; i++)
                dev[i] = (struct sandbox_device){ g->devices[i].name, g->devices[i].fd,
                                                  g->devices[i].mode };
        for (size_t i = 0; i < g->n_mounts; i++)
                bind[i] = (struct sandbox_bind){ g->mounts[i].mnt, g->mounts[i].target, true };
        for (size_t i = 0; i < g->n_symlinks; i++)
                link[i] = (struct sandbox_symlink){ g->symlinks[i].target, g->symlinks[i].link };
        for (size_t i = 0; i < g->n_libraries; i++)
                lib[i] = (struct sandbox_library){ g->libraries[i].name, g->libraries[i].path,
                                                   g->libraries[i].is_32 };
        if (files) {
                spec.n_binds = g->n_mounts;
                spec.n_symlinks = g->n_symlinks;
                spec.n_libraries = g->n_libraries;
        }
        return sandbox_change(&live, e);
}

/* From @old to @s, or nothing: nobody has run in between. */
static int put_set(const struct change *c, const struct set *old, const struct set *s, bool files,
                   bool one_goes, struct err *e)
{
        struct slice_host *h = c->b->host->slices;
        int r = slice_freeze(h, c->slice, clock_mono_us() + FREEZE_US, e), thawed;

        if (r < 0)
                return r;
        /* who has a GPU's node has handles of the driver, too, which reach as far as the nodes did
         * that it had open once: so when one is taken away nobody may use any */
        r = one_goes ? holders_check(h, c->slice, NULL, 0, e)
                     : holders_check(h, c->slice, s->rules, s->n_rules, e);
        if (r >= 0) {
                r = slice_devices(h, c->slice, s->rules, s->n_rules, e);
                if (r >= 0)
                        r = show(c, s, files, e);
                if (r < 0) {
                        (void) slice_devices(h, c->slice, old->rules, old->n_rules, NULL);
                        (void) show(c, old, false, NULL);
                }
        }
        thawed = slice_thaw(h, c->slice, r < 0 ? NULL : e);
        return r < 0 ? r : thawed;
}

static bool is_subset(char *const *a, char *const *b)
{
        for (; a && *a; a++) {
                char *const *k = b;

                while (k && *k && !str_eq(*k, *a))
                        k++;
                if (!k || !*k)
                        return false;
        }
        return true;
}

bool change_has_gpus(const struct change *c)
{
        return !is_subset(c->from->gpus, c->to->gpus) || !is_subset(c->to->gpus, c->from->gpus);
}

int change_gpus_check(const struct change *c, struct err *e)
{
        AUTO(set_done) struct set s = { .n = 0 };

        if (!change_has_gpus(c))
                return 0;
        if (c->b->proc.init_pidfd < 0)
                return err_set(e, -ESRCH, "its first process has ended");
        return open_set(c, c->to, true, &s, e);
}

int change_gpus(const struct change *c, struct err *e)
{
        AUTO(set_done) struct set s = { .n = 0 }, old = { .n = 0 };
        int r;

        if (!change_has_gpus(c))
                return 0;
        gpu_binding_init(&old.bound);
        r = open_set(c, c->to, true, &s, e);
        if (r >= 0)
                r = open_set(c, c->from, false, &old, e);
        return r < 0 ? r
                     : put_set(c, &old, &s, strv_len(c->from->gpus) == 0,
                               !is_subset(c->from->gpus, c->to->gpus), e);
}

int change_gpus_back(const struct change *c, struct err *e)
{
        AUTO(set_done) struct set s = { .n = 0 };
        int r;

        if (!change_has_gpus(c))
                return 0;
        r = open_set(c, c->from, false, &s, e);
        return r < 0 ? r : put_set(c, &s, &s, false, false, e);
}
