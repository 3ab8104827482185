/* exec.c - walks a compiled query over objects.  API program, loop thread.
 *
 * Resolvers write their values straight into the answer.  A field that fails is cut off again at
 * the place where it began and becomes null; where the schema allows no null, the parent does, and
 * so on outwards (`false` travels up).  Root fields run one after the other; one that is pending
 * suspends the walk, which is only possible there because nothing else is on the stack then. */
#include "control/graphql/exec.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "base/clock.h"
#include "model/limits.h"

#define CALLS_A_LOOK 16U /* at the clock, which is a system call */

static bool write_null(struct gql_call *c)
{
        struct gql_request *r = c->req;
        char msg[200];

        r->out.len = c->start;
        if (!c->q->f->type.nonnull) {
                OUT_LITERAL(&r->out, "null");
                return true;
        }
        if (!c->bubbled) {
                (void) snprintf(msg, sizeof msg, "%s.%s has no value but must have one",
                                c->q->f->parent->n.name, c->q->f->n.name);
                error_add(r, c, "INTERNAL_SERVER_ERROR", msg);
        }
        return false;
}

/* The field failed and its error is told: null here, or further out. */
static bool cut_off(struct gql_call *c)
{
        c->bubbled = true;
        c->in_list = false;
        return write_null(c);
}

bool exec_end_call(struct gql_call *c, int rc, const struct err *e)
{
        struct gql_request *r = c->req;
        const char *msg = e && e->msg[0] ? e->msg : NULL;

        if (c->bubbled)
                return cut_off(c);
        if (rc >= 0 && c->in_list) {
                rc = -EIO;
                msg = "the resolver did not close its list";
        }
        if (rc > 0) {
                rc = -EIO;
                msg = "the resolver promised an answer without taking a handle";
        }
        if (rc < 0) {
                c->in_list = false;
                error_add(r, c, c->code ? c->code : gql_code_of(rc), msg ? msg : strerror(-rc));
                return cut_off(c);
        }
        if (!c->put || c->is_null)
                return write_null(c);
        return true;
}

static bool forbidden(struct gql_request *r, const struct qfield *q, enum gql_right need,
                      const struct gql_call *parent)
{
        struct gql_call c = { .req = r, .q = q, .parent = parent, .start = r->out.len };
        struct err e = { 0 };
        int rc;

        if (need == GQL_ANYONE) {
                r->granted |= 1U << GQL_ANYONE;
                return false;
        }
        rc = r->schema->ops.allow(r->ctx, need, &e);
        if (rc >= 0) {
                r->granted |= 1U << need;
                return false;
        }
        if (!e.msg[0])
                (void) err_set(&e, rc, "forbidden: this key may not use \"%s\"", q->f->n.name);
        error_add(r, &c, gql_code_of(rc), e.msg);
        return true;
}

static void put_text(struct strbuf *out, const char *s)
{
        out_str(out, s, strlen(s));
}

static void put_strv(struct strbuf *out, char *const *v)
{
        out_char(out, '[');
        for (size_t i = 0; v && v[i]; i++) {
                if (i > 0)
                        out_char(out, ',');
                put_text(out, v[i]);
        }
        out_char(out, ']');
}

/* Members are read by memcpy: the tables know the type, the compiler does not. */
#define MEMBER(T, obj, off)                                                                        \
        T v;                                                                                       \
        memcpy(&v, (const char *) (obj) + (off), sizeof v)

/* The members of which some values are null: 1 written, 0 null. */

static int get_str(struct strbuf *out, const struct gql_field *row, const void *obj)
{
        MEMBER(const char *, obj, row->off);
        if (v)
                put_text(out, v);
        return v != NULL;
}

static int get_chars(struct strbuf *out, const struct gql_field *row, const void *obj)
{
        const char *v = (const char *) obj + row->off;

        if (*v)
                put_text(out, v);
        return *v != '\0';
}

static int get_time(struct strbuf *out, const struct gql_field *row, const void *obj)
{
        char text[40];

        MEMBER(uint64_t, obj, row->off);
        if (v == 0)
                return 0;
        clock_format(v, text, sizeof text);
        put_text(out, text);
        return 1;
}

static int get_f64(struct strbuf *out, const struct gql_field *row, const struct tref *type,
                   const void *obj)
{
        MEMBER(double, obj, row->off);
        if (!isfinite(v))
                return 0;
        out_num(out, type->base->scalar == SC_INT ? nearbyint(v) : v);
        return 1;
}

/* Scalar members without a call.  1 written, 0 null, -1 not a scalar member. */
static int get_scalar(struct strbuf *out, const struct gql_field *row, const struct tref *type,
                      const void *obj)
{
        switch (row->get) {
        case GQL_GET_STR:
                return get_str(out, row, obj);
        case GQL_GET_CHARS:
                return get_chars(out, row, obj);
        case GQL_GET_TIME:
                return get_time(out, row, obj);
        case GQL_GET_F64:
                return get_f64(out, row, type, obj);
        case GQL_GET_BOOL: {
                MEMBER(bool, obj, row->off);
                if (v)
                        OUT_LITERAL(out, "true");
                else
                        OUT_LITERAL(out, "false");
                return 1;
        }
        case GQL_GET_I32: {
                MEMBER(int32_t, obj, row->off);
                out_int(out, v);
                return 1;
        }
        case GQL_GET_U32: {
                MEMBER(uint32_t, obj, row->off);
                out_u64(out, v);
                return 1;
        }
        case GQL_GET_I64: {
                MEMBER(int64_t, obj, row->off);
                out_int(out, v);
                return 1;
        }
        case GQL_GET_U64: {
                MEMBER(uint64_t, obj, row->off);
                out_u64(out, v);
                return 1;
        }
        case GQL_GET_STRV: {
                MEMBER(char **, obj, row->off);
                put_strv(out, v);
                return 1;
        }
        case GQL_GET_NULL:
                return 0;
        case GQL_GET_FN:
        case GQL_GET_SUB:
        case GQL_GET_PTR:
        case GQL_GET_SELF:
        case GQL_GET_COUNT:
        default:
                return -1;
        }
}

static const void *get_object(const struct gql_field *row, const void *obj)
{
        if (row->get == GQL_GET_SELF)
                return obj;
        if (row->get == GQL_GET_PTR) {
                MEMBER(const void *, obj, row->off);
                return v;
        }
        return (const char *) obj + row->off;
}

/* What a field needs before its resolver runs: a row and a right.  1 go on, 0 answered with null,
 * -1 the parent must become null. */
static int exec_enter_slow(struct gql_request *r, const struct qfield *q,
                           const struct gql_call *parent)
{
        const struct gql_field *row = q->f->row;
        struct gql_call c = { .req = r, .q = q, .parent = parent, .start = r->out.len };
        char msg[160];

        if (q->not_here) {
                (void) snprintf(msg, sizeof msg, "%s is not available on this engine",
                                q->f->n.name);
                error_add(r, &c, "NOT_IMPLEMENTED", msg);
                return cut_off(&c) ? 0 : -1;
        }
        if (!row)
                return write_null(&c) ? 0 : -1;
        if (forbidden(r, q, row->need, parent))
                return cut_off(&c) ? 0 : -1;
        return 1;
}

static int exec_enter(struct gql_request *r, const struct qfield *q, const struct gql_call *parent)
{
        const struct gql_field *row = q->f->row;

        return row && (r->granted & 1U << row->need) ? 1 : exec_enter_slow(r, q, parent);
}

/* The thread's clock is everybody's: it counts from where this request goes on, not from before it waited. */
static void begin_time(struct gql_request *r)
{
        r->until_us = clock_thread_us() + LIMIT_QUERY_MS * US_PER_MS;
}

/* Everybody's requests wait while one runs, and a field may be asked for under any number of names. */
static int check_time(struct gql_request *r, struct err *e)
{
        if (!r->late && r->calls++ % CALLS_A_LOOK == 0)
                r->late = clock_thread_us() > r->until_us;
        return r->late ? err_set(e, -E2BIG,
                                 "query: takes over %u ms of the server's time; ask for less at once",
                                 LIMIT_QUERY_MS)
                       : 0;
}

static bool exec_field(struct gql_request *r, const struct qfield *q, const void *obj,
                       const struct gql_call *parent)
{
        const struct gql_field *row = q->f->row;
        struct gql_call c;
        struct err e;
        int rc = exec_enter(r, q, parent);

        if (rc <= 0)
                return rc == 0;
        rc = get_scalar(&r->out, row, &q->f->type, obj);
        if (rc > 0)
                return true;
        c = (struct gql_call){
                .req = r, .q = q, .parent = parent, .index = -1, .start = r->out.len
        };
        if (rc == 0)
                return write_null(&c);
        e.code = 0;
        e.msg[0] = '\0';
        if (row->get != GQL_GET_FN)
                rc = gql_put_object(&c, get_object(row, obj));
        else if ((rc = check_time(r, &e)) >= 0)
                rc = row->fn(&c, obj, &e);
        return exec_end_call(&c, rc, &e);
}

bool exec_selection(struct gql_request *r, const struct selection *s, const void *obj,
                    const struct gql_call *parent)
{
        uint32_t first = 1; /* the first key goes without its comma */

        out_char(&r->out, '{');
        for (size_t i = 0; i < s->n; i++) {
                const struct qfield *q = &s->v[i];

                if (q->conds && r->skip[q->index])
                        continue;
                if (r->out.len > r->answer_max) { /* a field may have any number of names */
                        r->overflow = true;
                        return false;
                }
                out_raw(&r->out, q->key + first, q->key_len - first);
                first = 0;
                if (!q->f)
                        out_str(&r->out, s->type->n.name, s->type->n.len);
                else if (!exec_field(r, q, obj, parent))
                        return false;
        }
        out_char(&r->out, '}');
        return true;
}

/* ---- root fields ---------------------------------------------------------------------------------- */

static void root_end(struct gql_request *r, bool ok)
{
        if (!ok)
                r->data_null = true;
        else if (r->n_errors == r->errors_before)
                r->n_root_ok++;
}

/* A resolver that took a handle and then did something else. */
static int root_misuse(struct gql_request *r, int rc, struct err *e)
{
        struct gql_pending *p = r->pending;

        r->pending = NULL;
        if (rc < 0) {
                free(p); /* it failed: the handle will not be used */
                return rc;
        }
        p->req = NULL; /* it may still be ended; the answer goes nowhere */
        return err_set(e, -EIO, "the resolver answered and took a handle");
}

static void tell_mutate(struct gql_call *c)
{
        const struct gql_ops *ops = &c->req->schema->ops;

        if (c->req->query->mutation && ops->mutate)
                ops->mutate(c);
}

static void tell_mutated(struct gql_call *c, int rc, const struct err *e)
{
        const struct gql_ops *ops = &c->req->schema->ops;

        if (c->req->query->mutation && ops->mutated)
                ops->mutated(c, rc, e);
}

/* A right is missing: nothing was run. */
static void tell_refused(struct gql_request *r, const struct qfield *q)
{
        struct gql_call c = { .req = r, .q = q, .index = -1, .start = r->out.len };
        struct err e = { 0 };

        tell_mutate(&c);
        tell_mutated(&c, err_set(&e, -EPERM, "forbidden: this API key may not do that"), &e);
}

/* false: suspended. */
static bool root_call(struct gql_request *r, const struct qfield *q)
{
        struct gql_call *c = &r->root_call;
        struct err e = { 0 };
        int rc;

        *c = (struct gql_call){ .req = r, .q = q, .index = -1, .start = r->out.len };
        r->deferred = false;
        r->calls = 0; /* these may take long: a look at the clock for each */
        rc = check_time(r, &e);
        if (rc < 0) {
                root_end(r, exec_end_call(c, rc, &e));
                return true;
        }
        tell_mutate(c);
        rc = q->f->row->fn(c, NULL, &e);
        tell_mutated(c, rc, &e);
        if (rc == GQL_PENDING && r->deferred)
                return r->pending == NULL; /* completed from inside: already ended */
        if (r->pending)
                rc = root_misuse(r, rc, &e);
        root_end(r, exec_end_call(c, rc, &e));
        return true;
}

static bool root_field(struct gql_request *r, const struct qfield *q)
{
        int rc;

        r->errors_before = r->n_errors;
        if (!q->f) {
                out_str(&r->out, r->query->root->type->n.name, r->query->root->type->n.len);
                root_end(r, true);
                return true;
        }
        rc = exec_enter(r, q, NULL);
        if (rc > 0 && q->f->row->get == GQL_GET_FN)
                return root_call(r, q);
        if (rc <= 0 && q->f->row && !q->not_here)
                tell_refused(r, q);
        root_end(r, rc > 0 ? exec_field(r, q, NULL, NULL) : rc == 0);
        return true;
}

void exec_begin(struct gql_request *r)
{
        const struct selection *s = r->query->root;

        r->running = true;
        begin_time(r);
        while (!r->data_null && !r->overflow && r->next < s->n) {
                const struct qfield *q = &s->v[r->next++];
                bool first = r->out.s && r->out.s[r->out.len - 1] == '{';

                if (q->conds && r->skip[q->index])
                        continue;
                out_raw(&r->out, q->key + first, q->key_len - (first ? 1 : 0));
                if (!root_field(r, q)) {
                        r->running = false;
                        return;
                }
        }
        request_finish(r);
}

void exec_emit(struct gql_request *r, const void *obj)
{
        const struct qfield *q = r->query->root->v;

        r->until_us = clock_thread_us() + LIMIT_QUERY_MS * US_PER_MS;
        out_raw(&r->out, q->key + 1, q->key_len - 1);
        r->data_null = !exec_field(r, q, obj, NULL);
}

/* ---- answers that come later ----------------------------------------------------------------------- */

struct gql_pending *gql_defer(struct gql_call *c)
{
        struct gql_request *r = c->req;
        struct gql_pending *p;

        if (c != &r->root_call || r->pending)
                return NULL;
        p = calloc(1, sizeof *p);
        if (!p)
                return NULL;
        p->req = r;
        r->pending = p;
        r->deferred = true;
        return p;
}

/* Ends the handle; the request or NULL when nobody waits. */
static struct gql_request *pending_end(struct gql_pending *p)
{
        struct gql_request *r = p->req;

        free(p);
        if (r)
                r->pending = NULL;
        if (r && !r->running) /* completed from inside it has not waited */
                begin_time(r);
        return r;
}

static void resume(struct gql_request *r, int rc, const struct err *e)
{
        root_end(r, exec_end_call(&r->root_call, rc, e));
        if (!r->running)
                exec_begin(r);
}

void gql_complete(struct gql_pending *p, const void *obj)
{
        struct gql_request *r = pending_end(p);

        if (r)
                resume(r, gql_put_object(&r->root_call, obj), NULL);
}

void gql_complete_with(struct gql_pending *p, gql_resolve_fn *fn, const void *obj)
{
        struct gql_request *r = pending_end(p);
        struct err e = { 0 };

        if (r)
                resume(r, fn(&r->root_call, obj, &e), &e);
}

void gql_fail(struct gql_pending *p, const char *code, const struct err *e)
{
        struct gql_request *r = pending_end(p);

        if (!r)
                return;
        if (code)
                r->root_call.code = code;
        resume(r, e->code < 0 ? e->code : -EIO, e);
}

bool gql_pending_wanted(const struct gql_pending *p)
{
        return p->req != NULL;
}

void *gql_pending_context(const struct gql_pending *p)
{
        return p->req ? p->req->ctx : NULL;
}
