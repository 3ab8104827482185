/* host.h - the engine's modules in one hand: what boot stages and requests work with.
 * Opened by main.c before the loop starts; inherited by operations through fork.  Not owned by
 * those who take a pointer to it. */
#pragma once

struct instance;
struct claim_host;
struct slice_host;
struct net_host;
struct image_store;
struct gpu_driver;
struct gpuhost;
struct apparmor;
struct sshtree;

struct host {
        const struct instance *inst;
        struct claim_host *claims;
        struct slice_host *slices;
        struct net_host *net;
        struct image_store *images;
        struct apparmor *apparmor; /* NULL: clusters have no profiles here */
        const struct sshtree *ssh; /* engine/sshtree.h */
        const struct gpu_driver *gpu_driver;
        struct gpuhost
                *gpuhost; /* the engine process alone; NULL elsewhere and before it is made */
        int disks;        /* O_PATH: DIR/disks, container disks, wiped at start and stop */
        int volumes;      /* O_PATH: DIR/volumes */
        int clusters;     /* O_PATH: DIR/clusters/<id>/: logs and exit status */
};
