/* telemetry.c - what was measured of the GPUs in the last second.  tensorone-api, loop thread.
 * Never stored: the next second brings it again. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/str.h"
#include "control/plane/plane_priv.h"

#define OLD_US (10 * US_PER_S) /* nobody is shown what is older */

void telemetry_take(struct plane *p, struct gpu_telemetry *t, size_t n)
{
        free(p->telemetry);
        p->telemetry = t;
        p->n_telemetry = n;
        p->telemetry_us = clock_wall_us();
        p->telemetry_mono_us = clock_mono_us();
        for (size_t i = 0; i < n && !p->foreign; i++)
                idle_note_gpu(p, &t[i]);
}

const struct gpu_telemetry *plane_telemetry(const struct plane *p, const char *uuid,
                                            uint64_t *ret_at_us)
{
        if (p->foreign || clock_mono_us() - p->telemetry_mono_us > OLD_US)
                return NULL;
        for (size_t i = 0; i < p->n_telemetry; i++) {
                if (!str_eq(p->telemetry[i].uuid, uuid))
                        continue;
                if (ret_at_us)
                        *ret_at_us = p->telemetry_us;
                return &p->telemetry[i];
        }
        return NULL;
}
