/* simulated.c - see simulated.h: finds and reads the description, makes room for the tree, takes it
 * away again.  Engine process, at start and end. */
#include "engine/gpu/simulated.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"

#define TREE  "driver"
#define STATE "simulated"

/* relative to the directory of our programs: in a build, and installed */
static const char *const fleet_places[] = { "data/fleets", "../../share/hypervisor-vmm/fleets" };

/* ---- writing below a root ---- */

/* The directory of @path and its last component. */
static int open_parent(int root, const char *path, const char **ret_name, struct err *e)
{
        const char *slash = strrchr(path, '/');
        AUTO(free) char *dir = slash ? strndup(path, (size_t) (slash - path)) : strdup(".");
        int fd;

        if (!dir)
                return err_set(e, -ENOMEM, "out of memory");
        fd = fd_mkdir_beneath(root, dir, 0755);
        *ret_name = slash ? slash + 1 : path;
        return fd < 0 ? err_errno(e, fd, "simulated driver: make %s", dir) : fd;
}

int sim_put(int root, mode_t mode, const char *path, const void *data, size_t len, struct err *e)
{
        const char *name;
        AUTO(fd) int dir = open_parent(root, path, &name, e);
        AUTO(fd) int fd = -EBADF;
        int r;

        if (dir < 0)
                return dir;
        fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
        r = fd < 0 ? -errno : fd_write_full(fd, data, len);
        if (r >= 0 && fchmod(fd, mode) < 0) /* whatever the umask is */
                r = -errno;
        return r < 0 ? err_errno(e, r, "simulated driver: write %s", path) : 0;
}

int sim_put_text(int root, const char *path, struct err *e, const char *fmt, ...)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        va_list ap;

        va_start(ap, fmt);
        strbuf_vfmt(&b, fmt, ap);
        va_end(ap);
        if (b.failed)
                return err_set(e, -ENOMEM, "out of memory");
        return sim_put(root, 0444, path, b.s ? b.s : "", b.len, e);
}

int sim_link(int root, const char *target, const char *path, struct err *e)
{
        const char *name;
        AUTO(fd) int dir = open_parent(root, path, &name, e);

        if (dir < 0)
                return dir;
        return symlinkat(target, dir, name) < 0
                       ? err_errno(e, -errno, "simulated driver: link %s", path)
                       : 0;
}

int sim_dir(int root, const char *path, struct err *e)
{
        int fd = fd_mkdir_beneath(root, path, 0755);

        if (fd < 0)
                return err_errno(e, fd, "simulated driver: make %s", path);
        (void) fd_close(fd);
        return 0;
}

/* ---- the description ---- */

int sim_find(const char *libexec, const char *const *places, const char *name, char **ret,
             struct err *e)
{
        for (size_t i = 0; i < 2; i++) {
                AUTO(free) char *path = str_fmt("%s/%s/%s", libexec, places[i], name);

                if (!path)
                        return err_set(e, -ENOMEM, "out of memory");
                if (access(path, R_OK) == 0) {
                        *ret = TAKE(path);
                        return 0;
                }
        }
        return err_set(e, -ENOENT, "%s lies neither in %s/%s nor in %s/%s", name, libexec,
                       places[0], libexec, places[1]);
}

static int by_name(const void *a, const void *b)
{
        return strcmp(*(char *const *) a, *(char *const *) b);
}

/* "3090x8, 4090x1, ..." of the first place that there is. */
static void list_known(const char *libexec, struct strbuf *b)
{
        AUTO(strv_free) char **names = NULL;

        for (size_t i = 0; i < NELEM(fleet_places) && !names; i++) {
                AUTO(free) char *path = str_fmt("%s/%s", libexec, fleet_places[i]);
                DIR *dir = path ? opendir(path) : NULL;

                for (const struct dirent *d; dir && (d = readdir(dir));)
                        if (!strchr(d->d_name, '.'))
                                (void) strv_push(&names, d->d_name);
                if (dir)
                        (void) closedir(dir);
        }
        if (names)
                qsort(names, strv_len(names), sizeof *names, by_name);
        for (size_t i = 0; names && names[i]; i++)
                strbuf_fmt(b, "%s%s", i ? ", " : "", names[i]);
}

static int no_fleet(const char *libexec, const char *fleet, struct err *e)
{
        AUTO(strbuf_done) struct strbuf known = { 0 };

        list_known(libexec, &known);
        return err_set(
                e, -EINVAL,
                "[engine] gpu_driver: there is no simulated fleet '%.60s'; one of %s, or the path of a description",
                fleet, known.s ? known.s : "none");
}

/* The text of a description, and what it means. */
static int read_fleet(const char *libexec, const char *fleet, const char *seed, char **ret_text,
                      struct gpu_sim **ret, struct err *e)
{
        AUTO(free) char *path = NULL, *text = NULL;
        AUTO(free) struct gpu_sim *s = malloc(sizeof *s);
        int r;

        if (!s)
                return err_set(e, -ENOMEM, "out of memory");
        if (strchr(fleet, '/'))
                path = strdup(fleet);
        else if (!*fleet || strchr(fleet, '.') ||
                 sim_find(libexec, fleet_places, fleet, &path, NULL) < 0)
                return no_fleet(libexec, fleet, e);
        if (!path)
                return err_set(e, -ENOMEM, "out of memory");
        r = fd_read_file(AT_FDCWD, path, GPU_SIM_TEXT_MAX - 64, &text, NULL);
        if (r < 0)
                return err_errno(e, r, "[engine] gpu_driver: read %s", path);
        r = gpu_sim_parse(text, seed, false, s, e);
        if (r < 0)
                return err_wrap(e, r, "[engine] gpu_driver: %s", path);
        *ret_text = TAKE(text);
        *ret = TAKE(s);
        return 0;
}

int simulated_describe(const char *libexec, const char *fleet, char **ret, struct err *e)
{
        AUTO(free) struct gpu_sim *s = NULL;
        AUTO(free) char *text = NULL;
        AUTO(strbuf_done) struct strbuf b = { 0 };
        int r = read_fleet(libexec, fleet, NULL, &text, &s, e);

        if (r < 0)
                return r;
        strbuf_str(&b, "simulated:");
        for (uint32_t m = 0; m < s->n_models; m++) {
                unsigned n = 0;

                for (uint32_t i = 0; i < s->n_gpus; i++)
                        n += s->gpus[i].model == m;
                if (n)
                        strbuf_fmt(&b, " %u x %s", n, s->models[m].name);
        }
        strbuf_fmt(&b, " (%s)", fleet);
        *ret = strbuf_take(&b);
        return *ret ? 1 : err_set(e, -ENOMEM, "out of memory");
}

/* ---- numbers for device nodes ---- */

static bool is_taken(const char *devices, unsigned major)
{
        const char *end = strstr(devices, "Block devices:");
        char line[16];

        (void) snprintf(line, sizeof line, "\n%3u ", major);
        devices = strstr(devices, line);
        return devices && (!end || devices < end);
}

/* Of those that are for local use: nobody is behind them, now and later. */
static int choose_majors(struct sim_tree *t, struct err *e)
{
        static const struct {
                unsigned from, to;
        } local[] = { { 60, 63 }, { 120, 127 } };
        AUTO(free) char *devices = NULL;
        size_t n = 0;
        int r = fd_read_file(AT_FDCWD, "/proc/devices", 65536, &devices, NULL);

        if (r < 0)
                return err_errno(e, r, "read /proc/devices");
        for (size_t i = 0; i < NELEM(local); i++)
                for (unsigned m = local[i].from; m <= local[i].to && n < SIM_MAJOR_COUNT; m++)
                        if (!is_taken(devices, m))
                                t->major[n++] = m;
        return n == SIM_MAJOR_COUNT
                       ? 0
                       : err_set(e, -EBUSY,
                                 "simulated driver: three free device numbers of 60-63 and 120-127 are needed");
}

/* ---- the place ---- */

/* Whatever an engine before us left, in this mount namespace or another. */
static int make_root(const struct instance *inst, const char *path, struct err *e)
{
        AUTO(fd) int at = -EBADF;
        char proc[40];
        int r;

        while (umount2(path, UMOUNT_NOFOLLOW | MNT_DETACH) == 0)
                ;
        r = fd_rm_rf(inst->run_fd, TREE);
        if (r < 0)
                return err_errno(e, r, "remove %s", path);
        at = fd_mkdir_beneath(inst->run_fd, TREE, 0755);
        if (at < 0)
                return err_errno(e, at, "make %s", path);
        (void) snprintf(proc, sizeof proc, "/proc/self/fd/%d", at);
        if (mount("tmpfs", proc, "tmpfs", MS_NOSUID, "mode=0755,size=64m") < 0)
                log_info("simulated driver: no file system of its own for %s: %s", path,
                         strerror(errno));
        r = fd_open_beneath(inst->run_fd, TREE, O_PATH | O_DIRECTORY, 0);
        return r < 0 ? err_errno(e, r, "open %s", path) : r;
}

void simulated_remove(const char *root_path)
{
        AUTO(free) char *parent = strdup(root_path);
        char *slash = parent ? strrchr(parent, '/') : NULL;
        AUTO(fd) int dir = -EBADF;

        while (umount2(root_path, UMOUNT_NOFOLLOW | MNT_DETACH) == 0)
                ;
        if (!slash || !str_eq(slash, "/" TREE))
                return;
        *slash = '\0';
        dir = open(parent, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (dir >= 0)
                (void) fd_rm_rf(dir, TREE);
}

/* The description as vmm-gpu gets it: with our seed, which makes the same UUIDs at each start. */
static int keep_text(const struct instance *inst, const char *text, struct err *e)
{
        AUTO(free) char *whole = str_fmt("%s\nseed %s\n", text, inst->id);
        AUTO(fd) int dir = fd_mkdir_beneath(inst->run_fd, STATE, 0755);
        int r;

        if (!whole)
                return err_set(e, -ENOMEM, "out of memory");
        r = dir < 0 ? dir : fd_replace_file(dir, "fleet", whole, strlen(whole), 0644, false);
        return r < 0 ? err_errno(e, r, "simulated driver: keep the description") : 0;
}

static int make_tree(const struct instance *inst, const struct gpu_sim *s, struct gpu_driver *d,
                     struct err *e)
{
        struct sim_tree t = { .root = d->root_fd, .s = s, .libexec = inst->libexec };
        AUTO(free) char *nvml = NULL;
        int r = choose_majors(&t, e);

        if (r >= 0)
                r = sim_tree_dev(&t, e);
        if (r >= 0)
                r = sim_tree_proc(&t, e);
        if (r >= 0)
                r = sim_tree_sys(&t, e);
        if (r >= 0)
                r = sim_tree_files(&t, &nvml, e);
        if (r < 0)
                return r;
        d->nvml = str_fmt("%s/%s", d->root_path, nvml);
        return d->nvml ? 0 : err_set(e, -ENOMEM, "out of memory");
}

int simulated_open(const struct instance *inst, const char *fleet, struct gpu_driver *d,
                   struct err *e)
{
        AUTO(free) struct gpu_sim *s = NULL;
        AUTO(free) char *text = NULL;
        int r = read_fleet(inst->libexec, fleet, inst->id, &text, &s, e);

        if (r < 0)
                return r;
        d->kind = GD_SIMULATED;
        d->root_path = str_fmt("/run/hypervisor-vmm/%s/" TREE, inst->id);
        d->fleet_file = str_fmt("/run/hypervisor-vmm/%s/" STATE "/fleet", inst->id);
        d->version = strdup(s->driver);
        if (!d->root_path || !d->fleet_file || !d->version)
                return err_set(e, -ENOMEM, "out of memory");
        r = keep_text(inst, text, e);
        if (r < 0)
                return r;
        d->root_fd = make_root(inst, d->root_path, e);
        return d->root_fd < 0 ? d->root_fd : make_tree(inst, s, d, e);
}
