/* flow_disk.c - disks on the real kernel: sizes that bite, locks that end with the mount, power
 * cuts, and nothing left behind. */
#include "flow.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "base/str.h"
#include "engine/disk/disk_priv.h"

#define MIB (1ULL << 20)

struct world {
        char path[40], at[48];
        int dir;
};

/* Loop devices on files of this directory (unlinked ones show with " (deleted)"). */
static int loops(const struct world *w)
{
        int n = 0;

        for (int i = 0; i < 4096; i++) {
                char path[64], text[300] = "";
                AUTO(fd) int fd = -EBADF;

                (void) snprintf(path, sizeof path, "/sys/block/loop%d", i);
                if (access(path, F_OK) < 0)
                        break;
                (void) snprintf(path, sizeof path, "/sys/block/loop%d/loop/backing_file", i);
                fd = open(path, O_RDONLY | O_CLOEXEC);
                if (fd >= 0 && read(fd, text, sizeof text - 1) > 0 && strstr(text, w->path))
                        n++;
        }
        return n;
}

/* The last close unmounts; the kernel's own work after it may take a moment. */
static int loops_in_the_end(const struct world *w)
{
        uint64_t until = clock_mono_us() + 5 * US_PER_S;

        while (loops(w) > 0 && clock_mono_us() < until)
                sleep_ms(2);
        return loops(w);
}

static int world_up(void **state)
{
        struct world *w = calloc(1, sizeof *w);

        if (!w)
                return -1;
        (void) snprintf(w->path, sizeof w->path, "/var/tmp/flow-disk-XXXXXX");
        if (!mkdtemp(w->path))
                return -1;
        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return -1;
        w->dir = open(w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        *state = w;
        return w->dir < 0 ? -1 : 0;
}

static int world_down(void **state)
{
        struct world *w = *state;
        int left = loops_in_the_end(w);

        (void) close(w->dir);
        (void) fd_rm_rf(AT_FDCWD, w->path);
        free(w);
        if (left > 0)
                print_error("%d loop devices left behind\n", left);
        return left > 0 ? -1 : 0;
}

static int mount_ok(struct world *w, const char *name, uint64_t wait_us)
{
        int mnt = -1;

        ok(mnt = disk_mount(w->dir, name, clock_mono_us() + wait_us, &flow_err));
        return mnt;
}

/* Write until it does not go on; returns the bytes that went in, errno says why it ended. */
static uint64_t fill(int mnt, const char *name)
{
        static char block[1 << 18];
        AUTO(fd) int fd = openat(mnt, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        uint64_t sum = 0;
        ssize_t n;

        assert_true(fd >= 0);
        memset(block, 'z', sizeof block);
        while ((n = write(fd, block, sizeof block)) > 0)
                sum += (uint64_t) n;
        return sum;
}

static void put(int dir, const char *name, const char *text, bool sync)
{
        AUTO(fd) int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(fd_write_full(fd, text, strlen(text)), 0);
        if (sync)
                assert_int_equal(fsync(fd), 0);
}

static void assert_content(int dir, const char *name, const char *want)
{
        AUTO(free) char *text = NULL;

        assert_int_equal(fd_read_file(dir, name, 4096, &text, NULL), 0);
        assert_string_equal(text, want);
}

static uint64_t fs_bytes(int mnt)
{
        struct statvfs st;

        assert_int_equal(fstatvfs(mnt, &st), 0);
        return (uint64_t) st.f_blocks * st.f_frsize;
}

/* --- size ---------------------------------------------------------------------------------- */

static void test_exact_size(void **state)
{
        const uint64_t size = 64 * MIB;
        struct world *w = *state;
        uint64_t logical, allocated, went_in;
        struct stat st;

        ok(disk_make_fast(w->dir, "c", size, &flow_err));
        assert_int_equal(disk_make_fast(w->dir, "c", size, &flow_err), -EEXIST);
        assert_int_equal(fstatat(w->dir, "c", &st, 0), 0);
        assert_int_equal(st.st_mode, S_IFREG | 0600);
        AUTO(fd) int mnt = mount_ok(w, "c", 0);

        went_in = fill(mnt, "zeros");
        assert_int_equal(errno, ENOSPC);
        assert_in_range(went_in, size * 90 / 100, size);
        assert_int_equal(fill(mnt, "more"), 0); /* nothing is held back for root */
        assert_int_equal(errno, ENOSPC);
        assert_int_equal(disk_sizes(w->dir, "c", &logical, &allocated), 0);
        assert_int_equal(logical, size);
        assert_true(allocated <= size + MIB);
        assert_int_equal(unlinkat(mnt, "zeros", 0), 0);
        assert_in_range(fill(mnt, "again"), size * 90 / 100, size);
}

static void test_allocate(void **state)
{
        struct world *w = *state;
        uint64_t logical, allocated;
        struct statvfs st;
        struct err e = { 0 };

        ok(disk_make(w->dir, "sparse", 64 * MIB, false, true, &flow_err));
        assert_int_equal(disk_sizes(w->dir, "sparse", &logical, &allocated), 0);
        assert_true(allocated < 16 * MIB);
        ok(disk_make(w->dir, "full", 64 * MIB, true, true, &flow_err));
        assert_int_equal(disk_sizes(w->dir, "full", &logical, &allocated), 0);
        assert_true(allocated >= 64 * MIB);
        assert_int_equal(disk_make(w->dir, "full", 64 * MIB, true, true, &flow_err), -EEXIST);
        /* a tmpfs of 32 MiB stands for a full host disk */
        AUTO(fd) int fs = (int) syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);

        assert_true(fs >= 0);
        assert_int_equal(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "size", "32M", 0), 0);
        assert_int_equal(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), 0);
        AUTO(fd) int small = (int) syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0);

        assert_true(small >= 0);
        assert_int_equal(disk_make(small, "v", 64 * MIB, true, true, &e), -ENOSPC);
        assert_non_null(strstr(e.msg, "33554432 missing"));
        assert_int_equal(faccessat(small, "v", F_OK, 0), -1);
        assert_int_equal(fstatvfs(small, &st), 0);
        assert_int_equal(st.f_bfree, st.f_blocks); /* and its blocks are back */
}

/* The whole of a volume is the tenant's: no lost+found, owned by root inside; a device node in it
 * is dead, set-id bits are not. */
static void test_inside(void **state)
{
        struct world *w = *state;
        struct statvfs fs;
        struct stat st;

        ok(disk_make(w->dir, "v", 32 * MIB, false, true, &flow_err));
        {
                AUTO(fd) int mnt = mount_ok(w, "v", 0);

                assert_int_equal(faccessat(mnt, "lost+found", F_OK, 0), -1);
                assert_int_equal(fstat(mnt, &st), 0);
                assert_int_equal(st.st_uid + st.st_gid, 0);
                assert_int_equal(mknodat(mnt, "null", S_IFCHR | 0666, makedev(1, 3)), 0);
                assert_int_equal(openat(mnt, "null", O_RDWR | O_CLOEXEC), -1);
                assert_int_equal(errno, EACCES);
                assert_int_equal(fstatvfs(mnt, &fs), 0);
                assert_int_equal(fs.f_flag & (ST_NODEV | ST_NOATIME | ST_NOSUID),
                                 ST_NODEV | ST_NOATIME);
                assert_int_equal(mkdirat(mnt, "lost+found", 0700), 0); /* the tenant's own */
        }
        AUTO(fd) int mnt = mount_ok(w, "v", US_PER_S);

        assert_int_equal(faccessat(mnt, "lost+found", F_OK, 0), 0);
}

/* --- one mount at a time ------------------------------------------------------------------- */

static void attach(struct world *w, int mnt)
{
        (void) snprintf(w->at, sizeof w->at, "%s/at", w->path);
        assert_int_equal(mkdir(w->at, 0700), 0);
        assert_int_equal(syscall(SYS_move_mount, mnt, "", AT_FDCWD, w->at, MOVE_MOUNT_F_EMPTY_PATH),
                         0);
}

static void test_lock(void **state)
{
        struct world *w = *state;
        int mnt, clone;

        ok(disk_make_fast(w->dir, "c", 32 * MIB, &flow_err));
        assert_int_equal(disk_in_use(w->dir, "c"), 0);
        mnt = mount_ok(w, "c", 0);
        assert_int_equal(disk_in_use(w->dir, "c"), 1);
        assert_int_equal(disk_mount(w->dir, "c", 0, &flow_err), -EBUSY);
        assert_int_equal(disk_grow(w->dir, "c", 64 * MIB, &flow_err), -EBUSY);
        assert_int_equal(renameat(w->dir, "c", w->dir, "c2"), 0); /* the lock is the file's */
        assert_int_equal(disk_in_use(w->dir, "c2"), 1);
        /* a clone, as every cluster gets one, is a mount like the first; kernels before 6.15 clone
         * only what is attached, so put it into this process's own namespace meanwhile */
        attach(w, mnt);
        clone = (int) syscall(SYS_open_tree, mnt, "",
                              OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
        assert_true(clone >= 0);
        assert_int_equal(umount2(w->at, MNT_DETACH), 0);
        (void) close(mnt);
        sleep_ms(20);
        assert_int_equal(disk_mount(w->dir, "c2", 0, &flow_err), -EBUSY);
        (void) close(clone);
        (void) close(mount_ok(w, "c2", 5 * US_PER_S));
        assert_int_equal(loops_in_the_end(w), 0);
        assert_int_equal(disk_in_use(w->dir, "c2"), 0);
}

static void test_lock_waits(void **state)
{
        struct world *w = *state;
        int ready[2];
        uint64_t t;
        pid_t pid;
        char c;

        ok(disk_make_fast(w->dir, "c", 32 * MIB, &flow_err));
        assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
        pid = fork();
        if (pid == 0) {
                int mnt = disk_mount(w->dir, "c", 0, NULL);

                if (mnt < 0 || write(ready[1], "x", 1) != 1)
                        _exit(1);
                sleep_ms(150);
                _exit(0);
        }
        assert_int_equal(read(ready[0], &c, 1), 1);
        t = clock_mono_us();
        assert_int_equal(disk_mount(w->dir, "c", t + 30 * US_PER_MS, &flow_err), -EBUSY);
        (void) close(mount_ok(w, "c", 5 * US_PER_S));
        assert_true(clock_mono_us() - t >= 100 * US_PER_MS);
        child_good(pid);
}

static void test_holder_killed(void **state)
{
        struct world *w = *state;
        int ready[2];
        pid_t pid;
        char c;

        ok(disk_make(w->dir, "v", 32 * MIB, false, true, &flow_err));
        assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
        pid = fork();
        if (pid == 0) {
                int mnt = disk_mount(w->dir, "v", 0, NULL);

                if (mnt < 0)
                        _exit(1);
                put(mnt, "file", "kept", false);
                if (write(ready[1], "x", 1) == 1)
                        (void) pause();
                _exit(1);
        }
        assert_int_equal(read(ready[0], &c, 1), 1);
        assert_int_equal(disk_mount(w->dir, "v", 0, &flow_err), -EBUSY);
        (void) kill(pid, SIGKILL);
        AUTO(fd) int mnt = mount_ok(w, "v", 5 * US_PER_S);

        assert_content(mnt, "file", "kept");
        assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* Killed at any instant of making, attaching and mounting. */
static void test_killed_anywhere(void **state)
{
        static const char *const check[] = { "/sbin/e2fsck", "-f", "-n", DISK_TOOL_FILE, NULL };
        unsigned seed = (unsigned) time(NULL);
        struct world *w = *state;
        struct stat st;

        print_message("seed %u\n", seed);
        ok(disk_make_fast(w->dir, "keep", 32 * MIB, &flow_err));
        for (int i = 0; i < 60; i++) {
                pid_t pid = fork();

                if (pid == 0) {
                        for (;;) {
                                int mnt = disk_mount(w->dir, "keep", clock_mono_us() + US_PER_S,
                                                     NULL);

                                (void) close(mnt);
                                (void) disk_make_fast(w->dir, "c", 32 * MIB, NULL);
                                (void) disk_make(w->dir, "v", 32 * MIB, false, true, NULL);
                                (void) disk_remove(w->dir, "c");
                                (void) disk_remove(w->dir, "v");
                        }
                }
                (void) usleep((useconds_t) (rand_r(&seed) % 25000));
                (void) kill(pid, SIGKILL);
                assert_int_equal(waitpid(pid, NULL, 0), pid);
        }
        assert_int_equal(loops_in_the_end(w), 0);
        (void) close(mount_ok(w, "keep", 5 * US_PER_S));
        /* a disk is there and good, or not there */
        for (size_t i = 0; i < 2; i++) {
                const char *name = i ? "v" : "c";
                AUTO(fd) int fd = openat(w->dir, name, O_RDWR | O_CLOEXEC);

                if (fd >= 0)
                        ok(disk_tool_run(check, fd, 0, &flow_err));
                (void) disk_remove(w->dir, name);
        }
        /* and nothing else: "keep", "masters" */
        assert_int_equal(fstat(w->dir, &st), 0);
        AUTO(fd) int masters = openat(w->dir, "masters", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        assert_true(masters >= 0);
        assert_int_equal(st.st_nlink, 3);
}

static void test_many_at_once(void **state)
{
        enum { N = 24 };
        struct world *w = *state;
        pid_t pid[N];

        for (int i = 0; i < N; i++) {
                pid[i] = fork();
                if (pid[i] == 0) {
                        char name[16];

                        (void) snprintf(name, sizeof name, "c%d", i);
                        for (int k = 0; k < 5; k++) {
                                int mnt;

                                if (disk_make_fast(w->dir, name, 32 * MIB, &flow_err) < 0 ||
                                    (mnt = disk_mount(w->dir, name, 0, &flow_err)) < 0) {
                                        print_error("%s\n", flow_err.msg);
                                        _exit(1);
                                }
                                put(mnt, "mine", name, false);
                                assert_content(mnt, "mine", name);
                                (void) close(mnt);
                                (void) disk_remove(w->dir, name);
                        }
                        _exit(0);
                }
        }
        for (int i = 0; i < N; i++)
                child_good(pid[i]);
        assert_int_equal(loops_in_the_end(w), 0);
}

/* --- power cuts, growing, throwing away ---------------------------------------------------- */

/* What would be on the disk after a power cut now: a copy of the file while it is mounted. */
static void snapshot(struct world *w, const char *from, const char *to)
{
        AUTO(fd) int in = openat(w->dir, from, O_RDONLY | O_CLOEXEC);
        AUTO(fd) int out = openat(w->dir, to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        static char block[1 << 16];
        ssize_t n;

        assert_true(in >= 0 && out >= 0);
        while ((n = read(in, block, sizeof block)) > 0)
                assert_int_equal(fd_write_full(out, block, (size_t) n), 0);
        assert_int_equal(n, 0);
}

static void test_power_cut(void **state)
{
        struct world *w = *state;
        uint8_t raw[DISK_SUPER_SIZE];

        ok(disk_make(w->dir, "v", 64 * MIB, false, true, &flow_err));
        AUTO(fd) int mnt = mount_ok(w, "v", 0);

        for (int i = 0; i < 50; i++) {
                char name[16];

                (void) snprintf(name, sizeof name, "f%d", i);
                put(mnt, name, name, true);
        }
        snapshot(w, "v", "cut");
        AUTO(fd) int fd = openat(w->dir, "cut", O_RDONLY | O_CLOEXEC);

        assert_int_equal(pread(fd, raw, sizeof raw, DISK_SUPER_OFF), sizeof raw);
        assert_true(raw[0x60] & 0x04); /* the journal wants to be replayed */
        AUTO(fd) int after = mount_ok(w, "cut", 0);

        for (int i = 0; i < 50; i++) {
                char name[16];

                (void) snprintf(name, sizeof name, "f%d", i);
                assert_content(after, name, name);
        }
}

static void test_grow(void **state)
{
        struct world *w = *state;
        uint64_t logical, allocated;

        ok(disk_make(w->dir, "v", 32 * MIB, true, true, &flow_err));
        {
                AUTO(fd) int mnt = mount_ok(w, "v", 0);

                put(mnt, "file", "kept", true);
                assert_true(fs_bytes(mnt) < 32 * MIB);
                snapshot(w, "v", "cut"); /* and one with a dirty journal */
        }
        assert_int_equal(loops_in_the_end(w), 0);
        assert_int_equal(disk_grow(w->dir, "v", 16 * MIB, &flow_err), -EINVAL);
        for (size_t i = 0; i < 2; i++) {
                const char *name = i ? "cut" : "v";

                ok(disk_grow(w->dir, name, 256 * MIB, &flow_err));
                ok(disk_grow(w->dir, name, 256 * MIB, &flow_err));
                assert_int_equal(disk_sizes(w->dir, name, &logical, &allocated), 0);
                assert_int_equal(logical, 256 * MIB);
                assert_true(i || allocated >= 256 * MIB); /* stays allocated in full */
                AUTO(fd) int mnt = mount_ok(w, name, 0);

                assert_true(fs_bytes(mnt) > 220 * MIB);
                assert_content(mnt, "file", "kept");
        }
}

/* ext4 asks for a capability that some machines keep from root: there it says so and nothing is
 * another. */
static bool grows_mounted(void)
{
        AUTO(free) char *text = NULL;
        const char *at;
        uint64_t caps = 0;

        assert_int_equal(fd_read_file(AT_FDCWD, "/proc/self/status", 8192, &text, NULL), 0);
        at = strstr(text, "CapEff:");
        assert_non_null(at);
        assert_int_equal(str_u64_prefix(at + 7, 16, &caps), 0);
        return caps & 1ULL << 24;
}

static uint64_t fs_mib(int mnt)
{
        struct statfs st;

        assert_int_equal(fstatfs(mnt, &st), 0);
        return (uint64_t) st.f_blocks * (uint64_t) st.f_bsize / MIB;
}

/* Both kinds of disk, from a size to one that needs more descriptor blocks than were kept for it. */
static void test_grow_mounted(void **state)
{
        static const struct {
                uint64_t from, to;
                bool volume, full;
        } t[] = {
                { 1024 * MIB, 2048 * MIB, false, false }, { 1024 * MIB, 20480 * MIB, false, false },
                { 1024 * MIB, 2048 * MIB, true, false },  { 1024 * MIB, 65536 * MIB, true, false },
                { 128 * MIB, 256 * MIB, true, true },
        };
        struct world *w = *state;

        for (size_t i = 0; i < NELEM(t); i++) {
                uint64_t logical, allocated, before;
                int mnt;

                if (t[i].volume)
                        ok(disk_make(w->dir, "d", t[i].from, t[i].full, true, &flow_err));
                else
                        ok(disk_make_fast(w->dir, "d", t[i].from, &flow_err));
                mnt = mount_ok(w, "d", 0);
                put(mnt, "file", "kept", false);
                before = fs_mib(mnt);
                if (!grows_mounted()) {
                        assert_int_equal(disk_grow_mounted_check(w->dir, "d", &flow_err), -EPERM);
                        assert_int_equal(disk_grow_mounted(w->dir, "d", t[i].to, &flow_err),
                                         -EPERM);
                        assert_int_equal(fs_mib(mnt), before);
                        assert_int_equal(disk_sizes(w->dir, "d", &logical, &allocated), 0);
                        assert_int_equal(logical, t[i].from);
                } else {
                        ok(disk_grow_mounted_check(w->dir, "d", &flow_err));
                        for (int twice = 0; twice < 2; twice++)
                                ok(disk_grow_mounted(w->dir, "d", t[i].to, &flow_err));
                        assert_int_equal(disk_grow_mounted(w->dir, "d", t[i].from, &flow_err),
                                         -EINVAL);
                        assert_true(fs_mib(mnt) > t[i].to / MIB * 9 / 10);
                        assert_int_equal(disk_sizes(w->dir, "d", &logical, &allocated), 0);
                        assert_int_equal(logical, t[i].to);
                        assert_true(!t[i].full || allocated >= logical);
                }
                (void) close(mnt);
                assert_int_equal(loops_in_the_end(w), 0);
                if (grows_mounted()) { /* whole on disk, too */
                        AUTO(fd) int fd = openat(w->dir, "d", O_RDWR | O_CLOEXEC);
                        static const char *const fsck[] = { "/sbin/e2fsck", "-f", "-n",
                                                            DISK_TOOL_FILE, NULL };

                        ok(disk_tool_run(fsck, fd, 0, &flow_err));
                        assert_int_equal(disk_fs_size(w->dir, "d", &logical, &flow_err), 0);
                        assert_int_equal(logical, t[i].to);
                }
                ok(disk_remove(w->dir, "d"));
        }
}

static void test_abandon(void **state)
{
        struct world *w = *state;
        uint64_t t;
        int mnt;

        ok(disk_make_fast(w->dir, "c", 512 * MIB, &flow_err));
        ok(disk_abandon(w->dir, "c", &flow_err)); /* not mounted: nothing to do */
        ok(disk_abandon(w->dir, "never-made", &flow_err));
        mnt = mount_ok(w, "c", 0);
        (void) fill(mnt, "data");
        ok(disk_abandon(w->dir, "c", &flow_err));
        assert_int_equal(openat(mnt, "new", O_WRONLY | O_CREAT | O_CLOEXEC, 0600), -1);
        assert_int_equal(errno, EIO);
        t = clock_mono_us();
        assert_int_equal(disk_remove(w->dir, "c"), 0);
        (void) close(mnt);
        print_message("gone in %llu ms\n",
                      (unsigned long long) ((clock_mono_us() - t) / US_PER_MS));
        assert_int_equal(loops_in_the_end(w), 0);

        ok(disk_make(w->dir, "v", 32 * MIB, false, true, &flow_err));
        assert_int_equal(disk_abandon(w->dir, "v", &flow_err), -EINVAL); /* never a volume */
}

static void test_bad_files(void **state)
{
        struct world *w = *state;
        struct err e = { 0 };
        AUTO(fd) int fd = -EBADF;

        put(w->dir, "junk", "not a disk", false);
        assert_int_equal(disk_mount(w->dir, "junk", 0, &e), -EINVAL);
        assert_non_null(strstr(e.msg, "disk junk: no ext4"));
        assert_int_equal(disk_grow(w->dir, "junk", 64 * MIB, &flow_err), -EINVAL);
        /* a master that was cut short is refused with its name, not copied */
        ok(disk_make_fast(w->dir, "c", 32 * MIB, &flow_err));
        fd = openat(w->dir, "masters/33554432-2", O_RDWR | O_CLOEXEC);
        assert_int_equal(ftruncate(fd, 16 * MIB), 0);
        assert_int_equal(disk_make_fast(w->dir, "c2", 32 * MIB, &e), -EINVAL);
        assert_non_null(strstr(e.msg, "masters/33554432-2"));
        assert_int_equal(faccessat(w->dir, "c2", F_OK, 0), -1);
}

/* The programs of e2fsprogs see a dirty world; they run with nothing in their hands. */
static void test_tool_is_confined(void **state)
{
        static const struct {
                const char *script, *want;
        } t[] = {
                { "grep CapEff /proc/self/status; exit 9", "CapEff: 0000000000000000" },
                { "grep CapBnd /proc/self/status; exit 9", "CapBnd: 0000000000000000" },
                { "grep NoNewPrivs /proc/self/status; exit 9", "NoNewPrivs: 1" },
                { "(echo x > /var/tmp/flow-disk-escape) 2>/dev/null || echo denied; exit 9",
                  "denied" },
                { "echo $(ls /proc/self/fd | wc -l); exit 9", "5" }, /* 0 to 3 and ls' own */
                { "echo $(wc -c < /proc/$$/environ); exit 9", ": 0" },
                { "grep -c : /proc/net/dev; exit 9", "1" }, /* lo of an empty namespace */
                { "kill -9 $$", "killed by signal 9" },
        };
        struct world *w = *state;
        AUTO(fd) int fd = openat(w->dir, "f", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

        for (size_t i = 0; i < NELEM(t); i++) {
                const char *const argv[] = { "/bin/sh", "-c", t[i].script, NULL };
                struct err e = { 0 };

                assert_int_equal(disk_tool_run(argv, fd, 0, &e), -EIO);
                if (!strstr(e.msg, t[i].want))
                        fail_msg("'%s': %s", t[i].script, e.msg);
        }
        assert_int_equal(access("/var/tmp/flow-disk-escape", F_OK), -1);
        assert_int_equal(
                disk_tool_run((const char *const[]){ "/bin/sh", "-c",
                                                     "echo hello > /proc/self/fd/3", NULL },
                              fd, 0, &flow_err),
                0);
        assert_content(w->dir, "f", "hello\n");
        assert_int_equal(disk_tool_run((const char *const[]){ "/no/such", NULL }, fd, 0, &flow_err),
                         -EIO);
        assert_non_null(strstr(flow_err.msg, "/no/such: exec: No such file"));
}

int main(int argc, char **argv)
{
#define T(f) cmocka_unit_test_setup_teardown(f, world_up, world_down)
        const struct CMUnitTest tests[] = {
                T(test_exact_size),      T(test_allocate),
                T(test_inside),          T(test_lock),
                T(test_lock_waits),      T(test_holder_killed),
                T(test_killed_anywhere), T(test_many_at_once),
                T(test_power_cut),       T(test_grow),
                T(test_grow_mounted),    T(test_abandon),
                T(test_bad_files),       T(test_tool_is_confined),
        };

        return flow_main(argc, argv, tests, NELEM(tests));
}
