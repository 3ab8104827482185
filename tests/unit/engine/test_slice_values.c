/* Limits into cgroup texts: lists, device rules, rows of both worlds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/slice/slice_priv.h"

static void test_cpu_list(void **state)
{
        static const struct {
                uint32_t in[6];
                size_t n;
                int r;
                const char *text;
        } t[] = {
                { { 0 }, 1, 0, "0" },
                { { 3, 1, 2, 0 }, 4, 0, "0-3" },
                { { 8, 0, 2, 1, 9 }, 5, 0, "0-2,8-9" },
                { { 5, 3, 1 }, 3, 0, "1,3,5" },
                { { 8191 }, 1, 0, "8191" },
                { { 8192 }, 1, -EINVAL, NULL },
                { { 1, 2, 1 }, 3, -EINVAL, NULL },
                { { 0 }, 0, -EINVAL, NULL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(strbuf_done) struct strbuf b = { 0 };
                int r = slice_cpu_list(t[i].in, t[i].n, &b, NULL);

                assert_int_equal(r, t[i].r);
                if (r == 0)
                        assert_string_equal(b.s, t[i].text);
        }
}

static void test_device_rule(void **state)
{
        static const struct {
                struct slice_device d;
                int r;
                const char *text;
        } t[] = {
                { { 'c', 1, 3, "rw" }, 0, "c 1:3 rw" },
                { { 'c', 136, -1, "rw" }, 0, "c 136:* rw" },
                { { 'b', -1, -1, "rwm" }, 0, "b *:* rwm" },
                { { 'a', -1, -1, "rwm" }, -EINVAL, NULL }, /* "a" would allow everything */
                { { 'c', 1, 3, "rx" }, -EINVAL, NULL },
                { { 'c', 1, 3, "" }, -EINVAL, NULL },
                { { 'c', 1, 3, NULL }, -EINVAL, NULL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                char text[48] = "canary";
                int r = slice_device_rule(&t[i].d, text, sizeof text, NULL);

                assert_int_equal(r, t[i].r);
                assert_string_equal(text, r == 0 ? t[i].text : "canary");
        }
}

/* All rows of @v as "controller/file=text" lines. */
static void flatten(const struct slice_values *v, char *buf, size_t size)
{
        size_t n = 0;

        buf[0] = '\0';
        for (size_t i = 0; i < v->n; i++)
                n += (size_t) snprintf(buf + n, size - n, "%s/%s=%s%s\n",
                                       slice_ctrl_name(v->row[i].ctrl), v->row[i].file,
                                       v->row[i].text,
                                       v->row[i].again      ? "!"
                                       : v->row[i].if_there ? "?"
                                                            : "");
}

static const uint32_t cpus[] = { 2, 3 };
static const struct slice_limits full = { .cpus = cpus,
                                          .n_cpus = 2,
                                          .mems = "0-1",
                                          .quota_mcpu = 1500,
                                          .memory_bytes = 1 << 20,
                                          .memory_high = (1 << 20) - 8192,
                                          .pids = 7,
                                          .weight = 200 };

static const struct slice_limits tiny = { .quota_mcpu = 1 }, light = { .weight = 1 }, none;
static const struct slice_limits heavy = { .weight = 10000 };
static const struct slice_limits disks = { .io = { { 7, 3, .read_bytes = 1 << 20, .write_ops = 50 },
                                                   { 7, 300, .write_bytes = UINT64_MAX } },
                                           .n_io = 2 };

static void test_rows(void **state)
{
        static const struct {
                const struct slice_limits *l;
                int version;
                bool swap;
                const char *want;
        } t[] = {
                { &full, 1, true,
                  "cpuset/cpuset.mems=0-1\ncpuset/cpuset.cpus=2-3\ncpu/cpu.cfs_period_us=100000\n"
                  "cpu/cpu.cfs_quota_us=150000\ncpu/cpu.shares=2048\n"
                  "memory/memory.limit_in_bytes=1048576!\nmemory/memory.memsw.limit_in_bytes=1048576\n"
                  "memory/memory.kmem.tcp.limit_in_bytes=262144?\npids/pids.max=7\n"
                  "io/blkio.bfq.weight=200?\n" },
                { &full, 1, false,
                  "cpuset/cpuset.mems=0-1\ncpuset/cpuset.cpus=2-3\ncpu/cpu.cfs_period_us=100000\n"
                  "cpu/cpu.cfs_quota_us=150000\ncpu/cpu.shares=2048\n"
                  "memory/memory.limit_in_bytes=1048576\nmemory/memory.swappiness=0\n"
                  "memory/memory.kmem.tcp.limit_in_bytes=262144?\npids/pids.max=7\n"
                  "io/blkio.bfq.weight=200?\n" },
                { &full, 2, true,
                  "cpuset/cpuset.mems=0-1\ncpuset/cpuset.cpus=2-3\ncpu/cpu.max=150000 100000\n"
                  "cpu/cpu.weight=200\nmemory/memory.max=1048576\nmemory/memory.swap.max=0\n"
                  "memory/memory.high=1040384\npids/pids.max=7\nio/io.weight=200?\n"
                  "io/io.bfq.weight=200?\n" },
                { &full, 2, false,
                  "cpuset/cpuset.mems=0-1\ncpuset/cpuset.cpus=2-3\ncpu/cpu.max=150000 100000\n"
                  "cpu/cpu.weight=200\nmemory/memory.max=1048576\n"
                  "memory/memory.high=1040384\npids/pids.max=7\nio/io.weight=200?\n"
                  "io/io.bfq.weight=200?\n" },
                { &disks, 1, true,
                  "io/blkio.throttle.read_bps_device=7:3 1048576\n"
                  "io/blkio.throttle.write_iops_device=7:3 50\n"
                  "io/blkio.throttle.write_bps_device=7:300 18446744073709551615\n" },
                { &disks, 2, true,
                  "io/io.max=7:3 rbps=1048576 wiops=50\n"
                  "io/io.max=7:300 wbps=18446744073709551615\n" },
                { &heavy, 2, true,
                  "cpu/cpu.weight=10000\nio/io.weight=10000?\nio/io.bfq.weight=1000?\n" },
                { &tiny, 1, true, "cpu/cpu.cfs_period_us=100000\ncpu/cpu.cfs_quota_us=1000\n" },
                { &light, 1, true, "cpu/cpu.shares=10\nio/blkio.bfq.weight=1?\n" },
                { &none, 1, true, "" },
                { &none, 2, true, "" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(slice_values_done) struct slice_values v = { 0 };
                char text[1024];

                assert_int_equal(t[i].version == 1 ? slice_values_v1(t[i].l, t[i].swap, &v, NULL)
                                                   : slice_values_v2(t[i].l, t[i].swap, &v, NULL),
                                 0);
                flatten(&v, text, sizeof text);
                assert_string_equal(text, t[i].want);
        }
}

static void test_refused(void **state)
{
        static const struct slice_limits bad[] = {
                { .weight = 10001 },
                { .memory_bytes = UINT64_MAX },
                { .mems = "" },
                { .mems = "0;1" },
                { .cpus = cpus, .n_cpus = 100000 },
                { .n_io = SLICE_IO_MAX + 1 },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(bad); i++)
                for (int version = 1; version <= 2; version++) {
                        AUTO(slice_values_done) struct slice_values v = { 0 };
                        struct err e = { 0 };

                        assert_int_equal(version == 1 ? slice_values_v1(&bad[i], true, &v, &e)
                                                      : slice_values_v2(&bad[i], true, &v, &e),
                                         -EINVAL);
                        assert_true(e.msg[0] != '\0');
                }
}

static void test_pressure(void **state)
{
        static const struct {
                const char *text;
                uint64_t want;
        } t[] = {
                { "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", 0 },
                { "some avg10=1.05 avg60=2.00 avg300=0.00 total=9\nfull avg10=9.00", 105 },
                { "some avg10=100.00 avg60=2.00", 10000 },
                { "some avg10=99.99", 9999 },
                { "full avg10=1.00", UINT64_MAX },
                { "some avg10=x", UINT64_MAX },
                { "some avg10=5", UINT64_MAX },
                { "some avg10=101.00", UINT64_MAX },
                { "", UINT64_MAX },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++)
                assert_int_equal(slice_pressure_parse(t[i].text), t[i].want);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_pressure),    cmocka_unit_test(test_cpu_list),
                cmocka_unit_test(test_device_rule), cmocka_unit_test(test_rows),
                cmocka_unit_test(test_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
