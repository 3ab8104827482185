/* leaf.h - one scalar of a request made into what its place in the schema asks for.  Pure. */
#pragma once
#include "control/graphql/coerce.h"

/* One scalar, whether it was written in the query or came in a variable. */
struct leaf {
        enum { LEAF_INT, LEAF_FLOAT, LEAF_STRING, LEAF_WORD, LEAF_BOOL, LEAF_OTHER } kind;
        const char *s; /* LEAF_STRING, LEAF_WORD, numbers of the query: the text */
        size_t len;
        json_int_t i;
        double d;
        bool b;
        bool huge; /* an integer beyond 64 bits */
        uint32_t off;
};

struct leaf leaf_of_json(const json_t *j, uint32_t off);

/* *ret stays NULL for "", which means: not set. */
int leaf_convert(struct coerce *c, const struct stype *t, const struct leaf *l, json_t **ret);

/* Text that is a whole decimal number; anything strtod() would like beyond that is refused. */
bool leaf_number(const char *s, size_t len, double *ret_d, json_int_t *ret_i, bool *ret_int);

/* A fault at the present path.  Returns -EINVAL. */
int coerce_refuse(struct coerce *c, uint32_t off, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
int coerce_no_memory(struct coerce *c);
