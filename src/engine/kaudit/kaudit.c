/* kaudit.c - see kaudit.h.  Engine process, loop thread. */
#include "engine/kaudit/kaudit.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "engine/claim/claim.h"
#include "engine/kaudit/line.h"
#include "model/limits.h"

#define RECORDS_A_TURN 64
#define RECORD_BYTES   16384U

static_assert(KAUDIT_SECCOMP == AUDIT_SECCOMP && KAUDIT_LSM == AUDIT_AVC, "types of records");

struct kaudit {
        int fd;
        sd_event_source *src;
        kaudit_fn *fn;
        void *arg;
};

/* The kernel hands on no more than what is looked at. */
static int filter(int fd)
{
        /* nlmsg_type is the host's, a load is big endian */
        struct sock_filter code[] = {
                BPF_STMT(BPF_LD | BPF_H | BPF_ABS, offsetof(struct nlmsghdr, nlmsg_type)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(KAUDIT_SECCOMP), 1, 0),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(KAUDIT_LSM), 0, 1),
                BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
                BPF_STMT(BPF_RET | BPF_K, 0),
        };
        const struct sock_fprog prog = { .len = NELEM(code), .filter = code };

        return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof prog) < 0 ? -errno : 0;
}

static uint32_t slot_of(const struct kaudit_line *l)
{
        if (l->slot)
                return l->slot;
        if (!l->has_uid || l->uid < claim_id_base(1) || l->uid >= claim_id_base(LIMIT_SLOTS + 1))
                return 0;
        return (l->uid - claim_id_base(0)) / 65536U;
}

/* One datagram may hold several. */
static void take(struct kaudit *k, const char *buf, size_t len)
{
        while (len >= sizeof(struct nlmsghdr)) {
                struct kaudit_line l;
                struct nlmsghdr h;
                char text[512];
                size_t step;

                memcpy(&h, buf, sizeof h);
                if (h.nlmsg_len < sizeof h || h.nlmsg_len > len)
                        return;
                if (kaudit_parse(h.nlmsg_type, buf + sizeof h, h.nlmsg_len - sizeof h, &l) >= 0 &&
                    slot_of(&l)) {
                        kaudit_sentence(&l, text, sizeof text);
                        k->fn(k->arg, slot_of(&l), l.kind, text);
                }
                step = NLMSG_ALIGN(h.nlmsg_len);
                if (step >= len)
                        return;
                buf += step;
                len -= step;
        }
}

static int on_record(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        char buf[RECORD_BYTES];

        (void) s;
        (void) revents;
        for (int i = 0; i < RECORDS_A_TURN; i++) {
                struct sockaddr_nl from = { 0 };
                socklen_t len = sizeof from;
                ssize_t n = recvfrom(fd, buf, sizeof buf, MSG_DONTWAIT, (struct sockaddr *) &from,
                                     &len);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0) /* nothing more; or some were lost, which nobody can tell now */
                        return 0;
                if (from.nl_pid == 0) /* the kernel's own */
                        take(arg, buf, (size_t) n);
        }
        return 0;
}

int kaudit_new(sd_event *loop, kaudit_fn *fn, void *arg, struct kaudit **ret, struct err *e)
{
        AUTO(kaudit_free) struct kaudit *k = calloc(1, sizeof *k);
        const struct sockaddr_nl at = { .nl_family = AF_NETLINK,
                                        .nl_groups = 1U << (AUDIT_NLGRP_READLOG - 1) };
        int r;

        if (!k)
                return err_set(e, -ENOMEM, "out of memory");
        k->fn = fn;
        k->arg = arg;
        k->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_AUDIT);
        r = k->fd < 0 ? -errno : filter(k->fd);
        if (r >= 0 && bind(k->fd, (const struct sockaddr *) &at, sizeof at) < 0)
                r = -errno;
        if (r < 0)
                return err_errno(e, r, "the kernel's audit stream");
        r = sd_event_add_io(loop, &k->src, k->fd, EPOLLIN, on_record, k);
        if (r < 0)
                return err_errno(e, r, "watch the kernel's audit stream");
        *ret = TAKE(k);
        return 0;
}

struct kaudit *kaudit_free(struct kaudit *k)
{
        if (!k)
                return NULL;
        k->src = sd_event_source_disable_unref(k->src);
        k->fd = fd_close(k->fd);
        free(k);
        return NULL;
}
