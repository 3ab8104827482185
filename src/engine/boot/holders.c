/* holders.c - see holders.h.  Operation process.
 *
 * A device rule keeps a file from being opened; it does nothing about files that are open.  So before a
 * device is taken from a cluster that runs, nothing in it may hold it, and this must find everything
 * that can: descriptors of every thread (they need not share them), mappings (which outlive their
 * descriptor), and descriptors that lie in the queue of a socket, of which the kernel tells only the
 * number: one is too many.  io_uring, which keeps files of its own, is not to be had inside.  No process
 * may move meanwhile, or it could hand the file on behind our back.
 *
 * Nothing is opened: a link below /proc/PID/fd is asked what it leads to. */
#include "engine/boot/holders.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"

#define PIDS_MOST 65536U

struct look {
        const struct slice_device *allowed;
        size_t n;
        pid_t pid;
        bool mappings; /* of this process were seen: its threads have the same ones */
        struct err *e;
};

static bool is_allowed(const struct look *l, char type, dev_t rdev)
{
        const struct slice_device *const set[] = { slice_base_devices, l->allowed };
        const size_t n[] = { slice_n_base_devices, l->n };

        for (size_t k = 0; k < NELEM(set); k++)
                for (size_t i = 0; i < n[k]; i++)
                        if (set[k][i].type == type && set[k][i].major == (int32_t) major(rdev) &&
                            (set[k][i].minor < 0 || set[k][i].minor == (int32_t) minor(rdev)))
                                return true;
        return false;
}

/* "process 7 (python3)", as it is known inside. */
static void describe(pid_t pid, char *buf, size_t size)
{
        AUTO(free) char *status = NULL;
        char path[64], name[32] = "?";
        const char *at;
        uint64_t inside = 0;

        (void) snprintf(path, sizeof path, "/proc/%d/status", (int) pid);
        if (fd_read_file(AT_FDCWD, path, 65536, &status, NULL) >= 0) {
                at = strstr(status, "Name:\t");
                if (at)
                        (void) snprintf(name, sizeof name, "%.*s", (int) strcspn(at + 6, "\n"),
                                        at + 6);
                at = strstr(status, "\nNSpid:");
                for (at = at ? at + 7 : NULL; at && *at && *at != '\n'; at++)
                        if (*at == '\t')
                                (void) str_u64_prefix(at + 1, 10, &inside);
        }
        for (char *c = name; *c; c++)
                if (*c < ' ' || *c > '~')
                        *c = '?';
        (void) snprintf(buf, size, "process %llu (%s)", (unsigned long long) inside, name);
}

static int held(const struct look *l, const char *what)
{
        char who[96];

        describe(l->pid, who, sizeof who);
        return err_set(l->e, -EBUSY, "gpuCount: %s has %s; end it first", who, what);
}

/* O_PATH gives no right to the device. */
static bool is_path_only(int dir, const char *fdinfo)
{
        AUTO(free) char *text = NULL;
        const char *at;
        uint32_t flags = 0;

        if (fd_read_file(dir, fdinfo, 65536, &text, NULL) < 0)
                return false;
        at = strstr(text, "flags:");
        at = at ? at + 6 + strspn(at + 6, " \t") : "";
        for (; *at >= '0' && *at <= '7'; at++)
                flags = flags << 3 | (uint32_t) (*at - '0');
        return flags & O_PATH;
}

/* Descriptors in the queue of a socket, or of those that wait to be accepted there.  What cannot be read is
 * believed to: a tenant makes the text as long as it likes, by locks on the socket. */
static bool carries_files(int dir, const char *fdinfo)
{
        AUTO(free) char *text = NULL;
        const char *at;
        uint64_t n;

        if (fd_read_file(dir, fdinfo, 65536, &text, NULL) < 0)
                return true;
        at = strstr(text, "scm_fds:");
        return at && str_u64_prefix(at + 8, 10, &n) >= 0 && n > 0;
}

/* Block devices count, too: no cluster ever opens one. */
static bool is_foreign(const struct look *l, const struct stat *st)
{
        return (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)) &&
               !is_allowed(l, S_ISCHR(st->st_mode) ? 'c' : 'b', st->st_rdev);
}

/* @dir/@sub: links to files; @fds: they are descriptors, and fdinfo/ lies beside. */
static int look_at(struct look *l, int dir, const char *sub, bool fds)
{
        int fd = openat(dir, sub, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
        DIR *d = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *de;

        if (!d)
                return errno == ENOENT || errno == ESRCH ? 0 : -errno;
        while (r >= 0 && (de = readdir(d)) != NULL) {
                char info[64];
                struct stat st;

                if (de->d_name[0] == '.')
                        continue;
                l->mappings = l->mappings || !fds;
                if (fstatat(dirfd(d), de->d_name, &st, 0) < 0) {
                        r = errno == ENOENT || errno == ESRCH ? 0 : -errno;
                        continue;
                }
                (void) snprintf(info, sizeof info, "fdinfo/%.40s", de->d_name);
                if (is_foreign(l, &st) && !(fds && is_path_only(dir, info)))
                        r = held(l, fds ? "a GPU open" : "a GPU mapped");
                else if (fds && S_ISSOCK(st.st_mode) && carries_files(dir, info))
                        r = held(l, "a socket in which files wait to be received");
        }
        (void) closedir(d);
        return r;
}

/* By way of /proc/TID: a process whose first thread has ended shows no mappings under its own number. */
static int look_at_thread(struct look *l, const char *tid)
{
        AUTO(fd) int task = -EBADF;
        char path[32];
        int r;

        (void) snprintf(path, sizeof path, "/proc/%.16s", tid);
        task = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (task < 0)
                return errno == ENOENT || errno == ESRCH ? 0 : -errno;
        r = look_at(l, task, "fd", true);
        return r < 0 || l->mappings ? r : look_at(l, task, "map_files", false);
}

static int look_at_process(struct look *l, pid_t pid)
{
        char path[32];
        struct dirent *de;
        DIR *tasks;
        int r = 0;

        l->pid = pid;
        l->mappings = false;
        (void) snprintf(path, sizeof path, "/proc/%d/task", (int) pid);
        tasks = opendir(path);
        if (!tasks)
                return errno == ENOENT || errno == ESRCH ? 0 : -errno;
        while (r >= 0 && (de = readdir(tasks)) != NULL)
                if (de->d_name[0] != '.')
                        r = look_at_thread(l, de->d_name);
        (void) closedir(tasks);
        return r;
}

int holders_check(struct slice_host *h, const char *slice, const struct slice_device *allowed,
                  size_t n, struct err *e)
{
        AUTO(free) pid_t *pid = calloc(PIDS_MOST, sizeof *pid);
        struct look l = { .allowed = allowed, .n = n, .e = e };
        int n_pids = pid ? slice_pids(h, slice, pid, PIDS_MOST, e) : -ENOMEM, r = 0;

        if (n_pids < 0)
                return n_pids;
        if (n_pids > (int) PIDS_MOST)
                return err_set(e, -E2BIG, "gpuCount: too many processes to look at");
        for (int i = 0; i < n_pids && r >= 0; i++) {
                r = look_at_process(&l, pid[i]);
                if (r < 0 && r != -EBUSY)
                        r = err_errno(e, r, "look at its processes");
        }
        return r < 0 ? r : 0;
}
