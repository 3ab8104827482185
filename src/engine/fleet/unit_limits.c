/* unit_limits.c - what a cluster is held to, and what it waits for, in its report
 * (docs/node-protocol.md).  Engine process, loop thread. */
#include <errno.h>

#include "base/str.h"
#include "engine/boot/stage.h"
#include "engine/fleet/unit.h"
#include "engine/host.h"
#include "engine/instance.h"
#include "engine/net/net.h"

/* 0: there is no such limit. */
static int put(json_t *o, const char *key, uint64_t n)
{
        return json_object_set_new(o, key, n ? json_integer((json_int_t) n) : json_null());
}

json_t *unit_limits(const struct unit *u)
{
        const struct host *host = u->fleet->spec.host;
        const struct engine_conf *conf = &host->inst->conf;
        const bool io = slice_has_io(host->slices);
        const struct boot b = { .host = host };
        uint32_t cpus[LIMIT_VCPU];
        struct slice_limits l;
        json_t *o = json_object();

        boot_limits(&b, &u->plan, cpus, &l);
        const struct {
                const char *key;
                uint64_t n;
        } rows[] = {
                { "cpu_weight", l.weight },
                { "cpu_quota_mcpu", l.quota_mcpu },
                { "memory_bytes", l.memory_bytes },
                { "memory_high_bytes", slice_version(host->slices) == 2 ? l.memory_high : 0 },
                { "pids", l.pids },
                { "io_read_bytes_per_s", io ? conf->io_read_bytes : 0 },
                { "io_write_bytes_per_s", io ? conf->io_write_bytes : 0 },
                { "io_read_ops_per_s", io ? conf->io_read_ops : 0 },
                { "io_write_ops_per_s", io ? conf->io_write_ops : 0 },
                { "log_bytes_per_s", conf->log_bytes },
                { "log_bytes", LIMIT_LOG_BYTES },
        };

        for (size_t i = 0; o && i < NELEM(rows); i++)
                if (put(o, rows[i].key, rows[i].n) < 0) {
                        json_decref(o);
                        return NULL;
                }
        return o;
}

int limits_lack(const struct slice_host *h, char ***list)
{
        const struct {
                bool lacks;
                const char *what;
        } rows[] = {
                { slice_version(h) == 1,
                  "memory: cgroup v1 slows nobody down before the limit (no memory.high)" },
                { slice_version(h) == 1,
                  "devices: cgroup v1 refuses them, but does not tell which (no security.device events)" },
                { slice_version(h) == 1 && slice_has_io(h),
                  "I/O: cgroup v1 does not count what the kernel writes behind a program's back" },
                { !slice_has_io(h),
                  "I/O: this kernel has no controller for it, so nothing limits it" },
                { !slice_has_pressure(h), "pressure: this kernel does not tell it of groups" },
        };

        for (size_t i = 0; i < NELEM(rows); i++)
                if (rows[i].lacks && strv_push(list, rows[i].what) < 0)
                        return -ENOMEM;
        return 0;
}

/* By its names (HAProxy) and over its published ports (the firewall).  One counter: either may begin anew at any
 * time, and only whether it has moved is ever asked.  NULL: there is neither; null: HAProxy cannot tell now. */
static json_t *traffic_of(const struct unit *u)
{
        const struct fleet_spec *s = &u->fleet->spec;
        const bool has_edge = s->traffic && instance_has_edge(s->host->inst);
        struct fleet_traffic t = { 0 };
        uint64_t published = 0;

        if (has_edge && !s->traffic(s->edge, u->row.cluster, &t))
                return json_null();
        if ((!u->row.ports || net_public_bytes(s->host->net, u->row.slot, &published, NULL) <= 0) &&
            !has_edge)
                return NULL;
        return json_pack("{s:I, s:I}", "bytes", (json_int_t) (t.bytes + published), "connections",
                         (json_int_t) t.connections);
}

/* Only of one that runs: what its names answer otherwise is no use of it. */
static void put_traffic(const struct unit *u, json_t *usage)
{
        json_t *traffic = u->row.state == CS_RUNNING ? traffic_of(u) : NULL;

        if (traffic)
                (void) json_object_set_new(usage, "edge", traffic);
}

void unit_usage_report(const struct unit *u, json_t *report)
{
        const struct slice_usage *s = &u->usage;
        json_t *usage = json_object_get(report, "usage"), *p;

        if (usage)
                put_traffic(u, usage);
        if (!usage || !slice_has_pressure(u->fleet->spec.host->slices) ||
            s->pressure_cpu == UINT64_MAX || s->pressure_memory == UINT64_MAX ||
            s->pressure_io == UINT64_MAX)
                return;
        p = json_pack("{s:f, s:f, s:f}", "cpu", (double) s->pressure_cpu / 100, "memory",
                      (double) s->pressure_memory / 100, "io", (double) s->pressure_io / 100);
        if (p)
                (void) json_object_set_new(usage, "pressure", p);
}
