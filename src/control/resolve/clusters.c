/* clusters.c - the fields of Pod and Cluster that are not plain members.  tensorone-api. */
#include <errno.h>
#include <math.h>

#include "base/clock.h"
#include "base/str.h"
#include "control/resolve/resolve_priv.h"
#include "model/egress.h"
#include "model/limits.h"
#include "model/plan.h"
#include "model/published.h"

int q_cluster(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        const char *id = json_string_value(json_object_get(gql_arg(c, "input"), "clusterId"));

        (void) obj;
        (void) e;
        return gql_put_object(c, id ? plane_cluster(x->plane, &x->who, id) : NULL);
}

int r_status(struct gql_call *c, const void *obj, struct err *e)
{
        (void) e;
        return gql_put_str(c, cluster_status(obj));
}

int r_phase(struct gql_call *c, const void *obj, struct err *e)
{
        (void) e;
        return gql_put_str(c, cluster_phase(obj));
}

int r_progress(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;

        (void) e;
        return k->state == CS_PULLING ? gql_put_int(c, k->progress_pct) : gql_put_null(c);
}

int r_progress_bytes(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;

        (void) e;
        return k->state == CS_PULLING ? gql_put_int(c, (int64_t) k->progress_bytes)
                                      : gql_put_null(c);
}

int r_progress_total(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;

        (void) e;
        return k->state == CS_PULLING && k->progress_total_bytes
                       ? gql_put_int(c, (int64_t) k->progress_total_bytes)
                       : gql_put_null(c);
}

int r_progress_rate(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;

        (void) e;
        return k->state == CS_PULLING ? gql_put_int(c, (int64_t) k->progress_bytes_per_s)
                                      : gql_put_null(c);
}

int r_security(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;

        (void) e;
        return gql_put_json(c, k->security);
}

/* Records from before there were profiles say nothing. */
static int put_profile(struct gql_call *c, const char *profile)
{
        return gql_put_str(c, str_empty(profile) ? security_profile_names[SECURITY_STANDARD]
                                                 : profile);
}

int r_security_profile(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;

        (void) e;
        return put_profile(c, k->security_profile);
}

int r_template_security_profile(struct gql_call *c, const void *obj, struct err *e)
{
        const struct template *t = obj;

        (void) e;
        return put_profile(c, t->security_profile);
}

int r_ssh_host_key(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;
        AUTO(free) char *key = k->start_ssh ? plane_host_key(ctx_of(c)->plane, k) : NULL;

        if (k->start_ssh && !key)
                return err_set(e, -ENOMEM, "out of memory");
        return gql_put_str(c, key);
}

/* What was asked for: null is no limit, an empty list no network. */
static int put_egress(struct gql_call *c, char *const *list)
{
        int r = list ? gql_list_begin(c) : gql_put_null(c);

        for (char *const *s = list; r >= 0 && s && *s; s++)
                if (!str_eq(*s, EGRESS_NONE))
                        r = gql_put_str(c, *s);
        return r < 0 || !list ? r : gql_list_end(c);
}

int r_egress(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;

        (void) e;
        return put_egress(c, k->egress);
}

/* Empty: all addresses. */
int r_allowed_ips(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;
        int r = gql_list_begin(c);

        (void) e;
        for (char *const *s = k->allowed_ips; r >= 0 && s && *s; s++)
                r = gql_put_str(c, *s);
        return r < 0 ? r : gql_list_end(c);
}

int r_template_egress(struct gql_call *c, const void *obj, struct err *e)
{
        const struct template *t = obj;

        (void) e;
        return put_egress(c, t->egress);
}

static int put_action(struct gql_call *c, enum idle_action a)
{
        return gql_put_str(c, idle_action_names[a ? a : IDLE_STOP]);
}

int r_idle_action(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;

        (void) e;
        return put_action(c, k->idle_action);
}

int r_template_idle_action(struct gql_call *c, const void *obj, struct err *e)
{
        const struct template *t = obj;

        (void) e;
        return put_action(c, t->idle_action);
}

int r_idle_seconds(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;

        (void) e;
        return k->idle_timeout_s && cluster_runs(k)
                       ? gql_put_int(c, (int64_t) (k->idle.idle_us / US_PER_S))
                       : gql_put_null(c);
}

int r_last_use(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;

        (void) e;
        return gql_put_str(c, k->idle_timeout_s && cluster_runs(k) && k->idle.last_use
                                      ? idle_use_names[k->idle.last_use]
                                      : NULL);
}

int egress_said(char ***list, struct err *e)
{
        return *list && !**list && strv_push(list, EGRESS_NONE) < 0
                       ? err_set(e, -ENOMEM, "out of memory")
                       : 0;
}

int r_gpu_receipts(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;

        (void) e;
        return gql_put_json(c, k->gpu_receipts);
}

int r_updating(struct gql_call *c, const void *obj, struct err *e)
{
        (void) e;
        return gql_put_bool(c, cluster_updating(obj));
}

/* GPUs are those of the plan; without any the list is empty, never null. */
int r_gpus(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;
        int r = gql_list_begin(c);
        json_t *gpu;
        size_t i;

        (void) e;
        json_array_foreach(json_object_get(k->plan, "gpus"), i, gpu)
        {
                struct gpu_view v = { json_string_value(gpu), k->id };

                if (r >= 0 && v.id)
                        r = gql_put_object(c, &v);
        }
        return r < 0 ? r : gql_list_end(c);
}

int r_memory_gib(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;

        (void) e;
        return gql_put_int(c, (int64_t) (k->memory_mib / 1024));
}

int r_machine_id(struct gql_call *c, const void *obj, struct err *e)
{
        struct plane_host h;

        (void) obj;
        (void) e;
        plane_host(ctx_of(c)->plane, &h);
        return gql_put_str(c, h.id);
}

int r_runtime(struct gql_call *c, const void *obj, struct err *e)
{
        (void) e;
        return gql_put_object(c, cluster_runs(obj) ? obj : NULL);
}

int r_uptime(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;
        uint64_t now = clock_wall_us();

        (void) e;
        if (!cluster_runs(k) || !k->started_us || k->started_us > now)
                return gql_put_int(c, 0);
        return gql_put_int(c, (int64_t) ((now - k->started_us) / US_PER_S));
}

int r_ports(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;
        struct plan_port port[LIMIT_PORTS];
        struct published published = { .n = 0 };
        int n = plan_ports(k->ports, port, NELEM(port), e), r = n;

        if (r >= 0 && !str_empty(k->public_ip))
                r = published_parse(k->published, &published, e);
        if (r >= 0)
                r = gql_list_begin(c);
        for (int i = 0; r >= 0 && i < n && k->address; i++) {
                const uint16_t outer = port[i].type == PORT_TCP
                                               ? published_outer(&published, port[i].private_port)
                                               : 0;
                struct port_view v = { outer ? k->public_ip : k->address,
                                       port_type_names[port[i].type], port[i].private_port,
                                       outer ? outer : port[i].private_port, outer != 0 };

                r = gql_put_object(c, &v);
        }
        return r < 0 ? r : gql_list_end(c);
}

/* Of every web port, running or not: the edge says more there. */
int r_urls(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;
        const char *domain = plane_cluster_domain(ctx_of(c)->plane);
        struct plan_port port[LIMIT_PORTS];
        int n = domain ? plan_ports(k->ports, port, NELEM(port), e) : 0, r = n;

        if (r >= 0)
                r = gql_list_begin(c);
        for (int i = 0; r >= 0 && i < n; i++) {
                AUTO(free) char *url = NULL;

                if (port[i].type != PORT_HTTP)
                        continue;
                url = str_fmt("https://%s-%u.%s", k->id, port[i].private_port, domain);
                r = url ? gql_put_str(c, url) : err_set(e, -ENOMEM, "out of memory");
        }
        return r < 0 ? r : gql_list_end(c);
}

int r_cpu_pct(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;

        (void) e;
        return gql_put_int(c, k->usage.cpu_pct);
}

int r_memory_pct(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;
        uint64_t all = k->memory_mib << 20;

        (void) e;
        return gql_put_int(c, all ? (int64_t) (k->usage.memory_bytes * 100 / all) : 0);
}

/* Nothing is known of it: null. */
static double pressure(const struct cluster *k, double v)
{
        return k->usage.at_us ? v : (double) NAN;
}

int r_cpu_pressure(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;

        (void) e;
        return gql_put_num(c, pressure(k, k->usage.pressure_cpu));
}

int r_memory_pressure(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;

        (void) e;
        return gql_put_num(c, pressure(k, k->usage.pressure_memory));
}

int r_io_pressure(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;

        (void) e;
        return gql_put_num(c, pressure(k, k->usage.pressure_io));
}

int r_host_id(struct gql_call *c, const void *obj, struct err *e)
{
        char id[32];

        (void) e;
        cluster_host_id(obj, id);
        return gql_put_str(c, id);
}

int r_location(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        return gql_put_str(c, PLANE_DATA_CENTER);
}

int r_true(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        return gql_put_bool(c, true);
}

int r_false(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        return gql_put_bool(c, false);
}

int r_zero(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        return gql_put_int(c, 0); /* a self-hosted engine sells nothing */
}

int r_one(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        return gql_put_int(c, 1);
}

int r_hundred(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        return gql_put_int(c, 100);
}

static int put_host(struct gql_call *c, size_t off)
{
        struct plane_host h;
        uint64_t v;

        plane_host(ctx_of(c)->plane, &h);
        memcpy(&v, (const char *) &h + off, sizeof v);
        return gql_put_int(c, (int64_t) v);
}

int r_host_cpus(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        return put_host(c, offsetof(struct plane_host, vcpu_total));
}

int r_host_cpus_taken(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        return put_host(c, offsetof(struct plane_host, vcpu_taken));
}

/* In GB, as the rest of the contract counts. */
int r_host_memory(struct gql_call *c, const void *obj, struct err *e)
{
        struct plane_host h;

        (void) obj;
        (void) e;
        plane_host(ctx_of(c)->plane, &h);
        return gql_put_int(c, (int64_t) (h.memory_mib / 1024));
}

int r_host_memory_taken(struct gql_call *c, const void *obj, struct err *e)
{
        struct plane_host h;

        (void) obj;
        (void) e;
        plane_host(ctx_of(c)->plane, &h);
        return gql_put_int(c, (int64_t) (h.memory_taken_mib / 1024));
}
