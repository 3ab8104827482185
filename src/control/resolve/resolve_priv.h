/* resolve_priv.h - the functions behind the rows of tables.c. */
#pragma once
#include "control/resolve/resolve.h"

static inline const struct resolve_ctx *ctx_of(const struct gql_call *c)
{
        return gql_context(c);
}

/* [{key, value}] -> KEY=VALUE strings; *@ret is NULL when @list is absent. */
int env_from_args(const json_t *list, char ***ret, struct err *e);

#define RESOLVER(f) int f(struct gql_call *c, const void *obj, struct err *e)

/* tables.c */
RESOLVER(r_empty_list);

/* clusters.c: obj is a struct cluster, for ports a struct port_view */
struct port_view {
        const char *ip, *type;
        uint32_t port;
};
struct gpu_view {
        const char *id, *cluster;
};
RESOLVER(q_cluster);
RESOLVER(r_status);
RESOLVER(r_phase);
RESOLVER(r_progress);
RESOLVER(r_progress_bytes);
RESOLVER(r_progress_total);
RESOLVER(r_progress_rate);
RESOLVER(r_security);
RESOLVER(r_gpus);
RESOLVER(r_memory_gib);
RESOLVER(r_machine_id);
RESOLVER(r_runtime);
RESOLVER(r_uptime);
RESOLVER(r_ports);
RESOLVER(r_cpu_pct);
RESOLVER(r_memory_pct);
RESOLVER(r_port_public);
RESOLVER(r_host_id);
RESOLVER(r_location);
RESOLVER(r_true);
RESOLVER(r_false);
RESOLVER(r_zero);
RESOLVER(r_one);
RESOLVER(r_hundred);
RESOLVER(r_gpu_name);
RESOLVER(r_host_cpus);
RESOLVER(r_host_cpus_taken);
RESOLVER(r_host_memory);
RESOLVER(r_host_memory_taken);

/* catalog.c */
RESOLVER(q_gpu_types);
RESOLVER(q_cpu_flavors);
RESOLVER(q_cpu_types);
RESOLVER(q_data_centers);
RESOLVER(q_gpu_pools);
RESOLVER(q_machines);
RESOLVER(r_flavor_id);
RESOLVER(r_flavor_max);
RESOLVER(r_flavor_specifics);
RESOLVER(r_stock);
RESOLVER(r_data_center_id);
RESOLVER(r_data_center_name);
RESOLVER(r_machine_name);
RESOLVER(r_machine_gpus);

/* templates.c: obj is a struct template, for variables the string KEY=VALUE */
RESOLVER(q_templates);
RESOLVER(q_template);
RESOLVER(q_my_templates);
RESOLVER(m_save_template);
RESOLVER(m_delete_template);
RESOLVER(r_env_list);
RESOLVER(r_env_key);
RESOLVER(r_env_value);

/* user.c: obj is a struct account */
RESOLVER(q_myself);
RESOLVER(m_user_settings);
RESOLVER(r_my_clusters);
RESOLVER(r_my_keys); /* objects: struct key_view */

/* registry.c: obj is a struct registry_auth */
RESOLVER(r_my_registry_auths);
RESOLVER(m_save_registry_auth);
RESOLVER(m_update_registry_auth);
RESOLVER(m_delete_registry_auth);
RESOLVER(r_template_registry_auth); /* of a struct template */

/* mutations.c */
RESOLVER(m_deploy);
RESOLVER(m_rent);
RESOLVER(m_deploy_cpu);
RESOLVER(m_resume);
RESOLVER(m_restart);
RESOLVER(m_stop);
RESOLVER(m_terminate);
RESOLVER(m_edit);
