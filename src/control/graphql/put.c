/* put.c - what resolvers call: arguments in, one value out.  API program, loop thread.
 *
 * A resolver puts one value, or one list of values.  Putting anything else is our own mistake; it
 * becomes an error on that field, never a malformed answer. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "control/graphql/exec.h"
#include "model/limits.h"

void *gql_context(const struct gql_call *c)
{
        return c->req->ctx;
}

const json_t *gql_args(const struct gql_call *c)
{
        return c->q->arg_slot >= 0 ? c->req->slot_args[c->q->arg_slot] : c->q->args;
}

const json_t *gql_arg(const struct gql_call *c, const char *name)
{
        return json_object_get(gql_args(c), name);
}

const char *gql_arg_str(const struct gql_call *c, const char *name)
{
        return json_string_value(gql_arg(c, name));
}

const char *gql_noun(const struct gql_call *c)
{
        return c->q->noun;
}

const char *gql_field_name(const struct gql_call *c)
{
        return c->q->f->n.name;
}

void gql_set_code(struct gql_call *c, const char *code)
{
        c->code = code;
}

/* Begin a value; @leaf: not an object. */
static int begin(struct gql_call *c, bool leaf)
{
        struct strbuf *out = &c->req->out;

        if (c->bubbled)
                return -ECANCELED;
        if (leaf == !!c->q->sub)
                return -EIO;
        if (c->in_list) {
                if (c->index++ >= 0)
                        out_char(out, ',');
                return 0;
        }
        if (c->put || c->q->f->type.list)
                return -EIO;
        c->put = true;
        return 0;
}

int gql_put_null(struct gql_call *c)
{
        char msg[160];

        if (c->bubbled)
                return -ECANCELED;
        if (!c->in_list) {
                if (c->put)
                        return -EIO;
                c->put = c->is_null = true;
                return 0;
        }
        if (c->index++ >= 0)
                out_char(&c->req->out, ',');
        if (!c->q->f->type.item_nonnull) {
                OUT_LITERAL(&c->req->out, "null");
                return 0;
        }
        (void) snprintf(msg, sizeof msg, "%s.%s: an element has no value but must have one",
                        c->q->f->parent->n.name, c->q->f->n.name);
        error_add(c->req, c, "INTERNAL_SERVER_ERROR", msg);
        c->bubbled = true;
        return -ECANCELED;
}

int gql_put_bool(struct gql_call *c, bool v)
{
        int r = begin(c, true);

        if (r < 0)
                return r;
        if (v)
                OUT_LITERAL(&c->req->out, "true");
        else
                OUT_LITERAL(&c->req->out, "false");
        return 0;
}

int gql_put_int(struct gql_call *c, int64_t v)
{
        int r = begin(c, true);

        if (r == 0)
                out_int(&c->req->out, v);
        return r;
}

int gql_put_num(struct gql_call *c, double v)
{
        int r;

        if (!isfinite(v))
                return gql_put_null(c);
        r = begin(c, true);
        if (r == 0)
                out_num(&c->req->out, c->q->f->type.base->scalar == SC_INT ? nearbyint(v) : v);
        return r;
}

int gql_put_strn(struct gql_call *c, const char *s, size_t len)
{
        int r;

        if (!s)
                return gql_put_null(c);
        r = begin(c, true);
        if (r == 0)
                out_str(&c->req->out, s, len);
        return r;
}

int gql_put_str(struct gql_call *c, const char *s)
{
        return gql_put_strn(c, s, s ? strlen(s) : 0);
}

int gql_put_fmt(struct gql_call *c, const char *fmt, ...)
{
        AUTO(strbuf_done) struct strbuf text = { 0 };
        va_list ap;

        va_start(ap, fmt);
        strbuf_vfmt(&text, fmt, ap);
        va_end(ap);
        if (text.failed)
                return -ENOMEM;
        return gql_put_strn(c, text.s ? text.s : "", text.len);
}

int gql_put_time(struct gql_call *c, uint64_t wall_us)
{
        char text[40];

        if (wall_us == 0)
                return gql_put_null(c);
        clock_format(wall_us, text, sizeof text);
        return gql_put_str(c, text);
}

static int dump(const char *data, size_t len, void *arg)
{
        struct strbuf *out = arg;

        out_raw(out, data, len);
        return out->failed ? -1 : 0;
}

int gql_put_json(struct gql_call *c, const json_t *j)
{
        int r;

        if (!j || json_is_null(j))
                return gql_put_null(c);
        r = begin(c, true);
        if (r < 0)
                return r;
        if (json_dump_callback(j, dump, &c->req->out, JSON_COMPACT | JSON_ENCODE_ANY) < 0)
                return -ENOMEM;
        return 0;
}

int gql_put_object(struct gql_call *c, const void *obj)
{
        struct gql_request *r = c->req;
        size_t start;
        int rc;

        if (!obj)
                return gql_put_null(c);
        rc = begin(c, false);
        if (rc < 0)
                return rc;
        start = r->out.len;
        if (exec_selection(r, c->q->sub, obj, c))
                return 0;
        if (c->in_list ? !c->q->f->type.item_nonnull : !c->q->f->type.nonnull) {
                r->out.len = start;
                OUT_LITERAL(&r->out, "null");
                return 0;
        }
        c->bubbled = true;
        return -ECANCELED;
}

int gql_list_begin(struct gql_call *c)
{
        if (c->bubbled)
                return -ECANCELED;
        if (c->put || !c->q->f->type.list)
                return -EIO;
        c->put = c->in_list = true;
        c->index = -1;
        out_char(&c->req->out, '[');
        return 0;
}

int gql_list_end(struct gql_call *c)
{
        if (c->bubbled)
                return -ECANCELED;
        if (!c->in_list)
                return -EIO;
        c->in_list = false;
        out_char(&c->req->out, ']');
        return 0;
}
