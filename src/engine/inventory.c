/* inventory.c - see inventory.h.  Engine process, at start. */
#include "engine/inventory.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"

#define HOST_RESERVE_MIB 512U /* for the host itself: kernel, page tables, our own programs */

static json_t *cpus_json(void)
{
        cpu_set_t set;
        json_t *j = json_array();

        CPU_ZERO(&set);
        if (!j || sched_getaffinity(0, sizeof set, &set) < 0)
                return j;
        for (unsigned i = 0; i < CPU_SETSIZE; i++) {
                char name[16];

                if (!CPU_ISSET(i, &set))
                        continue;
                (void) snprintf(name, sizeof name, "%u", i);
                (void) json_array_append_new(j, json_string(name));
        }
        return j;
}

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

int inventory_read(const struct instance *inst, json_t **ret, struct err *e)
{
        const struct engine_conf *c = &inst->conf;
        struct statvfs fs;
        uint64_t mib = 0;
        int r = memory_mib(&mib);

        if (r < 0)
                return err_errno(e, r, "read /proc/meminfo");
        if (statvfs(inst->data_dir, &fs) < 0)
                return err_errno(e, -errno, "%s", inst->data_dir);
        *ret = json_pack("{s:o, s:f, s:I, s:f, s:I, s:f, s:[], s:s, s:{s:b}, s:s}", "cpus",
                         cpus_json(), "cpu_overcommit", c->cpu_overcommit, "memory_mib",
                         (json_int_t) mib, "memory_overcommit", c->memory_overcommit, "disk_gib",
                         (json_int_t) (fs.f_bavail * fs.f_frsize >> 30), "disk_overcommit",
                         c->disk_overcommit, "gpus", "gpu_note", "this host has no NVIDIA driver",
                         "security", "apparmor",
                         access("/sys/kernel/security/apparmor/profiles", F_OK) == 0, "version",
                         HVMM_VERSION);
        return *ret ? 0 : err_set(e, -ENOMEM, "out of memory");
}
