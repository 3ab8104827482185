/* exec.h - inside the graphql folder: a request while it runs.  exec.c walks the selection, put.c
 * writes values, request.c begins and ends. */
#pragma once
#include "control/graphql/compile.h"
#include "control/graphql/out.h"

struct gql_call {
        struct gql_request *req;
        const struct qfield *q;
        const struct gql_call *parent; /* the field whose object this one is in; NULL: root */
        int64_t index;                 /* of the list item that was begun last */
        size_t start;                  /* where the value begins in the answer */
        bool put, is_null, in_list;
        bool bubbled; /* null where none is allowed: the error is told, the parent becomes null */
        const char *code;
};

struct gql_pending {
        struct gql_request *req; /* NULL: nobody waits any more */
};

struct gql_request {
        struct gql_schema *schema;
        struct cquery *query; /* NULL: there is a fault */
        json_t *variables;
        void *ctx;
        struct gql_fault fault;
        uint32_t fault_line, fault_column; /* 0: no place */
        json_t **slot_args;
        bool *skip;               /* by field index; only when the query has conditions */
        unsigned granted, denied; /* bits of enum gql_right */
        struct strbuf out, errors;
        size_t n_errors, n_bad_input, n_root_ok, errors_before;
        size_t answer_max; /* bytes; one field may go beyond it */
        bool overflow;     /* the answer would become too long */
        uint64_t until_us; /* of the thread's own clock, while it runs */
        unsigned calls;    /* of resolvers */
        bool late;
        bool data_null;
        size_t next; /* root field */
        struct gql_call root_call;
        struct gql_pending *pending;
        bool deferred, running;
        gql_done_fn *done;
        void *arg;
};

/* exec.c */
bool exec_selection(struct gql_request *r, const struct selection *s, const void *obj,
                    const struct gql_call *parent);
void exec_begin(struct gql_request *r); /* runs until it ends or waits */

void exec_emit(struct gql_request *r, const void *obj); /* the root field of a subscription */

/* Ends the value of @c with what the resolver returned.  false: its parent must become null. */
bool exec_end_call(struct gql_call *c, int rc, const struct err *e);

/* request.c */
void request_finish(struct gql_request *r); /* calls done; @r may be gone afterwards */

/* error.c: @c is the field that failed (q, parent), index included when it is in a list. */
void error_add(struct gql_request *r, const struct gql_call *c, const char *code, const char *msg);
void error_write(struct strbuf *out, const char *code, const char *msg, uint32_t line,
                 uint32_t column, const struct gql_call *path);
