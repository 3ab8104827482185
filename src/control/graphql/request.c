/* request.c - requests from bytes to answer.  API program, loop thread; bodies are hostile. */
#include <errno.h>

#include "base/jsonx.h"
#include "control/graphql/cache.h"
#include "control/graphql/coerce.h"
#include "control/graphql/exec.h"
#include "model/limits.h"

#define KEPT_BYTES 4096U /* of the last answer's room, for the next one of a subscription */

static const char unauthorized[] =
        "unauthorized: this needs an API key (Authorization: Bearer KEY), and a valid one";

/* Remember line and column of the fault while its text is at hand. */
static void locate(struct gql_request *r, const char *text, size_t len)
{
        if (r->fault.off != UINT32_MAX)
                lex_position(text, (uint32_t) len, r->fault.off, &r->fault_line, &r->fault_column);
}

static void request_fault(struct gql_request *r, const char *code, const char *msg)
{
        (void) fault_set(&r->fault, -EINVAL, code, UINT32_MAX, "%s", msg);
}

static int request_alloc(struct gql_schema *s, void *ctx, struct gql_request **ret)
{
        struct gql_request *r = calloc(1, sizeof *r);

        if (!r)
                return -ENOMEM;
        r->schema = s;
        r->ctx = ctx;
        r->answer_max = LIMIT_ANSWER_BYTES;
        *ret = r;
        return 0;
}

/* 0 or -ENOMEM; anything wrong with the query stays in the fault. */
static int request_compile(struct gql_request *r, const char *query, size_t len,
                           const char *op_name)
{
        uint64_t hash;
        int rc;

        if (len > LIMIT_QUERY_BYTES) {
                (void) fault_set(&r->fault, -E2BIG, "GRAPHQL_PARSE_FAILED", UINT32_MAX,
                                 "query: longer than %u bytes", LIMIT_QUERY_BYTES);
                return 0;
        }
        r->query = cache_get(r->schema->cache, CACHE_QUERY, query, len, op_name, &hash);
        if (r->query)
                return 0;
        rc = cquery_make(r->schema, query, len, op_name, &r->query, &r->fault);
        if (rc == -ENOMEM)
                return rc;
        if (rc < 0)
                locate(r, query, len);
        else
                cache_put(r->schema->cache, CACHE_QUERY, query, len, op_name, hash, r->query);
        return 0;
}

static int request_fill(struct gql_request *r, const char *query, size_t len, const char *op_name,
                        json_t *variables)
{
        if (variables && !json_is_null(variables) && !json_is_object(variables)) {
                request_fault(r, "BAD_USER_INPUT", "variables: must be an object or null");
                return 0;
        }
        r->variables = json_incref(variables);
        return request_compile(r, query, len, op_name);
}

int gql_request_new(struct gql_schema *s, const char *query, size_t len, const char *op_name,
                    json_t *variables, void *ctx, struct gql_request **ret)
{
        AUTO(gql_request_free) struct gql_request *r = NULL;
        int rc = request_alloc(s, ctx, &r);

        if (rc >= 0)
                rc = request_fill(r, query, len, op_name, variables);
        if (rc < 0)
                return rc;
        *ret = TAKE(r);
        return 0;
}

static int body_read(struct gql_request *r, const char *body, size_t len)
{
        AUTO(json_put) json_t *j = NULL;
        json_t *query, *name;
        json_error_t je;

        if (len > LIMIT_QUERY_BYTES) {
                (void) fault_set(&r->fault, -E2BIG, "GRAPHQL_PARSE_FAILED", UINT32_MAX,
                                 "body: longer than %u bytes", LIMIT_QUERY_BYTES);
                return 0;
        }
        j = json_loadb(body, len, 0, &je);
        if (!j) {
                (void) fault_set(&r->fault, -EINVAL, "GRAPHQL_PARSE_FAILED", UINT32_MAX,
                                 "body: not JSON: line %d column %d: %.100s", je.line, je.column,
                                 je.text);
                return 0;
        }
        query = json_object_get(j, "query");
        name = json_object_get(j, "operationName");
        if (!json_is_string(query)) {
                request_fault(r, "BAD_USER_INPUT",
                              "body: must be an object with the query as a string in \"query\"");
                return 0;
        }
        if (name && !json_is_null(name) && !json_is_string(name)) {
                request_fault(r, "BAD_USER_INPUT", "operationName: must be a string or null");
                return 0;
        }
        return request_fill(r, json_string_value(query), json_string_length(query),
                            json_string_value(name), json_object_get(j, "variables"));
}

static int body_fill(struct gql_request *r, const char *body, size_t len)
{
        uint64_t hash;
        int rc;

        r->query = cache_get(r->schema->cache, CACHE_BODY, body, len, NULL, &hash);
        if (r->query)
                return 0;
        rc = body_read(r, body, len);
        if (rc == 0 && r->query && json_object_size(r->variables) == 0)
                cache_put(r->schema->cache, CACHE_BODY, body, len, NULL, hash, r->query);
        return rc;
}

int gql_request_new_body(struct gql_schema *s, const char *body, size_t len, void *ctx,
                         struct gql_request **ret)
{
        AUTO(gql_request_free) struct gql_request *r = NULL;
        int rc = request_alloc(s, ctx, &r);

        if (rc >= 0)
                rc = body_fill(r, body, len);
        if (rc < 0)
                return rc;
        *ret = TAKE(r);
        return 0;
}

bool gql_request_is_mutation(const struct gql_request *r)
{
        return r->query && r->query->mutation;
}

struct gql_request *gql_request_free(struct gql_request *r)
{
        if (!r)
                return NULL;
        if (r->pending)
                r->pending->req = NULL;
        for (size_t i = 0; r->slot_args && i < r->query->n_slots; i++)
                json_decref(r->slot_args[i]);
        free(r->slot_args);
        free(r->skip);
        json_decref(r->variables);
        strbuf_done(&r->out);
        strbuf_done(&r->errors);
        cquery_unref(r->query);
        free(r);
        return NULL;
}

/* ---- before it runs ------------------------------------------------------------------------------- */

static struct coerce coerce_of(struct gql_request *r)
{
        return (struct coerce){ .schema = r->schema,
                                .src = r->query->doc.src,
                                .vars = r->query->op->vars,
                                .values = r->variables,
                                .code = "BAD_USER_INPUT",
                                .fault = &r->fault };
}

static int decide_conditions(struct gql_request *r)
{
        const struct cquery *q = r->query;
        struct coerce c = coerce_of(r);

        if (q->n_conditional == 0)
                return 0;
        r->skip = calloc(q->n_fields, sizeof *r->skip);
        if (!r->skip)
                return fault_set(&r->fault, -ENOMEM, "INTERNAL_SERVER_ERROR", UINT32_MAX,
                                 "out of memory");
        for (size_t i = 0; i < q->n_conditional; i++) {
                bool in = false;

                for (const struct cond_list *l = q->conditional[i]->conds; l && !in; l = l->next) {
                        in = true;
                        for (const struct cond *k = l->cond; k && in; k = k->up) {
                                bool v = false;

                                if (k->kind == COND_VAR &&
                                    coerce_condition(&c, k->variable, &v) < 0)
                                        return r->fault.err.code;
                                in = k->kind == COND_VAR && v != k->skip;
                        }
                }
                r->skip[q->conditional[i]->index] = !in;
        }
        return 0;
}

static int convert_arguments(struct gql_request *r)
{
        const struct cquery *q = r->query;

        if (q->n_slots == 0)
                return 0;
        r->slot_args = calloc(q->n_slots, sizeof *r->slot_args);
        if (!r->slot_args)
                return fault_set(&r->fault, -ENOMEM, "INTERNAL_SERVER_ERROR", UINT32_MAX,
                                 "out of memory");
        for (size_t i = 0; i < q->n_slots; i++) {
                const struct qfield *f = q->slots[i];
                struct coerce c = coerce_of(r);
                int rc;

                c.off = f->off;
                rc = coerce_args(&c, f->f->n.name, &f->f->args, f->given, &r->slot_args[i]);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

/* Without a key nothing of the request runs, so that no half of it has happened. */
static int check_key(struct gql_request *r)
{
        const struct selection *s = r->query->root;

        for (size_t i = 0; i < s->n; i++) {
                const struct qfield *q = &s->v[i];
                enum gql_right need = q->f && q->f->row ? q->f->row->need : GQL_SELF;
                struct err e = { 0 };
                int rc;

                if (!q->f || need == GQL_ANYONE || (r->granted & 1U << need))
                        continue;
                rc = r->schema->ops.allow(r->ctx, need, &e);
                if (rc == -EACCES)
                        return fault_set(&r->fault, rc, "UNAUTHENTICATED", UINT32_MAX, "%s",
                                         e.msg[0] ? e.msg : unauthorized);
                if (rc >= 0)
                        r->granted |= 1U << need;
        }
        return 0;
}

/* ---- the answer ----------------------------------------------------------------------------------- */

static void write_fault(struct gql_request *r, struct strbuf *out)
{
        OUT_LITERAL(out, "{\"errors\":[");
        error_write(out, r->fault.code, r->fault.err.msg, r->fault_line, r->fault_column, NULL);
        OUT_LITERAL(out, "]}");
}

static unsigned fault_status(const struct gql_request *r)
{
        if (r->fault.err.code == -EACCES)
                return 401;
        return r->fault.err.code == -ENOMEM ? 500 : 400;
}

static void close_data(struct gql_request *r)
{
        if (r->overflow) {
                (void) fault_set(&r->fault, -E2BIG, "ANSWER_TOO_LONG", UINT32_MAX,
                                 "the answer is longer than %zu bytes: ask for less at once",
                                 r->answer_max);
                strbuf_done(&r->errors);
                error_write(&r->errors, r->fault.code, r->fault.err.msg, 0, 0, NULL);
                r->data_null = true;
        }
        if (r->data_null) {
                r->out.len = 0;
                OUT_LITERAL(&r->out, "{\"data\":null");
        } else {
                out_char(&r->out, '}');
        }
        if (r->errors.len > 0) {
                OUT_LITERAL(&r->out, ",\"errors\":[");
                out_raw(&r->out, r->errors.s, r->errors.len);
                out_char(&r->out, ']');
        }
        out_char(&r->out, '}');
}

static void deliver(struct gql_request *r, unsigned status)
{
        struct strbuf body = r->out;
        gql_done_fn *done = r->done;
        void *arg = r->arg;

        r->out = (struct strbuf){ 0 };
        r->done = NULL;
        if (out_room(&body, 1))
                body.s[body.len] = '\0';
        if (body.failed || r->errors.failed) {
                strbuf_done(&body);
                gql_error_body(&body, "INTERNAL_SERVER_ERROR", "out of memory");
                status = 500;
        }
        done(arg, status, &body); /* @r may be gone now */
        strbuf_done(&body);
}

void request_finish(struct gql_request *r)
{
        bool bad = r->n_errors > 0 && r->n_errors == r->n_bad_input && r->n_root_ok == 0;

        close_data(r);
        /* a little more than last time, but one huge answer does not make all others so */
        r->query->answer_bytes = r->out.len < 65536 ? r->out.len + r->out.len / 16 + 64 : 0;
        deliver(r, bad ? 400 : 200);
}

/* 0, or a fault. */
static int prepare(struct gql_request *r)
{
        int rc = r->query ? 0 : -EINVAL;

        r->schema->requests++;
        r->granted = 1U << GQL_ANYONE;
        if (rc == 0)
                rc = check_key(r);
        if (rc == 0)
                rc = decide_conditions(r);
        if (rc == 0)
                rc = convert_arguments(r);
        return rc;
}

static void refuse(struct gql_request *r)
{
        if (r->query && r->fault.code)
                locate(r, r->query->doc.src, r->query->doc.len);
        write_fault(r, &r->out);
}

void gql_run(struct gql_request *r, gql_done_fn *done, void *arg)
{
        int rc;

        r->done = done;
        r->arg = arg;
        rc = prepare(r);
        if (rc == 0 && r->query->subscription)
                rc = fault_set(
                        &r->fault, -EINVAL, "BAD_USER_INPUT", UINT32_MAX,
                        "a subscription has many answers: ask for it over a WebSocket, or with Accept: text/event-stream");
        if (rc < 0) {
                refuse(r);
                deliver(r, fault_status(r));
                return;
        }
        (void) out_room(&r->out, r->query->answer_bytes);
        OUT_LITERAL(&r->out, "{\"data\":{");
        exec_begin(r);
}

/* ---- subscriptions -------------------------------------------------------------------------------- */

bool gql_request_is_subscription(const struct gql_request *r)
{
        return r->query && r->query->subscription;
}

const char *gql_subscribed(const struct gql_request *r)
{
        return r->query->root->v->f->n.name;
}

const json_t *gql_subscribed_args(const struct gql_request *r)
{
        const struct qfield *q = r->query->root->v;

        return q->arg_slot >= 0 ? r->slot_args[q->arg_slot] : q->args;
}

/* A key that is good and may not is refused at once, not with every event. */
static int check_right(struct gql_request *r)
{
        const struct sfield *f = r->query->root->v->f;
        enum gql_right need = f->row ? f->row->need : GQL_ANYONE;
        struct err e = { 0 };

        if (!f->row)
                return fault_set(&r->fault, -EOPNOTSUPP, "NOT_IMPLEMENTED", UINT32_MAX,
                                 "%s is not available on this engine", f->n.name);
        if ((r->granted & 1U << need) || r->schema->ops.allow(r->ctx, need, &e) >= 0)
                return 0;
        return fault_set(&r->fault, -EPERM, "FORBIDDEN", UINT32_MAX, "%s",
                         e.msg[0] ? e.msg : "forbidden: this API key may not do that");
}

int gql_subscribe(struct gql_request *r, unsigned *ret_status, struct strbuf *ret_body)
{
        int rc = prepare(r);

        if (rc == 0 && !r->query->subscription)
                rc = fault_set(&r->fault, -EINVAL, "BAD_USER_INPUT", UINT32_MAX,
                               "only subscriptions are answered here; POST queries and mutations");
        if (rc == 0 && r->query->n_fields > LIMIT_SUBSCRIPTION_FIELDS)
                rc = fault_set(&r->fault, -E2BIG, "BAD_USER_INPUT", UINT32_MAX,
                               "a subscription selects at most %u fields",
                               LIMIT_SUBSCRIPTION_FIELDS);
        if (rc == 0)
                rc = check_right(r);
        r->answer_max = LIMIT_SUBSCRIPTION_BYTES;
        if (rc == 0)
                return 0;
        refuse(r);
        *ret_status = r->fault.err.code == -EPERM || r->fault.err.code == -EOPNOTSUPP
                              ? 200
                              : fault_status(r);
        *ret_body = r->out;
        r->out = (struct strbuf){ 0 };
        return -EINVAL;
}

int gql_emit(struct gql_request *r, const void *obj, struct strbuf *out)
{
        size_t before = out->len;
        bool failed;

        r->out.len = r->errors.len = 0;
        r->n_errors = r->n_bad_input = r->calls = 0;
        r->overflow = r->late = false;
        OUT_LITERAL(&r->out, "{\"data\":{");
        exec_emit(r, obj);
        close_data(r);
        strbuf_add(out, r->out.s, r->out.len);
        failed = r->out.failed || r->errors.failed || out->failed;
        if (failed || r->out.len > KEPT_BYTES) { /* most wait for their next event for long */
                strbuf_done(&r->out);
                strbuf_done(&r->errors);
        }
        if (failed && !out->failed)
                out->len = before;
        return failed ? -ENOMEM : 0;
}
