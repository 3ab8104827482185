/* ladder.c - the way down of vmm-dns, which reads what tenants and strange name servers write.
 *
 * Where it begins: a uid of its own without capabilities, three sockets and nothing else open.  The rungs:
 *   1. no core dump, no debugger, no capability, no new privileges (base/confine.h)
 *   2. Landlock: no file at all, no TCP port to listen on, no abstract socket, no signal
 *   3. an allow-list of system calls: sockets for asking name servers, the loop, memory; no program, no
 *      process, no name of a file.  What only somebody else would try ends it */
#include "dns/ladder.h"

#include <errno.h>
#include <seccomp.h>
#include <sys/socket.h>

#include "base/confine.h"
#include "base/mem.h"

static const struct confine_call own[] = {
        /* a socket for each question that goes on, of these families alone */
        CONFINE_ALLOW_IF32(socket, 0, AF_INET),
        CONFINE_ALLOW_IF32(socket, 0, AF_INET6),
        CONFINE_ALLOW(connect),
        CONFINE_ALLOW(accept4),
        CONFINE_ALLOW(sendto),
        CONFINE_ALLOW(recvfrom),
        CONFINE_ALLOW(recvmsg), /* the engine's messages */
        CONFINE_ALLOW(sendmsg),
        CONFINE_ALLOW(getsockopt), /* the loop asks what kind of descriptor it has */
        /* sd-event */
        CONFINE_ALLOW(epoll_create1),
        CONFINE_ALLOW(epoll_ctl),
        CONFINE_ALLOW(epoll_wait),
        CONFINE_ALLOW(epoll_pwait),
        CONFINE_ALLOW(epoll_pwait2),
        CONFINE_ALLOW(timerfd_create),
        CONFINE_ALLOW(timerfd_settime),
};

int ladder_descend(struct err *e)
{
        const struct confine_calls calls[] = { confine_calls_runtime, confine_calls_io,
                                               CONFINE_CALLS(own), confine_calls_deadly };
        const struct confine c = { .program = "vmm-dns",
                                   .reach = CONFINE_CONNECT, /* name servers by TCP */
                                   .calls = calls,
                                   .n_calls = NELEM(calls),
                                   .otherwise = SCMP_ACT_ERRNO(EPERM) };

        return confine_descend(&c, e);
}
