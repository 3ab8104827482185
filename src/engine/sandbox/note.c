/* note.c - notes between operation, launcher and first process: one struct and a few descriptors in
 * one packet.  All sides are of one build (birth.c sees to it), so there is no version. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/sandbox/sandbox_priv.h"

union control {
        struct cmsghdr h;
        char buf[CMSG_SPACE(NOTE_FDS * sizeof(int))];
};

int note_send(int sock, struct note *n, const int *fds, size_t n_fds)
{
        union control c = { .buf = { 0 } };
        struct iovec v = { n, sizeof *n };
        struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
        int sent[NOTE_FDS];
        size_t k = 0;

        if (n_fds > NOTE_FDS)
                return -E2BIG;
        n->fds = 0;
        for (size_t i = 0; i < n_fds; i++)
                if (fds[i] >= 0) {
                        n->fds |= 1U << i;
                        sent[k++] = fds[i];
                }
        if (k > 0) {
                m.msg_control = &c;
                m.msg_controllen = CMSG_SPACE(k * sizeof *sent);
                c.h.cmsg_level = SOL_SOCKET;
                c.h.cmsg_type = SCM_RIGHTS;
                c.h.cmsg_len = CMSG_LEN(k * sizeof *sent);
                memcpy(CMSG_DATA(&c.h), sent, k * sizeof *sent);
        }
        return sendmsg(sock, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

void note_close(int fds[static NOTE_FDS])
{
        for (size_t i = 0; i < NOTE_FDS; i++)
                fds[i] = fd_close(fds[i]);
}

/* From the order of arrival to the places that the note names. */
static int place_fds(const struct note *n, const int *came, size_t n_came, int *fds)
{
        size_t k = 0;

        for (size_t i = 0; i < NOTE_FDS && k < n_came; i++)
                if (n->fds & (1U << i))
                        fds[i] = came[k++];
        for (size_t rest = k; rest < n_came; rest++)
                (void) close(came[rest]);
        return k == (size_t) __builtin_popcount(n->fds) ? 0 : -EPROTO;
}

int note_recv(int sock, struct note *n, int *fds)
{
        union control c;
        struct iovec v = { n, sizeof *n };
        struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = &c };
        struct cmsghdr *h;
        int came[NOTE_FDS], r;
        size_t n_came = 0;
        ssize_t len;

        for (size_t i = 0; i < NOTE_FDS; i++)
                fds[i] = -EBADF;
        /* not CMSG_SPACE(): what that adds at the end is room for one more */
        m.msg_controllen = CMSG_LEN(sizeof came);
        do
                len = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
        while (len < 0 && errno == EINTR);
        if (len <= 0)
                return len < 0 ? -errno : 0;
        h = CMSG_FIRSTHDR(&m);
        if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS) {
                n_came = (h->cmsg_len - CMSG_LEN(0)) / sizeof *came;
                memcpy(came, CMSG_DATA(h), n_came * sizeof *came);
        }
        if ((size_t) len != sizeof *n)
                n->fds = 0; /* not a note: nothing in it counts */
        r = place_fds(n, came, n_came, fds);
        if (r < 0 || (size_t) len != sizeof *n || (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
                note_close(fds);
                return -EPROTO;
        }
        n->err.msg[sizeof n->err.msg - 1] = '\0';
        n->cluster[sizeof n->cluster - 1] = '\0';
        return 1;
}

int note_recv_one(int sock, struct note *n, int *fd)
{
        int fds[NOTE_FDS], r = note_recv(sock, n, fds);

        *fd = fd_take(&fds[0]);
        note_close(fds);
        return r;
}
