/* flow_sandbox.c - start one sandbox as a JSON order on stdin says, run further programs in it, and
 * print what became of them as JSON.  Driven by tests/flow/test_sandbox.py; root.
 *
 * Order: { "tree": DIR, "objects": DIR or null, "libexec": DIR, "upper": DIR or null (fresh),
 *          "id_base": N, "slice": NAME or null,
 *          "cgroup": 0/1/2, "way": enum overlay_way, "pooled": bool, "upgrade": bool,
 *          "run": PROGRAM, "exec": [PROGRAM...] }
 * PROGRAM: { "argv": [], "env": [], "user", "cwd", "tty", "profile", "nofile" } and, for run,
 *          "hostname", "files": {target: content}, "binds": {target: host directory or file},
 *          "devices": {name: host node}.
 * Answer: { "run": {"r", "err", "output", "init", "monitor", "grouped"}, "exec": [ ... ] } */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/idmap.h"
#include "engine/sandbox/sandbox_priv.h"

#define MAX 128
#define DIE(...)                                                                                   \
        do {                                                                                       \
                (void) fprintf(stderr, __VA_ARGS__);                                               \
                (void) fputc('\n', stderr);                                                        \
                exit(2);                                                                           \
        } while (0)

static const char *text(const json_t *o, const char *key)
{
        return json_string_value(json_object_get(o, key));
}

static char **strings(const json_t *a)
{
        char **v = calloc(json_array_size(a) + 1, sizeof *v);
        size_t i;
        json_t *s;

        json_array_foreach(a, i, s) v[i] = str_dup(json_string_value(s));
        return v;
}

static int idmapped(const char *path, int userns)
{
        struct err e;
        int fd = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

        if (fd < 0)
                DIE("open_tree %s: %s", path, strerror(errno));
        if (idmap_mount(fd, userns, 0, &e) < 0)
                DIE("%s: %s", path, e.msg);
        return fd;
}

/* Beside the tree, which its test removes. */
static int fresh_dir(const char *tree, int userns)
{
        char *path = str_fmt("%s.upper-XXXXXX", tree);

        if (!path || !mkdtemp(path))
                DIE("%s: %s", tree, strerror(errno));
        return idmapped(path, userns);
}

static int fresh_upper(const char *tree, int userns)
{
        struct err e;
        int r;
        int fs = fsopen("tmpfs", FSOPEN_CLOEXEC), fd;

        if (fs < 0 || fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
                DIE("tmpfs: %s", strerror(errno));
        fd = fsmount(fs, FSMOUNT_CLOEXEC, 0);
        if (fd < 0)
                DIE("tmpfs: %s", strerror(errno));
        r = idmap_mount(fd, userns, 0, &e);
        if (r == -EINVAL) /* before Linux 6.3 a tmpfs has no id maps */
                return fresh_dir(tree, userns);
        if (r < 0)
                DIE("tmpfs: %s", e.msg);
        return fd;
}

static void program(struct sandbox_spec *s, const json_t *p)
{
        struct err e;

        s->argv = strings(json_object_get(p, "argv"));
        s->env = strings(json_object_get(p, "env"));
        s->user = text(p, "user");
        s->cwd = text(p, "cwd");
        s->tty = json_is_true(json_object_get(p, "tty"));
        if (security_profile_parse("profile", text(p, "profile"), &s->profile, &e) < 0)
                DIE("%s", e.msg);
        s->memory_bytes = 64 << 20;
        s->nofile = (uint64_t) json_integer_value(json_object_get(p, "nofile"));
        s->status_fd = memfd_create("status", MFD_CLOEXEC);
        s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (bind(s->listen_fd, &(struct sockaddr){ .sa_family = AF_UNIX }, sizeof(sa_family_t)) <
                    0 ||
            listen(s->listen_fd, 8) < 0)
                DIE("listen: %s", strerror(errno));
}

/* As the gpu stage opens a driver's file. */
static int host_file(const char *path)
{
        struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
                                               MOUNT_ATTR_NODEV };
        int fd = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

        if (fd < 0 || mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0)
                DIE("%s: %s", path, strerror(errno));
        return fd;
}

static void first_only(struct sandbox_spec *s, const json_t *p, int userns)
{
        static struct sandbox_file files[MAX];
        static struct sandbox_bind binds[MAX];
        static struct sandbox_device devices[MAX];
        static struct sandbox_symlink symlinks[MAX];
        static struct sandbox_library libraries[MAX];
        const char *key;
        json_t *v;

        json_object_foreach(json_object_get(p, "files"), key, v) files[s->n_files++] =
                (struct sandbox_file){ key, json_string_value(v), 0644, false };
        json_object_foreach(json_object_get(p, "binds"), key, v) binds[s->n_binds++] =
                (struct sandbox_bind){ idmapped(json_string_value(v), userns), key, false };
        json_object_foreach(json_object_get(p, "host"), key, v) binds[s->n_binds++] =
                (struct sandbox_bind){ host_file(json_string_value(v)), key, true };
        json_object_foreach(json_object_get(p, "symlinks"), key, v) symlinks[s->n_symlinks++] =
                (struct sandbox_symlink){ json_string_value(v), key };
        json_object_foreach(json_object_get(p, "libraries"), key, v) libraries[s->n_libraries++] =
                (struct sandbox_library){ json_string_value(v), key,
                                          str_after(key, SANDBOX_LIB32) };
        json_object_foreach(json_object_get(p, "devices"), key, v) devices[s->n_devices++] =
                (struct sandbox_device){ key, open(json_string_value(v), O_PATH | O_CLOEXEC), 0 };
        s->symlinks = symlinks;
        s->libraries = libraries;
        s->files = files;
        s->binds = binds;
        s->devices = devices;
        s->hostname = text(p, "hostname") ? text(p, "hostname") : "box";
        s->shm_bytes = 8 << 20;
}

/* Wait for the monitor, at most @ms; then everything is killed. */
static json_t *collect(struct sandbox_proc *p, int status, int ms)
{
        struct pollfd w = { .fd = p->monitor_pidfd, .events = POLLIN };
        char buf[65536];
        ssize_t n;

        if (poll(&w, 1, ms) <= 0) {
                (void) syscall(SYS_pidfd_send_signal, p->init_pidfd, SIGKILL, NULL, 0);
                if (poll(&w, 1, 2000) <= 0)
                        (void) syscall(SYS_pidfd_send_signal, p->monitor_pidfd, SIGKILL, NULL, 0);
        }
        (void) waitid(P_PIDFD, (id_t) p->monitor_pidfd, &(siginfo_t){ 0 }, WEXITED);
        n = pread(status, buf, sizeof buf - 1, 0);
        return json_stringn_nocheck(buf, n > 0 ? (size_t) n : 0);
}

static json_t *answer(int r, const struct err *e, const struct sandbox_proc *p)
{
        return json_pack("{s:i, s:s, s:i, s:i}", "r", r, "err", r < 0 ? e->msg : "", "init",
                         r < 0 ? 0 : (int) p->init, "monitor", r < 0 ? 0 : (int) p->monitor);
}

struct groups {
        struct slice_host *host;
        struct slice_enter box, mon;
};

static void make_groups(const json_t *o, struct groups *g, struct sandbox_place *p)
{
        int version = (int) json_integer_value(json_object_get(o, "cgroup"));
        /* a unified hierarchy forced on a hybrid host has no controllers to limit with */
        struct slice_limits l = { .memory_bytes = version == 2 ? 0 : 256 << 20,
                                  .pids = version == 2 ? 0 : 64 };
        struct err e;

        if (slice_host_open(text(o, "slice"), version, &g->host, &e) < 0 ||
            slice_create(g->host, "box", &l, &e) < 0 || slice_create(g->host, "mon", &l, &e) < 0 ||
            slice_enter_open(g->host, "box", &g->box, &e) < 0 ||
            slice_enter_open(g->host, "mon", &g->mon, &e) < 0)
                DIE("%s", e.msg);
        p->slice = &g->box;
        p->monitor_slice = &g->mon;
}

static bool only_in(const struct groups *g, const char *name, pid_t pid)
{
        pid_t pids[8];

        return slice_pids(g->host, name, pids, 8, NULL) == 1 && pids[0] == pid;
}

static bool in_groups(const struct groups *g, const struct sandbox_proc *p)
{
        return only_in(g, "box", p->init) && only_in(g, "mon", p->monitor);
}

static void remove_groups(struct groups *g)
{
        static const char *const names[] = { "mon", "box" };
        struct err e;

        for (size_t i = 0; i < 2; i++)
                if (slice_kill(g->host, names[i], UINT64_MAX, &e) < 0 ||
                    slice_remove(g->host, names[i], &e) < 0)
                        DIE("%s", e.msg);
        if (slice_host_remove(g->host, &e) < 0)
                DIE("%s", e.msg);
}

/* Something else under that name, as a package manager does it. */
static void replace(const char *dir, const char *name)
{
        AUTO(free) char *path = str_fmt("%s/%s", dir, name);
        AUTO(fd) int fd = -EBADF;

        if (unlink(path) < 0)
                DIE("%s: %s", path, strerror(errno));
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
        if (fd < 0 || write(fd, "newer", 5) != 5)
                DIE("%s: %s", path, strerror(errno));
}

int main(void)
{
        json_error_t je;
        json_t *o = json_loadf(stdin, 0, &je), *out = json_object(), *list = json_array(), *x, *a;
        struct sandbox_spec s = { .cluster = "testbox" };
        struct sandbox_place place = { .netns = -EBADF, .sysfs_mnt = -EBADF };
        struct slice_enter none = { .v2_dir = -EBADF };
        struct groups g = { .host = NULL };
        struct sandbox_shell shell;
        struct sandbox_proc p = { .monitor_pidfd = -EBADF, .init_pidfd = -EBADF };
        struct err e = { 0 };
        bool pooled; /* the shell is made before anything else is known */
        int userns, upper, lower, data, r;
        size_t i;

        if (!o)
                DIE("order: %s", je.text);
        pooled = json_is_true(json_object_get(o, "pooled"));
        place.id_base = (uint32_t) json_integer_value(json_object_get(o, "id_base"));
        place.monitor_uid = place.id_base - 1;
        place.libexec = text(o, "libexec");
        s.log_fd[0] = memfd_create("log.0", MFD_CLOEXEC);
        s.log_fd[1] = memfd_create("log.1", MFD_CLOEXEC);
        place.slice = place.monitor_slice = &none;
        userns = idmap_userns(place.id_base, &e);
        if (userns < 0)
                DIE("%s", e.msg);
        if (text(o, "slice"))
                make_groups(o, &g, &place);
        if (json_is_true(json_object_get(o, "upgrade"))) { /* held, and then replaced */
                if (sandbox_hold_programs(place.libexec, &e) < 0)
                        DIE("%s", e.msg);
                replace(place.libexec, "vmm-launch");
                replace(place.libexec, "vmm-monitor");
        }
        sandbox_shell_init(&shell);
        if (pooled && sandbox_shell_make(&place, &shell, &e) < 0)
                DIE("%s", e.msg);
        lower = idmapped(text(o, "tree"), userns);
        upper = text(o, "upper") ? idmapped(text(o, "upper"), userns)
                                 : fresh_upper(text(o, "tree"), userns);
        data = text(o, "objects") ? open_tree(AT_FDCWD, text(o, "objects"), OPEN_TREE_CLONE) : -1;
        s.root_mnt =
                overlay_make(lower, data, upper,
                             (enum overlay_way) json_integer_value(json_object_get(o, "way")), &e);
        if (s.root_mnt < 0)
                DIE("overlay: %s", e.msg);
        if (json_is_true(json_object_get(o, "keep_fds"))) /* must not be seen inside */
                for (int n = 0; n < 40; n++)
                        (void) open("/", O_RDONLY | O_DIRECTORY);
        program(&s, json_object_get(o, "run"));
        first_only(&s, json_object_get(o, "run"), userns);
        r = pooled ? 0 : sandbox_shell_make(&place, &shell, &e);
        if (r >= 0)
                r = sandbox_start(&s, place.id_base, &shell, &p, &e);
        a = answer(r, &e, &p);
        if (g.host && r >= 0)
                (void) json_object_set_new(a, "grouped", json_boolean(in_groups(&g, &p)));
        (void) json_object_set_new(out, "run", a);
        (void) json_object_set_new(out, "exec", list);
        json_array_foreach(json_object_get(o, "exec"), i, x)
        {
                struct sandbox_spec t = s;
                struct sandbox_proc q = { .monitor_pidfd = -EBADF, .init_pidfd = -EBADF };
                int rx;

                if (r < 0)
                        break;
                program(&t, x);
                rx = sandbox_exec(&t, &place, p.init_pidfd, &q, &e);
                a = answer(rx, &e, &q);
                if (rx >= 0)
                        (void) json_object_set_new(a, "output", collect(&q, t.status_fd, 10000));
                (void) json_array_append_new(list, a);
                sandbox_proc_done(&q);
        }
        if (r >= 0) {
                if (json_array_size(list) > 0) /* it only waits for us */
                        (void) syscall(SYS_pidfd_send_signal, p.init_pidfd, SIGKILL, NULL, 0);
                (void) json_object_set_new(json_object_get(out, "run"), "output",
                                           collect(&p, s.status_fd, 10000));
                sandbox_proc_done(&p);
        }
        if (g.host)
                remove_groups(&g);
        (void) json_dumpf(out, stdout, JSON_COMPACT);
        (void) fflush(stdout);
        _exit(0); /* nothing here is freed, and a search for leaks need not tell us */
}
