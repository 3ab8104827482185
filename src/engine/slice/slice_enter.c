/* slice_enter.c - a process puts itself into a group.  Apart, because vmm-launch needs nothing else. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/slice/slice.h"

void slice_enter_done(struct slice_enter *s)
{
        s->v2_dir = fd_close(s->v2_dir);
        if (s->pressure > 0)
                s->pressure = fd_close(s->pressure);
        for (; s->n_v1 > 0; s->n_v1--)
                (void) fd_close(s->v1_tasks[s->n_v1 - 1]);
}

int slice_enter_self(const struct slice_enter *s)
{
        AUTO(fd) int fd = -EBADF;

        for (size_t i = 0; i < s->n_v1; i++)
                if (write(s->v1_tasks[i], "0", 1) != 1)
                        return -errno;
        if (s->v2_dir < 0)
                return 0;
        fd = openat(s->v2_dir, "cgroup.procs", O_WRONLY | O_CLOEXEC);
        return fd < 0 || write(fd, "0", 1) != 1 ? -errno : 0;
}
