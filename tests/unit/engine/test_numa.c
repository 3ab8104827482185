/* test_numa.c - CPUs and memory by NUMA node, from trees that look like sysfs. */
#include "engine/numa.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fd.h"
#include "base/jsonx.h"

struct node {
        const char *name, *cpus, *meminfo;
};

static void put(int dir, const char *node, const char *file, const char *text)
{
        char path[64];

        (void) snprintf(path, sizeof path, "%s/%s", node, file);
        assert_int_equal(fd_replace_file(dir, path, text, strlen(text), 0644, false), 0);
}

static void check(size_t row, const struct node *nodes, unsigned n_cpus, const char *want)
{
        char dir[] = "/tmp/hvmm-numa-XXXXXX";
        AUTO(free) char *text = NULL;
        cpu_set_t cpus;
        json_t *j;
        int fd;

        assert_non_null(mkdtemp(dir));
        fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        for (; nodes->name; nodes++) {
                assert_int_equal(mkdirat(fd, nodes->name, 0755), 0);
                put(fd, nodes->name, "cpulist", nodes->cpus);
                put(fd, nodes->name, "meminfo", nodes->meminfo);
        }
        CPU_ZERO(&cpus);
        for (unsigned i = 0; i < n_cpus; i++)
                CPU_SET(i, &cpus);
        j = numa_read(dir, &cpus, 1000);
        text = json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS);
        json_decref(j);
        (void) close(fd);
        assert_int_equal(fd_rm_rf(AT_FDCWD, dir), 0);
        if (strcmp(text, want) != 0)
                fail_msg("row %zu: %s", row, text);
}

static void test_read(void **state)
{
        static const struct {
                struct node nodes[4];
                unsigned cpus;
                const char *want;
        } t[] = {
                { { { 0 } }, 2, "[{\"cpus\":[\"0\",\"1\"],\"memory_mib\":1000,\"node\":0}]" },
                { { { "node0", "0-1\n", "Node 0 MemTotal:  2000 kB\n" } },
                  2,
                  "[{\"cpus\":[\"0\",\"1\"],\"memory_mib\":1000,\"node\":0}]" },
                { { { "node0", "0,2\n", "Node 0 MemTotal:  1000 kB\n" },
                    { "node1", "1,3\n", "Node 1 MemTotal:  3000 kB\n" } },
                  4,
                  "[{\"cpus\":[\"0\",\"2\"],\"memory_mib\":250,\"node\":0},"
                  "{\"cpus\":[\"1\",\"3\"],\"memory_mib\":750,\"node\":1}]" },
                /* memory of a device, and a number left out */
                { { { "node0", "0\n", "Node 0 MemTotal:  1000 kB\n" },
                    { "node2", "\n", "Node 2 MemTotal:  1000 kB\n" },
                    { "node3", "1-7\n", "Node 3 MemTotal:  2000 kB\n" } },
                  2,
                  "[{\"cpus\":[\"0\"],\"memory_mib\":250,\"node\":0},"
                  "{\"cpus\":[\"1\"],\"memory_mib\":500,\"node\":3}]" },
                /* a CPU that no node has: not to be believed */
                { { { "node0", "0\n", "Node 0 MemTotal:  1000 kB\n" } },
                  2,
                  "[{\"cpus\":[\"0\",\"1\"],\"memory_mib\":1000,\"node\":0}]" },
                { { { "node0", "0-1\n", "nothing\n" } },
                  2,
                  "[{\"cpus\":[\"0\",\"1\"],\"memory_mib\":1000,\"node\":0}]" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++)
                check(i, t[i].nodes, t[i].cpus, t[i].want);
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(test_read) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
