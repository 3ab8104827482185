/* mode_build.c - the metadata of an image from the indexes of its layers.  Runs in vmm-fetch, with no
 * directory and no network: indexes are written by processes that a layer may have taken over. */
#include <errno.h>
#include <sys/stat.h>

#include "fetch/mode.h"
#include "model/limits.h"
#include "store/image_build.h"

/* A layer's names, or none. */
static int names_fd(uint32_t at)
{
        int fd = (int) (FETCH_FD_INDEXES + at);
        struct stat st;

        return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? fd : -EBADF;
}

int mode_build(const struct mode_context *c, int root, struct err *e)
{
        struct erofs_totals total = { 0 };
        int indexes[LIMIT_LAYERS], names[LIMIT_LAYERS];
        uint32_t n = c->req->layers;
        int r;

        (void) root; /* there is none */
        if (n > LIMIT_LAYERS)
                return err_set(e, -E2BIG, "an image of %u layers", n);
        for (uint32_t i = 0; i < n; i++) {
                indexes[i] = (int) (FETCH_FD_INDEXES + i);
                names[i] = names_fd(n + i);
        }
        r = image_build(indexes, names, n, FETCH_FD_SCRATCH, FETCH_FD_META, &total, e);
        return r < 0 ? r : result_done(c->res, total.bytes, total.inodes);
}
