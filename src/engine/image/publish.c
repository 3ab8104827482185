/* publish.c - from staged files to an image that can be used.  Operation processes, root, after every
 * fetcher of this image has ended and what they left has been checked (check.c).
 *
 * No byte of an image is parsed here, but headers of indexes and the sizes of objects in them.  Nothing
 * is copied.
 *
 * Order, so that a kill at any instant leaves the whole image or nothing: make the metadata, move objects
 * to their places, where they mean nothing yet, sync the file system, take the database's write lock,
 * move layers and metadata to their places, sync these two directories, commit. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/proc.h"
#include "build.h"
#include "model/limits.h"
#include "store/erofs.h"

#define SHARDS 256U

/* A directory in staging that becomes layers/<n>: of what a fetcher left, pack and index; names of ours. */
static void sealed_name(const struct layer_work *w, char ret[static 32])
{
        (void) snprintf(ret, 32, "layer-%s", w->staged);
}

static int seal_layer(struct layers *l, struct layer_work *w, struct err *e)
{
        static const char *const files[] = { STORE_PACK, STORE_INDEX };
        AUTO(fd) int from = -EBADF, to = -EBADF;
        char name[32];

        sealed_name(w, name);
        to = staging_dir(l->staging, name, e);
        if (to < 0)
                return to;
        from = fd_open_beneath(l->staging->fd, w->staged, O_RDONLY | O_DIRECTORY, 0);
        if (from < 0)
                return err_errno(e, from, "staging");
        for (size_t i = 0; i < NELEM(files); i++)
                if (renameat(from, files[i], to, files[i]) < 0)
                        return err_errno(e, -errno, "moving a %s", files[i]);
        return check_put_names(&w->found, to, e);
}

/* --- objects --- */

/* The directories objects/<ab> that something is moved to. */
struct shards {
        int fd[SHARDS];
};

static void shards_done_cleanup(struct shards *s)
{
        for (unsigned i = 0; i < SHARDS; i++)
                (void) fd_close(s->fd[i]);
}

static int open_shard(struct image_store *s, struct shards *shards, unsigned at, struct err *e)
{
        char name[3];
        int fd;

        if (shards->fd[at] >= 0)
                return shards->fd[at];
        (void) snprintf(name, sizeof name, "%02x", at & 0xff);
        if (mkdirat(s->objects_fd, name, 0700) < 0 && errno != EEXIST)
                return err_errno(e, -errno, "making objects/%s", name);
        fd = fd_open_beneath(s->objects_fd, name, O_RDONLY | O_DIRECTORY, 0);
        if (fd < 0)
                return err_errno(e, fd, "objects/%s", name);
        return shards->fd[at] = fd;
}

static int move_object(int from, const char *staged, int to, const char *name, uint64_t bytes,
                       struct err *e)
{
        struct stat st;

        if (renameat2(from, staged, to, name, RENAME_NOREPLACE) == 0)
                return 0;
        if (errno != EEXIST)
                return err_errno(e, -errno, "moving object %s", staged);
        if (fstatat(to, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
            (uint64_t) st.st_size == bytes && (st.st_mode & 07777) == 0444)
                return 0; /* the staged one goes with its directory */
        log_warn("images: object ..%s was damaged; it is replaced", name);
        if (renameat(from, staged, to, name) < 0)
                return err_errno(e, -errno, "moving object %s", staged);
        return 0;
}

static int place_objects(struct layers *l, const struct layer_work *w, struct shards *shards,
                         struct err *e)
{
        const struct check_result *f = &w->found;
        char path[sizeof w->staged + sizeof STORE_OBJECTS + 1];
        AUTO(fd) int from = -EBADF;
        int r = 0;

        if (f->index.n_objects == 0)
                return 0;
        (void) snprintf(path, sizeof path, "%s/" STORE_OBJECTS, w->staged);
        from = fd_open_beneath(l->staging->fd, path, O_RDONLY | O_DIRECTORY, 0);
        if (from < 0)
                return err_errno(e, from, "staged objects");
        for (uint32_t i = 0; r >= 0 && i < f->index.n_objects; i++) {
                uint64_t bytes = layer_index_object(&f->index, i);
                char staged[16], hex[STORE_HEX_BYTES];

                if (bytes == 0)
                        continue;
                (void) snprintf(staged, sizeof staged, "%u", i);
                hex_encode(f->digests[i], LAYER_SHA_BYTES, hex);
                r = open_shard(l->store, shards, f->digests[i][0], e);
                if (r >= 0)
                        r = move_object(from, staged, r, hex + 2, bytes, e);
        }
        return r;
}

/* Objects of all new layers to their places.  The lock on objects/ tells the collection to wait until
 * the rows are there that need them. */
static int move_objects(struct layers *l, struct err *e)
{
        AUTO(shards_done) struct shards shards;
        int r = 0;

        for (unsigned i = 0; i < SHARDS; i++)
                shards.fd[i] = -EBADF;
        for (size_t i = 0; r >= 0 && i < l->n; i++)
                if (l->v[i].state == LAYER_STATE_READY)
                        r = place_objects(l, &l->v[i], &shards, e);
        return r;
}

/* Those of one layer that are not in staging any more: we moved them. */
static void distrust_layer(struct layers *l, const struct layer_work *w)
{
        const struct check_result *f = &w->found;
        char path[sizeof w->staged + sizeof STORE_OBJECTS + 1];
        AUTO(fd) int from = -EBADF;

        (void) snprintf(path, sizeof path, "%s/" STORE_OBJECTS, w->staged);
        from = fd_open_beneath(l->staging->fd, path, O_RDONLY | O_DIRECTORY, 0);
        for (uint32_t i = 0; from >= 0 && i < f->index.n_objects; i++) {
                char staged[16], object[EROFS_OBJECT_PATH_BYTES];

                (void) snprintf(staged, sizeof staged, "%u", i);
                if (layer_index_object(&f->index, i) == 0 ||
                    faccessat(from, staged, F_OK, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT)
                        continue;
                erofs_object_path(f->digests[i], object);
                if (fchmodat(l->store->objects_fd, object, STORE_DAMAGED_MODE, 0) < 0)
                        log_warn("images: object %s may be damaged: %s", object, strerror(errno));
        }
}

/* The disk has not taken what we moved, and says so once: who finds it there would believe it, by its
 * size.  Under the lock, so that nobody collects it while we look; it goes afterwards, unless somebody
 * has named it meanwhile. */
static void distrust_objects(struct layers *l)
{
        for (size_t i = 0; i < l->n; i++)
                if (l->v[i].state == LAYER_STATE_READY)
                        distrust_layer(l, &l->v[i]);
}

static int sync_dir(int fd, const char *name, struct err *e)
{
        return fsync(fd) < 0 ? err_errno(e, -errno, "syncing images/%s", name) : 0;
}

/* --- rows --- */

/* Under the write lock: a staged layer becomes layers/<n>, unless somebody was faster.  The metadata
 * was made from the index that we saw: with another one, all has to be done again. */
static int place_layer(struct layers *l, struct layer_work *w, int64_t *ret_n, struct err *e)
{
        struct image_store *s = l->store;
        const struct catalog_key key = layers_key(l, w);
        struct catalog_layer there;
        char name[24], sealed[32];
        int r = catalog_find_layer(s, &key, ret_n, &there, e);

        if (r < 0)
                return r;
        if (r > 0 ? !str_eq(there.index_sha, w->found.facts.index_sha)
                  : w->state != LAYER_STATE_READY)
                return err_set(e, -EAGAIN, "a layer was changed meanwhile");
        if (r > 0)
                return 0; /* a staged copy goes with the staging directory */
        r = catalog_add_layer(s, &key, &w->found.facts, ret_n, e);
        if (r < 0)
                return r;
        sealed_name(w, sealed);
        (void) snprintf(name, sizeof name, "%lld", (long long) *ret_n);
        r = fd_rm_rf(s->layers_fd, name); /* left by a kill between move and commit */
        if (r >= 0 && renameat(l->staging->fd, sealed, s->layers_fd, name) < 0)
                r = -errno;
        return r < 0 ? err_errno(e, r, "moving a layer to layers/%s", name) : 0;
}

static int place_meta(struct layers *l, int64_t id, struct err *e)
{
        char name[24];

        (void) snprintf(name, sizeof name, "%lld", (long long) id);
        if (renameat(l->staging->fd, STORE_META, l->store->metas_fd, name) < 0)
                return err_errno(e, -errno, "moving the metadata to metas/%s", name);
        return 0;
}

static struct catalog_image describe(const struct publish *p)
{
        return (struct catalog_image){ .domain = p->layers->domain,
                                       .threshold = p->layers->req->threshold,
                                       .image = p->layers->image };
}

static int set_name(const struct publish *p, int64_t id, struct err *e)
{
        return catalog_set_name(p->layers->store, p->reference, p->account, p->is_public, id, e);
}

static int add_image(struct publish *p, const struct build *b, int64_t *ret_id, struct err *e)
{
        struct layers *l = p->layers;
        struct catalog_image image = describe(p);
        struct layer_index indexes[LIMIT_LAYERS];
        unsigned devices[MERGE_LAYERS_MAX];
        int64_t numbers[LIMIT_LAYERS];
        int r = catalog_find_image(l->store, &image, ret_id, e);

        if (r != 0)
                return r < 0 ? r : 0; /* somebody was faster */
        for (size_t i = 0; r >= 0 && i < l->n; i++) {
                r = place_layer(l, &l->v[i], &numbers[i], e);
                indexes[i] = l->v[i].found.index;
        }
        if (r < 0)
                return r;
        image.layers = numbers;
        image.n_layers = l->n;
        image.devices = devices;
        image.n_devices = erofs_devices(indexes, l->n, devices);
        image.meta_sha = b->sha;
        image.meta_bytes = b->bytes;
        r = catalog_add_image(l->store, &image, ret_id, e);
        if (r >= 0)
                r = place_meta(l, *ret_id, e);
        if (r >= 0)
                r = sync_dir(l->store->layers_fd, "layers", e);
        return r < 0 ? r : sync_dir(l->store->metas_fd, "metas", e);
}

static int commit(struct publish *p, const struct build *b, struct err *e)
{
        struct layers *l = p->layers;
        int64_t id = 0;
        int r = catalog_begin(l->store, e);

        if (r < 0)
                return r;
        r = add_image(p, b, &id, e);
        if (r >= 0)
                r = set_name(p, id, e);
        if (r >= 0 && l->turn)
                r = catalog_unclaim(l->store, l->staging->name, e);
        if (r >= 0)
                r = catalog_commit(l->store, e);
        if (r < 0)
                catalog_rollback(l->store);
        else
                l->turn = 0;
        return r;
}

/* From the first object in its place to the commit. */
static int move_and_commit(struct publish *p, const struct build *b, struct err *e)
{
        AUTO(fd) int lock = collect_hold(p->layers->store, e);
        int r = lock < 0 ? lock : move_objects(p->layers, e);

        if (r >= 0 && syncfs(p->layers->staging->fd) < 0) {
                r = err_errno(e, -errno, "writing the image to the disk");
                distrust_objects(p->layers);
        }
        return r < 0 ? r : commit(p, b, e);
}

int publish_image(struct publish *p, struct err *e)
{
        struct layers *l = p->layers;
        struct err ignored = { 0 };
        struct build b;
        int r = 0;

        staging_drop(l->staging, STORE_META); /* of an attempt before */
        for (size_t i = 0; r >= 0 && i < l->n; i++)
                if (l->v[i].state == LAYER_STATE_READY)
                        r = seal_layer(l, &l->v[i], e);
        if (r >= 0)
                r = build_meta(l, &b, e);
        if (r < 0)
                return r;
        r = move_and_commit(p, &b, e);
        if (r < 0) /* objects that were moved are nobody's; if this fails, a later one finds them */
                (void) collect_objects(l->store, &ignored);
        return r;
}

int publish_again(struct publish *p, struct err *e)
{
        const struct catalog_image image = describe(p);
        struct image_store *s = p->layers->store;
        int64_t id = 0;
        int r = catalog_find_image(s, &image, &id, e);

        if (r <= 0)
                return r;
        r = catalog_begin(s, e);
        if (r < 0)
                return r;
        r = catalog_find_image(s, &image, &id, e);
        if (r <= 0) {
                catalog_rollback(s);
                return r;
        }
        r = set_name(p, id, e);
        if (r >= 0)
                r = catalog_commit(s, e);
        if (r < 0)
                catalog_rollback(s);
        return r < 0 ? r : 1;
}
