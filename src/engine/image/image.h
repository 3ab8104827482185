/* image.h - the host's image store: what is here, pulling what is not, mounting it.
 *
 * What is below DIR/images: docs/image-store.md.  images.db is the only truth; files follow it.
 * The engine process itself never parses a manifest, config or tar: vmm-fetch does, in a sandbox,
 * and answers in a small JSON of ours that is checked field by field.
 * image_pull and image_import run in operation processes and block; the rest is quick. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "engine/instance.h"

struct image_config {
        char **entrypoint, **command, **env;
        char *working_dir, *user, *stop_signal;
};

struct image {
        char *reference; /* canonical */
        char digest[72]; /* of the manifest */
        struct image_config config;
        uint64_t id;           /* row; names metas/<id> and the place of its base mount */
        char *meta_sha;        /* SHA-256 of metas/<id>, hex */
        char **devices;        /* layers/<n> whose packs metas/<id> points into, in its order */
        bool objects;          /* some of its files are objects */
        uint64_t size_bytes;   /* content of its layers */
        uint64_t shared_bytes; /* of that, in layers that other images have, too */
        uint64_t created_us, used_us;
        char *use;         /* stands for this image under this name, in lists of what is in use */
        char *account;     /* owner of a local image, NULL when it came from a registry */
        bool is_public;    /* a local image shown to all */
        bool is_private;   /* @account's own credentials opened it: see image_find_private() */
        char *quarantined; /* image_list(): why it cannot be used any more; NULL: it can */
};
void image_done(struct image *i);

/* What the host puts around every vmm-fetch: the store knows neither groups nor firewalls.  In the
 * operation process, but for enter(). */
struct image_guard {
        /* Before one is started as ids @id_base and 65,535 more, which nobody else has; what is left
         * of an earlier one with them goes.  On failure it is not started. */
        int (*shut)(void *arg, uint32_t id_base, void **ret_cell, struct err *e);
        /* In the new process, still root's, before all else; async-signal-safe. */
        int (*enter)(const void *cell);
        /* The last process has ended; frees @cell.  Returns how often the memory that it may use was
         * not enough. */
        uint64_t (*open)(void *arg, void *cell);
        uint64_t memory_bytes; /* what it may use; for messages */
        void *arg;
};

struct image_store;
/* Borrowed, for as long as the store is open.  Without: nothing around it, as in tests of the store. */
void image_store_guard(struct image_store *s, const struct image_guard *g);
int image_store_open(const struct instance *inst, struct image_store **ret, struct err *e);
struct image_store *image_store_close(struct image_store *s);
DEFINE_AUTO(struct image_store *, image_store_close)

/* Find by reference what @account may use without asking anybody: its own local image first, then a
 * public local one, then what that registry gave for all.  -ENOENT when it must be pulled. */
int image_find(struct image_store *s, const char *account, const char *reference, struct image *ret,
               struct err *e);
/* The same, but first of all what @account pulled with credentials of its own (ret->is_private).  That
 * it was allowed to then is no right to it now: it is for whoever has just pulled it again, which
 * fetches nothing that is here, and for a cluster that has run from it. */
int image_find_private(struct image_store *s, const char *account, const char *reference,
                       struct image *ret, struct err *e);

struct image_progress {
        const char *phase; /* "resolving", "uploading", "unpacking", "downloading", "publishing" */
        /* Compressed; total 0 = not known yet.  Layers that were here already are in neither. */
        uint64_t done_bytes, total_bytes;
        uint64_t
                bytes_per_s; /* what this operation itself moves, smoothed; 0: nothing, or too early
                               * to say */
};
typedef void image_progress_fn(void *arg, const struct image_progress *p);

struct image_credentials { /* NULL strings: anonymous */
        const char *username, *password;
        const char *account; /* whose they are: what they open is this account's alone, as a local
                              * image is; NULL: the operator's, for all */
};

/* Fetch, verify, publish.  Idempotent; layers known by diff id are not fetched again.  On failure
 * nothing stays and *e is the sentence for the user ("pull docker.io/library/x:latest: manifest
 * not found").  @deadline_us monotonic, 0: as configured (pull_timeout). */
int image_pull(struct image_store *s, const char *reference, const struct image_credentials *cred,
               uint64_t deadline_us, image_progress_fn *fn, void *arg, struct err *e);

/* Read an OCI layout or docker-archive as a tar stream from @stream and publish it as @name. */
int image_import(struct image_store *s, const char *account, bool is_public, const char *name,
                 int stream, uint64_t deadline_us, image_progress_fn *fn, void *arg, struct err *e);

/* Removing is two steps, between which the caller finds out what is in use *now*.
 *
 * image_unname() takes the name away: once it has returned, no image_find() gives an image for which
 * this was the last name, ever again (pulled anew it is another row).  -EBUSY while @in_use (of
 * image.use, NULL-terminated; digests will do, for rows of older releases) has it under this name, or
 * at all when it has no other; -ENOENT, -EPERM (someone else's).
 * image_sweep() removes what had no name left at the last image_unname() and is not in @in_use, which
 * must be newer than that; then layers that nothing uses. */
int image_unname(struct image_store *s, const char *account, bool is_admin, const char *reference,
                 char *const *in_use, struct err *e);
int image_sweep(struct image_store *s, char *const *in_use, struct err *e);
/* 1: there is something that image_sweep() would look at; after a kill between the two steps. */
int image_unswept(struct image_store *s, struct err *e);

/* Every image that @account may see; the caller ends each with image_done() and frees the array. */
int image_list(struct image_store *s, const char *account, bool is_admin, struct image **ret,
               size_t *ret_n, struct err *e);

/* An image that cannot be used any more, and why; @name may be "". */
typedef void image_damaged_fn(void *arg, uint64_t image, const char *name, const char *why);
/* All that are quarantined, those without a name among them as long as something uses them. */
int image_each_damaged(struct image_store *s, image_damaged_fn *fn, void *arg, struct err *e);

/* At engine start, and when an operation was killed: drop staging/ of dead operations and layers that
 * the database does not know.  Operations that live are not disturbed. */
int image_recover(struct image_store *s, struct err *e);
