/* edge_files.c - see edge_files.h. */
#include "engine/edge_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/claim/claim.h"

int edge_files_open(const struct instance *inst, struct edge_files *ret, struct err *e)
{
        struct edge_files f = { .fd = fd_mkdir_beneath(inst->run_fd, EDGE_FILES_DIR, 0711) };

        if (f.fd < 0)
                return err_errno(e, f.fd, "make the run directory's " EDGE_FILES_DIR);
        f.dir = str_fmt("/run/hypervisor-vmm/%s/" EDGE_FILES_DIR, inst->id);
        if (!f.dir) {
                edge_files_done(&f);
                return err_set(e, -ENOMEM, "out of memory");
        }
        *ret = f;
        return 0;
}

void edge_files_done(struct edge_files *f)
{
        free(f->dir);
        f->dir = NULL;
        f->fd = fd_close(f->fd);
}

int edge_files_put(const struct edge_files *f, const char *name, const void *data, size_t len,
                   struct err *e)
{
        int r = fd_replace_file(f->fd, name, data, len, 0600, false);

        if (r >= 0 &&
            fchownat(f->fd, name, CLAIM_EDGE_UID, CLAIM_EDGE_UID, AT_SYMLINK_NOFOLLOW) < 0)
                r = -errno;
        return r < 0 ? err_errno(e, r, "write %s/%s", f->dir, name) : 0;
}
