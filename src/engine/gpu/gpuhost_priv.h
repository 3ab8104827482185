/* gpuhost_priv.h - shared by gpuhost*.c: the vmm-gpu process, and what is believed of its words. */
#pragma once
#include <stdbool.h>

#include "base/clock.h"
#include "engine/gpu/gpuhost.h"
#include "engine/journal/journal_gpu.h"

/* ---- gpuhost_child.c: one vmm-gpu process after another ---- */

#define GPU_SILENCE_US (5 * US_PER_S) /* without a word for so long it hangs */

struct gpu_child;

/* Why one has ended. */
struct gpu_child_end {
        bool hung;     /* it had to be killed for its silence */
        char gpu[72];  /* the GPU that it was asking about; "": none, or not known */
        char call[72]; /* the driver call; "": it was in none */
        char why[256]; /* a sentence */
};

struct gpu_child_spec {
        sd_event *loop;
        const struct host *host;
        const struct gpu_driver *driver; /* borrowed */
        void (*started)(void *arg);      /* it waits for an "open" */
        /* everything but "at"; < 0: it talks nonsense and is replaced */
        int (*message)(void *arg, const char *type, const json_t *msg, struct err *e);
        void (*ended)(void *arg, const struct gpu_child_end *end); /* another one follows */
        void *arg;
};

/* Starts it on the next turn of the loop. */
int gpu_child_new(const struct gpu_child_spec *spec, struct gpu_child **ret, struct err *e);
struct gpu_child *gpu_child_free(struct gpu_child *c); /* kills it; waits for it 1 s at most */
DEFINE_AUTO(struct gpu_child *, gpu_child_free)
/* -EPIPE: there is none at the moment. */
int gpu_child_send(struct gpu_child *c, const json_t *msg);

/* ---- gpuhost_words.c: messages of vmm-gpu, checked and made anew.  Pure ---- */

/* Like gpu_fleet_decode(), and only such states, addresses and profiles as may be. */
int gpu_words_fleet(const json_t *msg, struct gpu_fleet *ret, struct err *e);
/* A "checked" row of @uuid as it may be passed on: known keys of the right kind alone.  New reference. */
json_t *gpu_words_checked(const json_t *gpus, const char *uuid);

struct gpu_word_event {
        char uuid[72], kind[16], text[200];
        uint64_t code;
};
int gpu_words_event(const json_t *msg, struct gpu_word_event *ret, struct err *e);

/* ---- gpuhost_merge.c: yesterday's fleet and today's.  Pure ---- */

/* *@ret: what @now lists, and what only @was lists: GPUs that are gone or left alone.  Those keep
 * details and links, and while one is missing the fabric keeps its partitions.  An instance of a
 * GPU that is listed is gone for good.  @was and @now stay the caller's. */
int gpu_fleet_merge(const struct gpu_fleet *was, const struct gpu_fleet *now,
                    struct gpu_fleet *ret);

/* ---- gpuhost.c ---- */

struct gpu_row {        /* beside fleet.gpus[i] */
        bool listed;    /* by the driver, now */
        bool elsewhere; /* claimed by another engine */
        bool left_out;  /* on purpose: gpuhost_omit() */
        enum gpu_state said;
        char said_why[512];
        uint32_t bad_xid; /* the last fatal one, when it came (wall clock) */
        uint64_t bad_xid_us;
        struct journal_gpu j;
        bool unread; /* the journal could not say: j is made up, and not to be written over that */
};

struct gpu_hang {
        char uuid[72];
        bool hung;         /* until it is listed again */
        uint64_t until_us; /* monotonic: left out until then */
        unsigned times;    /* in a row */
        char why[160];
};

struct gpu_allowance { /* zero-initialised: all of it */
        double credit;
        uint64_t at_us;
};

struct gpu_check {
        struct gpu_check *next;
        struct gpuhost *host;
        uint64_t req;
        char **uuids;
        gpuhost_check_fn *done;
        void *arg;
        sd_event_source *timer;
};

struct gpuhost {
        struct gpuhost_spec spec;
        struct gpu_child *child;
        struct gpu_fleet fleet;
        struct gpu_row rows[GPU_MAX];
        char **omit; /* gpuhost_omit() */
        json_t *telemetry;
        struct gpu_check *checks;
        uint64_t last_req;
        struct gpu_hang hangs[GPU_MAX];
        size_t n_hangs;
        sd_event_source *retry; /* when a GPU that hung is looked at again */
        bool known;             /* see gpuhost_is_known() */
        char down[320];         /* why there is no vmm-gpu that answers; "": there is */
        unsigned failures;      /* of vmm-gpu in a row */
        struct gpu_allowance events, fatals, fleets, names, lows;
        uint64_t telemetry_us; /* when the last one came */
        uint64_t looked_us;    /* for rows of GPUs that are gone; monotonic, 0: never */
};

struct gpu_row *gpuhost_row(struct gpuhost *g, const char *uuid);
/* Turn causes into states and tell what has changed; @changed: something has, beside them. */
void gpuhost_settle(struct gpuhost *g, bool changed);
int gpuhost_send_open(struct gpuhost *g);
bool gpuhost_leaves_out(const struct gpuhost *g, const char *uuid);
/* gpuhost_journal.c */
void gpuhost_remember(struct gpuhost *g, const struct journal_gpu *j);
void gpuhost_first_seen(const struct gpuhost *g, const struct gpu *gpu, struct journal_gpu *j);
void gpuhost_forget_first(struct journal_gpu *j); /* until the next fleet */
void gpuhost_recall(struct gpuhost *g, const struct gpu *gpu, struct gpu_row *row);
void gpuhost_seen(struct gpuhost *g, const struct gpu *gpu, struct gpu_row *row); /* listed, now */
void gpuhost_forget_gone(struct gpuhost *g); /* looks once a day */
/* gpuhost_orders.c; changes causes alone */
void gpuhost_look_at_claims(struct gpuhost *g);
/* gpuhost_hang.c */
const struct gpu_hang *gpuhost_hang(const struct gpuhost *g, const char *uuid); /* NULL: no */
void gpuhost_hang_over(struct gpuhost *g, const char *uuid);                    /* it is listed */
void gpuhost_hang_omit(const struct gpuhost *g, json_t *omit); /* adds those that are left out */
void gpuhost_hang_blame(struct gpuhost *g, const struct gpu_child_end *end);
/* gpuhost_check.c */
void gpuhost_checked(struct gpuhost *g, const json_t *msg);
void gpuhost_drop_checks(struct gpuhost *g, int code, const char *why);
