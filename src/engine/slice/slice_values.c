/* slice_values.c - limits into the texts that cgroup files take, for both worlds.
 *
 * Pure: no I/O, no state.  Always: what cannot be expressed is refused here, before anything is
 * written; a row that exists must be written, but for the few that only some kernels have
 * (`if_there`): shares of a disk, which need a scheduler that knows them, and v1's own limit for
 * buffers of sockets. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/slice/slice_priv.h"
#include "model/limits.h"

#define PERIOD_US      100000U
#define QUOTA_MIN_US   1000U /* what the kernel takes */
#define V1_SHARES_BASE 1024U /* weight 100 */
#define V1_SHARES_MIN  2U
#define WEIGHT_MAX     10000U
#define BFQ_WEIGHT_MAX 1000U
#define TCP_SHARE      4U /* v1 counts buffers of TCP apart from memory: at most a quarter on top */
#define CPU_MAX        8192U /* CPU numbers that a kernel can have */

static int compare_u32(const void *a, const void *b)
{
        uint32_t x, y;

        memcpy(&x, a, sizeof x);
        memcpy(&y, b, sizeof y);
        return x < y ? -1 : x > y;
}

int slice_cpu_list(const uint32_t *cpus, size_t n, struct strbuf *ret, struct err *e)
{
        AUTO(free) uint32_t *sorted = NULL;

        if (n == 0 || n > LIMIT_VCPU)
                return err_set(e, -EINVAL, "%zu CPUs: 1 to %u", n, LIMIT_VCPU);
        sorted = malloc(n * sizeof *sorted);
        if (!sorted)
                return err_set(e, -ENOMEM, "out of memory");
        memcpy(sorted, cpus, n * sizeof *sorted);
        qsort(sorted, n, sizeof *sorted, compare_u32);
        for (size_t i = 0, end; i < n; i = end) {
                for (end = i + 1; end < n && sorted[end] == sorted[end - 1] + 1; end++)
                        ;
                if (sorted[end - 1] >= CPU_MAX)
                        return err_set(e, -EINVAL, "CPU %u: at most %u", sorted[end - 1],
                                       CPU_MAX - 1);
                if (end < n && sorted[end] == sorted[end - 1])
                        return err_set(e, -EINVAL, "CPU %u is named twice", sorted[end]);
                strbuf_fmt(ret, i > 0 ? ",%u" : "%u", sorted[i]);
                if (end > i + 1)
                        strbuf_fmt(ret, "-%u", sorted[end - 1]);
        }
        return ret->failed ? err_set(e, -ENOMEM, "out of memory") : 0;
}

static int device_number(int32_t v, char *buf, size_t size)
{
        return v < 0 ? snprintf(buf, size, "*") : snprintf(buf, size, "%" PRId32, v);
}

int slice_device_rule(const struct slice_device *d, char *buf, size_t size, struct err *e)
{
        char major[12], minor[12];
        int n;

        if (d->type != 'c' && d->type != 'b')
                return err_set(e, -EINVAL, "device type '%c': c or b", d->type);
        if (!d->access || !*d->access || strspn(d->access, "rwm") != strlen(d->access))
                return err_set(e, -EINVAL, "device access '%.8s': of r, w and m",
                               d->access ? d->access : "");
        (void) device_number(d->major, major, sizeof major);
        (void) device_number(d->minor, minor, sizeof minor);
        n = snprintf(buf, size, "%c %s:%s %s", d->type, major, minor, d->access);
        return n < 0 || (size_t) n >= size ? err_set(e, -EINVAL, "device rule too long") : 0;
}

/* Row with a text of its own; the formatted ones fill num. */
static struct slice_value *row(struct slice_values *v, enum slice_ctrl c, const char *file,
                               const char *text)
{
        struct slice_value *x = &v->row[v->n++];

        *x = (struct slice_value){ .ctrl = c, .file = file, .text = text ? text : x->num };
        return x;
}

static struct slice_value *row_u64(struct slice_values *v, enum slice_ctrl c, const char *file,
                                   uint64_t n)
{
        struct slice_value *x = row(v, c, file, NULL);

        (void) snprintf(x->num, sizeof x->num, "%" PRIu64, n);
        return x;
}

/* What both worlds check and share: the CPU set, in the order nodes, then CPUs. */
static int common(const struct slice_limits *l, struct slice_values *v, struct err *e)
{
        int r;

        memset(v, 0, sizeof *v);
        if (l->weight > WEIGHT_MAX)
                return err_set(e, -EINVAL, "weight %u: at most %u", l->weight, WEIGHT_MAX);
        if (l->n_io > SLICE_IO_MAX)
                return err_set(e, -EINVAL, "%zu disks to limit: at most %u", l->n_io, SLICE_IO_MAX);
        if (l->memory_bytes > INT64_MAX)
                return err_set(e, -EINVAL, "memory: %" PRIu64 " bytes", l->memory_bytes);
        if (l->mems && (!*l->mems || strspn(l->mems, "0123456789,-") != strlen(l->mems)))
                return err_set(e, -EINVAL, "NUMA nodes '%.40s': a list such as 0 or 0-1", l->mems);
        if (l->mems)
                row(v, SLICE_CTRL_CPUSET, "cpuset.mems", l->mems);
        if (l->n_cpus == 0)
                return 0;
        r = slice_cpu_list(l->cpus, l->n_cpus, &v->cpus, e);
        if (r >= 0)
                row(v, SLICE_CTRL_CPUSET, "cpuset.cpus", v->cpus.s);
        return r;
}

static uint64_t quota_us(uint32_t mcpu)
{
        uint64_t us = (uint64_t) mcpu * PERIOD_US / 1000;

        return us < QUOTA_MIN_US ? QUOTA_MIN_US : us;
}

static uint64_t v1_shares(uint32_t weight)
{
        uint64_t s = (uint64_t) weight * V1_SHARES_BASE / 100;

        return s < V1_SHARES_MIN ? V1_SHARES_MIN : s;
}

/* Whoever has the larger share of the CPUs has the larger share of the disk. */
static void disk_weight(const struct slice_limits *l, struct slice_values *v, const char *plain,
                        const char *bfq)
{
        uint32_t w = l->weight < BFQ_WEIGHT_MAX ? l->weight : BFQ_WEIGHT_MAX;

        if (l->weight == 0)
                return;
        if (plain)
                row_u64(v, SLICE_CTRL_IO, plain, l->weight)->if_there = true;
        row_u64(v, SLICE_CTRL_IO, bfq, w)->if_there = true;
}

static void io_v1(const struct slice_io *io, struct slice_values *v)
{
        const struct {
                const char *file;
                uint64_t n;
        } rows[] = {
                { "blkio.throttle.read_bps_device", io->read_bytes },
                { "blkio.throttle.write_bps_device", io->write_bytes },
                { "blkio.throttle.read_iops_device", io->read_ops },
                { "blkio.throttle.write_iops_device", io->write_ops },
        };

        for (size_t i = 0; i < NELEM(rows); i++)
                if (rows[i].n > 0) {
                        struct slice_value *x = row(v, SLICE_CTRL_IO, rows[i].file, NULL);

                        (void) snprintf(x->num, sizeof x->num, "%u:%u %" PRIu64, io->major,
                                        io->minor, rows[i].n);
                }
}

static void io_v2(const struct slice_io *io, struct slice_values *v)
{
        const struct {
                const char *key;
                uint64_t n;
        } rows[] = {
                { "rbps", io->read_bytes },
                { "wbps", io->write_bytes },
                { "riops", io->read_ops },
                { "wiops", io->write_ops },
        };
        struct slice_value *x = NULL;
        size_t at = 0;

        for (size_t i = 0; i < NELEM(rows); i++) {
                if (rows[i].n == 0)
                        continue;
                if (!x) {
                        x = row(v, SLICE_CTRL_IO, "io.max", NULL);
                        at = (size_t) snprintf(x->num, sizeof x->num, "%u:%u", io->major,
                                               io->minor);
                }
                at += (size_t) snprintf(x->num + at, sizeof x->num - at, " %s=%" PRIu64,
                                        rows[i].key, rows[i].n);
        }
}

int slice_values_v1(const struct slice_limits *l, bool memsw, struct slice_values *ret,
                    struct err *e)
{
        int r = common(l, ret, e);

        if (r < 0)
                return r;
        if (l->quota_mcpu > 0) {
                row_u64(ret, SLICE_CTRL_CPU, "cpu.cfs_period_us", PERIOD_US);
                row_u64(ret, SLICE_CTRL_CPU, "cpu.cfs_quota_us", quota_us(l->quota_mcpu));
        }
        if (l->weight > 0)
                row_u64(ret, SLICE_CTRL_CPU, "cpu.shares", v1_shares(l->weight));
        if (l->memory_bytes > 0) {
                row_u64(ret, SLICE_CTRL_MEMORY, "memory.limit_in_bytes", l->memory_bytes)->again =
                        memsw;
                if (memsw)
                        row_u64(ret, SLICE_CTRL_MEMORY, "memory.memsw.limit_in_bytes",
                                l->memory_bytes);
                else /* swap is not counted on this host: then this group does not swap */
                        row(ret, SLICE_CTRL_MEMORY, "memory.swappiness", "0");
                row_u64(ret, SLICE_CTRL_MEMORY, "memory.kmem.tcp.limit_in_bytes",
                        l->memory_bytes / TCP_SHARE)
                        ->if_there = true;
        }
        if (l->pids > 0)
                row_u64(ret, SLICE_CTRL_PIDS, "pids.max", l->pids);
        disk_weight(l, ret, NULL, "blkio.bfq.weight");
        for (size_t i = 0; i < l->n_io; i++)
                io_v1(&l->io[i], ret);
        return 0;
}

int slice_values_v2(const struct slice_limits *l, bool swap, struct slice_values *ret,
                    struct err *e)
{
        int r = common(l, ret, e);

        if (r < 0)
                return r;
        if (l->quota_mcpu > 0) {
                struct slice_value *x = row(ret, SLICE_CTRL_CPU, "cpu.max", NULL);

                (void) snprintf(x->num, sizeof x->num, "%" PRIu64 " %u", quota_us(l->quota_mcpu),
                                PERIOD_US);
        }
        if (l->weight > 0)
                row_u64(ret, SLICE_CTRL_CPU, "cpu.weight", l->weight);
        if (l->memory_bytes > 0) {
                row_u64(ret, SLICE_CTRL_MEMORY, "memory.max", l->memory_bytes);
                if (swap)
                        row(ret, SLICE_CTRL_MEMORY, "memory.swap.max", "0");
        }
        if (l->memory_high > 0)
                row_u64(ret, SLICE_CTRL_MEMORY, "memory.high", l->memory_high);
        if (l->pids > 0)
                row_u64(ret, SLICE_CTRL_PIDS, "pids.max", l->pids);
        disk_weight(l, ret, "io.weight", "io.bfq.weight");
        for (size_t i = 0; i < l->n_io; i++)
                io_v2(&l->io[i], ret);
        return 0;
}

void slice_values_done(struct slice_values *v)
{
        strbuf_done(&v->cpus);
}
