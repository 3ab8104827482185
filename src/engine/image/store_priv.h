/* store_priv.h - what the files of this folder share. */
#pragma once
#include <sqlite3.h>
#include <stdio.h>
#include <sys/types.h>

#include "base/str.h"
#include "engine/image/fetcher.h"
#include "engine/image/image.h"
#include "model/fetchwire.h"
#include "store/layer_index.h"
#include "store/names.h"

struct image_store {
        const struct instance *inst;
        const struct image_guard *guard; /* or NULL */
        int dir_fd, layers_fd, metas_fd, objects_fd,
                staging_fd; /* DIR/images and below; but for dir_fd readable */
        sqlite3 *db;
        pid_t db_pid; /* who opened db: a handle does not survive a fork */
        bool lazy;    /* the transaction is */
        struct recents *recents;
};

/* --- recent.c: what was found last, as long as nobody has changed the database */
struct recents *recents_free(struct recents *rs);
/* true: *@ret is a copy.  After a miss, and only then, recents_put() may follow. */
bool recents_get(struct image_store *s, sqlite3 *db, const char *account, const char *name,
                 bool private, struct image *ret);
void recents_put(struct image_store *s, const char *account, const char *name, bool private,
                 const struct image *image);
void recents_forget(struct image_store *s); /* this process has written itself */

#define STORE_META "meta" /* in a staging directory: the metadata that is being written */

/* SHA-256 of a file from its begin, in hex; the offset stays. */
int store_hash_file(int fd, char ret[static STORE_HEX_BYTES], struct err *e);
/* A file that has no name, in @dir. */
int store_scratch(int dir, struct err *e);

/* --- catalog.c: the database --- */

/* The handle of this process, opened on first use. */
int catalog_db(struct image_store *s, sqlite3 **ret, struct err *e);
int catalog_begin(struct image_store *s, struct err *e); /* write lock: one publisher at a time */
/* The same for what a power cut may undo: its commit does not wait for the disk. */
int catalog_begin_lazily(struct image_store *s, struct err *e);
int catalog_commit(struct image_store *s, struct err *e); /* else: durable when it returns */
void catalog_rollback(struct image_store *s);

struct catalog_image {
        const char *domain;
        uint64_t threshold;
        const struct fetch_image *image;
        /* what follows is for adding it */
        const int64_t *layers; /* bottom first */
        size_t n_layers;
        const unsigned *devices; /* of those, whose packs the metadata names */
        size_t n_devices;
        const char *meta_sha;
        uint64_t meta_bytes;
};
/* Same domain, threshold and description: 1 and the row; 0: not here. */
int catalog_find_image(struct image_store *s, const struct catalog_image *c, int64_t *ret_id,
                       struct err *e);
int catalog_add_image(struct image_store *s, const struct catalog_image *c, int64_t *ret_id,
                      struct err *e);
/* Point a name at it.  @account NULL or "": what a registry has under that name. */
int catalog_set_name(struct image_store *s, const char *reference, const char *account,
                     bool is_public, int64_t image, struct err *e);
/* Images without a name will never have one again: an image that comes anew is another row. */
int catalog_condemn(struct image_store *s, struct err *e);
/* 1: @use (image.use, or a digest) means this image; 0. */
int catalog_is_use(sqlite3 *db, int64_t image, const char *use, struct err *e);
/* Fill the temporary table `held` (image, digest) with what is in use. */
int catalog_hold(struct image_store *s, char *const *in_use, struct err *e);
/* Take condemned images away (but not those in @in_use), and layers without an image.  1: some of them
 * had objects, which may be nobody's now. */
int catalog_sweep(struct image_store *s, char *const *in_use, struct err *e);
/* Whether layers/<name>, metas/<name> is in the database: 1, 0, negative. */
enum catalog_table { CATALOG_LAYERS, CATALOG_IMAGES };
int catalog_knows(struct image_store *s, enum catalog_table table, const char *name, struct err *e);

/* --- catalog_layer.c --- */

/* Whose layers may be shared: a layer is used again only for images of the same repository, or the
 * same account's uploads.  vmm-fetch verifies digests, but a layer that takes its vmm-fetch over
 * could claim any diff id: it must not reach anybody else's image.  It also means that nobody gets
 * the content of a private layer by knowing its diff ids. */
struct catalog_key {
        const char *domain, *diff_id;
        uint64_t threshold;
};
struct catalog_layer {
        uint64_t pack_bytes, content_bytes;
        uint32_t objects;
        char index_sha[STORE_HEX_BYTES], names_sha[STORE_HEX_BYTES]; /* "": it has no objects */
};
/* 1 and the number below layers/; 0: not here. */
int catalog_find_layer(struct image_store *s, const struct catalog_key *k, int64_t *ret_n,
                       struct catalog_layer *ret, struct err *e);
int catalog_add_layer(struct image_store *s, const struct catalog_key *k,
                      const struct catalog_layer *l, int64_t *ret_n, struct err *e);
/* A file of this layer is not what it was: images that use it are not found any more, @why says why,
 * and who pulls one of them fetches the layer anew.  Takes the write lock itself. */
int catalog_quarantine_layer(struct image_store *s, int64_t n, const char *why, struct err *e);

/* The same for the metadata of one image, whose layers are sound. */
int catalog_quarantine_image(struct image_store *s, int64_t id, const char *why, struct err *e);

/* Claims: which operation (its staging directory's name) is fetching a layer.  Under the write lock;
 * the transaction may be lazy, since a lost claim costs a second download at most.  Turns grow: whoever
 * waits only for those with an earlier turn than its own never waits in a circle. */
int catalog_claim_owner(struct image_store *s, const struct catalog_key *k, char ret_op[static 16],
                        int64_t *ret_turn, struct err *e); /* 1; 0: nobody */
int catalog_claim_turn(struct image_store *s, int64_t *ret, struct err *e);
int catalog_claim(struct image_store *s, const struct catalog_key *k, const char *op, int64_t turn,
                  struct err *e);
int catalog_unclaim(struct image_store *s, const char *op, struct err *e);

/* --- staging.c: directories that are being written --- */

struct staging {
        struct image_store *store;
        char name[16];
        int fd; /* readable; holds a lock that tells recovery that we live */
};
int staging_begin(struct image_store *s, struct staging *ret, struct err *e);
/* A fresh directory in it, root's own; a readable descriptor. */
int staging_dir(struct staging *g, const char *name, struct err *e);
/* Remove something in it that is not needed any more; what cannot be goes with the whole. */
void staging_drop(struct staging *g, const char *name);
void staging_end(struct staging *g); /* everything in it goes */
/* Whether an operation of this name lives. */
bool staging_is_held(struct image_store *s, const char *name);
/* Remove entries of layers/ and metas/ that the database does not know, and staging directories that
 * nobody writes; wait up to @patience_us for those that somebody still holds.  What cannot be removed is
 * no failure. */
int staging_collect(struct image_store *s, uint64_t patience_us, struct err *e);
/* Names in a directory, except dots; *ret is the caller's. */
int staging_list(int dir_fd, char ***ret);

static inline void staging_end_cleanup(struct staging *g)
{
        staging_end(g);
}

/* --- collect.c --- */

/* Remove the objects that no layer names.  Waits for those who hold them, but not for long: then it is
 * left to the next time. */
int collect_objects(struct image_store *s, struct err *e);
/* Within a transaction.  1: it removes nothing as long as *@ret_layer is in the database, whose names and
 * index are both damaged; 0. */
int collect_is_blind(struct image_store *s, int64_t *ret_layer, struct err *e);
/* As long as this descriptor is open in this process, objects stay, also those of no layer. */
int collect_hold(struct image_store *s, struct err *e);

/* The opposite: until it is closed, nobody adds an object.  -EAGAIN: somebody is at it, for long. */
int collect_lock_out(struct image_store *s, struct err *e);
/* Mode of an object that was found damaged, or that the disk may not have: the next layer that brings it replaces it. */
#define STORE_DAMAGED_MODE 01444

/* --- check.c: what a fetcher has left --- */

/* Pack, index and objects of one layer, opened, root's own and read-only from then on; index and
 * objects are hashed by processes of their own.  Begin after the fetcher has ended, and never before. */
struct check;
struct check_spec {
        int dir; /* readable; borrowed until the start returns */
        const char *diff_id;
        uint64_t threshold, max_bytes;
};
struct check_result {
        struct catalog_layer facts;
        uint64_t unpacked_bytes;             /* pack and objects of a staged layer, holes and all */
        int index_fd, names_fd;              /* read-only; no names: -EBADF */
        struct layer_index index;            /* header and object table; no entries */
        uint8_t *table;                      /* what it points into */
        uint8_t (*digests)[LAYER_SHA_BYTES]; /* of a staged layer's objects */
};
int check_start(const struct check_spec *spec, struct check **ret, struct err *e);
int check_fd(const struct check *c); /* readable when it may have ended */
/* 1 and *@ret, for check_result_done(): all is what it should be; 0: not finished yet; negative. */
int check_hear(struct check *c, struct check_result *ret, struct err *e);
struct check *check_free(struct check *c);
DEFINE_AUTO(struct check *, check_free)
void check_result_done(struct check_result *r);
/* Write down the names of the objects in @dir, when there are any. */
int check_put_names(struct check_result *r, int dir, struct err *e);
/* Index and names of a layer that is here already.  -EBADMSG: one is damaged. */
int check_known(int layer_dir, const struct catalog_layer *facts, struct check_result *ret,
                struct err *e);

/* --- layers.c: the layers of one image, from wherever they come --- */

enum layer_state {
        LAYER_STATE_NONE,
        LAYER_STATE_KNOWN,    /* layers/<n> */
        LAYER_STATE_WAITS,    /* another operation is fetching it */
        LAYER_STATE_WANTED,   /* ours, not begun */
        LAYER_STATE_FETCHING, /* its fetcher runs */
        LAYER_STATE_CHECKING, /* its fetcher has ended */
        LAYER_STATE_READY,    /* staged and checked */
        LAYER_STATE_COUNT
};

struct layer_work {
        const struct fetch_layer *layer;
        enum layer_state state;
        unsigned attempt;
        char staged[24];    /* its directory in staging */
        char waits_for[16]; /* the operation that fetches it */
        struct fetcher fetcher;
        struct check *check;
        int64_t n;                 /* KNOWN */
        struct check_result found; /* READY, and KNOWN once opened */
        uint64_t due_bytes;        /* its part of the total: 0 if it was known at first */
        uint64_t moved_bytes;      /* of its fetcher, as told so far */
};

/* @moved_bytes: have come since the last time, over the wire and not by way of somebody else. */
typedef void layers_tell_fn(void *arg, uint64_t done_bytes, uint64_t total_bytes,
                            uint64_t moved_bytes);

struct layers {
        struct image_store *store; /* this and what follows is borrowed */
        struct staging *staging;
        const struct fetch_request *req; /* what all fetchers are told */
        const struct fetch_image *image;
        const char *domain;
        int input_dir; /* where import left blobs, or -EBADF */
        uint64_t deadline_us;
        layers_tell_fn *tell;
        void *arg;

        struct layer_work *v; /* bottom first, no two alike */
        size_t n;
        unsigned round; /* makes names in staging unique */
        int64_t turn;   /* 0: nothing claimed yet */
        int watch_fd;   /* inotify on staging/, or -EBADF */
        uint64_t done_bytes, total_bytes;
};
#define LAYERS_NONE                                                                                \
        {                                                                                          \
                .input_dir = -EBADF, .watch_fd = -EBADF                                            \
        }

/* Which layers are needed, which are here; the rest is fetched, or waited for.  On success each is
 * KNOWN or READY, with its index open.  -EAGAIN: one that was here is not any more; begin again. */
int layers_get(struct layers *l, struct err *e);
struct catalog_key layers_key(const struct layers *l, const struct layer_work *w);
/* Everything but what was borrowed; fetchers and checks end. */
void layers_done(struct layers *l);

/* --- publish.c --- */

struct publish {
        struct layers *layers;
        const char *reference, *account;
        bool is_public;
};
/* Make the metadata and all of it known.  -EAGAIN as above. */
int publish_image(struct publish *p, struct err *e);
/* The image is here already, under whatever name: 1 and it has this name, too; 0: it is not. */
int publish_again(struct publish *p, struct err *e);
