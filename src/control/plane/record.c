/* record.c - see record.h.  Pure; tensorone-api. */
#include "control/plane/record.h"

#include <assert.h>
#include <errno.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "model/limits.h"

const char *const cluster_desired_names[DESIRED_COUNT] = { "none", "running", "stopped",
                                                           "terminated" };

static_assert(sizeof(enum cluster_desired) == sizeof(int) &&
                      sizeof(enum cluster_state) == sizeof(int),
              "J_ENUM wants an int");
static_assert(sizeof(enum idle_action) == sizeof(int), "J_ENUM wants an int");
#define C(f) #f, .off = offsetof(struct cluster, f)
static const struct jfield cluster_fields[] = {
        { C(id), .kind = J_STR, .required = true },
        { C(account), .kind = J_STR, .required = true },
        { C(name), .kind = J_STR },
        { C(image), .kind = J_STR },
        { C(template_id), .kind = J_STR },
        { C(docker_args), .kind = J_STR, .max = LIMIT_ARGS_BYTES },
        { C(env), .kind = J_STRV },
        { C(ports), .kind = J_STR },
        { C(volume_path), .kind = J_STR },
        { C(container_disk_gib), .kind = J_U32 },
        { C(volume_gib), .kind = J_U32 },
        { C(vcpu), .kind = J_U32 },
        { C(memory_mib), .kind = J_U64 },
        { C(gpu_count), .kind = J_U32 },
        { C(gpu_type), .kind = J_STR },
        { C(registry_auth), .kind = J_STR },
        { C(cpus), .kind = J_STRV },
        { C(pod_type), .kind = J_STR },
        { C(locked), .kind = J_BOOL },
        { C(desired), .kind = J_ENUM, .names = cluster_desired_names, .max = DESIRED_COUNT },
        { C(state), .kind = J_ENUM, .names = cluster_state_names, .max = CS_STATE_COUNT },
        { C(released), .kind = J_BOOL },
        { C(generation), .kind = J_U64 },
        { C(reason), .kind = J_STR },
        { C(address), .kind = J_STR },
        { C(created_us), .kind = J_U64 },
        { C(started_us), .kind = J_U64 },
        { C(status_change), .kind = J_STR },
        { C(stop_after_us), .kind = J_U64 },
        { C(terminate_after_us), .kind = J_U64 },
        { C(exit_code), .kind = J_U64 },
        { C(restarts), .kind = J_U64 },
        { C(oom_kills), .kind = J_U64 },
        { C(boot), .kind = J_U64 },
        { C(refused), .kind = J_STR },
        { C(security_profile), .kind = J_STR },
        { C(egress), .kind = J_STRV, .max = LIMIT_EGRESS },
        { C(allowed_ips), .kind = J_STRV, .max = LIMIT_ALLOWED_IPS },
        { C(idle_timeout_s), .kind = J_U32 },
        { C(idle_action), .kind = J_ENUM, .names = idle_action_names, .max = IDLE_ACTION_COUNT },
        { C(published), .kind = J_STR },
        { C(public_ip), .kind = J_STR },
        { C(ready), .kind = J_BOOL },
        { C(ready_generation), .kind = J_U64 },
        { C(start_ssh), .kind = J_BOOL },
        { C(readiness_path), .kind = J_STR },
};
#undef C

#define T(f) #f, .off = offsetof(struct template, f)
static const struct jfield template_fields[] = {
        { T(id), .kind = J_STR, .required = true },
        { T(account), .kind = J_STR, .required = true },
        { T(name), .kind = J_STR, .required = true },
        { T(image), .kind = J_STR },
        { T(docker_args), .kind = J_STR, .max = LIMIT_ARGS_BYTES },
        { T(env), .kind = J_STRV },
        { T(ports), .kind = J_STR },
        { T(volume_path), .kind = J_STR },
        { T(volume_gib), .kind = J_U32 },
        { T(container_disk_gib), .kind = J_U32 },
        { T(readme), .kind = J_STR, .max = LIMIT_ARGS_BYTES },
        { T(category), .kind = J_STR },
        { T(start_script), .kind = J_STR, .max = LIMIT_ARGS_BYTES },
        { T(registry_auth), .kind = J_STR },
        { T(is_serverless), .kind = J_BOOL },
        { T(is_public), .kind = J_BOOL },
        { T(start_ssh), .kind = J_BOOL },
        { T(start_jupyter), .kind = J_BOOL },
        { T(advanced_start), .kind = J_BOOL },
        { T(created_us), .kind = J_U64 },
        { T(security_profile), .kind = J_STR },
        { T(egress), .kind = J_STRV, .max = LIMIT_EGRESS },
        { T(idle_timeout_s), .kind = J_U32 },
        { T(idle_action), .kind = J_ENUM, .names = idle_action_names, .max = IDLE_ACTION_COUNT },
        { T(readiness_path), .kind = J_STR },
};
#undef T

#define A(f) #f, .off = offsetof(struct registry_auth, f)
static const struct jfield registry_auth_fields[] = {
        { A(id), .kind = J_STR, .required = true },
        { A(account), .kind = J_STR, .required = true },
        { A(name), .kind = J_STR, .required = true },
        { A(username), .kind = J_STR, .required = true },
        { A(password), .kind = J_STR, .max = 4 * LIMIT_REGISTRY_PASSWORD_LEN, .required = true },
        { A(created_us), .kind = J_U64 },
};
#undef A

#define S(f) #f, .off = offsetof(struct secret, f)
static const struct jfield secret_fields[] = {
        { S(id), .kind = J_STR, .required = true },
        { S(account), .kind = J_STR, .required = true },
        { S(name), .kind = J_STR, .required = true },
        { S(description), .kind = J_STR },
        { S(value), .kind = J_STR, .max = 4 * LIMIT_SECRET_BYTES, .required = true },
        { S(created_us), .kind = J_U64 },
};
#undef S

struct cluster *cluster_free(struct cluster *c)
{
        if (!c)
                return NULL;
        jsonx_done(cluster_fields, NELEM(cluster_fields), c);
        json_decref(c->plan);
        json_decref(c->gpu_receipts);
        json_decref(c->applied);
        json_decref(c->security);
        free(c);
        return NULL;
}

int cluster_from_row(const json_t *row, struct cluster **ret, struct err *e)
{
        AUTO(cluster_free) struct cluster *c = calloc(1, sizeof *c);
        json_t *plan = json_object_get(row, "plan"), *applied = json_object_get(row, "applied");
        int r = c ? jsonx_decode(row, cluster_fields, NELEM(cluster_fields), c, e)
                  : err_set(e, -ENOMEM, "out of memory");

        if (r < 0)
                return err_wrap(e, r, "cluster");
        if (json_is_object(plan))
                c->plan = json_incref(plan);
        if (json_is_array(json_object_get(row, "gpu_receipts")))
                c->gpu_receipts = json_incref(json_object_get(row, "gpu_receipts"));
        if (json_is_object(applied))
                c->applied = json_incref(applied);
        idle_decode(json_object_get(row, "idle"), &c->idle);
        c->idle_kept = c->idle;
        *ret = TAKE(c);
        return 0;
}

json_t *cluster_to_row(const struct cluster *c)
{
        AUTO(json_put) json_t *row = jsonx_encode(cluster_fields, NELEM(cluster_fields), c);

        if (row && c->plan && json_object_set(row, "plan", c->plan) < 0)
                return NULL;
        if (row && c->gpu_receipts && json_object_set(row, "gpu_receipts", c->gpu_receipts) < 0)
                return NULL;
        if (row && c->applied && json_object_set(row, "applied", c->applied) < 0)
                return NULL;
        if (row && c->idle_timeout_s && json_object_set_new(row, "idle", idle_encode(&c->idle)) < 0)
                return NULL;
        return TAKE(row);
}

struct template *template_free(struct template *t)
{
        if (t)
                jsonx_done(template_fields, NELEM(template_fields), t);
        free(t);
        return NULL;
}

int template_from_row(const json_t *row, struct template **ret, struct err *e)
{
        AUTO(template_free) struct template *t = calloc(1, sizeof *t);
        int r = t ? jsonx_decode(row, template_fields, NELEM(template_fields), t, e)
                  : err_set(e, -ENOMEM, "out of memory");

        if (r < 0)
                return err_wrap(e, r, "template");
        *ret = TAKE(t);
        return 0;
}

json_t *template_to_row(const struct template *t)
{
        return jsonx_encode(template_fields, NELEM(template_fields), t);
}

struct registry_auth *registry_auth_free(struct registry_auth *a)
{
        if (a)
                jsonx_done(registry_auth_fields, NELEM(registry_auth_fields), a);
        free(a);
        return NULL;
}

int registry_auth_from_row(const json_t *row, struct registry_auth **ret, struct err *e)
{
        AUTO(registry_auth_free) struct registry_auth *a = calloc(1, sizeof *a);
        int r = a ? jsonx_decode(row, registry_auth_fields, NELEM(registry_auth_fields), a, e)
                  : err_set(e, -ENOMEM, "out of memory");

        if (r < 0)
                return err_wrap(e, r, "registry credentials");
        *ret = TAKE(a);
        return 0;
}

json_t *registry_auth_to_row(const struct registry_auth *a)
{
        return jsonx_encode(registry_auth_fields, NELEM(registry_auth_fields), a);
}

struct secret *secret_free(struct secret *s)
{
        if (s)
                jsonx_done(secret_fields, NELEM(secret_fields), s);
        free(s);
        return NULL;
}

int secret_from_row(const json_t *row, struct secret **ret, struct err *e)
{
        AUTO(secret_free) struct secret *s = calloc(1, sizeof *s);
        int r = s ? jsonx_decode(row, secret_fields, NELEM(secret_fields), s, e)
                  : err_set(e, -ENOMEM, "out of memory");

        if (r < 0)
                return err_wrap(e, r, "secret");
        *ret = TAKE(s);
        return 0;
}

json_t *secret_to_row(const struct secret *s)
{
        return jsonx_encode(secret_fields, NELEM(secret_fields), s);
}

int text_set(char **at, const char *value)
{
        char *copy = NULL;

        if (!str_empty(value)) {
                copy = strdup(value);
                if (!copy)
                        return -ENOMEM;
        }
        free(*at);
        *at = copy;
        return 0;
}
