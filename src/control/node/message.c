/* message.c - decoding of what an engine says.  Runs in tensorone-api; pure.
 * The engine runs strangers' code next to it, so nothing of it is believed unchecked. */
#include <assert.h>
#include <errno.h>
#include <stddef.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "control/node/node_priv.h"
#include "model/limits.h"
#include "model/plan.h"

#define I(f) #f, .off = offsetof(struct node_inventory, f)
static const struct jfield inventory_fields[] = {
        { I(cpus), .kind = J_STRV, .max = 65536, .required = true },
        { I(gpus), .kind = J_STRV, .max = LIMIT_GPUS },
        { I(memory_mib), .kind = J_U64, .max = LIMIT_MEMORY_MIB, .required = true },
        { I(disk_gib), .kind = J_U64, .required = true },
        { I(gpu_note), .kind = J_STR, .max = 512 },
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
static const struct jfield report_fields[] = {
        { R(cluster), .kind = J_STR, .max = LIMIT_CLUSTER_ID_LEN, .required = true },
        { R(epoch), .kind = J_U64 },
        { R(seq), .kind = J_U64 },
        { R(generation), .kind = J_U64, .min = 1, .required = true },
        { R(state), .kind = J_ENUM, .names = cluster_state_names, .max = CS_STATE_COUNT,
          .required = true },
        { R(released), .kind = J_BOOL },
        { R(cpus_taken), .kind = J_BOOL },
        { R(credentials_wanted), .kind = J_BOOL },
        { R(progress_pct), .kind = J_U32, .max = 100 },
        { R(progress_bytes), .kind = J_U64, .max = JSONX_EXACT_MAX },
        { R(progress_total_bytes), .kind = J_U64, .max = JSONX_EXACT_MAX },
        { R(progress_bytes_per_s), .kind = J_U64, .max = JSONX_EXACT_MAX },
        { R(reason), .kind = J_STR, .max = 2048 },
        { R(address), .kind = J_STR, .max = 64 },
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
        node_facts_done(&i->facts);
}

bool node_cpu_elsewhere(const struct node_inventory *i, const char *cpu)
{
        for (char **c = i->facts.cpus_elsewhere; c && *c; c++)
                if (str_eq(*c, cpu))
                        return true;
        return false;
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

int node_report_decode(const json_t *j, struct node_report *ret, struct err *e)
{
        struct node_report rep = { 0 };
        const json_t *usage = json_object_get(j, "usage"), *sec = json_object_get(j, "security");
        int r = jsonx_decode(j, report_fields, NELEM(report_fields), &rep, e);

        if (r >= 0 && json_is_object(usage)) {
                r = jsonx_decode(usage, usage_fields, NELEM(usage_fields), &rep, e);
                rep.has_usage = true;
        }
        if (r >= 0 && (!plan_cluster_id_ok(rep.cluster) || rep.state == CS_NONE))
                r = err_set(e, -EINVAL, "cluster or state is not one");
        if (r < 0) {
                node_report_done(&rep);
                return err_wrap(e, r, "report");
        }
        rep.security = json_is_object(sec) ? sec : NULL;
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
