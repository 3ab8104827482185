/* gpus.c - what the control plane is told of the host's GPUs (docs/gpu.md).  Engine process, loop
 * thread. */
#include "base/jsonx.h"
#include "engine/channel/channel_priv.h"
#include "engine/gpu/gpuhost.h"
#include "engine/instance.h"
#include "model/gpu.h"

void channel_set_gpus(struct channel *c, const struct gpuhost *g)
{
        c->gpus = g;
}

void channel_gpus_changed(struct channel *c)
{
        AUTO(json_put) json_t *j = NULL;

        if (!c->welcome || !c->gpus)
                return;
        j = gpu_fleet_encode(gpuhost_fleet(c->gpus));
        if (j && json_object_set_new(j, "type", json_string("gpus")) >= 0 &&
            json_object_set_new(j, "prices", instance_prices(c->spec.host->inst)) >= 0)
                channel_send(c, j, NULL, 0);
}

void channel_gpu_telemetry(struct channel *c, const json_t *msg)
{
        if (c->welcome)
                channel_send(c, msg, NULL, 0);
}

void channel_gpu_event(struct channel *c, const json_t *msg)
{
        if (c->welcome)
                channel_send(c, msg, NULL, 0);
}
