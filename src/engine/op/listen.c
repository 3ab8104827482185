/* listen.c - see listen.h.  Engine and operations; /proc/self/fd/N names the directory. */
#include "engine/op/listen.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"

static int address(int dirfd, const char *name, struct sockaddr_un *ret)
{
        int n;

        *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
        n = snprintf(ret->sun_path, sizeof ret->sun_path, "/proc/self/fd/%d/%s", dirfd, name);
        return n > 0 && (size_t) n < sizeof ret->sun_path ? 0 : -ENAMETOOLONG;
}

int op_listen(int dirfd, const char *name, struct err *e)
{
        AUTO(fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        struct sockaddr_un a;
        int r = address(dirfd, name, &a);

        if (fd < 0)
                return err_errno(e, -errno, "socket");
        if (r < 0)
                return err_errno(e, r, "socket %s", name);
        (void) unlinkat(dirfd, name, 0);
        /* before bind: the file takes the socket's own mode, so it is never open to others */
        if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *) &a, sizeof a) < 0 ||
            listen(fd, 64) < 0)
                return err_errno(e, -errno, "listen on %s", name);
        return fd_take(&fd);
}

int op_connect(int dirfd, const char *name, struct err *e)
{
        AUTO(fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        struct sockaddr_un a;
        int r = address(dirfd, name, &a);

        if (fd < 0)
                return err_errno(e, -errno, "socket");
        if (r < 0)
                return err_errno(e, r, "socket %s", name);
        if (connect(fd, (struct sockaddr *) &a, sizeof a) < 0)
                return err_errno(e, -errno, "connect to %s", name);
        return fd_take(&fd);
}
