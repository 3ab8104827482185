/* Finding the mounts, names, and a cgroup v2 host over a stand-in directory tree: the very files
 * and texts that the kernel would get. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/slice/slice_priv.h"

#define BIT(c) (1U << SLICE_CTRL_##c)

static void test_mounts_hybrid(void **state)
{
        static const char text[] =
                "24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw,size=12334524k\n"
                "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
                "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
                "34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime shared:1 master:2 - cgroup cgroup rw,cpuset\n"
                "35 31 0:32 / /sys/fs/cgroup/mem\\040ory rw,relatime - cgroup cgroup rw,memory\n"
                "36 31 0:32 / /elsewhere rw,relatime - cgroup cgroup rw,memory\n"
                "37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer\n"
                "38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio\n"
                "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n"
                "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        struct slice_mounts m;

        (void) state;
        slice_mounts_parse(text, &m);
        assert_int_equal(m.n_v1, 4);
        assert_int_equal(m.v1[3].ctrls, BIT(IO));
        assert_string_equal(m.v1[0].path, "/sys/fs/cgroup/cpu,cpuacct");
        assert_int_equal(m.v1[0].ctrls, BIT(CPU) | BIT(CPUACCT));
        assert_string_equal(m.v1[1].path, "/sys/fs/cgroup/cpuset");
        assert_int_equal(m.v1[1].ctrls, BIT(CPUSET));
        assert_string_equal(m.v1[2].path, "/sys/fs/cgroup/mem ory");
        assert_string_equal(m.v2, "/sys/fs/cgroup/unified");
}

static void test_mounts_odd(void **state)
{
        static const char *const text[] = {
                "",
                "\n\n",
                "36 35 98:0",
                " - ",
                "1 2 3 4 5 - cgroup",
                "1 2 3 4 5 6 - cgroup x\n",
                "1 2 3 4 5 6 - cgroup x cpufoo,cp\n",
        };
        struct slice_mounts m;

        (void) state;
        for (size_t i = 0; i < NELEM(text); i++) {
                slice_mounts_parse(text[i], &m);
                assert_int_equal(m.n_v1, 0);
                assert_string_equal(m.v2, "");
        }
}

static void test_names(void **state)
{
        static const struct {
                const char *name;
                int r;
        } t[] = {
                { "a", 0 },
                { "abc123", 0 },
                { "m-abc123", 0 },
                { "7", 0 },
                { "", -EINVAL },
                { NULL, -EINVAL },
                { "..", -EINVAL },
                { "a/b", -EINVAL },
                { "-a", -EINVAL },
                { "A", -EINVAL },
                { "a b", -EINVAL },
                { "a\n", -EINVAL },
                { "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 0 },
                { "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", -EINVAL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++)
                assert_int_equal(slice_name_check(t[i].name, NULL), t[i].r);
}

/* --- stand-in tree ------------------------------------------------------------------------- */

struct world {
        char dir[40];
        int fd;
};

static void put(int dir, const char *path, const char *text)
{
        AUTO(fd) int fd = openat(dir, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(fd_write_full(fd, text, strlen(text)), 0);
}

/* What was written there since put(): the kernel's files take each write as a whole, these keep
 * what is behind a shorter one, so compare the beginning. */
static void assert_file(int dir, const char *path, const char *want)
{
        AUTO(free) char *text = NULL;

        assert_int_equal(fd_read_file(dir, path, 4096, &text, NULL), 0);
        if (strncmp(text, want, strlen(want)) != 0)
                fail_msg("%s: '%s', not '%s'", path, text, want);
}

static int world_up(void **state)
{
        struct world *w = calloc(1, sizeof *w);

        if (!w)
                return -1;
        (void) snprintf(w->dir, sizeof w->dir, "/tmp/test-slice-XXXXXX");
        if (!mkdtemp(w->dir))
                return -1;
        w->fd = open(w->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        put(w->fd, "cgroup.controllers", "cpuset cpu io memory hugetlb pids\n");
        put(w->fd, "cgroup.subtree_control", "cpu pids\n");
        if (mkdirat(w->fd, "hvmm-unit", 0700) < 0)
                return -1;
        put(w->fd, "hvmm-unit/cgroup.subtree_control", "");
        put(w->fd, "hvmm-unit/memory.swap.max", "max\n");
        *state = w;
        return 0;
}

static int world_down(void **state)
{
        struct world *w = *state;

        (void) close(w->fd);
        (void) fd_rm_rf(AT_FDCWD, w->dir);
        free(w);
        return 0;
}

static struct slice_host *open_standin(struct world *w)
{
        struct slice_host *h = NULL;
        struct err e = { 0 };

        if (slice_host_open_v2("unit", fcntl(w->fd, F_DUPFD_CLOEXEC, 3), -EBADF, false, &h, &e) < 0)
                fail_msg("%s", e.msg);
        return h;
}

static void test_v2_delegates(void **state)
{
        struct world *w = *state;
        AUTO(slice_host_close) struct slice_host *h = open_standin(w);

        /* cpu and pids were on already at the top; one write each, the last one is seen */
        assert_file(w->fd, "cgroup.subtree_control", "+io");
        assert_file(w->fd, "hvmm-unit/cgroup.subtree_control", "+io");
        assert_int_equal(slice_version(h), 2);
        assert_true(h->swap);
}

static void test_v2_apply(void **state)
{
        static const char *const file[] = { "cpuset.mems", "cpuset.cpus", "cpu.max",
                                            "cpu.weight",  "memory.max",  "memory.swap.max",
                                            "pids.max",    "memory.high", "io.max" };
        static const char *const want[] = { "0", "0,2", "50000 100000", "300",       "67108864",
                                            "0", "42",  "67000000",     "7:1 rbps=5" };
        const uint32_t cpus[] = { 2, 0 };
        const struct slice_limits l = { .cpus = cpus,
                                        .n_cpus = 2,
                                        .mems = "0",
                                        .quota_mcpu = 500,
                                        .memory_bytes = 64 << 20,
                                        .memory_high = 67000000,
                                        .io = { { 7, 1, .read_bytes = 5 } },
                                        .n_io = 1,
                                        .pids = 42,
                                        .weight = 300 };
        struct world *w = *state;
        AUTO(slice_host_close) struct slice_host *h = open_standin(w);
        char path[128];

        assert_int_equal(slice_create_bare(h, "c1", NULL), 0);
        assert_int_equal(slice_create_bare(h, "c1", NULL), -EEXIST);
        /* without its files: what was asked for cannot be had, and that is said */
        assert_int_equal(slice_apply(h, "c1", &l, NULL), -ENOENT);
        for (size_t i = 0; i < NELEM(file); i++) {
                (void) snprintf(path, sizeof path, "hvmm-unit/c1/%s", file[i]);
                put(w->fd, path, "");
        }
        assert_int_equal(slice_apply(h, "c1", &l, NULL), 0);
        for (size_t i = 0; i < NELEM(file); i++) {
                (void) snprintf(path, sizeof path, "hvmm-unit/c1/%s", file[i]);
                assert_file(w->fd, path, want[i]);
        }
}

static void test_v2_usage(void **state)
{
        struct world *w = *state;
        AUTO(slice_host_close) struct slice_host *h = open_standin(w);
        struct slice_usage u = { .pids = 9 };

        assert_int_equal(slice_create_bare(h, "c2", NULL), 0);
        assert_int_equal(slice_usage(h, "c2", &u, NULL), -ENOENT);
        assert_int_equal(u.pids, 9); /* failure writes nothing */
        put(w->fd, "hvmm-unit/c2/cpu.stat", "usage_usec 1234\nuser_usec 1000\n");
        put(w->fd, "hvmm-unit/c2/memory.current", "4096\n");
        put(w->fd, "hvmm-unit/c2/memory.events", "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\n");
        put(w->fd, "hvmm-unit/c2/pids.current", "5\n");
        put(w->fd, "hvmm-unit/c2/memory.pressure", "some avg10=2.50 avg60=0.00\nfull avg10=1.00\n");
        assert_int_equal(slice_usage(h, "c2", &u, NULL), 0);
        assert_int_equal(u.cpu_us, 1234);
        assert_int_equal(u.memory_bytes, 4096);
        assert_int_equal(u.memory_peak_bytes, 0); /* memory.peak is younger than 6.1's v2 minimum */
        assert_int_equal(u.oom_kills, 1);
        assert_int_equal(u.pids, 5);
        assert_int_equal(u.pressure_memory, 250);
        assert_int_equal(u.pressure_cpu, UINT64_MAX);
}

static int count_group(void *arg, const char *name)
{
        assert_true(strcmp(name, "c1") == 0 || strcmp(name, "m-c1") == 0);
        ++*(int *) arg;
        return 0;
}

static void test_each(void **state)
{
        struct world *w = *state;
        AUTO(slice_host_close) struct slice_host *h = open_standin(w);
        int n = 0;

        assert_int_equal(slice_create_bare(h, "c1", NULL), 0);
        assert_int_equal(slice_create_bare(h, "m-c1", NULL), 0);
        assert_int_equal(slice_each(h, count_group, &n), 0);
        assert_int_equal(n, 2);
        assert_int_equal(slice_remove(h, "c1", NULL), 0);
        assert_int_equal(slice_remove(h, "c1", NULL), 0);
        n = 0;
        assert_int_equal(slice_each(h, count_group, &n), 0);
        assert_int_equal(n, 1);
}

static void test_missing_controller(void **state)
{
        struct world *w = *state;
        AUTO(slice_host_close) struct slice_host *h = NULL;
        struct err e = { 0 };

        put(w->fd, "cgroup.controllers", "cpu memory\n");
        assert_int_equal(slice_host_open_v2("unit", fcntl(w->fd, F_DUPFD_CLOEXEC, 3), -EBADF, true,
                                            &h, NULL),
                         0);
        assert_int_equal(slice_create(h, "c1", &(struct slice_limits){ .pids = 3 }, &e), -ENOTSUP);
        assert_non_null(strstr(e.msg, "no pids controller"));
        assert_int_equal(faccessat(w->fd, "hvmm-unit/c1", F_OK, 0), -1); /* both or nothing */
        /* limits of disks are an extra: where nothing can hold a cluster to them, it starts all the same */
        assert_false(slice_has_io(h));
        assert_int_equal(slice_create(h, "c1",
                                      &(struct slice_limits){ .io = { { 7, 1, .read_bytes = 5 } },
                                                              .n_io = 1 },
                                      &e),
                         0);
}

/* A group that an older engine made is in the hierarchies that it knew: without one it may be only where
 * nothing else is. */
static void test_v1_enter_without_io(void **state)
{
        struct world *w = *state;
        struct slice_host h = { .version = 1, .n_hier = 2, .pressure_hier = SLICE_HIER_MAX };
        struct slice_enter s = { 0 };
        static const char *const dir[] = { "cpu", "io" };

        memset(h.at, 0, sizeof h.at);
        h.at[SLICE_CTRL_IO] = 1;
        h.at[SLICE_CTRL_PRESSURE] = SLICE_NO_HIER;
        for (size_t i = 0; i < NELEM(dir); i++) {
                assert_int_equal(mkdirat(w->fd, dir[i], 0700), 0);
                h.hier[i].root = openat(w->fd, dir[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                assert_true(h.hier[i].root >= 0);
        }
        assert_int_equal(mkdirat(w->fd, "cpu/c1", 0700), 0);
        put(w->fd, "cpu/c1/tasks", "");
        assert_int_equal(slice_enter_open(&h, "c1", &s, NULL), 0);
        assert_int_equal(s.n_v1, 1);
        slice_enter_done(&s);
        h.at[SLICE_CTRL_MEMORY] = 1; /* with memory in the same one, it would run without a limit */
        assert_int_equal(slice_enter_open(&h, "c1", &s, NULL), -ENOENT);
        for (size_t i = 0; i < NELEM(dir); i++)
                (void) close(h.hier[i].root);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_mounts_hybrid),
                cmocka_unit_test(test_mounts_odd),
                cmocka_unit_test(test_names),
                cmocka_unit_test_setup_teardown(test_v2_delegates, world_up, world_down),
                cmocka_unit_test_setup_teardown(test_v2_apply, world_up, world_down),
                cmocka_unit_test_setup_teardown(test_v2_usage, world_up, world_down),
                cmocka_unit_test_setup_teardown(test_each, world_up, world_down),
                cmocka_unit_test_setup_teardown(test_missing_controller, world_up, world_down),
                cmocka_unit_test_setup_teardown(test_v1_enter_without_io, world_up, world_down),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
