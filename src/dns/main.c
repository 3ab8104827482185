/* main.c - vmm-dns: the resolver of clusters, started and replaced by hypervisor-vmm.
 *
 * It answers for `<cluster id>.internal` to clusters of the same account, and carries everything else to
 * the host's name servers and back.  Its two sockets lie on the service address, which the firewall
 * opens to clusters alone; who asks is known by the source address, which the firewall has checked.
 * What it knows it is told by the engine over one connection (docs/node-protocol.md), and it ends with
 * that.  Runs under a user of its own, below a ladder. */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "dns/dnsd.h"
#include "dns/ladder.h"

#define MESSAGES_A_TURN 64

struct args {
        int fd, udp, tcp;
};

static const struct {
        const char *name;
        size_t off;
} arg_table[] = {
        { "--fd", offsetof(struct args, fd) },
        { "--udp-fd", offsetof(struct args, udp) },
        { "--tcp-fd", offsetof(struct args, tcp) },
};

/* "--name number" pairs, each of them. */
static int parse(char **argv, struct args *a)
{
        for (argv++; *argv; argv += 2) {
                uint64_t v;
                size_t i = 0;

                while (i < NELEM(arg_table) && !str_eq(*argv, arg_table[i].name))
                        i++;
                if (i == NELEM(arg_table) || !argv[1] || str_u64(argv[1], 3, 1023, &v) < 0)
                        return -EINVAL;
                *(int *) (void *) ((char *) a + arg_table[i].off) = (int) v;
        }
        return a->fd < 0 || a->udp < 0 || a->tcp < 0 ? -EINVAL : 0;
}

static int on_engine(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct dnsd *d = arg;
        struct err e = { 0 };
        int r = 1;

        (void) s;
        (void) fd;
        (void) revents;
        do {
                for (int i = 0; i < MESSAGES_A_TURN; i++) {
                        AUTO(frame_msg_done) struct frame_msg m = { 0 };

                        r = frame_recv(d->conn, &m, &e);
                        if (r > 0)
                                r = names_message(d->names, m.json, &e) < 0 ? -EPROTO : 1;
                        if (r <= 0)
                                break;
                }
        } while (r > 0 && frame_ready(d->conn));
        if (r < 0 && r != -EPIPE)
                log_error("the engine's message: %s", e.msg);
        return r < 0 ? sd_event_exit(d->loop, r == -EPIPE ? 0 : 1) : 0;
}

static int serve(struct dnsd *d)
{
        int r = sd_event_new(&d->loop);

        if (r >= 0)
                r = sd_event_add_io(d->loop, NULL, frame_conn_fd(d->conn), EPOLLIN, on_engine, d);
        if (r >= 0)
                r = sd_event_add_io(d->loop, NULL, d->udp, EPOLLIN, on_udp, d);
        if (r >= 0)
                r = sd_event_add_io(d->loop, NULL, d->tcp, EPOLLIN, on_tcp, d);
        return r < 0 ? r : sd_event_loop(d->loop);
}

int main(int argc, char **argv)
{
        struct args a = { .fd = -EBADF, .udp = -EBADF, .tcp = -EBADF };
        struct dnsd d = { .names = NULL };
        struct err e = { 0 };
        int r;

        (void) argc;
        log_init("vmm-dns", LOG_LVL_INFO);
        if (parse(argv, &a) < 0) {
                (void) fprintf(
                        stderr,
                        "usage: vmm-dns --fd N --udp-fd N --tcp-fd N (started by hypervisor-vmm)\n");
                return 2;
        }
        (void) signal(SIGPIPE, SIG_IGN);
        d.udp = a.udp;
        d.tcp = a.tcp;
        d.names = names_new();
        r = d.names ? frame_conn_new(a.fd, &d.conn) : -ENOMEM;
        if (r >= 0)
                r = ladder_descend(&e);
        if (r >= 0)
                r = serve(&d);
        if (r < 0)
                log_error("%s", *e.msg ? e.msg : strerror(-r));
        udp_end(&d);
        tcp_end(&d);
        (void) sd_event_unref(d.loop);
        (void) frame_conn_free(d.conn);
        (void) names_free(d.names);
        return r == 0 ? 0 : 1;
}
