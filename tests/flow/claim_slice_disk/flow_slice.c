/* flow_slice.c - do the limits bite?  Groups on the real kernel, with processes in them.
 *
 * Most tests use the cgroup world that this host has; the v2 ones run on whatever cgroup2 mount is
 * there, also one without controllers: device programs and cgroup.kill need none. */
#include "flow.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "engine/slice/slice_priv.h"

#define MIB (1ULL << 20)

struct world {
        struct slice_host *h;
        char instance[16];
};

static int up(void **state, int version)
{
        struct world *w = calloc(1, sizeof *w);
        struct err e = { 0 };

        if (!w)
                return -1;
        (void) snprintf(w->instance, sizeof w->instance, "flow%d", (int) getpid());
        if (slice_host_open(w->instance, version, &w->h, &e) < 0) {
                print_error("%s\n", e.msg);
                return -1;
        }
        *state = w;
        return 0;
}

static int world_up(void **state)
{
        return up(state, 0);
}

static int world_up_v2(void **state)
{
        return up(state, 2);
}

static int clear(void *arg, const char *name)
{
        struct world *w = arg;
        struct err e = { 0 };

        if (slice_kill(w->h, name, clock_mono_us() + 5 * US_PER_S, &e) < 0 ||
            slice_remove(w->h, name, &e) < 0)
                print_error("%s\n", e.msg);
        return 0;
}

static int world_down(void **state)
{
        struct world *w = *state;
        struct err e = { 0 };
        int r;

        (void) slice_each(w->h, clear, w);
        r = slice_host_remove(w->h, &e);
        if (r < 0)
                print_error("%s\n", e.msg);
        w->h = slice_host_close(w->h);
        free(w);
        return r;
}

/* A child inside group @name that runs @fn and exits with what it returns. */
static pid_t start(struct world *w, const char *name, int (*fn)(void *), void *arg)
{
        struct slice_enter in;
        pid_t pid;

        ok(slice_enter_open(w->h, name, &in, &flow_err));
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                if (slice_enter_self(&in) < 0)
                        _exit(99);
                slice_enter_done(&in);
                _exit(fn(arg));
        }
        slice_enter_done(&in);
        return pid;
}

static int run(struct world *w, const char *name, int (*fn)(void *), void *arg)
{
        pid_t pid = start(w, name, fn, arg);
        int status = -1;

        assert_int_equal(waitpid(pid, &status, 0), pid);
        return status;
}

/* Until the child has written itself into the last hierarchy. */
static void wait_inside(struct world *w, const char *name)
{
        char path[SLICE_PATH_MAX];

        (void) slice_path(path, name, "cgroup.procs");
        for (size_t i = 0; i < w->h->n_hier;) {
                AUTO(free) char *text = NULL;

                if (i == w->h->pressure_hier) { /* only clone3() leads there */
                        i++;
                        continue;
                }

                assert_int_equal(fd_read_file(w->h->hier[i].root, path, 4096, &text, NULL), 0);
                if (*text)
                        i++;
                else
                        sleep_ms(1);
        }
}

static void end(struct world *w, const char *name)
{
        ok(slice_kill(w->h, name, clock_mono_us() + 5 * US_PER_S, &flow_err));
        ok(slice_remove(w->h, name, &flow_err));
        while (waitpid(-1, NULL, WNOHANG) > 0)
                ;
}

/* --- memory -------------------------------------------------------------------------------- */

static int eat_memory(void *arg)
{
        size_t size = *(size_t *) arg;
        char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (p == MAP_FAILED)
                return 1;
        for (size_t i = 0; i < size; i += 4096)
                ((volatile char *) p)[i] = 1;
        return 0;
}

static int eat_tmpfs(void *arg)
{
        size_t size = *(size_t *) arg;
        static char block[65536];
        int fd = memfd_create("eat", MFD_CLOEXEC);

        for (size_t i = 0; i < size; i += sizeof block)
                if (write(fd, block, sizeof block) < 0)
                        return 1;
        return 0;
}

static void test_memory(void **state)
{
        static int (*const eater[])(void *) = { eat_memory, eat_tmpfs };
        const struct slice_limits l = { .memory_bytes = 32 * MIB };
        struct world *w = *state;
        size_t small = 8 * MIB, big = 128 * MIB;

        ok(slice_create(w->h, "other", &l, &flow_err));
        for (size_t i = 0; i < NELEM(eater); i++) {
                struct slice_usage u, other;
                int status;

                ok(slice_create(w->h, "mem", &l, &flow_err));
                assert_int_equal(run(w, "mem", eater[i], &small), 0);
                ok(slice_usage(w->h, "mem", &u, &flow_err));
                assert_int_equal(u.oom_kills, 0);
                assert_true(u.memory_peak_bytes >= 4 * MIB);

                status = run(w, "mem", eater[i], &big);
                assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
                ok(slice_usage(w->h, "mem", &u, &flow_err));
                /* v2 kills the group as one and may count the first victim twice */
                assert_in_range(u.oom_kills, 1, slice_version(w->h));
                assert_true(u.memory_peak_bytes <= 32 * MIB);
                ok(slice_usage(w->h, "other", &other, &flow_err));
                assert_int_equal(other.oom_kills, 0);
                end(w, "mem");
        }
}

static void test_memory_raised(void **state)
{
        struct world *w = *state;
        size_t big = 64 * MIB;

        ok(slice_create(w->h, "mem", &(struct slice_limits){ .memory_bytes = 32 * MIB },
                        &flow_err));
        assert_true(WIFSIGNALED(run(w, "mem", eat_memory, &big)));
        ok(slice_apply(w->h, "mem", &(struct slice_limits){ .memory_bytes = 96 * MIB }, &flow_err));
        assert_int_equal(run(w, "mem", eat_memory, &big), 0);
        ok(slice_apply(w->h, "mem", &(struct slice_limits){ .memory_bytes = 16 * MIB }, &flow_err));
        assert_true(WIFSIGNALED(run(w, "mem", eat_memory, &big)));
}

static int hold_memory(void *arg)
{
        if (eat_memory(arg) != 0)
                return 1;
        (void) pause();
        return 0;
}

/* Less than what is in use is refused and nobody dies; file pages are no use. */
static void test_memory_lowered(void **state)
{
        struct world *w = *state;
        size_t held = 40 * MIB;
        uint64_t n = 0;
        struct err e = { 0 };
        pid_t pid;

        ok(slice_create(w->h, "mem", &(struct slice_limits){ .memory_bytes = 128 * MIB },
                        &flow_err));
        pid = start(w, "mem", hold_memory, &held);
        for (int i = 0; i < 500 && n < held; i++) {
                sleep_ms(10);
                ok(slice_memory_held(w->h, "mem", &n, &flow_err));
        }
        assert_in_range(n, held, held + 16 * MIB);
        assert_int_equal(slice_memory_lower(w->h, "mem", 24 * MIB, &e), -EBUSY);
        assert_non_null(strstr(e.msg, "24 MiB"));
        assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
        ok(slice_memory_lower(w->h, "mem", 80 * MIB, &flow_err));
        assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
        held = 90 * MIB;
        assert_true(WIFSIGNALED(run(w, "mem", eat_memory, &held)));
        end(w, "mem");
}

/* --- pids, CPUs ---------------------------------------------------------------------------- */

static int count_forks(void *arg)
{
        int n = 0;

        (void) arg;
        for (int i = 0; i < 20; i++) {
                pid_t pid = fork();

                if (pid == 0) {
                        (void) pause();
                        _exit(0);
                }
                if (pid < 0 && errno != EAGAIN)
                        return 98;
                n += pid > 0;
        }
        return n;
}

static void test_pids(void **state)
{
        struct world *w = *state;
        struct slice_usage u;
        pid_t pids[64];
        int status;

        ok(slice_create(w->h, "pids", &(struct slice_limits){ .pids = 6 }, &flow_err));
        status = run(w, "pids", count_forks, NULL);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 5);
        assert_int_equal(slice_pids(w->h, "pids", pids, NELEM(pids), &flow_err), 5);
        ok(slice_usage(w->h, "pids", &u, &flow_err));
        assert_int_equal(u.pids, 5);
        assert_int_equal(slice_pids(w->h, "pids", pids, 2, &flow_err), 5); /* bounded */
        end(w, "pids");
        assert_int_equal(slice_pids(w->h, "pids", pids, NELEM(pids), &flow_err), 0);
}

static int on_last_cpu_only(void *arg)
{
        unsigned cpu = *(unsigned *) arg;
        cpu_set_t set;

        if (sched_getaffinity(0, sizeof set, &set) < 0 || CPU_COUNT(&set) != 1 ||
            !CPU_ISSET(cpu, &set))
                return 1;
        CPU_ZERO(&set);
        CPU_SET(0, &set);
        return sched_setaffinity(0, sizeof set, &set) == 0 || errno != EINVAL ? 2 : 0;
}

static void test_pinned(void **state)
{
        struct world *w = *state;
        uint32_t cpu = (uint32_t) sysconf(_SC_NPROCESSORS_ONLN) - 1, nowhere = 8191;
        struct err e = { 0 };

        assert_true(cpu > 0);
        ok(slice_create(w->h, "cpu", &(struct slice_limits){ .cpus = &cpu, .n_cpus = 1 },
                        &flow_err));
        assert_int_equal(run(w, "cpu", on_last_cpu_only, &cpu), 0);
        /* a CPU that is not there: nothing is made */
        assert_true(slice_create(w->h, "none",
                                 &(struct slice_limits){ .cpus = &nowhere, .n_cpus = 1 }, &e) < 0);
        assert_non_null(strstr(e.msg, "cpuset.cpus"));
        ok(slice_create(w->h, "none", &(struct slice_limits){ 0 }, &flow_err));
}

static int burn(void *arg)
{
        uint64_t until = clock_mono_us() + *(uint64_t *) arg;

        while (clock_mono_us() < until)
                ;
        return 0;
}

static void test_quota(void **state)
{
        uint64_t wall = 600 * US_PER_MS;
        struct world *w = *state;
        struct slice_usage u;

        ok(slice_create(w->h, "quota", &(struct slice_limits){ .quota_mcpu = 200 }, &flow_err));
        assert_int_equal(run(w, "quota", burn, &wall), 0);
        ok(slice_usage(w->h, "quota", &u, &flow_err));
        assert_in_range(u.cpu_us, 20 * US_PER_MS, 260 * US_PER_MS); /* 20 % of 600 and a period */
}

/* --- devices ------------------------------------------------------------------------------- */

struct open_try {
        const char *path;
        int flags;
};

/* 0, or the errno. */
static int try_open(void *arg)
{
        const struct open_try *t = arg;

        return open(t->path, t->flags | O_CLOEXEC | O_NONBLOCK) < 0 ? errno : 0;
}

static int try_mknod(void *arg)
{
        (void) arg;
        if (mknod("/var/tmp/flow-slice-node", S_IFCHR | 0600, makedev(1, 3)) < 0)
                return errno;
        (void) unlink("/var/tmp/flow-slice-node");
        return 0;
}

static int errno_of(struct world *w, const char *name, const char *path, int flags)
{
        struct open_try t = { path, flags };
        int status = run(w, name, try_open, &t);

        assert_true(WIFEXITED(status));
        return WEXITSTATUS(status);
}

static void test_devices(void **state)
{
        static const struct slice_device kmsg = { 'c', 1, 11, "r" };
        static const char *const base[] = { "/dev/null", "/dev/zero", "/dev/full", "/dev/random",
                                            "/dev/urandom" };
        struct world *w = *state;
        struct err e = { 0 };

        ok(slice_create_bare(w->h, "dev", &flow_err)); /* refused before any limit is applied */
        assert_int_equal(errno_of(w, "dev", "/dev/kmsg", O_RDONLY), EPERM);
        for (size_t i = 0; i < NELEM(base); i++)
                assert_int_equal(errno_of(w, "dev", base[i], O_RDWR), 0);
        assert_int_equal(WEXITSTATUS(run(w, "dev", try_mknod, NULL)), EPERM);
        ok(slice_apply(w->h, "dev", &(struct slice_limits){ .devices = &kmsg, .n_devices = 1 },
                       &flow_err));
        assert_int_equal(errno_of(w, "dev", "/dev/kmsg", O_RDONLY), 0);
        assert_int_equal(errno_of(w, "dev", "/dev/kmsg", O_WRONLY), EPERM);
        assert_int_equal(errno_of(w, "dev", "/dev/null", O_RDWR), 0);
        ok(slice_apply(w->h, "dev", &(struct slice_limits){ 0 }, &flow_err));
        assert_int_equal(
                slice_apply(w->h, "dev",
                            &(struct slice_limits){
                                    .devices = &(struct slice_device){ 'a', -1, -1, "rwm" },
                                    .n_devices = 1 },
                            &e),
                -EINVAL);
        ok(slice_create_bare(w->h, "dev2", &flow_err)); /* one group's device is not another's */
        assert_int_equal(errno_of(w, "dev2", "/dev/kmsg", O_RDONLY), EPERM);
}

/* Given and taken away while somebody sits inside; what is open stays open. */
static int watch_device(void *arg)
{
        int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

        (void) arg;
        for (int i = 0; i < 2000; i++) {
                AUTO(fd) int again = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
                char c;

                if (again < 0) /* from now on; and the old one can be read */
                        return errno == EPERM && (read(fd, &c, 1) >= 0 || errno != EBADF) ? 0 : 1;
                sleep_ms(1);
        }
        return 2;
}

static void test_devices_exact(void **state)
{
        static const struct slice_device two[] = { { 'c', 1, 11, "rw" }, { 'c', 10, 229, "rw" } };
        static const struct slice_device less = { 'c', 1, 11, "r" };
        struct world *w = *state;
        int status = -1;
        pid_t pid;

        ok(slice_create_bare(w->h, "dev", &flow_err));
        for (int twice = 0; twice < 2; twice++) {
                ok(slice_devices(w->h, "dev", two, 2, &flow_err));
                assert_int_equal(errno_of(w, "dev", "/dev/kmsg", O_WRONLY), 0);
                assert_int_equal(errno_of(w, "dev", "/dev/null", O_RDWR), 0);
                ok(slice_devices(w->h, "dev", &less, 1, &flow_err));
                assert_int_equal(errno_of(w, "dev", "/dev/kmsg", O_WRONLY), EPERM);
                assert_int_equal(errno_of(w, "dev", "/dev/kmsg", O_RDONLY), 0);
                pid = start(w, "dev", watch_device, NULL);
                sleep_ms(100);
                ok(slice_devices(w->h, "dev", NULL, 0, &flow_err));
                assert_int_equal(waitpid(pid, &status, 0), pid);
                assert_int_equal(status, 0);
                assert_int_equal(errno_of(w, "dev", "/dev/kmsg", O_RDONLY), EPERM);
                assert_int_equal(errno_of(w, "dev", "/dev/urandom", O_RDONLY), 0);
                assert_int_equal(WEXITSTATUS(run(w, "dev", try_mknod, NULL)), EPERM);
        }
}

struct beat {
        volatile uint64_t n;
};

/* Counts, in itself and in children that come and go. */
static int count_up(void *arg)
{
        struct beat *b = arg;

        (void) signal(SIGCHLD, SIG_IGN);
        (void) alarm(60);
        for (;;) {
                pid_t pid = fork();

                if (pid == 0) {
                        b->n++;
                        _exit(0);
                }
                b->n++;
        }
        return 0;
}

static void test_freeze(void **state)
{
        struct world *w = *state;
        struct beat *b =
                mmap(NULL, sizeof *b, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

        assert_ptr_not_equal(b, MAP_FAILED);
        ok(slice_create_bare(w->h, "ice", &flow_err));
        ok(slice_thaw(w->h, "ice", &flow_err)); /* of one that is not frozen */
        ok(slice_freeze(w->h, "ice", clock_mono_us() + 5 * US_PER_S, &flow_err)); /* and empty */
        ok(slice_thaw(w->h, "ice", &flow_err));
        (void) start(w, "ice", count_up, b);
        for (int i = 0; i < 5; i++) {
                uint64_t n = b->n;

                while (b->n < n + 20)
                        sleep_ms(1);
                ok(slice_freeze(w->h, "ice", clock_mono_us() + 10 * US_PER_S, &flow_err));
                n = b->n;
                sleep_ms(30);
                assert_int_equal(b->n, n);
                if (i < 4)
                        ok(slice_thaw(w->h, "ice", &flow_err));
        }
        end(w, "ice"); /* whoever froze it was killed: it dies all the same */
        (void) munmap(b, sizeof *b);
}

/* --- killing and removing ------------------------------------------------------------------ */

static int bomb(void *arg)
{
        (void) arg;
        (void) signal(SIGCHLD, SIG_IGN);
        (void) signal(SIGTERM, SIG_IGN);
        (void) alarm(30); /* should the test itself be killed */
        for (;;)
                if (fork() == 0 && fork() == 0)
                        _exit(0);
}

static void test_fork_bomb(void **state)
{
        struct world *w = *state;
        uint64_t t;

        ok(slice_create(w->h, "bomb", &(struct slice_limits){ .pids = 150 }, &flow_err));
        (void) start(w, "bomb", bomb, NULL);
        while (slice_pids(w->h, "bomb", NULL, 0, &flow_err) < 120)
                sleep_ms(5);
        t = clock_mono_us();
        ok(slice_kill(w->h, "bomb", t + 10 * US_PER_S, &flow_err));
        assert_int_equal(slice_pids(w->h, "bomb", NULL, 0, &flow_err), 0);
        print_message("fork bomb ended in %llu ms\n",
                      (unsigned long long) ((clock_mono_us() - t) / US_PER_MS));
        end(w, "bomb");
}

static int wait_forever(void *arg)
{
        (void) arg;
        (void) alarm(60);
        (void) pause();
        return 0;
}

static void test_kill_is_confined(void **state)
{
        struct world *w = *state;
        pid_t in, out;
        int status;

        ok(slice_create_bare(w->h, "a", &flow_err));
        ok(slice_create_bare(w->h, "a2", &flow_err));
        in = start(w, "a", wait_forever, NULL);
        out = start(w, "a2", wait_forever, NULL);
        wait_inside(w, "a");
        wait_inside(w, "a2");
        ok(slice_kill(w->h, "a", clock_mono_us() + 5 * US_PER_S, &flow_err));
        assert_int_equal(waitpid(in, &status, 0), in);
        assert_int_equal(waitpid(out, &status, WNOHANG), 0);
        ok(slice_kill(w->h, "never-made", clock_mono_us(), &flow_err));
        ok(slice_remove(w->h, "never-made", &flow_err));
        end(w, "a");
        end(w, "a2");
}

/* A process that cannot die: frozen by the v1 freezer (v2: by cgroup.freeze, which a KILL passes,
 * so only v1 has this case). */
static void test_kill_deadline(void **state)
{
        static const char freezer[] = "/sys/fs/cgroup/freezer";
        struct world *w = *state;
        char path[80], pid_text[16];
        uint64_t t;
        pid_t pid;

        if (slice_version(w->h) != 1)
                return;
        (void) snprintf(path, sizeof path, "%s/hvmm-%s", freezer, w->instance);
        assert_int_equal(mkdir(path, 0700), 0);
        ok(slice_create_bare(w->h, "ice", &flow_err));
        pid = start(w, "ice", wait_forever, NULL);
        AUTO(fd) int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        (void) snprintf(pid_text, sizeof pid_text, "%d", (int) pid);
        wait_inside(w, "ice");
        assert_int_equal(fd_write_value(dir, "cgroup.procs", pid_text), 0);
        assert_int_equal(fd_write_value(dir, "freezer.state", "FROZEN"), 0);
        sleep_ms(20);
        t = clock_mono_us();
        assert_int_equal(slice_kill(w->h, "ice", t + 300 * US_PER_MS, &flow_err), -ETIMEDOUT);
        assert_in_range(clock_mono_us() - t, 290 * US_PER_MS, 1500 * US_PER_MS);
        assert_int_equal(fd_write_value(dir, "freezer.state", "THAWED"), 0);
        ok(slice_kill(w->h, "ice", clock_mono_us() + 5 * US_PER_S, &flow_err));
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        assert_int_equal(rmdir(path), 0);
}

static void test_nested(void **state)
{
        struct world *w = *state;
        struct slice_enter in;
        pid_t pid;

        ok(slice_create_bare(w->h, "nest", &flow_err));
        for (size_t i = 0; i < w->h->n_hier; i++) {
                assert_int_equal(mkdirat(w->h->hier[i].root, "nest/a", 0755), 0);
                assert_int_equal(mkdirat(w->h->hier[i].root, "nest/a/b", 0755), 0);
                assert_int_equal(mkdirat(w->h->hier[i].root, "nest/c", 0755), 0);
        }
        ok(slice_enter_open(w->h, "nest", &in, &flow_err));
        slice_enter_done(&in);
        pid = start(w, "nest", wait_forever, NULL);
        char text[16];

        (void) snprintf(text, sizeof text, "%d", (int) pid);
        int root = w->h->version == 1 ? w->h->hier[w->h->at[SLICE_CTRL_PIDS]].root
                                      : w->h->hier[0].root;

        wait_inside(w, "nest");
        assert_int_equal(fd_write_value(root, "nest/a/b/cgroup.procs", text), 0);
        pid_t seen = 0;

        assert_int_equal(slice_pids(w->h, "nest", &seen, 1, &flow_err), 1);
        assert_int_equal(seen, pid);
        ok(slice_kill(w->h, "nest", clock_mono_us() + 5 * US_PER_S, &flow_err));
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        ok(slice_remove(w->h, "nest", &flow_err));
        for (size_t i = 0; i < w->h->n_hier; i++)
                assert_int_equal(faccessat(w->h->hier[i].root, "nest", F_OK, 0), -1);
}

static int collect(void *arg, const char *name)
{
        (void) snprintf((char *) arg + strlen(arg), 64, "%s ", name);
        return 0;
}

/* What a kill in the middle of making or removing leaves. */
static void test_half_made(void **state)
{
        struct world *w = *state;
        char names[64] = "";

        ok(slice_create_bare(w->h, "half", &flow_err));
        assert_int_equal(slice_create_bare(w->h, "half", &flow_err), -EEXIST);
        assert_int_equal(unlinkat(w->h->hier[0].root, "half", AT_REMOVEDIR), 0);
        if (w->h->n_hier > 1) {
                ok(slice_each(w->h, collect, names));
                assert_string_equal(names, "half ");
                assert_int_equal(slice_create_bare(w->h, "half", &flow_err), -EEXIST);
                assert_int_equal(faccessat(w->h->hier[0].root, "half", F_OK, 0), -1);
        }
        ok(slice_kill(w->h, "half", clock_mono_us() + US_PER_S, &flow_err));
        ok(slice_remove(w->h, "half", &flow_err));
        ok(slice_remove(w->h, "half", &flow_err));
        names[0] = '\0';
        ok(slice_each(w->h, collect, names));
        assert_string_equal(names, "");
}

/* Somebody inside: not removed, and said; nothing is killed on the way. */
static void test_remove_busy(void **state)
{
        struct world *w = *state;
        pid_t pid;

        ok(slice_create_bare(w->h, "busy", &flow_err));
        pid = start(w, "busy", wait_forever, NULL);
        wait_inside(w, "busy");
        assert_int_equal(slice_remove(w->h, "busy", &flow_err), -EBUSY);
        assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
        end(w, "busy");
}

/* --- cgroup v2 ----------------------------------------------------------------------------- */

/* Exactly one device program at any time: before, between and after. */
static void test_v2_one_program(void **state)
{
        static const struct slice_device kmsg = { 'c', 1, 11, "r" };
        struct world *w = *state;

        ok(slice_create_bare(w->h, "one", &flow_err));
        for (int i = 0; i < 70; i++) /* the kernel takes 64 on one group: old ones must go */
                ok(slice_apply(w->h, "one",
                               &(struct slice_limits){ .devices = &kmsg, .n_devices = 1 },
                               &flow_err));
        assert_int_equal(errno_of(w, "one", "/dev/kmsg", O_RDONLY), 0);
        assert_int_equal(errno_of(w, "one", "/dev/kmsg", O_WRONLY), EPERM);
}

/* What each group was refused is counted for it alone, by device, also where its program is one of its
 * own; a new program begins anew. */
static void test_v2_refusals(void **state)
{
        static const struct slice_device kmsg = { 'c', 1, 11, "r" };
        struct world *w = *state;
        struct slice_refusals before, now;

        ok(slice_create_bare(w->h, "a", &flow_err));
        ok(slice_create_bare(w->h, "b", &flow_err));
        ok(slice_refusals(w->h, "a", &before, &flow_err));
        assert_int_equal(before.n, 0);
        for (int i = 0; i < 3; i++)
                assert_int_equal(errno_of(w, "a", "/dev/kmsg", O_RDONLY), EPERM);
        assert_int_equal(errno_of(w, "a", "/dev/null", O_RDWR), 0);
        ok(slice_refusals(w->h, "a", &now, &flow_err));
        assert_int_equal(now.program, before.program);
        assert_int_equal(now.n, 1);
        assert_true(now.dev[0].type == 'c' && now.dev[0].major == 1 && now.dev[0].minor == 11);
        assert_int_equal(now.dev[0].count, 3);
        ok(slice_refusals(w->h, "b", &now, &flow_err));
        assert_int_equal(now.n, 0);
        ok(slice_devices(w->h, "a", &kmsg, 1, &flow_err));
        assert_int_equal(errno_of(w, "a", "/dev/kmsg", O_WRONLY), EPERM);
        ok(slice_refusals(w->h, "a", &now, &flow_err));
        assert_true(now.program != before.program);
        assert_int_equal(now.n, 1);
        assert_int_equal(now.dev[0].count, 1);
        assert_int_equal(slice_refusals(w->h, "none", &now, NULL), -ENOENT);
}

static void test_v1_does_not_tell(void **state)
{
        struct world *w = *state;
        struct slice_refusals now;
        struct err e = { 0 };
        int r;

        ok(slice_create_bare(w->h, "a", &flow_err));
        r = slice_refusals(w->h, "a", &now, &e);
        if (slice_version(w->h) == 1)
                assert_int_equal(r, -ENOTSUP);
        else
                ok(r);
}

int main(int argc, char **argv)
{
#define T(f) cmocka_unit_test_setup_teardown(f, world_up, world_down)
#define T2(f)                                                                                      \
        {                                                                                          \
                "v2_" #f, f, world_up_v2, world_down, NULL                                         \
        }
        const struct CMUnitTest tests[] = {
                T(test_memory),
                T(test_memory_raised),
                T(test_pids),
                T(test_pinned),
                T(test_quota),
                T(test_devices),
                T(test_memory_lowered),
                T(test_devices_exact),
                T(test_freeze),
                T(test_fork_bomb),
                T(test_kill_is_confined),
                T(test_kill_deadline),
                T(test_nested),
                T(test_half_made),
                T(test_remove_busy),
                T2(test_devices),
                T2(test_devices_exact),
                T2(test_freeze),
                T(test_v1_does_not_tell),
                T2(test_v2_one_program),
                T2(test_v2_refusals),
                T2(test_kill_is_confined),
                T2(test_nested),
                T2(test_remove_busy),
        };

        return flow_main(argc, argv, tests, NELEM(tests));
}
