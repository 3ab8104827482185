/* plane.h - the control plane itself: every cluster and template, and what may happen to them.
 *
 * All state is in memory, loaded at start; every change is made there, submitted to the store, and
 * told to the node after it is durable.  Who answers a client waits for plane_fence() first.
 * When the store fails, everything is loaded again.  Loop thread; nothing here blocks but
 * plane_new(). */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "control/account/account.h"
#include "control/node/node.h"
#include "control/place/reserve.h"
#include "control/plane/record.h"
#include "control/store/store.h"
#include "model/gpu_choose.h"
#include "model/gpu_type.h"
#include "model/gpu_telemetry.h"

#define AUDIT_KEEP_PRESET_US (90 * 24 * 3600 * 1000000ULL)
#define PLANE_DATA_CENTER    "LOCAL-1" /* the one host is one data centre */

struct plane;

struct plane_conf {
        sd_event *loop;
        const char *data_dir;             /* ours */
        uint64_t audit_keep_us;           /* so long; 0: the preset */
        const char *cluster_domain;       /* see plane_cluster_domain(); copied */
        int seal_fd;                      /* the file of the sealing key; -EBADF: there is none */
        const char *node_path;            /* the engine's socket */
        void (*inner)(void *arg, int fd); /* takes @fd: the listener for api.internal */
        void (*synced)(void *arg);        /* the engine is connected and knows what should be */
        void *arg;                        /* of both */
};

int plane_new(const struct plane_conf *conf, struct plane **ret, struct err *e);
struct plane *plane_free(struct plane *p);
DEFINE_AUTO(struct plane *, plane_free)

struct accounts *plane_accounts(const struct plane *p);
struct node *plane_node(const struct plane *p);
sd_event *plane_loop(const struct plane *p);

/* A cluster's web port is at https://ID-PORT.<that>; NULL: nowhere. */
const char *plane_cluster_domain(const struct plane *p);

/* Whether the store takes changes and the node is in sync. */
bool plane_healthy(const struct plane *p, const char **ret_why);

/* @done(0) once everything asked for so far is on disk, at once when it is; negative: something
 * of it was lost and must not be acknowledged. */
void plane_fence(struct plane *p, store_done_fn *done, void *arg);

/* A change of accounts: put the rows into *@ret, then submit. */
struct store_txn *plane_txn(struct plane *p);
void plane_submit(struct plane *p, struct store_txn *t);
/* Give up on a transaction whose change of memory was not completed. */
void plane_abandon(struct plane *p, struct store_txn *t);

/* ---- the node ---- */

struct plane_host {
        bool known;
        const char *id;
        const struct node_inventory *inv; /* NULL unless known */
        uint64_t vcpu_total, vcpu_taken;  /* logical CPUs times overcommit */
        uint64_t memory_mib, memory_taken_mib, disk_gib, disk_taken_gib;
        uint32_t gpus, gpus_taken;
};
void plane_host(const struct plane *p, struct plane_host *ret);

/* The node's GPUs as far as known; with n = 0 (and a note perhaps) where there are none.  Borrowed
 * until the next turn of the loop. */
const struct gpu_fleet *plane_gpus(const struct plane *p);
/* Their types: model/gpu_type.h.  Likewise. */
const struct gpu_types *plane_gpu_types(const struct plane *p);
/* Which of them are best together; NULL: none were ever named. */
const struct gpu_chooser *plane_gpu_chooser(const struct plane *p);
/* Of a type's id: the price of that very id, else the first of a wish that means it ("NVIDIA A100");
 * NULL: the operator names none. */
const struct node_price *plane_gpu_price(const struct plane *p, const char *type);

/* The cluster that leases it, or has not given it back yet; NULL: it is free. */
const char *plane_gpu_holder(const struct plane *p, const char *uuid);

/* ---- clusters ---- */

/* NULL: there is none, or @who may not see it. */
const struct cluster *plane_cluster(const struct plane *p, const struct caller *who,
                                    const char *id);
/* Call @fn for each that @who may see, oldest first; a negative return ends the walk. */
int plane_clusters(const struct plane *p, const struct caller *who,
                   int (*fn)(void *arg, const struct cluster *c), void *arg);

/* Everybody's, for what counts the host as a whole; also those that are being removed. */
int plane_all_clusters(const struct plane *p, int (*fn)(void *arg, const struct cluster *c),
                       void *arg);

const char *cluster_status(const struct cluster *c);         /* PodStatus */
const char *cluster_phase(const struct cluster *c);          /* "pulling" */
bool cluster_runs(const struct cluster *c);                  /* runtime is not null */
void cluster_host_id(const struct cluster *c, char ret[32]); /* "<id>-<8 hex>" */

/* A deployment as it was asked for; NULL, 0 and empty mean "not set". */
struct deploy {
        char *name, *image, *template_id, *docker_args, *ports, *volume_path;
        char **env;
        char *gpu_type, *gpu_type_too; /* two names of one field */
        char *registry_auth, *network_volume, *volume_key;
        char *data_center, *country, *stop_after, *terminate_after, *instance_id;
        char *security_profile, *readiness_path;
        char **egress; /* NULL: not said */
        char **allowed_ips;
        struct idle_wish idle;
        char **gpu_types, **instance_ids;
        char *cuda, *min_cuda, **cudas; /* of the driver, for a cluster with GPUs */
        uint32_t container_disk_gib, volume_gib, min_memory_gib, min_vcpu;
        uint32_t gpu_count;
        bool no_gpu, interruptible, start_ssh;
};
void deploy_done(struct deploy *d);

int plane_deploy(struct plane *p, const struct caller *who, struct deploy *d,
                 const struct cluster **ret, struct err *e);

/* @noun: "pod" or "cluster", for messages. */
int plane_stop(struct plane *p, const struct caller *who, const char *id, const char *noun,
               const struct cluster **ret, struct err *e);
/* @gpu_count < 0: as before. */
int plane_resume(struct plane *p, const struct caller *who, const char *id, const char *noun,
                 int64_t gpu_count, const struct cluster **ret, struct err *e);
int plane_restart(struct plane *p, const struct caller *who, const char *id, const char *noun,
                  const struct cluster **ret, struct err *e);
int plane_terminate(struct plane *p, const struct caller *who, const char *id, const char *noun,
                    struct err *e);

struct edit {
        char *docker_args, *image, *ports, *volume_path, *registry_auth;
        char **env;
        bool env_set; /* an empty list clears */
        uint32_t container_disk_gib, volume_gib;
};
void edit_done(struct edit *d);
int plane_edit(struct plane *p, const struct caller *who, const char *id, const char *noun,
               struct edit *d, const struct cluster **ret, struct err *e);

/* What a cluster shall have from now on, while it runs, or from its next start.  Fields below 0 stay
 * as they are. */
struct update {
        int64_t vcpu, memory_gib, container_disk_gib, volume_gib, gpu_count;
        int64_t generation; /* what the caller has seen: another one now, and nothing is changed */
        char **egress;      /* as of a deployment, borrowed; NULL stays */
        struct idle_wish idle;
        char **allowed_ips; /* as egress; an empty list lets in all */
};
/* When this returns the change is on its way to the engine; cluster_updating() until that has
 * answered, and then `refused` says why not, or nothing. */
int plane_update(struct plane *p, const struct caller *who, const char *id, const char *noun,
                 const struct update *u, const struct cluster **ret, struct err *e);
bool cluster_updating(const struct cluster *c);

/* ---- templates ---- */

const struct template *plane_template(const struct plane *p, const struct caller *who,
                                      const char *id);
/* @own: the account's; @builtin: ours and the public ones of others. */
int plane_templates(const struct plane *p, const struct caller *who, bool own, bool builtin,
                    int (*fn)(void *arg, const struct template *t), void *arg);
/* @t is taken over, in every case; with an id it replaces that template. */
int plane_save_template(struct plane *p, const struct caller *who, struct template *t,
                        const struct template **ret, struct err *e);
int plane_delete_template(struct plane *p, const struct caller *who, const char *name,
                          struct err *e);

/* ---- registry credentials ---- */

/* An account's own; NULL: not found, also when it is another's.  No caller sees a password again. */
const struct registry_auth *plane_registry_auth(const struct plane *p, const struct caller *who,
                                                const char *id);
int plane_registry_auths(const struct plane *p, const struct caller *who,
                         int (*fn)(void *arg, const struct registry_auth *a), void *arg);
struct registry_input {
        const char *id; /* NULL: new ones; else those are changed, but for their name */
        const char *name, *username, *password;
};
int plane_save_registry_auth(struct plane *p, const struct caller *who,
                             const struct registry_input *in, const struct registry_auth **ret,
                             struct err *e);
/* Clusters that name them go on; their next pull says that they were removed. */
int plane_delete_registry_auth(struct plane *p, const struct caller *who, const char *id,
                               struct err *e);
/* For a pull: the user's name (borrowed) and the password, the caller's to wipe. */
int plane_open_registry_auth(const struct plane *p, const struct caller *who, const char *id,
                             const char **ret_username, char **ret_password, struct err *e);

/* ---- the edge ---- */

/* What a link carries its right to enter in, and for how long it may be followed. */
#define PLANE_LINK_PARAMETER "tensorone_access"
#define PLANE_LINK_S         300U

struct plane_link {
        char *url;        /* heap; wipe it */
        uint64_t until_s; /* wall clock; 0: it has no end, and no secret in it */
};

/* The URL of http port @number (0: the only one) of @c, for whoever it is given to.  -ENOENT: it has none of that number;
 * -ENOTCONN: the host has no edge. */
int plane_open(const struct plane *p, const struct caller *who, const struct cluster *c,
               uint32_t number, const char *path, struct plane_link *ret, struct err *e);
/* The keys of @account have changed: the edge is told. */
void plane_tell_keys(struct plane *p, const char *account);

/* ---- SSH keys ---- */

/* The whole list of an account's SSH keys, one a line; those that its clusters are started with from then
 * on.  -EINVAL, -ERANGE, -E2BIG name the line. */
int plane_set_pub_key(struct plane *p, const struct caller *who, const char *keys, struct err *e);

/* "ssh-ed25519 ...": by which the SSH server of a cluster that has one is known; heap, NULL: out of
 * memory. */
char *plane_host_key(const struct plane *p, const struct cluster *c);

/* ---- secrets ---- */

/* An account's own.  No caller sees a value again.  plane_secret: NULL: not there, or another's. */
const struct secret *plane_secret(const struct plane *p, const struct caller *who, const char *id);
int plane_secrets(const struct plane *p, const struct caller *who,
                  int (*fn)(void *arg, const struct secret *s), void *arg);
struct secret_input {
        const char *name, *value, *description;
};
int plane_create_secret(struct plane *p, const struct caller *who, const struct secret_input *in,
                        const struct secret **ret, struct err *e);
/* Clusters that name it go on; their next start says that it was removed. */
int plane_delete_secret(struct plane *p, const struct caller *who, const char *id, struct err *e);
/* {name: value} for a session in @c, for the engine alone: of what is not there any more, nothing. */
json_t *plane_session_secrets(const struct plane *p, const struct cluster *c);

/* ---- what is measured, and what has happened ---- */

/* The last second's numbers; NULL: none, or they are old.  @ret_at_us (may be NULL): wall clock. */
const struct gpu_telemetry *plane_telemetry(const struct plane *p, const char *uuid,
                                            uint64_t *ret_at_us);

/* First processes that began to run since the start of this program. */
uint64_t plane_boots(const struct plane *p);

/* Texts are NULL where there is none.  @account's users may see it; NULL: administrators alone. */
struct event_view {
        uint64_t at_us; /* wall clock */
        const char *account, *cluster;
        const char *kind;   /* "exited", "gpu.xid" */
        const char *object; /* what it happened to: a cluster's id, a GPU's UUID */
        const char *text;   /* a sentence */
        /* of "audit..." alone */
        const char *actor;     /* the key, by name and id */
        const char *operation; /* "clusterStop" */
        const char *outcome;   /* "done", "refused", "begun": it goes on after its answer */
};
/* Every kind that is written, and what comes before its dot: "gpu" is every "gpu.xid" and so on. */
extern const char *const event_kinds[];
extern const size_t event_kinds_n;
int event_kind_check(const char *kind, struct err *e); /* -EINVAL names the known ones */

struct event_filter {
        /* NULL: any; kind "gpu" is also "gpu.xid", and NULL is all but "audit" */
        const char *kind, *cluster, *object;
        uint64_t since_us, until_us; /* 0: no border */
        unsigned limit;
};
/* Call @fn for what @who may see, newest first; a negative return ends the walk. */
int plane_events(const struct plane *p, const struct caller *who, const struct event_filter *f,
                 int (*fn)(void *arg, const struct event_view *v), void *arg);

/* Call @fn when there are events newer than before, on disk.  NULL: out of memory. */
struct plane_listen;
struct plane_listen *plane_listen_new(struct plane *p, void (*fn)(void *arg), void *arg);
struct plane_listen *plane_listen_free(struct plane_listen *l);
/* Times of events: of the newest, of the newest that is known to be on disk while anybody listens, and
 * before which some are gone (0: none). */
uint64_t plane_events_newest_us(const struct plane *p);
uint64_t plane_events_durable_us(const struct plane *p);
uint64_t plane_events_oldest_us(const struct plane *p);

/* ---- who did what ---- */

/* One thing that a caller does, from before it to its row.  Zeroed: none. */
struct audit {
        const char *kind; /* static */
        struct caller who;
        char operation[48], object[65], cluster[16], account[ACCOUNT_ID_LEN + 1], detail[65];
        bool begun, written;
};
/* @operation and @object (may be NULL) are copied, and cut where they are long. */
void audit_begin(struct audit *a, const struct caller *who, const char *kind, const char *operation,
                 const char *object);
void audit_detail(struct audit *a, const char *text); /* one more word for the sentence */
/* Around the code that makes the change: its transaction takes the row with it, as "done". */
void plane_audit_enter(struct plane *p, struct audit *a);
void plane_audit_leave(struct plane *p);
/* In between, before the transaction is submitted: what it is about, and whose (NULL: the caller's). */
void plane_audit_object(struct plane *p, const char *account, const char *object);
/* What became of it, unless a transaction has taken the row.  @why may be NULL. */
void plane_audit_end(struct plane *p, struct audit *a, const char *outcome, const char *why);
/* A valid key has been used from there: told once an hour. */
void plane_key_used(struct plane *p, const struct caller *who, const char *address);

/* ---- what holds a cluster awake ---- */

/* A session (a terminal, a program, a log that is followed) in cluster @id, from here to its end.  NULL:
 * out of memory; it then does not count. */
struct plane_use;
struct plane_use *plane_use_new(struct plane *p, const char *id);
struct plane_use *plane_use_free(struct plane_use *u); /* before the plane */

/* ---- watching ---- */

struct plane_watch;
/* Call @fn after every report about cluster @id, and when it is gone (@c NULL). */
int plane_watch_new(struct plane *p, const char *id, void (*fn)(void *arg, const struct cluster *c),
                    void *arg, struct plane_watch **ret);
struct plane_watch *plane_watch_free(struct plane_watch *w);
