/* events.c - what the driver reports by itself (Xid, ECC, MIG), and clocks that are held back. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "gpu/gpud.h"
#include "model/gpu_xid.h"

#define WANTED          (NVML_EVENT_XID | NVML_EVENT_ECC_DOUBLE | NVML_EVENT_MIG_CONFIG)
#define EVENTS_A_SECOND 64
/* A GPU at its limit goes back and forth; that is told once a minute. */
#define THROTTLE_EVERY_US (60 * US_PER_S)

void gpud_watch(struct gpud *d)
{
        if (!d->nv.running || NVML(&d->nv, nvmlEventSetCreate, &d->events) != NVML_SUCCESS) {
                d->events = NULL;
                return;
        }
        for (size_t i = 0; i < d->n; i++) {
                struct gpud_dev *dev = &d->devs[i];
                uint64_t types = WANTED;
                int r;

                if (dev->whole != i)
                        continue;
                gpud_at(d, dev->info.uuid, "nvmlDeviceRegisterEvents");
                if (NVML(&d->nv, nvmlDeviceGetSupportedEventTypes, dev->handle, &types) ==
                    NVML_SUCCESS)
                        types &= WANTED;
                r = types ? NVML(&d->nv, nvmlDeviceRegisterEvents, dev->handle, types, d->events)
                          : NVML_SUCCESS;
                if (r != NVML_SUCCESS)
                        log_warn("%s: its events cannot be watched: %s", dev->info.uuid,
                                 nvml_text(&d->nv, r));
        }
}

void gpud_unwatch(struct gpud *d)
{
        if (d->events)
                (void) NVML(&d->nv, nvmlEventSetFree, d->events);
        d->events = NULL;
}

static void on_xid(struct gpud *d, struct gpud_dev *dev, uint64_t code)
{
        d->devs[dev->whole].memory->xid = code;
        gpud_event(d, dev->info.uuid, "xid", code, gpu_xid_text(code));
}

/* An Xid of a MIG instance is that instance's. */
static struct gpud_dev *who(struct gpud *d, const struct nvml_event *ev)
{
        struct gpud_dev *dev = gpud_by_handle(d, ev->device);
        size_t whole = dev ? dev->whole : d->n;

        for (size_t i = 0; i < d->n && ev->gi != UINT32_MAX; i++)
                if (d->devs[i].whole == whole && i != whole && d->devs[i].info.gi == ev->gi &&
                    (ev->ci == UINT32_MAX || d->devs[i].info.ci == ev->ci))
                        return &d->devs[i];
        return dev;
}

void gpud_drain(struct gpud *d)
{
        struct nvml_event ev;

        if (!d->events)
                return;
        gpud_at(d, "", "nvmlEventSetWait");
        for (int i = 0; i < EVENTS_A_SECOND; i++) {
                struct gpud_dev *dev;
                int r;

                ev = (struct nvml_event){ .gi = UINT32_MAX, .ci = UINT32_MAX };
                r = nvml_event_wait(&d->nv, d->events, &ev, 0);
                if (r == NVML_GPU_IS_LOST)
                        d->reopen = true; /* which one: the measurements will tell */
                if (r != NVML_SUCCESS)
                        return;
                dev = who(d, &ev);
                if (!dev)
                        continue;
                if (ev.type == NVML_EVENT_XID)
                        on_xid(d, dev, ev.data);
                else if (ev.type == NVML_EVENT_ECC_DOUBLE)
                        gpud_event(d, dev->info.uuid, "ecc", ev.data, "uncorrectable memory error");
                else if (ev.type == NVML_EVENT_MIG_CONFIG)
                        d->reopen = true;
        }
}

static const struct {
        uint64_t bit;
        const char *text;
} reasons_text[] = {
        { NVML_REASON_HW_THERMAL, "the GPU is too hot (hardware limit)" },
        { NVML_REASON_SW_THERMAL, "the GPU or its memory is too hot" },
        { NVML_REASON_POWER_BRAKE, "the power supply asks for it" },
        { NVML_REASON_HW_SLOWDOWN, "hardware slowdown" },
};

void gpud_note_throttle(struct gpud *d, struct gpud_dev *dev, uint64_t reasons)
{
        struct gpud_memory *m = dev->memory;
        uint64_t fresh = reasons & NVML_REASONS_THROTTLE & ~m->throttle, now = clock_mono_us();
        char text[96] = "clocks are held back";

        m->throttle = reasons;
        if (!fresh || (m->throttle_us && now - m->throttle_us < THROTTLE_EVERY_US))
                return;
        m->throttle_us = now;
        for (size_t i = 0; i < NELEM(reasons_text); i++)
                if (fresh & reasons_text[i].bit) {
                        (void) snprintf(text, sizeof text, "clocks are held back: %s",
                                        reasons_text[i].text);
                        break;
                }
        gpud_event(d, dev->info.uuid, "throttle", reasons, text);
}
