/* cgroup.c - what a cluster sees at /sys/fs/cgroup: its own group, read-only, so that programs that
 * size themselves by their limits find them.
 *
 * On v2 that is one mount.  On v1 and hybrid hosts it is one per hierarchy (18 us each), for the
 * controllers that limits are set with.  A hierarchy is shown only when the cluster's group is part
 * of it (same superblock as one of the slice's files): in any other one the namespace's root is the
 * group of the engine. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/sandbox/sandbox_priv.h"

#define ATTRS (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY)

static bool of_interest(const char *name, size_t len)
{
        static const char *const names[] = { "cpu", "cpuacct", "cpuset", "memory", "pids" };

        for (size_t i = 0; i < NELEM(names); i++)
                if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0)
                        return true;
        return false;
}

void cgroup_view_parse(const char *text, struct cgroup_view *ret)
{
        ret->n = 0;
        while (*text && ret->n < CGROUP_VIEW_MAX) {
                const char *list = text + strcspn(text, ":\n");
                size_t len, first;

                list += *list == ':';
                len = strcspn(list, ":\n");
                first = strcspn(list, ",:\n");
                if (of_interest(list, first) && len < sizeof ret->list[0])
                        (void) snprintf(ret->list[ret->n++], sizeof ret->list[0], "%.*s", (int) len,
                                        list);
                text = list + strcspn(list, "\n");
                text += *text == '\n';
        }
}

int cgroup_dirs(const struct cgroup_view *v, int dir)
{
        for (size_t i = 0; i < v->n; i++) {
                const char *part = v->list[i];

                if (mkdirat(dir, part, 0555) < 0)
                        return -errno;
                while (strchr(v->list[i], ',') && *part) { /* "cpu,cpuacct" by each name too */
                        char name[sizeof v->list[0]];
                        size_t len = strcspn(part, ",");

                        (void) snprintf(name, sizeof name, "%.*s", (int) len, part);
                        if (symlinkat(v->list[i], dir, name) < 0)
                                return -errno;
                        part += len + (part[len] == ',');
                }
        }
        return 0;
}

static bool entered(const struct slice_enter *s, int mnt)
{
        struct stat want, st;

        if (fstat(mnt, &want) < 0)
                return false;
        for (size_t i = 0; i < s->n_v1; i++)
                if (fstat(s->v1_tasks[i], &st) == 0 && st.st_dev == want.st_dev)
                        return true;
        return false;
}

/* One hierarchy of controllers "a" or "a,b". */
static int show_v1(const struct slice_enter *s, const char *list, int at, struct err *e)
{
        AUTO(fd) int fs = fsopen("cgroup", FSOPEN_CLOEXEC);
        AUTO(fd) int mnt = -EBADF;
        char name[32];
        int r = fs < 0 ? -1 : 0;

        for (const char *p = list; r >= 0 && *p;) {
                size_t len = strcspn(p, ",");

                (void) snprintf(name, sizeof name, "%.*s", (int) len, p);
                r = fsconfig(fs, FSCONFIG_SET_FLAG, name, NULL, 0);
                p += len + (p[len] == ',');
        }
        if (r >= 0)
                r = fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
        if (r >= 0)
                r = mnt = fsmount(fs, FSMOUNT_CLOEXEC, ATTRS);
        if (r < 0)
                return err_errno(e, -errno, "show group %s", list);
        return entered(s, mnt) ? mount_attach(mnt, at, list, e) : 0;
}

int cgroup_mount(const struct launch *l, int sys, struct err *e)
{
        const struct slice_enter *s = l->place->slice;
        AUTO(fd) int mnt = -EBADF;
        int r;

        if (!s || (s->v2_dir < 0 && s->n_v1 == 0))
                return 0;
        if (s->v2_dir >= 0) {
                mnt = mount_make("cgroup2", NULL, ATTRS, e);
                return mnt < 0 ? mnt : mount_attach(mnt, sys, "fs/cgroup", e);
        }
        r = mount_attach(l->mnt[MNT_CGROUP], sys, "fs/cgroup", e);
        for (size_t i = 0; i < l->view->n && r >= 0; i++)
                r = show_v1(s, l->view->list[i], l->mnt[MNT_CGROUP], e);
        return r >= 0 ? mount_restrict(l->mnt[MNT_CGROUP], ATTRS, e) : r;
}
