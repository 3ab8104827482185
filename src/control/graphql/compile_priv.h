/* compile_priv.h - the compiler's state, shared by compile.c and fragment.c. */
#pragma once
#include <errno.h>

#include "control/graphql/compile.h"

#define INVALID "GRAPHQL_VALIDATION_FAILED"

struct compiler {
        struct gql_schema *s;
        struct cquery *q;
        struct gql_fault *f;
        const char *src;
        struct ast_frag **frag; /* open-addressed by name */
        uint32_t n_frag;        /* slots, a power of two */
        uint32_t depth, visits, selections;
};

static inline int compile_no_memory(struct compiler *k)
{
        return fault_set(k->f, -ENOMEM, "INTERNAL_SERVER_ERROR", UINT32_MAX, "out of memory");
}

/* Names in messages are cut: they are a stranger's. */
static inline int show_len(struct slice s)
{
        return (int) (s.len > 60 ? 60 : s.len);
}

/* fragment.c: index all fragments by name, look one up, refuse those that spread themselves. */
int frag_index(struct compiler *k);
int frag_find(struct compiler *k, struct slice name, struct ast_frag **ret);
int frag_check_cycles(struct compiler *k, const struct ast_sel *sel);
