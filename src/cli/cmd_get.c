/* cmd_get.c - `get cluster` and `get cloud`.  Runs in tensoronecli.
 * The columns are the contract's; a script may cut them at the tabs. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/jsonx.h"
#include "cli/cli.h"
#include "cli/clusters.h"
#include "cli/out.h"

typedef void cell_fn(const json_t *c, struct strbuf *out);

static void add_str(const json_t *c, const char *key, struct strbuf *out)
{
        const char *s = jsonx_str(c, key);

        strbuf_str(out, s ? s : "");
}

static void add_int(const json_t *c, const char *key, struct strbuf *out)
{
        const json_t *v = json_object_get(c, key);

        if (json_is_number(v))
                strbuf_fmt(out, "%.0f", json_number_value(v));
}

static void cell_id(const json_t *c, struct strbuf *out)
{
        add_str(c, "id", out);
}

static void cell_name(const json_t *c, struct strbuf *out)
{
        add_str(c, "name", out);
}

static void cell_gpu(const json_t *c, struct strbuf *out)
{
        add_int(c, "gpuCount", out);
        strbuf_char(out, ' ');
        add_str(json_object_get(c, "machine"), "gpuDisplayName", out);
}

static void cell_image(const json_t *c, struct strbuf *out)
{
        add_str(c, "imageName", out);
}

static void cell_status(const json_t *c, struct strbuf *out)
{
        add_str(c, "desiredStatus", out);
}

static void cell_type(const json_t *c, struct strbuf *out)
{
        add_str(c, "clusterType", out);
}

static void cell_vcpu(const json_t *c, struct strbuf *out)
{
        add_int(c, "vcpuCount", out);
}

static void cell_mem(const json_t *c, struct strbuf *out)
{
        add_int(c, "memoryInGb", out);
}

static void cell_container_disk(const json_t *c, struct strbuf *out)
{
        add_int(c, "containerDiskInGb", out);
}

static void cell_volume(const json_t *c, struct strbuf *out)
{
        add_int(c, "volumeInGb", out);
}

static void cell_location(const json_t *c, struct strbuf *out)
{
        add_str(json_object_get(c, "machine"), "location", out);
}

static void cell_cost(const json_t *c, struct strbuf *out)
{
        strbuf_fmt(out, "%.3f", json_number_value(json_object_get(c, "costPerHr")));
}

/* "1.2.3.4:40022->22 (pub,tcp)" with a blank that does not break, joined by commas. */
static void cell_ports(const json_t *c, struct strbuf *out)
{
        const json_t *ports = json_object_get(json_object_get(c, "runtime"), "ports"), *p;
        size_t i;

        json_array_foreach(ports, i, p)
        {
                strbuf_str(out, i ? "," : "");
                add_str(p, "ip", out);
                strbuf_char(out, ':');
                add_int(p, "publicPort", out);
                strbuf_str(out, "->");
                add_int(p, "privatePort", out);
                strbuf_fmt(out, "\u00a0(%s,",
                           json_is_true(json_object_get(p, "isIpPublic")) ? "pub" : "prv");
                add_str(p, "type", out);
                strbuf_char(out, ')');
        }
}

/* Joined by commas, too. */
static void cell_urls(const json_t *c, struct strbuf *out)
{
        json_t *url;
        size_t i;

        json_array_foreach(json_object_get(c, "urls"), i, url)
        {
                strbuf_str(out, i ? "," : "");
                strbuf_str(out, json_string_value(url) ? json_string_value(url) : "");
        }
}

static void cell_phase(const json_t *c, struct strbuf *out)
{
        struct progress_state s;
        char buf[PROGRESS_BYTES];

        if (!str_eq(jsonx_str(c, "phase"), "pulling") ||
            !json_is_integer(json_object_get(c, "progressPercent"))) {
                add_str(c, "phase", out);
                return;
        }
        cluster_progress(c, &s);
        strbuf_str(out, progress_line(&s, buf));
}

static void cell_reason(const json_t *c, struct strbuf *out)
{
        add_str(c, "reason", out);
}

/* The part of the last ten seconds in which something in it waited for that; empty: nobody knows. */
static void add_pressure(const json_t *c, const char *key, struct strbuf *out)
{
        const json_t *k = json_object_get(json_object_get(c, "runtime"), "container");
        const json_t *v = json_object_get(k, key);

        if (json_is_number(v))
                strbuf_fmt(out, "%.1f%%", json_number_value(v));
}

static void cell_cpu_pressure(const json_t *c, struct strbuf *out)
{
        add_pressure(c, "cpuPressurePercent", out);
}

static void cell_memory_pressure(const json_t *c, struct strbuf *out)
{
        add_pressure(c, "memoryPressurePercent", out);
}

static void cell_io_pressure(const json_t *c, struct strbuf *out)
{
        add_pressure(c, "ioPressurePercent", out);
}

#define SHORT_COLUMNS 5 /* without -a */
static const struct column {
        const char *header;
        cell_fn *cell;
} columns[] = {
        { "ID", cell_id },
        { "NAME", cell_name },
        { "GPU", cell_gpu },
        { "IMAGE NAME", cell_image },
        { "STATUS", cell_status },
        { "CLUSTER TYPE", cell_type },
        { "VCPU", cell_vcpu },
        { "MEM", cell_mem },
        { "CONTAINER DISK", cell_container_disk },
        { "VOLUME DISK", cell_volume },
        { "LOCATION", cell_location },
        { "$/HR", cell_cost },
        { "PORTS", cell_ports },
        { "CPU PRESSURE", cell_cpu_pressure },
        { "MEM PRESSURE", cell_memory_pressure },
        { "IO PRESSURE", cell_io_pressure },
        { "PHASE", cell_phase },
        { "REASON", cell_reason },
        { "URLS", cell_urls },
};

static int print_clusters(const json_t *list, size_t n, struct err *e)
{
        AUTO(table_free) struct table *t = NULL;
        const char *headers[NELEM(columns)];
        const json_t *c;
        size_t i;

        for (i = 0; i < n; i++)
                headers[i] = columns[i].header;
        if (table_new(headers, n, &t) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        json_array_foreach(list, i, c)
        {
                for (size_t col = 0; col < n; col++) {
                        AUTO(strbuf_done) struct strbuf cell = { 0 };

                        columns[col].cell(c, &cell);
                        if (cell.failed || table_cell(t, cell.s) < 0)
                                return err_set(e, -ENOMEM, "out of memory");
                }
        }
        return table_print(t, e);
}

int cmd_get(struct cli *c, struct err *e)
{
        size_t n = c->opt[OPT_ALL_FIELDS].b ? NELEM(columns) : SHORT_COLUMNS;
        AUTO(json_put) json_t *one = NULL, *list = NULL;
        int r;

        if (c->n_operands == 0) {
                r = cluster_list(c->api, &list, e);
                if (r < 0)
                        return r;
                return cli_json(c) ? out_json(list, e) : print_clusters(list, n, e);
        }
        r = cluster_get(c->api, c->operands[0], &one, e);
        if (r < 0)
                return r;
        if (cli_json(c))
                return out_json(one, e);
        list = json_pack("[O]", one);
        return list ? print_clusters(list, n, e) : err_set(e, -ENOMEM, "out of memory");
}

/* "Reserved" for what cannot be had at the moment. */
static void price_text(const json_t *v, char *buf, size_t len)
{
        if (json_number_value(v) > 0)
                (void) snprintf(buf, len, "%.3f", json_number_value(v));
        else
                (void) snprintf(buf, len, "Reserved");
}

#define SIMULATED " (simulated)" /* as the API ends the names of GPUs that do not exist */

static int add_gpu_row(struct table *t, const json_t *price, uint64_t count)
{
        AUTO(free) char *type = NULL, *mem = NULL, *vcpu = NULL;
        char spot[32], demand[32];
        const char *id = jsonx_str(price, "gpuTypeId"), *name = jsonx_str(price, "gpuName");

        type = str_fmt("%llux %s%s", (unsigned long long) count, id ? id : "",
                       name && strstr(name, SIMULATED) ? SIMULATED : "");
        mem = str_fmt("%.0f", json_number_value(json_object_get(price, "minMemory")));
        vcpu = str_fmt("%.0f", json_number_value(json_object_get(price, "minVcpu")));
        price_text(json_object_get(price, "minimumBidPrice"), spot, sizeof spot);
        price_text(json_object_get(price, "uninterruptablePrice"), demand, sizeof demand);
        if (!type || !mem || !vcpu || table_cell(t, type) < 0 || table_cell(t, mem) < 0 ||
            table_cell(t, vcpu) < 0 || table_cell(t, spot) < 0 || table_cell(t, demand) < 0)
                return -ENOMEM;
        return 0;
}

static int cloud_input(const struct cli *c, uint64_t count, json_t **ret, struct err *e)
{
        const struct opt_value *o = c->opt;
        bool community = o[OPT_CLOUD_COMMUNITY].b, secure = o[OPT_CLOUD_SECURE].b;
        AUTO(json_put)
        json_t *in = json_pack("{s:I,s:o}", "gpuCount", (json_int_t) count, "secureCloud",
                               community == secure ? json_null() : json_boolean(secure));
        static const struct {
                enum opt_id opt;
                const char *field;
        } rows[] = {
                { OPT_CLOUD_MEM, "minMemoryInGb" },
                { OPT_CLOUD_VCPU, "minVcpuCount" },
                { OPT_CLOUD_DISK, "totalDisk" },
        };

        for (size_t i = 0; in && i < NELEM(rows); i++) {
                json_int_t n = (json_int_t) o[rows[i].opt].n;

                if (n > 0 && json_object_set_new(in, rows[i].field, json_integer(n)) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        if (!in)
                return err_set(e, -ENOMEM, "out of memory");
        *ret = TAKE(in);
        return 0;
}

/* An empty table leaves people with the question why. */
static void note_none(uint64_t count, size_t types)
{
        AUTO(free) char *text = NULL;

        if (types == 0)
                text = strdup("there are no GPUs here");
        else
                text = str_fmt("no type has %llu GPU%s free that may be rented %s",
                               (unsigned long long) count, count == 1 ? "" : "s",
                               count == 1 ? "with what was asked for" : "together");
        if (text)
                out_note(text);
}

int cmd_get_cloud(struct cli *c, struct err *e)
{
        static const char query[] =
                "query LowestPrice($input: GpuLowestPriceInput!){gpuTypes{"
                "lowestPrice(input:$input){gpuName gpuTypeId minimumBidPrice uninterruptablePrice "
                "minMemory minVcpu}}}";
        static const char *const headers[] = { "GPU TYPE", "MEM GB", "VCPU", "SPOT $/HR",
                                               "ONDEMAND $/HR" };
        AUTO(json_put) json_t *data = NULL, *input = NULL, *free_ones = json_array();
        AUTO(table_free) struct table *t = NULL;
        const json_t *type;
        uint64_t count = 1;
        size_t i;
        int r;

        if (c->n_operands > 0 && str_u64(c->operands[0], 1, 64, &count) < 0)
                return err_set(e, -EINVAL, "GPUCOUNT: \"%s\" is not a number from 1 to 64",
                               c->operands[0]);
        r = cloud_input(c, count, &input, e);
        if (r >= 0)
                r = api_graphql(c->api, query, json_pack("{s:O}", "input", input), &data, e);
        if (r < 0)
                return r;
        if (!free_ones || table_new(headers, NELEM(headers), &t) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        json_array_foreach(json_object_get(data, "gpuTypes"), i, type)
        {
                json_t *price = json_object_get(type, "lowestPrice");

                if (!json_is_number(json_object_get(price, "minMemory")))
                        continue; /* nothing of this type is free */
                if (json_array_append(free_ones, price) < 0 || add_gpu_row(t, price, count) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        if (json_array_size(free_ones) == 0)
                note_none(count, json_array_size(json_object_get(data, "gpuTypes")));
        return cli_json(c) ? out_json(free_ones, e) : table_print(t, e);
}
