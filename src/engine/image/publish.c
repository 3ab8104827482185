/* publish.c - from staged directories to an image that can be used.  Operation processes, root,
 * after the last fetcher of this image has ended.
 *
 * No byte of an image is parsed here.  Two things need root and a view over several layers: the
 * opaque mark (a trusted.* attribute), and the attributes of directories that a layer uses without
 * describing them, which are those of the layer below.  Both go through descriptors that are opened
 * beneath the layer's directory without following links: the tree was written by a stranger.
 *
 * Order, so that a kill at any instant leaves the whole image or nothing: sync the file system, take
 * the database's write lock, move directories, sync layers/, commit. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "base/fd.h"
#include "base/proc.h"
#include "store_priv.h"

/* OCI's chain id: which layers lie below, this one included. */
static int chain_next(const char *below, const char *diff_id, char ret[static 72])
{
        AUTO(free) char *both = str_fmt("%s %s", below, diff_id);
        unsigned char md[EVP_MAX_MD_SIZE];
        unsigned n = 0;

        if (!*below) {
                (void) snprintf(ret, 72, "%s", diff_id);
                return 0;
        }
        if (!both || EVP_Digest(both, strlen(both), md, &n, EVP_sha256(), NULL) != 1 || n != 32)
                return -ENOMEM;
        memcpy(ret, "sha256:", 7);
        hex_encode(md, n, ret + 7);
        return 0;
}

int publish_chains(struct publish_layer *layers, size_t n)
{
        const char *below = "";
        int r = 0;

        for (size_t i = 0; r >= 0 && i < n; i++) {
                r = chain_next(below, layers[i].layer->diff_id, layers[i].chain);
                below = layers[i].chain;
        }
        return r;
}

static int open_layer(struct publish *p, const struct publish_layer *l)
{
        char name[24];

        if (*l->staged)
                return fd_open_beneath(p->staging->fd, l->staged, O_RDONLY | O_DIRECTORY, 0);
        (void) snprintf(name, sizeof name, "%lld", (long long) l->n);
        return fd_open_beneath(p->staging->store->layers_fd, name, O_RDONLY | O_DIRECTORY, 0);
}

static int mark_opaque(int layer, const char *path, struct err *e)
{
        AUTO(fd) int fd = fd_open_beneath(layer, *path ? path : ".", O_RDONLY | O_DIRECTORY, 0);

        if (fd < 0)
                return err_errno(e, fd, "opaque directory '%.200s'", path);
        if (fsetxattr(fd, "trusted.overlay.opaque", "y", 1, 0) < 0)
                return err_errno(e, -errno, "marking '%.200s' opaque", path);
        return 0;
}

enum below { BELOW_NOTHING, BELOW_FOUND, BELOW_HIDDEN };

static bool is_opaque(int fd)
{
        char v = 0;

        return fgetxattr(fd, "trusted.overlay.opaque", &v, 1) == 1 && v == 'y';
}

/* What one layer has at @path: the directory, nothing (look further down), or something that hides
 * all that lies below. */
static enum below look(int layer, const char *path, int *ret_fd)
{
        AUTO(free) char *copy = strdup(path);
        AUTO(fd) int at = fcntl(layer, F_DUPFD_CLOEXEC, 3);
        char *save = NULL;
        bool opaque = false;

        if (!copy || at < 0)
                return BELOW_HIDDEN;
        for (char *part = strtok_r(copy, "/", &save); part; part = strtok_r(NULL, "/", &save)) {
                int next = openat(at, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

                if (next < 0)
                        return errno == ENOENT && !opaque ? BELOW_NOTHING : BELOW_HIDDEN;
                (void) fd_close(at);
                at = next;
                opaque = opaque || is_opaque(at);
        }
        *ret_fd = fd_take(&at);
        return BELOW_FOUND;
}

static int copy_attributes(int from, int to, const char *path, struct err *e)
{
        struct timespec times[2];
        struct stat st;

        if (fstat(from, &st) < 0)
                return err_errno(e, -errno, "'%.200s'", path);
        times[0] = st.st_atim;
        times[1] = st.st_mtim;
        if (fchown(to, st.st_uid, st.st_gid) < 0 || fchmod(to, st.st_mode & 07777) < 0 ||
            futimens(to, times) < 0)
                return err_errno(e, -errno, "'%.200s'", path);
        return 0;
}

/* Give an implied directory of layer @k what the nearest layer below says about it. */
static int inherit(struct publish *p, size_t k, int layer, const char *path, struct err *e)
{
        AUTO(fd) int to = fd_open_beneath(layer, path, O_RDONLY | O_DIRECTORY, 0);
        enum below b = BELOW_NOTHING;

        if (to < 0)
                return err_errno(e, to, "directory '%.200s'", path);
        if (is_opaque(to))
                return 0;
        for (size_t i = k; i-- > 0 && b == BELOW_NOTHING;) {
                AUTO(fd) int below = open_layer(p, &p->layers[i]);
                AUTO(fd) int from = -EBADF;

                if (below < 0)
                        return err_errno(e, below, "layer %zu", i + 1);
                b = look(below, path, &from);
                if (b == BELOW_FOUND)
                        return copy_attributes(from, to, path, e);
        }
        return 0; /* nothing below has it: 0755, root's */
}

static int dress_layer(struct publish *p, size_t k, struct err *e)
{
        struct publish_layer *l = &p->layers[k];
        AUTO(fd) int fd = -EBADF;
        int r = 0;

        if (!*l->staged)
                return 0;
        fd = open_layer(p, l);
        if (fd < 0)
                return err_errno(e, fd, "layer %zu", k + 1);
        for (size_t i = 0; r >= 0 && i < l->opaque->n; i++)
                r = mark_opaque(fd, l->opaque->v[i], e);
        for (size_t i = 0; r >= 0 && i < l->implied->n; i++)
                r = inherit(p, k, fd, l->implied->v[i], e);
        return r < 0 ? err_wrap(e, r, "layer %zu", k + 1) : 0;
}

/* Under the write lock: a staged layer becomes layers/<n>, unless somebody was faster. */
static int place_layer(struct publish *p, struct publish_layer *l, struct err *e)
{
        struct image_store *s = p->staging->store;
        struct catalog_key key = { p->domain, l->layer->diff_id, l->chain };
        char name[24];
        int64_t n = 0;
        int r = catalog_find_layer(s, &key, &n, e);

        if (r < 0)
                return r;
        if (r > 0) {
                l->n = n;
                return 0; /* the staged copy goes with the staging directory */
        }
        if (!*l->staged) /* known when we began, removed since */
                return err_set(e, -EAGAIN, "a layer was removed meanwhile");
        if (l->implied->n == 0)
                key.chain = "";
        r = catalog_add_layer(s, &key, l->unpacked_bytes, &l->n, e);
        if (r < 0)
                return r;
        (void) snprintf(name, sizeof name, "%lld", (long long) l->n);
        r = fd_rm_rf(s->layers_fd, name); /* left by a kill between move and commit */
        if (r >= 0 && renameat(p->staging->fd, l->staged, s->layers_fd, name) < 0)
                r = -errno;
        return r < 0 ? err_errno(e, r, "moving a layer to layers/%s", name) : 0;
}

static int commit(struct publish *p, struct err *e)
{
        struct image_store *s = p->staging->store;
        AUTO(free) int64_t *numbers = calloc(p->n_layers, sizeof *numbers);
        struct catalog_image image = { p->domain, p->image, numbers, p->n_layers };
        int64_t id = 0;
        int r = 0;

        if (!numbers)
                return err_set(e, -ENOMEM, "out of memory");
        for (size_t i = 0; r >= 0 && i < p->n_layers; i++) {
                r = place_layer(p, &p->layers[i], e);
                numbers[i] = p->layers[i].n;
        }
        if (r >= 0)
                r = catalog_add_image(s, &image, &id, e);
        if (r >= 0)
                r = catalog_set_name(s, p->reference, p->account, p->is_public, id, e);
        if (r >= 0 && fsync(s->layers_fd) < 0)
                r = err_errno(e, -errno, "syncing images/layers");
        return r < 0 ? r : catalog_commit(s, e);
}

int publish_image(struct publish *p, struct err *e)
{
        int r = 0;

        for (size_t k = 0; r >= 0 && k < p->n_layers; k++)
                r = dress_layer(p, k, e);
        if (r >= 0 && syncfs(p->staging->fd) < 0)
                r = err_errno(e, -errno, "writing the image to the disk");
        if (r < 0)
                return r;
        r = catalog_begin(p->staging->store, e);
        if (r < 0)
                return r;
        r = commit(p, e);
        if (r < 0)
                catalog_rollback(p->staging->store);
        return r;
}
