/* birth.c - what vmm-launch is told when it begins.
 *
 *   struct head
 *
 * Always: a program of another build (an upgrade between two boots) refuses with one sentence rather
 * than misread what it is given. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/sandbox/sandbox_priv.h"

static const char build[32] = "vmm-launch " HVMM_VERSION;

struct head {
        char build[32];
        uint64_t size; /* of this */
        uint32_t id_base, monitor_uid;
        int32_t netns, sysfs_mnt, join, program, up, report, mnt[MNT_COUNT];
        struct slice_enter slice, monitor_slice;
        struct cgroup_view view;
};

static void copy_slice(const struct slice_enter *from, struct slice_enter *to)
{
        static const struct slice_enter none = { .v2_dir = -EBADF };

        *to = from ? *from : none;
}

int birth_write(const struct launch *l, struct err *e)
{
        const struct sandbox_place *p = l->place;
        AUTO(fd) int fd = memfd_create("birth", MFD_CLOEXEC);
        struct head h;
        int r;

        memset(&h, 0, sizeof h);
        memcpy(h.build, build, sizeof h.build);
        h.size = sizeof h;
        h.id_base = p->id_base;
        h.monitor_uid = p->monitor_uid;
        h.netns = p->netns;
        h.sysfs_mnt = p->sysfs_mnt;
        h.join = l->join;
        h.program = l->program;
        h.up = l->up;
        h.report = l->report;
        memcpy(h.mnt, l->mnt, sizeof h.mnt);
        copy_slice(p->slice, &h.slice);
        copy_slice(p->monitor_slice, &h.monitor_slice);
        h.view = *l->view;
        r = fd < 0 ? -errno : fd_write_full(fd, &h, sizeof h);
        if (r < 0 || lseek(fd, 0, SEEK_SET) < 0)
                return err_errno(e, r < 0 ? r : -errno, "memory file for the launcher");
        return fd_take(&fd);
}

static int inherit(int fd)
{
        return fd < 0 ? 0 : fd_set_cloexec(fd, false);
}

static int inherit_slice(const struct slice_enter *s)
{
        int r = s ? inherit(s->v2_dir) : 0;

        if (r >= 0 && s && s->pressure > 0)
                r = inherit(s->pressure);
        for (size_t i = 0; s && i < s->n_v1 && r >= 0; i++)
                r = inherit(s->v1_tasks[i]);
        return r;
}

int birth_inherit(const struct launch *l)
{
        const struct sandbox_place *p = l->place;
        const int fds[] = { p->netns, p->sysfs_mnt, l->join, l->program, l->up, l->report };
        int r = inherit_slice(p->slice);

        if (r >= 0)
                r = inherit_slice(p->monitor_slice);
        for (size_t i = 0; i < NELEM(fds) && r >= 0; i++)
                r = inherit(fds[i]);
        for (size_t i = 0; i < MNT_COUNT && r >= 0; i++)
                r = inherit(l->mnt[i]);
        return r;
}

static void from_head(const struct head *h, struct birth *b)
{
        b->slice = h->slice;
        b->monitor_slice = h->monitor_slice;
        b->view = h->view;
        b->place = (struct sandbox_place){ .id_base = h->id_base,
                                           .monitor_uid = h->monitor_uid,
                                           .netns = h->netns,
                                           .sysfs_mnt = h->sysfs_mnt,
                                           .slice = &b->slice,
                                           .monitor_slice = &b->monitor_slice };
        b->launch = (struct launch){ .place = &b->place,
                                     .join = h->join,
                                     .program = h->program,
                                     .up = h->up,
                                     .report = h->report,
                                     .proc = -EBADF,
                                     .label = -EBADF,
                                     .view = &b->view };
        memcpy(b->launch.mnt, h->mnt, sizeof b->launch.mnt);
}

int birth_read(int fd, struct birth *ret, struct err *e)
{
        struct head h;

        if (fd_read_full(fd, &h, sizeof h) != (ssize_t) sizeof h || h.size != sizeof h ||
            memcmp(h.build, build, sizeof h.build) != 0 || h.slice.n_v1 > SLICE_ENTER_MAX ||
            h.monitor_slice.n_v1 > SLICE_ENTER_MAX || h.view.n > CGROUP_VIEW_MAX)
                return err_set(e, -EPROTO, "started by an engine of another version");
        from_head(&h, ret);
        return 0;
}
