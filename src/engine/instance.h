/* instance.h - what one running engine is: its directories, configuration and host-wide claims.
 * Made once at start (main.c), then read-only; every engine module takes a pointer to it. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct engine_conf {
        /* [engine] */
        double cpu_overcommit, memory_overcommit, disk_overcommit; /* 1 = nothing is sold twice */
        char *gpu_driver;       /* "auto", "none", "simulated:<fleet>" */
        bool require_apparmor;
        uint32_t pool_networks; /* ready network namespaces kept ahead */
        uint32_t pool_disks;    /* formatted container disks kept ahead, per size in use */
        uint32_t parallel_ops;  /* operation processes at once */
        uint32_t parallel_layers; /* vmm-fetch processes at once */
        uint64_t grace_us;      /* TERM to KILL */
        /* [network] */
        char *network_pool;     /* IPv4 pool "100.96.0.0/16"; address = base + slot */
        char *dns;              /* comma list; "" = the host's */
        /* [api] */
        char *log_level;
};

/* One [registry "HOST[:PORT]"] section: also the permission to reach private addresses there. */
struct registry_conf {
        char *host;
        bool insecure; /* plain HTTP */
        char *username, *password;
};

struct instance {
        char id[9];      /* 8 characters, made at first start, kept in DIR/instance */
        char *data_dir;  /* absolute */
        int data_fd;     /* O_PATH on it */
        int run_fd;      /* /run/hypervisor-vmm/<id>, 0700 */
        char *libexec;   /* directory of vmm-monitor, vmm-fetch, tensorone-api */
        struct engine_conf conf;
        struct registry_conf *registries;
        size_t n_registries;
};
