/* instance.c - see instance.h.  Engine process, at start. */
#include "engine/instance.h"

#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/conf.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/str.h"
#include "edge/domains.h"
#include "engine/tcp_listen.h"

#define RUN_ROOT      "/run/hypervisor-vmm"
#define LOCK_WAIT_US  (3 * US_PER_S)
#define LOCK_PAUSE_US 5000
#define ROOM_FILE     "ballast"
#define ROOM_BYTES    (1U << 20)

/* A directory of root's that others may pass through but not change. */
static int own_dir(const char *path, mode_t mode, int *ret_fd, struct err *e)
{
        AUTO(fd) int fd = -EBADF;
        struct stat st;

        if (mkdir(path, mode) < 0 && errno != EEXIST)
                return err_errno(e, -errno, "make %s", path);
        fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0)
                return err_errno(e, -errno, "open %s", path);
        if (st.st_uid != geteuid() || (st.st_mode & 022))
                return err_set(e, -EPERM, "%s must belong to root and be writable by root alone",
                               path);
        *ret_fd = fd_take(&fd);
        return 0;
}

/* DIR/instance holds the id that names everything host-wide; made at first start. */
static int load_id(struct instance *i, struct err *e)
{
        AUTO(free) char *text = NULL;
        int r = fd_read_file(i->data_fd, "instance", 64, &text, NULL);

        if (r == -ENOENT) {
                r = rand_id(i->id, sizeof i->id - 1);
                if (r >= 0)
                        r = fd_replace_file(i->data_fd, "instance", i->id, strlen(i->id), 0644,
                                            true);
                return r < 0 ? err_errno(e, r, "make %s/instance", i->data_dir) : 0;
        }
        if (r < 0)
                return err_errno(e, r, "read %s/instance", i->data_dir);
        text[strcspn(text, "\n")] = '\0';
        if (strlen(text) != sizeof i->id - 1 ||
            strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789") != sizeof i->id - 1)
                return err_set(e, -EINVAL, "%s/instance does not hold an instance id", i->data_dir);
        memcpy(i->id, text, sizeof i->id);
        return 0;
}

/* The lock is shared with the operations, so it is free once all processes of an engine that was
 * killed have ended; that takes a moment. */
static int take_lock(const struct instance *i, struct err *e)
{
        uint64_t deadline = clock_mono_us() + LOCK_WAIT_US;

        while (flock(i->lock_fd, LOCK_EX | LOCK_NB) < 0) {
                if (errno != EWOULDBLOCK && errno != EINTR)
                        return err_errno(e, -errno, "lock %s", i->data_dir);
                if (clock_mono_us() > deadline)
                        return err_set(e, -EBUSY, "another hypervisor-vmm is running on %s",
                                       i->data_dir);
                (void) usleep(LOCK_PAUSE_US);
        }
        return 0;
}

static int open_dirs(struct instance *i, const char *data_dir, struct err *e)
{
        char run[sizeof RUN_ROOT + 16];
        AUTO(fd) int root = -EBADF;
        int r = own_dir(data_dir, 0711, &i->data_fd, e);

        if (r < 0)
                return r;
        i->data_dir = realpath(data_dir, NULL);
        if (!i->data_dir)
                return err_errno(e, -errno, "%s", data_dir);
        i->lock_fd = openat(i->data_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (i->lock_fd < 0)
                return err_errno(e, -errno, "open %s/lock", i->data_dir);
        r = take_lock(i, e);
        if (r >= 0)
                r = load_id(i, e);
        if (r >= 0)
                r = own_dir(RUN_ROOT, 0755, &root, e);
        if (r < 0)
                return r;
        (void) snprintf(run, sizeof run, RUN_ROOT "/%s", i->id);
        return own_dir(run, 0711, &i->run_fd, e);
}

/* Our other programs lie beside us in a build, in libexec when installed. */
int instance_find_libexec(char **ret, struct err *e)
{
        static const char *const places[] = { "", "/../libexec/hypervisor-vmm" };
        char self[PATH_MAX], *dir;
        ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

        if (n < 0)
                return err_errno(e, -errno, "read /proc/self/exe");
        self[n] = '\0';
        dir = dirname(self);
        for (size_t k = 0; k < NELEM(places); k++) {
                AUTO(free) char *monitor = str_fmt("%s%s/vmm-monitor", dir, places[k]);

                if (!monitor)
                        return err_set(e, -ENOMEM, "out of memory");
                if (access(monitor, X_OK) < 0)
                        continue;
                *ret = str_fmt("%s%s", dir, places[k]);
                return *ret ? 0 : err_set(e, -ENOMEM, "out of memory");
        }
        return err_set(e, -ENOENT, "vmm-monitor lies neither in %s nor in %s%s", dir, dir,
                       places[1]);
}

/* What stands in it decides what root does, and it may hold passwords. */
static int check_mode(const char *config, const struct instance *i, struct err *e)
{
        bool password = false;
        struct stat st;

        if (!config || stat(config, &st) < 0)
                return 0;
        if (st.st_mode & S_IWOTH)
                return err_set(e, -EPERM, "%s may be written by every user: chmod o-w it", config);
        for (size_t k = 0; k < i->n_registries; k++)
                password |= !str_empty(i->registries[k].password);
        if (password && (st.st_mode & S_IROTH))
                log_warn(
                        "%s holds registry passwords and may be read by every user: chmod 640 it, and change them",
                        config);
        return 0;
}

bool instance_has_edge(const struct instance *i)
{
        return !str_eq(i->conf.edge_listen, "none");
}

static int check_edge(const struct instance *i, struct err *e)
{
        const struct engine_conf *c = &i->conf;
        int r = instance_has_edge(i) ? tcp_listen_check(INSTANCE_EDGE_LISTEN, c->edge_listen, e)
                                     : 0;

        return r < 0 ? r : edge_domains_check(c->edge_tenant_domain, c->edge_api_domain, e);
}

int instance_read_conf(const char *config, struct instance **ret, struct err *e)
{
        AUTO(instance_close) struct instance *i = calloc(1, sizeof *i);
        size_t n;
        const struct conf_option *options = instance_options(&n);
        int r;

        if (!i)
                return err_set(e, -ENOMEM, "out of memory");
        i->data_fd = i->run_fd = i->lock_fd = -EBADF;
        r = conf_load(config, options, n, &i->conf, instance_labelled, i, e);
        if (r >= 0)
                r = check_mode(config, i, e);
        if (r >= 0 && log_level_parse(i->conf.log_level) < 0)
                r = err_set(e, -EINVAL,
                            "[engine] log_level: must be error, warning, info or debug");
        if (r >= 0 && !str_eq(i->conf.gpu_scrub, "off") && !str_eq(i->conf.gpu_scrub, "auto") &&
            !str_eq(i->conf.gpu_scrub, "require"))
                r = err_set(e, -EINVAL, "[engine] gpu_scrub: must be off, auto or require");
        if (r >= 0 && !str_eq(i->conf.image_mount, "auto") &&
            !str_eq(i->conf.image_mount, "file") && !str_eq(i->conf.image_mount, "loop"))
                r = err_set(e, -EINVAL, "[images] mount: must be auto, file or loop");
        if (r >= 0)
                r = check_edge(i, e);
        if (r < 0)
                return r;
        *ret = TAKE(i);
        return 0;
}

/* Numbers of processes are the host's: a quarter of them stays its own, and no cluster has more than
 * another quarter. */
static int read_kernel_pids(struct instance *i, struct err *e)
{
        static const char *const file[] = { "/proc/sys/kernel/pid_max",
                                            "/proc/sys/kernel/threads-max" };
        uint64_t least = UINT32_MAX;

        for (size_t k = 0; k < NELEM(file); k++) {
                AUTO(free) char *text = NULL;
                uint64_t n = 0;
                int r = fd_read_file(AT_FDCWD, file[k], 64, &text, NULL);

                if (r >= 0)
                        r = str_u64_prefix(text, 10, &n);
                if (r < 0)
                        return err_errno(e, r, "%s", file[k]);
                least = n < least ? n : least;
        }
        i->pids_all = (uint32_t) (least / 4 * 3);
        i->pids_most = (uint32_t) (least / 4);
        return 0;
}

int instance_open(const char *data_dir, const char *config, const char *libexec,
                  struct instance **ret, struct err *e)
{
        AUTO(instance_close) struct instance *i = NULL;
        int r = instance_read_conf(config, &i, e);

        if (r >= 0)
                r = open_dirs(i, data_dir, e);
        if (r < 0)
                return r;
        r = read_kernel_pids(i, e);
        if (r < 0)
                return r;
        i->libexec = str_dup(libexec);
        if (!i->libexec)
                return err_set(e, -ENOMEM, "out of memory");
        *ret = TAKE(i);
        return 0;
}

struct instance *instance_close(struct instance *i)
{
        size_t n;
        const struct conf_option *options = instance_options(&n);

        if (!i)
                return NULL;
        conf_done(options, n, &i->conf);
        instance_labelled_done(i);
        free(i->data_dir);
        free(i->libexec);
        (void) fd_close(i->data_fd);
        (void) fd_close(i->run_fd);
        (void) fd_close(i->lock_fd);
        free(i);
        return NULL;
}

static uint64_t free_bytes(const struct instance *i)
{
        struct statvfs fs;

        return fstatvfs(i->data_fd, &fs) < 0 ? 0 : fs.f_bavail * fs.f_frsize;
}

void instance_give_room(const struct instance *i)
{
        if (free_bytes(i) < ROOM_BYTES)
                (void) unlinkat(i->data_fd, ROOM_FILE, 0);
}

void instance_hold_room(const struct instance *i)
{
        AUTO(fd) int fd = -EBADF;
        struct stat st;

        if (fstatat(i->data_fd, ROOM_FILE, &st, AT_SYMLINK_NOFOLLOW) == 0 ||
            free_bytes(i) < 64 * ROOM_BYTES)
                return;
        fd = openat(i->data_fd, ROOM_FILE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd >= 0 && fallocate(fd, 0, 0, ROOM_BYTES) < 0)
                (void) unlinkat(i->data_fd, ROOM_FILE, 0);
}

int instance_remove_run(const struct instance *i)
{
        AUTO(fd) int root = open(RUN_ROOT, O_PATH | O_DIRECTORY | O_CLOEXEC);

        if (root < 0)
                return errno == ENOENT ? 0 : -errno;
        return fd_rm_rf(root, i->id);
}

int instance_dir(const struct instance *i, const char *name, struct err *e)
{
        int fd = fd_mkdir_beneath(i->data_fd, name, 0700);

        return fd < 0 ? err_errno(e, fd, "make %s/%s", i->data_dir, name) : fd;
}
