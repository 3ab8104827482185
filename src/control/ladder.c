/* ladder.c - the way down of tensorone-api, which reads whatever anybody on the network sends.
 *
 * Where it begins: a uid of its own without capabilities and, when the engine starts it, a root file
 * system that holds its store, the engine's socket and the libraries.  The rungs:
 *   1. listener, key files and the cipher library's configuration are open already
 *   2. no core dump, no tracer; no capability, no new privileges (base/confine.h)
 *   3. Landlock: the store's directory can be written, and nothing else has a name; no TCP connection
 *      begins here; no signal and no abstract socket reaches out
 *   4. the system calls of serving HTTP and keeping a store; whatever would start a program, trace,
 *      mount or load code into the kernel ends the process */
#include "control/ladder.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "base/confine.h"
#include "base/mem.h"

#define ALLOW(name)                                                                                \
        {                                                                                          \
                SCMP_SYS(name), SCMP_ACT_ALLOW, CONFINE_ANY, 0, 0                                  \
        }

static const struct confine_call serving[] = {
        /* the event loop */
        ALLOW(epoll_create1),
        ALLOW(epoll_ctl),
        ALLOW(epoll_wait),
        ALLOW(epoll_pwait),
        ALLOW(epoll_pwait2),
        ALLOW(timerfd_create),
        ALLOW(timerfd_settime),
        ALLOW(signalfd4),
        /* connections that come in, and the ones that the engine hands over */
        ALLOW(accept),
        ALLOW(accept4),
        ALLOW(getsockname),
        ALLOW(getpeername),
        ALLOW(getsockopt),
        ALLOW(setsockopt),
        ALLOW(sendto),
        ALLOW(recvfrom),
        ALLOW(sendmsg),
        ALLOW(recvmsg),
        ALLOW(sendfile),
        ALLOW(shutdown),
        /* the engine's socket, and systemd's for "ready" */
        { SCMP_SYS(socket), SCMP_ACT_ALLOW, 0, UINT64_MAX, AF_UNIX },
        ALLOW(connect),
        /* names of its threads */
        { SCMP_SYS(prctl), SCMP_ACT_ALLOW, 0, UINT64_MAX, PR_SET_NAME },
};

static const struct confine_call
        storing[] = {
                ALLOW(open),       ALLOW(openat),   ALLOW(stat),
                ALLOW(lstat),      ALLOW(access),   ALLOW(faccessat),
                ALLOW(faccessat2), ALLOW(readlink), /* SQLite resolves the store's own path */
                ALLOW(readlinkat), ALLOW(getcwd),   ALLOW(unlink),
                ALLOW(unlinkat),   ALLOW(rename),   ALLOW(renameat),
                ALLOW(fchmod),     ALLOW(fsync),    ALLOW(fdatasync),
                ALLOW(flock),      ALLOW(statfs), /* room for the store: base/dbspace.h */
                ALLOW(fstatfs),
        };

int ladder_descend(const char *data_dir, struct err *e)
{
        const struct confine_path paths[] = {
                { data_dir, CONFINE_READ | CONFINE_WRITE | CONFINE_MAKE }, /* the store */
                { "/dev/urandom", CONFINE_READ }, /* SQLite's temporary names */
        };
        const struct confine_calls calls[] = { confine_calls_runtime, confine_calls_io,
                                               confine_calls_deadly, CONFINE_CALLS(serving),
                                               CONFINE_CALLS(storing) };
        const struct confine c = { .program = "tensorone-api",
                                   .paths = paths,
                                   .n_paths = NELEM(paths),
                                   .net = CONFINE_NET_NONE,
                                   .calls = calls,
                                   .n_calls = NELEM(calls),
                                   .otherwise = SCMP_ACT_ERRNO(EPERM) };

        /* reads its configuration and loads what that names, which cannot be done below */
        if (OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, NULL) != 1)
                return err_set(e, -EIO, "the cipher library cannot be set up");
        return confine_descend(&c, e);
}
