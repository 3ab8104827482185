/* logdir.c - see logdir.h.
 *
 * Always: a directory below .spare holds exactly the three files, all empty and new; one that is not
 * complete has a hidden name, and the removal that was cut short finishes it. */
#include "engine/boot/logdir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "model/attach.h"

#define MAX_SPARES 128

static const char *const files[] = { "log.0", "log.1", "status" };

void logdir_done(struct logdir *l)
{
        l->log[0] = fd_close(l->log[0]);
        l->log[1] = fd_close(l->log[1]);
        l->status = fd_close(l->status);
}

static inline void logdir_done_cleanup(struct logdir *l)
{
        logdir_done(l);
}

static DIR *open_spares(int clusters)
{
        int fd = openat(clusters, LOGDIR_SPARES, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);

        if (fd >= 0 && !dir)
                (void) fd_close(fd);
        return dir;
}

/* Rename a spare to @cluster; another operation may be faster, then the next one is tried. */
static bool take_spare(int clusters, const char *cluster)
{
        DIR *dir = open_spares(clusters);
        struct dirent *de;
        bool taken = false;

        while (dir && !taken && (de = readdir(dir)) != NULL)
                taken = de->d_name[0] != '.' &&
                        renameat(dirfd(dir), de->d_name, clusters, cluster) == 0;
        if (dir)
                (void) closedir(dir);
        return taken;
}

int logdir_open(int clusters, const char *cluster, struct logdir *ret, struct err *e)
{
        AUTO(logdir_done) struct logdir l = { { -EBADF, -EBADF }, -EBADF };
        int *const fds[] = { &l.log[0], &l.log[1], &l.status };
        AUTO(fd) int dir = fd_open_beneath(clusters, cluster, O_PATH | O_DIRECTORY, 0);

        if (dir == -ENOENT && take_spare(clusters, cluster))
                dir = fd_open_beneath(clusters, cluster, O_PATH | O_DIRECTORY, 0);
        if (dir == -ENOENT)
                dir = fd_mkdir_beneath(clusters, cluster, 0700);
        if (dir < 0)
                return err_errno(e, dir, "make the log directory");
        for (size_t i = 0; i < NELEM(files); i++) {
                *fds[i] = openat(dir, files[i], O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
                if (*fds[i] < 0)
                        return err_errno(e, -errno, "open %s", files[i]);
        }
        if (ftruncate(l.status, 0) < 0)
                return err_errno(e, -errno, "empty %s", files[2]);
        /* the monitor could only end without a word */
        if (fallocate(l.status, FALLOC_FL_KEEP_SIZE, 0, ATTACH_STATUS_MAX) < 0 && errno == ENOSPC)
                return err_set(e, -ENOSPC, "the host's disk is full");
        *ret = l;
        l = (struct logdir){ { -EBADF, -EBADF }, -EBADF };
        return 0;
}

static bool few_spares(int clusters)
{
        DIR *dir = open_spares(clusters);
        int n = 0;

        while (dir && readdir(dir))
                n++;
        if (dir)
                (void) closedir(dir);
        return n < MAX_SPARES;
}

/* A directory with three new files, for whoever comes next; complete or hidden.  Not essential. */
static void make_spare(int clusters, const char *cluster)
{
        AUTO(free) char *hidden = str_fmt(LOGDIR_SPARES "/.%s", cluster);
        AUTO(free) char *spare = str_fmt(LOGDIR_SPARES "/%s", cluster);
        AUTO(fd) int dir = hidden ? fd_mkdir_beneath(clusters, hidden, 0700) : -ENOMEM;

        for (size_t i = 0; dir >= 0 && i < NELEM(files); i++) {
                AUTO(fd)
                int fd = openat(dir, files[i], O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

                if (fd < 0)
                        dir = fd_close(dir);
        }
        if (dir < 0 || !spare || renameat(clusters, hidden, clusters, spare) < 0)
                log_debug("no spare log directory was made");
}

int logdir_remove(int clusters, const char *cluster, struct err *e)
{
        int r;

        if (faccessat(clusters, cluster, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT)
                return 0;
        if (few_spares(clusters))
                make_spare(clusters, cluster);
        r = fd_rm_rf(clusters, cluster);
        return r < 0 ? err_errno(e, r, "remove the log directory") : 0;
}
