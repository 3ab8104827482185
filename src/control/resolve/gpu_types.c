/* gpu_types.c - GPUs as they are rented: by type, with what is free and what it costs.
 * tensorone-api, loop thread.
 *
 * What always holds: only GPUs whose state is ok and that nobody leases count as free; a type whose
 * GPUs are all taken or broken is still listed, with nothing to be had. */
#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "control/plane/args.h"
#include "control/resolve/resolve_priv.h"
#include "model/limits.h"

#define UNKNOWN ((double) NAN) /* null in the answer */

static unsigned set_len(uint64_t set)
{
        return (unsigned) __builtin_popcountll(set);
}

/* ---- types ---- */

void display_name(char ret[static DISPLAY_BYTES], const char *name, bool simulated)
{
        (void) snprintf(ret, DISPLAY_BYTES, "%.140s%s", name, simulated ? " (simulated)" : "");
}

static void view_of(const struct plane *p, const struct gpu_type *t, struct gpu_type_view *ret)
{
        const struct node_price *price = plane_gpu_price(p, t->id);
        const struct gpu_fleet *f = plane_gpus(p);

        *ret = (struct gpu_type_view){ .fleet = f,
                                       .id = t->id,
                                       .manufacturer = GPU_MANUFACTURER,
                                       .memory_gib = t->memory_gib,
                                       .cuda_cores = t->cuda_cores,
                                       .count = set_len(t->members),
                                       .members = t->members,
                                       .on_demand = price ? price->on_demand : 0,
                                       .spot = price ? price->spot : 0,
                                       .simulated = f->simulated };
        display_name(ret->display, t->display, f->simulated);
}

bool type_of_gpu(const struct plane *p, const struct gpu *g, struct gpu_type_view *ret)
{
        const struct gpu_fleet *f = plane_gpus(p);
        const struct gpu_type *t = gpu_types_of(plane_gpu_types(p), (size_t) (g - f->gpus));

        if (t)
                view_of(p, t, ret);
        return t != NULL;
}

/* By its first GPU; by what it asked for when the host does not know that any more (it fell off the bus),
 * or has not chosen one yet. */
bool type_of_cluster(const struct plane *p, const struct cluster *k, struct gpu_type_view *ret)
{
        const char *uuid = json_string_value(json_array_get(json_object_get(k->plan, "gpus"), 0));
        const struct gpu *g = uuid ? gpu_fleet_find(plane_gpus(p), uuid) : NULL;
        const struct gpu_type *t;

        if (k->gpu_count == 0)
                return false;
        if (g && type_of_gpu(p, g, ret))
                return true;
        t = gpu_types_find(plane_gpu_types(p), k->gpu_type);
        if (t)
                view_of(p, t, ret);
        return t != NULL;
}

/* ---- what is free ---- */

static uint64_t free_of(const struct plane *p, const struct gpu_type_view *t)
{
        uint64_t set = 0;

        for (size_t i = 0; i < t->fleet->n; i++)
                if (t->members >> i & 1 && t->fleet->gpus[i].state == GS_OK &&
                    !plane_gpu_holder(p, t->fleet->gpus[i].uuid))
                        set |= 1ULL << i;
        return set;
}

static bool in_fabric(const struct gpu_type_view *t)
{
        for (size_t i = 0; i < t->fleet->n_partitions; i++)
                if (t->fleet->partitions[i] & t->members)
                        return true;
        return false;
}

/* Bit n - 1: a set of n may be leased now, as gpu_choose() would find one.  Where a fabric divides the
 * GPUs of the type only its own sets are. */
static uint64_t counts_of(const struct gpu_type_view *t, uint64_t free_set)
{
        const struct gpu_fleet *f = t->fleet;
        unsigned n = set_len(free_set);
        uint64_t counts = n ? 1 : 0;

        if (n && !in_fabric(t))
                return n == GPU_MAX ? UINT64_MAX : (1ULL << n) - 1;
        for (size_t i = 0; i < f->n_partitions; i++)
                if (f->partitions[i] && (f->partitions[i] & ~free_set) == 0)
                        counts |= 1ULL << (set_len(f->partitions[i]) - 1);
        return counts;
}

static const char *stock(unsigned left, unsigned total)
{
        return left == 0 ? NULL : left * 2 > total ? "High" : left > 2 ? "Medium" : "Low";
}

/* ---- lowestPrice ---- */

/* As deploy() has it.  -EINVAL: one of them is no version. */
static int cuda_fits(const json_t *in, const struct gpu_fleet *f, bool *ret, struct err *e)
{
        const json_t *list = json_object_get(in, "allowedCudaVersions"), *v;
        AUTO(strv_free) char **allowed = NULL;
        struct cuda_wish w = { .least = { jsonx_str(in, "minCudaVersion"),
                                          jsonx_str(in, "cudaVersion") } };
        size_t i;
        int r;

        if (json_array_size(list) > LIMIT_CUDA_VERSIONS)
                return err_set(e, -E2BIG,
                               "allowedCudaVersions: %zu elements, at most %u are allowed",
                               json_array_size(list), LIMIT_CUDA_VERSIONS);
        json_array_foreach(list, i, v)
        {
                if (strv_push(&allowed, json_string_value(v)) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        w.allowed = allowed;
        r = cuda_check(&w, f->cuda_version, e);
        *ret = r >= 0;
        return r == -ENOSPC ? 0 : r;
}

/* Where it may be, as deploy() has it. */
static bool place_fits(const json_t *in)
{
        const char *dc = jsonx_str(in, "dataCenterId");

        return (str_empty(dc) || str_eq(dc, PLANE_DATA_CENTER)) &&
               str_empty(jsonx_str(in, "countryCode"));
}

static uint64_t number(const json_t *in, const char *key)
{
        json_int_t n = json_integer_value(json_object_get(in, key));

        return n > 0 ? (uint64_t) n : 0;
}

static uint64_t least_of(uint64_t a, uint64_t b)
{
        return a < b ? a : b;
}

/* Of something that the host has @total of, what falls to @gpus of its @all GPUs, as far as it is
 * there; false: less than @want is. */
static bool share(uint64_t total, uint64_t taken, uint64_t gpus, uint64_t all, uint64_t want,
                  double *ret)
{
        uint64_t left = total > taken ? total - taken : 0;
        uint64_t fair = least_of(total * gpus / all, left);

        if (left == 0 || left < want)
                return false;
        *ret = (double) (fair > want ? fair : want > 0 ? want : 1);
        return true;
}

static bool room_fits(const struct plane *p, const json_t *in, uint64_t gpus,
                      struct lowest_price *ret)
{
        uint64_t all = 0, disk = number(in, "totalDisk");
        const struct gpu_fleet *f = plane_gpus(p);
        struct plane_host h;

        for (size_t i = 0; i < f->n; i++)
                all += gpu_is_for_rent(&f->gpus[i]);
        plane_host(p, &h);
        disk = disk > number(in, "minDisk") ? disk : number(in, "minDisk");
        return h.known && all > 0 && !h.inv->facts.disk_full &&
               share(h.memory_mib / 1024, h.memory_taken_mib / 1024, gpus, all,
                     number(in, "minMemoryInGb"), &ret->memory_gib) &&
               share(h.vcpu_total, h.vcpu_taken, gpus, all, number(in, "minVcpuCount"),
                     &ret->vcpu) &&
               share(h.disk_gib, h.disk_taken_gib, gpus, all, disk, &ret->disk_gib);
}

/* What is below nothing is a mistake rather than no wish. */
static int check_numbers(const json_t *in, struct err *e)
{
        static const char *const fields[] = { "gpuCount", "minMemoryInGb", "minVcpuCount",
                                              "totalDisk", "minDisk" };

        for (size_t i = 0; i < NELEM(fields); i++) {
                json_int_t n = json_integer_value(json_object_get(in, fields[i]));

                if (n < 0)
                        return err_set(e, -ERANGE, "%s: %lld is below 0", fields[i], (long long) n);
        }
        return 0;
}

static void lowest_price(const struct plane *p, const struct gpu_type_view *t, const json_t *in,
                         bool cuda, struct lowest_price *ret)
{
        uint64_t free_set = free_of(p, t), gpus = number(in, "gpuCount");
        unsigned n_free = set_len(free_set);

        gpus = gpus ? gpus : 1;
        *ret = (struct lowest_price){ .name = t->display,
                                      .id = t->id,
                                      .total = t->count,
                                      .rented = t->count - n_free,
                                      .bid = t->spot,
                                      .price = t->on_demand,
                                      .counts = counts_of(t, free_set) };
        ret->rental_pct = t->count ? 100.0 * ret->rented / t->count : 0;
        for (unsigned i = 0; i < GPU_MAX; i++)
                if (ret->counts >> i & 1)
                        ret->most = i + 1;
        if (gpus <= GPU_MAX && ret->counts >> (gpus - 1) & 1 && cuda && place_fits(in) &&
            room_fits(p, in, gpus, ret))
                ret->stock = stock(n_free, t->count);
        else
                ret->memory_gib = ret->vcpu = ret->disk_gib = UNKNOWN;
}

int r_lowest_price(struct gql_call *c, const void *obj, struct err *e)
{
        const json_t *in = gql_arg(c, "input");
        const struct gpu_type_view *t = obj;
        struct lowest_price v;
        bool cuda = false;
        int r = check_numbers(in, e);

        if (r >= 0)
                r = cuda_fits(in, t->fleet, &cuda, e);
        if (r < 0)
                return r;
        lowest_price(ctx_of(c)->plane, t, in, cuda, &v);
        return gql_put_object(c, &v);
}

int r_lp_counts(struct gql_call *c, const void *obj, struct err *e)
{
        const struct lowest_price *v = obj;
        int r = gql_list_begin(c);

        (void) e;
        for (unsigned i = 0; r >= 0 && i < GPU_MAX; i++)
                if (v->counts >> i & 1)
                        r = gql_put_int(c, i + 1);
        return r < 0 ? r : gql_list_end(c);
}

/* ---- lists ---- */

/* Names are those that a deployment takes: also a family's, or a display name. */
static bool is_asked_for(const json_t *in, const struct gpu_type *t)
{
        const char *one = jsonx_str(in, "id");
        const json_t *ids = json_object_get(in, "ids"), *v;
        size_t i;

        if (json_is_true(json_object_get(in, "cluster")))
                return false; /* only what several machines as one are made of: there is none */
        if (!str_empty(one) && !gpu_type_matches(t, one))
                return false;
        if (json_array_size(ids) == 0)
                return true;
        json_array_foreach(ids, i, v)
        {
                if (!str_empty(json_string_value(v)) && gpu_type_matches(t, json_string_value(v)))
                        return true;
        }
        return false;
}

int q_gpu_types(struct gql_call *c, const void *obj, struct err *e)
{
        const struct plane *p = ctx_of(c)->plane;
        const struct gpu_types *types = plane_gpu_types(p);
        int r = gql_list_begin(c);

        (void) obj;
        (void) e;
        for (size_t i = 0; r >= 0 && i < types->n; i++) {
                struct gpu_type_view v;

                view_of(p, &types->list[i], &v);
                if (is_asked_for(gql_arg(c, "input"), &types->list[i]))
                        r = gql_put_object(c, &v);
        }
        return r < 0 ? r : gql_list_end(c);
}

int r_gpu_availability(struct gql_call *c, const void *obj, struct err *e)
{
        const struct plane *p = ctx_of(c)->plane;
        const struct gpu_types *types = plane_gpu_types(p);
        int r = gql_list_begin(c);

        (void) obj;
        (void) e;
        for (size_t i = 0; r >= 0 && i < types->n; i++) {
                struct gpu_type_view t;
                struct gpu_stock_view v;

                view_of(p, &types->list[i], &t);
                v = (struct gpu_stock_view){ t.id, t.display,
                                             stock(set_len(free_of(p, &t)), t.count), false };
                v.available = v.stock != NULL;
                r = gql_put_object(c, &v);
        }
        return r < 0 ? r : gql_list_end(c);
}

/* NULL: the type is in no pool. */
static const char *pool_of(const struct gpu_type *t)
{
        return t->product && !t->mig_profile ? t->product->pool : NULL;
}

int q_gpu_pools(struct gql_call *c, const void *obj, struct err *e)
{
        const struct gpu_types *types = plane_gpu_types(ctx_of(c)->plane);
        int r = gql_list_begin(c);

        (void) obj;
        (void) e;
        for (size_t i = 0; r >= 0 && i < types->n; i++) {
                struct gpu_pool_view v = { pool_of(&types->list[i]), types };
                bool listed = !v.id;

                for (size_t k = 0; k < i; k++)
                        listed = listed || str_eq(pool_of(&types->list[k]), v.id);
                if (!listed)
                        r = gql_put_object(c, &v);
        }
        return r < 0 ? r : gql_list_end(c);
}

int r_pool_types(struct gql_call *c, const void *obj, struct err *e)
{
        const struct gpu_pool_view *v = obj;
        int r = gql_list_begin(c);

        (void) e;
        for (size_t i = 0; r >= 0 && i < v->types->n; i++)
                if (str_eq(pool_of(&v->types->list[i]), v->id))
                        r = gql_put_str(c, v->types->list[i].id);
        return r < 0 ? r : gql_list_end(c);
}

int r_machine_gpu_type(struct gql_call *c, const void *obj, struct err *e)
{
        const struct plane *p = ctx_of(c)->plane;
        const struct gpu_types *types = plane_gpu_types(p);
        struct gpu_type_view v;

        (void) obj;
        (void) e;
        if (types->n == 0)
                return gql_put_null(c);
        view_of(p, &types->list[0], &v);
        return gql_put_object(c, &v);
}

/* ---- of a cluster ---- */

static double price_per_gpu(const struct plane *p, const struct cluster *k)
{
        struct gpu_type_view t;

        if (!type_of_cluster(p, k, &t))
                return 0;
        return str_eq(k->pod_type, "INTERRUPTABLE") ? t.spot : t.on_demand;
}

double cluster_cost(const struct plane *p, const struct cluster *k)
{
        return price_per_gpu(p, k) * k->gpu_count;
}

int r_cost(struct gql_call *c, const void *obj, struct err *e)
{
        (void) e;
        return gql_put_num(c, cluster_cost(ctx_of(c)->plane, obj));
}

int r_price_per_gpu(struct gql_call *c, const void *obj, struct err *e)
{
        (void) e;
        return gql_put_num(c, price_per_gpu(ctx_of(c)->plane, obj));
}

int r_gpu_type_id(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;
        struct gpu_type_view t;

        (void) e;
        return gql_put_str(c, type_of_cluster(ctx_of(c)->plane, k, &t) ? t.id : k->gpu_type);
}

int r_gpu_name(struct gql_call *c, const void *obj, struct err *e)
{
        const struct cluster *k = obj;
        struct gpu_type_view t;

        (void) e;
        if (type_of_cluster(ctx_of(c)->plane, k, &t))
                return gql_put_str(c, t.display);
        return gql_put_str(c, k->gpu_count == 0 ? "CPU" : k->gpu_type ? k->gpu_type : "GPU");
}

int r_cluster_gpu_type(struct gql_call *c, const void *obj, struct err *e)
{
        struct gpu_type_view t;

        (void) e;
        return gql_put_object(c, type_of_cluster(ctx_of(c)->plane, obj, &t) ? &t : NULL);
}

int r_gpu_available(struct gql_call *c, const void *obj, struct err *e)
{
        const struct plane *p = ctx_of(c)->plane;
        struct gpu_type_view t;

        (void) e;
        return gql_put_int(c, type_of_cluster(p, obj, &t) ? set_len(free_of(p, &t)) : 0);
}

struct spend {
        const struct plane *plane;
        double sum;
};

static int add_cost(void *arg, const struct cluster *k)
{
        struct spend *s = arg;

        if (cluster_runs(k))
                s->sum += cluster_cost(s->plane, k);
        return 0;
}

int r_spend(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        struct spend s = { .plane = x->plane };

        (void) obj;
        (void) e;
        (void) plane_clusters(x->plane, &x->who, add_cost, &s);
        return gql_put_num(c, s.sum);
}
