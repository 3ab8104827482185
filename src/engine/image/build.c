/* build.c - see build.h.  Operation processes, root.  The builder has nothing but descriptors: the
 * indexes to read, a file to write, a file for its tables.  What it wrote is taken over only once its
 * process has ended. */
#include "build.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "run.h"

#define META_MAX (16ULL << 30) /* or the tables: 20 million nodes of 64 bytes */

int store_scratch(int dir, struct err *e)
{
        int fd = openat(dir, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);

        if (fd < 0) { /* not every file system can */
                fd = openat(dir, "scratch", O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                            0600);
                if (fd < 0)
                        return err_errno(e, -errno, "making a scratch file");
                (void) unlinkat(dir, "scratch", 0);
        }
        return fd;
}

static int run_builder(const struct layers *l, int meta, int scratch, int null, struct err *e)
{
        const struct run run = { l->store, l->deadline_us };
        struct fetch_request req = *l->req; /* borrows; no secrets */
        struct fetcher f = FETCHER_NONE;
        int extra[FETCH_FDS_MAX - FETCH_FD_FIRST_FREE] = { meta, scratch };
        struct fetcher_spec spec = { .mode = "build",
                                     .req = &req,
                                     .dir_fd = -EBADF,
                                     .input_fd = -EBADF,
                                     .extra = extra,
                                     .n_extra = 2 + 2 * l->n,
                                     .apart = true };
        int r;

        req.username = req.password = req.authorization = NULL;
        req.layers = (uint32_t) l->n;
        req.max_bytes = META_MAX;
        for (size_t i = 0; i < l->n; i++) {
                const struct check_result *x = &l->v[i].found;

                extra[2 + i] = x->index_fd;
                extra[2 + l->n + i] = x->names_fd >= 0 ? x->names_fd : null;
        }
        r = run_alone(&run, &spec, 0, NULL, NULL, &f, e);
        if (r < 0 && f.killed) { /* an accident, the first time */
                fetcher_end(&f);
                if (ftruncate(meta, 0) < 0 || ftruncate(scratch, 0) < 0)
                        return err_errno(e, -errno, "beginning again");
                r = run_alone(&run, &spec, 0, NULL, NULL, &f, e);
        }
        fetcher_end(&f);
        return r;
}

int build_meta(const struct layers *l, struct build *ret, struct err *e)
{
        AUTO(fd) int meta = -EBADF, null = -EBADF, scratch = store_scratch(l->staging->fd, e);
        struct stat st;
        int r;

        if (scratch < 0)
                return scratch;
        meta = openat(l->staging->fd, STORE_META,
                      O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (meta < 0)
                return err_errno(e, -errno, "making the metadata");
        null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null < 0)
                return err_errno(e, -errno, "/dev/null");
        r = run_builder(l, meta, scratch, null, e);
        if (r < 0)
                return err_wrap(e, r, "metadata");
        if (fchmod(meta, 0444) < 0 || fstat(meta, &st) < 0)
                return err_errno(e, -errno, "metadata");
        (void) sync_file_range(meta, 0, 0, SYNC_FILE_RANGE_WRITE);
        r = store_hash_file(meta, ret->sha, e);
        if (r >= 0)
                ret->bytes = (uint64_t) st.st_size;
        return r;
}
