/* frame.c - see frame.h.
 *
 * Theory of operation.  Sending: each message becomes an `out` node with its bytes and its
 * duplicated descriptors; the descriptors go with the first sendmsg() of that node, which the
 * kernel either accepts (at least one byte, all descriptors) or refuses.  Receiving: bytes
 * collect in `in`; descriptors that arrive wait in `got` in order.  The kernel never merges data
 * across an SCM_RIGHTS border within one recvmsg(), so the descriptors of a message have always
 * arrived when its payload is complete, and none of a later message come before it is read. */
#include "base/frame.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "base/str.h"

#define HEADER_BYTES 8U
#define VERSION      1U

struct out {
        struct out *next;
        char *bytes;
        size_t len, sent;
        int fds[FRAME_MAX_FDS];
        size_t n_fds;
};

struct frame_conn {
        int fd;
        struct out *head, **tail;
        size_t queued_bytes;
        struct strbuf in;
        int got[4 * FRAME_MAX_FDS];
        size_t n_got;
        bool eof;
};

static struct out *out_free(struct out *o)
{
        if (o) {
                for (size_t i = 0; i < o->n_fds; i++)
                        (void) fd_close(o->fds[i]);
                free(o->bytes);
        }
        free(o);
        return NULL;
}

DEFINE_AUTO(struct out *, out_free)

int frame_conn_new(int fd, struct frame_conn **ret)
{
        struct frame_conn *c = calloc(1, sizeof *c);
        int r = c ? fd_set_nonblock(fd, true) : -ENOMEM;

        if (r < 0) {
                free(c);
                (void) fd_close(fd);
                return r;
        }
        c->fd = fd;
        c->tail = &c->head;
        *ret = c;
        return 0;
}

struct frame_conn *frame_conn_free(struct frame_conn *c)
{
        if (!c)
                return NULL;
        while (c->head) {
                struct out *next = c->head->next;

                (void) out_free(c->head);
                c->head = next;
        }
        for (size_t i = 0; i < c->n_got; i++)
                (void) fd_close(c->got[i]);
        strbuf_done(&c->in);
        (void) fd_close(c->fd);
        free(c);
        return NULL;
}

int frame_conn_fd(const struct frame_conn *c)
{
        return c->fd;
}

bool frame_pending(const struct frame_conn *c)
{
        return c->head != NULL;
}

static int out_new(const json_t *msg, const int *fds, size_t n_fds, struct out **ret)
{
        AUTO(out_free) struct out *o = calloc(1, sizeof *o);
        AUTO(free) char *text = jsonx_dump(msg);
        size_t len = text ? strlen(text) : 0;
        uint32_t be = htonl((uint32_t) len);

        if (!o || !text)
                return -ENOMEM;
        if (len > FRAME_MAX_BYTES || n_fds > FRAME_MAX_FDS)
                return -E2BIG;
        o->bytes = calloc(1, HEADER_BYTES + len);
        if (!o->bytes)
                return -ENOMEM;
        memcpy(o->bytes, &be, sizeof be);
        o->bytes[4] = VERSION;
        o->bytes[5] = (char) n_fds;
        memcpy(o->bytes + HEADER_BYTES, text, len);
        o->len = HEADER_BYTES + len;
        for (; o->n_fds < n_fds; o->n_fds++) {
                int copy = fcntl(fds[o->n_fds], F_DUPFD_CLOEXEC, 3);

                if (copy < 0)
                        return -errno;
                o->fds[o->n_fds] = copy;
        }
        *ret = TAKE(o);
        return 0;
}

/* One sendmsg(); descriptors ride on the first byte. */
static ssize_t send_some(int fd, struct out *o)
{
        union {
                struct cmsghdr align;
                char buf[CMSG_SPACE(FRAME_MAX_FDS * sizeof(int))];
        } ctl = { 0 };
        struct iovec iov = { o->bytes + o->sent, o->len - o->sent };
        struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (o->sent == 0 && o->n_fds > 0) {
                struct cmsghdr *cm = &ctl.align;

                mh.msg_control = ctl.buf;
                mh.msg_controllen = CMSG_SPACE(o->n_fds * sizeof(int));
                cm->cmsg_level = SOL_SOCKET;
                cm->cmsg_type = SCM_RIGHTS;
                cm->cmsg_len = CMSG_LEN(o->n_fds * sizeof(int));
                memcpy(CMSG_DATA(cm), o->fds, o->n_fds * sizeof(int));
        }
        return sendmsg(fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
}

int frame_flush(struct frame_conn *c)
{
        while (c->head) {
                struct out *o = c->head;
                ssize_t n = send_some(c->fd, o);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
                        return 0;
                if (n < 0)
                        return errno == ECONNRESET ? -EPIPE : -errno;
                o->sent += (size_t) n;
                c->queued_bytes -= (size_t) n;
                if (o->sent < o->len)
                        continue;
                c->head = o->next;
                if (!c->head)
                        c->tail = &c->head;
                (void) out_free(o);
        }
        return 0;
}

int frame_send(struct frame_conn *c, const json_t *msg, const int *fds, size_t n_fds)
{
        struct out *o = NULL;
        int r = out_new(msg, fds, n_fds, &o);

        if (r < 0)
                return r;
        if (c->queued_bytes + o->len > FRAME_MAX_QUEUE) {
                (void) out_free(o);
                return -ENOBUFS;
        }
        *c->tail = o;
        c->tail = &o->next;
        c->queued_bytes += o->len;
        return frame_flush(c);
}

/* Keep the descriptors of one control message; more than fit is a protocol error. */
static int take_fds(struct frame_conn *c, struct msghdr *mh)
{
        int r = mh->msg_flags & MSG_CTRUNC ? -EPROTO : 0;

        for (struct cmsghdr *cm = CMSG_FIRSTHDR(mh); cm; cm = CMSG_NXTHDR(mh, cm)) {
                size_t n = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);

                if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
                        continue;
                for (size_t i = 0; i < n; i++) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(cm) + i * sizeof fd, sizeof fd);
                        if (c->n_got < NELEM(c->got))
                                c->got[c->n_got++] = fd;
                        else {
                                (void) fd_close(fd);
                                r = -EPROTO;
                        }
                }
        }
        return r;
}

/* 1: bytes came, 0: none now, -EPIPE: end of stream. */
static int fill(struct frame_conn *c)
{
        char buf[65536];
        union {
                struct cmsghdr align;
                char buf[CMSG_SPACE(2 * FRAME_MAX_FDS * sizeof(int))];
        } ctl;
        struct iovec iov = { buf, sizeof buf };
        struct msghdr mh = { .msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = ctl.buf,
                             .msg_controllen = sizeof ctl.buf };
        ssize_t n;

        do
                n = recvmsg(c->fd, &mh, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return errno == EAGAIN || errno == EWOULDBLOCK ? 0
                       : errno == ECONNRESET                   ? -EPIPE
                                                               : -errno;
        if (n == 0)
                return -EPIPE;
        strbuf_add(&c->in, buf, (size_t) n);
        if (c->in.failed)
                return -ENOMEM;
        return take_fds(c, &mh) < 0 ? -EPROTO : 1;
}

/* 1 when *ret was filled from what is buffered. */
static int decode(struct frame_conn *c, struct frame_msg *ret, struct err *e)
{
        const unsigned char *h = (const unsigned char *) c->in.s;
        size_t len, n_fds;
        json_t *json;

        if (c->in.len < HEADER_BYTES)
                return 0;
        len = (size_t) h[0] << 24 | (size_t) h[1] << 16 | (size_t) h[2] << 8 | h[3];
        n_fds = h[5];
        if (h[4] != VERSION || len > FRAME_MAX_BYTES || n_fds > FRAME_MAX_FDS)
                return err_set(e, -EPROTO, "frame header: version %u, %zu bytes, %zu descriptors",
                               h[4], len, n_fds);
        if (c->in.len < HEADER_BYTES + len)
                return 0;
        if (c->n_got < n_fds)
                return err_set(e, -EPROTO, "a frame announces %zu descriptors, %zu came", n_fds,
                               c->n_got);
        json = jsonx_parse(c->in.s + HEADER_BYTES, len, e);
        if (!json)
                return -EPROTO;
        *ret = (struct frame_msg){ .json = json, .n_fds = n_fds };
        memcpy(ret->fds, c->got, n_fds * sizeof(int));
        c->n_got -= n_fds;
        memmove(c->got, c->got + n_fds, c->n_got * sizeof(int));
        strbuf_drop_front(&c->in, HEADER_BYTES + len);
        return 1;
}

bool frame_ready(const struct frame_conn *c)
{
        uint32_t be;

        if (c->in.len < HEADER_BYTES)
                return false;
        memcpy(&be, c->in.s, sizeof be);
        return ntohl(be) > FRAME_MAX_BYTES || c->in.len - HEADER_BYTES >= ntohl(be);
}

int frame_recv(struct frame_conn *c, struct frame_msg *ret, struct err *e)
{
        for (;;) {
                int r = decode(c, ret, e);

                if (r != 0)
                        return r;
                if (c->eof)
                        return err_set(e, -EPIPE, "the peer closed the connection");
                r = fill(c);
                if (r == -EPIPE) {
                        c->eof = true;
                        continue;
                }
                if (r <= 0)
                        return r;
        }
}

void frame_msg_done(struct frame_msg *m)
{
        for (size_t i = 0; i < m->n_fds; i++)
                (void) fd_close(m->fds[i]);
        m->n_fds = 0;
        m->json = json_put(m->json);
}

static int wait_for(int fd, short events, uint64_t deadline_us)
{
        struct pollfd p = { .fd = fd, .events = events };
        int timeout_ms = -1, r;

        if (deadline_us) {
                uint64_t now = clock_mono_us();

                if (now >= deadline_us)
                        return -ETIMEDOUT;
                timeout_ms = (int) ((deadline_us - now) / 1000 + 1);
        }
        r = poll(&p, 1, timeout_ms);
        if (r < 0 && errno != EINTR)
                return -errno;
        return r == 0 ? -ETIMEDOUT : 0;
}

int frame_send_wait(struct frame_conn *c, const json_t *msg, const int *fds, size_t n_fds,
                    uint64_t deadline_us)
{
        int r = frame_send(c, msg, fds, n_fds);

        return r < 0 ? r : frame_flush_wait(c, deadline_us);
}

int frame_flush_wait(struct frame_conn *c, uint64_t deadline_us)
{
        int r = frame_flush(c);

        while (r >= 0 && frame_pending(c)) {
                r = wait_for(c->fd, POLLOUT, deadline_us);
                if (r >= 0)
                        r = frame_flush(c);
        }
        return r;
}

int frame_recv_wait(struct frame_conn *c, struct frame_msg *ret, uint64_t deadline_us,
                    struct err *e)
{
        for (;;) {
                int r = frame_recv(c, ret, e);

                if (r != 0)
                        return r;
                r = wait_for(c->fd, POLLIN, deadline_us);
                if (r < 0)
                        return err_errno(e, r, "waiting for the peer");
        }
}
