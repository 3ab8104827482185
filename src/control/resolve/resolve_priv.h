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

/* audit.c: gql_ops */
void audit_mutate(struct gql_call *c);
void audit_mutated(struct gql_call *c, int r, const struct err *e);

/* tables.c */
RESOLVER(r_empty_list);

/* clusters.c: obj is a struct cluster, for ports a struct port_view */
struct port_view {
        const char *ip, *type;
        uint32_t private, public;
        bool is_public;
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
RESOLVER(r_security_profile);
RESOLVER(r_ssh_host_key);
RESOLVER(r_template_security_profile);
RESOLVER(r_egress);
RESOLVER(r_allowed_ips);
RESOLVER(r_template_egress);
/* An empty list, which allows nothing, as records and plans say it. */
int egress_said(char ***list, struct err *e);
/* idleTimeoutSeconds and idleAction of an input. */
int idle_said(const json_t *in, struct idle_wish *ret, struct err *e);
RESOLVER(r_idle_action);
RESOLVER(r_template_idle_action);
RESOLVER(r_idle_seconds);
RESOLVER(r_last_use);
RESOLVER(r_gpu_receipts);
RESOLVER(r_gpus);
RESOLVER(r_memory_gib);
RESOLVER(r_machine_id);
RESOLVER(r_runtime);
RESOLVER(r_uptime);
RESOLVER(r_updating);
RESOLVER(r_ports);
RESOLVER(r_urls);
RESOLVER(r_cpu_pct);
RESOLVER(r_cpu_pressure);
RESOLVER(r_memory_pressure);
RESOLVER(r_io_pressure);
RESOLVER(r_memory_pct);
RESOLVER(r_host_id);
RESOLVER(r_location);
RESOLVER(r_true);
RESOLVER(r_false);
RESOLVER(r_zero);
RESOLVER(r_one);
RESOLVER(r_hundred);
RESOLVER(r_host_cpus);
RESOLVER(r_host_cpus_taken);
RESOLVER(r_host_memory);
RESOLVER(r_host_memory_taken);

/* gpus.c: obj of the runtime's and of telemetry's GPUs is a struct gpu_reading; NaN: not known */
struct gpu_reading {
        const char *id; /* NULL: a mean */
        double util_pct, temperature_c, memory_pct, watts;
};
struct host_gpu {
        const struct gpu *gpu;
        const struct gpu_fleet *fleet;
        size_t place; /* in it */
        const char *id, *name, *pci, *mig_profile, *parent, *serial, *vbios, *inforom;
        const char *state, *reason, *cluster, *type, *display;
        uint32_t index, memory_gib;
        bool for_rent, mig_mode, ecc, simulated;
};
int each_gpu_of(const struct cluster *k, int (*fn)(void *arg, const char *uuid), void *arg);
RESOLVER(r_runtime_gpus);
RESOLVER(r_telemetry);
RESOLVER(r_telemetry_time);
RESOLVER(r_gpu_average);
RESOLVER(r_gpu_metrics);
RESOLVER(q_gpus);
RESOLVER(q_gpu_vfio);
RESOLVER(r_hg_numa); /* of a struct host_gpu, as are the next */
RESOLVER(r_hg_cpus);
RESOLVER(r_hg_links);
RESOLVER(r_hg_p2p);
RESOLVER(r_hg_telemetry);
RESOLVER(m_gpu_release);

/* gpu_types.c */
#define DISPLAY_BYTES 160
void display_name(char ret[static DISPLAY_BYTES], const char *name, bool simulated);
struct gpu_type_view {
        const struct gpu_fleet *fleet;
        const char *id, *manufacturer;
        char display[DISPLAY_BYTES];            /* says when it is simulated */
        uint32_t memory_gib, cuda_cores, count; /* for rent, free or not */
        uint64_t members;                       /* bit i: gpus[i] */
        double on_demand, spot;                 /* $/GPU/h */
        bool simulated;
};
/* False: it is not for rent. */
bool type_of_gpu(const struct plane *p, const struct gpu *g, struct gpu_type_view *ret);
/* Of what it leases; false: it leases none that is known. */
bool type_of_cluster(const struct plane *p, const struct cluster *k, struct gpu_type_view *ret);
double cluster_cost(const struct plane *p, const struct cluster *k); /* $/h, while it runs */
struct gpu_stock_view {
        const char *id, *display, *stock;
        bool available;
};
struct gpu_pool_view {
        const char *id;
        const struct gpu_types *types;
};
/* NaN: null */
struct lowest_price {
        const char *name, *id, *stock;
        double bid, price, memory_gib, vcpu, disk_gib, rental_pct;
        uint32_t rented, total, most;
        uint64_t counts;
};
RESOLVER(q_gpu_types); /* objects: struct gpu_type_view */
RESOLVER(q_gpu_pools); /* objects: struct gpu_pool_view */
RESOLVER(r_pool_types);
RESOLVER(r_lowest_price); /* of a struct gpu_type_view; objects: struct lowest_price */
RESOLVER(r_lp_counts);
RESOLVER(r_gpu_availability); /* objects: struct gpu_stock_view */
RESOLVER(r_machine_gpu_type);
RESOLVER(r_cost);
RESOLVER(r_price_per_gpu);
RESOLVER(r_gpu_type_id);
RESOLVER(r_gpu_name);
RESOLVER(r_cluster_gpu_type);
RESOLVER(r_gpu_available);
RESOLVER(r_spend);

/* events.c: obj is a struct event_view */
RESOLVER(q_events);

RESOLVER(r_log_text); /* of a struct log_line_view */

/* catalog.c */
RESOLVER(q_cpu_flavors);
RESOLVER(q_cpu_types);
RESOLVER(q_data_centers);
RESOLVER(q_machines);
RESOLVER(r_flavor_id);
RESOLVER(r_flavor_max);
RESOLVER(r_flavor_specifics);
RESOLVER(r_stock);
RESOLVER(r_data_center_id);
RESOLVER(r_data_center_name);
RESOLVER(r_machine_name);
RESOLVER(r_machine_gpus);
RESOLVER(r_machine_driver);
RESOLVER(r_machine_cuda);
RESOLVER(r_machine_simulated);
RESOLVER(r_machine_gpu_note);
RESOLVER(r_disk_total);
RESOLVER(r_disk_free);

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

/* secrets.c: obj is a struct secret */
RESOLVER(r_my_secrets);
RESOLVER(m_secret_create);
RESOLVER(m_secret_delete);

/* mutations.c */
RESOLVER(m_deploy);
RESOLVER(m_rent);
RESOLVER(m_deploy_cpu);
RESOLVER(m_resume);
RESOLVER(m_restart);
RESOLVER(m_stop);
RESOLVER(m_terminate);
RESOLVER(m_edit);
RESOLVER(m_update);
