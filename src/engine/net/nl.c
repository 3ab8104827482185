/* nl.c - see nl.h.  In operation processes and, at start and end, in the engine.  Always holds: an
 * answer is taken for ours only when its sequence number lies within the batch just sent. */
#include "engine/net/nl.h"

#include <assert.h>
#include <errno.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#define ANSWER_BYTES 16384U /* several error messages with their texts, or one part of a dump */
#define ANSWER_S     20 /* the kernel answers at once; a lost answer must not hang an operation */

int nl_sock_open(struct nl_sock *s, int bus, struct err *e)
{
        const struct timeval wait = { .tv_sec = ANSWER_S };
        int one = 1;

        s->seq = 1;
        s->mnl = mnl_socket_open2(bus, SOCK_CLOEXEC);
        if (!s->mnl)
                return err_errno(e, -errno, "netlink socket");
        if (mnl_socket_bind(s->mnl, 0, MNL_SOCKET_AUTOPID) < 0 ||
            setsockopt(mnl_socket_get_fd(s->mnl), SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) <
                    0) {
                int r = err_errno(e, -errno, "netlink socket");

                nl_sock_close(s);
                return r;
        }
        /* The kernel's own explanation, and no echo of what we sent.  Old kernels do without. */
        (void) mnl_socket_setsockopt(s->mnl, NETLINK_EXT_ACK, &one, sizeof one);
        (void) mnl_socket_setsockopt(s->mnl, NETLINK_CAP_ACK, &one, sizeof one);
        return 0;
}

void nl_sock_close(struct nl_sock *s)
{
        if (s->mnl)
                (void) mnl_socket_close(s->mnl);
        s->mnl = NULL;
}

void nl_batch_init(struct nl_batch *b)
{
        b->len = 0;
        b->n = 0;
        b->atomic = false;
        b->cur = NULL;
}

/* MNL_ALIGN() without its mixed signs. */
static size_t align4(size_t n)
{
        return (n + 3U) & ~(size_t) 3U;
}

struct nl_attrs nl_attrs_of(const struct nlmsghdr *h, size_t extra)
{
        size_t off = sizeof *h + align4(extra);
        const uint8_t *at = (const uint8_t *) h;

        return h->nlmsg_len < off ? (struct nl_attrs){ at, at }
                                  : (struct nl_attrs){ at + off, at + h->nlmsg_len };
}

struct nl_attrs nl_attrs_in(const struct nlattr *a)
{
        const uint8_t *at = (const uint8_t *) a;

        return a ? (struct nl_attrs){ at + sizeof *a, at + a->nla_len } : (struct nl_attrs){ 0 };
}

const struct nlattr *nl_attr_next(struct nl_attrs *it)
{
        const struct nlattr *a = (const void *) it->at;
        size_t left = (size_t) (it->end - it->at);

        if (left < sizeof *a || a->nla_len < sizeof *a || a->nla_len > left)
                return NULL;
        it->at += align4(a->nla_len) < left ? align4(a->nla_len) : left;
        return a;
}

const struct nlattr *nl_attr_find(struct nl_attrs it, uint16_t type)
{
        const struct nlattr *a;

        while ((a = nl_attr_next(&it)))
                if (mnl_attr_get_type(a) == type)
                        return a;
        return NULL;
}

static void finish_message(struct nl_batch *b)
{
        if (b->cur)
                b->len += align4(b->cur->nlmsg_len);
        assert(b->len <= NL_BATCH_BYTES);
        b->cur = NULL;
}

void *nl_add(struct nl_batch *b, unsigned type, unsigned flags, size_t extra, const char *what,
             int ignore)
{
        finish_message(b);
        assert(b->n < NL_BATCH_MSGS && b->len + NL_MSG_BYTES <= NL_BATCH_BYTES);
        memset(b->buf + b->len, 0, NL_MSG_BYTES);
        b->cur = mnl_nlmsg_put_header(b->buf + b->len);
        b->cur->nlmsg_type = (uint16_t) type;
        b->cur->nlmsg_flags = (uint16_t) (flags | NLM_F_REQUEST);
        b->msg[b->n].what = what;
        b->msg[b->n].ignore = ignore;
        b->n++;
        return mnl_nlmsg_put_extra_header(b->cur, extra);
}

/* Number the messages and send them; the one at @ack asks for an answer in any case. */
static int send_batch(struct nl_sock *s, struct nl_batch *b, unsigned ack, uint32_t *ret_first,
                      struct err *e)
{
        size_t at = 0;

        finish_message(b);
        *ret_first = s->seq;
        for (unsigned i = 0; i < b->n; i++) {
                struct nlmsghdr *h = (struct nlmsghdr *) (void *) (b->buf + at);

                h->nlmsg_seq = s->seq++;
                if (i == ack)
                        h->nlmsg_flags |= NLM_F_ACK;
                at += align4(h->nlmsg_len);
        }
        if (mnl_socket_sendto(s->mnl, b->buf, b->len) < 0)
                return err_errno(e, -errno, "netlink send");
        return 0;
}

/* The text that the kernel put behind an error, or NULL. */
static const char *kernel_text(const struct nlmsghdr *h)
{
        const struct nlmsgerr *m = mnl_nlmsg_get_payload(h);
        size_t off = sizeof *m;
        const struct nlattr *a;
        struct nl_attrs it;

        if (!(h->nlmsg_flags & NLM_F_ACK_TLVS))
                return NULL;
        if (!(h->nlmsg_flags & NLM_F_CAPPED) && m->msg.nlmsg_len > sizeof m->msg)
                off += align4(m->msg.nlmsg_len) - sizeof m->msg;
        it = nl_attrs_of(h, off);
        while ((a = nl_attr_next(&it)))
                if (mnl_attr_get_type(a) == NLMSGERR_ATTR_MSG &&
                    mnl_attr_validate(a, MNL_TYPE_NUL_STRING) >= 0)
                        return mnl_attr_get_str(a);
        return NULL;
}

static int explain(struct err *e, int code, const char *what, const char *text)
{
        return text && *text ? err_set(e, code, "%s: %s (%s)", what, text, strerror(-code))
                             : err_errno(e, code, "%s", what);
}

/* Look at one answer.  1: it was the last one; 0: go on.  The first error goes to *@ret. */
static int take_verdict(const struct nlmsghdr *h, const struct nl_batch *b, uint32_t first,
                        unsigned last, int *ret, struct err *e)
{
        const struct nlmsgerr *m = mnl_nlmsg_get_payload(h);
        uint32_t i = h->nlmsg_seq - first;

        if (h->nlmsg_type != NLMSG_ERROR || i >= b->n || h->nlmsg_len < mnl_nlmsg_size(sizeof *m))
                return 0; /* an echo, or a late answer to something that timed out */
        if (m->error < 0 && -m->error != b->msg[i].ignore && *ret >= 0)
                *ret = explain(e, m->error, b->msg[i].what, kernel_text(h));
        return i == last || (b->atomic && m->error < 0 && i == 0);
}

int nl_commit(struct nl_sock *s, struct nl_batch *b, struct err *e)
{
        /* the end of a transaction is not acknowledged by every kernel; what is before it is */
        unsigned last = b->n - (b->atomic ? 2U : 1U);
        alignas(8) uint8_t buf[ANSWER_BYTES];
        uint32_t first;
        int r = 0, sent;

        if (b->n == 0)
                return 0;
        sent = send_batch(s, b, last, &first, e);
        if (sent < 0)
                return sent;
        for (bool done = false; !done;) {
                ssize_t got = mnl_socket_recvfrom(s->mnl, buf, sizeof buf);
                int left = (int) got;

                if (got < 0 && errno == EINTR)
                        continue;
                if (got < 0)
                        return err_errno(e, errno == EAGAIN ? -ETIMEDOUT : -errno,
                                         "netlink answer to %s", b->msg[0].what);
                for (const struct nlmsghdr *h = (const void *) buf; mnl_nlmsg_ok(h, left);
                     h = mnl_nlmsg_next(h, &left))
                        done |= take_verdict(h, b, first, last, &r, e) > 0;
        }
        nl_batch_init(b);
        return r;
}

static bool has_end(const void *buf, size_t len)
{
        const struct nlmsghdr *h = buf;

        for (int left = (int) len; mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left))
                if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR)
                        return true;
        return false;
}

int nl_query(struct nl_sock *s, struct nl_batch *b, mnl_cb_t fn, void *arg, struct err *e)
{
        alignas(8) uint8_t buf[ANSWER_BYTES * 2];
        const char *what = b->msg[0].what;
        const bool is_dump = b->cur->nlmsg_flags & NLM_F_DUMP;
        bool overtaken = false;
        uint32_t first;
        int r;

        assert(b->n == 1);
        /* a dump ends by NLMSG_DONE, a single look-up by the acknowledgement */
        r = send_batch(s, b, is_dump ? NL_BATCH_MSGS : 0, &first, e);
        nl_batch_init(b);
        if (r < 0)
                return r;
        do {
                ssize_t got = mnl_socket_recvfrom(s->mnl, buf, sizeof buf);

                if (got < 0 && errno == EINTR) {
                        r = MNL_CB_OK;
                        continue;
                }
                if (got < 0)
                        return err_errno(e, errno == EAGAIN ? -ETIMEDOUT : -errno, "%s", what);
                if (((const struct nlmsghdr *) (const void *) buf)->nlmsg_seq != first) {
                        r = MNL_CB_OK; /* a late answer to something that timed out */
                        continue;
                }
                r = mnl_cb_run(buf, (size_t) got, first, mnl_socket_get_portid(s->mnl), fn, arg);
                if (r < 0 && errno == EINTR && is_dump) {
                        /* read to its end all the same: until then the kernel begins no other */
                        overtaken = true;
                        r = has_end(buf, (size_t) got) ? MNL_CB_STOP : MNL_CB_OK;
                }
        } while (r == MNL_CB_OK);
        if (r >= 0 && overtaken)
                return err_errno(e, -EINTR, "%s", what);
        return r < 0 ? err_errno(e, -errno, "%s", what) : 0;
}
