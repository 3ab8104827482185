/* events.c - the journal as its reader may see it.  tensorone-api, loop thread. */
#include <errno.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/str.h"
#include "control/resolve/resolve_priv.h"
#include "model/limits.h"

#define EVENTS_PRESET 100U
#define EVENTS_MOST   1000U

static int time_arg(const json_t *in, const char *key, uint64_t *ret, struct err *e)
{
        const char *text = jsonx_str(in, key);

        if (str_empty(text) || clock_parse(text, ret) >= 0)
                return 0;
        return err_set(e, -EINVAL,
                       "%s: '%.40s' must be a date and time such as 2030-01-31T12:00:00Z", key,
                       text);
}

static const char *text_arg(const json_t *in, const char *key)
{
        const char *s = jsonx_str(in, key);

        return str_empty(s) ? NULL : s;
}

static int put_event(void *arg, const struct event_view *v)
{
        return gql_put_object(arg, v);
}

int q_events(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        const json_t *in = gql_arg(c, "input"), *limit = json_object_get(in, "limit");
        struct event_filter f = { .kind = text_arg(in, "kind"),
                                  .cluster = text_arg(in, "clusterId") ? text_arg(in, "clusterId")
                                                                       : text_arg(in, "podId"),
                                  .object = text_arg(in, "object"),
                                  .limit = EVENTS_PRESET };
        json_int_t n = json_integer_value(limit);
        int r = f.kind ? event_kind_check(f.kind, e) : 0;

        (void) obj;
        if (r >= 0)
                r = time_arg(in, "since", &f.since_us, e);
        if (r >= 0)
                r = time_arg(in, "until", &f.until_us, e);
        if (r >= 0 && limit && (n < 1 || n > EVENTS_MOST))
                r = err_set(e, -ERANGE, "limit: %lld is outside 1..%u", (long long) n, EVENTS_MOST);
        if (r < 0)
                return r;
        if (limit)
                f.limit = (unsigned) n;
        r = gql_list_begin(c);
        if (r >= 0)
                r = plane_events(x->plane, &x->who, &f, put_event, c);
        return r < 0 ? r : gql_list_end(c);
}

int r_log_text(struct gql_call *c, const void *obj, struct err *e)
{
        const struct log_line_view *v = obj;

        (void) e;
        return gql_put_strn(c, v->text, v->text_len);
}
