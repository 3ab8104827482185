/* bind_proc.c - a cluster's /proc/driver: what the driver says there, of its own GPUs alone.
 * Operation process.
 *
 * The kernel's files would show every GPU of the host and let none be hidden, so their texts are
 * copied into a small file system of the cluster's own, read-only from then on.  ModifyDeviceFiles is 0
 * in it: the driver's libraries must not try to make nodes or change modes inside.  What changes while
 * a cluster runs (a GPU attached, another one taken away) is this whole mount. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/gpu/bind_priv.h"
#include "engine/gpu/cdi_make.h"

#define NVIDIA   "proc/driver/nvidia"
#define TEXT_MAX 8192U /* of one file; what is longer is cut */

static int make_tmpfs(struct err *e)
{
        static const char *const options[][2] = { { "mode", "0555" }, { "size", "1m" } };
        AUTO(fd) int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
        int r = fs < 0 ? -1 : 0;

        for (size_t i = 0; i < NELEM(options) && r >= 0; i++)
                r = fsconfig(fs, FSCONFIG_SET_STRING, options[i][0], options[i][1], 0);
        if (r >= 0)
                r = fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
        if (r >= 0)
                r = fsmount(fs, FSMOUNT_CLOEXEC,
                            MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
        return r < 0 ? err_errno(e, -errno, "make /proc/driver") : r;
}

static int write_file(int dir, const char *name, const char *text)
{
        AUTO(fd) int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);

        return fd < 0 ? -errno : fd_write_full(fd, text, strlen(text));
}

static int subdir(int dir, const char *name)
{
        int fd;

        if (mkdirat(dir, name, 0555) < 0 && errno != EEXIST)
                return -errno;
        fd = openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

/* What the driver's file says; NULL: it has none. */
static char *read_text(int from, const char *path)
{
        AUTO(fd) int fd = fd_open_in_root(from, path, O_RDONLY | O_NONBLOCK, 0);
        char text[TEXT_MAX];
        ssize_t n = fd < 0 ? fd : fd_read_full(fd, text, sizeof text - 1);

        if (n < 0)
                return NULL;
        text[n] = '\0';
        return strdup(text);
}

static int copy_file(int from, const char *name, int to)
{
        AUTO(free) char *text = read_text(from, name);

        return text ? write_file(to, name, text) : 0;
}

/* "Key: 1" becomes "Key: 0", in place. */
static void zero_value(char *text, const char *key)
{
        for (char *at = text; (at = strstr(at, key)); at++)
                if (at == text || at[-1] == '\n')
                        for (at += strlen(key); *at && *at != '\n'; at++)
                                if (*at >= '0' && *at <= '9')
                                        *at = '0';
}

static int write_params(int from, int to)
{
        AUTO(free) char *text = read_text(from, "params");

        if (text && strstr(text, "ModifyDeviceFiles:"))
                zero_value(text, "ModifyDeviceFiles:");
        return write_file(to, "params", text ? text : "ModifyDeviceFiles: 0\n");
}

/* What stands behind @key at the start of a line; false: nothing. */
static bool value_of(const char *text, const char *key, char ret[static 72])
{
        for (const char *at = text; (at = strstr(at, key)); at++)
                if (at == text || at[-1] == '\n') {
                        at += strlen(key);
                        at += strspn(at, " \t");
                        (void) snprintf(ret, 72, "%.*s", (int) strcspn(at, " \t\r\n"), at);
                        return true;
                }
        return false;
}

/* Who has which node is what vmm-gpu said a while ago; the kernel says what it is now.  A name that it
 * does not know yet ("GPU-????..") tells nothing. */
static int is_the_one(const struct gpu *g, const char *text, struct err *e)
{
        const char *whole = g->parent ? g->parent : g->uuid;
        char minor[72], uuid[72];
        uint64_t v;

        if (!value_of(text, "Device Minor:", minor) || str_u64(minor, 0, UINT32_MAX, &v) < 0 ||
            v != g->minor)
                return err_set(e, -ESTALE,
                               "gpu %s: the driver does not say that it is /dev/nvidia%u", g->uuid,
                               g->minor);
        if (value_of(text, "GPU UUID:", uuid) && gpu_uuid_ok(uuid) && !str_eq(uuid, whole))
                return err_set(e, -ESTALE, "gpu %s: the driver says that %s is %s", whole, g->pci,
                               uuid);
        return 0;
}

static int copy_gpu(int from, int gpus, const struct gpu *g, struct err *e)
{
        char pci[16], in[64], out[64];
        AUTO(free) char *text = NULL;
        int r;

        gpu_pci_short(g->pci, pci);
        (void) snprintf(in, sizeof in, "gpus/%s/information", pci);
        (void) snprintf(out, sizeof out, "%s/information", pci);
        text = read_text(from, in);
        if (!text &&
            g->state != GS_OK) /* fallen off the bus, in a cluster that goes on without it */
                return 0;
        if (!text)
                return err_set(e, -ENODEV, "gpu %s: the driver has none at %s", g->uuid, pci);
        r = is_the_one(g, text, e);
        if (r < 0)
                return r;
        if (mkdirat(gpus, pci, 0555) < 0) /* another instance on the same GPU has brought it */
                return errno == EEXIST ? 0 : -errno;
        return write_file(gpus, out, text);
}

/* `access`, of which the library takes the minor number and leaves the node as it is. */
static int copy_access(int from, int to)
{
        AUTO(free) char *text = read_text(from, "access");
        int r;

        if (!text)
                return -ENOENT;
        zero_value(text, "DeviceFileModify:");
        r = write_file(to, "access", text);
        return r == -EEXIST ? 0 : r;
}

/* capabilities/gpu0/mig/gi1/{access,ci0/access} of a leased instance. */
static int copy_caps(int from, int to, const struct gpu *g)
{
        char part[5][24] = { "capabilities", "", "mig", "", "" };
        AUTO(fd) int src = -EBADF, dst = -EBADF;
        int r = 0;

        (void) snprintf(part[1], sizeof part[1], "gpu%u", g->minor);
        (void) snprintf(part[3], sizeof part[3], "gi%u", g->gi);
        (void) snprintf(part[4], sizeof part[4], "ci%u", g->ci);
        src = fcntl(from, F_DUPFD_CLOEXEC, 3);
        dst = fcntl(to, F_DUPFD_CLOEXEC, 3);
        for (size_t i = 0; i < NELEM(part) && r >= 0; i++) {
                int s = fd_open_in_root(src, part[i], O_PATH | O_DIRECTORY, 0);
                int d = s < 0 ? s : subdir(dst, part[i]);

                (void) fd_close(src);
                (void) fd_close(dst);
                src = s;
                dst = d;
                r = d;
                if (r >= 0 && i >= 3)
                        r = copy_access(src, dst);
        }
        return r;
}

int bind_proc(const struct gpu_driver *d, const struct gpu *gpus, size_t n, struct err *e)
{
        AUTO(fd) int from = fd_open_in_root(d->root_fd, NVIDIA, O_PATH | O_DIRECTORY, 0);
        AUTO(fd) int mnt = -EBADF, to = -EBADF, all = -EBADF;
        struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY };
        struct err mine = { 0 };
        int r;

        if (from < 0)
                return err_errno(e, from, "/" NVIDIA);
        mnt = make_tmpfs(e);
        if (mnt < 0)
                return mnt;
        r = to = subdir(mnt, "nvidia");
        if (r >= 0)
                r = copy_file(from, "version", to);
        if (r >= 0)
                r = write_params(from, to);
        if (r >= 0)
                r = all = subdir(to, "gpus");
        for (size_t i = 0; i < n && r >= 0; i++) {
                r = copy_gpu(from, all, &gpus[i], &mine);
                if (r >= 0 && gpus[i].mig_profile)
                        r = copy_caps(from, to, &gpus[i]);
        }
        if (r < 0)
                return mine.code ? err_copy(e, &mine) : err_errno(e, r, "fill /proc/driver");
        if (mount_setattr(mnt, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0)
                return err_errno(e, -errno, "/proc/driver");
        return fd_take(&mnt);
}
