/* bind.c - see bind.h.  Operation process.
 *
 * Theory of operation.  Whether a spec is the operator's or our own, it comes here as edits, and one way
 * leads from those to descriptors.  Three things hold whatever a spec says:
 *   - a node of a GPU, of a MIG instance or of the fabric that was not leased is never passed on: a
 *     spec may be older than the driver's present numbering;
 *   - host files are regular files and directories alone (no sockets of the host's daemons), and are
 *     mounted read-only, without set-id bits and devices;
 *   - nothing is run. */
#include "engine/gpu/bind.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/gpu/bind_priv.h"
#include "engine/gpu/cdi.h"
#include "engine/gpu/cdi_make.h"
#include "engine/gpu/soname.h"

#define MOUNTS_MAX   240U /* beside volume and /proc/driver: SANDBOX_BINDS_MAX */
#define NODES_MAX    512U
#define LIB_PREFIX   "@lib/"
#define LIB32_PREFIX "@lib32/"

void gpu_binding_init(struct gpu_binding *b)
{
        *b = (struct gpu_binding){ .proc_mnt = -EBADF };
}

void gpu_binding_done(struct gpu_binding *b)
{
        for (size_t i = 0; i < b->n_devices; i++) {
                free(b->devices[i].name);
                (void) fd_close(b->devices[i].fd);
        }
        for (size_t i = 0; i < b->n_mounts; i++) {
                free(b->mounts[i].target);
                (void) fd_close(b->mounts[i].mnt);
        }
        for (size_t i = 0; i < b->n_symlinks; i++) {
                free(b->symlinks[i].target);
                free(b->symlinks[i].link);
        }
        for (size_t i = 0; i < b->n_libraries; i++) {
                free(b->libraries[i].name);
                free(b->libraries[i].path);
        }
        free(b->devices);
        free(b->mounts);
        free(b->symlinks);
        free(b->libraries);
        (void) strv_free(b->env);
        (void) fd_close(b->proc_mnt);
        gpu_binding_init(b);
}

static int no_memory(struct err *e)
{
        return err_set(e, -ENOMEM, "out of memory");
}

const char *bind_spec_name(const struct binder *x)
{
        return x->spec ? x->spec : "the installed driver";
}

/* ---- nodes ------------------------------------------------------------------------------------ */

/* The number behind @prefix, when that is all; else -1. */
static int64_t number_behind(const char *s, const char *prefix)
{
        const char *rest = str_after(s, prefix);
        uint64_t v;

        return rest && str_u64(rest, 0, UINT32_MAX, &v) >= 0 ? (int64_t) v : -1;
}

/* Whether a leased GPU's PCI device has this display node. */
static bool dri_is_ours(const struct binder *x, const char *name)
{
        for (size_t i = 0; i < x->n; i++) {
                char pci[16], path[160];
                AUTO(fd) int fd = -EBADF;

                gpu_pci_short(x->gpus[i].pci, pci);
                (void) snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/drm/%.64s", pci, name);
                fd = fd_open_in_root(x->d->root_fd, path, O_PATH, 0);
                if (fd >= 0)
                        return true;
        }
        return false;
}

static bool cap_is_ours(const struct binder *x, int64_t minor)
{
        for (size_t i = 0; i < x->n; i++) {
                struct cdi_edits own = { .n_nodes = 0 };
                bool found = false;

                if (!x->gpus[i].mig_profile)
                        continue;
                if (cdi_make_gpu(x->d, &x->gpus[i], 0, &own, NULL) >= 0)
                        for (size_t k = 0; k < own.n_nodes; k++)
                                found |= number_behind(own.nodes[k].path,
                                                       "/dev/nvidia-caps/nvidia-cap") == minor;
                cdi_edits_done(&own);
                if (found)
                        return true;
        }
        return false;
}

static int not_ours(const struct binder *x, int64_t minor)
{
        return err_set(x->e, -ESTALE,
                       "%s gives /dev/nvidia%lld for %s, whose node is /dev/nvidia%u" BIND_STALE,
                       bind_spec_name(x), (long long) minor, x->gpus[0].uuid, x->gpus[0].minor);
}

/* The GPUs' major number; 0: the first has no node, which check_nodes() will say. */
static unsigned gpu_major(const struct gpu_driver *d, const struct gpu *g)
{
        AUTO(fd) int fd = -EBADF;
        char path[32];
        struct stat st;

        (void) snprintf(path, sizeof path, "/dev/nvidia%u", g->minor);
        fd = fd_open_in_root(d->root_fd, path, O_PATH, 0);
        return fd < 0 || fstat(fd, &st) < 0 ? 0 : major(st.st_rdev);
}

/* Whatever the file is called: a GPU's number on the GPUs' major is one that was leased.  What lies
 * above is the driver's control nodes. */
static int judge_number(const struct binder *x, dev_t rdev)
{
        if (major(rdev) != x->major || minor(rdev) >= GPU_MAX)
                return 0;
        for (size_t i = 0; i < x->n; i++)
                if (x->gpus[i].minor == minor(rdev))
                        return 0;
        return not_ours(x, minor(rdev));
}

/* From its last "/dev/" on: a driver in a container has its nodes below a directory of its own, and
 * a path may be written in more than one way. */
static const char *node_of(const char *host)
{
        const char *at = host, *next;

        while ((next = strstr(at + 1, "/dev/")))
                at = next;
        return at;
}

/* 1: pass it on; 0: leave it out. */
static int judge_node(const struct binder *x, const char *path)
{
        const char *host = node_of(path);
        int64_t minor = number_behind(host, "/dev/nvidia"), cap;
        const char *dri = str_after(host, "/dev/dri/");

        if (minor >= 0) {
                for (size_t i = 0; i < x->n; i++)
                        if (x->gpus[i].minor == minor)
                                return 1;
                return not_ours(x, minor);
        }
        cap = number_behind(host, "/dev/nvidia-caps/nvidia-cap");
        if (cap >= 0)
                return cap_is_ours(x, cap);
        if (dri)
                return dri_is_ours(x, dri);
        if (str_after(host, "/dev/nvidia-nvswitch") || str_after(host, "/dev/nvidia-caps"))
                return x->fabric;
        return 1;
}

static bool has_device(const struct gpu_binding *b, const char *name)
{
        for (size_t i = 0; i < b->n_devices; i++)
                if (str_eq(b->devices[i].name, name))
                        return true;
        return false;
}

static int add_device(const struct binder *x, const char *name, int fd, const char *permissions)
{
        struct gpu_binding *b = x->b;
        struct gpu_device *d = cdi_grow(b->devices, &b->n_devices, sizeof *d);
        size_t n = 0;

        if (!d) {
                (void) fd_close(fd);
                return no_memory(x->e);
        }
        b->devices = d;
        d += b->n_devices++;
        d->fd = fd;
        d->mode = 0666; /* whoever the cluster's users are, it is their GPU */
        d->name = strdup(name);
        for (const char *p = str_empty(permissions) ? "rw" : permissions; *p; p++)
                if (*p != 'm' && !strchr(d->access, *p)) /* nobody makes nodes inside */
                        d->access[n++] = *p;
        return d->name ? 0 : no_memory(x->e);
}

static int bind_node(const struct binder *x, const struct cdi_node *n)
{
        const char *host = str_empty(n->host_path) ? n->path : n->host_path;
        const char *name = str_after(n->path, "/dev/"), *slash;
        AUTO(fd) int fd = -EBADF;
        struct stat st;
        int r;

        if (!name || has_device(x->b, name))
                return 0;
        r = judge_node(x, host);
        if (r == 0)
                log_debug("%s: %s is left out: it was not leased", bind_spec_name(x), host);
        if (r <= 0)
                return r;
        slash = strchr(name, '/');
        if (x->b->n_devices == NODES_MAX || (slash && strchr(slash + 1, '/')) || strlen(name) > 60)
                return err_set(x->e, -E2BIG, "%s: %s: too many or too deep", bind_spec_name(x),
                               n->path);
        fd = fd_open_in_root(x->d->root_fd, host, O_PATH, 0);
        if (fd < 0)
                return err_errno(x->e, fd, "%s: %s%s", bind_spec_name(x), host,
                                 x->spec ? BIND_STALE : "");
        if (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode))
                return err_set(x->e, -EINVAL, "%s: %s is no character device", bind_spec_name(x),
                               host);
        r = judge_number(x, st.st_rdev);
        if (r < 0)
                return r;
        return add_device(x, name, fd_take(&fd), n->permissions);
}

/* ---- mounts, links, libraries ----------------------------------------------------------------- */

static bool is_taken(const struct gpu_binding *b, const char *path)
{
        for (size_t i = 0; i < b->n_mounts; i++)
                if (str_eq(b->mounts[i].target, path))
                        return true;
        for (size_t i = 0; i < b->n_symlinks; i++)
                if (str_eq(b->symlinks[i].link, path))
                        return true;
        return false;
}

static int bind_link(const struct binder *x, const char *target, const char *path)
{
        struct gpu_symlink *l;

        if (is_taken(x->b, path))
                return 0;
        l = cdi_grow(x->b->symlinks, &x->b->n_symlinks, sizeof *l);
        if (!l)
                return no_memory(x->e);
        x->b->symlinks = l;
        l += x->b->n_symlinks++;
        l->target = strdup(target);
        l->link = strdup(path);
        return l->target && l->link ? 0 : no_memory(x->e);
}

/* Directories whose libraries the loader finds by name. */
static bool in_loader_dir(const struct binder *x, const char *path)
{
        static const char *const dirs[] = { "@lib",       "@lib32",
                                            "/usr/lib64", "/usr/lib",
                                            "/lib64",     "/usr/lib/x86_64-linux-gnu",
                                            "/usr/lib32", "/usr/lib/aarch64-linux-gnu" };
        const char *slash = strrchr(path, '/');
        size_t n = (size_t) (slash - path);

        for (size_t i = 0; i < NELEM(dirs); i++)
                if (strlen(dirs[i]) == n && memcmp(dirs[i], path, n) == 0)
                        return true;
        for (const char *f = x->folders.s; f && *f; f = strchr(f, '\n') + 1)
                if (strcspn(f, "\n") == n && memcmp(f, path, n) == 0)
                        return true;
        return false;
}

static bool is_library_name(const char *name)
{
        return str_after(name, "lib") && strstr(name, ".so");
}

static int add_library(const struct binder *x, const char *name, const char *path, bool is_32)
{
        struct gpu_library *l;

        if (!in_loader_dir(x, path))
                return 0;
        for (size_t i = 0; i < x->b->n_libraries; i++)
                if (str_eq(x->b->libraries[i].name, name) && x->b->libraries[i].is_32 == is_32)
                        return 0;
        l = cdi_grow(x->b->libraries, &x->b->n_libraries, sizeof *l);
        if (!l)
                return no_memory(x->e);
        x->b->libraries = l;
        l += x->b->n_libraries++;
        l->name = strdup(name);
        l->path = strdup(path);
        l->is_32 = is_32;
        return l->name && l->path ? 0 : no_memory(x->e);
}

/* What the library says of itself; 0 also where it is none. */
int bind_look_at(const struct gpu_driver *d, struct cdi_mount *m)
{
        AUTO(fd) int fd = -EBADF;
        struct elf_library lib;

        m->looked = true;
        if (!is_library_name(strrchr(m->container_path, '/') + 1))
                return 0;
        fd = fd_open_in_root(d->root_fd, m->host_path, O_RDONLY | O_NONBLOCK, 0);
        if (fd < 0 || elf_library(fd, &lib) < 0 || !*lib.soname)
                return 0;
        m->is_32 = lib.is_32;
        m->soname = strdup(lib.soname);
        return m->soname ? 0 : -ENOMEM;
}

/* A library's own name is what programs ask for: a link of that name beside it, and a line in the
 * loader's cache. */
static int name_library(const struct binder *x, const struct cdi_mount *m)
{
        struct cdi_mount found = { .looked = m->looked, .soname = m->soname, .is_32 = m->is_32 };
        const char *target = m->container_path, *base = strrchr(target, '/') + 1;
        AUTO(free) char *path = NULL, *mine = NULL;
        int r = 0;

        if (!found.looked) {
                found = *m;
                r = bind_look_at(x->d, &found);
                mine = found.soname;
        }
        if (r < 0 || !found.soname)
                return r < 0 ? no_memory(x->e) : 0;
        path = str_fmt("%.*s%s", (int) (base - target), target, found.soname);
        if (!path)
                return no_memory(x->e);
        if (!str_eq(found.soname, base))
                r = bind_link(x, base, path);
        return r < 0 ? r : add_library(x, found.soname, path, found.is_32);
}

int bind_open(const struct gpu_driver *d, const struct cdi_mount *m, int *ret_fd)
{
        AUTO(fd) int fd = fd_open_in_root(d->root_fd, m->host_path, O_PATH, 0);
        struct stat st;
        int kind;

        if (fd < 0 || fstat(fd, &st) < 0)
                return fd < 0 ? fd : -errno;
        kind = S_ISREG(st.st_mode) ? 1 : S_ISDIR(st.st_mode) ? 2 : 0;
        if (kind)
                *ret_fd = fd_take(&fd);
        return kind;
}

static int bind_mount(const struct binder *x, const struct cdi_mount *m)
{
        struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
                                               MOUNT_ATTR_NODEV };
        AUTO(fd) int fd = -EBADF, mnt = -EBADF;
        struct gpu_binding *b = x->b;
        struct gpu_mount *to;
        int kind = 1;

        if ((m->type && *m->type && !str_eq(m->type, "bind")) || is_taken(b, m->container_path))
                return 0;
        if (m->held <= 0)
                kind = bind_open(x->d, m, &fd);
        if (kind < 0)
                return err_errno(x->e, kind, "%s: %s%s", bind_spec_name(x), m->host_path,
                                 x->spec ? BIND_STALE : "");
        if (kind == 0) {
                log_debug("%s: %s is left out: neither file nor directory", bind_spec_name(x),
                          m->host_path);
                return 0;
        }
        if (b->n_mounts == MOUNTS_MAX)
                return err_set(x->e, -E2BIG, "%s: more than %u files", bind_spec_name(x),
                               MOUNTS_MAX);
        mnt = open_tree(m->held > 0 ? m->held : fd, "",
                        OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
        if (mnt < 0 || mount_setattr(mnt, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0)
                return err_errno(x->e, -errno, "clone %s", m->host_path);
        to = cdi_grow(b->mounts, &b->n_mounts, sizeof *to);
        if (!to)
                return no_memory(x->e);
        b->mounts = to;
        to += b->n_mounts++;
        to->mnt = fd_take(&mnt);
        to->target = strdup(m->container_path);
        if (!to->target)
                return no_memory(x->e);
        return kind == 1 ? name_library(x, m) : 0;
}

/* "target::link", as nvidia-cdi-hook takes it. */
static int on_link(void *arg, const char *value)
{
        const struct binder *x = arg;
        const char *sep = strstr(value, "::");
        AUTO(free) char *target = sep ? strndup(value, (size_t) (sep - value)) : NULL;

        if (!sep || sep == value || sep[2] != '/' || strlen(sep + 2) >= 1024)
                return err_set(x->e, -EINVAL, "%s: '--link %.200s' is not TARGET::LINK",
                               bind_spec_name(x), value);
        return target ? bind_link(x, target, sep + 2) : no_memory(x->e);
}

static int on_folder(void *arg, const char *value)
{
        struct binder *x = arg;

        strbuf_fmt(&x->folders, "%s\n", value);
        return x->folders.failed ? no_memory(x->e) : 0;
}

static int bind_hooks(struct binder *x, const struct cdi_edits *c, enum cdi_deed want)
{
        int r = 0;

        for (size_t i = 0; i < c->n_hooks && r >= 0; i++) {
                const struct cdi_hook *h = &c->hooks[i];
                enum cdi_deed deed = cdi_hook_deed(h);

                if (deed == CDI_DEED_NONE && want == CDI_DEED_NONE)
                        log_info("%s: hook %s %s is not run", bind_spec_name(x), h->path,
                                 strv_len(h->args) > 1 ? h->args[1] : "");
                else if (deed == want && want == CDI_DEED_SYMLINKS)
                        r = cdi_hook_values(h, "--link", on_link, x);
                else if (deed == want && want == CDI_DEED_LDCACHE)
                        r = cdi_hook_values(h, "--folder", on_folder, x);
        }
        return r;
}

/* What links lead to, when that is what a program may ask the loader for: libcuda.so. */
static int name_links(const struct binder *x)
{
        int r = 0;

        for (size_t i = 0; i < x->b->n_symlinks && r >= 0; i++) {
                const char *link = x->b->symlinks[i].link, *base = strrchr(link, '/') + 1;

                if (is_library_name(base))
                        r = add_library(x, base, link, str_after(link, LIB32_PREFIX));
        }
        return r;
}

static int add_env(const struct binder *x, char *const *env)
{
        for (; env && *env; env++) {
                const char *eq = strchr(*env, '=');
                AUTO(free) char *key = eq ? strndup(*env, (size_t) (eq - *env)) : NULL;

                if (!key || strv_env_set(&x->b->env, key, eq + 1) < 0)
                        return no_memory(x->e);
        }
        return 0;
}

int bind_edits(struct binder *x, const struct cdi_edits *c)
{
        int r = bind_hooks(x, c, CDI_DEED_LDCACHE);

        for (size_t i = 0; i < c->n_nodes && r >= 0; i++)
                r = bind_node(x, &c->nodes[i]);
        for (size_t i = 0; i < c->n_mounts && r >= 0; i++)
                r = bind_mount(x, &c->mounts[i]);
        for (size_t i = 0; i < c->n_links && r >= 0; i++)
                r = bind_link(x, c->links[i].target, c->links[i].path);
        if (r >= 0)
                r = bind_hooks(x, c, CDI_DEED_SYMLINKS);
        if (r >= 0)
                r = bind_hooks(x, c, CDI_DEED_NONE);
        return r < 0 ? r : add_env(x, c->env);
}

/* ---- all of it ---------------------------------------------------------------------------------- */

/* Whatever a spec said, each leased GPU has its node. */
static int check_nodes(const struct binder *x)
{
        for (size_t i = 0; i < x->n; i++) {
                char name[24];

                (void) snprintf(name, sizeof name, "nvidia%u", x->gpus[i].minor);
                if (!has_device(x->b, name))
                        return err_set(x->e, -ENODEV, "%s gives no /dev/%s for %s" BIND_STALE,
                                       bind_spec_name(x), name, x->gpus[i].uuid);
        }
        return 0;
}

int gpu_bind(const struct gpu_driver *d, const struct gpu *gpus, size_t n, const char *caps,
             bool all_of_fabric, struct gpu_binding *ret, struct err *e)
{
        struct gpu_binding b;
        struct binder x = { .d = d, .gpus = gpus, .n = n, .b = &b, .e = e };
        struct cdi_set set = { .n = 0 };
        unsigned words = 0;
        int r;

        gpu_binding_init(&b);
        if (n == 0 || d->root_fd < 0)
                return err_set(e, -ENODEV, "no GPU to bind");
        x.fabric = all_of_fabric && bind_has_all(d, gpus, n);
        x.major = gpu_major(d, gpus);
        r = gpu_caps_parse(caps, &words, e);
        if (r >= 0)
                r = cdi_load(d->root_fd, &set, e);
        if (r >= 0)
                r = set.n ? bind_set(&x, &set) : bind_own(&x, words);
        if (r >= 0)
                r = check_nodes(&x);
        if (r >= 0)
                r = name_links(&x);
        if (r >= 0 && strv_env_set(&b.env, "NVIDIA_VISIBLE_DEVICES", "void") < 0)
                r = no_memory(e);
        cdi_set_done(&set);
        strbuf_done(&x.folders);
        if (r < 0)
                gpu_binding_done(&b);
        else
                *ret = b;
        return r < 0 ? r : 0;
}

int gpu_bind_proc(const struct gpu_driver *d, const struct gpu *gpus, size_t n,
                  struct gpu_binding *b, struct err *e)
{
        int mnt = bind_proc(d, gpus, n, e);

        if (mnt < 0)
                return mnt;
        (void) fd_close(b->proc_mnt);
        b->proc_mnt = mnt;
        return 0;
}

int gpu_binding_rules(const struct gpu_binding *b, struct slice_device **ret, size_t *ret_n,
                      struct err *e)
{
        AUTO(free) struct slice_device *rules = calloc(b->n_devices + 1, sizeof *rules);

        if (!rules)
                return no_memory(e);
        for (size_t i = 0; i < b->n_devices; i++) {
                struct stat st;

                if (fstat(b->devices[i].fd, &st) < 0)
                        return err_errno(e, -errno, "device %s", b->devices[i].name);
                rules[i] = (struct slice_device){ .type = 'c',
                                                  .major = (int32_t) major(st.st_rdev),
                                                  .minor = (int32_t) minor(st.st_rdev),
                                                  .access = b->devices[i].access };
        }
        *ret_n = b->n_devices;
        *ret = TAKE(rules);
        return 0;
}
