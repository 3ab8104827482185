/* message.c - decoding of what an engine says.  Runs in tensorone-api; pure.
 * The engine runs strangers' code next to it, so nothing of it is believed unchecked. */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "control/node/node_priv.h"
#include "model/gpu.h"
#include "model/limits.h"
#include "model/plan.h"
#include "model/published.h"

#define I(f) #f, .off = offsetof(struct node_inventory, f)
static const struct jfield inventory_fields[] = {
        { I(cpus), .kind = J_STRV, .max = 65536, .required = true },
        { I(memory_mib), .kind = J_U64, .max = LIMIT_MEMORY_MIB, .required = true },
        { I(disk_gib), .kind = J_U64, .required = true },
        { I(version), .kind = J_STR, .max = 64 },
};
#undef I

#define F(f) #f, .off = offsetof(struct node_facts, f)
static const struct jfield facts_fields[] = {
        { F(cpus_elsewhere), .kind = J_STRV, .max = 65536 },
        { F(disk_gib), .kind = J_U64 },
        { F(disk_full), .kind = J_STR, .max = 512 },
};
#undef F

static_assert(sizeof(enum cluster_state) == sizeof(int), "J_ENUM wants an int");
#define R(f) #f, .off = offsetof(struct node_report, f)
static const struct jfield usage_fields[] = {
        { R(cpu_us), .kind = J_U64 },
        { R(memory_bytes), .kind = J_U64 },
};
static const struct jfield edge_fields[] = {
        { "bytes", .off = offsetof(struct node_report, edge_bytes), .kind = J_U64,
          .required = true },
        { "connections", .off = offsetof(struct node_report, edge_connections), .kind = J_U64,
          .required = true },
};
static const struct jfield report_fields[] = {
        { R(cluster), .kind = J_STR, .max = LIMIT_CLUSTER_ID_LEN, .required = true },
        { R(epoch), .kind = J_U64 },
        { R(seq), .kind = J_U64 },
        { R(generation), .kind = J_U64, .min = 1, .required = true },
        { R(state), .kind = J_ENUM, .names = cluster_state_names, .max = CS_STATE_COUNT,
          .required = true },
        { R(released), .kind = J_BOOL },
        { R(ready), .kind = J_BOOL },
        { R(cpus_taken), .kind = J_BOOL },
        { R(credentials_wanted), .kind = J_BOOL },
        { R(secrets_wanted), .kind = J_BOOL },
        { R(progress_pct), .kind = J_U32, .max = 100 },
        { R(progress_bytes), .kind = J_U64, .max = JSONX_EXACT_MAX },
        { R(progress_total_bytes), .kind = J_U64, .max = JSONX_EXACT_MAX },
        { R(progress_bytes_per_s), .kind = J_U64, .max = JSONX_EXACT_MAX },
        { R(reason), .kind = J_STR, .max = 2048 },
        { R(address), .kind = J_STR, .max = 64 },
        { R(ports), .kind = J_STR, .max = 1024 },
        { R(public_ip), .kind = J_STR, .max = 47 },
        { R(refused), .kind = J_STR, .max = 1024 },
        { R(started_us), .kind = J_U64 },
        { R(exit_code), .kind = J_U64, .max = 255 },
        { R(restarts), .kind = J_U64 },
        { R(oom_kills), .kind = J_U64 },
};
#undef R

static int factor(const json_t *j, const char *key, double *ret, struct err *e)
{
        const json_t *v = json_object_get(j, key);
        double d = v ? json_number_value(v) : 1.0;

        if (!(d >= 1.0 && d <= 1000.0))
                return err_set(e, -ERANGE, "%s: outside 1..1000", key);
        *ret = d;
        return 0;
}

#define N(f) #f, .off = offsetof(struct node_numa, f)
static const struct jfield numa_fields[] = {
        { N(node), .kind = J_U32, .max = NODE_NUMA_MAX - 1, .required = true },
        { N(cpus), .kind = J_STRV, .max = 65536 },
        { N(memory_mib), .kind = J_U64, .max = LIMIT_MEMORY_MIB },
};
#undef N

/* Whose a CPU is, by its number. */
#define CPU_NUMBERS 65536U
enum { CPU_NONE, CPU_HOST, CPU_NODE }; /* CPU_NODE and above: of that node */

/* Each node once, each of its CPUs one of the host's and on no other node. */
static int check_numa(const struct node_inventory *inv, const struct node_numa *n, uint8_t *of_cpu,
                      struct err *e)
{
        for (const struct node_numa *m = inv->numa; m < n; m++)
                if (m->node == n->node)
                        return err_set(e, -EEXIST, "node %u is listed twice", n->node);
        for (char **c = n->cpus; c && *c; c++) {
                uint64_t cpu;

                if (str_u64(*c, 0, CPU_NUMBERS - 1, &cpu) < 0 || of_cpu[cpu] == CPU_NONE)
                        return err_set(e, -EINVAL, "node %u: '%.32s' is no CPU of the inventory",
                                       n->node, *c);
                if (of_cpu[cpu] >= CPU_NODE)
                        return err_set(e, -EEXIST, "CPU %.32s lies on nodes %u and %u", *c,
                                       of_cpu[cpu] - (unsigned) CPU_NODE, n->node);
                of_cpu[cpu] = (uint8_t) (CPU_NODE + n->node);
        }
        return 0;
}

static int place_cpus(struct node_inventory *inv, const uint8_t *of_cpu, struct err *e)
{
        size_t n = strv_len(inv->cpus);

        inv->cpu_numa = calloc(n + 1, sizeof *inv->cpu_numa);
        if (!inv->cpu_numa)
                return err_set(e, -ENOMEM, "out of memory");
        for (size_t i = 0; i < n; i++) {
                uint64_t cpu = 0;
                uint8_t place = 0;

                (void) str_u64(inv->cpus[i], 0, CPU_NUMBERS - 1, &cpu);
                while (place < inv->n_numa && inv->numa[place].node + CPU_NODE != of_cpu[cpu])
                        place++;
                inv->cpu_numa[i] = place < inv->n_numa ? place : (uint8_t) NODE_NUMA_MAX;
        }
        return 0;
}

/* More nodes than a set can hold: the host is taken as one. */
static bool too_many_nodes(const json_t *j)
{
        for (size_t i = 0; i < json_array_size(j); i++)
                if (json_integer_value(json_object_get(json_array_get(j, i), "node")) >=
                    NODE_NUMA_MAX)
                        return true;
        return false;
}

static int decode_numa(const json_t *j, struct node_inventory *inv, struct err *e)
{
        AUTO(free) uint8_t *of_cpu = calloc(CPU_NUMBERS, 1);
        size_t n = too_many_nodes(j) ? 0 : json_array_size(j);
        uint64_t cpu;

        if (j && !json_is_array(j))
                return err_set(e, -EINVAL, "numa: is no list");
        if (n > NODE_NUMA_MAX)
                return err_set(e, -E2BIG, "numa: %zu nodes, at most %u are allowed", n,
                               NODE_NUMA_MAX);
        inv->numa = n ? calloc(n, sizeof *inv->numa) : NULL;
        if (!of_cpu || (n && !inv->numa))
                return err_set(e, -ENOMEM, "out of memory");
        inv->n_numa = n;
        for (char **c = inv->cpus; c && *c; c++)
                if (str_u64(*c, 0, CPU_NUMBERS - 1, &cpu) >= 0)
                        of_cpu[cpu] = CPU_HOST;
        for (size_t i = 0; i < n; i++) {
                struct node_numa *at = &inv->numa[i];
                int r = jsonx_decode(json_array_get(j, i), numa_fields, NELEM(numa_fields), at, e);

                if (r >= 0)
                        r = check_numa(inv, at, of_cpu, e);
                if (r < 0)
                        return err_wrap(e, r, "numa");
        }
        return place_cpus(inv, of_cpu, e);
}

int node_inventory_decode(const json_t *j, struct node_inventory *ret, struct err *e)
{
        struct node_inventory inv = { 0 };
        int r = jsonx_decode(j, inventory_fields, NELEM(inventory_fields), &inv, e);
        uint64_t cpu;

        if (r >= 0)
                r = factor(j, "cpu_overcommit", &inv.cpu_overcommit, e);
        if (r >= 0)
                r = factor(j, "memory_overcommit", &inv.memory_overcommit, e);
        if (r >= 0)
                r = factor(j, "disk_overcommit", &inv.disk_overcommit, e);
        for (char **c = inv.cpus; r >= 0 && c && *c; c++)
                if (str_u64(*c, 0, 65535, &cpu) < 0)
                        r = err_set(e, -EINVAL, "cpus: '%.32s' is not a CPU number", *c);
        if (r >= 0)
                r = decode_numa(json_object_get(j, "numa"), &inv, e);
        if (r < 0) {
                node_inventory_done(&inv);
                return err_wrap(e, r, "inventory");
        }
        *ret = inv;
        return 0;
}

void node_inventory_done(struct node_inventory *i)
{
        jsonx_done(inventory_fields, NELEM(inventory_fields), i);
        for (size_t k = 0; k < i->n_numa; k++)
                jsonx_done(numa_fields, NELEM(numa_fields), &i->numa[k]);
        free(i->numa);
        free(i->cpu_numa);
        i->cpu_numa = NULL;
        i->numa = NULL;
        i->n_numa = 0;
        node_facts_done(&i->facts);
}

bool node_cpu_elsewhere(const struct node_inventory *i, const char *cpu)
{
        return strv_has(i->facts.cpus_elsewhere, cpu);
}

int node_facts_decode(const json_t *j, struct node_facts *ret, struct err *e)
{
        struct node_facts f = { 0 };
        int r = jsonx_decode(j, facts_fields, NELEM(facts_fields), &f, e);

        if (r < 0) {
                node_facts_done(&f);
                return err_wrap(e, r, "facts");
        }
        *ret = f;
        return 0;
}

void node_facts_done(struct node_facts *f)
{
        jsonx_done(facts_fields, NELEM(facts_fields), f);
}

static double percent(const json_t *o, const char *key)
{
        const json_t *v = json_object_get(o, key);
        double d = json_is_number(v) ? json_number_value(v) : -1;

        return d >= 0 && d <= 100 ? d : (double) NAN;
}

static void take_pressure(const json_t *o, struct node_report *rep)
{
        rep->pressure_cpu = percent(o, "cpu");
        rep->pressure_memory = percent(o, "memory");
        rep->pressure_io = percent(o, "io");
}

static int check_ports(const struct node_report *rep, struct err *e)
{
        struct published p;
        uint8_t addr[16];

        if (!str_empty(rep->public_ip) && inet_pton(AF_INET, rep->public_ip, addr) != 1 &&
            inet_pton(AF_INET6, rep->public_ip, addr) != 1)
                return err_set(e, -EINVAL, "public_ip is none");
        return published_parse(rep->ports, &p, e);
}

int node_report_decode(const json_t *j, struct node_report *ret, struct err *e)
{
        struct node_report rep = { 0 };
        const json_t *usage = json_object_get(j, "usage"), *sec = json_object_get(j, "security");
        const json_t *edge = json_object_get(usage, "edge");
        int r = jsonx_decode(j, report_fields, NELEM(report_fields), &rep, e);

        if (r >= 0 && json_is_object(usage)) {
                r = jsonx_decode(usage, usage_fields, NELEM(usage_fields), &rep, e);
                take_pressure(json_object_get(usage, "pressure"), &rep);
                rep.has_usage = true;
        }
        if (r >= 0 && json_is_object(edge)) {
                r = jsonx_decode(edge, edge_fields, NELEM(edge_fields), &rep, e);
                rep.has_edge = true;
        }
        rep.edge_is_mute = json_is_null(edge);
        if (r >= 0 && (!plan_cluster_id_ok(rep.cluster) || rep.state == CS_NONE))
                r = err_set(e, -EINVAL, "cluster or state is not one");
        if (r >= 0)
                r = check_ports(&rep, e);
        if (r < 0) {
                node_report_done(&rep);
                return err_wrap(e, r, "report");
        }
        rep.security = json_is_object(sec) ? sec : NULL;
        rep.gpu_receipts = json_object_get(j, "gpu_receipts");
        *ret = rep;
        return 0;
}

#define G(f) #f, .kind = J_U64, .off = offsetof(struct node_progress, f), .max = JSONX_EXACT_MAX
static const struct jfield progress_fields[] = { { G(done_bytes) },
                                                 { G(total_bytes) },
                                                 { G(bytes_per_s) } };
#undef G

int node_progress_decode(const json_t *j, struct node_progress *ret)
{
        struct node_progress g = { .phase = jsonx_str(j, "phase") };
        int r = jsonx_decode(j, progress_fields, NELEM(progress_fields), &g, NULL);

        if (r < 0)
                return r;
        if (!g.phase)
                g.phase = "";
        *ret = g;
        return 0;
}

void node_report_done(struct node_report *r)
{
        jsonx_done(report_fields, NELEM(report_fields), r);
}

int node_telemetry_decode(const json_t *j, struct gpu_telemetry **ret, size_t *ret_n, struct err *e)
{
        const json_t *list = json_object_get(j, "gpus"), *gpu;
        AUTO(free) struct gpu_telemetry *t = NULL;
        size_t n = json_array_size(list), i;

        if (!json_is_array(list) || n > LIMIT_GPUS)
                return err_set(e, -EINVAL, "telemetry: no list of at most %u GPUs", LIMIT_GPUS);
        t = n ? calloc(n, sizeof *t) : NULL;
        if (n && !t)
                return err_set(e, -ENOMEM, "out of memory");
        json_array_foreach(list, i, gpu)
        {
                int r = gpu_telemetry_decode(gpu, &t[i], e);

                if (r < 0)
                        return r;
        }
        *ret = TAKE(t);
        *ret_n = n;
        return 0;
}

#define EVENT_KIND_LEN 32U
#define EVENT_TEXT_LEN 512U

static bool is_word(const char *s)
{
        return !str_empty(s) && strlen(s) <= EVENT_KIND_LEN &&
               strspn(s, "abcdefghijklmnopqrstuvwxyz_") == strlen(s);
}

int node_security_decode(const json_t *j, struct node_security *ret, struct err *e)
{
        json_int_t generation = json_integer_value(json_object_get(j, "generation"));
        struct node_security s = { .cluster = jsonx_str(j, "cluster"),
                                   .kind = jsonx_str(j, "kind"),
                                   .message = jsonx_str(j, "message") };

        if (!plan_cluster_id_ok(s.cluster))
                return err_set(e, -EINVAL, "security: cluster is none");
        if (!is_word(s.kind))
                return err_set(e, -EINVAL, "security: kind is no word");
        if (str_empty(s.message) || strlen(s.message) > EVENT_TEXT_LEN)
                return err_set(e, -EINVAL, "security: message has not 1 to %u bytes",
                               EVENT_TEXT_LEN);
        for (const char *c = s.message; *c; c++)
                if ((unsigned char) *c < ' ' || *c == 0x7f)
                        return err_set(e, -EINVAL, "security: message has a control character");
        s.generation = generation > 0 ? (uint64_t) generation : 0;
        *ret = s;
        return 0;
}

int node_event_decode(const json_t *j, struct node_event *ret, struct err *e)
{
        const json_t *code = json_object_get(j, "code");
        struct node_event ev = { .uuid = jsonx_str(j, "uuid"),
                                 .kind = jsonx_str(j, "kind"),
                                 .text = jsonx_str(j, "text"),
                                 .cluster = jsonx_str(j, "cluster") };

        if (!gpu_uuid_ok(ev.uuid))
                return err_set(e, -EINVAL, "event: uuid is none");
        if (!is_word(ev.kind))
                return err_set(e, -EINVAL, "event: kind is no word");
        if (ev.text && strlen(ev.text) > EVENT_TEXT_LEN)
                return err_set(e, -E2BIG, "event: text has more than %u bytes", EVENT_TEXT_LEN);
        if (ev.cluster && !plan_cluster_id_ok(ev.cluster))
                return err_set(e, -EINVAL, "event: cluster is none");
        if (code && (!json_is_integer(code) || json_integer_value(code) < 0))
                return err_set(e, -EINVAL, "event: code is no number of that kind");
        ev.code = (uint64_t) json_integer_value(code);
        ev.text = ev.text ? ev.text : "";
        *ret = ev;
        return 0;
}
