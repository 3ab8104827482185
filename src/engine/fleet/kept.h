/* kept.h - exec sessions whose clients may come back (docs/node-protocol.md, `attach`): how they are found
 * again, by this engine and by the next one.  Engine process, loop thread; nothing here blocks.
 *
 * A session listens at a name in the run directory for as long as it lives.  The engine is connected with each
 * of them, says nothing and reads nothing: the end of that connection is the session's, and takes the name away. */
#pragma once
#include "engine/fleet/unit.h"

#define KEPT_EACH      32U   /* in one cluster ... */
#define KEPT_ALL       1024U /* ... and on the host: each is a descriptor here */
#define KEPT_ID_BYTES  48U   /* "<cluster>-<32 hex>" */
#define KEPT_SOCKET    "k-%s.sock"
#define KEPT_LONGEST_S 3600U

struct kept;

/* A place for one more in @cluster, with a name that nobody can guess.  -EBUSY: there are KEPT_EACH, or KEPT_ALL. */
int kept_new(struct fleet *f, const char *cluster, const char **ret_id, struct err *e);
/* It listens by now.  What cannot be reached has ended already, and is forgotten. */
void kept_watch(struct fleet *f, const char *id);
/* It never came to be. */
void kept_drop(struct fleet *f, const char *id);

/* A connection to its monitor; -ENOENT: there is no such session in @cluster, or no more. */
int kept_connect(struct fleet *f, const char *cluster, const char *id, int *ret_fd, struct err *e);

/* At start: those that an earlier engine has left. */
void kept_adopt(struct fleet *f);
bool kept_wanted(const struct fleet *f, const char *file); /* of the run directory */
void kept_free_all(struct fleet *f);                       /* they go on */
