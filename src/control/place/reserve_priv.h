/* reserve_priv.h - rows of the ledger, for the files of this folder.  See reserve.h. */
#pragma once
#include "base/map.h"
#include "control/place/reserve.h"

struct ledger {
        struct map *rows; /* "node kind resource" -> struct reservation, owned */
};

/* The row of that resource, whoever holds it; NULL: nobody. */
struct reservation *ledger_find(struct ledger *l, const struct ledger_want *w,
                                enum resource_kind kind, const char *resource);
/* -EEXIST: it is held. */
int ledger_add(struct ledger *l, const struct ledger_want *w, enum resource_kind kind,
               const char *resource, uint64_t amount, struct store_txn *t);
void ledger_drop(struct ledger *l, struct reservation *r, struct store_txn *t);
/* A resource that is counted: one row named after the cluster, made, changed or removed. */
int ledger_set(struct ledger *l, const struct ledger_want *w, enum resource_kind kind,
               uint64_t amount, struct store_txn *t);
