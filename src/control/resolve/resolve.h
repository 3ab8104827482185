/* resolve.h - the GraphQL operations of the control plane, as tables for graphql/gql.h.
 * Resolvers answer from the plane's memory and never wait; whoever sends the answer waits for
 * plane_fence() first. */
#pragma once
#include "control/account/account.h"
#include "control/graphql/gql.h"
#include "control/plane/plane.h"

/* The ctx of every request: gql_context(). */
struct resolve_ctx {
        struct plane *plane;
        struct caller who;
        struct audit audit; /* of the mutation that is being run */
};

/* The object of a LogLine. */
struct log_line_view {
        const char *time, *stream, *text;
        size_t text_len; /* it may hold anything */
        bool whole;
};

/* The schema with all our tables bound. */
int resolve_schema_new(struct gql_schema **ret, struct err *e);
