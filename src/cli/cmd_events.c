/* cmd_events.c - `get events`: what has happened.  Runs in tensoronecli. */
#include <errno.h>

#include "base/jsonx.h"
#include "cli/cli.h"
#include "cli/clusters.h"
#include "cli/out.h"

static int events_input(const struct cli *c, json_t **ret, struct err *e)
{
        const struct opt_value *o = c->opt;
        AUTO(json_put)
        json_t *in = json_pack("{s:I, s:s*}", "limit", (json_int_t) o[OPT_LIMIT].n, "kind",
                               o[OPT_EVENT_KIND].s);
        char since[32];
        int r;

        if (in && c->n_operands > 0 &&
            json_object_set_new(in, "object", json_string(c->operands[0])) < 0)
                return err_set(e, -EINVAL, "OBJECT: not UTF-8 text");
        if (in && o[OPT_EVENT_SINCE].given) {
                r = time_text("since", o[OPT_EVENT_SINCE].s, false, since, e);
                if (r < 0)
                        return r;
                (void) json_object_set_new(in, "since", json_string(since));
        }
        if (!in)
                return err_set(e, -ENOMEM, "out of memory");
        *ret = TAKE(in);
        return 0;
}

/* The text of gpu.handover is a receipt, in JSON for programs: here a sentence.  NULL: it is none. */
static char *receipt_words(const json_t *event)
{
        AUTO(json_put) json_t *receipt = NULL;
        AUTO(strbuf_done) struct strbuf b = { 0 };
        const char *text = jsonx_str(event, "text"), *reason, *check;
        const json_t *of_check;

        if (!text || !str_eq(jsonx_str(event, "kind"), "gpu.handover"))
                return NULL;
        receipt = json_loads(text, 0, NULL);
        if (!json_is_object(receipt))
                return NULL;
        reason = jsonx_str(receipt, "reason");
        strbuf_str(&b, json_is_true(json_object_get(receipt, "ok")) ? "clean" : "not clean");
        if (!str_empty(reason))
                strbuf_fmt(&b, ": %s", reason);
        json_object_foreach(json_object_get(receipt, "checks"), check, of_check)
        {
                if (json_is_string(of_check))
                        strbuf_fmt(&b, "; %s: %s", check, json_string_value(of_check));
        }
        return b.failed ? NULL : strdup(b.s);
}

static int print_events(const json_t *list, struct err *e)
{
        static const char *const headers[] = { "TIME", "KIND", "CLUSTER", "OBJECT", "TEXT" };
        static const char *const keys[] = { "time", "kind", "clusterId", "object", "text" };
        AUTO(table_free) struct table *t = NULL;
        size_t i = json_array_size(list);

        if (table_new(headers, NELEM(headers), &t) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        while (i-- > 0) { /* the newest one is nearest to the prompt */
                const json_t *j = json_array_get(list, i);
                AUTO(free) char *words = receipt_words(j);

                for (size_t k = 0; k < NELEM(keys); k++)
                        if (table_cell(t, words && str_eq(keys[k], "text")
                                                  ? words
                                                  : jsonx_str(j, keys[k])) < 0)
                                return err_set(e, -ENOMEM, "out of memory");
        }
        return table_print(t, e);
}

int cmd_get_events(struct cli *c, struct err *e)
{
        static const char query[] =
                "query events($input: EventsInput){events(input:$input)"
                "{time kind clusterId object account actor operation outcome text}}";
        AUTO(json_put) json_t *in = NULL, *data = NULL;
        const json_t *list;
        int r = events_input(c, &in, e);

        if (r >= 0)
                r = api_graphql(c->api, query, json_pack("{s:O}", "input", in), &data, e);
        if (r < 0)
                return r;
        list = json_object_get(data, "events");
        return cli_json(c) ? out_json(list, e) : print_events(list, e);
}
