/* plan.c - the plan's field table and its checks.  Pure; engine and control plane. */
#include "model/plan.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "model/allow.h"
#include "model/egress.h"
#include "model/gpu.h"
#include "model/limits.h"
#include "model/ready.h"
#include "model/sshdir.h"
#include "model/sshkey.h"

#define NUMA_NODE_MAX 1023U /* the largest number that a kernel gives */

const char *const port_type_names[PORT_TYPE_COUNT] = { "none", "http", "tcp" };

#define F(f) #f, .off = offsetof(struct plan, f)
static const struct jfield fields[] = {
        { F(cluster), .kind = J_STR, .max = LIMIT_CLUSTER_ID_LEN, .required = true },
        { F(generation), .kind = J_U64, .min = 1, .required = true },
        { F(boot), .kind = J_U64 },
        { F(account), .kind = J_STR, .max = 64, .required = true },
        { F(name), .kind = J_STR, .max = LIMIT_NAME_LEN },
        { F(image), .kind = J_STR, .max = LIMIT_IMAGE_REF_LEN, .required = true },
        { F(registry_auth), .kind = J_STR, .max = 64 },
        { F(entrypoint), .kind = J_STRV, .max = LIMIT_ARGV_ENTRIES },
        { F(command), .kind = J_STRV, .max = LIMIT_ARGV_ENTRIES },
        { F(command_set), .kind = J_BOOL },
        { F(env), .kind = J_STRV, .max = LIMIT_ENV_TOTAL_ENTRIES },
        { F(cpus), .kind = J_STRV, .max = LIMIT_VCPU },
        { F(mems), .kind = J_STR, .max = 256 },
        { F(vcpu), .kind = J_U32, .min = 1, .max = LIMIT_VCPU, .required = true },
        { F(memory_mib), .kind = J_U32, .min = LIMIT_MEMORY_MIN_MIB, .max = LIMIT_MEMORY_MIB,
          .required = true },
        { F(shm_mib), .kind = J_U32, .max = LIMIT_MEMORY_MIB },
        { F(pids), .kind = J_U32, .max = 4194304 },
        { F(container_disk_gib), .kind = J_U32, .min = 1, .max = LIMIT_DISK_GIB, .required = true },
        { F(volume_gib), .kind = J_U32, .max = LIMIT_DISK_GIB },
        { F(volume_path), .kind = J_STR, .max = LIMIT_MOUNT_PATH_BYTES },
        { F(gpu_count), .kind = J_U32, .max = LIMIT_GPUS },
        { F(gpus), .kind = J_STRV, .max = LIMIT_GPUS },
        { F(ports), .kind = J_STR, .max = 2048 },
        { F(readiness_path), .kind = J_STR, .max = LIMIT_READY_PATH_BYTES },
        { F(edge_key), .kind = J_STR, .max = PLAN_EDGE_KEY_LEN },
        { F(security_profile), .kind = J_STR, .max = 16 },
        { F(egress), .kind = J_STRV, .max = LIMIT_EGRESS },
        { F(allowed_ips), .kind = J_STRV, .max = LIMIT_ALLOWED_IPS },
        { F(start_ssh), .kind = J_BOOL },
        { F(ssh_host_key), .kind = J_STR, .max = SSH_HOST_KEY_MAX },
        { F(restart_max_s), .kind = J_U32, .max = 86400 },
};
#undef F

bool plan_cluster_id_ok(const char *id)
{
        size_t n = id ? strlen(id) : 0;

        return n >= 1 && n <= LIMIT_CLUSTER_ID_LEN && id[0] >= 'a' && id[0] <= 'z' &&
               strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789") == n;
}

/* What stands behind the type: "private", or "public" as without. */
static int parse_access(const char *s, struct plan_port *p, struct err *e)
{
        p->is_private = str_eq(s, "private");
        if (s && !p->is_private && !str_eq(s, "public"))
                return err_set(e, -EINVAL,
                               "ports: '%u/%s:%s' must end in :public, :private or neither",
                               p->private_port, port_type_names[p->type], s);
        if (p->is_private && p->type != PORT_HTTP)
                return err_set(
                        e, -EINVAL,
                        "ports: %u/%s cannot be private, because nothing but HTTP can be asked for a key; declare it as %u/http:private, or leave :private out",
                        p->private_port, port_type_names[p->type], p->private_port);
        return 0;
}

/* One "8888/http", or "8888/http:private". */
static int parse_port(char *s, struct plan_port *ret, struct err *e)
{
        char *slash = strchr(s, '/'), *colon = slash ? strchr(slash, ':') : NULL;
        const char *type = slash ? slash + 1 : "tcp";
        uint64_t n;

        if (slash)
                *slash = '\0';
        if (colon)
                *colon = '\0';
        if (str_u64(s, 1, 65535, &n) < 0)
                return err_set(e, -EINVAL, "ports: '%s' is not a port number from 1 to 65535", s);
        ret->private_port = (uint32_t) n;
        for (int t = PORT_HTTP; t < PORT_TYPE_COUNT; t++) {
                if (str_eq(type, port_type_names[t])) {
                        ret->type = (enum port_type) t;
                        return parse_access(colon ? colon + 1 : NULL, ret, e);
                }
        }
        return err_set(e, -EINVAL, "ports: '%s/%s' must end in /http or /tcp", s, type);
}

int plan_ports(const char *s, struct plan_port *ret, size_t max, struct err *e)
{
        AUTO(free) char *copy = strdup(s ? s : "");
        char *save = NULL;
        size_t n = 0, http = 0;

        if (!copy)
                return err_set(e, -ENOMEM, "out of memory");
        for (char *p = strtok_r(copy, ", ", &save); p; p = strtok_r(NULL, ", ", &save)) {
                struct plan_port port;
                int r = parse_port(p, &port, e);

                if (r < 0)
                        return r;
                for (size_t i = 0; i < n; i++)
                        if (ret[i].private_port == port.private_port && ret[i].type == port.type)
                                return err_set(e, -EINVAL, "ports: %u/%s is listed twice",
                                               port.private_port, port_type_names[port.type]);
                http += port.type == PORT_HTTP;
                if (http > LIMIT_HTTP_PORTS)
                        return err_set(e, -E2BIG, "ports: at most %u http ports are allowed",
                                       LIMIT_HTTP_PORTS);
                if (n >= max)
                        return err_set(e, -E2BIG, "ports: at most %zu ports are allowed", max);
                ret[n++] = port;
        }
        return (int) n;
}

bool plan_has_private(const char *ports)
{
        struct plan_port list[LIMIT_PORTS];
        int n = plan_ports(ports, list, NELEM(list), NULL);

        for (int i = 0; i < n; i++)
                if (list[i].is_private)
                        return true;
        return false;
}

/* First components that belong to the system; below some of them people do keep data. */
static const struct {
        const char *name;
        bool below_ok;
} taken[] = {
        { "proc", false }, { "sys", false },  { "dev", false }, { "etc", false },
        { "bin", false },  { "sbin", false }, { "lib", false }, { "lib64", false },
        { "boot", false }, { "run", true },   { "usr", true },  { "tmp", true },
};

static int mount_component(const char *field, const char *path, const char *p, size_t n,
                           struct err *e)
{
        if (n == 0)
                return err_set(e, -EINVAL, "%s: '%s' holds an empty name", field, path);
        if (n > 255)
                return err_set(e, -EINVAL, "%s: a name in it is over 255 bytes", field);
        if ((n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
                return err_set(e, -EINVAL, "%s: '%s' must not hold '.' or '..'", field, path);
        return 0;
}

int plan_mount_path(const char *field, const char *path, struct err *e)
{
        const char *p = path;
        size_t depth = 0, sys = NELEM(taken);

        if (path && strlen(path) > LIMIT_MOUNT_PATH_BYTES)
                return err_set(e, -E2BIG, "%s: %zu bytes, at most %u are allowed", field,
                               strlen(path), LIMIT_MOUNT_PATH_BYTES);
        if (str_empty(path) || path[0] != '/')
                return err_set(e, -EINVAL, "%s: '%s' must be an absolute path such as /workspace",
                               field, path ? path : "");
        while (*p && !(p[0] == '/' && p[1] == '\0')) { /* one slash at the end is fine */
                size_t n = strcspn(++p, "/");
                int r = mount_component(field, path, p, n, e);

                if (r < 0)
                        return r;
                for (size_t i = 0; depth == 0 && i < NELEM(taken); i++)
                        if (strlen(taken[i].name) == n && strncmp(p, taken[i].name, n) == 0)
                                sys = i;
                p += n;
                depth++;
        }
        if (depth == 0)
                return err_set(e, -EINVAL, "%s: the root directory itself cannot be a mount point",
                               field);
        if (sys < NELEM(taken) && (depth == 1 || !taken[sys].below_ok))
                return err_set(
                        e, -EINVAL,
                        "%s: /%s belongs to the system; choose another place such as /workspace",
                        field, taken[sys].name);
        return 0;
}

static int check_env(char *const *env, struct err *e)
{
        for (; env && *env; env++) {
                const char *eq = strchr(*env, '=');

                if (!eq || eq == *env)
                        return err_set(e, -EINVAL, "env: '%.64s' is not KEY=VALUE",
                                       eq ? "" : *env); /* a value may be a secret */
                if (strlen(*env) >= LIMIT_ENV_BYTES)
                        return err_set(e, -E2BIG, "env: %.*s is over %u bytes",
                                       (int) (eq - *env > 64 ? 64 : eq - *env), *env,
                                       LIMIT_ENV_BYTES);
        }
        return 0;
}

static int check_args(const char *field, char *const *v, struct err *e)
{
        for (; v && *v; v++)
                if (strlen(*v) > LIMIT_ARGS_BYTES)
                        return err_set(e, -E2BIG, "%s: an argument is over %u bytes", field,
                                       LIMIT_ARGS_BYTES);
        return 0;
}

static int check_cpus(const struct plan *p, struct err *e)
{
        uint64_t n;

        for (char **c = p->cpus; c && *c; c++)
                if (str_u64(*c, 0, 65535, &n) < 0)
                        return err_set(e, -EINVAL, "cpus: '%s' is not a CPU number", *c);
        if (p->cpus && *p->cpus && strv_len(p->cpus) != p->vcpu)
                return err_set(e, -EINVAL, "cpus: %zu are named, vcpu is %u", strv_len(p->cpus),
                               p->vcpu);
        return 0;
}

/* "0", "0-1", "0-1,3": numbers and ranges that grow. */
static int check_mems(const char *s, struct err *e)
{
        AUTO(free) char *copy = str_dup(s);
        char *save = NULL;
        uint64_t next = 0; /* the lowest that may follow */
        bool good = !s;

        if (s && !copy)
                return err_set(e, -ENOMEM, "out of memory");
        for (char *p = s ? strtok_r(copy, ",", &save) : NULL; p; p = strtok_r(NULL, ",", &save)) {
                char *dash = strchr(p, '-');
                uint64_t first, last;

                if (dash)
                        *dash++ = '\0';
                good = str_u64(p, next, NUMA_NODE_MAX, &first) >= 0 &&
                       (!dash || str_u64(dash, first, NUMA_NODE_MAX, &last) >= 0);
                if (!good)
                        break;
                next = (dash ? last : first) + 1;
        }
        return good ? 0
                    : err_set(e, -EINVAL,
                              "mems: '%.40s' is no list of NUMA nodes up to %u such as 0-1,3", s,
                              NUMA_NODE_MAX);
}

static int check_gpus(const struct plan *p, struct err *e)
{
        if (strv_len(p->gpus) != p->gpu_count)
                return err_set(e, -EINVAL, "gpus: %zu are named, gpuCount is %u", strv_len(p->gpus),
                               p->gpu_count);
        for (char **g = p->gpus; g && *g; g++) {
                if (!gpu_uuid_ok(*g))
                        return err_set(e, -EINVAL, "gpus: '%.64s' is no GPU's UUID", *g);
                for (char **o = p->gpus; o < g; o++)
                        if (str_eq(*o, *g))
                                return err_set(e, -EINVAL, "gpus: %s is named twice", *g);
        }
        return 0;
}

static int check_host_key(const char *s, struct err *e)
{
        uint8_t key[SSH_HOST_KEY_MAX];

        return s && sshkey_unbase64(s, strlen(s), key, sizeof key) < 0
                       ? err_set(e, -EINVAL, "ssh_host_key: is not base64") /* not quoted */
                       : 0;
}

static int check_edge_key(const char *s, struct err *e)
{
        uint8_t key[PLAN_EDGE_KEY_LEN];

        return s && (strlen(s) != PLAN_EDGE_KEY_LEN ||
                     sshkey_unbase64(s, PLAN_EDGE_KEY_LEN, key, sizeof key) != 32)
                       ? err_set(e, -EINVAL, "edge_key: is not base64 of 32 bytes") /* not quoted */
                       : 0;
}

int plan_check(const struct plan *p, struct err *e)
{
        struct plan_port ports[LIMIT_PORTS];
        enum security_profile profile;
        struct egress egress;
        struct allow allow;
        struct ready_path ready;
        int r;

        if (!plan_cluster_id_ok(p->cluster))
                return err_set(e, -EINVAL,
                               "cluster: an id is 1 to %u of a-z and 0-9, a letter first",
                               LIMIT_CLUSTER_ID_LEN);
        r = security_profile_parse("securityProfile", p->security_profile, &profile, e);
        if (r >= 0)
                r = egress_parse("egressAllow", p->egress, &egress, e);
        if (r >= 0)
                r = allow_parse("allowedIps", p->allowed_ips, &allow, e);
        if (r >= 0)
                r = check_host_key(p->ssh_host_key, e);
        if (r >= 0)
                r = check_edge_key(p->edge_key, e);
        if (r >= 0)
                r = check_env(p->env, e);
        if (r >= 0)
                r = check_args("entrypoint", p->entrypoint, e);
        if (r >= 0)
                r = check_args("command", p->command, e);
        if (r >= 0)
                r = check_cpus(p, e);
        if (r >= 0)
                r = check_mems(p->mems, e);
        if (r >= 0)
                r = plan_ports(p->ports, ports, NELEM(ports), e);
        if (r >= 0)
                r = ready_path_parse(p->readiness_path, p->ports, &ready, e);
        if (r >= 0 && p->volume_gib > 0)
                r = plan_mount_path("volumeMountPath", p->volume_path, e);
        if (r >= 0)
                r = check_gpus(p, e);
        return r < 0 ? r : 0;
}

int plan_decode(const json_t *j, struct plan *ret, struct err *e)
{
        AUTO(plan_done) struct plan p = { 0 };
        int r = jsonx_decode(j, fields, NELEM(fields), &p, e);

        if (r >= 0)
                r = plan_check(&p, e);
        if (r < 0)
                return err_wrap(e, r, "plan");
        *ret = p;
        p = (struct plan){ 0 };
        return 0;
}

enum security_profile plan_profile(const struct plan *p)
{
        enum security_profile profile = SECURITY_NONE; /* which nothing is started with */

        (void) security_profile_parse("securityProfile", p->security_profile, &profile, NULL);
        return profile;
}

json_t *plan_encode(const struct plan *p)
{
        return jsonx_encode(fields, NELEM(fields), p);
}

void plan_done(struct plan *p)
{
        jsonx_done(fields, NELEM(fields), p);
}
