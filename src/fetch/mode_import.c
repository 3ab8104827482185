/* mode_import.c - an uploaded image into blobs.  Runs in vmm-fetch. */
#include "fetch/mode.h"

#include <errno.h>

#include "base/fd.h"

int mode_import(const struct mode_context *c, int root, struct err *e)
{
        (void) c;
        (void) fd_close(root);
        return err_set(e, -ENOSYS, "not built");
}
