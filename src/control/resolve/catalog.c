/* catalog.c - what there is to rent on the one host.  tensorone-api; no account needed. */
#include <errno.h>

#include "base/str.h"
#include "control/resolve/resolve_priv.h"

/* A CPU shape: the objects of cpuFlavors and cpuTypes. */
struct flavor {
        const char *id;
};
static const struct flavor flavors[] = { { "cpu3c" } };

int q_cpu_flavors(struct gql_call *c, const void *obj, struct err *e)
{
        const char *id = json_string_value(json_object_get(gql_arg(c, "input"), "id"));
        int r = gql_list_begin(c);

        (void) obj;
        (void) e;
        for (size_t i = 0; r >= 0 && i < NELEM(flavors); i++)
                if (str_empty(id) || str_eq(id, flavors[i].id))
                        r = gql_put_object(c, &flavors[i]);
        return r < 0 ? r : gql_list_end(c);
}

int q_cpu_types(struct gql_call *c, const void *obj, struct err *e)
{
        int r = gql_list_begin(c);

        (void) obj;
        (void) e;
        for (size_t i = 0; r >= 0 && i < NELEM(flavors); i++)
                r = gql_put_object(c, &flavors[i]);
        return r < 0 ? r : gql_list_end(c);
}

/* One object that needs no members. */
static int put_one(struct gql_call *c)
{
        int r = gql_list_begin(c);

        if (r >= 0)
                r = gql_put_object(c, ctx_of(c));
        return r < 0 ? r : gql_list_end(c);
}

int q_data_centers(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        return put_one(c);
}

int q_machines(struct gql_call *c, const void *obj, struct err *e)
{
        struct plane_host h;

        plane_host(ctx_of(c)->plane, &h);
        return h.known ? put_one(c) : r_empty_list(c, obj, e);
}

int r_flavor_id(struct gql_call *c, const void *obj, struct err *e)
{
        const struct flavor *f = obj;

        (void) e;
        return gql_put_str(c, f->id);
}

int r_flavor_max(struct gql_call *c, const void *obj, struct err *e)
{
        return r_host_cpus(c, obj, e);
}

int r_flavor_specifics(struct gql_call *c, const void *obj, struct err *e)
{
        (void) e;
        return gql_put_object(c, obj);
}

int r_stock(struct gql_call *c, const void *obj, struct err *e)
{
        struct plane_host h;
        uint64_t left;

        (void) obj;
        (void) e;
        plane_host(ctx_of(c)->plane, &h);
        left = h.vcpu_total > h.vcpu_taken ? h.vcpu_total - h.vcpu_taken : 0;
        if (left == 0)
                return gql_put_null(c);
        return gql_put_str(c, left * 2 > h.vcpu_total ? "High" : left > 2 ? "Medium" : "Low");
}

int r_data_center_id(struct gql_call *c, const void *obj, struct err *e)
{
        return r_location(c, obj, e);
}

int r_data_center_name(struct gql_call *c, const void *obj, struct err *e)
{
        return r_location(c, obj, e);
}

int r_machine_name(struct gql_call *c, const void *obj, struct err *e)
{
        return r_machine_id(c, obj, e);
}

int r_machine_gpus(struct gql_call *c, const void *obj, struct err *e)
{
        struct plane_host h;

        (void) obj;
        (void) e;
        plane_host(ctx_of(c)->plane, &h);
        return gql_put_int(c, h.gpus);
}

int r_machine_driver(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        return gql_put_str(c, plane_gpus(ctx_of(c)->plane)->driver_version);
}

int r_machine_cuda(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        return gql_put_str(c, plane_gpus(ctx_of(c)->plane)->cuda_version);
}

int r_machine_simulated(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        return gql_put_bool(c, plane_gpus(ctx_of(c)->plane)->simulated);
}

/* Why there is none, or what is odd. */
int r_machine_gpu_note(struct gql_call *c, const void *obj, struct err *e)
{
        const char *note = plane_gpus(ctx_of(c)->plane)->note;

        (void) obj;
        (void) e;
        return gql_put_str(c, str_empty(note) ? NULL : note);
}

int r_disk_total(struct gql_call *c, const void *obj, struct err *e)
{
        struct plane_host h;

        (void) obj;
        (void) e;
        plane_host(ctx_of(c)->plane, &h);
        return gql_put_int(c, (int64_t) h.disk_gib);
}

int r_disk_free(struct gql_call *c, const void *obj, struct err *e)
{
        struct plane_host h;

        (void) obj;
        (void) e;
        plane_host(ctx_of(c)->plane, &h);
        return gql_put_int(
                c, h.disk_gib > h.disk_taken_gib ? (int64_t) (h.disk_gib - h.disk_taken_gib) : 0);
}
