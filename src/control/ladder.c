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

static const struct confine_call serving[] = {
        /* the event loop */
        CONFINE_ALLOW(epoll_create1),
        CONFINE_ALLOW(epoll_ctl),
        CONFINE_ALLOW(epoll_wait),
        CONFINE_ALLOW(epoll_pwait),
        CONFINE_ALLOW(epoll_pwait2),
        CONFINE_ALLOW(timerfd_create),
        CONFINE_ALLOW(timerfd_settime),
        CONFINE_ALLOW(signalfd4),
        /* connections that come in, and the ones that the engine hands over */
        CONFINE_ALLOW(accept),
        CONFINE_ALLOW(accept4),
        CONFINE_ALLOW(getsockname),
        CONFINE_ALLOW(getpeername),
        CONFINE_ALLOW(getsockopt),
        CONFINE_ALLOW(setsockopt),
        CONFINE_ALLOW(sendto),
        CONFINE_ALLOW(recvfrom),
        CONFINE_ALLOW(sendmsg),
        CONFINE_ALLOW(recvmsg),
        CONFINE_ALLOW(sendfile),
        CONFINE_ALLOW(shutdown),
        /* the engine's socket, and systemd's for "ready" */
        CONFINE_ALLOW_IF(socket, 0, AF_UNIX),
        CONFINE_ALLOW(connect),
        /* names of its threads */
        CONFINE_ALLOW_IF(prctl, 0, PR_SET_NAME),
};

static const struct confine_call
        storing
                [] = {
                        CONFINE_ALLOW(open),
                        CONFINE_ALLOW(openat),
                        CONFINE_ALLOW(stat),
                        CONFINE_ALLOW(lstat),
                        CONFINE_ALLOW(access),
                        CONFINE_ALLOW(faccessat),
                        CONFINE_ALLOW(faccessat2),
                        CONFINE_ALLOW(readlink), /* SQLite resolves the store's own path */
                        CONFINE_ALLOW(readlinkat),
                        CONFINE_ALLOW(getcwd),
                        CONFINE_ALLOW(unlink),
                        CONFINE_ALLOW(unlinkat),
                        CONFINE_ALLOW(rename),
                        CONFINE_ALLOW(renameat),
                        CONFINE_ALLOW(fchmod),
                        CONFINE_ALLOW(fsync),
                        CONFINE_ALLOW(fdatasync),
                        CONFINE_ALLOW(flock),
                        CONFINE_ALLOW(statfs), /* room for the store: base/dbspace.h */
                        CONFINE_ALLOW(fstatfs),
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
                                   .calls = calls,
                                   .n_calls = NELEM(calls),
                                   .otherwise = SCMP_ACT_ERRNO(EPERM) };

        /* reads its configuration and loads what that names, which cannot be done below */
        if (OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, NULL) != 1)
                return err_set(e, -EIO, "the cipher library cannot be set up");
        return confine_descend(&c, e);
}
