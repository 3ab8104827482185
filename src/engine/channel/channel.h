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
struct inventory;

struct channel_spec {
        sd_event *loop;
        const struct host *host;
        uint64_t epoch;
        uid_t peer_uid;          /* the control plane's; root is accepted too */
        const json_t *inventory; /* borrowed: sent with hello */
        int inner_fd;            /* listening socket for api.internal, -EBADF: none; borrowed */
        void (*on_synced)(void *arg); /* a control plane has answered hello; may be NULL */
        void *arg;
};

int channel_new(const struct channel_spec *spec, struct channel **ret, struct err *e);
struct channel *channel_free(struct channel *c);
DEFINE_AUTO(struct channel *, channel_free)
void channel_set_fleet(struct channel *c, struct fleet *f);

/* fleet_report_fn: send a report, with epoch and sequence number, if anyone listens. */
void channel_report(void *channel, const json_t *report);
