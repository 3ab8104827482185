/* plane_priv.h - shared by the files of this folder. */
#pragma once
#include "base/map.h"
#include "control/plane/plane.h"
#include "control/seal/seal.h"

/* The sentences that clients look for when a deployment does not fit. */
#define NO_INSTANCES                                                                               \
        "There are no longer any instances available with the requested specifications. Please "   \
        "refresh and try again."
#define NO_DISK "There are no longer any instances available with enough disk space."

struct plane_watch {
        struct plane *plane;
        struct plane_watch *prev, *next;
        char *id;
        void (*fn)(void *arg, const struct cluster *c);
        void *arg;
};

struct plane_use {
        struct plane *plane;
        struct plane_use *prev, *next;
        char *id;
};

struct plane {
        sd_event *loop;
        struct store *store;
        struct accounts *accounts;
        struct node *node;
        struct ledger *ledger;
        struct map *clusters;       /* id -> struct cluster, owned; also the ones going away */
        struct map *templates;      /* id -> struct template, owned */
        struct map *registry_auths; /* id -> struct registry_auth, owned */
        struct map *secrets;        /* id -> struct secret, owned */
        struct sealer *sealer;
        char *cluster_domain; /* NULL: there is none */
        char node_id[NODE_ID_LEN + 1];
        struct node_inventory inv; /* the last one known, kept over restarts */
        bool have_inv;
        struct node_gpus gpus; /* its GPUs, likewise */
        struct gpu_types gpu_types;
        struct gpu_chooser *chooser;
        bool foreign;            /* the engine behind the socket is not the one of this store */
        unsigned open;           /* changes that a client waits for */
        sd_event_source *alarm;  /* the next stopAfter or terminateAfter */
        sd_event_source *repeat; /* the next order that is said again */
        struct plane_watch *watches;
        struct plane_use *uses;
        struct plane_listen *listens;
        sd_event_source *news; /* events have been written that nobody was told of */
        bool fenced;           /* a fence is on its way, behind those up to `fence_us` */
        uint64_t fence_us, durable_us;
        void (*inner)(void *arg, int fd);
        void (*synced)(void *arg);
        void *conf_arg;
        bool broken; /* memory could not be loaded again: nothing is changed any more */
        struct err why;
        uint64_t event_us;     /* time of the newest event */
        unsigned event_next;   /* place of the next one in the ring */
        struct event **events; /* the ring; NULL: none yet */
        struct audit_log *audit_log;
        struct audit *audit; /* what is being done now; NULL: nothing that is to be told */
        uint64_t audit_keep_us;
        uint64_t audit_hold_us; /* monotonic; until then rows without a change are not written */
        struct gpu_telemetry *telemetry; /* the last message */
        size_t n_telemetry;
        uint64_t boots;
        uint64_t telemetry_us, telemetry_mono_us; /* when it came */
};

/* Write @c's record and an event of that kind in @t, submit it, and tell the node what should be
 * once it is durable. */
void plane_commit(struct plane *p, struct store_txn *t, struct cluster *c, const char *kind);
/* Tell the node what should be of @c, when nothing about it is still on its way to the disk. */
void plane_push(struct plane *p, const struct cluster *c);
/* The engine has (not) taken the last order about @c: say it again, less and less often. */
void plane_repeat(struct plane *p, struct cluster *c, bool behind);
int plane_repeat_init(struct plane *p, struct err *e);
void plane_tell(struct plane *p, const char *id, const struct cluster *c); /* watchers */
void plane_set_alarm(struct plane *p);
struct cluster *plane_find(const struct plane *p, const struct caller *who, const char *id);
/* Remove the record itself; the node is told to forget once that is durable. */
void plane_remove(struct plane *p, struct cluster *c);
int plane_set_gpus(struct plane *p, struct node_gpus *g); /* takes it over (emptied); -ENOMEM */
/* The type that @c really got; nothing when these GPUs are of none that is known. -ENOMEM. */
int plane_set_gpu_type(const struct plane *p, struct cluster *c, char *const *gpus);
struct ledger_host plane_ledger_host(const struct plane *p); /* borrows from @p */
/* 0, or why nothing can be changed now. */
int plane_writable(const struct plane *p, struct err *e);

/* Wall clock; and "<verb> by <who>: <date>". */
int status_change_set(struct cluster *c, const char *verb, const char *who, uint64_t now_us);

/* lifecycle.c: the cluster, and a transaction to change it in */
int lifecycle_begin(struct plane *p, const struct caller *who, const char *id, const char *noun,
                    struct cluster **ret_c, struct store_txn **ret_t, struct err *e);
int lifecycle_check_locked(const struct cluster *c, const char *noun, struct err *e);
/* A copy to try a change on: memory stays untouched when it does not fit.  NULL: out of memory. */
struct cluster *lifecycle_copy(const struct cluster *c);
#define LIFECYCLE_CHANGING "it is being changed; try again in a moment"

/* update.c */
/* What is asked for, against what there is: 0, or the reason why not. */
int update_check(const struct cluster *c, const struct update *u, struct err *e);
/* The engine has answered the change that was under way with a report of the present generation. */
void update_done(struct plane *p, struct cluster *c, struct store_txn *t);
void update_refused(struct plane *p, struct cluster *c, const char *why);

/* lifecycle.c, without a caller: the alarm */
void cluster_do_stop(struct plane *p, struct cluster *c, const char *verb, const char *who);
void cluster_do_terminate(struct plane *p, struct cluster *c, const char *who);
/* Another engine on the machine holds a CPU of @c: give it others.  @c may be gone afterwards. */
void cluster_do_move(struct plane *p, struct cluster *c);
/* 0, or why nothing new may begin on the node: its disk is full. */
int plane_has_room(const struct plane *p, struct err *e);

/* access.c: what links to the private ports of @c are signed with, base64; heap, to be wiped; NULL: out of memory */
char *plane_edge_key(const struct plane *p, const struct cluster *c);
void plane_tell_all_keys(struct plane *p);

/* load.c */
int plane_load(struct plane *p, struct err *e); /* -ENOMEM before anything: memory is as it was */
void plane_unload(struct plane *p);
void plane_drop_orphans(struct plane *p);
void plane_on_failure(void *arg, const char *why); /* store_failure_fn */

/* event.c */
int event_keep(struct plane *p, const json_t *row); /* while loading */
void events_free(struct plane *p);
/* Write @v, with the time of now; any kind of object has its events here. */
void event_write(struct plane *p, struct store_txn *t, const struct event_view *v);
void event_of_gpu(struct plane *p, const struct node_event *n);
void event_add(struct plane *p, struct store_txn *t, const struct cluster *c, const char *kind);

uint64_t event_oldest_us(const struct plane *p); /* 0: none was ever pushed out */

/* listen.c */
int listen_init(struct plane *p, struct err *e);
void listen_news(struct plane *p);
/* The time of an event that is being written: of now, and later than that of every other one, whatever the
 * clock is set to. */
uint64_t listen_time(const struct plane *p);

/* audit.c */
struct audit_row;
uint64_t audit_newest_us(const struct plane *p);
int audit_init(struct plane *p);
void audit_done(struct plane *p);
int audit_keep(struct plane *p, const json_t *row); /* while loading, in order */
/* @t is submitted: the row of what is being done goes with it. @cluster: whose it is, or "". */
void audit_into(struct plane *p, struct store_txn *t, const char *cluster);
void audit_hold(struct plane *p); /* the store has failed */
void audit_of_node(struct plane *p, const struct node_security *n);
const struct audit_row *audit_newest(const struct plane *p);
const struct audit_row *audit_older(const struct audit_row *r);
/* NULL: there is none, or it is older than they are kept. */
const struct event_view *audit_view(const struct plane *p, const struct audit_row *r);

/* telemetry.c; @t: taken over */
void telemetry_take(struct plane *p, struct gpu_telemetry *t, size_t n);

/* receipts.c: true when the record is another one now.  @list: a report's `gpu_receipts`, unchecked */
bool receipts_take(struct plane *p, struct store_txn *t, struct cluster *c, const json_t *list);

/* idle.c */
/* Put what a request says into the record; true when it is another now. */
bool idle_apply(struct cluster *c, const struct idle_wish *w);
void idle_note_gpu(struct plane *p, const struct gpu_telemetry *t); /* of this second */
/* The engine has said what @c uses: warn, stop or terminate it when nobody does.  Last of all that is
 * done with a report. */
void idle_look(struct plane *p, struct cluster *c, const struct node_report *r);

/* report.c */
void report_apply(struct plane *p, const struct node_report *r);

/* plan_make.c: the plan of the present generation from the record, or -errno with *e.  Without
 * the cluster's key; plan_with_key() makes the form that is sent. */
int plan_make(const struct plane *p, const struct cluster *c, char **gpus, json_t **ret,
              struct err *e);
/* hostkey.c: the whole key as the engine takes it; wipe and free; NULL: out of memory. */
char *plane_host_key_private(const struct plane *p, const struct cluster *c);
json_t *plan_with_key(const struct plane *p, const struct cluster *c);

/* sshkeys.c: whom its SSH server lets in; NULL: its own variables say so, or it has none.  Borrowed. */
const char *ssh_keys_of(const struct plane *p, const struct cluster *c);

/* registry.c */
int registry_auth_check(const struct plane *p, const struct caller *who, const char *id,
                        struct err *e);
/* What @c names, opened, for its assign: {username, password}, or {error}; NULL: out of memory. */
json_t *registry_login(const struct plane *p, const struct cluster *c);
/* Log it when there are some that cannot be opened. */
void registry_auths_probe(const struct plane *p);

/* secret.c */
/* 0, or which of the secrets that @env names the account does not have. */
int secrets_check(const struct plane *p, const char *account, char *const *env, struct err *e);
/* What @c names, opened, for its assign: {values: {name: value}}, or {error}; NULL: out of memory. */
json_t *secrets_answer(const struct plane *p, const struct cluster *c);
/* Log it when there are some that cannot be opened. */
void secrets_probe(const struct plane *p);

/* template.c */
int templates_add_builtin(struct plane *p);
