/* storetar.c - see storetar.h.  libarchive reads the tar (ustar, pax, GNU; sparse files, long names,
 * extended attributes); nothing of it writes to the disk.  Runs in vmm-fetch.
 *
 * What always holds: a file of the staging directory is created with O_EXCL below a descriptor of
 * ours and has a name that we made, never one from the tar. */
#include "fetch/storetar.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "fetch/tarpath.h"
#include "store/bytes.h"
#include "store/layer_log.h"
#include "store/pack.h"

#define XATTRS_MAX     256U
#define ZEROS_BYTES    4096U
#define MTIME_NS_LIMIT 1000000000L

struct storetar {
        struct archive *a;
        struct stream *s;
        struct result *res;
        struct storetar_out out;
        struct storetar_limits limits;
        struct layer_log *log;
        struct pack *pack;
        uint32_t n_objects;
        struct storetar_totals total;
        uint64_t content_bytes;
        struct err stream_err; /* why the stream failed, in libarchive's callback */
        int stream_result;
        char path[PATH_MAX], target[PATH_MAX];
        struct layer_xattr list[XATTRS_MAX];
        uint8_t xattrs[LAYER_XATTRS_MAX];
};

static la_ssize_t on_read(struct archive *a, void *arg, const void **ret)
{
        struct storetar *t = arg;
        ssize_t n = stream_next(t->s, ret, &t->stream_err);

        if (n < 0) {
                t->stream_result = (int) n;
                archive_set_error(a, EIO, "stream");
        }
        return n;
}

/* libarchive failed: the stream's own reason is the better one. */
static int broken(struct storetar *t, struct err *e)
{
        const char *why = archive_error_string(t->a);

        if (t->stream_result < 0)
                return err_copy(e, &t->stream_err);
        return err_set(e, -EBADMSG, "the tar is damaged: %s", why ? why : "unknown reason");
}

/* --- attributes --- */

static int compare_xattrs(const void *a, const void *b)
{
        const struct layer_xattr *x = a, *y = b;

        return layer_name_compare(x->name, x->name_len, y->name, y->name_len);
}

/* File capabilities as version 2: the id that version 3 adds belongs to whoever made the layer.
 * False: no kernel would honour it. */
static bool fix_capability(struct layer_xattr *x, uint8_t cap[XATTR_CAPS_SZ_2])
{
        if (x->value_len != XATTR_CAPS_SZ_2 && x->value_len != XATTR_CAPS_SZ_3)
                return false;
        memcpy(cap, x->value, XATTR_CAPS_SZ_2);
        put32(cap, VFS_CAP_REVISION_2 | (get32(cap) & VFS_CAP_FLAGS_EFFECTIVE));
        x->value = cap;
        x->value_len = XATTR_CAPS_SZ_2;
        return true;
}

/* Those that a layer may bring, sorted; of two with one name the first. */
static int read_xattrs(struct storetar *t, struct archive_entry *en, struct layer_entry *n,
                       struct err *e)
{
        struct layer_xattr *list = t->list;
        uint8_t cap[XATTR_CAPS_SZ_2];
        size_t count = 0, size, used = 0;
        const char *name;
        const void *value;

        (void) archive_entry_xattr_reset(en);
        while (archive_entry_xattr_next(en, &name, &value, &size) == ARCHIVE_OK) {
                struct layer_xattr x = { name, name ? strlen(name) : 0, value, size };

                if (!name || !layer_xattr_allowed(name, x.name_len) ||
                    (str_eq(name, "security.capability") && !fix_capability(&x, cap)))
                        continue;
                if (count == XATTRS_MAX)
                        return err_set(e, -E2BIG, "'%.200s' has more than %u attributes", t->path,
                                       XATTRS_MAX);
                list[count++] = x;
        }
        qsort(list, count, sizeof *list, compare_xattrs);
        for (size_t i = 0; i < count; i++) {
                size_t room = sizeof t->xattrs - used;
                size_t put = i > 0 && compare_xattrs(&list[i - 1], &list[i]) == 0
                                     ? SIZE_MAX
                                     : layer_xattr_put(t->xattrs + used, room, &list[i]);

                if (put == 0)
                        return err_set(e, -E2BIG, "'%.200s': its attributes are too large",
                                       t->path);
                used += put == SIZE_MAX ? 0 : put;
        }
        n->xattrs = t->xattrs;
        n->xattrs_len = used;
        return 0;
}

static int read_meta(struct storetar *t, struct archive_entry *en, enum layer_type type,
                     struct layer_entry *ret, struct err *e)
{
        la_int64_t uid = archive_entry_uid(en), gid = archive_entry_gid(en);
        long ns = archive_entry_mtime_nsec(en);

        if (uid < 0 || uid > LAYER_ID_MAX || gid < 0 || gid > LAYER_ID_MAX)
                return err_set(e, -ERANGE, "'%.200s': owner %lld:%lld is outside 0..%u", t->path,
                               (long long) uid, (long long) gid, LAYER_ID_MAX);
        *ret = (struct layer_entry){
                .type = type,
                .mode = archive_entry_mode(en) & 07777,
                .uid = (uint32_t) uid,
                .gid = (uint32_t) gid,
                .mtime_s = archive_entry_mtime(en),
                .mtime_ns = ns >= 0 && ns < MTIME_NS_LIMIT ? (uint32_t) ns : 0,
        };
        if (type == LAYER_DIR || type == LAYER_FILE)
                return read_xattrs(t, en, ret, e);
        return 0;
}

/* --- content --- */

/* An object that is being written, or the pack. */
struct target {
        int object; /* -EBADF: the pack */
        uint64_t at, size;
};

static int write_object(struct storetar *t, struct target *to, const uint8_t *p, size_t n,
                        struct err *e)
{
        int r = fd_write_full(to->object, p, n);

        if (r == -ENOSPC || r == -EDQUOT)
                return err_set(e, r, "'%.200s': no space is left on the host's image store",
                               t->path);
        return r < 0 ? err_errno(e, r, "'%.200s'", t->path) : 0;
}

/* Zeros where the tar has none, which only a tar with a lie in it has: sparse files are no objects. */
static int fill_object(struct storetar *t, struct target *to, uint64_t until, struct err *e)
{
        static const uint8_t zeros[ZEROS_BYTES];
        int r = 0;

        while (r >= 0 && to->at < until) {
                uint64_t left = until - to->at;
                size_t n = left < sizeof zeros ? (size_t) left : sizeof zeros;

                r = write_object(t, to, zeros, n, e);
                to->at += n;
        }
        return r;
}

static int write_block(struct storetar *t, struct target *to, uint64_t at, const uint8_t *p,
                       size_t n, struct err *e)
{
        int r;

        if (at > to->size || n > to->size - at || at < to->at)
                return err_set(e, -EBADMSG, "'%.200s': data beyond its end", t->path);
        t->content_bytes += n;
        result_unpacked(t->res, t->content_bytes);
        if (to->object < 0) {
                r = pack_file_write(t->pack, at, p, n, e);
        } else {
                r = fill_object(t, to, at, e);
                if (r >= 0)
                        r = write_object(t, to, p, n, e);
        }
        to->at = at + n;
        return r;
}

static int copy_content(struct storetar *t, struct target *to, struct err *e)
{
        const void *p;
        la_int64_t at;
        size_t n;
        int r;

        if (to->size == 0)
                return 0;
        while ((r = archive_read_data_block(t->a, &p, &n, &at)) == ARCHIVE_OK) {
                r = at < 0 ? err_set(e, -EBADMSG, "'%.200s': data before its begin", t->path)
                           : write_block(t, to, (uint64_t) at, p, n, e);
                if (r < 0)
                        return r;
        }
        return r == ARCHIVE_EOF ? 0 : broken(t, e);
}

/* A file of its own, by number: the publisher hashes and names it. */
static int put_object(struct storetar *t, struct layer_entry *n, struct err *e)
{
        struct target to = { .object = -EBADF, .size = n->size };
        AUTO(fd) int fd = -EBADF;
        char name[16];
        int r;

        (void) snprintf(name, sizeof name, "%u", t->n_objects);
        fd = openat(t->out.objects, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                    0600);
        if (fd < 0)
                return err_errno(e, -errno, "creating an object");
        to.object = fd;
        r = copy_content(t, &to, e);
        if (r >= 0)
                r = fill_object(t, &to, n->size, e);
        if (r < 0)
                return r;
        t->total.object_bytes += n->size;
        n->type = LAYER_OBJECT;
        n->object = t->n_objects++;
        return layer_log_add(t->log, t->path, n, NULL, e);
}

static int put_packed(struct storetar *t, struct layer_entry *n, bool sparse, struct err *e)
{
        struct target to = { .object = -EBADF, .size = n->size };
        struct pack_file packed = { 0 };
        int r = pack_file_begin(t->pack, n->size, sparse, e);

        if (r >= 0)
                r = copy_content(t, &to, e);
        if (r < 0)
                return r;
        pack_file_end(t->pack, &packed);
        n->n_chunks = packed.n_chunks;
        n->chunk_bits = packed.chunk_bits;
        return layer_log_add(t->log, t->path, n, packed.chunks, e);
}

static int put_file(struct storetar *t, struct archive_entry *en, struct err *e)
{
        la_int64_t size = archive_entry_size(en);
        bool sparse = archive_entry_sparse_count(en) > 0;
        struct layer_entry n;
        int r = read_meta(t, en, LAYER_FILE, &n, e);

        if (r < 0)
                return r;
        if (size < 0)
                return err_set(e, -EBADMSG, "'%.200s': negative size", t->path);
        n.size = (uint64_t) size;
        if (sparse || t->out.threshold == 0 || n.size < t->out.threshold)
                return put_packed(t, &n, sparse, e);
        if (n.size > t->limits.max_bytes || n.size > LAYER_SIZE_MAX ||
            t->total.object_bytes > t->limits.max_bytes - n.size)
                return err_set(e, -EFBIG, "unpacked it has more than the %llu MiB that are allowed",
                               (unsigned long long) (t->limits.max_bytes >> 20));
        return put_object(t, &n, e);
}

static int put_symlink(struct storetar *t, struct archive_entry *en, struct err *e)
{
        const char *target = archive_entry_symlink(en);
        struct layer_entry n;
        int r = read_meta(t, en, LAYER_SYMLINK, &n, e);

        if (r < 0)
                return r;
        if (!target || !*target || strlen(target) >= PATH_MAX)
                return err_set(e, -EINVAL, "'%.200s': a link to nowhere", t->path);
        n.target = target;
        n.size = strlen(target);
        return layer_log_add(t->log, t->path, &n, NULL, e);
}

/* --- entries --- */

static int put_hardlink(struct storetar *t, const char *to, struct err *e)
{
        int r = tarpath_clean(to, t->target, e);

        if (r < 0)
                return err_wrap(e, r, "'%.200s' is a hard link", t->path);
        return layer_log_link(t->log, t->path, t->target, e);
}

static int put_plain(struct storetar *t, struct archive_entry *en, struct err *e)
{
        const char *hard = archive_entry_hardlink(en);
        struct layer_entry n;
        enum layer_type type;
        int r;

        if (hard)
                return put_hardlink(t, hard, e);
        switch (archive_entry_filetype(en)) {
        case AE_IFREG:
                return put_file(t, en, e);
        case AE_IFLNK:
                return put_symlink(t, en, e);
        case AE_IFDIR:
                type = LAYER_DIR;
                break;
        case AE_IFIFO:
                type = LAYER_FIFO;
                break;
        case AE_IFSOCK:
                type = LAYER_SOCKET;
                break;
        default:
                return 0; /* device nodes are left out */
        }
        r = read_meta(t, en, type, &n, e);
        return r < 0 ? r : layer_log_add(t->log, t->path, &n, NULL, e);
}

static int put_entry(struct storetar *t, struct archive_entry *en, struct err *e)
{
        const char *raw = archive_entry_pathname(en);
        enum tarpath_mark mark = TARPATH_PLAIN;
        int r;

        if (!raw)
                return err_set(e, -EINVAL, "entry %llu has a name that cannot be read",
                               (unsigned long long) t->total.entries);
        r = tarpath_clean(raw, t->path, e);
        if (r >= 0)
                r = tarpath_mark(t->path, &mark, e);
        if (r < 0)
                return r;
        switch (mark) {
        case TARPATH_WHITEOUT:
                return layer_log_whiteout(t->log, t->path, e);
        case TARPATH_OPAQUE:
                return layer_log_opaque(t->log, t->path, e);
        case TARPATH_SKIP:
                return 0;
        case TARPATH_PLAIN:
                break;
        }
        return put_plain(t, en, e);
}

static int read_all(struct storetar *t, struct err *e)
{
        if (archive_read_support_format_tar(t->a) != ARCHIVE_OK ||
            archive_read_support_format_empty(t->a) != ARCHIVE_OK ||
            archive_read_set_format_option(t->a, "tar", "mac-ext", NULL) < ARCHIVE_WARN ||
            archive_read_open(t->a, t, NULL, on_read, NULL) != ARCHIVE_OK)
                return broken(t, e);
        for (;;) {
                struct archive_entry *en = NULL;
                int r = archive_read_next_header(t->a, &en);

                if (r == ARCHIVE_EOF)
                        return 0;
                if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
                        return broken(t, e);
                if (++t->total.entries > t->limits.max_entries)
                        return err_set(e, -E2BIG, "it has more than %u entries",
                                       t->limits.max_entries);
                r = put_entry(t, en, e);
                if (r < 0)
                        return r;
        }
}

struct storetar *storetar_free(struct storetar *t)
{
        if (!t)
                return NULL;
        (void) archive_read_free(t->a);
        (void) layer_log_free(t->log);
        (void) pack_free(t->pack);
        free(t);
        return NULL;
}

int storetar_read(struct stream *s, const struct storetar_out *out,
                  const struct storetar_limits *limits, struct result *res, struct storetar **ret,
                  struct err *e)
{
        const struct layer_log_limits log = { .max_entries = limits->max_entries };
        AUTO(storetar_free) struct storetar *t = calloc(1, sizeof *t);
        int r;

        if (!t)
                return err_set(e, -ENOMEM, "out of memory");
        t->s = s;
        t->res = res;
        t->out = *out;
        t->limits = *limits;
        t->a = archive_read_new();
        if (!t->a)
                return err_set(e, -ENOMEM, "out of memory");
        r = layer_log_new(out->scratch, &log, &t->log, e);
        if (r >= 0)
                r = pack_new(out->pack, limits->max_bytes, &t->pack, e);
        if (r >= 0)
                r = read_all(t, e);
        if (r >= 0)
                r = stream_drain(s, e); /* what pads the end belongs to the digest */
        if (r >= 0)
                r = pack_end(t->pack, &t->total.pack_bytes, e);
        if (r >= 0 && t->total.pack_bytes > limits->max_bytes - t->total.object_bytes)
                r = err_set(e, -EFBIG, "unpacked it has more than the %llu MiB that are allowed",
                            (unsigned long long) (limits->max_bytes >> 20));
        if (r >= 0)
                *ret = TAKE(t);
        return r < 0 ? r : 0;
}

int storetar_finish(struct storetar *t, const uint8_t diff_id[LAYER_SHA_BYTES],
                    struct storetar_totals *ret, struct err *e)
{
        struct layer_totals totals = { .pack_bytes = t->total.pack_bytes,
                                       .threshold = t->out.threshold };
        int r;

        memcpy(totals.diff_id, diff_id, LAYER_SHA_BYTES);
        r = layer_log_finish(t->log, &totals, t->out.index, e);
        if (r >= 0)
                *ret = t->total;
        return r;
}
