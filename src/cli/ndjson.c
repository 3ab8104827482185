/* ndjson.c - see ndjson.h.  Runs in tensoronecli; lines are bounded. */
#include "cli/ndjson.h"

#include <errno.h>
#include <string.h>

#include "base/jsonx.h"

#define LINE_MAX_BYTES 65536

static uint64_t amount(const json_t *j, const char *key)
{
        json_int_t n = json_integer_value(json_object_get(j, key));

        return n > 0 ? (uint64_t) n : 0;
}

static int on_line(struct ndjson *n, const char *line, size_t len, struct err *e)
{
        AUTO(json_put) json_t *j = NULL;
        const char *phase, *error;

        if (strspn(line, " \t\r") >= len)
                return 0;
        j = jsonx_parse(line, len, e);
        if (!j)
                return err_wrap(e, -EPROTO, "the API's answer");
        phase = jsonx_str(j, "phase");
        error = jsonx_str(j, "error");
        if (error) {
                const char *message = jsonx_str(j, "message");

                (void) err_set(&n->failed, -EREMOTEIO, "%s", message ? message : error);
        } else if (phase) {
                const struct progress_state s = { .phase = phase,
                                                  .done = amount(j, "doneBytes"),
                                                  .total = amount(j, "totalBytes"),
                                                  .per_s = amount(j, "bytesPerSecond"),
                                                  .bytes = true };

                if (n->progress)
                        progress_show(n->progress, &s);
        } else {
                json_decref(n->result);
                n->result = json_incref(j);
        }
        return 0;
}

int ndjson_chunk(void *arg, const char *data, size_t len, struct err *e)
{
        struct ndjson *n = arg;

        while (len > 0) {
                const char *nl = memchr(data, '\n', len);
                size_t take = nl ? (size_t) (nl - data) : len;
                int r;

                if (n->line.len + take > LINE_MAX_BYTES)
                        return err_set(e, -EPROTO, "the API's answer has a line that is too long");
                strbuf_add(&n->line, data, take);
                if (n->line.failed)
                        return err_set(e, -ENOMEM, "out of memory");
                data += take + (nl != NULL);
                len -= take + (nl != NULL);
                if (!nl)
                        break;
                r = n->line.len > 0 ? on_line(n, n->line.s, n->line.len, e) : 0;
                strbuf_drop_front(&n->line, n->line.len);
                if (r < 0)
                        return r;
        }
        return 0;
}

int ndjson_finish(struct ndjson *n, json_t **ret, struct err *e)
{
        int r = n->line.len > 0 ? on_line(n, n->line.s, n->line.len, e) : 0;

        if (r < 0)
                return r;
        if (n->failed.code)
                return err_copy(e, &n->failed);
        if (!n->result)
                return err_set(e, -EPROTO, "the API's answer ended without a result");
        *ret = TAKE(n->result);
        return 0;
}

void ndjson_done(struct ndjson *n)
{
        json_decref(n->result);
        n->result = NULL;
        strbuf_done(&n->line);
}
