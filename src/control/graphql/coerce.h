/* coerce.h - values of a request made into what the schema asks for: literals and variables alike,
 * with the leniency that clients need.  The result is JSON for gql_args().  Pure. */
#pragma once
#include "control/graphql/parse.h"
#include "control/graphql/schema.h"

struct coerce {
        const struct gql_schema *schema;
        const char *src;            /* what the literals point into */
        const struct ast_var *vars; /* declared variables, for their defaults */
        const json_t *values;       /* given variables; NULL: none */
        bool deferred;              /* variables are not known yet: check everything else */
        const char *code;           /* of faults */
        struct gql_fault *fault;
        uint32_t off;   /* place named in faults of values that come from variables */
        char path[192]; /* "podStop(input.podId" */
        size_t path_len;
};

/* Arguments @given for @declared ones of the field or directive @owner.  *ret is a new object.
 * -EINVAL with the fault naming the argument, or -ENOMEM. */
int coerce_args(struct coerce *c, const char *owner, const struct names *declared,
                const struct ast_arg *given, json_t **ret);

/* A constant of the schema text for @type; *ret may be NULL (null). */
int coerce_literal(struct coerce *c, const struct tref *type, const struct ast_value *v,
                   json_t **ret);

/* @include/@skip: the value of `if`. */
int coerce_condition(struct coerce *c, struct slice variable, bool *ret);
