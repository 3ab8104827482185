/* gpus.c - what the control plane is told of the host's GPUs (docs/gpu.md).  Engine process, loop
 * thread. */
#include <errno.h>
#include <fcntl.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "engine/channel/channel_priv.h"
#include "engine/fleet/fleet.h"
#include "engine/gpu/gpuhost.h"
#include "engine/gpu/vfio.h"
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

/* With the cluster that has the GPU. */
void channel_gpu_event(struct channel *c, const json_t *msg)
{
        const char *uuid = jsonx_str(msg, "uuid");
        const char *holder = c->fleet && uuid ? fleet_gpu_holder(c->fleet, uuid) : NULL;
        AUTO(json_put) json_t *j = json_copy((json_t *) (uintptr_t) msg);

        if (j && holder)
                (void) json_object_set_new(j, "cluster", json_string(holder));
        if (j && c->welcome)
                channel_send(c, j, NULL, 0);
}

int channel_gpu_release(struct channel *c, const json_t *args, struct err *e)
{
        const char *uuid = jsonx_str(args, "uuid");
        const struct gpu *g;

        if (!gpu_uuid_ok(uuid))
                return err_set(e, -EINVAL, "uuid: is none");
        if (!c->spec.host->gpuhost)
                return err_set(e, -ENODEV, "this host has no GPUs");
        g = gpu_fleet_find(gpuhost_fleet(c->spec.host->gpuhost), uuid);
        if (g && g->state != GS_QUARANTINED)
                return err_set(e, -EBUSY, "%s is %s, only a quarantined GPU is released", uuid,
                               gpu_state_names[g->state]);
        return gpuhost_quarantine(c->spec.host->gpuhost, uuid, NULL, NULL, e);
}

int channel_gpu_vfio(struct channel *c, json_t **ret, struct err *e)
{
        const struct gpu_driver *d = c->spec.host->gpu_driver;
        bool simulated = d && d->kind == GD_SIMULATED;
        AUTO(vfio_done) struct vfio_inventory v = { 0 };
        AUTO(fd)
        int sys = simulated ? fd_open_in_root(d->root_fd, "sys", O_RDONLY | O_DIRECTORY, 0)
                            : open("/sys", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int r = sys < 0 ? err_errno(e, simulated ? sys : -errno, "/sys") : vfio_read(sys, &v, e);

        if (r < 0)
                return r;
        *ret = vfio_encode(&v);
        if (!*ret)
                return err_set(e, -ENOMEM, "out of memory");
        (void) json_object_set_new(*ret, "simulated", json_boolean(simulated));
        return 0;
}
