/* deploy.c - a new cluster: template and request become a record, a reservation and a plan.
 * tensorone-api, loop thread.  Nothing is changed unless everything fits. */
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/proc.h"
#include "base/str.h"
#include "control/plane/args.h"
#include "control/plane/plane_priv.h"
#include "model/limits.h"
#include "model/plan.h"
#include "model/ready.h"
#include "model/sshdir.h"

#define DEFAULT_CONTAINER_DISK_GIB 20U
#define DEFAULT_VOLUME_PATH        "/workspace"
#define CLUSTER_ID_CHARS           13U

void deploy_done(struct deploy *d)
{
        free(d->name);
        free(d->image);
        free(d->template_id);
        free(d->docker_args);
        free(d->ports);
        free(d->volume_path);
        d->env = strv_free(d->env);
        free(d->gpu_type);
        free(d->gpu_type_too);
        free(d->registry_auth);
        free(d->network_volume);
        free(d->volume_key);
        free(d->data_center);
        free(d->country);
        free(d->stop_after);
        free(d->terminate_after);
        free(d->instance_id);
        free(d->security_profile);
        free(d->readiness_path);
        d->egress = strv_free(d->egress);
        d->allowed_ips = strv_free(d->allowed_ips);
        free(d->cuda);
        free(d->min_cuda);
        d->cudas = strv_free(d->cudas);
        d->gpu_types = strv_free(d->gpu_types);
        d->instance_ids = strv_free(d->instance_ids);
        *d = (struct deploy){ 0 };
}

/* Set *@at from @from unless it is set. */
static int fill(char **at, const char *from)
{
        return str_empty(*at) ? text_set(at, from) : 0;
}

/* The template's value for everything that the request leaves open. */
static int apply_template(struct plane *p, const struct caller *who, struct deploy *d,
                          struct err *e)
{
        const struct template *t;
        char **env = NULL;
        int r = 0;

        if (str_empty(d->template_id))
                return 0;
        t = plane_template(p, who, d->template_id);
        if (!t)
                return err_set(e, -ENOENT, "templateId: template %.64s not found", d->template_id);
        r = fill(&d->image, t->image);
        if (r >= 0)
                r = fill(&d->docker_args, t->docker_args);
        if (r >= 0)
                r = fill(&d->ports, t->ports);
        if (r >= 0)
                r = fill(&d->volume_path, t->volume_path);
        if (r >= 0)
                r = fill(&d->security_profile, t->security_profile);
        if (r >= 0)
                r = fill(&d->readiness_path, t->readiness_path);
        if (r >= 0 && !d->egress && t->egress && !(d->egress = strv_dup(t->egress)))
                r = -ENOMEM;
        if (r >= 0 && str_eq(t->account, who->account)) /* a public one's are its owner's alone */
                r = fill(&d->registry_auth, t->registry_auth);
        if (r >= 0)
                r = env_merge(t->env, d->env, &env);
        if (r < 0)
                return err_set(e, r, "out of memory");
        (void) strv_free(d->env);
        d->env = env;
        if (!d->container_disk_gib)
                d->container_disk_gib = t->container_disk_gib;
        if (!d->volume_gib)
                d->volume_gib = t->volume_gib;
        if (!d->idle.said)
                d->idle.timeout_s = t->idle_timeout_s;
        if (d->idle.action == IDLE_ACTION_NONE)
                d->idle.action = t->idle_action;
        d->start_ssh |= t->start_ssh;
        return 0;
}

/* "<flavor>-<vcpu>-<memory in GB>", the way CPU instances are named. */
static int apply_instance(struct deploy *d, struct err *e)
{
        const char *id = d->instance_id              ? d->instance_id
                         : strv_len(d->instance_ids) ? d->instance_ids[0]
                                                     : NULL;
        AUTO(free) char *copy = str_dup(id);
        char *mem = copy ? strrchr(copy, '-') : NULL, *cpu;
        uint64_t n_cpu, n_mem;

        if (str_empty(id))
                return 0;
        if (mem)
                *mem++ = '\0';
        cpu = mem ? strrchr(copy, '-') : NULL;
        if (!cpu || str_u64(cpu + 1, 1, LIMIT_VCPU, &n_cpu) < 0 ||
            str_u64(mem, 1, LIMIT_MEMORY_MIB / 1024, &n_mem) < 0)
                return err_set(
                        e, -EINVAL,
                        "instanceId: '%.64s' must be <flavor>-<vcpu>-<memory in GB>, such as cpu3c-2-4",
                        id);
        d->min_vcpu = (uint32_t) n_cpu;
        d->min_memory_gib = (uint32_t) n_mem;
        d->no_gpu = true;
        return 0;
}

/* What this engine does not have is refused by name rather than dropped. */
static int check_unsupported(const struct deploy *d, struct err *e)
{
        if (!str_empty(d->network_volume))
                return err_set(
                        e, -EOPNOTSUPP,
                        "networkVolumeId: network volumes are not available; use volumeInGb");
        if (!str_empty(d->volume_key))
                return err_set(e, -EOPNOTSUPP, "volumeKey: encrypted volumes are not available");
        if (!str_empty(d->data_center) && !str_eq(d->data_center, PLANE_DATA_CENTER))
                return err_set(e, -ENOSPC, "%s dataCenterId: %.32s wanted, this host is %s",
                               NO_INSTANCES, d->data_center, PLANE_DATA_CENTER);
        if (!str_empty(d->country))
                return err_set(e, -ENOSPC,
                               "%s countryCode: %.8s wanted, this host names no country",
                               NO_INSTANCES, d->country);
        return 0;
}

/* Only who has GPUs has to do with their driver. */
static int check_cuda(const struct plane *p, const struct deploy *d, struct err *e)
{
        const struct cuda_wish w = { { d->min_cuda, d->cuda }, d->cudas };
        struct err why = { 0 };
        int r = d->no_gpu || !d->gpu_count || !p->have_inv
                        ? 0
                        : cuda_check(&w, plane_gpus(p)->cuda_version, &why);

        if (r == -ENOSPC)
                return err_set(e, r, "%s %s", NO_INSTANCES, why.msg);
        return r < 0 ? err_copy(e, &why) : 0;
}

static int parse_time(const char *field, const char *text, uint64_t now, uint64_t *ret,
                      struct err *e)
{
        if (str_empty(text))
                return 0;
        if (clock_parse(text, ret) < 0)
                return err_set(e, -EINVAL,
                               "%s: '%.40s' must be a date and time such as 2030-01-31T12:00:00Z",
                               field, text);
        if (*ret <= now)
                return err_set(e, -EINVAL, "%s: %.40s lies in the past", field, text);
        return 0;
}

/* The name without its tag or digest, as the older command line sends it. */
static char *name_of_image(const char *image)
{
        const char *slash = strrchr(image, '/'), *tail = slash ? slash : image;

        return strndup(image, (size_t) (tail - image) + strcspn(tail, ":@"));
}

/* Unknown fields are passed over, but this one is too near to be meant as nothing: any GPU would do then. */
static int one_gpu_type(struct deploy *d, struct err *e)
{
        if (str_empty(d->gpu_type_too) || str_eq(d->gpu_type_too, d->gpu_type))
                return 0;
        if (!str_empty(d->gpu_type))
                return err_set(
                        e, -EINVAL,
                        "gpuType: '%.64s' and gpuTypeId '%.64s' are two names of one field; give one",
                        d->gpu_type_too, d->gpu_type);
        free(d->gpu_type);
        d->gpu_type = TAKE(d->gpu_type_too);
        return 0;
}

/* gpuTypeId, then gpuTypeIdList, as one list with commas; NULL: none.  -ENOMEM. */
static int join_wishes(const struct deploy *d, char **ret)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };

        if (!str_empty(d->gpu_type))
                strbuf_str(&b, d->gpu_type);
        for (char **t = d->gpu_types; t && *t; t++)
                strbuf_fmt(&b, "%s%s", b.len ? "," : "", *t);
        if (!b.len && !b.failed)
                return 0;
        *ret = strbuf_take(&b);
        return *ret ? 0 : -ENOMEM;
}

/* The SSH server's port is one of the cluster's, as if it had been asked for. */
static int add_ssh_port(char **ports)
{
        struct plan_port p[LIMIT_PORTS];
        int n = plan_ports(*ports, p, NELEM(p), NULL);
        char *more;

        for (int i = 0; i < n; i++)
                if (p[i].private_port == SSH_PORT && p[i].type == PORT_TCP)
                        return 0;
        if (n < 0) /* which check_record() will say */
                return 0;
        more = str_fmt("%s%s%u/tcp", n ? *ports : "", n ? "," : "", SSH_PORT);
        if (!more)
                return -ENOMEM;
        free(*ports);
        *ports = more;
        return 0;
}

/* Fill the record from the completed request. */
static int fill_record(struct cluster *c, struct deploy *d, const struct caller *who, uint64_t now,
                       struct err *e)
{
        char id[CLUSTER_ID_CHARS + 1];
        int r = rand_id(id, CLUSTER_ID_CHARS);

        if (r < 0)
                return err_errno(e, r, "random id");
        c->id = strdup(id);
        c->account = strdup(who->account);
        c->name = str_empty(d->name) ? name_of_image(d->image) : TAKE(d->name);
        c->image = TAKE(d->image);
        c->template_id = TAKE(d->template_id);
        c->docker_args = str_empty(d->docker_args) ? NULL : TAKE(d->docker_args);
        c->env = d->env ? TAKE(d->env) : calloc(1, sizeof(char *));
        c->start_ssh = d->start_ssh;
        c->ports = TAKE(d->ports);
        c->registry_auth = str_empty(d->registry_auth) ? NULL : TAKE(d->registry_auth);
        c->egress = TAKE(d->egress);
        c->allowed_ips = TAKE(d->allowed_ips);
        c->security_profile = str_empty(d->security_profile) ? NULL : TAKE(d->security_profile);
        c->readiness_path = str_empty(d->readiness_path) || str_eq(d->readiness_path, READY_NONE)
                                    ? NULL
                                    : TAKE(d->readiness_path);
        c->volume_path =
                str_empty(d->volume_path) ? strdup(DEFAULT_VOLUME_PATH) : TAKE(d->volume_path);
        c->gpu_count = d->no_gpu ? 0 : d->gpu_count;
        c->pod_type = strdup(d->interruptible ? "INTERRUPTABLE" : "RESERVED");
        r = c->gpu_count ? join_wishes(d, &c->gpu_type) : 0;
        if (r >= 0 && c->start_ssh &&
            !str_eq(c->security_profile, security_profile_names[SECURITY_STRICT]))
                r = add_ssh_port(&c->ports);
        if (r < 0 || !c->id || !c->account || !c->name || !c->env || !c->volume_path ||
            !c->pod_type)
                return err_set(e, -ENOMEM, "out of memory");
        c->container_disk_gib =
                d->container_disk_gib ? d->container_disk_gib : DEFAULT_CONTAINER_DISK_GIB;
        c->volume_gib = d->volume_gib;
        c->idle_timeout_s = d->idle.timeout_s;
        c->idle_action = d->idle.action ? d->idle.action : IDLE_STOP;
        c->vcpu = d->min_vcpu ? d->min_vcpu : 1;
        c->memory_mib = 1024ULL * (d->min_memory_gib ? d->min_memory_gib : 1);
        c->generation = c->boot = 1;
        c->created_us = now;
        c->desired = DESIRED_RUNNING;
        c->state = CS_ACCEPTED;
        return 0;
}

static int check_record(const struct cluster *c, struct err *e)
{
        struct plan_port ports[LIMIT_PORTS];
        struct ready_path ready;
        int r;

        r = image_check(c->image, e);
        if (r < 0)
                return r;
        if (strlen(c->name) > LIMIT_NAME_LEN)
                return err_set(e, -E2BIG, "name: %zu bytes, at most %u are allowed",
                               strlen(c->name), LIMIT_NAME_LEN);
        r = plan_mount_path("volumeMountPath", c->volume_path, e);
        if (r >= 0)
                r = plan_ports(c->ports, ports, NELEM(ports), e);
        return r < 0 ? r : ready_path_parse(c->readiness_path, c->ports, &ready, e);
}

/* Our sentence that clients look for, then which constraint failed. */
static int no_room(enum place_limit limit, struct err *e)
{
        struct err why = e ? *e : (struct err){ 0 };

        return err_set(e, -ENOSPC, "%s %s", limit == PLACE_DISK ? NO_DISK : NO_INSTANCES, why.msg);
}

/* Rows, key and plan for the finished record. */
static int book(struct plane *p, struct cluster *c, struct store_txn *t, struct err *e)
{
        struct ledger_want w = { p->node_id,    c->id,         c->generation,
                                 c->vcpu,       c->memory_mib, c->container_disk_gib,
                                 c->volume_gib, c->gpu_count,  c->gpu_type,
                                 false };
        struct ledger_host h = plane_ledger_host(p);
        AUTO(strv_free) char **gpus = NULL;
        enum place_limit limit;
        int r;

        if (!p->have_inv)
                return err_set(e, -ENOSPC, "%s No host is connected yet.", NO_INSTANCES);
        if (p->inv.facts.disk_full)
                return err_set(e, -ENOSPC, "%s %s", NO_DISK, p->inv.facts.disk_full);
        if (map_len(p->clusters) >= LIMIT_SLOTS)
                return err_set(e, -ENOSPC, "%s %zu clusters exist, a host has room for %u.",
                               NO_INSTANCES, map_len(p->clusters), LIMIT_SLOTS);
        limit = ledger_take(p->ledger, &h, &w, t, &c->cpus, &gpus, e);
        if (limit != PLACE_OK && e && e->code == -ENOMEM) {
                ledger_release(p->ledger, c->id, true, t); /* what was made of it */
                return -ENOMEM;
        }
        if (limit != PLACE_OK)
                return no_room(limit, e);
        r = plane_set_gpu_type(p, c, gpus) < 0 ? err_set(e, -ENOMEM, "out of memory")
                                               : plan_make(p, c, gpus, &c->plan, e);
        if (r >= 0)
                r = accounts_add_cluster_key(p->accounts, t, c->account, c->id, c->created_us, e);
        if (r < 0) { /* nothing of it has been submitted: take the rows back */
                ledger_release(p->ledger, c->id, true, t);
                accounts_del_cluster_key(p->accounts, t, c->id);
        }
        return r;
}

int plane_deploy(struct plane *p, const struct caller *who, struct deploy *d,
                 const struct cluster **ret, struct err *e)
{
        AUTO(cluster_free) struct cluster *c = calloc(1, sizeof *c);
        AUTO(store_txn_free) struct store_txn *t = store_txn_new();
        uint64_t now = clock_wall_us();
        struct cluster *made;
        int r = plane_writable(p, e);

        if (r < 0)
                return r;
        if (!c || !t)
                return err_set(e, -ENOMEM, "out of memory");
        r = env_check(d->env, e);
        if (r >= 0)
                r = one_gpu_type(d, e);
        if (r >= 0)
                r = apply_template(p, who, d, e);
        if (r >= 0)
                r = apply_instance(d, e);
        if (r >= 0)
                r = check_unsupported(d, e);
        if (r >= 0)
                r = check_cuda(p, d, e);
        if (r >= 0)
                r = registry_auth_check(p, who, d->registry_auth, e);
        if (r >= 0)
                r = secrets_check(p, who->account, d->env, e);
        if (r >= 0 && str_empty(d->image))
                r = err_set(e, -EINVAL, "imageName: is missing; give an image or a templateId");
        if (r >= 0)
                r = parse_time("stopAfter", d->stop_after, now, &c->stop_after_us, e);
        if (r >= 0)
                r = parse_time("terminateAfter", d->terminate_after, now, &c->terminate_after_us,
                               e);
        if (r >= 0)
                r = fill_record(c, d, who, now, e);
        if (r >= 0)
                r = check_record(c, e);
        if (r >= 0 && status_change_set(c, "Rented", "User", now) < 0)
                r = err_set(e, -ENOMEM, "out of memory");
        if (r >= 0)
                r = book(p, c, t, e);
        if (r < 0)
                return r;
        made = c;
        if (map_set(p->clusters, c->id, c) < 0) {
                ledger_release(p->ledger, c->id, true, t);
                accounts_del_cluster_key(p->accounts, t, c->id);
                return err_set(e, -ENOMEM, "out of memory");
        }
        c = NULL;
        plane_commit(p, TAKE(t), made, "deployed");
        plane_set_alarm(p);
        *ret = made;
        return 0;
}
