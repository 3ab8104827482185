/* store_priv.h - what the files of this folder share. */
#pragma once
#include <sqlite3.h>
#include <sys/types.h>

#include "base/str.h"
#include "engine/image/fetcher.h"
#include "engine/image/image.h"
#include "model/fetchwire.h"

struct image_store {
        const struct instance *inst;
        const struct image_guard *guard; /* or NULL */
        int dir_fd, layers_fd,
                staging_fd; /* DIR/images and below; layers_fd and staging_fd readable */
        sqlite3 *db;
        pid_t db_pid; /* who opened db: a handle does not survive a fork */
};

/* --- catalog.c: the database --- */

/* The handle of this process, opened on first use. */
int catalog_db(struct image_store *s, sqlite3 **ret, struct err *e);
int catalog_begin(struct image_store *s, struct err *e);  /* write lock: one publisher at a time */
int catalog_commit(struct image_store *s, struct err *e); /* durable when it returns */
void catalog_rollback(struct image_store *s);

/* Whose layers may be shared: a layer is used again only for images of the same repository, or the
 * same account's uploads.  vmm-fetch verifies digests, but a layer that takes its vmm-fetch over
 * could claim any diff id: it must not reach anybody else's image.  It also means that nobody gets
 * the content of a private layer by knowing its diff id. */
struct catalog_key {
        const char *domain, *diff_id, *chain;
};

/* 1 and the number below layers/; 0: not here. */
int catalog_find_layer(struct image_store *s, const struct catalog_key *k, int64_t *ret_n,
                       struct err *e);
/* @chain "": the layer is the same over whatever lies below it. */
int catalog_add_layer(struct image_store *s, const struct catalog_key *k, uint64_t unpacked_bytes,
                      int64_t *ret_n, struct err *e);

struct catalog_image {
        const char *domain;
        const struct fetch_image *image;
        const int64_t *layers; /* bottom first */
        size_t n_layers;
};
/* Record the image, or find it: same domain, same description. */
int catalog_add_image(struct image_store *s, const struct catalog_image *c, int64_t *ret_id,
                      struct err *e);
/* Point a name at it.  @account NULL or "": what a registry has under that name. */
int catalog_set_name(struct image_store *s, const char *reference, const char *account,
                     bool is_public, int64_t image, struct err *e);
/* Images without a name will never have one again: an image that comes anew is another row. */
int catalog_condemn(struct image_store *s, struct err *e);
/* 1: @use (image.use, or a digest) means this image; 0. */
int catalog_is_use(sqlite3 *db, int64_t image, const char *use, struct err *e);
/* Take condemned images away (but not those in @in_use), and layers without an image. */
int catalog_sweep(struct image_store *s, char *const *in_use, struct err *e);
/* Whether layers/<name> is in the database: 1, 0, negative. */
int catalog_knows_layer(struct image_store *s, const char *name, struct err *e);

/* --- staging.c: directories that are being written --- */

struct staging {
        struct image_store *store;
        char name[16];
        int fd; /* readable; holds a lock that tells recovery that we live */
};
int staging_begin(struct image_store *s, struct staging *ret, struct err *e);
/* A fresh directory in it, root's own; a readable descriptor. */
int staging_dir(struct staging *g, const char *name, struct err *e);
void staging_end(struct staging *g); /* everything in it goes */
/* Remove layers/ entries that the database does not know, and staging directories that nobody writes;
 * wait up to @patience_us for those that somebody still holds. */
int staging_collect(struct image_store *s, uint64_t patience_us, struct err *e);

static inline void staging_end_cleanup(struct staging *g)
{
        staging_end(g);
}

/* --- publish.c --- */

/* One layer of the image that is about to be published. */
struct publish_layer {
        const struct fetch_layer *layer;
        char staged[24]; /* its directory in staging; "" : known already as n */
        bool again;      /* its first fetcher was killed */
        int64_t n;
        uint64_t unpacked_bytes;
        const struct path_list *opaque, *implied; /* NULL when known already; borrowed */
        char chain[72];
};
struct publish {
        struct staging *staging;
        const struct fetch_image *image;
        struct publish_layer *layers; /* bottom first, no two alike */
        size_t n_layers;
        const char *domain, *reference, *account;
        bool is_public;
};
int publish_image(struct publish *p, struct err *e);
/* Fill in the chain ids of layers in order. */
int publish_chains(struct publish_layer *layers, size_t n);
