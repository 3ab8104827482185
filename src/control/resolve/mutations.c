/* mutations.c - the operations on clusters: arguments to calls of the plane.  tensorone-api.
 *
 * Strings that are empty and sizes that are 0 mean "not set", as every client of this API has it. */
#include <errno.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "control/resolve/resolve_priv.h"
#include "model/limits.h"

#define D(n, f) n, .off = offsetof(struct deploy, f)
static const struct jfield deploy_fields[] = {
        { D("name", name), .kind = J_STR },
        { D("imageName", image), .kind = J_STR },
        { D("templateId", template_id), .kind = J_STR },
        { D("dockerArgs", docker_args), .kind = J_STR, .max = LIMIT_QUERY_BYTES },
        { D("ports", ports), .kind = J_STR },
        { D("volumeMountPath", volume_path), .kind = J_STR },
        { D("gpuTypeId", gpu_type), .kind = J_STR, .max = 256 },
        { D("gpuType", gpu_type_too), .kind = J_STR, .max = 256 },
        { D("gpuTypeIdList", gpu_types), .kind = J_STRV, .max = 64 },
        { D("cudaVersion", cuda), .kind = J_STR },
        { D("minCudaVersion", min_cuda), .kind = J_STR },
        { D("allowedCudaVersions", cudas), .kind = J_STRV, .max = LIMIT_CUDA_VERSIONS },
        { D("gpuCount", gpu_count), .kind = J_U32, .max = LIMIT_GPUS },
        { D("containerRegistryAuthId", registry_auth), .kind = J_STR },
        { D("securityProfile", security_profile), .kind = J_STR },
        { D("readinessPath", readiness_path), .kind = J_STR },
        { D("egressAllow", egress), .kind = J_STRV, .max = LIMIT_EGRESS },
        { D("allowedIps", allowed_ips), .kind = J_STRV, .max = LIMIT_ALLOWED_IPS },
        { D("startSsh", start_ssh), .kind = J_BOOL },
        { D("networkVolumeId", network_volume), .kind = J_STR },
        { D("volumeKey", volume_key), .kind = J_STR },
        { D("dataCenterId", data_center), .kind = J_STR },
        { D("countryCode", country), .kind = J_STR },
        { D("stopAfter", stop_after), .kind = J_STR },
        { D("terminateAfter", terminate_after), .kind = J_STR },
        { D("instanceId", instance_id), .kind = J_STR, .max = 128 },
        { D("instanceIds", instance_ids), .kind = J_STRV, .max = 64 },
        { D("containerDiskInGb", container_disk_gib), .kind = J_U32, .max = LIMIT_DISK_GIB },
        { D("volumeInGb", volume_gib), .kind = J_U32, .max = LIMIT_DISK_GIB },
        { D("minMemoryInGb", min_memory_gib), .kind = J_U32, .max = LIMIT_MEMORY_MIB / 1024 },
        { D("minVcpuCount", min_vcpu), .kind = J_U32, .max = LIMIT_VCPU },
};
#undef D

int idle_said(const json_t *in, struct idle_wish *ret, struct err *e)
{
        const json_t *v = json_object_get(in, "idleTimeoutSeconds");
        const char *action = jsonx_str(in, "idleAction");
        int r = json_is_integer(v)
                        ? idle_timeout_check("idleTimeoutSeconds", json_integer_value(v), e)
                        : 0;

        if (r < 0)
                return r;
        *ret = (struct idle_wish){ .said = json_is_integer(v),
                                   .timeout_s = (uint32_t) json_integer_value(v) };
        for (enum idle_action a = IDLE_STOP; a < IDLE_ACTION_COUNT; a++)
                if (str_eq(action, idle_action_names[a]))
                        ret->action = a;
        return 0;
}

static inline void deploy_done_cleanup(struct deploy *d)
{
        deploy_done(d);
}

static inline void edit_done_cleanup(struct edit *d)
{
        edit_done(d);
}

static int deploy(struct gql_call *c, bool no_gpu, bool interruptible, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        const json_t *in = gql_arg(c, "input");
        AUTO(deploy_done) struct deploy d = { 0 };
        const struct cluster *made = NULL;
        int r;

        if (!in)
                return err_set(e, -EINVAL, "input: is missing");
        r = jsonx_decode(in, deploy_fields, NELEM(deploy_fields), &d, e);
        if (r >= 0)
                r = egress_said(&d.egress, e);
        if (r >= 0)
                r = idle_said(in, &d.idle, e);
        if (r >= 0)
                r = env_from_args(json_object_get(in, "env"), &d.env, e);
        d.no_gpu = no_gpu || str_eq(jsonx_str(in, "computeType"), "CPU");
        d.interruptible = interruptible;
        if (r >= 0)
                r = plane_deploy(x->plane, &x->who, &d, &made, e);
        return r < 0 ? r : gql_put_object(c, made);
}

int m_deploy(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        return deploy(c, false, false, e);
}

int m_rent(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        return deploy(c, false, true, e);
}

int m_deploy_cpu(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        return deploy(c, true, false, e);
}

static const char *id_arg(struct gql_call *c)
{
        const char *id = jsonx_str(gql_arg(c, "input"), "clusterId");

        return id ? id : "";
}

int m_resume(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        const json_t *n = json_object_get(gql_arg(c, "input"), "gpuCount");
        const struct cluster *k = NULL;
        int64_t gpus = json_is_integer(n) ? json_integer_value(n) : -1;
        int r;

        (void) obj;
        if (json_is_integer(n) && gpus < 0)
                return err_set(e, -ERANGE, "gpuCount: %lld is outside 0..%u", (long long) gpus,
                               LIMIT_GPUS);
        r = plane_resume(x->plane, &x->who, id_arg(c), gql_noun(c), gpus, &k, e);
        return r < 0 ? r : gql_put_object(c, k);
}

int m_restart(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        const struct cluster *k = NULL;
        int r = plane_restart(x->plane, &x->who, id_arg(c), gql_noun(c), &k, e);

        (void) obj;
        return r < 0 ? r : gql_put_object(c, k);
}

int m_stop(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        const struct cluster *k = NULL;
        int r = plane_stop(x->plane, &x->who, id_arg(c), gql_noun(c), &k, e);

        (void) obj;
        return r < 0 ? r : gql_put_object(c, k);
}

int m_terminate(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        int r = plane_terminate(x->plane, &x->who, id_arg(c), gql_noun(c), e);

        (void) obj;
        return r < 0 ? r : gql_put_null(c);
}

#define E(n, f) n, .off = offsetof(struct edit, f)
static const struct jfield edit_fields[] = {
        { E("dockerArgs", docker_args), .kind = J_STR, .max = LIMIT_QUERY_BYTES },
        { E("imageName", image), .kind = J_STR },
        { E("ports", ports), .kind = J_STR },
        { E("volumeMountPath", volume_path), .kind = J_STR },
        { E("containerRegistryAuthId", registry_auth), .kind = J_STR },
        { E("containerDiskInGb", container_disk_gib), .kind = J_U32, .max = LIMIT_DISK_GIB },
        { E("volumeInGb", volume_gib), .kind = J_U32, .max = LIMIT_DISK_GIB },
};
#undef E

int m_edit(struct gql_call *c, const void *obj, struct err *e)
{
        const struct resolve_ctx *x = ctx_of(c);
        const json_t *in = gql_arg(c, "input"), *env = json_object_get(in, "env");
        AUTO(edit_done) struct edit d = { .env_set = env != NULL };
        const struct cluster *k = NULL;
        int r = jsonx_decode(in, edit_fields, NELEM(edit_fields), &d, e);

        (void) obj;
        if (r >= 0)
                r = env_from_args(env, &d.env, e);
        if (r >= 0)
                r = plane_edit(x->plane, &x->who, id_arg(c), gql_noun(c), &d, &k, e);
        return r < 0 ? r : gql_put_object(c, k);
}

static const struct {
        const char *name;
        size_t off;
        bool zero_is_unset; /* as everywhere; of GPUs none is a wish, too */
} update_fields[] = {
#define U(f) offsetof(struct update, f)
        { "vcpuCount", U(vcpu), true },
        { "memoryInGb", U(memory_gib), true },
        { "containerDiskInGb", U(container_disk_gib), true },
        { "volumeInGb", U(volume_gib), true },
        { "gpuCount", U(gpu_count), false },
        { "generation", U(generation), true },
#undef U
};

static inline void update_done_cleanup(struct update *u)
{
        u->egress = strv_free(u->egress);
        u->allowed_ips = strv_free(u->allowed_ips);
}

int m_update(struct gql_call *c, const void *obj, struct err *e)
{
        static const struct jfield lists[] = {
                { "egressAllow", .off = offsetof(struct update, egress), .kind = J_STRV,
                  .max = LIMIT_EGRESS },
                { "allowedIps", .off = offsetof(struct update, allowed_ips), .kind = J_STRV,
                  .max = LIMIT_ALLOWED_IPS },
        };
        const struct resolve_ctx *x = ctx_of(c);
        const json_t *in = gql_arg(c, "input");
        const struct cluster *k = NULL;
        AUTO(update_done) struct update u = { .egress = NULL };
        int r = jsonx_decode(in, lists, NELEM(lists), &u, e);

        (void) obj;
        if (r >= 0)
                r = egress_said(&u.egress, e);
        if (r >= 0)
                r = idle_said(in, &u.idle, e);
        if (r < 0)
                return r;
        for (size_t i = 0; i < NELEM(update_fields); i++) {
                const json_t *v = json_object_get(in, update_fields[i].name);
                int64_t n = json_is_integer(v) ? json_integer_value(v) : -1;

                if (json_is_integer(v) && n < 0)
                        return err_set(e, -ERANGE, "%s: %lld is below 0", update_fields[i].name,
                                       (long long) n);
                if (n == 0 && update_fields[i].zero_is_unset)
                        n = -1;
                memcpy((char *) &u + update_fields[i].off, &n, sizeof n);
        }
        r = plane_update(x->plane, &x->who, id_arg(c), gql_noun(c), &u, &k, e);
        return r < 0 ? r : gql_put_object(c, k);
}
