/* metamount.c - see metamount.h.  Operation processes.
 *
 * By fsconfig(2): a hundred devices do not fit into the one page of options that mount(2) takes, and
 * mount(8) would put a loop device in front of a plain file. */
#include "store/metamount.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/mount.h>

#include "base/fd.h"

static long configure(int fs, unsigned cmd, const char *key, const char *value)
{
        return syscall(SYS_fsconfig, fs, cmd, key, value, 0);
}

/* The kernel's own words, when it left any: "e ...", "w ...", "i ..." one by one. */
static int failed(int fs, int code, const char *what, struct err *e)
{
        char line[256];
        ssize_t n = read(fs, line, sizeof line - 1);

        if (n <= 2)
                return err_errno(e, code, "mounting an image: %s", what);
        line[n] = '\0';
        line[strcspn(line, "\n")] = '\0';
        return err_set(e, code, "mounting an image: %s: %s", what, line + 2);
}

int metamount(const char *meta, const char *const *packs, size_t n_packs, struct err *e)
{
        AUTO(fd) int fs = (int) syscall(SYS_fsopen, "erofs", FSOPEN_CLOEXEC);
        int mnt;

        if (fs < 0)
                return err_errno(e, -errno, "this kernel has no EROFS");
        if (configure(fs, FSCONFIG_SET_STRING, "source", meta) < 0)
                return failed(fs, -errno, "source", e);
        for (size_t i = 0; i < n_packs; i++)
                if (configure(fs, FSCONFIG_SET_STRING, "device", packs[i]) < 0)
                        return failed(fs, -errno, "device", e);
        if (configure(fs, FSCONFIG_SET_FLAG, "ro", NULL) < 0)
                return failed(fs, -errno, "ro", e);
        /* There are none in it.  Were there to be looked for, each path walk of who does not own a
         * directory would leave its fast lane: overlayfs does that where a layer is idmapped. */
        if (configure(fs, FSCONFIG_SET_FLAG, "noacl", NULL) < 0)
                return failed(fs, -errno, "noacl", e);
        if (configure(fs, FSCONFIG_CMD_CREATE, NULL, NULL) < 0)
                return failed(fs, -errno, "create", e);
        mnt = (int) syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC,
                            MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOATIME);
        return mnt < 0 ? failed(fs, -errno, "fsmount", e) : mnt;
}
