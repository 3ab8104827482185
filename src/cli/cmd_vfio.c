/* cmd_vfio.c - `get gpus --vfio`: which GPUs could be handed to virtual machines, and what is in the
 * way.  Runs in tensoronecli. */
#include <errno.h>

#include "base/jsonx.h"
#include "cli/cli.h"
#include "cli/gpus.h"
#include "cli/out.h"

static int add_text(struct table *t, const char *s)
{
        return table_cell(t, s ? s : "");
}

static int add_row(struct table *t, const json_t *d)
{
        const json_t *group = json_object_get(d, "group"), *needs = json_object_get(d, "needs");
        AUTO(strbuf_done) struct strbuf b = { 0 };
        char number[24] = "";
        size_t i;
        json_t *one;

        if (json_is_integer(group))
                (void) snprintf(number, sizeof number, "%lld",
                                (long long) json_integer_value(group));
        strbuf_str(&b, json_array_size(needs) ? "" : "nothing: it could be handed over now");
        json_array_foreach(needs, i, one)
        {
                strbuf_fmt(&b, "%s%s", i ? "; " : "",
                           json_is_string(one) ? json_string_value(one) : "?");
        }
        if (b.failed || add_text(t, jsonx_str(d, "pci")) < 0 ||
            add_text(t, jsonx_str(d, "id")) < 0 || add_text(t, jsonx_str(d, "driver")) < 0 ||
            add_text(t, number) < 0 || add_text(t, jsonx_str(d, "resets")) < 0 ||
            add_text(t, b.s) < 0)
                return -ENOMEM;
        return 0;
}

int gpu_vfio(struct cli *c, struct err *e)
{
        static const char *const headers[] = {
                "PCI", "DEVICE", "DRIVER", "GROUP", "RESETS", "NEEDS"
        };
        AUTO(table_free) struct table *t = NULL;
        AUTO(json_put) json_t *data = NULL;
        const json_t *found, *devices;
        size_t i;
        json_t *d;
        int r = api_graphql(c->api, "query gpuVfio{gpuVfio}", NULL, &data, e);

        if (r < 0)
                return r;
        found = json_object_get(data, "gpuVfio");
        devices = json_object_get(found, "devices");
        if (!json_is_array(devices))
                return err_set(e, -EPROTO, "the API's answer has no list of devices");
        if (cli_json(c))
                return out_json(found, e);
        if (json_is_true(json_object_get(found, "simulated")))
                out_note("these devices are simulated");
        if (table_new(headers, NELEM(headers), &t) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        json_array_foreach(devices, i, d)
        {
                if (add_row(t, d) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        return table_print(t, e);
}
