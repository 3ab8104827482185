/* gql.h - GraphQL: a schema in its own language, resolver tables bound to it, requests run on it.
 *
 * For the API program; loop thread only; nothing here blocks.  The schema text
 * (schema/tensorone.graphqls) is the contract: every type, argument, input field and enum value
 * comes from it.  Tables of `struct gql_field` say how a field of an object type is answered.
 *
 *   gql_schema_new()   once: text + tables, checked against each other
 *   gql_request_new()  per request: parses, validates, compiles (or finds the compiled query)
 *   gql_run()          resolves; calls `done` exactly once, at once or when the last pending
 *                      root field was completed, unless the request is freed before
 *
 * Two spellings.  The schema has each operation twice, pod... and cluster....  In the tables the
 * noun is written once, as '@': "@Id" is podId and clusterId, "deployCpu@" is deployCpuPod and
 * deployCpuCluster, type "@" is Pod and Cluster, "[@!]!" is [Pod!]! and [Cluster!]!.  In a type
 * that exists twice a row binds the field of the same spelling; elsewhere it binds both fields. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

struct gql_schema;
struct gql_request;
struct gql_call;    /* one field being resolved; valid until the resolver returns */
struct gql_pending; /* a root field whose answer comes later */

/* What a field needs; asked once per request and right through gql_ops.allow.  Rights on single
 * objects ("is it yours") are the resolver's business: what is not yours does not exist. */
enum gql_right {
        GQL_RIGHT_NONE, /* a row without a right: refused when the schema is made */
        GQL_ANYONE,     /* also without a key */
        GQL_SELF,       /* any valid key, also the key that a cluster finds in its environment */
        GQL_READ,       /* a key of the account */
        GQL_WRITE,      /* a key of the account that may change things */
        GQL_ADMIN,      /* an administrator's key */
        GQL_RIGHT_COUNT
};

/* ---- resolver tables ------------------------------------------------------------------- */

/* Answer one field of @obj (NULL for root fields) by putting exactly one value (gql_put_...).
 * Putting nothing means null.  Returns 0, GQL_PENDING (root fields only, after gql_defer()), or
 * a negative errno with *e: the client then gets null and an error with path, message and a code
 * made from the errno (gql_code_of), or the one of gql_set_code().  Whatever was put before the
 * failure is taken back.  Must not wait. */
typedef int gql_resolve_fn(struct gql_call *c, const void *obj, struct err *e);
#define GQL_PENDING 1

/* Plain members need no function: what lies at `off` in *obj. */
enum gql_get {
        GQL_GET_FN,    /* use fn */
        GQL_GET_STR,   /* const char *, NULL = null */
        GQL_GET_CHARS, /* char[], "" = null */
        GQL_GET_BOOL,  /* bool */
        GQL_GET_I32,
        GQL_GET_U32,
        GQL_GET_I64,
        GQL_GET_U64,
        GQL_GET_F64,  /* double */
        GQL_GET_TIME, /* uint64_t, wall clock in us, 0 = null */
        GQL_GET_STRV, /* char **, NULL-terminated; NULL = [] */
        GQL_GET_SUB,  /* an embedded struct, answered as object */
        GQL_GET_PTR,  /* a pointer to a struct, NULL = null */
        GQL_GET_SELF, /* @obj again, as an object of the field's type */
        GQL_GET_NULL, /* known, but this engine has no value for it */
        GQL_GET_COUNT
};

struct gql_field {
        const char *name; /* "gpuCount", "@Id" */
        const char *type; /* as in the schema: "Int!", "[@!]!"; compared with it */
        enum gql_right need;
        gql_resolve_fn *fn;
        enum gql_get get;
        size_t off;
};

struct gql_type {
        const char *name; /* "Query", "Mutation", "Subscription", "@", "@MachineInfo", "GpuType" */
        const struct gql_field *fields;
        size_t n;
};

struct gql_ops {
        /* May the caller behind @ctx do what needs @need?  0 yes; -EACCES: no key or a wrong one
         * (the whole request is answered 401 before anything runs); -EPERM: a good key that may
         * not (an error on that field, code FORBIDDEN).  *e may stay empty. */
        int (*allow)(void *ctx, enum gql_right need, struct err *e);
        /* Around each root field of a mutation: before its resolver, and after it with what that has
         * returned (*e is empty unless @r is negative).  Also where `allow` has refused it: then with
         * -EPERM.  Both or neither may be NULL. */
        void (*mutate)(struct gql_call *c);
        void (*mutated)(struct gql_call *c, int r, const struct err *e);
        bool strict; /* unknown input fields are refused instead of ignored */
};

/* Read the schema @sdl (@len bytes; NULL: the one built into the program) and bind @types.
 * Tables and strings are borrowed for the life of the schema.  Fails with -EINVAL when text and
 * tables do not fit: a row that the schema does not have, another type, no right, a non-null
 * field of a bound type without a row.  Nullable fields without a row answer null; root fields
 * without a row answer an error with code NOT_IMPLEMENTED.  -ENOMEM. */
int gql_schema_new(const char *sdl, size_t len, const struct gql_type *types, size_t n,
                   const struct gql_ops *ops, struct gql_schema **ret, struct err *e);
struct gql_schema *gql_schema_free(struct gql_schema *s); /* after the last request */
DEFINE_AUTO(struct gql_schema *, gql_schema_free)

/* ---- inside a resolver ------------------------------------------------------------------ */

void *gql_context(const struct gql_call *c); /* what gql_request_new() was given */

/* The field's arguments: an object, never NULL, borrowed as long as the request lives.  Checked
 * and converted to the schema's types: an Int is a JSON integer, an enum a string, a lone value
 * for a list a list.  Absent and null are the same: left out.  Defaults of the schema are filled
 * in.  Unknown input fields are left out.  Keys of the two spellings are given in the cluster one
 * (podId arrives as clusterId).  Fit for jsonx_decode(). */
const json_t *gql_args(const struct gql_call *c);
const char *gql_arg_str(const struct gql_call *c, const char *name); /* top level; NULL: absent */
const json_t *gql_arg(const struct gql_call *c, const char *name);   /* top level; NULL: absent */

/* "pod" or "cluster": the spelling that this part of the query uses, for messages. */
const char *gql_noun(const struct gql_call *c);
const char *gql_field_name(const struct gql_call *c); /* as in the schema, "podStop" */

/* Put one value.  All return 0 or a negative errno that the resolver should return as it is.
 * A number put into an Int field is written without a decimal point in every case. */
int gql_put_null(struct gql_call *c);
int gql_put_bool(struct gql_call *c, bool v);
int gql_put_int(struct gql_call *c, int64_t v);
int gql_put_num(struct gql_call *c, double v); /* shortest form; 8 rather than 8.0; NaN = null */
int gql_put_str(struct gql_call *c, const char *s); /* NULL = null */
int gql_put_strn(struct gql_call *c, const char *s, size_t len);
int gql_put_fmt(struct gql_call *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int gql_put_time(struct gql_call *c, uint64_t wall_us); /* RFC 3339; 0 = null */
int gql_put_json(struct gql_call *c, const json_t *j);  /* as it is; scalars only; NULL = null */

/* Answer the field's selection on @obj (NULL = null), which is borrowed during the call. */
int gql_put_object(struct gql_call *c, const void *obj);

/* A list: begin, any number of gql_put_... , end.  Lists do not nest. */
int gql_list_begin(struct gql_call *c);
int gql_list_end(struct gql_call *c);

/* extensions.code of this field's error, instead of the one made from the errno. @code is static. */
void gql_set_code(struct gql_call *c, const char *code);

/* EINVAL ERANGE E2BIG BAD_USER_INPUT, ENOENT NOT_FOUND, EEXIST CONFLICT, EPERM FORBIDDEN, EACCES
 * UNAUTHENTICATED, ENOSPC NO_CAPACITY, EDQUOT QUOTA_EXCEEDED, EBUSY EPROTO BAD_STATE, EOPNOTSUPP
 * NOT_IMPLEMENTED, EAGAIN ETIMEDOUT UNAVAILABLE, anything else INTERNAL_SERVER_ERROR. */
const char *gql_code_of(int r);

/* ---- answers that come later ------------------------------------------------------------- */

/* Root resolvers only: `*ret = gql_defer(c)`, start the work, return GQL_PENDING.  The handle is
 * then ended by exactly one of the calls below, on the loop, also from inside the resolver; it
 * stays valid when the request is freed in between (the answer then goes nowhere).  Root fields
 * run one after the other: the next one starts after this one was completed.  NULL: no memory. */
struct gql_pending *gql_defer(struct gql_call *c);

/* @obj (borrowed during the call) answers an object field; NULL = null. */
void gql_complete(struct gql_pending *p, const void *obj);
/* Call @fn as the resolver now, with @obj: for lists and scalars.  It may not defer again. */
void gql_complete_with(struct gql_pending *p, gql_resolve_fn *fn, const void *obj);
/* The field failed; @code NULL: made from e->code. */
void gql_fail(struct gql_pending *p, const char *code, const struct err *e);

/* The client went away or not: false when nobody will read the answer. */
bool gql_pending_wanted(const struct gql_pending *p);
void *gql_pending_context(const struct gql_pending *p); /* NULL when the request is gone */

/* ---- requests ------------------------------------------------------------------------- */

/* HTTP status and body.  @body is the callee's to strbuf_take(), or it is freed afterwards.
 * 200 answered, errors of single fields included; 400 parse, validation and variables, also when
 * all that the request did was fail with BAD_USER_INPUT; 401; 500 out of memory.
 * gql_request_free() may be called from inside. */
typedef void gql_done_fn(void *arg, unsigned status, struct strbuf *body);

/* @query is copied where needed, @variables (NULL, null or an object) is referenced, @op_name may
 * be NULL or "", @ctx is the caller's.  A bad query is not an error here: gql_run() answers it.
 * Only -ENOMEM. */
int gql_request_new(struct gql_schema *s, const char *query, size_t len, const char *op_name,
                    json_t *variables, void *ctx, struct gql_request **ret);

/* The same from an HTTP body {"query", "variables", "operationName"}; anything wrong with it is
 * answered by gql_run() with 400. */
int gql_request_new_body(struct gql_schema *s, const char *body, size_t len, void *ctx,
                         struct gql_request **ret);

/* Run once. */
void gql_run(struct gql_request *r, gql_done_fn *done, void *arg);

/* Whether the query is a mutation (false when it could not be read). */
bool gql_request_is_mutation(const struct gql_request *r);

/* ---- subscriptions: one root field, answered for everything that happens -------------------- */

/* Rows of type Subscription are GQL_GET_SELF: the event itself is the object. */
bool gql_request_is_subscription(const struct gql_request *r);

/* Instead of gql_run(): check key, right and arguments, once.  0: gql_emit() may be called.  -EINVAL: it
 * is none, or is refused; *@ret_body (empty before) is then an answer with errors for *@ret_status. */
int gql_subscribe(struct gql_request *r, unsigned *ret_status, struct strbuf *ret_body);
const char *gql_subscribed(const struct gql_request *r);        /* "clusterEvents" */
const json_t *gql_subscribed_args(const struct gql_request *r); /* as gql_args() */

/* Add {"data":{...}} for @obj, borrowed for the call, to @out; what fails in it is told there.  The limits of
 * a query hold for each, and LIMIT_SUBSCRIPTION_BYTES.  -ENOMEM: nothing was added. */
int gql_emit(struct gql_request *r, const void *obj, struct strbuf *out);

/* Also cancels: `done` is not called any more, further root fields are not started; a mutation
 * that is pending goes on and its completion is ignored.  NULL is fine; returns NULL. */
struct gql_request *gql_request_free(struct gql_request *r);
DEFINE_AUTO(struct gql_request *, gql_request_free)

/* {"errors":[{"message":...,"extensions":{"code":...}}]} for answers made outside (401, 429). */
void gql_error_body(struct strbuf *out, const char *code, const char *message);

/* Cache of compiled queries: how it did. */
struct gql_stats {
        uint64_t requests, cache_hits, cached, cached_bytes;
};
void gql_stats(const struct gql_schema *s, struct gql_stats *ret);
