/* numa.c - see numa.h.  Engine process, at start. */
#include "engine/numa.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"

#define NODES_MAX 256U

struct node {
        uint32_t number;
        cpu_set_t cpus;
        uint64_t memory_kib;
};

json_t *numa_cpus_json(const cpu_set_t *cpus)
{
        json_t *j = json_array();

        for (unsigned i = 0; j && i < CPU_SETSIZE; i++) {
                char name[16];

                if (!CPU_ISSET(i, cpus))
                        continue;
                (void) snprintf(name, sizeof name, "%u", i);
                (void) json_array_append_new(j, json_string(name));
        }
        return j;
}

/* "0-3,8-11" as the kernel writes it, cut to those of @of. */
static void parse_cpus(const char *s, const cpu_set_t *of, cpu_set_t *ret)
{
        CPU_ZERO(ret);
        while (*s >= '0' && *s <= '9') {
                uint64_t from, to;

                if (str_u64_prefix(s, 10, &from) < 0)
                        return;
                s += strspn(s, "0123456789");
                to = from;
                if (*s == '-' && str_u64_prefix(s + 1, 10, &to) >= 0)
                        s += 1 + strspn(s + 1, "0123456789");
                for (uint64_t i = from; i <= to && i < CPU_SETSIZE; i++)
                        if (CPU_ISSET(i, of))
                                CPU_SET(i, ret);
                s += *s == ',';
        }
}

/* 0: there is no such node. */
static int read_node(int dir, uint32_t number, const cpu_set_t *of, struct node *ret)
{
        AUTO(free) char *cpus = NULL, *memory = NULL;
        char path[48];
        const char *p;

        (void) snprintf(path, sizeof path, "node%u/cpulist", number);
        if (fd_read_file(dir, path, 65536, &cpus, NULL) < 0)
                return 0;
        *ret = (struct node){ .number = number };
        parse_cpus(cpus, of, &ret->cpus);
        (void) snprintf(path, sizeof path, "node%u/meminfo", number);
        if (fd_read_file(dir, path, 65536, &memory, NULL) >= 0) {
                p = strstr(memory, "MemTotal:");
                if (p)
                        (void) str_u64_prefix(p + strlen("MemTotal:"), 10, &ret->memory_kib);
        }
        return 1;
}

static json_t *node_json(const struct node *n, uint64_t memory_mib)
{
        return json_pack("{s:i, s:o, s:I}", "node", (int) n->number, "cpus",
                         numa_cpus_json(&n->cpus), "memory_mib", (json_int_t) memory_mib);
}

json_t *numa_read(const char *dir, const cpu_set_t *cpus, uint64_t memory_mib)
{
        AUTO(fd) int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        uint64_t all_kib = 0;
        json_t *list = json_array();
        struct node n;
        size_t known = 0;

        for (uint32_t i = 0; fd >= 0 && i < NODES_MAX; i++)
                if (read_node(fd, i, cpus, &n))
                        all_kib += n.memory_kib;
        for (uint32_t i = 0; all_kib && i < NODES_MAX; i++) {
                if (!read_node(fd, i, cpus, &n) || !CPU_COUNT(&n.cpus))
                        continue; /* memory without CPUs may be a device's */
                known += (size_t) CPU_COUNT(&n.cpus);
                /* each gives of its memory what the host keeps for itself */
                (void) json_array_append_new(
                        list, node_json(&n, (uint64_t) ((double) memory_mib *
                                                        (double) n.memory_kib / (double) all_kib)));
        }
        if (known == (size_t) CPU_COUNT(cpus) && json_array_size(list))
                return list;
        n = (struct node){ .number = 0, .cpus = *cpus };
        (void) json_array_clear(list);
        (void) json_array_append_new(list, node_json(&n, memory_mib));
        return list;
}
