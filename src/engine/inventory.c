/* inventory.c - see inventory.h.  Engine process, at start. */
#include "engine/inventory.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/numa.h"

#define HOST_RESERVE_MIB 512U /* for the host itself: kernel, page tables, our own programs */

static int memory_mib(uint64_t *ret)
{
        AUTO(free) char *text = NULL;
        const char *p;
        int r = fd_read_file(AT_FDCWD, "/proc/meminfo", 16384, &text, NULL);

        if (r < 0)
                return r;
        p = strstr(text, "MemTotal:");
        if (!p || str_u64_prefix(p + 9, 10, ret) < 0)
                return -EIO;
        *ret /= 1024;
        *ret = *ret > 2 * HOST_RESERVE_MIB ? *ret - HOST_RESERVE_MIB : *ret / 2;
        return 0;
}

int inventory_read(const struct instance *inst, bool apparmor, json_t **ret, struct err *e)
{
        const struct engine_conf *c = &inst->conf;
        struct statvfs fs;
        cpu_set_t cpus;
        uint64_t mib = 0;
        int r = memory_mib(&mib);

        if (r < 0)
                return err_errno(e, r, "read /proc/meminfo");
        if (statvfs(inst->data_dir, &fs) < 0)
                return err_errno(e, -errno, "%s", inst->data_dir);
        CPU_ZERO(&cpus);
        if (sched_getaffinity(0, sizeof cpus, &cpus) < 0)
                return err_errno(e, -errno, "ask for the host's CPUs");
        *ret = json_pack("{s:o, s:f, s:I, s:f, s:I, s:f, s:o, s:{s:b}, s:s}", "cpus",
                         numa_cpus_json(&cpus), "cpu_overcommit", c->cpu_overcommit, "memory_mib",
                         (json_int_t) mib, "memory_overcommit", c->memory_overcommit, "disk_gib",
                         (json_int_t) (fs.f_bavail * fs.f_frsize >> 30), "disk_overcommit",
                         c->disk_overcommit, "numa",
                         numa_read("/sys/devices/system/node", &cpus, mib), "security", "apparmor",
                         apparmor, "version", HVMM_VERSION);
        return *ret ? 0 : err_set(e, -ENOMEM, "out of memory");
}
