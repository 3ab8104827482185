/* fd.c - see fd.h.  No process-wide state; any program, any thread. */
#include "base/fd.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"

int fd_close(int fd)
{
        int saved = errno;

        if (fd >= 0)
                (void) close(fd);
        errno = saved;
        return -EBADF;
}

static int open2(int dirfd, const char *path, int flags, mode_t mode, uint64_t resolve)
{
        struct open_how how = {
                .flags = (uint64_t) (unsigned) (flags | O_CLOEXEC),
                .mode = flags & (O_CREAT | O_TMPFILE) & ~O_DIRECTORY ? mode : 0,
                .resolve = resolve,
        };
        long fd;

        do /* -EAGAIN: a rename raced with a ".." check; the kernel asks to try again */
                fd = syscall(SYS_openat2, dirfd, path, &how, sizeof how);
        while (fd < 0 && (errno == EINTR || errno == EAGAIN));
        return fd < 0 ? -errno : (int) fd;
}

int fd_open_beneath(int dirfd, const char *path, int flags, mode_t mode)
{
        return open2(dirfd, path, flags, mode,
                     RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
}

int fd_open_in_root(int dirfd, const char *path, int flags, mode_t mode)
{
        return open2(dirfd, path, flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

int fd_mkdir_beneath(int dirfd, const char *path, mode_t mode)
{
        AUTO(free) char *copy = strdup(path);
        AUTO(fd) int at = -EBADF;
        char *save = NULL;

        if (!copy)
                return -ENOMEM;
        at = fd_open_beneath(dirfd, ".", O_PATH | O_DIRECTORY, 0);
        if (at < 0)
                return at;
        for (char *part = strtok_r(copy, "/", &save); part; part = strtok_r(NULL, "/", &save)) {
                int next;

                if (mkdirat(at, part, mode) < 0 && errno != EEXIST)
                        return -errno;
                next = fd_open_beneath(at, part, O_PATH | O_DIRECTORY, 0);
                if (next < 0)
                        return next;
                (void) fd_close(at);
                at = next;
        }
        return fd_take(&at);
}

int fd_read_file(int dirfd, const char *path, size_t max, char **ret, size_t *ret_len)
{
        AUTO(fd) int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        AUTO(free) char *buf = NULL;
        ssize_t n;

        if (fd < 0)
                return -errno;
        buf = malloc(max + 2);
        if (!buf)
                return -ENOMEM;
        n = fd_read_full(fd, buf, max + 1);
        if (n < 0)
                return (int) n;
        if ((size_t) n > max)
                return -EFBIG;
        buf[n] = '\0';
        if (ret_len)
                *ret_len = (size_t) n;
        *ret = TAKE(buf);
        return 0;
}

int fd_write_value(int dirfd, const char *path, const char *value)
{
        AUTO(fd) int fd = openat(dirfd, path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
        size_t len = strlen(value);
        ssize_t n;

        if (fd < 0)
                return -errno;
        do
                n = write(fd, value, len);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        return (size_t) n == len ? 0 : -EIO;
}

int fd_replace_file(int dirfd, const char *path, const void *data, size_t len, mode_t mode,
                    bool durable)
{
        char tmp[512];
        AUTO(fd) int fd = -EBADF;
        int r = snprintf(tmp, sizeof tmp, "%s.new", path);

        if (r < 0 || (size_t) r >= sizeof tmp)
                return -ENAMETOOLONG;
        (void) unlinkat(dirfd, tmp, 0);
        fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
        if (fd < 0)
                return -errno;
        r = fd_write_full(fd, data, len);
        if (r >= 0 && durable && fsync(fd) < 0)
                r = -errno;
        if (r >= 0 && renameat(dirfd, tmp, dirfd, path) < 0)
                r = -errno;
        if (r < 0) {
                (void) unlinkat(dirfd, tmp, 0);
                return r;
        }
        if (durable && dirfd >= 0) {
                AUTO(fd) int d = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

                if (d < 0 || fsync(d) < 0)
                        return -errno;
        }
        return 0;
}

ssize_t fd_read_full(int fd, void *buf, size_t len)
{
        size_t done = 0;

        while (done < len) {
                ssize_t n = read(fd, (char *) buf + done, len - done);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;
                done += (size_t) n;
        }
        return (ssize_t) done;
}

int fd_write_full(int fd, const void *buf, size_t len)
{
        size_t done = 0;

        while (done < len) {
                ssize_t n = write(fd, (const char *) buf + done, len - done);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                done += (size_t) n;
        }
        return 0;
}

int fd_set_nonblock(int fd, bool on)
{
        int fl = fcntl(fd, F_GETFL);

        if (fl < 0)
                return -errno;
        fl = on ? fl | O_NONBLOCK : fl & ~O_NONBLOCK;
        return fcntl(fd, F_SETFL, fl) < 0 ? -errno : 0;
}

int fd_set_cloexec(int fd, bool on)
{
        return fcntl(fd, F_SETFD, on ? FD_CLOEXEC : 0) < 0 ? -errno : 0;
}

#define RM_DEPTH 64 /* so many descriptors and frames a removal may take */

/* What is being removed.  Its maker may have nested directories without end: what lies too deep is
 * moved to the top, where its turn comes again. */
struct removal {
        dev_t dev;
        int top; /* borrowed */
        unsigned moved;
        bool again;
};

static int move_to_top(struct removal *rm, int dir, const char *name)
{
        char to[32];
        int r;

        do {
                (void) snprintf(to, sizeof to, ".removed-%u", rm->moved++);
                r = renameat2(dir, name, rm->top, to, RENAME_NOREPLACE) < 0 ? -errno : 0;
        } while (r == -EEXIST);
        rm->again = true;
        return r == -ENOENT ? 0 : r;
}

static int rm_children(struct removal *rm, int fd, int depth);

static int rm_directory(struct removal *rm, int dir, const char *name, int depth)
{
        int r, fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        struct stat st;

        if (fd < 0)
                return errno == ENOENT ? 0 : -errno;
        if (fstat(fd, &st) < 0 || st.st_dev != rm->dev) {
                (void) fd_close(fd);
                return -EXDEV; /* a mount: not ours to empty */
        }
        if (depth == 0) {
                (void) fd_close(fd);
                return move_to_top(rm, dir, name);
        }
        r = rm_children(rm, fd, depth - 1);
        return r >= 0 && unlinkat(dir, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : r;
}

/* One directory level; @fd is taken over. */
static int rm_children(struct removal *rm, int fd, int depth)
{
        DIR *dir = fdopendir(fd);
        struct dirent *de;
        int r = 0;

        if (!dir) {
                r = -errno;
                (void) fd_close(fd);
                return r;
        }
        while (r >= 0 && (errno = 0, de = readdir(dir)) != NULL) {
                if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0 ||
                    unlinkat(dirfd(dir), de->d_name, 0) == 0 || errno == ENOENT)
                        continue;
                r = errno == EISDIR || errno == EPERM || errno == EBUSY
                            ? rm_directory(rm, dirfd(dir), de->d_name, depth)
                            : -errno;
        }
        (void) closedir(dir);
        return r;
}

int fd_rm_rf(int dirfd, const char *name)
{
        AUTO(fd) int top = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        struct removal rm = { .top = top };
        struct stat st;
        int r = 0;

        if (top < 0) {
                if (errno == ENOENT)
                        return 0;
                if (errno != ENOTDIR && errno != ELOOP)
                        return -errno;
                return unlinkat(dirfd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
        }
        if (fstat(top, &st) < 0)
                return -errno;
        rm.dev = st.st_dev;
        do {
                int fd = openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

                rm.again = false;
                r = fd < 0 ? -errno : rm_children(&rm, fd, RM_DEPTH);
        } while (r >= 0 && rm.again);
        if (r < 0)
                return r;
        return unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}

int fd_close_from(int first)
{
        return syscall(SYS_close_range, (unsigned) first, ~0U, 0) < 0 ? -errno : 0;
}

int fd_close_except(int first, int *keep, size_t n)
{
        int r = 0;

        for (size_t i = 1; i < n; i++) /* by insertion: few, and often in order already */
                for (size_t k = i; k > 0 && keep[k - 1] > keep[k]; k--) {
                        int swap = keep[k];

                        keep[k] = keep[k - 1];
                        keep[k - 1] = swap;
                }
        for (size_t i = 0; i < n && r >= 0; i++) {
                if (keep[i] < first)
                        continue;
                if (keep[i] > first &&
                    syscall(SYS_close_range, (unsigned) first, (unsigned) keep[i] - 1, 0) < 0)
                        r = -errno;
                first = keep[i] + 1;
        }
        return r < 0 ? r : fd_close_from(first);
}
