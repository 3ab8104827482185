/* gpuhost.h - the host's GPUs as the engine knows them: it runs vmm-gpu, believes what that says after
 * checking it, replaces it when it hangs, remembers quarantine over restarts, and tells whoever
 * listens.  Engine process, loop thread; nothing here blocks on the driver. */
#pragma once
#include <jansson.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/mem.h"
#include "engine/gpu/driver.h"
#include "engine/host.h"
#include "model/gpu.h"

struct gpuhost;
struct journal;

struct gpuhost_spec {
        sd_event *loop;
        const struct host *host;
        struct journal *journal;         /* first-seen versions and quarantine are kept there */
        const struct gpu_driver *driver; /* borrowed */
        /* all may be NULL; messages are as docs/gpu.md has them, borrowed */
        void (*changed)(void *arg);                      /* the fleet is another one now */
        void (*telemetry)(void *arg, const json_t *msg); /* once a second */
        void (*event)(void *arg, const json_t *msg);
        /* a cluster has it: what is in use then says nothing about an idle GPU; NULL: none ever has */
        bool (*is_leased)(void *arg, const char *uuid);
        /* the cluster that may have it open although its plan does not name it; NULL: none */
        const char *(*open_in)(void *arg, const char *uuid);
        void *arg;
};

int gpuhost_new(const struct gpuhost_spec *spec, struct gpuhost **ret, struct err *e);
struct gpuhost *gpuhost_free(struct gpuhost *g); /* ends vmm-gpu; blocks for a moment */
DEFINE_AUTO(struct gpuhost *, gpuhost_free)

/* Borrowed until the next turn of the loop; with n = 0 and a note until vmm-gpu has answered. */
const struct gpu_fleet *gpuhost_fleet(const struct gpuhost *g);
/* vmm-gpu has answered, or will not soon, or there is no driver: what gpuhost_fleet() says is the answer. */
bool gpuhost_is_known(const struct gpuhost *g);
/* The last telemetry message; NULL: none yet. */
const json_t *gpuhost_telemetry(const struct gpuhost *g);

/* Ask vmm-gpu for the state of these GPUs now, for a hand-over.  @done comes once: the `gpus` array of
 * a "checked" message, or NULL with @e (-ETIMEDOUT after 5 s, -EPIPE when vmm-gpu died). */
typedef void gpuhost_check_fn(void *arg, const json_t *gpus, const struct err *e);
int gpuhost_check(struct gpuhost *g, char *const *uuids, gpuhost_check_fn *done, void *arg,
                  struct err *e);

/* How it was when it was first seen, in use by nobody, and its last Xid; borrowed until the next turn of
 * the loop.  NULL: no such GPU. */
struct journal_gpu;
const struct journal_gpu *gpuhost_remembered(const struct gpuhost *g, const char *uuid);

/* Kept over restarts.  @reason NULL: ends it (the operator's release): how it is now is then
 * what later checks compare with.  -ENOENT: no such GPU. */
int gpuhost_quarantine(struct gpuhost *g, const char *uuid, const char *reason, const char *cluster,
                       struct err *e);

/* GPUs were claimed or released, by any engine on this machine (claim_watch_open()), or a cluster may
 * have one open now that it was not given. */
void gpuhost_claims_changed(struct gpuhost *g);

/* vmm-gpu without these GPUs from now on: its open handles would block a rebind. */
int gpuhost_omit(struct gpuhost *g, char *const *uuids, struct err *e);
