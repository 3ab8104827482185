/* idmap.c - see idmap.h.  Operation processes and pool refills; root, one thread.
 *
 * A user namespace lives as long as a descriptor on it, but only a process can make one: the helper
 * is cloned into it, waits on a pipe until its map is written and the descriptor open, and ends. */
#include "engine/idmap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"

int idmap_write(int proc_dir, uint32_t id_base)
{
        char map[48];
        int r;

        (void) snprintf(map, sizeof map, "0 %u %u", id_base, IDMAP_RANGE);
        r = fd_write_value(proc_dir, "uid_map", map);
        return r < 0 ? r : fd_write_value(proc_dir, "gid_map", map);
}

static void helper(int wait_fd)
{
        char c;

        (void) !read(wait_fd, &c, 1); /* until the parent is done, or gone */
        _exit(0);
}

/* Map and open the namespace of @pid, which waits for us. */
static int take_userns(pid_t pid, uint32_t id_base, struct err *e)
{
        AUTO(fd) int dir = -EBADF;
        char path[32];
        int fd, r;

        (void) snprintf(path, sizeof path, "/proc/%d", (int) pid);
        dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0)
                return err_errno(e, -errno, "open %s", path);
        r = idmap_write(dir, id_base);
        if (r < 0)
                return err_errno(e, r, "map ids 0-%u to %u", IDMAP_RANGE - 1, id_base);
        fd = openat(dir, "ns/user", O_RDONLY | O_CLOEXEC);
        return fd < 0 ? err_errno(e, -errno, "open the user namespace") : fd;
}

int idmap_userns(uint32_t id_base, struct err *e)
{
        struct clone_args args = { .flags = CLONE_NEWUSER, .exit_signal = SIGCHLD };
        AUTO(fd) int ns = -EBADF;
        int pipe_fd[2];
        long pid;

        if (id_base == 0 || id_base > UINT32_MAX - IDMAP_RANGE)
                return err_set(e, -EINVAL, "id range %u", id_base);
        if (pipe2(pipe_fd, O_CLOEXEC) < 0)
                return err_errno(e, -errno, "pipe");
        pid = syscall(SYS_clone3, &args, sizeof args);
        if (pid == 0) {
                (void) close(pipe_fd[1]);
                helper(pipe_fd[0]);
        }
        (void) fd_close(pipe_fd[0]);
        if (pid < 0)
                ns = err_errno(e, -errno, "clone a user namespace");
        else
                ns = take_userns((pid_t) pid, id_base, e);
        (void) fd_close(pipe_fd[1]);
        if (pid > 0)
                while (waitpid((pid_t) pid, NULL, 0) < 0 && errno == EINTR)
                        ;
        return fd_take(&ns);
}

int idmap_mount(int mnt_fd, int userns_fd, uint64_t attr_set, struct err *e)
{
        struct mount_attr attr = {
                .attr_set = MOUNT_ATTR_IDMAP | attr_set,
                .userns_fd = (unsigned) userns_fd,
        };

        if (userns_fd < 0)
                return err_set(e, -EBADF, "id map of a mount: no user namespace");
        if (mount_setattr(mnt_fd, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0)
                return err_errno(e, -errno, "give the mount its id map");
        return 0;
}
