/* store_priv.h - what a transaction is made of, for the back ends. */
#pragma once
#include "control/store/store.h"

enum store_op_kind { OP_NONE, OP_INSERT, OP_PUT, OP_DEL, OP_KIND_COUNT };

struct store_op {
        enum store_op_kind kind;
        enum store_table table;
        json_t *row;
};

struct store_txn {
        struct store_op *op;
        size_t n_ops, cap;
        bool failed; /* out of memory while it was put together */

        /* set at submission */
        struct store_txn *next;
        store_done_fn *done;
        void *arg;
        int result;
};
