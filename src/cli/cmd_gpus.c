/* cmd_gpus.c - `get gpus` and `gpu release`: what an operator asks of the host.
 * Runs in tensoronecli. */
#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "base/jsonx.h"
#include "cli/cli.h"
#include "cli/each.h"
#include "cli/gpus.h"
#include "cli/out.h"

int gpu_list(struct api *a, json_t **ret, struct err *e)
{
        static const char query[] =
                "query hostGpus{gpus{id name displayName gpuTypeId index pci numaNode cpus "
                "memoryInGb state reason clusterId forRent migMode migProfile parentId ecc serial "
                "vbios inforom links p2p telemetry simulated}"
                "machines{id driverVersion cudaVersion gpuNote simulated}}";
        AUTO(json_put) json_t *data = NULL;
        int r = api_graphql(a, query, NULL, &data, e);

        if (r < 0)
                return r;
        if (!json_is_array(json_object_get(data, "gpus")))
                return err_set(e, -EPROTO, "the API's answer has no list of GPUs");
        *ret = TAKE(data);
        return 0;
}

double gpu_number(const json_t *gpu, const char *name)
{
        const json_t *v = json_object_get(json_object_get(gpu, "telemetry"), name);

        return json_is_number(v) ? json_number_value(v) : (double) NAN;
}

/* ---- cells ---- */

typedef void cell_fn(const json_t *gpu, struct strbuf *out);

static void add_str(const json_t *gpu, const char *key, struct strbuf *out)
{
        const char *s = jsonx_str(gpu, key);

        strbuf_str(out, s ? s : "");
}

static void add_int(const json_t *gpu, const char *key, struct strbuf *out)
{
        const json_t *v = json_object_get(gpu, key);

        if (json_is_integer(v))
                strbuf_fmt(out, "%lld", (long long) json_integer_value(v));
}

static void add_number(const json_t *gpu, const char *name, double scale, const char *fmt,
                       struct strbuf *out)
{
        double v = gpu_number(gpu, name) * scale;
        char text[32];

        if (isnan(v))
                return;
        (void) snprintf(text, sizeof text, "%.0f", v);
        strbuf_fmt(out, "%s%s", text, fmt);
}

static void cell_index(const json_t *gpu, struct strbuf *out)
{
        add_int(gpu, "index", out);
}

static void cell_type(const json_t *gpu, struct strbuf *out)
{
        const char *display = jsonx_str(gpu, "displayName");

        add_str(gpu, display ? "displayName" : "name", out);
        if (json_is_true(json_object_get(gpu, "migMode")))
                strbuf_str(out, " (divided)");
}

static void cell_memory(const json_t *gpu, struct strbuf *out)
{
        add_int(gpu, "memoryInGb", out);
}

static void cell_numa(const json_t *gpu, struct strbuf *out)
{
        add_int(gpu, "numaNode", out);
}

static void cell_util(const json_t *gpu, struct strbuf *out)
{
        add_number(gpu, "util_pct", 1, "%", out);
}

static void cell_used(const json_t *gpu, struct strbuf *out)
{
        add_number(gpu, "memory_used_mib", 1, " MiB", out);
}

static void cell_temperature(const json_t *gpu, struct strbuf *out)
{
        add_number(gpu, "temperature_c", 1, " C", out);
}

static void cell_power(const json_t *gpu, struct strbuf *out)
{
        add_number(gpu, "power_mw", 1e-3, " W", out);
}

static void cell_state(const json_t *gpu, struct strbuf *out)
{
        add_str(gpu, "state", out);
}

static void cell_cluster(const json_t *gpu, struct strbuf *out)
{
        add_str(gpu, "clusterId", out);
}

static void cell_id(const json_t *gpu, struct strbuf *out)
{
        add_str(gpu, "id", out);
}

static void cell_reason(const json_t *gpu, struct strbuf *out)
{
        add_str(gpu, "reason", out);
}

static void cell_pci(const json_t *gpu, struct strbuf *out)
{
        add_str(gpu, "pci", out);
}

static void cell_serial(const json_t *gpu, struct strbuf *out)
{
        add_str(gpu, "serial", out);
}

static void cell_vbios(const json_t *gpu, struct strbuf *out)
{
        add_str(gpu, "vbios", out);
}

static void cell_inforom(const json_t *gpu, struct strbuf *out)
{
        add_str(gpu, "inforom", out);
}

static void cell_sm_clock(const json_t *gpu, struct strbuf *out)
{
        add_number(gpu, "sm_clock_mhz", 1, " MHz", out);
}

static void cell_xid(const json_t *gpu, struct strbuf *out)
{
        add_number(gpu, "xid", 1, "", out);
}

#define SHORT_COLUMNS 12 /* without -a */
static const struct column {
        const char *header;
        cell_fn *cell;
} columns[] = {
        { "GPU", cell_index },
        { "GPU TYPE", cell_type },
        { "MEM GB", cell_memory },
        { "NUMA", cell_numa },
        { "UTIL", cell_util },
        { "MEM USED", cell_used },
        { "TEMP", cell_temperature },
        { "POWER", cell_power },
        { "STATE", cell_state },
        { "CLUSTER", cell_cluster },
        { "ID", cell_id },
        { "REASON", cell_reason },
        { "PCI", cell_pci },
        { "SERIAL", cell_serial },
        { "VBIOS", cell_vbios },
        { "INFOROM", cell_inforom },
        { "SM CLOCK", cell_sm_clock },
        { "XID", cell_xid },
};

static int print_gpus(const json_t *gpus, size_t n, struct err *e)
{
        AUTO(table_free) struct table *t = NULL;
        const char *headers[NELEM(columns)];
        const json_t *gpu;
        size_t i;

        for (i = 0; i < n; i++)
                headers[i] = columns[i].header;
        if (table_new(headers, n, &t) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        json_array_foreach(gpus, i, gpu)
        {
                for (size_t col = 0; col < n; col++) {
                        AUTO(strbuf_done) struct strbuf cell = { 0 };

                        columns[col].cell(gpu, &cell);
                        if (cell.failed || table_cell(t, cell.s) < 0)
                                return err_set(e, -ENOMEM, "out of memory");
                }
        }
        return table_print(t, e);
}

int cmd_get_gpus(struct cli *c, struct err *e)
{
        size_t n = c->opt[OPT_ALL_FIELDS].b ? NELEM(columns) : SHORT_COLUMNS;
        AUTO(strbuf_done) struct strbuf b = { 0 };
        AUTO(json_put) json_t *data = NULL;
        const json_t *gpus, *host;
        int r;

        if (c->opt[OPT_ALL_FIELDS].b + c->opt[OPT_TOPO].b + c->opt[OPT_P2P].b + c->opt[OPT_VFIO].b >
            1)
                return err_set(e, -EINVAL,
                               "--allfields, --topo, --p2p and --vfio exclude each other");
        r = c->opt[OPT_VFIO].b ? gpu_vfio(c, e) : gpu_list(c->api, &data, e);
        if (r < 0 || c->opt[OPT_VFIO].b)
                return r;
        gpus = json_object_get(data, "gpus");
        host = json_array_get(json_object_get(data, "machines"), 0);
        if (cli_json(c))
                return out_json(gpus, e);
        if (json_array_size(gpus) == 0 && jsonx_str(host, "gpuNote"))
                out_note(jsonx_str(host, "gpuNote"));
        if (c->opt[OPT_TOPO].b)
                gpu_topology(gpus, &b);
        else if (c->opt[OPT_P2P].b)
                gpu_p2p(gpus, &b);
        else
                return print_gpus(gpus, n, e);
        return b.failed ? err_set(e, -ENOMEM, "out of memory") : out_printf(e, "%s", b.s);
}

/* ---- gpu release ---- */

static int release_one(struct cli *c, const char *word, void *gpus, json_t **ret, struct err *e)
{
        AUTO(json_put) json_t *data = NULL;
        const json_t *gpu = NULL, *j;
        size_t i;
        int r;

        json_array_foreach(gpus, i, j)
        {
                AUTO(free)
                char *index = str_fmt("%lld",
                                      (long long) json_integer_value(json_object_get(j, "index")));

                if (str_eq(jsonx_str(j, "id"), word) ||
                    (str_eq(index, word) && !jsonx_str(j, "parentId")))
                        gpu = j;
        }
        if (!gpu)
                return err_set(e, -ENOENT, "there is no GPU \"%s\"", word);
        r = api_graphql(c->api,
                        "mutation gpuRelease($id: String!){gpuRelease(input:{gpuId:$id})"
                        "{id displayName state reason}}",
                        json_pack("{s:O}", "id", json_object_get(gpu, "id")), &data, e);
        if (r < 0)
                return r;
        *ret = json_incref(json_object_get(data, "gpuRelease"));
        return cli_json(c) ? 0 : out_printf(e, "GPU \"%s\" released\n", jsonx_str(gpu, "id"));
}

int cmd_gpu_release(struct cli *c, struct err *e)
{
        AUTO(json_put) json_t *data = NULL;
        int r = gpu_list(c->api, &data, e);

        return r < 0 ? r : each_operand(c, release_one, json_object_get(data, "gpus"), e);
}
