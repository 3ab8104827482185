/* gpuhost_hang.c - GPUs about which a driver call did not come back, or ended vmm-gpu: left out for a
 * while, longer each time.  By UUID, for some hang before anybody has seen them listed.  Engine
 * process, loop thread. */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "base/str.h"
#include "engine/gpu/gpuhost_priv.h"

#define LEFT_OUT_US  (60 * US_PER_S)
#define DOUBLED_MOST 4U /* times */

static struct gpu_hang *find(struct gpuhost *g, const char *uuid)
{
        for (size_t i = 0; i < g->n_hangs; i++)
                if (str_eq(g->hangs[i].uuid, uuid))
                        return &g->hangs[i];
        return NULL;
}

const struct gpu_hang *gpuhost_hang(const struct gpuhost *g, const char *uuid)
{
        const struct gpu_hang *h = find((struct gpuhost *) (uintptr_t) g, uuid);

        return h && h->hung ? h : NULL;
}

void gpuhost_hang_over(struct gpuhost *g, const char *uuid)
{
        struct gpu_hang *h = find(g, uuid);

        if (h)
                h->hung = false;
}

void gpuhost_hang_omit(const struct gpuhost *g, json_t *omit)
{
        uint64_t now = clock_mono_us();

        for (size_t i = 0; i < g->n_hangs; i++)
                if (g->hangs[i].until_us > now)
                        (void) json_array_append_new(omit, json_string(g->hangs[i].uuid));
}

static int on_retry(sd_event_source *s, uint64_t usec, void *arg);

/* The first of those that are left out is due. */
static void plan_retry(struct gpuhost *g)
{
        uint64_t now = clock_mono_us(), first = UINT64_MAX;

        for (size_t i = 0; i < g->n_hangs; i++)
                if (g->hangs[i].until_us > now && g->hangs[i].until_us < first)
                        first = g->hangs[i].until_us;
        g->retry = sd_event_source_disable_unref(g->retry);
        if (first != UINT64_MAX &&
            sd_event_add_time(g->spec.loop, &g->retry, CLOCK_MONOTONIC, first + US_PER_MS,
                              100 * US_PER_MS, on_retry, g) < 0)
                log_error("vmm-gpu: timer");
}

static int on_retry(sd_event_source *s, uint64_t usec, void *arg)
{
        struct gpuhost *g = arg;

        (void) s;
        (void) usec;
        (void) gpuhost_send_open(g); /* what hangs again is left out for longer */
        plan_retry(g);
        return 0;
}

void gpuhost_hang_blame(struct gpuhost *g, const struct gpu_child_end *end)
{
        const struct gpu *gpu = gpu_fleet_find(&g->fleet, end->gpu);
        const char *uuid = gpu && gpu->parent ? gpu->parent : end->gpu; /* with its instances */
        struct gpu_hang *h = find(g, uuid);
        uint64_t now = clock_mono_us();
        unsigned doubled;

        if (!h) { /* no machine has more; the first one is looked at again in time */
                h = &g->hangs[g->n_hangs < GPU_MAX ? g->n_hangs++ : 0];
                *h = (struct gpu_hang){ .hung = false };
                (void) snprintf(h->uuid, sizeof h->uuid, "%s", uuid);
        }
        if (now > h->until_us + (LEFT_OUT_US << DOUBLED_MOST)) /* it was well for long */
                h->times = 0;
        doubled = h->times < DOUBLED_MOST ? h->times : DOUBLED_MOST;
        h->times++;
        h->hung = true;
        h->until_us = now + (LEFT_OUT_US << doubled);
        if (end->hung)
                (void) snprintf(h->why, sizeof h->why,
                                "a driver call (%s) has not come back for %llu s", end->call,
                                (unsigned long long) (GPU_SILENCE_US / US_PER_S));
        else
                (void) snprintf(h->why, sizeof h->why,
                                "a driver call (%s) has ended the program that made it", end->call);
        plan_retry(g);
}
