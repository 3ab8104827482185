/* untar.c - see untar.h.  libarchive reads the tar (ustar, pax, GNU; sparse files, long names,
 * extended attributes); nothing of it writes to the disk: tree.c does.  Runs in vmm-fetch. */
#include "fetch/untar.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <limits.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "fetch/tarpath.h"

#define XATTRS_MAX 256U

struct untar {
        struct archive *a;
        struct stream *s;
        struct tree *t;
        struct result *res;
        const struct untar_limits *limits;
        struct untar_totals total;
        struct err stream_err; /* why the stream failed, in libarchive's callback */
        int stream_result;
        char path[PATH_MAX], target[PATH_MAX];
};

static la_ssize_t on_read(struct archive *a, void *arg, const void **ret)
{
        struct untar *u = arg;
        ssize_t n = stream_next(u->s, ret, &u->stream_err);

        if (n < 0) {
                u->stream_result = (int) n;
                archive_set_error(a, EIO, "stream");
        }
        return n;
}

/* libarchive failed: the stream's own reason is the better one. */
static int broken(struct untar *u, struct err *e)
{
        const char *why = archive_error_string(u->a);

        if (u->stream_result < 0)
                return err_copy(e, &u->stream_err);
        return err_set(e, -EBADMSG, "the tar is damaged: %s", why ? why : "unknown reason");
}

static void read_meta(struct archive_entry *en, struct tree_xattr *xattrs, struct tree_meta *ret)
{
        const char *name;
        const void *value;
        size_t size;

        *ret = (struct tree_meta){
                .uid = (uint64_t) archive_entry_uid(en),
                .gid = (uint64_t) archive_entry_gid(en),
                .mode = archive_entry_mode(en) & 07777,
                .mtime = { archive_entry_mtime(en), archive_entry_mtime_nsec(en) },
                .xattrs = xattrs,
        };
        (void) archive_entry_xattr_reset(en);
        while (ret->n_xattrs < XATTRS_MAX &&
               archive_entry_xattr_next(en, &name, &value, &size) == ARCHIVE_OK)
                if (name && tree_xattr_allowed(name))
                        xattrs[ret->n_xattrs++] = (struct tree_xattr){ name, value, size };
}

static int count_bytes(struct untar *u, uint64_t n, struct err *e)
{
        if (n > u->limits->max_bytes || u->total.bytes > u->limits->max_bytes - n)
                return err_set(e, -EFBIG, "unpacked it has more than the %llu MiB that are allowed",
                               (unsigned long long) (u->limits->max_bytes >> 20));
        u->total.bytes += n;
        result_unpacked(u->res, u->total.bytes);
        return 0;
}

/* The blocks of one file, holes left out. */
static int write_content(struct untar *u, int fd, uint64_t size, struct err *e)
{
        const void *p;
        la_int64_t at;
        uint64_t end = 0;
        size_t n;
        int r;

        while ((r = archive_read_data_block(u->a, &p, &n, &at)) == ARCHIVE_OK) {
                size_t done = 0;

                if (at < 0 || (uint64_t) at > size || n > size - (uint64_t) at)
                        return err_set(e, -EBADMSG, "'%.200s': data beyond its end", u->path);
                while (done < n) {
                        ssize_t w = pwrite(fd, (const char *) p + done, n - done,
                                           at + (la_int64_t) done);

                        if (w < 0 && errno == EINTR)
                                continue;
                        if (w < 0 && errno == ENOSPC)
                                return err_set(
                                        e, -ENOSPC,
                                        "'%.200s': no space is left on the host's image store",
                                        u->path);
                        if (w < 0)
                                return err_errno(e, -errno, "'%.200s'", u->path);
                        done += (size_t) w;
                }
                end = (uint64_t) at + n;
        }
        if (r != ARCHIVE_EOF)
                return broken(u, e);
        if (end < size && ftruncate(fd, (off_t) size) < 0) /* a hole at the end */
                return err_errno(e, -errno, "'%.200s'", u->path);
        return 0;
}

static int put_file(struct untar *u, struct archive_entry *en, const struct tree_meta *m,
                    struct err *e)
{
        la_int64_t size = archive_entry_size(en);
        AUTO(fd) int fd = -EBADF;
        int r;

        if (size < 0)
                return err_set(e, -EBADMSG, "'%.200s': negative size", u->path);
        r = count_bytes(u, (uint64_t) size, e);
        if (r < 0)
                return r;
        fd = tree_file(u->t, u->path, e);
        if (fd < 0)
                return fd;
        if (size > 0) {
                r = write_content(u, fd, (uint64_t) size, e);
                if (r < 0)
                        return r;
        }
        return tree_file_end(u->t, fd, u->path, m, e);
}

static int put_hardlink(struct untar *u, const char *to, struct err *e)
{
        int r = tarpath_clean(to, u->target, e);

        if (r < 0)
                return err_wrap(e, r, "'%.200s' is a hard link", u->path);
        return tree_hardlink(u->t, u->path, u->target, e);
}

static int put_plain(struct untar *u, struct archive_entry *en, struct err *e)
{
        struct tree_xattr xattrs[XATTRS_MAX];
        const char *hard = archive_entry_hardlink(en), *soft;
        struct tree_meta m;

        if (hard)
                return put_hardlink(u, hard, e);
        read_meta(en, xattrs, &m);
        switch (archive_entry_filetype(en)) {
        case AE_IFREG:
                return put_file(u, en, &m, e);
        case AE_IFDIR:
                return tree_dir(u->t, u->path, &m, e);
        case AE_IFLNK:
                soft = archive_entry_symlink(en);
                if (!soft || !*soft || strlen(soft) >= PATH_MAX)
                        return err_set(e, -EINVAL, "'%.200s': a link to nowhere", u->path);
                return tree_symlink(u->t, u->path, soft, &m, e);
        case AE_IFIFO:
                return tree_fifo(u->t, u->path, &m, e);
        default:
                return 0; /* device nodes and sockets are left out */
        }
}

static int put_entry(struct untar *u, struct archive_entry *en, struct err *e)
{
        const char *raw = archive_entry_pathname(en);
        enum tarpath_mark mark = TARPATH_PLAIN;
        int r;

        if (!raw)
                return err_set(e, -EINVAL, "entry %llu has a name that cannot be read",
                               (unsigned long long) u->total.entries);
        r = tarpath_clean(raw, u->path, e);
        if (r >= 0)
                r = tarpath_mark(u->path, &mark, e);
        if (r < 0)
                return r;
        switch (mark) {
        case TARPATH_WHITEOUT:
                return tree_whiteout(u->t, u->path, e);
        case TARPATH_OPAQUE:
                return tree_opaque(u->t, u->path, e);
        case TARPATH_SKIP:
                return 0;
        case TARPATH_PLAIN:
                break;
        }
        return put_plain(u, en, e);
}

static int read_all(struct untar *u, struct err *e)
{
        if (archive_read_support_format_tar(u->a) != ARCHIVE_OK ||
            archive_read_support_format_empty(u->a) != ARCHIVE_OK ||
            archive_read_set_format_option(u->a, "tar", "mac-ext", NULL) < ARCHIVE_WARN ||
            archive_read_open(u->a, u, NULL, on_read, NULL) != ARCHIVE_OK)
                return broken(u, e);
        for (;;) {
                struct archive_entry *en = NULL;
                int r = archive_read_next_header(u->a, &en);

                if (r == ARCHIVE_EOF)
                        return 0;
                if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
                        return broken(u, e);
                if (++u->total.entries > u->limits->max_entries)
                        return err_set(e, -E2BIG, "it has more than %llu entries",
                                       (unsigned long long) u->limits->max_entries);
                r = put_entry(u, en, e);
                if (r < 0)
                        return r;
        }
}

int untar(struct stream *s, struct tree *t, const struct untar_limits *limits, struct result *res,
          struct untar_totals *ret, struct err *e)
{
        AUTO(free) struct untar *u = calloc(1, sizeof *u);
        int r;

        if (!u)
                return err_set(e, -ENOMEM, "out of memory");
        u->s = s;
        u->t = t;
        u->res = res;
        u->limits = limits;
        u->a = archive_read_new();
        if (!u->a)
                return err_set(e, -ENOMEM, "out of memory");
        r = read_all(u, e);
        (void) archive_read_free(u->a);
        if (r >= 0)
                r = stream_drain(s, e); /* what pads the end belongs to the digest */
        if (r >= 0)
                *ret = u->total;
        return r;
}
