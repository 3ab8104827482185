/* note.c - notes between operation, launcher and first process: one struct and a few descriptors in
 * one packet.  All sides are forks of one program, so there is no version and no length. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "engine/sandbox/sandbox_priv.h"

union control {
        struct cmsghdr h;
        char buf[CMSG_SPACE(NOTE_FDS * sizeof(int))];
};

int note_send(int sock, const struct note *n, const int *fds, size_t n_fds)
{
        union control c = { .buf = { 0 } };
        struct note copy = *n;
        struct iovec v = { &copy, sizeof copy };
        struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };

        if (n_fds > NOTE_FDS)
                return -E2BIG;
        if (n_fds > 0) {
                m.msg_control = &c;
                m.msg_controllen = CMSG_SPACE(n_fds * sizeof *fds);
                c.h.cmsg_level = SOL_SOCKET;
                c.h.cmsg_type = SCM_RIGHTS;
                c.h.cmsg_len = CMSG_LEN(n_fds * sizeof *fds);
                memcpy(CMSG_DATA(&c.h), fds, n_fds * sizeof *fds);
        }
        return sendmsg(sock, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static void close_fds(int *fds)
{
        for (size_t i = 0; i < NOTE_FDS; i++)
                fds[i] = fd_close(fds[i]);
}

int note_recv(int sock, struct note *n, int *fds)
{
        union control c;
        struct iovec v = { n, sizeof *n };
        struct msghdr m = {
                .msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c.buf
        };
        struct cmsghdr *h;
        ssize_t len;

        for (size_t i = 0; i < NOTE_FDS; i++)
                fds[i] = -EBADF;
        do
                len = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
        while (len < 0 && errno == EINTR);
        if (len <= 0)
                return len < 0 ? -errno : 0;
        h = CMSG_FIRSTHDR(&m);
        if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS)
                memcpy(fds, CMSG_DATA(h), h->cmsg_len - CMSG_LEN(0));
        if ((size_t) len != sizeof *n || (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
                close_fds(fds);
                return -EPROTO;
        }
        n->err.msg[sizeof n->err.msg - 1] = '\0';
        return 1;
}

int note_recv_one(int sock, struct note *n, int *fd)
{
        int fds[NOTE_FDS], r = note_recv(sock, n, fds);

        *fd = fd_take(&fds[0]);
        close_fds(fds);
        return r;
}
