/* bench_slice_disk.c - what the slice and disk stages cost, p50 and p99.
 *
 * Needs root.  Prints "name p50 p99 unit"; leaves nothing behind. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/proc.h"
#include "engine/disk/disk.h"
#include "engine/slice/slice.h"

#define ROUNDS   200U
#define DISK_GIB 20U

struct series {
        const char *name;
        double us[ROUNDS];
        size_t n;
};

static double now_us(void)
{
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (double) t.tv_sec * 1e6 + (double) t.tv_nsec / 1e3;
}

static double lap(struct series *s, double since)
{
        double now = now_us();

        s->us[s->n++] = now - since;
        return now_us();
}

static int by_value(const void *a, const void *b)
{
        double x, y;

        memcpy(&x, a, sizeof x);
        memcpy(&y, b, sizeof y);
        return x < y ? -1 : x > y;
}

static void print(struct series *s)
{
        qsort(s->us, s->n, sizeof s->us[0], by_value);
        (void) printf("%-22s %8.1f %8.1f us\n", s->name, s->us[s->n / 2], s->us[s->n * 99 / 100]);
        s->n = 0;
}

static void die(int r, const struct err *e)
{
        if (r >= 0)
                return;
        (void) fprintf(stderr, "bench_slice_disk: %s\n", e->msg);
        exit(1);
}

static double enter(const struct slice_enter *in)
{
        double t = now_us(), took = 0;
        int pipefd[2];
        pid_t pid;

        if (pipe(pipefd) < 0)
                exit(1);
        pid = fork();
        if (pid == 0) {
                t = now_us();
                if (slice_enter_self(in) < 0)
                        _exit(1);
                took = now_us() - t;
                _exit(write(pipefd[1], &took, sizeof took) == sizeof took ? 0 : 1);
        }
        (void) close(pipefd[1]);
        if (read(pipefd[0], &took, sizeof took) != sizeof took)
                exit(1);
        (void) close(pipefd[0]);
        (void) waitpid(pid, NULL, 0);
        return took;
}

static void bench_slice(void)
{
        static struct series bare = { .name = "slice_create_bare" },
                             apply = { .name = "slice_apply" },
                             open_ = { .name = "slice_enter_open" },
                             self = { .name = "slice_enter_self" },
                             kill_ = { .name = "slice_kill_empty" },
                             rm = { .name = "slice_remove" };
        AUTO(slice_host_close) struct slice_host *h = NULL;
        const uint32_t cpus[] = { 0 };
        const struct slice_limits l = {
                .cpus = cpus, .n_cpus = 1, .memory_bytes = 1ULL << 30, .pids = 1000, .weight = 100
        };
        struct err e = { 0 };

        die(slice_host_open("bench", 0, &h, &e), &e);
        for (unsigned i = 0; i < ROUNDS; i++) {
                struct slice_enter in;
                char name[16];
                double t;

                (void) snprintf(name, sizeof name, "b%u", i);
                t = now_us();
                die(slice_create_bare(h, name, &e), &e);
                t = lap(&bare, t);
                die(slice_apply(h, name, &l, &e), &e);
                t = lap(&apply, t);
                die(slice_enter_open(h, name, &in, &e), &e);
                (void) lap(&open_, t);
                self.us[self.n++] = enter(&in);
                slice_enter_done(&in);
                t = now_us();
                die(slice_kill(h, name, clock_mono_us() + US_PER_S, &e), &e);
                t = lap(&kill_, t);
                die(slice_remove(h, name, &e), &e);
                (void) lap(&rm, t);
        }
        die(slice_host_remove(h, &e), &e);
        print(&bare);
        print(&apply);
        print(&open_);
        print(&self);
        print(&kill_);
        print(&rm);
}

/* Write @mib of data into the mount: what a stopping cluster leaves dirty. */
static void dirty(int mnt, unsigned mib)
{
        static char block[1 << 20];
        AUTO(fd) int fd = openat(mnt, "dirty", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

        memset(block, 'x', sizeof block);
        for (unsigned i = 0; i < mib; i++)
                if (fd < 0 || fd_write_full(fd, block, sizeof block) < 0)
                        exit(1);
}

static void bench_disk(int dir)
{
        static struct series fast = { .name = "disk_make_fast" }, mount_ = { .name = "disk_mount" },
                             umount_ = { .name = "disk_unmount" }, rm = { .name = "disk_remove" },
                             full = { .name = "disk_make_volume" },
                             vmount = { .name = "disk_mount_volume" },
                             vumount = { .name = "disk_unmount_volume" },
                             dirty_ = { .name = "unmount_300M_dirty" },
                             given_up = { .name = "abandon_300M_dirty" };
        const uint64_t size = (uint64_t) DISK_GIB << 30;
        struct err e = { 0 };

        for (unsigned i = 0; i < ROUNDS; i++) {
                double t = now_us();
                int mnt;

                die(disk_make_fast(dir, "d", size, &e), &e);
                t = lap(&fast, t);
                die(mnt = disk_mount(dir, "d", 0, &e), &e);
                t = lap(&mount_, t);
                (void) close(mnt);
                t = lap(&umount_, t);
                die(disk_remove(dir, "d"), &e);
                (void) lap(&rm, t);
        }
        for (unsigned i = 0; i < ROUNDS / 10; i++) {
                double t = now_us();
                int mnt;

                die(disk_make(dir, "v", size, false, true, &e), &e);
                t = lap(&full, t);
                die(mnt = disk_mount(dir, "v", 0, &e), &e);
                t = lap(&vmount, t);
                (void) close(mnt);
                (void) lap(&vumount, t);
                die(disk_remove(dir, "v"), &e);
        }
        for (unsigned i = 0; i < 10; i++) {
                bool give_up = i & 1;
                double t;
                int mnt;

                die(disk_make_fast(dir, "d", size, &e), &e);
                die(mnt = disk_mount(dir, "d", 0, &e), &e);
                dirty(mnt, 300);
                t = now_us();
                if (give_up)
                        die(disk_abandon(dir, "d", &e), &e);
                (void) disk_remove(dir, "d");
                (void) close(mnt);
                (void) lap(give_up ? &given_up : &dirty_, t);
        }
        print(&fast);
        print(&mount_);
        print(&umount_);
        print(&rm);
        print(&full);
        print(&vmount);
        print(&vumount);
        print(&dirty_);
        print(&given_up);
}

int main(int argc, char **argv)
{
        char path[] = "/var/tmp/bench-disk-XXXXXX";
        AUTO(fd) int dir = -EBADF;

        if (geteuid() != 0) {
                (void) fprintf(stderr, "bench_slice_disk: must be root\n");
                return 1;
        }
        if (argc < 2 || strcmp(argv[1], "disk") != 0)
                bench_slice();
        if (argc > 1 && strcmp(argv[1], "slice") == 0)
                return 0;
        if (!mkdtemp(path) || (dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
                return 1;
        bench_disk(dir);
        return fd_rm_rf(AT_FDCWD, path) < 0;
}
