/* gql_world.c - see gql_world.h. */
#include "gql_world.h"

#include <errno.h>
#include <stdio.h>

#include "base/jsonx.h"

const char world_my_pods[] =
        "query myPods { myself { pods { id containerDiskInGb costPerHr desiredStatus dockerArgs "
        "dockerId env gpuCount imageName lastStatusChange machineId memoryInGb name podType port "
        "ports uptimeSeconds vcpuCount volumeInGb volumeMountPath machine { gpuDisplayName "
        "location } runtime { ports { ip isIpPublic privatePort publicPort PortType: type } } } } "
        "}";

static struct world *world_of(const struct gql_call *c)
{
        return gql_context(c);
}

static void note_args(struct gql_call *c)
{
        struct world *w = world_of(c);
        AUTO(free)
        char *text =
                json_dumps(gql_args(c), JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(15));

        (void) snprintf(w->last_args, sizeof w->last_args, "%s", text ? text : "");
        (void) snprintf(w->last_noun, sizeof w->last_noun, "%s", gql_noun(c));
}

static const struct world_pod *pod_by_id(const struct world *w, const char *id)
{
        for (size_t i = 0; id && i < WORLD_PODS; i++)
                if (strcmp(w->pods[i].id, id) == 0)
                        return &w->pods[i];
        return NULL;
}

static const char *input_id(struct gql_call *c)
{
        return json_string_value(json_object_get(gql_arg(c, "input"), "clusterId"));
}

/* ---- queries -------------------------------------------------------------------------------------- */

static int q_pod(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        note_args(c);
        return gql_put_object(c, pod_by_id(world_of(c), input_id(c)));
}

static int q_myself(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        return gql_put_object(c, world_of(c));
}

static int r_user_id(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        return gql_put_str(c, "user1");
}

static int r_pods(struct gql_call *c, const void *obj, struct err *e)
{
        const struct world *w = obj;
        int r = gql_list_begin(c);

        (void) e;
        for (size_t i = 0; r >= 0 && i < WORLD_PODS; i++)
                r = gql_put_object(c, &w->pods[i]);
        return r < 0 ? r : gql_list_end(c);
}

static int r_nothing(struct gql_call *c, const void *obj, struct err *e)
{
        int r = gql_list_begin(c);

        (void) obj;
        (void) e;
        return r < 0 ? r : gql_list_end(c);
}

static int q_gpu_types(struct gql_call *c, const void *obj, struct err *e)
{
        int r = gql_list_begin(c);

        (void) obj;
        (void) e;
        note_args(c);
        if (r >= 0)
                r = gql_put_object(c, "NVIDIA H200");
        return r < 0 ? r : gql_list_end(c);
}

static int r_text(struct gql_call *c, const void *obj, struct err *e)
{
        (void) e;
        return gql_put_str(c, obj);
}

static int r_lowest(struct gql_call *c, const void *obj, struct err *e)
{
        (void) e;
        note_args(c);
        return gql_put_object(c, obj);
}

static int r_price(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        return gql_put_num(c, 3.59);
}

/* ---- mutations ------------------------------------------------------------------------------------- */

static int m_deploy(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        note_args(c);
        return gql_put_object(c, &world_of(c)->pods[0]);
}

static int m_stop(struct gql_call *c, const void *obj, struct err *e)
{
        struct world *w = world_of(c);
        const struct world_pod *p = pod_by_id(w, input_id(c));
        struct gql_pending *pending;

        (void) obj;
        note_args(c);
        w->stops++;
        if (!p)
                return err_set(e, -ENOENT, "%s not found to stop", gql_noun(c));
        pending = gql_defer(c);
        if (!pending)
                return err_set(e, -ENOMEM, "out of memory");
        if (w->hold)
                w->pending = pending;
        else
                gql_complete(pending, p);
        return GQL_PENDING;
}

static int m_terminate(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        note_args(c);
        if (!pod_by_id(world_of(c), input_id(c)))
                return err_set(e, -ENOENT, "%s not found to terminate", gql_noun(c));
        return 0;
}

static int m_resume(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        note_args(c);
        return err_set(e, -ENOSPC,
                       "There are not enough free GPUs on the host machine to start this pod.");
}

static int m_void(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        note_args(c);
        return gql_put_null(c);
}

static int m_text(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        note_args(c);
        return gql_put_object(c, "saved");
}

static int m_settings(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        note_args(c);
        return gql_put_object(c, world_of(c));
}

static int m_delete_cluster(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        gql_set_code(c, "Cluster not found");
        return err_set(e, -ENOENT, "no such cluster");
}

static int m_size(struct gql_call *c, const void *obj, struct err *e)
{
        (void) c;
        (void) obj;
        return err_set(e, -ERANGE, "size: 0 is below 1 GB");
}

/* ---- tables ---------------------------------------------------------------------------------------- */

#define FN(n, t, need, f)                                                                          \
        {                                                                                          \
                n, t, need, f, GQL_GET_FN, 0                                                       \
        }
#define AT(n, t, get, s, m)                                                                        \
        {                                                                                          \
                n, t, GQL_READ, NULL, GQL_GET_##get, offsetof(struct s, m)                         \
        }
#define P(n, t, get, m) AT(n, t, get, world_pod, m)

static const struct gql_field query_rows[] = {
        FN("@", "@", GQL_SELF, q_pod),
        FN("myself", "User", GQL_READ, q_myself),
        FN("gpuTypes", "[GpuType!]!", GQL_ANYONE, q_gpu_types),
};

static const struct gql_field mutation_rows[] = {
        FN("@FindAndDeployOnDemand", "@", GQL_WRITE, m_deploy),
        FN("@RentInterruptable", "@", GQL_WRITE, m_deploy),
        FN("deployCpu@", "@", GQL_WRITE, m_deploy),
        FN("@Resume", "@", GQL_WRITE, m_resume),
        FN("@BidResume", "@", GQL_WRITE, m_resume),
        FN("@Stop", "@", GQL_SELF, m_stop),
        FN("@Terminate", "Void", GQL_WRITE, m_terminate),
        FN("@EditJob", "@", GQL_WRITE, m_deploy),
        FN("saveTemplate", "Template", GQL_WRITE, m_text),
        FN("deleteTemplate", "Void", GQL_WRITE, m_void),
        FN("saveEndpoint", "Endpoint", GQL_WRITE, m_text),
        FN("deleteEndpoint", "Void", GQL_WRITE, m_void),
        FN("updateUserSettings", "User", GQL_WRITE, m_settings),
        FN("deleteNetworkVolume", "Void", GQL_WRITE, m_void),
        FN("createNetworkVolume", "NetworkVolume", GQL_ADMIN, m_size),
        FN("deleteRegistryAuth", "Void", GQL_WRITE, m_void),
        FN("secretDelete", "Void", GQL_WRITE, m_void),
        FN("deleteCluster", "Boolean", GQL_WRITE, m_delete_cluster),
};

static const struct gql_field pod_rows[] = {
        P("id", "String!", CHARS, id),
        P("name", "String!", CHARS, name),
        P("imageName", "String!", STR, image),
        P("desiredStatus", "@Status!", STR, status),
        P("lastStatusChange", "String", STR, change),
        P("createdAt", "DateTime", TIME, created_us),
        P("costPerHr", "Float!", F64, cost),
        P("adjustedCostPerHr", "Float!", F64, cost),
        P("gpuCount", "Int!", U32, gpu_count),
        FN("gpus", "[@Gpu!]!", GQL_READ, r_nothing),
        P("gpuPowerLimitPercent", "Int!", U32, gpu_count),
        P("vcpuCount", "Int", U32, vcpu),
        P("memoryInGb", "Int", U32, memory_gib),
        P("containerDiskInGb", "Int", U32, disk_gib),
        P("volumeInGb", "Int", U32, volume_gib),
        P("volumeMountPath", "String", STR, volume_path),
        P("dockerArgs", "String", STR, args),
        P("env", "[String!]", STRV, env),
        P("ports", "String", STR, ports),
        P("machineId", "String!", CHARS, host),
        P("uptimeSeconds", "Int", U64, uptime_s),
        { "machine", "@MachineInfo!", GQL_READ, NULL, GQL_GET_SELF, 0 },
        { "runtime", "@Runtime", GQL_READ, NULL, GQL_GET_SELF, 0 },
};

static const struct gql_field machine_rows[] = {
        P("@HostId", "String", CHARS, host),
        P("gpuDisplayName", "String", STR, gpu_name),
        P("location", "String", STR, location),
};

static int r_ports(struct gql_call *c, const void *obj, struct err *e)
{
        const struct world_pod *p = obj;
        int r = gql_list_begin(c);

        (void) e;
        for (size_t i = 0; r >= 0 && i < NELEM(p->port); i++)
                r = gql_put_object(c, &p->port[i]);
        return r < 0 ? r : gql_list_end(c);
}

static const struct gql_field runtime_rows[] = {
        P("uptimeInSeconds", "Int", U64, uptime_s),
        FN("ports", "[@RuntimePort!]", GQL_READ, r_ports),
};

static const struct gql_field port_rows[] = {
        AT("ip", "String", STR, world_port, ip),
        AT("isIpPublic", "Boolean", BOOL, world_port, is_public),
        AT("privatePort", "Int", U32, world_port, private_port),
        AT("publicPort", "Int", U32, world_port, public_port),
        AT("type", "String", STR, world_port, type),
};

static const struct gql_field user_rows[] = {
        FN("id", "String!", GQL_READ, r_user_id),
        FN("@s", "[@!]!", GQL_READ, r_pods),
        FN("endpoints", "[Endpoint!]!", GQL_READ, r_nothing),
        FN("networkVolumes", "[NetworkVolume!]!", GQL_READ, r_nothing),
        FN("@Templates", "[Template!]!", GQL_READ, r_nothing),
        FN("containerRegistryCreds", "[ContainerRegistryAuth!]!", GQL_READ, r_nothing),
        FN("apiKeys", "[ApiKey!]!", GQL_ADMIN, r_nothing),
        FN("secrets", "[Secret!]!", GQL_READ, r_nothing),
};

static const struct gql_field named_rows[] = {
        FN("id", "String!", GQL_ANYONE, r_text),
        FN("name", "String!", GQL_ANYONE, r_text),
};

static const struct gql_field endpoint_rows[] = {
        FN("id", "String!", GQL_ANYONE, r_text),
        FN("name", "String!", GQL_ANYONE, r_text),
        FN("@s", "[@!]!", GQL_ANYONE, r_nothing),
};

#define SELF(n, t)                                                                                 \
        {                                                                                          \
                n, t, GQL_READ, NULL, GQL_GET_SELF, 0                                              \
        }

/* What happens, of any kind, is a pod here. */
static const struct gql_field subscription_rows[] = {
        SELF("@Events", "Event!"),
        SELF("@Logs", "LogLine!"),
        SELF("@Metrics", "@Telemetry!"),
};

static int r_fails(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        return err_set(e, -EBUSY, "%s cannot be told", gql_field_name(c));
}

static const struct gql_field event_rows[] = {
        P("time", "DateTime!", TIME, created_us),
        P("kind", "String!", STR, status),
        P("@Id", "String", CHARS, id),
        FN("text", "String", GQL_READ, r_fails),
        P("actor", "String", STR, change),
};

static const struct gql_field log_line_rows[] = {
        P("time", "DateTime!", TIME, created_us),
        P("stream", "String!", STR, location),
        FN("text", "String!", GQL_READ, r_fails),
        P("whole", "Boolean!", BOOL, running),
};

static const struct gql_field telemetry_rows[] = {
        P("state", "String", STR, status),
        P("cpuUtilization", "Float", F64, cost),
        FN("averageGpuMetrics", "@GpuMetrics", GQL_READ, r_fails),
};

static const struct gql_field gpu_rows[] = {
        FN("id", "String!", GQL_ANYONE, r_text),
        FN("lowestPrice", "LowestPrice", GQL_ANYONE, r_lowest),
};

static const struct gql_field price_rows[] = {
        FN("uninterruptablePrice", "Float", GQL_ANYONE, r_price),
        FN("minMemory", "Int", GQL_ANYONE, r_price),
};

static const struct gql_type types[] = {
        { "Query", query_rows, NELEM(query_rows) },
        { "Mutation", mutation_rows, NELEM(mutation_rows) },
        { "Subscription", subscription_rows, NELEM(subscription_rows) },
        { "Event", event_rows, NELEM(event_rows) },
        { "LogLine", log_line_rows, NELEM(log_line_rows) },
        { "@Telemetry", telemetry_rows, NELEM(telemetry_rows) },
        { "@", pod_rows, NELEM(pod_rows) },
        { "@MachineInfo", machine_rows, NELEM(machine_rows) },
        { "@Runtime", runtime_rows, NELEM(runtime_rows) },
        { "@RuntimePort", port_rows, NELEM(port_rows) },
        { "User", user_rows, NELEM(user_rows) },
        { "Template", named_rows, NELEM(named_rows) },
        { "Endpoint", endpoint_rows, NELEM(endpoint_rows) },
        { "GpuType", gpu_rows, NELEM(gpu_rows) },
        { "LowestPrice", price_rows, NELEM(price_rows) },
};

/* ---- the world -------------------------------------------------------------------------------------- */

static int allow(void *ctx, enum gql_right need, struct err *e)
{
        const struct world *w = ctx;

        (void) e;
        if (need <= w->may)
                return 0;
        return w->may == GQL_ANYONE ? -EACCES : -EPERM;
}

static void fill(struct world *w)
{
        static const char *const env[] = { "MODE=serve", "PORT=8888", "JUPYTER=0", "NAME=\"q\"" };

        for (size_t i = 0; i < NELEM(env); i++)
                w->env[i] = (char *) env[i];
        for (unsigned i = 0; i < WORLD_PODS; i++) {
                struct world_pod *p = &w->pods[i];

                *p = (struct world_pod){ .image = "tensorone/llm-starter:v1",
                                         .status = "RUNNING",
                                         .change = "Rented by User: Sun Nov 22 2026",
                                         .args = "python run.py",
                                         .gpu_name = "H200 SXM",
                                         .location = "DE",
                                         .volume_path = "/workspace",
                                         .ports = "8888/http,22/tcp",
                                         .env = w->env,
                                         .gpu_count = 1,
                                         .vcpu = 16,
                                         .memory_gib = 188,
                                         .disk_gib = 20,
                                         .volume_gib = 40,
                                         .uptime_s = 86400 + i,
                                         .created_us = 1795359845123456ULL,
                                         .cost = 3.59,
                                         .running = true };
                (void) snprintf(p->id, sizeof p->id, "pod%07u", i);
                (void) snprintf(p->name, sizeof p->name, "my pod %u", i);
                (void) snprintf(p->host, sizeof p->host, "pod%07u-64410a0b", i);
                p->port[0] = (struct world_port){ "203.0.113.7", "tcp", true, 22, 40000 + i };
                p->port[1] = (struct world_port){ "100.65.0.2", "http", false, 8888, 60000 };
        }
}

int world_up(struct world *w, bool strict)
{
        struct gql_ops ops = { .allow = allow, .strict = strict };
        struct err e = { 0 };
        int r;

        *w = (struct world){ .may = GQL_WRITE };
        fill(w);
        r = gql_schema_new(NULL, 0, types, NELEM(types), &ops, &w->schema, &e);
        if (r < 0)
                fprintf(stderr, "world: %s\n", e.msg);
        return r;
}

void world_down(struct world *w)
{
        free(w->body);
        w->schema = gql_schema_free(w->schema);
}

void world_done(void *arg, unsigned status, struct strbuf *body)
{
        struct world *w = arg;

        w->status = status;
        w->body_len = body->len;
        w->body = strbuf_take(body);
}

static void forget(struct world *w)
{
        free(w->body);
        w->body = NULL;
        w->status = 0;
        w->last_args[0] = '\0';
}

const char *world_ask(struct world *w, const char *query, const char *variables,
                      const char *op_name)
{
        AUTO(json_put) json_t *vars = NULL;
        AUTO(gql_request_free) struct gql_request *r = NULL;

        forget(w);
        if (variables)
                vars = json_loads(variables, JSON_DECODE_ANY, NULL);
        if (gql_request_new(w->schema, query, strlen(query), op_name, vars, w, &r) < 0)
                return NULL;
        gql_run(r, world_done, w);
        return w->body;
}

const char *world_post(struct world *w, const char *body, size_t len)
{
        AUTO(gql_request_free) struct gql_request *r = NULL;

        forget(w);
        if (gql_request_new_body(w->schema, body, len, w, &r) < 0)
                return NULL;
        gql_run(r, world_done, w);
        return w->body;
}
