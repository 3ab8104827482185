/* compile.h - a query after validation: what to write, in which order, by which resolver.
 *
 * There are no interfaces and unions, so every selection has one type that is known beforehand:
 * fragments are flattened and fields merged once, when the query is compiled, not per object.
 * A compiled query is immutable while requests run on it and is shared by them (cache.h). */
#pragma once
#include "control/graphql/parse.h"
#include "control/graphql/schema.h"

/* The directives on the way to a field, as a chain: each link must hold.  NULL: always. */
struct cond {
        const struct cond *up;
        enum { COND_VAR, COND_NEVER } kind;
        struct slice variable; /* COND_VAR */
        bool skip;             /* @skip rather than @include */
};

struct cond_list { /* one for each place that selects the field: any of them lets it in */
        const struct cond *cond;
        struct cond_list *next;
};

struct selection;

struct qfield {
        const struct sfield *f; /* NULL: __typename */
        const char *key;        /* `,"alias":` */
        uint32_t key_len;       /* all of it; the alias is key_len - 4 bytes at key + 2 */
        uint32_t off;           /* in the query */
        uint32_t index;         /* among all fields of the query */
        const struct selection *sub;
        const char *noun;   /* "pod" or "cluster" */
        const json_t *args; /* constant ones, never NULL then; borrowed from the query */
        const struct ast_arg *given;
        int32_t arg_slot;        /* >= 0: the arguments depend on variables */
        bool not_here;           /* a root field that this engine does not have */
        struct cond_list *conds; /* NULL: always */
};

struct selection {
        const struct stype *type;
        struct qfield *v;
        size_t n;
};

struct cquery {
        unsigned refs;
        struct arena arena;
        struct ast_doc doc;
        const struct ast_op *op;
        const struct selection *root;
        uint32_t n_fields;
        const struct qfield **slots; /* fields whose arguments depend on variables */
        size_t n_slots;
        const struct qfield **conditional;
        size_t n_conditional;
        bool mutation, subscription;
        json_t **owned; /* constant arguments */
        size_t n_owned;
        size_t answer_bytes; /* of the last answer: room for the next one */
};

/* Parse, validate and compile @text (copied).  -EINVAL, -E2BIG or -ENOMEM with the fault; line and
 * column are then those of @text. */
int cquery_make(struct gql_schema *s, const char *text, size_t len, const char *op_name,
                struct cquery **ret, struct gql_fault *f);
struct cquery *cquery_ref(struct cquery *q);
struct cquery *cquery_unref(struct cquery *q);
DEFINE_AUTO(struct cquery *, cquery_unref)
