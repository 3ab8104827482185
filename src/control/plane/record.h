/* record.h - what the control plane keeps about clusters, templates, registry credentials,
 * secrets, and how it is stored.
 * Structs are owned by the plane; everybody else borrows them for the length of a call.  Pure. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "control/account/account.h"
#include "model/cluster.h"
#include "model/idle.h"

enum cluster_desired {
        DESIRED_NONE,
        DESIRED_RUNNING,
        DESIRED_STOPPED,
        DESIRED_TERMINATED,
        DESIRED_COUNT
};
extern const char *const cluster_desired_names[DESIRED_COUNT];

struct cluster {
        /* stored */
        char *id, *account, *name, *image, *template_id, *docker_args;
        char **env; /* the user's, templates merged in; KEY=VALUE */
        char *ports, *volume_path;
        uint32_t container_disk_gib, volume_gib, vcpu, gpu_count;
        uint64_t memory_mib;
        char *gpu_type, *registry_auth;
        char *readiness_path;   /* of model/ready.h; NULL: none */
        char *security_profile; /* of model/security.h; NULL: standard */
        char **egress;          /* of model/egress.h; NULL: no limit */
        char **allowed_ips;     /* of model/allow.h; NULL or none: all */
        bool start_ssh;         /* it is given an SSH server */
        char **cpus;            /* pinned; empty: shares */
        char *pod_type;
        bool locked, released;
        bool ready;                /* in CS_RUNNING: what it declares has answered */
        uint64_t ready_generation; /* the last one that was */
        enum cluster_desired desired;
        enum cluster_state state; /* as reported, or as far as we have asked for it */
        uint64_t generation;
        char *reason, *address, *status_change;
        char *published,
                *public_ip; /* its TCP ports on the host (model/published.h), and at which address */
        uint64_t created_us, started_us, stop_after_us, terminate_after_us;
        uint64_t exit_code, restarts, oom_kills;
        json_t *plan;         /* of this generation, without the cluster's key */
        json_t *gpu_receipts; /* of the checks when its GPUs were given back last; NULL: never */
        uint64_t boot;        /* generation whose plan starts the first process; 0: this one's */
        json_t *applied; /* the plan that the engine has, while it has not answered to the present one,
                          * which changes a cluster that runs; NULL: none is under way */
        char *refused;           /* why the last such change was not made */
        uint32_t idle_timeout_s; /* of model/idle.h; 0: never */
        enum idle_action idle_action;
        struct idle_state idle; /* as far as it is worth a write */

        /* not stored: it comes again with the next report */
        uint32_t progress_pct; /* of a pull, as are the next */
        uint64_t progress_bytes, progress_total_bytes, progress_bytes_per_s;
        uint64_t epoch, seq;
        json_t *security;
        struct {
                uint64_t cpu_us, memory_bytes, at_us;
                uint32_t cpu_pct; /* of its vCPUs, over the last interval */
                /* of the last ten seconds, in which some of it waited; NaN: this kernel does not tell */
                double pressure_cpu, pressure_memory, pressure_io;
        } usage;
        uint64_t
                repeat_us; /* the engine is behind: when it is told again, monotonic; 0: it is not */
        unsigned repeats;  /* in a row */
        bool wants_login;  /* the engine waits for the registry credentials that it names */
        bool wants_secrets;          /* the same for the secrets that its variables name */
        struct idle_state idle_kept; /* as it was written last */
        uint64_t gpu_peak_pct;       /* of its busiest GPU, since the last look; as is the next */
        bool had_session;
        unsigned open; /* transactions not answered yet: nothing is told to the node meanwhile */
};

struct cluster *cluster_free(struct cluster *c);
DEFINE_AUTO(struct cluster *, cluster_free)
int cluster_from_row(const json_t *row, struct cluster **ret, struct err *e);
json_t *cluster_to_row(const struct cluster *c); /* NULL: out of memory */

struct template
{
        char *id, *account, *name, *image, *docker_args;
        char **env;
        char *ports, *volume_path;
        uint32_t volume_gib, container_disk_gib;
        char *readme, *category, *start_script, *registry_auth, *security_profile, *readiness_path;
        char **egress; /* as a cluster's, as are the next */
        uint32_t idle_timeout_s;
        enum idle_action idle_action;
        bool is_serverless, is_public, start_ssh, start_jupyter, advanced_start;
        bool builtin; /* part of the program: visible to all, not stored */
        uint64_t created_us;
};

struct template *template_free(struct template *t);
DEFINE_AUTO(struct template *, template_free)
int template_from_row(const json_t *row, struct template **ret, struct err *e);
json_t *template_to_row(const struct template *t);

struct registry_auth {
        char *id, *account, *name, *username;
        char *password; /* sealed */
        uint64_t created_us;
};

struct registry_auth *registry_auth_free(struct registry_auth *a);
DEFINE_AUTO(struct registry_auth *, registry_auth_free)
int registry_auth_from_row(const json_t *row, struct registry_auth **ret, struct err *e);
json_t *registry_auth_to_row(const struct registry_auth *a);

struct secret {
        char *id, *account, *name, *description;
        char *value; /* sealed */
        uint64_t created_us;
};

struct secret *secret_free(struct secret *s);
DEFINE_AUTO(struct secret *, secret_free)
int secret_from_row(const json_t *row, struct secret **ret, struct err *e);
json_t *secret_to_row(const struct secret *s);

/* Replace a heap string.  -ENOMEM and no change; NULL and "" become NULL. */
int text_set(char **at, const char *value);
