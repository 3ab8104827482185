/* store.h - what the control plane must never lose.
 *
 * One interface, several back ends.  A transaction is submitted whole and answered once, on the
 * loop, after it is durable; neither group commit nor a database over the network ever stops the
 * loop.  Transactions commit in the order of submission.  Memory is changed before submission, so
 * when one fails, those behind it fail too and the owner of the memory loads everything afresh
 * (store_on_failure): memory never runs ahead of the disk.  Loop thread only. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/mem.h"

enum store_table {
        ST_NONE,
        ST_SETTING,
        ST_ACCOUNT,
        ST_API_KEY,
        ST_TEMPLATE,
        ST_CLUSTER,
        ST_RESERVATION,
        ST_EVENT,
        ST_REGISTRY_AUTH,
        ST_SECRET,
        ST_AUDIT,
        ST_TABLE_COUNT
};

/* How a column's value appears in a row object.  An absent or null member is SQL NULL. */
enum store_kind { COL_NONE, COL_TEXT, COL_INT, COL_BOOL, COL_JSON, COL_KIND_COUNT };

struct store_column {
        const char *name;
        enum store_kind kind;
};

struct store_table_desc {
        const char *name;
        const struct store_column *col;
        size_t n_cols, n_keys; /* the first n_keys columns are the primary key */
};

extern const struct store_table_desc store_tables[ST_TABLE_COUNT];

/* A list of changes that happen together or not at all.  Rows are JSON objects whose members are
 * named as the columns; other members are ignored.  @row is stolen, also on failure; NULL (out of
 * memory) makes the transaction fail as a whole, so one check at submission is enough. */
struct store_txn;
struct store_txn *store_txn_new(void);
struct store_txn *store_txn_free(struct store_txn *t);
DEFINE_AUTO(struct store_txn *, store_txn_free)
void store_insert(struct store_txn *t, enum store_table table, json_t *row); /* -EEXIST if there */
void store_put(struct store_txn *t, enum store_table table, json_t *row);    /* insert or replace */
void store_del(struct store_txn *t, enum store_table table, json_t *key);    /* fine when absent */

/* @r is 0 when everything is on disk; else a negative errno and nothing of it happened. */
typedef void store_done_fn(int r, void *arg);
/* The row is borrowed for the call; a negative return ends the walk. */
typedef int store_row_fn(void *arg, const json_t *row, struct err *e);
typedef void store_failure_fn(void *arg, const char *why);

struct store;
struct store_ops {
        void (*submit)(struct store *s, struct store_txn *t, store_done_fn *done, void *arg);
        int (*load)(struct store *s, enum store_table table, store_row_fn *fn, void *arg,
                    struct err *e);
        struct store *(*close)(struct store *s);
};
struct store {
        const struct store_ops *ops; /* first member of every back end */
        store_failure_fn *on_failure;
        void *failure_arg;
        uint64_t submitted, settled; /* transactions so far */
};

/* Take @t over and answer through @done (may be NULL) on a later turn of the loop, in order. */
void store_submit(struct store *s, struct store_txn *t, store_done_fn *done, void *arg);

/* Call @done when everything submitted so far has been answered; at once when nothing is open. */
void store_fence(struct store *s, store_done_fn *done, void *arg);

/* Walk a table in order of its key.  Blocks: for start-up and for recovery after a failure. */
int store_load(struct store *s, enum store_table table, store_row_fn *fn, void *arg, struct err *e);

/* @fn runs after the answers of a failed batch; it loads memory again.  Then service goes on. */
void store_on_failure(struct store *s, store_failure_fn *fn, void *arg);

/* Waits for what is queued, then closes. */
struct store *store_close(struct store *s);
DEFINE_AUTO(struct store *, store_close)

/* Open or make DIR/store.db (mode 0600) and bring its schema up to date.  -EBUSY: another program
 * has it open; -ENOTSUP: it was written by a newer version. */
int store_sqlite_open(const char *dir, sd_event *loop, struct store **ret, struct err *e);
