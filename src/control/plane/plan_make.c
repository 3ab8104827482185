/* plan_make.c - from a record to the plan that the engine builds from.  tensorone-api; pure but
 * for reading the account's SSH keys. */
#include <errno.h>
#include <stdio.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "control/plane/args.h"
#include "control/plane/plane_priv.h"
#include "model/plan.h"

void cluster_host_id(const struct cluster *c, char ret[32])
{
        uint32_t h = 2166136261U;

        for (const char *s = c->id; *s; s++)
                h = (h ^ (unsigned char) *s) * 16777619U;
        (void) snprintf(ret, 32, "%.14s-%08x", c->id, h);
}

/* Set PREFIX_A and PREFIX_B variables to the same value. */
static int set_both(char ***env, const char *runpod, const char *tensorone, const char *value)
{
        int r = strv_env_set(env, runpod, value);

        return r < 0 ? r : strv_env_set(env, tensorone, value);
}

static int set_number(char ***env, const char *runpod, const char *tensorone, uint64_t n)
{
        char text[24];

        (void) snprintf(text, sizeof text, "%llu", (unsigned long long) n);
        return set_both(env, runpod, tensorone, text);
}

/* The user's variables, then ours on top; only PUBLIC_KEY yields to the user's. */
static int make_env(const struct plane *p, const struct cluster *c, char ***ret)
{
        const struct account *a = accounts_get(p->accounts, c->account);
        AUTO(strv_free) char **env = NULL;
        char host[32];
        int r = env_merge(c->env, NULL, &env);

        cluster_host_id(c, host);
        if (r >= 0 && a && !str_empty(a->pub_key) && !strv_env_get(env, "PUBLIC_KEY"))
                r = strv_env_set(&env, "PUBLIC_KEY", a->pub_key);
        if (r >= 0)
                r = set_both(&env, "RUNPOD_POD_ID", "TENSORONE_CLUSTER_ID", c->id);
        if (r >= 0)
                r = set_both(&env, "RUNPOD_POD_HOSTNAME", "TENSORONE_CLUSTER_HOSTNAME", host);
        if (r >= 0)
                r = set_number(&env, "RUNPOD_GPU_COUNT", "TENSORONE_GPU_COUNT", c->gpu_count);
        if (r >= 0)
                r = set_number(&env, "RUNPOD_CPU_COUNT", "TENSORONE_CPU_COUNT", c->vcpu);
        if (r >= 0)
                r = set_number(&env, "RUNPOD_MEM_GB", "TENSORONE_MEM_GB", c->memory_mib / 1024);
        if (r >= 0)
                r = set_both(&env, "RUNPOD_DC_ID", "TENSORONE_DC_ID", PLANE_DATA_CENTER);
        if (r >= 0) /* the older command line takes the GraphQL address, which is also "/" */
                r = set_both(&env, "RUNPOD_API_URL", "TENSORONE_API_URL", "http://api.internal");
        if (r >= 0)
                *ret = TAKE(env);
        return r;
}

/* "0-1,3"; no text for the empty set. */
static int mems_text(uint64_t set, char **ret)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };

        for (unsigned i = 0, last; i < 64; i = last + 1) {
                last = i;
                if (!(set >> i & 1))
                        continue;
                while (last + 1 < 64 && set >> (last + 1) & 1)
                        last++;
                strbuf_fmt(&b, last > i ? "%s%u-%u" : "%s%u", b.len ? "," : "", i, last);
        }
        if (!set)
                return 0;
        *ret = strbuf_take(&b);
        return *ret ? 0 : -ENOMEM;
}

int plan_make(const struct plane *p, const struct cluster *c, char **gpus, json_t **ret,
              struct err *e)
{
        AUTO(strv_free) char **entrypoint = NULL, **command = NULL, **env = NULL;
        AUTO(free) char *mems = NULL;
        struct plan plan = { 0 }; /* borrows everything */
        int r = docker_args_parse(c->docker_args, &entrypoint, &command, &plan.command_set, e);

        if (r < 0)
                return r;
        if (make_env(p, c, &env) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        plan.cluster = c->id;
        plan.generation = c->generation;
        plan.boot = c->boot;
        plan.account = c->account;
        plan.name = c->name;
        plan.image = c->image;
        plan.registry_auth = c->registry_auth;
        plan.readiness_path = c->readiness_path;
        plan.security_profile = c->security_profile;
        plan.egress = c->egress;
        plan.allowed_ips = c->allowed_ips;
        plan.entrypoint = entrypoint;
        plan.command = command;
        plan.env = env;
        if (mems_text(ledger_mems(p->ledger, p->node_id, c->id), &mems) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        plan.cpus = c->cpus;
        plan.mems = mems;
        plan.vcpu = c->vcpu;
        plan.memory_mib = (uint32_t) c->memory_mib;
        plan.container_disk_gib = c->container_disk_gib;
        plan.volume_gib = c->volume_gib;
        plan.volume_path = c->volume_path;
        plan.gpu_count = c->gpu_count;
        plan.gpus = gpus;
        plan.ports = c->ports;
        plan.start_ssh = c->start_ssh;
        r = plan_check(&plan, e);
        if (r < 0)
                return r;
        *ret = plan_encode(&plan);
        return *ret ? 0 : err_set(e, -ENOMEM, "out of memory");
}

json_t *plan_with_key(const struct plane *p, const struct cluster *c)
{
        AUTO(str_wipe_free) char *key = accounts_cluster_key(p->accounts, c->id, c->created_us);
        AUTO(json_put) json_t *plan = json_copy(c->plan); /* one level is ours to change */
        AUTO(json_put) json_t *env = json_copy(json_object_get(c->plan, "env"));

        if (!key || !plan || !env)
                return NULL;
        if (json_array_append_new(env, json_sprintf("RUNPOD_API_KEY=%s", key)) < 0 ||
            json_array_append_new(env, json_sprintf("TENSORONE_API_KEY=%s", key)) < 0 ||
            json_object_set(plan, "env", env) < 0)
                return NULL;
        if (c->start_ssh) {
                AUTO(str_wipe_free) char *host_key = plane_host_key_private(p, c);

                if (!host_key ||
                    json_object_set_new(plan, "ssh_host_key", json_string(host_key)) < 0)
                        return NULL;
        }
        if (plan_has_private(c->ports)) {
                AUTO(str_wipe_free) char *edge_key = plane_edge_key(p, c);

                if (!edge_key || json_object_set_new(plan, "edge_key", json_string(edge_key)) < 0)
                        return NULL;
        }
        return TAKE(plan);
}
