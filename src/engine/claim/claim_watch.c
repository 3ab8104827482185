/* claim_watch.c - what the other engines on this machine hold, and when that changes.
 *
 * Runs in the engine, on the loop.  Without the host-wide lock: the answer may be old by the time
 * it is used in any case, and whoever acts on it claims under the lock. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/claim/claim_priv.h"

static int compare_u32(const void *a, const void *b)
{
        uint32_t x = *(const uint32_t *) a, y = *(const uint32_t *) b;

        return (x > y) - (x < y);
}

/* The directory rather than the index: a file is there a moment before the index says so, and its
 * event comes in that moment. */
int claim_cpus_elsewhere(const struct claim_host *c, uint32_t *ret, size_t max, struct err *e)
{
        const struct claim_table *t = &c->table[CLAIM_KIND_CPU];
        int fd = openat(t->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *de;
        size_t n = 0;

        if (!dir) {
                int r = err_errno(e, -errno, "claims: cpus");

                (void) fd_close(fd);
                return r;
        }
        while (n < max && (de = readdir(dir)) != NULL) {
                struct claim_rec rec;
                uint64_t cpu;
                int r;

                if (str_u64(de->d_name, t->first, t->last, &cpu) < 0)
                        continue;
                r = claim_table_read(t, (uint32_t) cpu, &rec);
                if (r == -ENOENT)
                        continue;                              /* released meanwhile */
                if (r < 0 || strcmp(rec.instance, c->id) != 0) /* unreadable means taken */
                        ret[n++] = (uint32_t) cpu;
        }
        (void) closedir(dir);
        qsort(ret, n, sizeof *ret, compare_u32);
        return (int) n;
}

int claim_watch_open(const struct claim_host *c, struct err *e)
{
        AUTO(fd) int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        const int dirs[] = { c->table[CLAIM_KIND_CPU].dir, c->gpus };
        char path[40];

        if (fd < 0)
                return err_errno(e, -errno, "claims: inotify");
        for (size_t i = 0; i < NELEM(dirs); i++) {
                /* by descriptor: /run is another one below a chroot */
                (void) snprintf(path, sizeof path, "/proc/self/fd/%d", dirs[i]);
                if (inotify_add_watch(fd, path, IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_ONLYDIR) <
                    0)
                        return err_errno(e, -errno, "claims: watch cpus and gpus");
        }
        return fd_take(&fd);
}

bool claim_watch_read(int fd)
{
        char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
        bool any = false;

        while (read(fd, buf, sizeof buf) > 0)
                any = true;
        return any;
}
