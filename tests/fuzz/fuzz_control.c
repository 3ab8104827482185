/* fuzz_control.c - libFuzzer target for what tensorone-api reads from others beside GraphQL: an
 * engine's inventory and reports, dockerArgs, and log lines.  The first byte chooses:
 *
 *   i  inventory (JSON)    r  report (JSON)    n  facts (JSON)    p  progress (JSON)
 *   g  GPUs and prices (JSON)
 *   t  telemetry (JSON)    e  event of a GPU (JSON)    s  security event (JSON)
 *   w  wish for a GPU type
 *   a  dockerArgs    l  log lines    f  log files
 *
 * Checked beside memory errors: what is accepted is within its limits, and lines of a log cut
 * anywhere give the same text as the whole. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/str.h"
#include "control/node/node_priv.h"
#include "control/plane/args.h"
#include "control/rest/logfile.h"
#include "model/gpu_type.h"
#include "model/limits.h"
#include "model/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x)) {                                                                        \
                        fprintf(stderr, "fuzz_control: %s\n", #x);                                 \
                        __builtin_trap();                                                          \
                }                                                                                  \
        } while (0)

static void inventory(const json_t *j)
{
        struct node_inventory inv = { 0 };

        if (node_inventory_decode(j, &inv, NULL) < 0)
                return;
        CHECK(inv.cpu_overcommit >= 1 && inv.cpu_overcommit <= 1000);
        CHECK(inv.memory_mib <= LIMIT_MEMORY_MIB);
        node_inventory_done(&inv);
}

static void report(const json_t *j)
{
        struct node_report r = { 0 };

        if (node_report_decode(j, &r, NULL) < 0)
                return;
        CHECK(plan_cluster_id_ok(r.cluster) && r.generation >= 1 && r.progress_pct <= 100);
        CHECK(r.progress_bytes <= JSONX_EXACT_MAX && r.progress_total_bytes <= JSONX_EXACT_MAX &&
              r.progress_bytes_per_s <= JSONX_EXACT_MAX);
        CHECK(r.state > CS_NONE && r.state < CS_STATE_COUNT && r.exit_code <= 255);
        node_report_done(&r);
}

static void progress(const json_t *j)
{
        struct node_progress g = { 0 };

        if (node_progress_decode(j, &g) < 0)
                return;
        CHECK(g.phase && g.done_bytes <= JSONX_EXACT_MAX && g.total_bytes <= JSONX_EXACT_MAX &&
              g.bytes_per_s <= JSONX_EXACT_MAX);
}

static void telemetry(const json_t *j)
{
        struct gpu_telemetry *t = NULL;
        size_t n = 0;

        if (node_telemetry_decode(j, &t, &n, NULL) < 0)
                return;
        CHECK(n <= LIMIT_GPUS && (n == 0 || t));
        for (size_t i = 0; i < n; i++)
                CHECK(gpu_uuid_ok(t[i].uuid));
        free(t);
}

static void event(const json_t *j)
{
        struct node_event ev = { 0 };

        if (node_event_decode(j, &ev, NULL) < 0)
                return;
        CHECK(gpu_uuid_ok(ev.uuid) && *ev.kind && strlen(ev.kind) <= 32 && strlen(ev.text) <= 512);
        CHECK(!ev.cluster || plan_cluster_id_ok(ev.cluster));
}

static void security(const json_t *j)
{
        struct node_security s = { 0 };

        if (node_security_decode(j, &s, NULL) < 0)
                return;
        CHECK(plan_cluster_id_ok(s.cluster) && *s.kind && strlen(s.kind) <= 32);
        CHECK(*s.message && strlen(s.message) <= 512);
        for (const char *c = s.message; *c; c++)
                CHECK((unsigned char) *c >= ' ' && *c != 0x7f);
}

static void facts(const json_t *j)
{
        struct node_facts f = { 0 };

        if (node_facts_decode(j, &f, NULL) < 0)
                return;
        CHECK(strv_len(f.cpus_elsewhere) <= 65536);
        CHECK(!f.disk_full || strlen(f.disk_full) <= 512);
        node_facts_done(&f);
}

static void gpus(const json_t *j)
{
        struct node_gpus g = { 0 };

        if (node_gpus_decode(j, &g, NULL) < 0)
                return;
        CHECK(g.fleet.n <= GPU_MAX);
        for (size_t i = 0; i < g.fleet.n; i++)
                CHECK(gpu_uuid_ok(g.fleet.gpus[i].uuid) && g.fleet.gpus[i].state > GS_NONE);
        for (size_t i = 0; i < g.n_prices; i++)
                CHECK(g.prices[i].on_demand >= 0 && g.prices[i].spot >= 0);
        node_gpus_done(&g);
}

/* What a wish means does not depend on how it is spaced at its ends. */
static void wish(const char *text)
{
        struct gpu list[] = {
                { .name = (char[]){ "NVIDIA A100-SXM4-80GB" } },
                { .name = (char[]){ "NVIDIA A100-SXM4-80GB MIG 1g.10gb" },
                  .mig_profile = (char[]){ "1g.10gb" } },
                { .name = (char[]){ "Strange 9" } },
        };
        const struct gpu_fleet f = { .gpus = list, .n = NELEM(list) };
        AUTO(free) char *spaced = str_fmt("  %s  ", text);
        struct gpu_types types;

        CHECK(spaced && gpu_types_init(&f, &types, NULL) >= 0);
        CHECK(gpu_types_match(&types, text) < 1U << NELEM(list));
        if (*text)
                CHECK(gpu_types_match(&types, text) == gpu_types_match(&types, spaced));
        gpu_types_done(&types);
}

static void args(const char *text)
{
        char **entrypoint = NULL, **command = NULL;
        bool set = false;
        struct err e = { 0 };
        int r = docker_args_parse(text, &entrypoint, &command, &set, &e);

        CHECK(r == 0 || *e.msg);
        CHECK(strv_len(command) <= LIMIT_ARGV_ENTRIES &&
              strv_len(entrypoint) <= LIMIT_ARGV_ENTRIES);
        (void) strv_free(entrypoint);
        (void) strv_free(command);
}

static void lines(const char *data, size_t len)
{
        struct log_filter a = { .want = { false, true, true } }, b = a;
        struct strbuf whole = { 0 }, pieces = { 0 };
        size_t used = log_filter_lines(&a, data, len, &whole), at = 0;

        CHECK(used <= len);
        for (size_t end = 1; end <= len; end++)
                at += log_filter_lines(&b, data + at, end - at, &pieces);
        CHECK(at == used && pieces.len == whole.len);
        CHECK(whole.len == 0 || memcmp(whole.s, pieces.s, whole.len) == 0);
        strbuf_done(&whole);
        strbuf_done(&pieces);
}

/* Two files out of one input, split at the first NUL. */
static void files(const char *data, size_t len)
{
        const char *cut = memchr(data, 0, len);
        size_t first = cut ? (size_t) (cut - data) : len, skip = cut ? 1 : 0;
        struct log_files l = { { memfd_create("a", 0), memfd_create("b", 0) } };
        const struct log_filter all = { .want = { false, true, true } };
        uint64_t start, end, pos = 0, total = 0;
        char buf[512];
        ssize_t n;

        CHECK(l.fd[0] >= 0 && l.fd[1] >= 0);
        CHECK(fd_write_full(l.fd[0], data, first) >= 0);
        CHECK(fd_write_full(l.fd[1], data + first + skip, len - first - skip) >= 0);
        log_files_range(&l, &start, &end);
        while ((n = log_files_read(&l, &pos, buf, sizeof buf)) > 0)
                total += (uint64_t) n;
        CHECK(total <= len);
        for (uint64_t k = 0; k < 4; k++)
                CHECK(log_files_tail(&l, &all, k) <= (end > start ? end : start));
        log_files_done(&l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        AUTO(free) char *text = NULL;
        AUTO(json_put) json_t *j = NULL;

        if (size < 1)
                return 0;
        text = strndup((const char *) data + 1, size - 1);
        if (memchr("irnpgtes", data[0], 8))
                j = jsonx_parse((const char *) data + 1, size - 1, NULL);
        if (j && data[0] == 'i')
                inventory(j);
        else if (j && data[0] == 'n')
                facts(j);
        else if (j && data[0] == 'p')
                progress(j);
        else if (j && data[0] == 'g')
                gpus(j);
        else if (j && data[0] == 't')
                telemetry(j);
        else if (j && data[0] == 'e')
                event(j);
        else if (j && data[0] == 's')
                security(j);
        else if (j)
                report(j);
        else if (data[0] == 'w')
                wish(text);
        else if (data[0] == 'a')
                args(text);
        else if (data[0] == 'l')
                lines((const char *) data + 1, size - 1);
        else if (data[0] == 'f')
                files((const char *) data + 1, size - 1);
        return 0;
}
