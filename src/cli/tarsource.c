/* tarsource.c - see tarsource.h.  Runs in tensoronecli, over the user's own files.
 *
 * Theory of operation.  The upload pulls; libarchive pushes.  So a directory is packed one step at
 * a time (an entry's header, or one piece of its file), into a buffer, whenever that is empty.
 * Entries come in a fixed order: the small files that name everything first, then the rest by
 * name.  Always holds: a file that changes its size meanwhile is an error, never a bad archive. */
#include "cli/tarsource.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"

#define PIECE     (256U << 10)
#define DEPTH_MAX 16

struct tar_source {
        int fd; /* the tar, or the directory */
        uint64_t total, done;
        /* a directory only */
        struct archive *tar; /* NULL: pass fd through */
        char **names;        /* relative paths */
        size_t next;
        bool closed;
        int file;      /* the entry under way, or -EBADF */
        uint64_t left; /* of it */
        struct strbuf out;
        char *piece;
};

static la_ssize_t on_write(struct archive *a, void *arg, const void *data, size_t len)
{
        struct tar_source *s = arg;

        strbuf_add(&s->out, data, len);
        if (!s->out.failed)
                return (la_ssize_t) len;
        archive_set_error(a, ENOMEM, "out of memory");
        return -1;
}

/* Before everything else, in this order; then by name. */
static int rank(const char *name)
{
        static const char *const first[] = { "oci-layout", "index.json", "manifest.json",
                                             "repositories" };

        for (size_t i = 0; i < NELEM(first); i++)
                if (str_eq(name, first[i]))
                        return (int) i;
        return (int) NELEM(first);
}

static int compare(const void *a, const void *b)
{
        const char *x = *(char *const *) a, *y = *(char *const *) b;

        return rank(x) != rank(y) ? rank(x) - rank(y) : strcmp(x, y);
}

static int add_names(struct tar_source *s, const char *dir, unsigned depth, struct err *e);

/* One name below @dir ("" for the top): note it, and go into it when it is a directory. */
static int add_name(struct tar_source *s, const char *dir, const char *name, unsigned depth,
                    struct err *e)
{
        AUTO(free) char *path = str_fmt("%s%s%s", dir, *dir ? "/" : "", name);
        struct stat st;

        if (!path)
                return err_set(e, -ENOMEM, "out of memory");
        if (fstatat(s->fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return err_errno(e, -errno, "%s", path);
        if (S_ISDIR(st.st_mode))
                return add_names(s, path, depth + 1, e);
        if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
                return err_set(e, -EINVAL, "%s is neither a file nor a link", path);
        s->total += 512 + ((uint64_t) (S_ISREG(st.st_mode) ? st.st_size : 0) + 511) / 512 * 512;
        return strv_push(&s->names, path) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

static int add_names(struct tar_source *s, const char *dir, unsigned depth, struct err *e)
{
        int fd, r = 0;
        DIR *d;

        if (depth > DEPTH_MAX)
                return err_set(e, -ELOOP, "%s: more than %d directories deep", dir, DEPTH_MAX);
        fd = fd_open_beneath(s->fd, *dir ? dir : ".", O_RDONLY | O_DIRECTORY, 0);
        if (fd < 0)
                return err_errno(e, fd, "%s", *dir ? dir : "the directory");
        d = fdopendir(fd);
        if (!d) {
                (void) fd_close(fd);
                return err_set(e, -ENOMEM, "out of memory");
        }
        while (r >= 0) {
                const struct dirent *de = readdir(d);

                if (!de)
                        break;
                if (!str_eq(de->d_name, ".") && !str_eq(de->d_name, ".."))
                        r = add_name(s, dir, de->d_name, depth, e);
        }
        (void) closedir(d);
        return r;
}

static int open_directory(struct tar_source *s, const char *path, struct err *e)
{
        int r = add_names(s, "", 0, e);

        if (r < 0)
                return err_wrap(e, r, "%s", path);
        if (faccessat(s->fd, "index.json", F_OK, 0) < 0 &&
            faccessat(s->fd, "manifest.json", F_OK, 0) < 0)
                return err_set(e, -EINVAL,
                               "%s holds no image: neither index.json (an OCI layout) "
                               "nor manifest.json (docker save)",
                               path);
        qsort(s->names, strv_len(s->names), sizeof *s->names, compare);
        s->total += 1024; /* the end of the archive */
        s->piece = malloc(PIECE);
        s->tar = archive_write_new();
        if (!s->piece || !s->tar || archive_write_set_format_pax_restricted(s->tar) != ARCHIVE_OK ||
            archive_write_set_bytes_per_block(s->tar, 0) != ARCHIVE_OK ||
            archive_write_open(s->tar, s, NULL, on_write, NULL) != ARCHIVE_OK)
                return err_set(e, -ENOMEM, "out of memory");
        return 0;
}

int tar_source_open(const char *path, struct tar_source **ret, struct err *e)
{
        AUTO(tar_source_free) struct tar_source *s = calloc(1, sizeof *s);
        struct stat st;
        int r;

        if (!s)
                return err_set(e, -ENOMEM, "out of memory");
        s->fd = s->file = -EBADF;
        s->fd = str_eq(path, "-") ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
                                  : open(path, O_RDONLY | O_CLOEXEC);
        if (s->fd < 0)
                return err_errno(e, -errno, "%s", path);
        if (fstat(s->fd, &st) < 0)
                return err_errno(e, -errno, "%s", path);
        if (S_ISDIR(st.st_mode)) {
                r = open_directory(s, path, e);
                if (r < 0)
                        return r;
        } else if (S_ISREG(st.st_mode)) {
                s->total = (uint64_t) st.st_size;
                if (s->total == 0)
                        return err_set(e, -EINVAL, "%s is empty", path);
        } else if (isatty(s->fd)) {
                return err_set(e, -EINVAL, "standard input is a terminal; pipe a tar archive in");
        }
        *ret = TAKE(s);
        return 0;
}

struct tar_source *tar_source_free(struct tar_source *s)
{
        if (!s)
                return NULL;
        if (s->tar)
                (void) archive_write_free(s->tar);
        (void) fd_close(s->fd);
        (void) fd_close(s->file);
        (void) strv_free(s->names);
        strbuf_done(&s->out);
        free(s->piece);
        free(s);
        return NULL;
}

static int tar_error(struct tar_source *s, struct err *e)
{
        return err_set(e, -EIO, "tar: %s", archive_error_string(s->tar));
}

static int set_link(const struct tar_source *s, const char *name, struct archive_entry *entry,
                    struct err *e)
{
        char target[4096];
        ssize_t n = readlinkat(s->fd, name, target, sizeof target - 1);

        if (n < 0)
                return err_errno(e, -errno, "%s", name);
        target[n] = '\0';
        archive_entry_set_filetype(entry, AE_IFLNK);
        archive_entry_set_symlink(entry, target);
        return 0;
}

/* Write the next entry's header and leave its file open in s->file. */
static int begin_entry(struct tar_source *s, struct archive_entry *entry, struct err *e)
{
        const char *name = s->names[s->next];
        struct stat st;
        int r;

        if (fstatat(s->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return err_errno(e, -errno, "%s", name);
        archive_entry_set_pathname(entry, name);
        archive_entry_set_perm(entry, 0644);
        archive_entry_set_filetype(entry, AE_IFREG);
        if (S_ISLNK(st.st_mode)) {
                r = set_link(s, name, entry, e);
                if (r < 0)
                        return r;
        } else {
                s->file = fd_open_beneath(s->fd, name, O_RDONLY, 0);
                if (s->file < 0)
                        return err_errno(e, s->file, "%s", name);
                if (fstat(s->file, &st) < 0)
                        return err_errno(e, -errno, "%s", name);
                s->left = (uint64_t) st.st_size;
                archive_entry_set_size(entry, st.st_size);
        }
        s->next++;
        return archive_write_header(s->tar, entry) == ARCHIVE_OK ? 0 : tar_error(s, e);
}

/* One piece of the open file, or its end. */
static int copy_piece(struct tar_source *s, struct err *e)
{
        size_t want = s->left < PIECE ? (size_t) s->left : PIECE;
        ssize_t n = want > 0 ? read(s->file, s->piece, want) : 0;

        if (n < 0)
                return errno == EINTR ? 0 : err_errno(e, -errno, "%s", s->names[s->next - 1]);
        if (want > 0 && n == 0)
                return err_set(e, -EIO, "%s became shorter while it was read",
                               s->names[s->next - 1]);
        if (want == 0) {
                s->file = fd_close(s->file);
                return archive_write_finish_entry(s->tar) == ARCHIVE_OK ? 0 : tar_error(s, e);
        }
        s->left -= (uint64_t) n;
        return archive_write_data(s->tar, s->piece, (size_t) n) == n ? 0 : tar_error(s, e);
}

/* 1: the archive is complete; 0: more may be in s->out. */
static int step(struct tar_source *s, struct err *e)
{
        struct archive_entry *entry;
        int r;

        if (s->file >= 0)
                return copy_piece(s, e);
        if (s->closed)
                return 1;
        if (s->next >= strv_len(s->names)) {
                s->closed = true;
                if (archive_write_close(s->tar) != ARCHIVE_OK)
                        return tar_error(s, e);
                return 1;
        }
        entry = archive_entry_new();
        if (!entry)
                return err_set(e, -ENOMEM, "out of memory");
        r = begin_entry(s, entry, e);
        archive_entry_free(entry);
        return r;
}

ssize_t tar_source_read(struct tar_source *s, char *buf, size_t len, struct err *e)
{
        size_t n;

        if (!s->tar) {
                ssize_t got;

                do
                        got = read(s->fd, buf, len);
                while (got < 0 && errno == EINTR);
                if (got < 0)
                        return err_errno(e, -errno, "read");
                s->done += (uint64_t) got;
                return got;
        }
        for (int r = 0; s->out.len == 0 && r == 0;) {
                r = step(s, e);
                if (r < 0)
                        return r;
                if (s->out.failed)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        n = s->out.len < len ? s->out.len : len;
        memcpy(buf, s->out.s, n);
        strbuf_drop_front(&s->out, n);
        s->done += n;
        return (ssize_t) n;
}

uint64_t tar_source_total(const struct tar_source *s)
{
        return s->total;
}

uint64_t tar_source_done(const struct tar_source *s)
{
        return s->done;
}
