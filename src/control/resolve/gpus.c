/* gpus.c - single GPUs: those of a cluster with what is measured of them, and, for administrators,
 * all of the host.  tensorone-api, loop thread. */
#include <errno.h>
#include <math.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/str.h"
#include "control/resolve/resolve_priv.h"

#define RELEASE_TIMEOUT_US (30 * US_PER_S)

static double metric(const struct gpu_telemetry *t, enum gpu_metric m, double scale)
{
        return !t || t->value[m] == GPU_UNKNOWN ? (double) NAN : (double) t->value[m] * scale;
}

/* How full the memory is, in percent. */
static double memory_pct(const struct gpu_telemetry *t)
{
        return metric(t, GM_MEMORY_USED_MIB, 100) / metric(t, GM_MEMORY_TOTAL_MIB, 1);
}

/* ---- of a cluster ---- */

int each_gpu_of(const struct cluster *k, int (*fn)(void *arg, const char *uuid), void *arg)
{
        const json_t *list = json_object_get(k->plan, "gpus"), *gpu;
        size_t i;
        int r = 0;

        json_array_foreach(list, i, gpu)
        {
                if (r >= 0 && json_is_string(gpu))
                        r = fn(arg, json_string_value(gpu));
        }
        return r;
}

static int put_runtime_gpu(void *arg, const char *uuid)
{
        struct gql_call *c = arg;
        const struct resolve_ctx *x = ctx_of(c);
        const struct gpu_telemetry *t = plane_telemetry(x->plane, uuid, NULL);
        const struct gpu_reading v = { .id = uuid,
                                       .util_pct = metric(t, GM_UTIL_PCT, 1),
                                       .memory_pct = memory_pct(t) };

        return gql_put_object(c, &v);
}

int r_runtime_gpus(struct gql_call *c, const void *obj, struct err *e)
{
        int r = gql_list_begin(c);

        (void) e;
        if (r >= 0)
                r = each_gpu_of(obj, put_runtime_gpu, c);
        return r < 0 ? r : gql_list_end(c);
}

static void read_gpu(const struct plane *p, const char *uuid, struct gpu_reading *ret)
{
        const struct gpu_telemetry *t = plane_telemetry(p, uuid, NULL);

        *ret = (struct gpu_reading){ .id = uuid,
                                     .util_pct = metric(t, GM_UTIL_PCT, 1),
                                     .temperature_c = metric(t, GM_TEMPERATURE_C, 1),
                                     .memory_pct = memory_pct(t),
                                     .watts = metric(t, GM_POWER_MW, 1e-3) };
}

static int put_metrics(void *arg, const char *uuid)
{
        struct gql_call *c = arg;
        struct gpu_reading v;

        read_gpu(ctx_of(c)->plane, uuid, &v);
        return gql_put_object(c, &v);
}

int r_gpu_metrics(struct gql_call *c, const void *obj, struct err *e)
{
        int r = gql_list_begin(c);

        (void) e;
        if (r >= 0)
                r = each_gpu_of(obj, put_metrics, c);
        return r < 0 ? r : gql_list_end(c);
}

/* Means of what is known. */
struct mean {
        const struct plane *plane;
        struct gpu_reading sum;
        unsigned n[4];
};

static void mean_add(double *sum, unsigned *n, double v)
{
        if (isnan(v))
                return;
        *sum += v;
        (*n)++;
}

static int add_gpu(void *arg, const char *uuid)
{
        struct mean *m = arg;
        struct gpu_reading v;

        read_gpu(m->plane, uuid, &v);
        mean_add(&m->sum.util_pct, &m->n[0], v.util_pct);
        mean_add(&m->sum.temperature_c, &m->n[1], v.temperature_c);
        mean_add(&m->sum.memory_pct, &m->n[2], v.memory_pct);
        mean_add(&m->sum.watts, &m->n[3], v.watts);
        return 0;
}

int r_gpu_average(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;
        struct mean m = { .plane = ctx_of(c)->plane };
        double *sums[] = { &m.sum.util_pct, &m.sum.temperature_c, &m.sum.memory_pct, &m.sum.watts };

        (void) e;
        if (k->gpu_count == 0)
                return gql_put_null(c);
        (void) each_gpu_of(k, add_gpu, &m);
        for (size_t i = 0; i < NELEM(sums); i++)
                *sums[i] = m.n[i] ? *sums[i] / m.n[i] : (double) NAN;
        return gql_put_object(c, &m.sum);
}

int r_telemetry(struct gql_call *c, const void *obj, struct err *e)
{
        (void) e;
        return gql_put_object(c, cluster_runs(obj) ? obj : NULL);
}

/* When the newest of its numbers came. */
int r_telemetry_time(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;
        const char *first = json_string_value(json_array_get(json_object_get(k->plan, "gpus"), 0));
        uint64_t at = 0, mono = clock_mono_us();

        (void) e;
        if ((!first || !plane_telemetry(ctx_of(c)->plane, first, &at)) && k->usage.at_us)
                at = clock_wall_us() - (mono - k->usage.at_us);
        return gql_put_time(c, at);
}

/* ---- of the host ---- */

static const char *or_null(const char *s)
{
        return str_empty(s) ? NULL : s;
}

static int put_gpu(struct gql_call *c, const struct gpu *g)
{
        const struct plane *p = ctx_of(c)->plane;
        const struct gpu_fleet *f = plane_gpus(p);
        struct gpu_type_view type;
        struct host_gpu v = { .gpu = g,
                              .fleet = f,
                              .place = (size_t) (g - f->gpus),
                              .id = g->uuid,
                              .name = g->name,
                              .pci = g->pci,
                              .mig_profile = g->mig_profile,
                              .parent = g->parent,
                              .serial = or_null(g->serial),
                              .vbios = or_null(g->vbios),
                              .inforom = or_null(g->inforom),
                              .state = gpu_state_names[g->state],
                              .reason = or_null(g->reason),
                              .cluster = plane_gpu_holder(p, g->uuid),
                              .index = g->index,
                              .memory_gib = (g->memory_mib + 512) / 1024,
                              .for_rent = gpu_is_for_rent(g),
                              .mig_mode = g->mig_mode,
                              .ecc = g->ecc,
                              .simulated = f->simulated };

        if (type_of_gpu(p, g, &type)) {
                v.type = type.id;
                v.memory_gib = type.memory_gib;
        } else {
                const struct gpu_product *known = gpu_product_find(g->name);

                display_name(type.display, known ? known->display : g->name, f->simulated);
        }
        v.display = type.display;

        return gql_put_object(c, &v);
}

int q_gpus(struct gql_call *c, const void *obj, struct err *e)
{
        const struct gpu_fleet *f = plane_gpus(ctx_of(c)->plane);
        int r = gql_list_begin(c);

        (void) obj;
        (void) e;
        for (size_t i = 0; r >= 0 && i < f->n; i++)
                r = put_gpu(c, &f->gpus[i]);
        return r < 0 ? r : gql_list_end(c);
}

int r_hg_numa(struct gql_call *c, const void *obj, struct err *e)
{
        const struct host_gpu *v = obj;

        (void) e;
        return v->gpu->numa_node == GPU_NUMA_UNKNOWN ? gql_put_null(c)
                                                     : gql_put_int(c, v->gpu->numa_node);
}

int r_hg_cpus(struct gql_call *c, const void *obj, struct err *e)
{
        const struct host_gpu *v = obj;
        struct plane_host h;
        int r = gql_list_begin(c);

        (void) e;
        plane_host(ctx_of(c)->plane, &h);
        for (size_t i = 0; h.inv && i < h.inv->n_numa; i++)
                for (char **cpu = h.inv->numa[i].cpus;
                     r >= 0 && h.inv->numa[i].node == v->gpu->numa_node && cpu && *cpu; cpu++)
                        r = gql_put_str(c, *cpu);
        return r < 0 ? r : gql_list_end(c);
}

int r_hg_links(struct gql_call *c, const void *obj, struct err *e)
{
        const struct host_gpu *v = obj;
        const struct gpu_fleet *f = v->fleet;
        int r = gql_list_begin(c);
        char text[16];

        (void) e;
        for (size_t i = 0; r >= 0 && f->links && i < f->n; i++) {
                gpu_link_text(f->links[v->place * f->n + i], true, text);
                r = gql_put_str(c, text);
        }
        return r < 0 ? r : gql_list_end(c);
}

int r_hg_p2p(struct gql_call *c, const void *obj, struct err *e)
{
        const struct host_gpu *v = obj;
        const struct gpu_fleet *f = v->fleet;
        int r = gql_list_begin(c);

        (void) e;
        for (size_t i = 0; r >= 0 && f->links && i < f->n; i++)
                r = gql_put_str(c, gpu_p2p_names[f->links[v->place * f->n + i].p2p]);
        return r < 0 ? r : gql_list_end(c);
}

int r_hg_telemetry(struct gql_call *c, const void *obj, struct err *e)
{
        const struct host_gpu *v = obj;
        const struct gpu_telemetry *t = plane_telemetry(ctx_of(c)->plane, v->gpu->uuid, NULL);
        AUTO(json_put) json_t *j = t ? gpu_telemetry_encode(t) : NULL;

        (void) e;
        (void) json_object_del(j, "uuid");
        return gql_put_json(c, j);
}

/* ---- the operator's release ---- */

struct release {
        struct gql_pending *pending;
        char uuid[72];
};

static int put_released(struct gql_call *c, const void *obj, struct err *e)
{
        const struct gpu *g = gpu_fleet_find(plane_gpus(ctx_of(c)->plane), obj);

        (void) e;
        return g ? put_gpu(c, g) : gql_put_null(c);
}

static void on_released(void *arg, struct node_reply *reply)
{
        struct release *x = arg;

        if (reply->r < 0) {
                struct err e = { 0 };

                (void) err_set(&e, reply->r, "%s", reply->message);
                gql_fail(x->pending, NULL, &e);
        } else {
                gql_complete_with(x->pending, put_released, x->uuid);
        }
        free(x);
}

int m_gpu_release(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        const char *id = jsonx_str(gql_arg(c, "input"), "gpuId");
        const struct gpu *g = id ? gpu_fleet_find(plane_gpus(x->plane), id) : NULL;
        struct release *wait;
        int64_t r;

        (void) obj;
        if (str_empty(id))
                return err_set(e, -EINVAL, "gpuId: is empty; the query gpus names them");
        if (!g)
                return err_set(e, -ENOENT,
                               "gpuId: there is no GPU '%.80s'; the query gpus names them", id);
        if (g->state != GS_QUARANTINED)
                return err_set(e, -EBUSY, "gpuId: %s is %s, only a quarantined GPU is released",
                               g->uuid, gpu_state_names[g->state]);
        wait = calloc(1, sizeof *wait);
        if (!wait)
                return err_set(e, -ENOMEM, "out of memory");
        (void) snprintf(wait->uuid, sizeof wait->uuid, "%s", g->uuid);
        wait->pending = gql_defer(c);
        if (!wait->pending) {
                free(wait);
                return err_set(e, -ENOMEM, "out of memory");
        }
        r = node_request(plane_node(x->plane), "gpu.release", json_pack("{s:s}", "uuid", g->uuid),
                         NULL, 0, RELEASE_TIMEOUT_US, on_released, NULL, wait, e);
        if (r < 0) {
                gql_fail(wait->pending, NULL, e);
                free(wait);
        }
        return GQL_PENDING;
}
