/* channel.h - the engine's end of the node protocol (docs/node-protocol.md).
 *
 * Listens on DIR-independent /run/hypervisor-vmm/<id>/node.sock, serves one control plane at a
 * time, checks its uid.  Loop thread; nothing blocks. */
#pragma once
#include <jansson.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/mem.h"
#include "engine/host.h"

struct channel;
struct fleet;
struct gpuhost;
struct inventory;

struct channel_spec {
        sd_event *loop;
        const struct host *host;
        uint64_t epoch;
        uid_t peer_uid;          /* the control plane's; root is accepted too */
        const json_t *inventory; /* borrowed: sent with hello */
        int inner_fd;            /* listening socket for api.internal, -EBADF: none; borrowed */
        void (*on_synced)(void *arg); /* a control plane has answered hello; may be NULL */
        /* which API keys there are: a message of type "keys"; may be NULL */
        int (*on_keys)(void *arg, const json_t *msg, struct err *e);
        void *arg;
};

int channel_new(const struct channel_spec *spec, struct channel **ret, struct err *e);
struct channel *channel_free(struct channel *c);
DEFINE_AUTO(struct channel *, channel_free)
void channel_set_fleet(struct channel *c, struct fleet *f);

/* The host's GPUs: told after every welcome, and when gpuhost calls these (gpuhost.h). */
void channel_set_gpus(struct channel *c, const struct gpuhost *g);
void channel_gpus_changed(struct channel *c);
void channel_gpu_telemetry(struct channel *c, const json_t *msg);
void channel_gpu_event(struct channel *c, const json_t *msg);

/* fleet_security_fn: something that a cluster did, or that was done to it (docs/node-protocol.md,
 * "Security").  @kind: seccomp, apparmor, oom, device, signal; @message: a sentence without control
 * characters.  For whoever detects such a thing; may be called at any rate. */
void channel_security_event(void *channel, const char *cluster, uint64_t generation,
                            const char *kind, const char *message);

/* fleet_report_fn: send a report, with epoch and sequence number, if anyone listens. */
void channel_report(void *channel, const json_t *report);
