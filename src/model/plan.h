/* plan.h - the immutable description of one cluster generation.
 *
 * The control plane makes it from a template and a request and sends it with `assign`; the engine
 * checks every field again, journals it as it came, and builds everything from it.  Pure. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "model/security.h"

enum port_type { PORT_NONE, PORT_HTTP, PORT_TCP, PORT_TYPE_COUNT };
extern const char *const port_type_names[PORT_TYPE_COUNT];

struct plan_port {
        uint32_t private_port; /* 1..65535 */
        enum port_type type;
        bool is_private; /* of http: the edge lets nobody in without a key or a link */
};

struct plan {
        char *cluster;       /* id, [a-z][a-z0-9]*, at most LIMIT_CLUSTER_ID_LEN */
        uint64_t generation; /* >= 1; grows with every new plan of the cluster */
        uint64_t boot;       /* generation that started the process which it is for; 0: its own */
        char *account;       /* owner's id: whose images and volumes it may use */
        char *name;          /* for people */
        char *image;         /* reference as the user wrote it */
        char *registry_auth; /* which registry credentials of the account open it; NULL: none */
        char **entrypoint;   /* replaces the image's when set */
        char **command;      /* replaces the image's CMD when set */
        bool command_set;    /* an empty `command` replaces too (a JSON dockerArgs said so) */
        char **env;          /* user's variables, then ours (ours win); KEY=VALUE */
        char **cpus;         /* pinned logical CPUs as decimal strings; empty: shared by quota */
        char *mems;          /* NUMA nodes of its memory, "0" or "0-1"; NULL: any */
        uint32_t vcpu;       /* logical CPUs, 1.. */
        uint32_t memory_mib;
        uint32_t shm_mib; /* /dev/shm; 0: half of the memory */
        uint32_t pids;    /* 0: LIMIT_PIDS_DEFAULT */
        uint32_t container_disk_gib;
        uint32_t volume_gib; /* 0: none */
        char *volume_path;   /* absolute mount point inside */
        uint32_t gpu_count;
        char **gpus; /* UUIDs, filled when gpu_count > 0 */
        char *ports; /* "8888/http,22/tcp"; checked by plan_ports() */
        char *edge_key; /* links to private ports are signed with it: base64, PLAN_EDGE_KEY_LEN; NULL: none is private */
        char *readiness_path; /* of model/ready.h; NULL: its ports take connections, that is enough */
        char *security_profile; /* of model/security.h; NULL: standard */
        char **egress; /* networks that it may reach beside its account's clusters, api.internal and
                        * name servers: model/egress.h; none: all that is public */
        char **allowed_ips; /* networks that its web ports may be asked from: model/allow.h; none: all */
        bool start_ssh; /* it is given an SSH server: engine/sshtree.h */
        char *ssh_host_key; /* that one's own, base64 of dropbear's form; NULL: none, and nobody logs in */
        uint32_t restart_max_s; /* longest back-off between restarts, 0: 300 */
};

/* Check and convert; on success the caller ends *@ret with plan_done().  -EINVAL, -ERANGE, -E2BIG
 * with the field, the limit and the way out in *@e. */
int plan_decode(const json_t *j, struct plan *ret, struct err *e);
json_t *plan_encode(const struct plan *p);           /* new reference or NULL (out of memory) */
int plan_check(const struct plan *p, struct err *e); /* the checks of plan_decode alone */
void plan_done(struct plan *p);

/* Of a plan that was checked. */
enum security_profile plan_profile(const struct plan *p);

/* The generation with which the process was started that this plan is for. */
static inline uint64_t plan_start(const struct plan *p)
{
        return p->boot ? p->boot : p->generation;
}

static inline void plan_done_cleanup(struct plan *p)
{
        plan_done(p);
}

#define PLAN_EDGE_KEY_LEN 44U /* of 32 bytes */

/* Parse "8888/http,8889/http:private,22/tcp" (blanks around commas allowed, type defaults to tcp).  At most @max
 * go to @ret; returns how many, or -EINVAL / -E2BIG with the entry quoted. */
int plan_ports(const char *s, struct plan_port *ret, size_t max, struct err *e);

/* Of ports that were checked. */
bool plan_has_private(const char *ports);

/* Mount points that a volume may not cover, and what an absolute clean path is: no "..", no "//",
 * not "/", not below /proc /sys /dev /etc /run... -EINVAL names @field and the reason. */
int plan_mount_path(const char *field, const char *path, struct err *e);

/* [a-z][a-z0-9]{0,13} */
bool plan_cluster_id_ok(const char *id);
