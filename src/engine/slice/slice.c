/* slice.c - making, limiting, entering and reading a cluster's group.
 *
 * Runs in operation processes (and in the engine for pools and usage); the descriptors come from
 * slice_host.c.
 * Always: a group that slice_create_bare() made already refuses every device beyond the base set,
 * so a process can never sit in one without a device filter; other limits come with slice_apply(),
 * and slice_create() gives both or nothing. */
#include "engine/slice/slice.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/slice/slice_priv.h"

#define SMALL_FILE 4096U

const struct slice_device slice_base_devices[] = {
        { 'c', 1, 3, "rw" },    /* null */
        { 'c', 1, 5, "rw" },    /* zero */
        { 'c', 1, 7, "rw" },    /* full */
        { 'c', 1, 8, "rw" },    /* random */
        { 'c', 1, 9, "rw" },    /* urandom */
        { 'c', 5, 0, "rw" },    /* tty */
        { 'c', 5, 2, "rw" },    /* ptmx */
        { 'c', 136, -1, "rw" }, /* pts */
};
const size_t slice_n_base_devices = NELEM(slice_base_devices);

/* The root of the hierarchy that holds @c; -ENOTSUP when none does. */
static int root_of(const struct slice_host *h, enum slice_ctrl c, struct err *e)
{
        if (h->at[c] == SLICE_NO_HIER)
                return err_set(e, -ENOTSUP, "cgroup v%d: this host has no %s controller",
                               h->version, slice_ctrl_name(c));
        return h->hier[h->at[c]].root;
}

/* --- devices ------------------------------------------------------------------------------- */

/* Each rule is one write: the v1 files take exactly one per call. */
static int allow_v1(int root, const char *name, const struct slice_device *d, size_t n,
                    struct err *e)
{
        char path[SLICE_PATH_MAX], rule[48];
        AUTO(fd) int fd = -EBADF;

        if (n == 0)
                return 0;
        fd = openat(root, slice_path(path, name, "devices.allow"), O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return err_errno(e, -errno, "devices.allow");
        for (size_t i = 0; i < n; i++) {
                int r = slice_device_rule(&d[i], rule, sizeof rule, e);

                if (r < 0)
                        return r;
                if (write(fd, rule, strlen(rule)) < 0)
                        return err_errno(e, -errno, "devices.allow '%s'", rule);
        }
        return 0;
}

static int devices_bare(struct slice_host *h, const char *name, struct err *e)
{
        char path[SLICE_PATH_MAX];
        int root = root_of(h, SLICE_CTRL_DEVICES, h->forced ? NULL : e), r;

        if (root < 0)
                return h->forced ? 0 : root;
        if (h->version == 1) {
                r = fd_write_value(root, slice_path(path, name, "devices.deny"), "a");
                if (r < 0)
                        return err_errno(e, r, "devices.deny");
                return allow_v1(root, name, slice_base_devices, slice_n_base_devices, e);
        }
        if (h->base_prog < 0)
                return 0; /* a test's stand-in tree: slice_host_open() always loads it */
        AUTO(fd) int dir = openat(root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (dir < 0)
                return err_errno(e, -errno, "open cgroup");
        return slice_bpf_attach(dir, h->base_prog, e);
}

/* Base set and extras; on v1 the base set is there from birth. */
static int devices_apply(struct slice_host *h, const char *name, const struct slice_limits *l,
                         struct err *e)
{
        AUTO(fd) int prog = -EBADF;
        AUTO(fd) int dir = -EBADF;
        int root;

        if (l->n_devices == 0)
                return 0;
        root = root_of(h, SLICE_CTRL_DEVICES, e);
        if (root < 0)
                return root;
        if (h->version == 1)
                return allow_v1(root, name, l->devices, l->n_devices, e);
        if (h->base_prog < 0)
                return err_set(e, -ENOTSUP, "no device programs here");
        dir = openat(root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0)
                return err_errno(e, -errno, "open cgroup");
        prog = slice_bpf_load(l->devices, l->n_devices, e);
        return prog < 0 ? prog : slice_bpf_attach(dir, prog, e);
}

/* --- making and limiting ------------------------------------------------------------------- */

int slice_create_bare(struct slice_host *h, const char *name, struct err *e)
{
        size_t made = 0;
        int r = slice_name_check(name, e);

        if (r < 0)
                return r;
        for (; r >= 0 && made < h->n_hier; made++)
                if (mkdirat(h->hier[made].root, name, 0755) < 0) {
                        r = err_errno(e, -errno, "make cgroup %s", name);
                        break;
                }
        if (r >= 0)
                r = devices_bare(h, name, e);
        if (r >= 0)
                return 0;
        while (made > 0) /* only what this call made: with -EEXIST the rest is somebody's */
                (void) unlinkat(h->hier[--made].root, name, AT_REMOVEDIR);
        return err_wrap(e, r, "cgroup %s", name);
}

static int write_row(struct slice_host *h, const char *name, const struct slice_value *v,
                     struct err *e)
{
        char path[SLICE_PATH_MAX];
        bool extra = v->if_there || v->ctrl > SLICE_CTRL_PIDS; /* said in `missing` */
        int root = root_of(h, v->ctrl, extra ? NULL : e), r;

        if (root < 0)
                return extra ? 0 : root;
        r = fd_write_value(root, slice_path(path, name, v->file), v->text);
        if (r == -ENOENT && v->if_there)
                return 0;
        return r < 0 ? err_errno(e, r, "%s = %.40s", v->file, v->text) : 0;
}

int slice_apply(struct slice_host *h, const char *name, const struct slice_limits *l, struct err *e)
{
        AUTO(slice_values_done) struct slice_values v = { 0 };
        const struct slice_value *again = NULL;
        int r = slice_name_check(name, e);

        if (r < 0)
                return r;
        r = h->version == 1 ? slice_values_v1(l, h->memsw, &v, e)
                            : slice_values_v2(l, h->swap, &v, e);
        for (size_t i = 0; r >= 0 && i < v.n; i++) {
                r = write_row(h, name, &v.row[i], e);
                if (r == -EINVAL && v.row[i].again) {
                        again = &v.row[i];
                        r = 0;
                }
        }
        if (r >= 0 && again)
                r = write_row(h, name, again, e);
        if (r >= 0)
                r = devices_apply(h, name, l, e);
        return r < 0 ? err_wrap(e, r, "cgroup %s", name) : 0;
}

int slice_create(struct slice_host *h, const char *name, const struct slice_limits *l,
                 struct err *e)
{
        int r = slice_create_bare(h, name, e);

        if (r < 0)
                return r;
        r = slice_apply(h, name, l, e);
        if (r < 0)
                (void) slice_remove(h, name, NULL);
        return r;
}

/* --- entering ------------------------------------------------------------------------------ */

/* A cluster that an older engine has begun is in the hierarchies that the older one knew. */
static bool may_lack(const struct slice_host *h, size_t hier)
{
        for (unsigned c = SLICE_CTRL_NONE + 1; c <= SLICE_CTRL_PIDS; c++)
                if (h->at[c] == hier) /* mounted together with one that all knew */
                        return false;
        return h->at[SLICE_CTRL_IO] == hier || h->at[SLICE_CTRL_PRESSURE] == hier;
}

static int open_v1(const struct slice_host *h, size_t hier, const char *name, struct slice_enter *s)
{
        bool whole = hier == h->pressure_hier;
        char path[SLICE_PATH_MAX];
        int fd = whole ? openat(h->hier[hier].root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                       : openat(h->hier[hier].root, slice_path(path, name, "tasks"),
                                O_WRONLY | O_CLOEXEC);

        if (fd < 0)
                return errno == ENOENT && may_lack(h, hier) ? 0 : -errno;
        if (whole)
                s->pressure = fd;
        else
                s->v1_tasks[s->n_v1++] = fd;
        return 0;
}

int slice_enter_open(struct slice_host *h, const char *name, struct slice_enter *ret, struct err *e)
{
        struct slice_enter s = { .v2_dir = -EBADF };
        int r = slice_name_check(name, e);

        if (r < 0)
                return r;
        if (h->version == 2) {
                s.v2_dir = openat(h->hier[0].root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                if (s.v2_dir < 0)
                        return err_errno(e, -errno, "open cgroup %s", name);
                *ret = s;
                return 0;
        }
        for (size_t i = 0; r >= 0 && i < h->n_hier; i++)
                r = open_v1(h, i, name, &s);
        if (r < 0) {
                slice_enter_done(&s);
                return err_errno(e, r, "open cgroup %s", name);
        }
        *ret = s;
        return 0;
}

/* --- reading ------------------------------------------------------------------------------- */

/* One number: the whole file, or what follows @key at the start of a line.  A file or key that
 * this kernel lacks reads as @absent when that is >= 0. */
static int read_number(const struct slice_host *h, enum slice_ctrl c, const char *name,
                       const char *file, const char *key, int64_t absent, uint64_t *ret,
                       struct err *e)
{
        char path[SLICE_PATH_MAX];
        AUTO(free) char *text = NULL;
        const char *at;
        int root = root_of(h, c, absent < 0 ? e : NULL), r;

        r = root < 0 ? root
                     : fd_read_file(root, slice_path(path, name, file), SMALL_FILE, &text, NULL);
        if (absent >= 0 && (r == -ENOTSUP || r == -ENOENT)) {
                *ret = (uint64_t) absent;
                return 0;
        }
        if (r < 0)
                return root < 0 ? r : err_errno(e, r, "%s", file);
        for (at = text; key && *at; at += strcspn(at, "\n"), at += *at == '\n') {
                const char *v = str_after(at, key);

                if (v && *v == ' ') {
                        at = v + 1;
                        break;
                }
        }
        if (str_u64_prefix(at, 10, ret) < 0)
                return err_set(e, -EPROTO, "%s: no number%s%s", file, key ? " after " : "",
                               key ? key : "");
        return 0;
}

/* Which file tells what, per world. */
static const struct usage_row {
        enum slice_ctrl ctrl;
        const char *file, *key;
        int64_t absent;
        size_t off;
        uint64_t divide;
} usage_rows[2][5] = {
#define U(x) offsetof(struct slice_usage, x)
        {
                { SLICE_CTRL_CPUACCT, "cpuacct.usage", NULL, -1, U(cpu_us), 1000 },
                { SLICE_CTRL_MEMORY, "memory.usage_in_bytes", NULL, -1, U(memory_bytes), 1 },
                { SLICE_CTRL_MEMORY, "memory.max_usage_in_bytes", NULL, -1, U(memory_peak_bytes),
                  1 },
                { SLICE_CTRL_MEMORY, "memory.oom_control", "oom_kill", -1, U(oom_kills), 1 },
                { SLICE_CTRL_PIDS, "pids.current", NULL, -1, U(pids), 1 },
        },
        {
                { SLICE_CTRL_CPUACCT, "cpu.stat", "usage_usec", -1, U(cpu_us), 1 },
                { SLICE_CTRL_MEMORY, "memory.current", NULL, -1, U(memory_bytes), 1 },
                /* since Linux 5.19 */
                { SLICE_CTRL_MEMORY, "memory.peak", NULL, 0, U(memory_peak_bytes), 1 },
                { SLICE_CTRL_MEMORY, "memory.events", "oom_kill", -1, U(oom_kills), 1 },
                { SLICE_CTRL_PIDS, "pids.current", NULL, -1, U(pids), 1 },
        },
#undef U
};

uint64_t slice_pressure_parse(const char *text)
{
        const char *at = str_after(text, "some avg10="), *dot;
        uint64_t whole = 0, part = 0;

        if (!at || str_u64_prefix(at, 10, &whole) < 0 || !(dot = strchr(at, '.')) ||
            str_u64_prefix(dot + 1, 10, &part) < 0 || whole > 100 || part > 99)
                return UINT64_MAX;
        return whole * 100 + part;
}

/* A kernel may have been started without it, and then nothing of that is there. */
static uint64_t read_pressure(const struct slice_host *h, const char *name, const char *file)
{
        char path[SLICE_PATH_MAX];
        AUTO(free) char *text = NULL;
        int root = root_of(h, SLICE_CTRL_PRESSURE, NULL);

        if (root < 0 ||
            fd_read_file(root, slice_path(path, name, file), SMALL_FILE, &text, NULL) < 0)
                return UINT64_MAX;
        return slice_pressure_parse(text);
}

int slice_usage(struct slice_host *h, const char *name, struct slice_usage *ret, struct err *e)
{
        const struct usage_row *rows = usage_rows[h->version - 1];
        struct slice_usage u = { 0 };
        int r = slice_name_check(name, e);

        for (size_t i = 0; r >= 0 && i < NELEM(usage_rows[0]); i++) {
                uint64_t v = 0;

                r = read_number(h, rows[i].ctrl, name, rows[i].file, rows[i].key, rows[i].absent,
                                &v, e);
                v /= rows[i].divide;
                memcpy((char *) &u + rows[i].off, &v, sizeof v);
        }
        if (r < 0)
                return err_wrap(e, r, "cgroup %s", name);
        u.pressure_cpu = read_pressure(h, name, "cpu.pressure");
        u.pressure_memory = read_pressure(h, name, "memory.pressure");
        u.pressure_io = read_pressure(h, name, "io.pressure");
        *ret = u;
        return 0;
}

/* Was the group seen in an earlier hierarchy?  A crash may leave it in some only. */
static bool seen_before(const struct slice_host *h, size_t hier, const char *name)
{
        for (size_t i = 0; i < hier; i++)
                if (faccessat(h->hier[i].root, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
                        return true;
        return false;
}

int slice_each(struct slice_host *h, slice_each_fn *fn, void *arg)
{
        int r = 0;

        for (size_t i = 0; r >= 0 && i < h->n_hier; i++) {
                int fd = openat(h->hier[i].root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                DIR *dir = fd < 0 ? NULL : fdopendir(fd);
                struct dirent *de;

                if (!dir) {
                        r = -errno;
                        (void) fd_close(fd);
                        return r;
                }
                while (r >= 0 && (de = readdir(dir)) != NULL)
                        if (de->d_type == DT_DIR && slice_name_check(de->d_name, NULL) == 0 &&
                            !seen_before(h, i, de->d_name))
                                r = fn(arg, de->d_name);
                (void) closedir(dir);
        }
        return r;
}
