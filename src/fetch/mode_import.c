/* mode_import.c - an uploaded image: OCI layout or docker-archive, as a tar, compressed or not.
 * Runs in vmm-fetch.
 *
 * The tar may hold its parts in any order, so it is spooled first and understood afterwards.  Every
 * part of an OCI layout must hash to the name it has; parts of a docker-archive have no such names,
 * their layers are held against the configuration's diff ids when they are unpacked. */
#include <errno.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "fetch/manifest.h"
#include "fetch/mode.h"
#include "fetch/spool.h"
#include "fetch/stream.h"
#include "model/limits.h"

#define INDEX_DEPTH 4 /* index.json -> index -> manifest is usual */

static void blob_path(const char *digest, char *buf, size_t size)
{
        (void) snprintf(buf, size, "blobs/sha256/%s", digest + strlen("sha256:"));
}

/* A blob of the layout whose bytes hash to its name. */
static const struct spool_file *find_blob(const struct spool *p, const char *digest)
{
        char path[128];
        const struct spool_file *f;

        blob_path(digest, path, sizeof path);
        f = spool_find(p, path);
        return f && str_eq(f->digest, digest) ? f : NULL;
}

static int read_blob(const struct spool *p, const char *digest, size_t max, char **ret,
                     size_t *ret_len, struct err *e)
{
        char path[128];

        blob_path(digest, path, sizeof path);
        if (spool_find(p, path) && !find_blob(p, digest))
                return err_set(e, -EBADMSG, "blob %s: its digest is %s", digest,
                               spool_find(p, path)->digest);
        return spool_read(p, path, max, ret, ret_len, e);
}

static int set_file(struct fetch_layer *l, const struct spool_file *f)
{
        free(l->file);
        l->file = strdup(f->file);
        return l->file ? 0 : -ENOMEM;
}

/* --- OCI layout --- */

static int walk_index(const struct spool *p, const char *arch, struct manifest *m,
                      char digest[static 72], struct err *e)
{
        AUTO(free) char *text = NULL;
        size_t len = 0;
        int r = spool_read(p, "index.json", LIMIT_MANIFEST_BYTES, &text, &len, e);

        for (int depth = 0; r >= 0; depth++) {
                r = manifest_parse(text, len, arch, m, e);
                if (r < 0 || m->kind == MANIFEST_IMAGE)
                        break;
                if (depth >= INDEX_DEPTH)
                        return err_set(e, -ELOOP, "indexes point to indexes too often");
                memcpy(digest, m->chosen, 72);
                free(text);
                text = NULL;
                r = read_blob(p, digest, LIMIT_MANIFEST_BYTES, &text, &len, e);
        }
        return r;
}

static int read_layout(const struct spool *p, const char *arch, struct fetch_image *image,
                       struct err *e)
{
        AUTO(manifest_done) struct manifest m = { 0 };
        AUTO(free) char *text = NULL;
        char digest[72] = "";
        size_t len = 0;
        int r = walk_index(p, arch, &m, digest, e);

        if (r >= 0 && !*digest)
                r = err_set(e, -EINVAL, "index.json is not an index");
        if (r >= 0)
                r = read_blob(p, m.config_digest, LIMIT_CONFIG_BYTES, &text, &len, e);
        if (r >= 0) {
                image->digest = strdup(digest);
                image->config_digest = strdup(m.config_digest);
                if (!image->digest || !image->config_digest)
                        r = err_set(e, -ENOMEM, "out of memory");
        }
        if (r >= 0)
                r = manifest_config(text, len, arch, &m, image, e);
        for (size_t i = 0; r >= 0 && i < image->n_layers; i++) {
                struct fetch_layer *l = &image->layers[i];
                const struct spool_file *f = find_blob(p, l->digest);

                if (!f || f->size_bytes != l->size_bytes)
                        r = err_set(e, -EBADMSG, "layer %zu (%s) is missing or damaged", i + 1,
                                    l->digest);
                else if (set_file(l, f) < 0)
                        r = err_set(e, -ENOMEM, "out of memory");
        }
        return r;
}

/* --- docker-archive --- */

/* manifest.json's single entry into a manifest without media types. */
static int archive_layers(const struct spool *p, char *const *paths, struct manifest *m,
                          struct err *e)
{
        size_t n = strv_len(paths);

        if (n == 0)
                return err_set(e, -ENOTSUP, "the image has no layers: there is nothing to run");
        if (n > LIMIT_LAYERS)
                return err_set(e, -E2BIG, "the image has %zu layers, at most %u are allowed", n,
                               LIMIT_LAYERS);
        m->layers = calloc(n, sizeof *m->layers);
        if (!m->layers)
                return err_set(e, -ENOMEM, "out of memory");
        m->n_layers = n;
        for (size_t i = 0; i < n; i++) {
                const struct spool_file *f = spool_find(p, paths[i]);

                if (!f)
                        return err_set(e, -ENOENT, "the upload has no %.200s", paths[i]);
                m->layers[i].digest = strdup(f->digest);
                m->layers[i].size_bytes = f->size_bytes;
                if (!m->layers[i].digest || set_file(&m->layers[i], f) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        return 0;
}

static int read_archive(const struct spool *p, const char *arch, struct fetch_image *image,
                        struct err *e)
{
        AUTO(manifest_done) struct manifest m = { 0 };
        AUTO(strv_free) char **layers = NULL;
        AUTO(free) char *text = NULL, *config = NULL;
        const struct spool_file *f = NULL;
        size_t len = 0;
        int r = spool_read(p, "manifest.json", LIMIT_MANIFEST_BYTES, &text, &len, e);

        if (r >= 0)
                r = manifest_archive(text, len, &config, &layers, e);
        if (r >= 0) {
                free(text);
                text = NULL;
                r = spool_read(p, config, LIMIT_CONFIG_BYTES, &text, &len, e);
        }
        if (r >= 0)
                r = archive_layers(p, layers, &m, e);
        if (r >= 0)
                r = manifest_config(text, len, arch, &m, image, e);
        if (r < 0)
                return r;
        f = spool_find(p, config);
        image->digest = strdup(f->digest); /* what Docker calls the image's id */
        image->config_digest = strdup(f->digest);
        return image->digest && image->config_digest ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static void on_bytes(void *arg, uint64_t bytes)
{
        result_progress(arg, bytes);
}

static int read_upload(const struct mode_context *c, int dir, struct spool **ret, struct err *e)
{
        AUTO(stream_free) struct stream *s = NULL;
        struct stream *raw = NULL;
        struct tap *tap = NULL;
        int r = stream_fd_new(c->input, &raw, e);

        if (r >= 0)
                r = stream_tap_new(raw, &raw, &tap, e);
        if (r < 0)
                return r;
        tap_watch(tap, on_bytes, c->res);
        r = stream_decode_new(raw, &s, e);
        return r < 0 ? r : spool_new(s, dir, c->req->max_bytes, ret, e);
}

int mode_import(const struct mode_context *c, int root, struct err *e)
{
        AUTO(fetch_image_done) struct fetch_image image = { 0 };
        AUTO(spool_free) struct spool *spool = NULL;
        AUTO(fd) int top = root, dir = -EBADF;
        int r;

        if (mkdirat(top, FETCH_IMPORT_DIR, 0700) < 0)
                return err_errno(e, -errno, "making the spool");
        dir = fd_open_beneath(top, FETCH_IMPORT_DIR, O_RDONLY | O_DIRECTORY, 0);
        if (dir < 0)
                return err_errno(e, dir, "opening the spool");
        r = read_upload(c, dir, &spool, e);
        if (r < 0)
                return r;
        if (spool_find(spool, "index.json"))
                r = read_layout(spool, c->req->architecture, &image, e);
        else if (spool_find(spool, "manifest.json"))
                r = read_archive(spool, c->req->architecture, &image, e);
        else
                r = err_set(
                        e, -EINVAL,
                        "the upload is neither an OCI layout (index.json) nor a docker-archive (manifest.json)");
        if (r >= 0 && result_image(c->res, &image) < 0)
                r = err_set(e, -EIO, "reporting");
        return r < 0 ? r : result_done(c->res, 0, 0);
}
