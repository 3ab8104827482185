/* spool.c - see spool.h.  Names out of the tar are only keys of a map: what is created on the disk
 * is "f1", "f2"...  Runs in vmm-fetch. */
#include "fetch/spool.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/map.h"
#include "base/proc.h"
#include "base/str.h"
#include "fetch/tarpath.h"

#define FILES_MAX 4096U
#define LINKS_MAX 8

struct spool {
        int dir; /* borrowed */
        struct map *files;
        unsigned count;
        uint64_t bytes, max_bytes;
        struct stream *s; /* while reading */
        struct err stream_err;
        int stream_result;
};

static struct spool_file *file_free(struct spool_file *f)
{
        if (f)
                free(f->link);
        free(f);
        return NULL;
}

DEFINE_AUTO(struct spool_file *, file_free)

static la_ssize_t on_read(struct archive *a, void *arg, const void **ret)
{
        struct spool *p = arg;
        ssize_t n = stream_next(p->s, ret, &p->stream_err);

        if (n < 0) {
                p->stream_result = (int) n;
                archive_set_error(a, EIO, "stream");
        }
        return n;
}

static int broken(struct spool *p, struct archive *a, struct err *e)
{
        const char *why = archive_error_string(a);

        if (p->stream_result < 0)
                return err_copy(e, &p->stream_err);
        return err_set(e, -EBADMSG, "the upload is not a tar, or damaged: %s", why ? why : "?");
}

/* Content of the current entry to a new file, hashed on the way. */
static int write_file(struct spool *p, struct archive *a, struct spool_file *f, EVP_MD_CTX *md,
                      struct err *e)
{
        AUTO(fd)
        int fd =
                openat(p->dir, f->file, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        unsigned char sum[EVP_MAX_MD_SIZE];
        unsigned len = 0;
        char buf[65536];
        la_ssize_t n;
        int r;

        if (fd < 0)
                return err_errno(e, -errno, "writing the upload");
        while ((n = archive_read_data(a, buf, sizeof buf)) > 0) {
                f->size_bytes += (uint64_t) n;
                p->bytes += (uint64_t) n;
                if (p->bytes > p->max_bytes)
                        return err_set(e, -EFBIG,
                                       "the upload has more than the %llu MiB that are allowed",
                                       (unsigned long long) (p->max_bytes >> 20));
                if (EVP_DigestUpdate(md, buf, (size_t) n) != 1)
                        return err_set(e, -EIO, "SHA-256 failed");
                r = fd_write_full(fd, buf, (size_t) n);
                if (r == -ENOSPC)
                        return err_set(e, r, "no space is left on the host's image store");
                if (r < 0)
                        return err_errno(e, r, "writing the upload");
        }
        if (n < 0)
                return broken(p, a, e);
        if (EVP_DigestFinal_ex(md, sum, &len) != 1 || len != 32)
                return err_set(e, -EIO, "SHA-256 failed");
        memcpy(f->digest, "sha256:", 7);
        hex_encode(sum, len, f->digest + 7);
        return 0;
}

static int keep_file(struct spool *p, struct archive *a, struct spool_file *f, struct err *e)
{
        EVP_MD_CTX *md = EVP_MD_CTX_new();
        int r;

        if (!md || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1) {
                EVP_MD_CTX_free(md);
                return err_set(e, -ENOMEM, "out of memory");
        }
        (void) snprintf(f->file, sizeof f->file, "f%u", p->count);
        r = write_file(p, a, f, md, e);
        EVP_MD_CTX_free(md);
        return r;
}

/* A link's target as a path of the tar: relative to the link's own directory. */
static int keep_link(const char *path, const char *to, bool relative, struct spool_file *f,
                     struct err *e)
{
        char out[PATH_MAX], joined[2 * PATH_MAX];
        const char *slash = strrchr(path, '/');
        size_t dir = relative && slash && to[0] != '/' ? (size_t) (slash - path) : 0;

        while (dir > 0 && str_after(to, "../")) { /* "../OTHER/layer.tar", as Docker writes */
                to += 3;
                while (dir > 0 && path[dir - 1] != '/')
                        dir--;
                dir -= dir > 0;
        }
        (void) snprintf(joined, sizeof joined, "%.*s/%.4095s", (int) dir, path, to);
        if (tarpath_clean(joined, out, NULL) < 0)
                return err_set(e, -EINVAL, "'%.200s' links out of the upload", path);
        f->link = strdup(out);
        return f->link ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static int take_entry(struct spool *p, struct archive *a, struct archive_entry *en, struct err *e)
{
        AUTO(file_free) struct spool_file *f = calloc(1, sizeof *f), *old = NULL;
        const char *raw = archive_entry_pathname(en), *hard = archive_entry_hardlink(en);
        char path[PATH_MAX];
        int r;

        if (!f)
                return err_set(e, -ENOMEM, "out of memory");
        if (!raw)
                return err_set(e, -EINVAL, "a name in the upload cannot be read");
        if (tarpath_clean(raw, path, e) < 0)
                return -EINVAL;
        if (!hard && archive_entry_filetype(en) != AE_IFREG &&
            archive_entry_filetype(en) != AE_IFLNK)
                return 0;
        if (++p->count > FILES_MAX)
                return err_set(e, -E2BIG, "the upload has more than %u files", FILES_MAX);
        if (hard)
                r = keep_link(path, hard, false, f, e);
        else if (archive_entry_filetype(en) == AE_IFLNK)
                r = keep_link(path, archive_entry_symlink(en) ? archive_entry_symlink(en) : "",
                              true, f, e);
        else
                r = keep_file(p, a, f, e);
        if (r < 0)
                return r;
        old = map_get(p->files, path);
        if (map_set(p->files, path, f) < 0) {
                old = NULL;
                return err_set(e, -ENOMEM, "out of memory");
        }
        f = NULL; /* the map's */
        return 0;
}

static int read_tar(struct spool *p, struct archive *a, struct err *e)
{
        if (archive_read_support_format_tar(a) != ARCHIVE_OK ||
            archive_read_support_format_empty(a) != ARCHIVE_OK ||
            archive_read_open(a, p, NULL, on_read, NULL) != ARCHIVE_OK)
                return broken(p, a, e);
        for (;;) {
                struct archive_entry *en = NULL;
                int r = archive_read_next_header(a, &en);

                if (r == ARCHIVE_EOF)
                        return 0;
                if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
                        return broken(p, a, e);
                r = take_entry(p, a, en, e);
                if (r < 0)
                        return r;
        }
}

int spool_new(struct stream *s, int dir, uint64_t max_bytes, struct spool **ret, struct err *e)
{
        AUTO(spool_free) struct spool *p = calloc(1, sizeof *p);
        struct archive *a;
        int r;

        if (!p)
                return err_set(e, -ENOMEM, "out of memory");
        p->dir = dir;
        p->max_bytes = max_bytes;
        p->s = s;
        p->files = map_new();
        a = archive_read_new();
        r = p->files && a ? read_tar(p, a, e) : err_set(e, -ENOMEM, "out of memory");
        (void) archive_read_free(a);
        if (r >= 0)
                r = stream_drain(s, e);
        if (r < 0)
                return r;
        *ret = TAKE(p);
        return 0;
}

struct spool *spool_free(struct spool *p)
{
        if (!p)
                return NULL;
        for (struct map_entry *m = p->files ? map_first(p->files) : NULL; m; m = map_next(m))
                (void) file_free(map_value(m));
        (void) map_free(p->files);
        free(p);
        return NULL;
}

const struct spool_file *spool_find(const struct spool *p, const char *path)
{
        char clean[PATH_MAX];
        const struct spool_file *f;

        if (tarpath_clean(path, clean, NULL) < 0)
                return NULL;
        f = map_get(p->files, clean);
        for (int i = 0; f && f->link && i < LINKS_MAX; i++)
                f = map_get(p->files, f->link);
        return f && !f->link ? f : NULL;
}

int spool_read(const struct spool *p, const char *path, size_t max, char **ret, size_t *ret_len,
               struct err *e)
{
        const struct spool_file *f = spool_find(p, path);
        int r;

        if (!f)
                return err_set(e, -ENOENT, "the upload has no %.200s", path);
        r = fd_read_file(p->dir, f->file, max, ret, ret_len);
        if (r == -EFBIG)
                return err_set(e, r, "%.200s has more than %zu bytes", path, max);
        return r < 0 ? err_errno(e, r, "%.200s", path) : 0;
}
