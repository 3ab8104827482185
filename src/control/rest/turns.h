/* turns.h - whose query is answered next, when some take more of the loop's time than their share.
 * tensorone-api, loop thread.  Nothing here is ever refused: who has taken more waits until the loop has nothing
 * else to do, and then the one who has taken least comes first. */
#pragma once
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/mem.h"

#define TURN_FREE_US                                                                               \
        1000U /* of a processor's time, of each piece of work: what is ordinary is not counted */
#define TURN_SHARE    4U        /* what is more: a quarter of the loop's time for each account */
#define TURN_AHEAD_US 1000000U  /* ... and so long ahead: a quarter of that at once */
#define TURN_DEBT_US  10000000U /* no more than this is remembered */

struct turns;
struct turn_account;

/* A place in the line; lies in whatever waits, zeroed. */
struct turn {
        struct turn_account *account; /* NULL: it does not wait */
        struct turn *next, **at;
        void (*fn)(void *arg);
        void *arg;
};

struct turn_clocks {
        uint64_t (*mono_us)(void), (*thread_us)(void);
};

/* @clocks: NULL: the kernel's. */
int turns_new(sd_event *loop, const struct turn_clocks *clocks, struct turns **ret, struct err *e);
struct turns *turns_free(struct turns *t); /* nobody may wait any more */
DEFINE_AUTO(struct turns *, turns_free)

/* Call @fn(@arg), now or later, on account of @account ("" is one, too).  @w belongs to the caller until then;
 * turn_leave() ends the waiting, and does nothing when there is none. */
void turn_take(struct turns *t, const char *account, struct turn *w, void (*fn)(void *arg),
               void *arg);
void turn_leave(struct turn *w);
