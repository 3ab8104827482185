/* fleet.h - every cluster of this host and what is being done about it.
 *
 * The control plane says what should be (assign, tombstone), operations and monitors say what
 * happened, and one function per cluster, unit_settle(), starts whatever brings the two together.
 * It is safe to call at any time and any number of times: all it knows is in the journal row.
 * Loop thread only; nothing blocks but journal commits and short file reads. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/mem.h"
#include "edge/pages.h"
#include "engine/host.h"
#include "engine/image/image.h"
#include "engine/net/net.h"

struct fleet;
struct gpu_fleet;
struct journal;
struct handover;
struct pool;
struct op_runner;

/* A report for the control plane (docs/node-protocol.md); borrowed. */
typedef void fleet_report_fn(void *arg, const json_t *report);

/* Something that a cluster did, or that was done to it: channel_security_event(). */
typedef void fleet_security_fn(void *arg, const char *cluster, uint64_t generation,
                               const char *kind, const char *message);

/* What the edge carried for a cluster, for the idle stop (docs/edge.md): all that others began; never what
 * the cluster itself sends out, which would keep it awake for ever.  The counter may begin anew at any time. */
struct fleet_traffic {
        uint64_t bytes;       /* both ways, so far */
        uint32_t connections; /* open now */
};
/* False: not known (now). */
typedef bool fleet_traffic_fn(void *edge, const char *cluster, struct fleet_traffic *ret);

struct fleet_spec {
        sd_event *loop;
        const struct host *host;
        struct journal *journal;
        struct pool *pool;
        struct op_runner *runner;
        struct handover *handover;
        fleet_report_fn *report;
        fleet_security_fn *security;   /* may be NULL */
        void *arg;                     /* of both */
        void (*released)(void *arg);   /* a cluster's network was given back; may be NULL */
        void (*image_died)(void *arg); /* an image operation was killed; may be NULL */
        void *upkeep;                  /* argument of the two */
        /* a cluster has this slot from now on; @account NULL: it has not; may be NULL */
        void (*named)(void *names, uint32_t slot, const char *account, const char *cluster);
        /* where whoever asks for it by a name of the edge's is led; may be NULL */
        void (*routed)(void *names, const char *cluster, const struct edge_to *to);
        /* nobody finds that address by one of its names any more; else fleet_unrouted() will say so; may be NULL */
        bool (*unrouted)(void *names, const char *cluster);
        void *names;               /* of the three */
        fleet_traffic_fn *traffic; /* may be NULL */
        void *edge;
};

/* Reads the journal and compares it with the kernel: adopts what runs, finishes or undoes what was
 * half-way, sweeps what nobody owns. */
int fleet_new(const struct fleet_spec *spec, struct fleet **ret, struct err *e);
/* Ends operations (their clusters are resumed at the next start); those that release resources get
 * some seconds to finish.  Nothing new starts after that; running clusters go on.  Runs the loop. */
void fleet_stop(struct fleet *f);
struct fleet *fleet_free(struct fleet *f); /* also without fleet_stop() before */
DEFINE_AUTO(struct fleet *, fleet_free)

/* The registry credentials that a plan names, as the control plane has them now: in memory for the
 * length of a pull, never on the disk. */
struct fleet_login {
        const char *username, *password;
        const char *error; /* why there are none; NULL: there are */
};
/* What should be.  @plan: JSON of model/plan.h.  An older generation is ignored.  @login: the answer
 * to a report with `credentials_wanted`, or NULL; @secrets: of one with `secrets_wanted`, as it came;
 * @ssh_keys: of its account now, lines of authorized_keys, or NULL: it says by its variables who logs in. */
int fleet_assign(struct fleet *f, const char *cluster, uint64_t generation, bool running,
                 const json_t *plan, const struct fleet_login *login, const json_t *secrets,
                 const char *ssh_keys, struct err *e);
int fleet_tombstone(struct fleet *f, const char *cluster, uint64_t generation, struct err *e);
int fleet_forget(struct fleet *f, const char *cluster, struct err *e);

/* Report every cluster now (a control plane has connected). */
void fleet_report_all(struct fleet *f);
/* A message of gpuhost's (docs/gpu.md): what concerns a lease is written down with its cluster. */
void fleet_gpu_event(struct fleet *f, const json_t *event);
/* GPUs have another state now: clusters that hold one that is not well say so, and go on. */
void fleet_gpus_changed(struct fleet *f, const struct gpu_fleet *gpus);
/* The cluster that holds it, also while that is checked; NULL: none.  Borrowed. */
const char *fleet_gpu_holder(const struct fleet *f, const char *uuid);
/* The cluster that may have it open although it was refused it; NULL: none.  Borrowed. */
const char *fleet_gpu_open_in(const struct fleet *f, const char *uuid);
/* Call @fn for every cluster that has a slot, as spec.named would be. */
void fleet_each_name(const struct fleet *f,
                     void (*fn)(void *arg, uint32_t slot, const char *account, const char *cluster),
                     void *arg);
/* Whoever waits for that may go on; @cluster NULL: all. */
void fleet_unrouted(struct fleet *f, const char *cluster);
/* Told of the cluster that has @slot; nothing when none of ours has. */
void fleet_security(struct fleet *f, uint32_t slot, const char *kind, const char *message);
size_t fleet_count(const struct fleet *f);      /* clusters with a record */
size_t fleet_count_held(const struct fleet *f); /* that hold host resources */

/* Descriptors for reading a cluster's logs: log.0, log.1 and, when it runs, a connection to its
 * monitor.  Returns how many (2 or 3); the caller closes them. */
int fleet_logs(struct fleet *f, const char *cluster, int ret_fds[static 3], struct err *e);

struct fleet_exec {
        char **argv, **env; /* borrowed; env is added to the cluster's */
        char **secrets;     /* borrowed: name=value, what the cluster's variables name */
        const char *cwd, *user;
        bool tty;
        uint16_t rows, cols; /* of the terminal; 0: the client says later */
        uint32_t
                keep_s; /* of one with a terminal: how long it waits for its client to come back; 0: not */
};
/* @done: r >= 0 and a connection to the session's monitor (the callee closes it) and its id. */
typedef void fleet_exec_fn(void *arg, int r, const char *session, int fd, const struct err *e);
int fleet_exec(struct fleet *f, const char *cluster, const struct fleet_exec *x,
               fleet_exec_fn *done, void *arg, struct err *e);
/* Another connection to a session that was started with keep_s; -ENOENT: it has ended. */
int fleet_attach(struct fleet *f, const char *cluster, const char *session, int *ret_fd,
                 struct err *e);

int fleet_stats(struct fleet *f, const char *cluster, json_t **ret, struct err *e);

/* Image operations, shared between clusters that wait for the same image and direct requests.
 * Pulls and uploads wait for a place, in turns of their accounts; progress says "waiting" until then.
 * @done comes once, and may come before the call returns; not after a negative return. */
typedef void fleet_pull_fn(void *arg, int r, const struct image *image, const struct err *e);
typedef void fleet_progress_fn(void *arg, const struct image_progress *p);
struct pull;
/* @cred->account: for whom, never empty; what its own credentials open is nobody else's. */
int fleet_pull(struct fleet *f, const char *reference, const struct image_credentials *cred,
               bool force, fleet_progress_fn *progress, fleet_pull_fn *done, void *arg,
               struct err *e);
int fleet_import(struct fleet *f, const char *account, bool is_public, const char *name, int stream,
                 fleet_progress_fn *progress, fleet_pull_fn *done, void *arg, struct err *e);
int fleet_image_remove(struct fleet *f, const char *account, bool is_admin, const char *reference,
                       fleet_pull_fn *done, void *arg, struct err *e);
/* At start: finish what a kill left of a removal. */
void fleet_images_tidy(struct fleet *f);
/* Let images go that nobody has used for long, and others until the configured space and @need bytes
 * more are free (engine/image/expire.h).  Returns at once. */
void fleet_images_expire(struct fleet *f, uint64_t need);
/* Clusters that run from it say so, and go on. */
void fleet_image_damaged(struct fleet *f, uint64_t image, const char *why);
/* Image operations of the account that wait for a place. */
size_t fleet_pulls_waiting(const struct fleet *f, const char *account);
/* What the cluster in that slot may do on the network, as net_policy_fn wants it; @fleet is one. */
bool fleet_net_policy(void *fleet, uint32_t slot, struct net_policy *ret);
/* Ids of the images that clusters were booted from by this engine, as upkeep_images_fn wants them;
 * those of an earlier engine hold mounts of their own. */
size_t fleet_images(void *fleet, uint64_t *ret, size_t max);
/* Images (image.use) that clusters of @account, NULL: of all, use now: NULL-terminated, borrowed strings
 * in a heap array. */
char **fleet_images_in_use(struct fleet *f, const char *account);
/* Forget callbacks of a requester that went away; returns how many.  Pulls and uploads that nobody
 * else waits for are ended. */
size_t fleet_drop_requests(struct fleet *f, const void *arg);
