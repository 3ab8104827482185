/* unit.h - one cluster inside the fleet (this folder only). */
#pragma once
#include "base/clock.h"
#include "engine/boot/boot.h"
#include "engine/boot/order.h"
#include "engine/claim/claim.h"
#include "engine/fleet/fleet.h"
#include "engine/fleet/refused.h"
#include "engine/gpu/handover.h"
#include "engine/instance.h"
#include "engine/journal/journal.h"
#include "engine/op/op.h"
#include "engine/pool/pool.h"
#include "engine/sandbox/apparmor.h"

enum unit_op { UNIT_OP_NONE, UNIT_OP_BOOT, UNIT_OP_UNDO, UNIT_OP_CHANGE };

#define UNIT_SECURITY_KINDS 8U

/* How many security events of a sort it had in this minute. */
struct security_rate {
        char kind[16];
        uint64_t since_us; /* monotonic */
        unsigned n;
};

struct unit {
        struct unit *next;
        struct fleet *fleet;
        struct journal_row row;    /* all that survives */
        struct plan plan;          /* decoded row.plan */
        bool unreadable;           /* row.plan cannot be decoded: may be stopped, not started */
        bool claimed;              /* at start: the slot is still claimed for the row's boot */
        size_t ports_claimed;      /* at start: so many of the row's ports are */
        struct unit_ready *asking; /* whether its declared ports answer; NULL: nobody asks */
        struct op *op;             /* at most one at a time */
        enum unit_op op_kind;
        bool op_waits;     /* it is an undo that gives the first process its time to end */
        struct boot *boot; /* what the running operation was given */
        int monitor_pidfd, init_pidfd;
        sd_event_source *monitor_src, *timer_src;
        uint64_t image_id; /* of the last boot by this engine */
        char address[16], address6[48];
        char apparmor
                [APPARMOR_NAME_MAX]; /* the profile that confines its first process, as read there */
        uint32_t progress_pct;
        char *damage; /* what is wrong with the image that it runs from; NULL: nothing */
        struct image_progress pull; /* while it is pulling; `phase` is not kept */
        uint64_t pull_told_us;      /* when it was reported last, monotonic */
        uint64_t page_told_us;      /* the same for whoever asks the edge, */
        uint32_t page_pct;          /* and this is what */
        uint64_t due_us;            /* back-off ends, monotonic */
        uint64_t asked_us;          /* the order to run arrived, monotonic; 0: answered already */
        uint64_t boot_us;           /* from there to the first process's execve, last time */
        uint32_t retries;           /* operations that died in a row, since it last ran */
        uint32_t undo_failures;     /* in a row */
        uint32_t cpu_waits;         /* boots in a row that found a CPU taken by another host */
        bool cpus_taken;            /* the last one did: the control plane may give us others */
        bool refused;               /* `reason` tells of an order that could not be taken */
        bool start_again;   /* stopped and then wanted again, in one and the same generation */
        bool queued;        /* waits for a free operation place */
        uint64_t want_boot; /* of row.want_plan: the generation whose process it is for */
        struct {
                char *plan; /* what the running operation changes it to */
                uint64_t generation;
                uint32_t failures; /* operations that died in a row */
                char *refused;     /* why the newest generation cannot be had while it runs */
        } change;
        bool wants_login;             /* in CS_PULLING: for the credentials that its plan names */
        bool wants_secrets;           /* in CS_ACCEPTED: for those that its variables name */
        char **secrets;               /* here they are, name=value, for the next start alone */
        struct handover_job *gpu_job; /* GPUs of it are being checked */
        bool gpus_last;               /* nothing but that check is between it and its release */
        bool gpus_told;               /* the last report had receipts that are to be told once */
        char *gpu_trouble;            /* what has become of a GPU that it has; NULL: nothing */
        bool gpu_trouble_passes;      /* with the state of the GPU; an Xid stays */
        struct {
                sd_event_source *src;      /* when its SSH server is started next */
                unsigned failures;         /* in a row */
                bool starting, again;      /* a session is on its way; another one behind it */
                struct ssh_watch *watches; /* those that run */
        } ssh;
        struct slice_usage usage;
        struct security_rate told[UNIT_SECURITY_KINDS];
        struct refused *refusals; /* of devices, counted since the last start; NULL: none yet */
};

struct fleet {
        struct fleet_spec spec;
        struct unit *units;
        size_t running_ops; /* every operation, for an orderly end */
        size_t cluster_ops; /* boots and undos among them: limited by parallel_ops */
        struct pull *pulls;
        struct exec_session *execs;
        struct kept *kept; /* sessions whose clients may come back: kept.h */
        sd_event_source *usage_src;
        uint64_t counter; /* session ids */
        char **lacks;     /* of what is to hold clusters: sentences */
        bool closing;
};

/* unit.c */
struct unit *unit_find(const struct fleet *f, const char *cluster);
/* @lenient: a plan that cannot be decoded makes a unit that can be watched, stopped and removed. */
int unit_new(struct fleet *f, const struct journal_row *row, bool lenient, struct unit **ret,
             struct err *e);
struct unit *unit_free(struct unit *u);
void unit_remove(struct unit *u); /* from the list, and free */
int unit_save(struct unit *u, bool durable);
void unit_report(struct unit *u);
/* security.c: what holds it (NULL: out of memory), and what of that this host cannot do, a sentence
 * each (-ENOMEM). */
json_t *unit_security(const struct unit *u);
int security_lacks(const struct host *host, char ***ret);
bool unit_is_released(const struct unit *u); /* nothing of the host is held */
/* Change state through the table, remember why, journal, report. */
void unit_event(struct unit *u, enum cluster_event ev, const char *reason_fmt, ...)
        __attribute__((format(printf, 3, 4)));
/* Bring what is nearer to what should be. */
void unit_settle(struct unit *u);
/* An operation of it died without a word, which is no fault of the cluster's: undo what there is and
 * try again, a few times.  False: not this time, it is a failure as any other. */
bool unit_retry(struct unit *u, int r, const struct err *err);
void unit_settle_waiting(struct fleet *f);          /* a place for an operation became free */
bool unit_wanted(const struct unit *u);             /* this generation should be running */
int unit_adopt_want(struct unit *u, struct err *e); /* want_plan becomes plan */

/* unit_ops.c */
int unit_boot(struct unit *u, const struct image *image, struct err *e);
int unit_undo(struct unit *u, bool graceful, bool volume, struct err *e);
bool unit_holds(const struct unit *u); /* anything on the host besides volume and logs */

/* unit_net.c: what the firewall is told of it */
/* With the slot: the number of its account among those that hold one, which it keeps as long.  The
 * caller saves the row before anything acts by it. */
void unit_net_begin(struct unit *u);
void unit_net_end(struct unit *u); /* with the slot */
/* At start: the IPv6 address of one that runs. */
void unit_net_adopt(struct unit *u);
/* Say where its web ports are now: with every change of its state. */
void unit_route(struct unit *u);
/* Nobody is sent there any more.  False: not yet, and whoever knows settles then. */
bool unit_is_unrouted(const struct unit *u);
/* `security.network` of its report. */
json_t *unit_net_report(const struct unit *u);

/* unit_ports.c: public TCP ports */
/* Those that its plan wants: it has them already, or gets them now; the caller saves the row before
 * anything acts by it. */
int unit_ports_begin(struct unit *u, struct err *e);
void unit_ports_end(struct unit *u); /* it holds nothing else any more; the caller saves the row */
void unit_ports(const struct unit *u, struct published *ret);
char *unit_public_ip(const struct unit *u, char buf[static 48]); /* "" without any; returns @buf */
/* At start: claims and rows against each other. */
void fleet_ports_adopt(struct fleet *f, bool (*runs)(const struct unit *u));

/* unit_ready.c */
/* It runs, and its addresses are known: ready at once, or it is asked until it is. */
void unit_ready_begin(struct unit *u);
void unit_ready_end(struct unit *u);    /* it runs no more */
void unit_ready_forget(struct unit *u); /* ask no more */

/* unit_change.c: a newer plan for the very process that runs */
bool unit_same_start(const struct unit *u); /* the plan that is wanted is one */
/* Adopt it where nothing runs that would have to be changed. */
void unit_catch_up(struct unit *u);
/* In CS_RUNNING: begin to change it, unless that was refused. */
void unit_change(struct unit *u);
void unit_change_forget(struct unit *u); /* a refusal; there is another order */
int unit_read_want(struct unit *u, struct err *e);
/* It runs, and a GPU that its plan does not name any more is being checked. */
bool unit_gpus_open(const struct unit *u);

/* unit_ops.c, for the above */
int unit_boot_open(struct unit *u, struct err *e);
void unit_boot_close(struct unit *u);
int unit_dispatch(struct unit *u, const struct order *o, enum unit_op kind,
                  const struct op_spec *spec, struct err *e);
void unit_op_over(struct unit *u);
int unit_decode_plan(const char *text, struct plan *ret, struct err *e);

/* unit_gpu.c: GPUs from the lease to the end of the checks after it */
/* Those of the plan are its own from here on; the caller saves the row.  No other GPU may be lent. */
int unit_gpus_begin(struct unit *u, char *const *uuids, struct err *e);
/* Check GPUs whose processes are dead (NULL: all that it holds), store receipts, let go of them, and
 * settle.  One check at a time: while one is under way this does nothing, and the next settle asks
 * again. */
void unit_gpus_check(struct unit *u, char *const *uuids);
/* These may be open in it, though its plan does not name them: they stay with it until it ends. */
int unit_gpus_keep(struct unit *u, char *const *uuids);
/* True: it holds none (any more).  False: a check is under way. */
bool unit_gpus_back(struct unit *u);
/* Give back claims of GPUs that the row does not name (any more). */
void unit_gpus_let_go(struct unit *u);
/* Adds `gpu_receipts` where they belong. */
void unit_gpus_report(struct unit *u, json_t *report);
/* Say what is wrong with those that it has; the fleet's changes are told by fleet_gpus_changed(). */
void unit_gpus_look(struct unit *u);
/* What it is held to; new reference, NULL: out of memory.  And what it waits for, into `usage`. */
json_t *unit_limits(const struct unit *u);
int limits_lack(const struct slice_host *h, char ***list); /* adds what this host cannot; -ENOMEM */
void unit_usage_report(const struct unit *u, json_t *report);

/* unit_watch.c: monitors, exits, back-off */
void unit_say_security(struct unit *u, const char *kind, const char *message);
void unit_oom_kills(struct unit *u, uint64_t kills); /* of this boot, so far */
/* Refused devices: tell of those that are due.  @adopted: what is counted already is no news. */
void unit_refused(struct unit *u, bool adopted);
/* The profile that its first process runs under, before the report that says so: read, not computed, since an
 * engine before us may have started it without. */
void unit_read_label(struct unit *u);
int unit_watch(struct unit *u, struct err *e);
void unit_unwatch(struct unit *u);
void unit_read_exit(struct unit *u, char *ret_reason, size_t size);
void unit_ended(struct unit *u); /* the monitor has ended or was found dead */
void unit_unwatched(struct unit *u, const struct err *why); /* runs, and cannot be watched */
/* A CPU of the plan is held by another host on this machine: told to the control plane, which gives
 * others in a new generation when there are any; until then, tried again less and less often. */
void unit_wait_cpus(struct unit *u, const struct err *why);
void unit_timer(struct unit *u, uint64_t delay_us);

/* adopt.c */
int fleet_adopt(struct fleet *f, struct err *e);

/* unit_image.c: waiting for its image, and what becomes of that */
/* The image that it may be booted from without asking a registry, or -ENOENT. */
int unit_find_image(struct unit *u, struct image *ret, struct err *e);
/* In CS_PULLING: pull it, or ask for the credentials first. */
int unit_pull(struct unit *u, struct err *e);
/* Here they are; ignored when they are not waited for. */
void unit_take_login(struct unit *u, const struct fleet_login *login);
void unit_pull_leave(struct unit *u);
/* Something may have been quarantined that not the scrub has found: ask the store. */
void fleet_look_for_damage(struct fleet *f);

/* unit_ssh.c: it runs, and is watched from here on; or is not any more */
void unit_ssh_start(struct unit *u);
void unit_ssh_forget(struct unit *u);
/* Whom its SSH server is to let in, as the control plane says now: kept for its next starts, and told the one
 * that runs. */
void unit_ssh_keys(struct unit *u, const char *keys);

/* unit_secrets.c */
/* In CS_ACCEPTED: 0 when it has what it needs, 1 when it has been asked for. */
int unit_need_secrets(struct unit *u, struct err *e);
/* Here they are; ignored when they are not waited for.  The caller settles. */
void unit_take_secrets(struct unit *u, const json_t *answer);
void unit_secrets_forget(struct unit *u);

/* pull.c */
void pull_free_all(struct fleet *f);

/* access.c */
void exec_free_all(struct fleet *f);
