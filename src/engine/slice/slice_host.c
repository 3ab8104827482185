/* slice_host.c - which cgroup world this host has, and our root group in it.
 *
 * Runs in the engine at start; operations inherit the descriptors.
 * Always: groups are made only below "hvmm-<instance>"; the machine's own mounts and groups are
 * read, never written, but for switching on controllers for children at the top of v2, which
 * takes nothing from anybody.  Every directory is opened once, here, and used by descriptor. */
#include "engine/slice/slice.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/claim/claim.h"
#include "engine/slice/slice_priv.h"

#define MOUNTINFO_MAX (4U << 20)

static const char *const ctrl_name[] = { "none",    "cpu",  "cpuacct", "cpuset",  "memory",
                                         "devices", "pids", "io",      "pressure" };
static_assert(NELEM(ctrl_name) == SLICE_CTRL_COUNT, "controller names");

/* Controllers that v2 lists by name in cgroup.controllers. */
static const enum slice_ctrl v2_ctrls[] = { SLICE_CTRL_CPU, SLICE_CTRL_CPUSET, SLICE_CTRL_MEMORY,
                                            SLICE_CTRL_PIDS, SLICE_CTRL_IO };

const char *slice_ctrl_name(enum slice_ctrl c)
{
        return ctrl_name[c];
}

int slice_name_check(const char *name, struct err *e)
{
        size_t len = name ? strlen(name) : 0;

        if (len == 0 || len > SLICE_NAME_MAX || name[0] == '-')
                return err_set(e, -EINVAL,
                               "cgroup name '%.60s': 1 to %u characters, not a dash first",
                               name ? name : "", SLICE_NAME_MAX);
        if (strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != len)
                return err_set(e, -EINVAL, "cgroup name '%s': only a-z, 0-9 and dashes", name);
        return 0;
}

const char *slice_path(char *buf, const char *name, const char *file)
{
        size_t n = strlen(name);

        memcpy(buf, name, n);
        buf[n] = '/';
        memcpy(buf + n + 1, file, strlen(file) + 1);
        return buf;
}

/* --- where things are mounted ------------------------------------------------------------- */

/* mountinfo writes blank, tab, newline and backslash as \ooo. */
static void unescape(char *s)
{
        char *to = s;

        for (; *s; s++) {
                if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
                        *to++ = (char) ((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
                        s += 3;
                } else {
                        *to++ = *s;
                }
        }
        *to = '\0';
}

static uint32_t ctrls_of_options(char *options)
{
        char *save = NULL;
        uint32_t set = 0;

        for (char *o = strtok_r(options, ",", &save); o; o = strtok_r(NULL, ",", &save))
                for (unsigned c = SLICE_CTRL_NONE + 1; c < SLICE_CTRL_PRESSURE; c++)
                        if (strcmp(o, c == SLICE_CTRL_IO ? "blkio" : ctrl_name[c]) == 0)
                                set |= 1U << c;
        return set;
}

static bool has_option(const char *options, const char *word)
{
        size_t n = strlen(word);

        for (const char *p = options; (p = strstr(p, word)) != NULL; p += n)
                if ((p == options || p[-1] == ',') && (p[n] == ',' || p[n] == '\0'))
                        return true;
        return false;
}

/* One line: "36 35 98:0 /root /mount opts shared:1 - fstype source superopts". */
static void parse_line(char *line, struct slice_mounts *ret)
{
        char *field[5] = { 0 }, *save = NULL, *tail = strstr(line, " - "), *type, *options;

        if (!tail)
                return;
        *tail = '\0';
        for (size_t i = 0; i < NELEM(field); i++)
                if (!(field[i] = strtok_r(i == 0 ? line : NULL, " ", &save)))
                        return;
        type = strtok_r(tail + 3, " ", &save);
        if (!type || !strtok_r(NULL, " ", &save))
                return;
        options = strtok_r(NULL, " ", &save);
        unescape(field[4]);
        if (strlen(field[4]) >= sizeof ret->v2)
                return;
        if (strcmp(type, "cgroup2") == 0) {
                (void) snprintf(ret->v2, sizeof ret->v2, "%s", field[4]);
        } else if (strcmp(type, "cgroup") == 0 && options && ret->n_v1 < SLICE_HIER_MAX) {
                struct slice_mount *m = &ret->v1[ret->n_v1];

                if (has_option(options, "freezer"))
                        (void) snprintf(ret->freezer, sizeof ret->freezer, "%s", field[4]);
                m->ctrls = ctrls_of_options(options);
                for (size_t i = 0; i < ret->n_v1; i++) /* mounted twice: the first will do */
                        m->ctrls &= ~ret->v1[i].ctrls;
                if (m->ctrls == 0)
                        return; /* name=systemd, freezer, ... */
                (void) snprintf(m->path, sizeof m->path, "%s", field[4]);
                ret->n_v1++;
        }
}

void slice_mounts_parse(const char *mountinfo, struct slice_mounts *ret)
{
        AUTO(free) char *copy = strdup(mountinfo);
        char *save = NULL;

        memset(ret, 0, sizeof *ret);
        if (!copy)
                return;
        for (char *l = strtok_r(copy, "\n", &save); l; l = strtok_r(NULL, "\n", &save))
                parse_line(l, ret);
}

/* --- opening ------------------------------------------------------------------------------- */

static int open_mount(const char *path, unsigned long magic, struct err *e)
{
        AUTO(fd) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct statfs st;

        if (fd < 0)
                return err_errno(e, -errno, "open %s", path);
        if (fstatfs(fd, &st) < 0)
                return err_errno(e, -errno, "statfs %s", path);
        if ((unsigned long) st.f_type != magic)
                return err_set(e, -ENOTSUP, "%s: the cgroup mount is covered by another one", path);
        return fd_take(&fd);
}

static int host_new(const char *instance, int version, bool forced, struct slice_host **ret,
                    struct err *e)
{
        AUTO(slice_host_close) struct slice_host *h = NULL;
        int r = slice_name_check(instance, e);

        if (r < 0)
                return r;
        h = calloc(1, sizeof *h);
        if (!h)
                return err_set(e, -ENOMEM, "out of memory");
        for (size_t i = 0; i < SLICE_HIER_MAX; i++)
                h->hier[i].mount = h->hier[i].root = -EBADF;
        memset(h->at, SLICE_NO_HIER, sizeof h->at);
        h->base_prog = h->freezer = -EBADF;
        h->version = version;
        h->forced = forced;
        (void) snprintf(h->group, sizeof h->group, CLAIM_GROUP_PREFIX "%s", instance);
        *ret = TAKE(h);
        return 0;
}

static int make_root(struct slice_host *h, size_t i, struct err *e)
{
        struct slice_hier *t = &h->hier[i];

        if (mkdirat(t->mount, h->group, 0755) < 0 && errno != EEXIST)
                return err_errno(e, -errno, "make cgroup %s", h->group);
        t->root = openat(t->mount, h->group, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (t->root < 0)
                return err_errno(e, -errno, "open cgroup %s", h->group);
        return 0;
}

/* v1 starts a cpuset with no CPU and no memory node, and nothing may enter it.  Our root gets what
 * the level above has; cgroup.clone_children hands that on to every group below at its birth. */
static int cpuset_v1_prepare(struct slice_hier *t, struct err *e)
{
        static const char *const file[] = { "cpuset.mems", "cpuset.cpus" };
        int r;

        for (size_t i = 0; i < NELEM(file); i++) {
                AUTO(free) char *have = NULL, *above = NULL;

                r = fd_read_file(t->root, file[i], 65536, &have, NULL);
                if (r < 0)
                        return err_errno(e, r, "read %s", file[i]);
                if (have[strspn(have, " \n")] != '\0')
                        continue;
                r = fd_read_file(t->mount, file[i], 65536, &above, NULL);
                if (r >= 0)
                        r = fd_write_value(t->root, file[i], above);
                if (r < 0)
                        return err_errno(e, r, "hand on %s", file[i]);
        }
        r = fd_write_value(t->root, "cgroup.clone_children", "1");
        return r < 0 ? err_errno(e, r, "cgroup.clone_children") : 0;
}

/* A v2 hierarchy without controllers beside v1 still tells what its groups wait for. */
static int open_pressure(struct slice_host *h, const char *v2, struct err *e)
{
        size_t at = h->n_hier;
        AUTO(fd)
        int mnt = *v2 && at < SLICE_HIER_MAX ? open_mount(v2, CGROUP2_SUPER_MAGIC, NULL) : -ENOTSUP;
        int r;

        if (mnt < 0 || faccessat(mnt, "cpu.pressure", R_OK, 0) < 0)
                return 0;
        h->n_hier++;
        h->hier[at].mount = fd_take(&mnt);
        r = make_root(h, at, e);
        if (r >= 0)
                h->at[SLICE_CTRL_PRESSURE] = (uint8_t) (h->pressure_hier = at);
        return r;
}

static int open_v1(const char *instance, const struct slice_mounts *m, bool forced,
                   struct slice_host **ret, struct err *e)
{
        AUTO(slice_host_close) struct slice_host *h = NULL;
        int r = host_new(instance, 1, forced, &h, e);

        for (size_t i = 0; r >= 0 && i < m->n_v1; i++) {
                size_t at = h->n_hier++;

                r = open_mount(m->v1[i].path, CGROUP_SUPER_MAGIC, e);
                if (r < 0)
                        break;
                h->hier[at].mount = r;
                for (unsigned c = SLICE_CTRL_NONE + 1; c < SLICE_CTRL_PRESSURE; c++)
                        if (m->v1[i].ctrls & 1U << c)
                                h->at[c] = (uint8_t) at;
                r = make_root(h, at, e);
                if (r >= 0 && h->at[SLICE_CTRL_CPUSET] == at)
                        r = cpuset_v1_prepare(&h->hier[at], e);
        }
        h->pressure_hier = SLICE_HIER_MAX;
        if (r >= 0)
                r = open_pressure(h, m->v2, e);
        if (r < 0)
                return err_wrap(e, r, "cgroup v1");
        if (*m->freezer) /* without it a GPU is not taken from a cluster that runs */
                h->freezer = open_mount(m->freezer, CGROUP_SUPER_MAGIC, NULL);
        if (h->at[SLICE_CTRL_MEMORY] != SLICE_NO_HIER)
                h->memsw = faccessat(h->hier[h->at[SLICE_CTRL_MEMORY]].root,
                                     "memory.memsw.limit_in_bytes", W_OK, 0) == 0;
        *ret = TAKE(h);
        return 0;
}

/* Is @word one of the blank-separated words of @list? */
static bool has_word(const char *list, const char *word)
{
        size_t len = strlen(word);

        for (const char *p = list; (p = strstr(p, word)) != NULL; p += len)
                if ((p == list || p[-1] == ' ') && (p[len] == ' ' || p[len] == '\n' || !p[len]))
                        return true;
        return false;
}

/* Switch the controllers on for the children of @dir. */
static int v2_delegate(const struct slice_host *h, int dir, struct err *e)
{
        AUTO(free) char *on = NULL;
        int r = fd_read_file(dir, "cgroup.subtree_control", 4096, &on, NULL);

        if (r < 0)
                return err_errno(e, r, "cgroup.subtree_control");
        for (size_t i = 0; i < NELEM(v2_ctrls); i++) {
                const char *name = ctrl_name[v2_ctrls[i]];
                char word[16];

                if (h->at[v2_ctrls[i]] == SLICE_NO_HIER || has_word(on, name))
                        continue;
                (void) snprintf(word, sizeof word, "+%s", name);
                r = fd_write_value(dir, "cgroup.subtree_control", word);
                if (r < 0)
                        return err_errno(e, r, "switch on controller %s", name);
        }
        return 0;
}

int slice_host_open_v2(const char *instance, int mount, int base_prog, bool forced,
                       struct slice_host **ret, struct err *e)
{
        AUTO(slice_host_close) struct slice_host *h = NULL;
        AUTO(free) char *have = NULL;
        AUTO(fd) int mnt = mount, prog = base_prog;
        int r = host_new(instance, 2, forced, &h, e);

        if (r < 0)
                return r;
        h->hier[0].mount = fd_take(&mnt);
        h->base_prog = fd_take(&prog);
        h->n_hier = 1;
        h->at[SLICE_CTRL_CPUACCT] = h->at[SLICE_CTRL_DEVICES] = h->at[SLICE_CTRL_PRESSURE] = 0;
        h->pressure_hier = SLICE_HIER_MAX;
        r = fd_read_file(h->hier[0].mount, "cgroup.controllers", 4096, &have, NULL);
        if (r < 0)
                return err_errno(e, r, "cgroup v2: cgroup.controllers");
        for (size_t i = 0; i < NELEM(v2_ctrls); i++)
                if (has_word(have, ctrl_name[v2_ctrls[i]]))
                        h->at[v2_ctrls[i]] = 0;
        r = v2_delegate(h, h->hier[0].mount, e);
        if (r >= 0)
                r = make_root(h, 0, e);
        if (r >= 0)
                r = v2_delegate(h, h->hier[0].root, e);
        if (r < 0)
                return err_wrap(e, r, "cgroup v2");
        h->swap = faccessat(h->hier[0].root, "memory.swap.max", W_OK, 0) == 0;
        *ret = TAKE(h);
        return 0;
}

static int open_v2(const char *instance, const struct slice_mounts *m, bool forced,
                   struct slice_host **ret, struct err *e)
{
        AUTO(fd) int mnt = -EBADF, prog = -EBADF;

        mnt = open_mount(m->v2, CGROUP2_SUPER_MAGIC, e);
        if (mnt < 0)
                return err_wrap(e, mnt, "cgroup v2");
        prog = slice_bpf_load(NULL, 0, e);
        if (prog < 0)
                return err_wrap(e, prog, "cgroup v2");
        return slice_host_open_v2(instance, fd_take(&mnt), fd_take(&prog), forced, ret, e);
}

/* Every controller must be there, in one world: half the limits is no limit.  What comes behind pids
 * is an extra: its absence is reported, and nothing hangs on it. */
static int check_complete(const struct slice_host *h, struct err *e)
{
        for (unsigned c = SLICE_CTRL_NONE + 1; c <= SLICE_CTRL_PIDS; c++)
                if (h->at[c] == SLICE_NO_HIER)
                        return err_set(e, -ENOTSUP, "cgroup v%d: this host has no %s controller",
                                       h->version, ctrl_name[c]);
        return 0;
}

int slice_host_open(const char *instance, int version_forced, struct slice_host **ret,
                    struct err *e)
{
        AUTO(slice_host_close) struct slice_host *h = NULL;
        AUTO(free) char *text = NULL;
        struct slice_mounts m;
        bool forced = version_forced != 0;
        int version = version_forced, r;

        r = fd_read_file(AT_FDCWD, "/proc/self/mountinfo", MOUNTINFO_MAX, &text, NULL);
        if (r < 0)
                return err_errno(e, r, "/proc/self/mountinfo");
        slice_mounts_parse(text, &m);
        if (version == 0)
                version = m.n_v1 > 0 ? 1 : 2; /* hybrid: the controllers are with v1 */
        if (version == 2 && m.v2[0] == '\0')
                return err_set(e, -ENOTSUP, "no cgroup file system is mounted");
        r = version == 1 ? open_v1(instance, &m, forced, &h, e)
                         : open_v2(instance, &m, forced, &h, e);
        if (r >= 0 && !forced)
                r = check_complete(h, e);
        if (r < 0)
                return r;
        *ret = TAKE(h);
        return 0;
}

struct slice_host *slice_host_close(struct slice_host *h)
{
        if (!h)
                return NULL;
        for (size_t i = 0; i < SLICE_HIER_MAX; i++) {
                (void) fd_close(h->hier[i].root);
                (void) fd_close(h->hier[i].mount);
        }
        (void) fd_close(h->base_prog);
        (void) fd_close(h->freezer);
        free(h);
        return NULL;
}

int slice_version(const struct slice_host *h)
{
        return h->version;
}

bool slice_has_io(const struct slice_host *h)
{
        return h->at[SLICE_CTRL_IO] != SLICE_NO_HIER;
}

bool slice_has_pressure(const struct slice_host *h)
{
        return h->at[SLICE_CTRL_PRESSURE] != SLICE_NO_HIER;
}

int slice_host_limit_pids(struct slice_host *h, uint32_t pids, struct err *e)
{
        uint8_t at = h->at[SLICE_CTRL_PIDS];
        char text[16];
        int r;

        if (at == SLICE_NO_HIER)
                return err_set(e, -ENOTSUP, "cgroup v%d: this host has no pids controller",
                               h->version);
        (void) snprintf(text, sizeof text, "%u", pids);
        r = fd_write_value(h->hier[at].root, "pids.max", pids ? text : "max");
        return r < 0 ? err_errno(e, r, "pids.max of all clusters") : 0;
}

int slice_host_remove(struct slice_host *h, struct err *e)
{
        for (size_t i = 0; i < h->n_hier; i++)
                if (unlinkat(h->hier[i].mount, h->group, AT_REMOVEDIR) < 0 && errno != ENOENT)
                        return err_errno(e, -errno, "remove cgroup %s", h->group);
        return 0;
}
