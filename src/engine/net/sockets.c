/* sockets.c - ending what programs of this host, the edge above all, have open to a cluster that is gone.
 * Operation processes.
 *
 * The address may be the next cluster's in a moment.  An established connection could not reach that one,
 * whose kernel side knows nothing of it; but one that is still being opened sends its SYN again, and would be
 * opened there.  So an address is let go of when a list of the host's sockets shows none to it. */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/net/net_priv.h"

/* All states in which a packet may still be sent. */
#define LIVE_STATES (0xfffU & ~(1U << TCP_TIME_WAIT | 1U << TCP_LISTEN | 1U << TCP_CLOSE))
#define ROUNDS      20

/* "peer == address, any port", as the kernel's filter wants it. */
struct peer_filter {
        struct inet_diag_bc_op op;
        uint8_t family, prefix_len;
        uint16_t pad;
        int32_t port;
        uint32_t addr;
};
static_assert(sizeof(struct peer_filter) ==
                      sizeof(struct inet_diag_bc_op) + sizeof(struct inet_diag_hostcond) + 4,
              "linux/inet_diag.h");

struct found {
        struct inet_diag_sockid *id;
        size_t n, cap;
};

static int on_socket(const struct nlmsghdr *h, void *arg)
{
        const struct inet_diag_msg *m = mnl_nlmsg_get_payload(h);
        struct found *f = arg;

        if (h->nlmsg_len < mnl_nlmsg_size(sizeof *m))
                return MNL_CB_OK;
        if (f->n == f->cap) {
                size_t cap = f->cap ? 2 * f->cap : 16;
                struct inet_diag_sockid *more = reallocarray(f->id, cap, sizeof *more);

                if (!more) {
                        errno = ENOMEM;
                        return MNL_CB_ERROR;
                }
                f->id = more;
                f->cap = cap;
        }
        f->id[f->n++] = m->id;
        return MNL_CB_OK;
}

static int list(struct nl_sock *s, uint32_t addr, struct found *ret, struct err *e)
{
        const struct peer_filter filter = { .op = { .code = INET_DIAG_BC_D_COND,
                                                    .yes = sizeof filter,
                                                    .no = sizeof filter + 4 },
                                            .family = AF_INET,
                                            .prefix_len = 32,
                                            .port = -1,
                                            .addr = htonl(addr) };
        struct nl_batch b;
        int r;

        for (int i = 0; i < ROUNDS; i++) { /* a list during which the table changed is read again */
                struct inet_diag_req_v2 *req;

                nl_batch_init(&b);
                req = nl_add(&b, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, sizeof *req, "list of sockets",
                             0);
                req->sdiag_family = AF_INET;
                req->sdiag_protocol = IPPROTO_TCP;
                req->idiag_states = LIVE_STATES;
                mnl_attr_put(b.cur, INET_DIAG_REQ_BYTECODE, sizeof filter, &filter);
                ret->n = 0;
                r = nl_query(s, &b, on_socket, ret, e);
                if (r != -EINTR)
                        return r;
        }
        return r;
}

static int destroy(struct nl_sock *s, const struct found *f, struct err *e)
{
        struct nl_batch b;
        int r = 0;

        nl_batch_init(&b);
        for (size_t i = 0; r >= 0 && i < f->n; i++) {
                struct inet_diag_req_v2 *req = nl_add(&b, SOCK_DESTROY, NLM_F_ACK, sizeof *req,
                                                      "end of a connection", ENOENT);

                req->sdiag_family = AF_INET;
                req->sdiag_protocol = IPPROTO_TCP;
                req->idiag_states = LIVE_STATES;
                req->id = f->id[i];
                if (b.n == NL_BATCH_MSGS / 2 || i + 1 == f->n)
                        r = nl_commit(s, &b, e);
        }
        return r;
}

int net_end_sockets(struct net_host *h, uint32_t slot, struct err *e)
{
        AUTO(nl_sock_close) struct nl_sock s = { .mnl = NULL };
        uint32_t addr = ipv4_of_slot(&h->pool, slot);
        struct found f = { .n = 0 };
        int r = nl_sock_open(&s, NETLINK_SOCK_DIAG, e);

        for (int i = 0; r >= 0 && i < ROUNDS; i++) {
                r = list(&s, addr, &f, e);
                if (r < 0 || f.n == 0)
                        break;
                r = destroy(&s, &f, e);
        }
        if (r >= 0 && f.n > 0)
                r = err_set(e, -EBUSY, "some program of this host keeps connecting to it");
        free(f.id);
        return r;
}
