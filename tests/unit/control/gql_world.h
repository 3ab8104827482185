/* gql_world.h - a small cloud in memory behind the real schema: for the tests of src/control/graphql,
 * its benchmark and its fuzz target.  Not thread-safe, one per test. */
#pragma once
#include "control/graphql/gql.h"

#define WORLD_PODS 20U

struct world_port {
        const char *ip, *type;
        bool is_public;
        uint32_t private_port, public_port;
};

struct world_pod {
        char id[16], name[24], host[28];
        const char *image, *status, *change, *args, *gpu_name, *location, *volume_path, *ports;
        char **env;
        uint32_t gpu_count, vcpu, memory_gib, disk_gib, volume_gib;
        uint64_t uptime_s, created_us;
        double cost;
        bool running;
        struct world_port port[2];
};

struct world {
        struct gql_schema *schema;
        struct world_pod pods[WORLD_PODS];
        char *env[5];
        enum gql_right may;          /* highest right of the caller; GQL_ANYONE: no key */
        struct gql_pending *pending; /* of podStop, while `hold` */
        bool hold;                   /* podStop waits for world_release() */
        char last_args[4096];        /* of the last deploy, save... or stop: JSON, keys sorted */
        char last_noun[8];
        unsigned stops;  /* podStop resolvers run */
        unsigned status; /* of the last answer */
        char *body;      /* of the last answer; NULL: none yet */
        size_t body_len;
};

int world_up(struct world *w, bool strict);
void world_down(struct world *w);

/* Run and wait; the body stays until the next call.  NULL when `done` was not called. */
const char *world_ask(struct world *w, const char *query, const char *variables,
                      const char *op_name);
const char *world_post(struct world *w, const char *body, size_t len);
gql_done_fn world_done;

/* What runpodctl `get pod` asks. */
extern const char world_my_pods[];
