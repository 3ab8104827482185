/* sysctls.c - a profile's own settings of a cluster's network namespace.  Operation process, root on
 * the host: the namespace is the host's, and nobody inside may write them.
 *
 * Always holds: whatever fails, the process is in the host's namespace again, or says that it is lost. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/sandbox/sandbox_priv.h"

static int write_rows(const struct policy_sysctl *rows, size_t n, struct err *e)
{
        for (size_t i = 0; i < n; i++) {
                int r = fd_write_value(AT_FDCWD, rows[i].path, rows[i].value);

                if (r < 0 && !(r == -ENOENT && rows[i].may_lack))
                        return err_errno(e, r, "write '%s' to %s", rows[i].value, rows[i].path);
        }
        return 0;
}

int sysctls_apply(int pidfd, const struct policy_sysctl *rows, size_t n, struct err *e)
{
        AUTO(fd) int home = -EBADF;
        int r;

        if (n == 0)
                return 0;
        home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        if (home < 0)
                return err_errno(e, -errno, "open our network namespace");
        if (setns(pidfd, CLONE_NEWNET) < 0) {
                r = errno == ESRCH ? -EOWNERDEAD : -errno; /* the first process was killed */
                return err_errno(e, r, "enter the cluster's network namespace");
        }
        r = write_rows(rows, n, e);
        if (setns(home, CLONE_NEWNET) < 0)
                return err_set(e, -ENOTRECOVERABLE, "cannot leave the cluster's network namespace");
        return r;
}
