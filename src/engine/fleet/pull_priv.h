/* pull_priv.h - one image operation, for pull.c (its life) and pull_queue.c (its turn). */
#pragma once
#include "engine/fleet/unit.h"

enum pull_kind {
        PULL_NONE,
        PULL_PULL,
        PULL_IMPORT,
        PULL_REMOVE,
        PULL_EXPIRE,
        PULL_SWEEP,
        PULL_KIND_COUNT
};

/* Someone who wants to hear about it. */
struct waiter {
        struct waiter *next;
        fleet_progress_fn *progress;
        fleet_pull_fn *done;
        void *arg;
};

struct pull {
        struct pull *next;
        struct fleet *fleet;
        enum pull_kind kind;
        char *account, *reference, *username, *password;
        bool flag;      /* import: public; remove: administrator */
        bool force;     /* pull again what is here */
        bool abandoned; /* is being ended */
        bool expires;   /* expire, and the sweep after it */
        bool swept;     /* expire: once at least */
        bool again;     /* expire: somebody has asked since it began */
        bool no_space;  /* pull: found none; waits for an expiry */
        bool retried;   /* and had one already */
        uint64_t bytes; /* pull: to be fetched, compressed; expire: to be free beside the floor */
        int stream;     /* import */
        char **in_use;  /* remove, sweep */
        uint64_t turn;  /* grows whenever its account is given a place */
        struct waiter *waiters;
        struct op *op; /* NULL: waits for a place */
};

static inline bool pull_is_transfer(const struct pull *p)
{
        return p->kind == PULL_PULL || p->kind == PULL_IMPORT;
}

/* pull.c */
struct pull *pull_free(struct pull *p);
/* What needs no pull.  What @account itself has pulled with credentials does, whoever asks again. */
int pull_find_ready(struct fleet *f, const char *account, const char *reference,
                    bool with_credentials, struct image *ret, struct err *e);
/* Start its operation. */
int pull_launch(struct pull *p, struct err *e);
/* Do @next in the place that it has, with what is in use from here on. */
int pull_go_on(struct pull *p, enum pull_kind next, struct err *e);
/* Take it out of the list, answer all who wait, free. */
void pull_finish(struct pull *p, int r, const struct image *image, const struct err *e);

/* pull_queue.c */
/* Start what there are places for.  Ends by itself what came here while it waited. */
void pull_start_some(struct fleet *f);
