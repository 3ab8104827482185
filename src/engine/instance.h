/* instance.h - what one running engine is: its directories, configuration and host-wide claims.
 * Made once at start (main.c), then read-only; every engine module takes a pointer to it. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

struct engine_conf {
        /* [engine] */
        double cpu_overcommit, memory_overcommit, disk_overcommit; /* 1 = nothing is sold twice */
        char *gpu_driver; /* "auto", "none", "simulated:<fleet>" */
        char *gpu_scrub;  /* "off", "auto", "require" */
        bool require_apparmor;
        uint32_t pool_networks;       /* ready network namespaces kept ahead */
        uint32_t pool_disks;          /* formatted container disks kept ahead, per size in use */
        uint32_t parallel_ops;        /* boots and stops at once */
        uint32_t parallel_pulls;      /* pulls and uploads at once */
        uint32_t parallel_layers;     /* vmm-fetch processes at once, per image */
        uint64_t image_max_bytes;     /* one image, unpacked */
        uint64_t registry_silence_us; /* a registry that sends nothing for so long is given up */
        uint64_t registry_rate_bytes; /* and one that sends less than that in a second */
        uint64_t pull_timeout_us;     /* one pull or upload, in all */
        uint64_t grace_us;            /* TERM to KILL */
        uint64_t audit_keep_us;       /* audit and security events stay so long */
        /* [images] */
        uint64_t object_threshold;  /* 0: no objects */
        char *image_mount;          /* auto, file, loop */
        uint64_t image_keep_us;     /* unused for so long: it goes; 0: never for that */
        uint64_t image_floor_bytes; /* kept free, images go for it; 0: none goes for that */
        bool image_expire_uploads;  /* also what cannot be pulled again */
        uint64_t image_scrub_us;    /* each file is read once in so long; 0: never */
        /* [network] */
        char *network_pool;           /* IPv4 pool "100.96.0.0/16"; address = base + slot */
        char *dns;                    /* comma list; "" = the host's */
        bool resolver;                /* clusters have a resolver of ours */
        char *network_allow;          /* comma list of private prefixes that clusters may reach */
        char *network_pool6;          /* "fd12:3456:789a:1::/64", "": from the id, "none" */
        uint64_t network_bandwidth;   /* bytes a second of each cluster, each way; 0: no limit */
        uint32_t network_connections; /* tracked at once per address; 0: no limit */
        char *network_public_ip;      /* where published ports are reached; "": found out */
        char *network_public_ports;   /* "20000-29999", "none" */
        /* [limits]; 0: none */
        uint32_t pids;                          /* of a cluster whose plan names no number */
        uint64_t io_read_bytes, io_write_bytes; /* a second, each disk of a cluster */
        uint32_t io_read_ops, io_write_ops;
        uint64_t log_bytes; /* a second, what a cluster says */
        /* [edge] */
        char *edge_listen;        /* ADDRESS:PORT, "none" */
        char *edge_tenant_domain; /* clusters are below proxy.<that> */
        char *edge_api_domain;
        char *edge_tenant_certificate, *edge_api_certificate; /* "": our own authority's */
        uint32_t edge_public_port;                            /* 0: that of edge_listen */
        uint32_t edge_connections;
        uint32_t edge_threads;
        uint32_t edge_address_connections, edge_address_requests; /* 0: no limit, as the next */
        uint32_t edge_cluster_connections, edge_cluster_requests;
        bool edge_log_requests;
        /* [api] */
        char *log_level;
};

/* One [registry "HOST[:PORT]"] section: also the permission to reach private addresses there. */
struct registry_conf {
        char *host;
        bool insecure; /* plain HTTP */
        char *username, *password;
};

/* One [gpu "TYPE"] section: what a GPU of that type costs, in dollars per GPU and hour; 0: nothing. */
struct gpu_price_conf {
        char *type;
        double on_demand, spot;
};

struct instance {
        char id[9];     /* 8 characters, made at first start, kept in DIR/instance */
        char *data_dir; /* absolute */
        int data_fd;    /* O_PATH on it */
        int run_fd;     /* /run/hypervisor-vmm/<id>, 0711 */
        int lock_fd;    /* flock on DIR/lock: one engine per data directory */
        char *libexec;  /* directory of vmm-launch, vmm-monitor, vmm-fetch, tensorone-api */
        struct engine_conf conf;
        /* processes and threads of all clusters, and of one, at most: the kernel has so many numbers */
        uint32_t pids_all, pids_most;
        struct registry_conf *registries;
        size_t n_registries;
        struct gpu_price_conf *gpu_prices;
        size_t n_gpu_prices;
};

/* The configuration alone (NULL: defaults), checked; nothing is made and no directory opened. */
int instance_read_conf(const char *config, struct instance **ret, struct err *e);

/* Read @config (NULL: defaults), make or open @data_dir (0711, root's own), take its lock (-EBUSY
 * when another engine still runs on it after 3 s), make the run directory.  Blocks on the local disk. */
int instance_open(const char *data_dir, const char *config, const char *libexec,
                  struct instance **ret, struct err *e);
/* Where vmm-launch, vmm-monitor, vmm-fetch and tensorone-api lie; heap.  Before a new mount namespace is entered:
 * afterwards the kernel tells our own path as the old one would, which is wrong below a chroot. */
int instance_find_libexec(char **ret, struct err *e);
struct instance *instance_close(struct instance *i);
DEFINE_AUTO(struct instance *, instance_close)
/* A small file that gives its space up for a start on a full disk: SQLite's shared index of the image
 * catalogue is made anew then.  Given up when little is free, held again when much is. */
void instance_give_room(const struct instance *i);
void instance_hold_room(const struct instance *i);
/* Whether HAProxy is to serve it; the option that says so is called this in messages. */
bool instance_has_edge(const struct instance *i);
#define INSTANCE_EDGE_LISTEN "[edge] listen"
/* Clean shutdown without clusters: the run directory goes too. */
int instance_remove_run(const struct instance *i);

/* The option tables, for reading them and for the configuration manual; the others are those of a
 * [registry] and of a [gpu] section. */
struct conf_option;
const struct conf_option *instance_options(size_t *ret_n);
const struct conf_option *instance_registry_options(size_t *ret_n);
const struct conf_option *instance_gpu_options(size_t *ret_n);
/* conf_labelled_fn, @arg is the struct instance; and what it has made. */
int instance_labelled(void *arg, const char *section, const char *label, const char *key,
                      const char *value, struct err *e);
void instance_labelled_done(struct instance *i);

/* `prices` of the gpus message (docs/gpu.md); new reference, or NULL: out of memory. */
json_t *instance_prices(const struct instance *i);

/* "<data_dir>/<name>" made 0700 below the data directory; an O_PATH descriptor. */
int instance_dir(const struct instance *i, const char *name, struct err *e);
