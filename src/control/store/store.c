/* store.c - see store.h: the part that all back ends share.  Runs in tensorone-api, loop thread. */
#include "control/store/store.h"

#include <errno.h>

#include "control/store/store_priv.h"

struct store_txn *store_txn_new(void)
{
        return calloc(1, sizeof(struct store_txn));
}

struct store_txn *store_txn_free(struct store_txn *t)
{
        for (size_t i = 0; t && i < t->n_ops; i++)
                json_decref(t->op[i].row);
        if (t)
                free(t->op);
        free(t);
        return NULL;
}

static void add(struct store_txn *t, enum store_op_kind kind, enum store_table table, json_t *row)
{
        if (!t || !row) {
                if (t)
                        t->failed = true;
                json_decref(row);
                return;
        }
        if (t->n_ops == t->cap) {
                size_t cap = t->cap ? t->cap * 2 : 8;
                struct store_op *op = reallocarray(t->op, cap, sizeof *op);

                if (!op) {
                        t->failed = true;
                        json_decref(row);
                        return;
                }
                t->op = op;
                t->cap = cap;
        }
        t->op[t->n_ops++] = (struct store_op){ kind, table, row };
}

void store_insert(struct store_txn *t, enum store_table table, json_t *row)
{
        add(t, OP_INSERT, table, row);
}

void store_put(struct store_txn *t, enum store_table table, json_t *row)
{
        add(t, OP_PUT, table, row);
}

void store_del(struct store_txn *t, enum store_table table, json_t *key)
{
        add(t, OP_DEL, table, key);
}

void store_submit(struct store *s, struct store_txn *t, store_done_fn *done, void *arg)
{
        s->submitted++;
        s->ops->submit(s, t, done, arg);
}

void store_fence(struct store *s, store_done_fn *done, void *arg)
{
        struct store_txn *t;

        if (s->submitted == s->settled) {
                done(0, arg);
                return;
        }
        t = store_txn_new(); /* an empty one takes its place in the queue */
        store_submit(s, t, done, arg);
}

int store_load(struct store *s, enum store_table table, store_row_fn *fn, void *arg, struct err *e)
{
        return s->ops->load(s, table, fn, arg, e);
}

void store_on_failure(struct store *s, store_failure_fn *fn, void *arg)
{
        s->on_failure = fn;
        s->failure_arg = arg;
}

struct store *store_close(struct store *s)
{
        return s ? s->ops->close(s) : NULL;
}
