/* tickets.h - one-time tickets: how a page opens an exec session, since browsers cannot set a header on a
 * WebSocket and a key must not stand in its address (docs/edge.md, "Terminal").
 *
 * A ticket opens one session in one cluster, once, for TICKET_LIFE_US, as the key that asked for it would.
 * Known by their digests only, in memory only.  Loop thread; nothing here blocks. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "control/account/account.h"
#include "model/limits.h"

#define TICKET_CHARS   64U /* hex */
#define TICKET_LIFE_US (30 * US_PER_S)
#define TICKETS_MAX    1024U
#define TICKETS_EACH   64U /* of one account */

/* How it is offered: a WebSocket's further subprotocol, "tensorone.ticket.TEXT", which no log has. */
#define TICKET_PREFIX "tensorone.ticket."

struct tickets;
struct tickets *tickets_new(void); /* NULL: out of memory */
struct tickets *tickets_free(struct tickets *t);

/* -EBUSY: the account has TICKETS_EACH open, or all have TICKETS_MAX; -EIO: no random numbers. */
int tickets_issue(struct tickets *t, const struct caller *who, const char *cluster, uint64_t now_us,
                  char ret[static TICKET_CHARS + 1], struct err *e);

/* Takes it: there is none of it any more, whatever the answer.  False: not one of ours, used, or too old. */
bool tickets_take(struct tickets *t, const char *text, uint64_t now_us, struct caller *ret_who,
                  char ret_cluster[static LIMIT_CLUSTER_ID_LEN + 1]);
