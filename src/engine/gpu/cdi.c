/* cdi.c - see cdi.h: the table of what a spec is made of, where specs lie, what their hooks mean.
 * Operation process, and `cdi` on the command line.
 *
 * Keys that the table does not know are passed over: a newer specification may have more. */
#include "engine/gpu/cdi.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "engine/gpu/cdi_priv.h"
#include "engine/gpu/cdi_tree.h"

#define F(S, key, m, k)                                                                            \
        {                                                                                          \
                key, k, false, offsetof(struct S, m), 0, 0, NULL, 0                                \
        }
#define NEEDED(S, key, m, k)                                                                       \
        {                                                                                          \
                key, k, true, offsetof(struct S, m), 0, 0, NULL, 0                                 \
        }
#define SUB(S, key, m, rows)                                                                       \
        {                                                                                          \
                key, K_SUB, false, offsetof(struct S, m), 0, 0, rows, NELEM(rows)                  \
        }
#define LIST(S, key, m, rows)                                                                      \
        {                                                                                          \
                key, K_LIST, false, offsetof(struct S, m), offsetof(struct S, n_##m),              \
                        sizeof *((struct S *) 0)->m, rows, NELEM(rows)                             \
        }

static const struct cdi_field node_rows[] = {
        NEEDED(cdi_node, "path", path, K_STR),
        F(cdi_node, "hostPath", host_path, K_STR),
        F(cdi_node, "type", type, K_STR),
        F(cdi_node, "major", major, K_U32),
        F(cdi_node, "minor", minor, K_U32),
        F(cdi_node, "fileMode", file_mode, K_MODE),
        F(cdi_node, "permissions", permissions, K_STR),
        F(cdi_node, "uid", uid, K_U32),
        F(cdi_node, "gid", gid, K_U32),
};
static const struct cdi_field mount_rows[] = {
        NEEDED(cdi_mount, "hostPath", host_path, K_STR),
        NEEDED(cdi_mount, "containerPath", container_path, K_STR),
        F(cdi_mount, "type", type, K_STR),
        F(cdi_mount, "options", options, K_STRV),
};
static const struct cdi_field hook_rows[] = {
        NEEDED(cdi_hook, "hookName", name, K_STR), NEEDED(cdi_hook, "path", path, K_STR),
        F(cdi_hook, "args", args, K_STRV),         F(cdi_hook, "env", env, K_STRV),
        F(cdi_hook, "timeout", timeout, K_U32),
};
static const struct cdi_field net_rows[] = {
        NEEDED(cdi_net, "hostInterfaceName", host_name, K_STR),
        NEEDED(cdi_net, "name", name, K_STR),
};
static const struct cdi_field rdt_rows[] = { F(cdi_rdt, "closID", clos_id, K_STR) };
static const struct cdi_field link_rows[] = {
        F(cdi_link, "target", target, K_STR),
        F(cdi_link, "path", path, K_STR),
};
const struct cdi_field cdi_edit_rows[] = {
        F(cdi_edits, "env", env, K_STRV),
        LIST(cdi_edits, "deviceNodes", nodes, node_rows),
        LIST(cdi_edits, "netDevices", nets, net_rows),
        LIST(cdi_edits, "mounts", mounts, mount_rows),
        LIST(cdi_edits, "hooks", hooks, hook_rows),
        SUB(cdi_edits, "intelRdt", rdt, rdt_rows),
        F(cdi_edits, "additionalGids", gids, K_STRV),
};
static const struct cdi_field device_rows[] = {
        NEEDED(cdi_device, "name", name, K_STR),
        SUB(cdi_device, "containerEdits", edits, cdi_edit_rows),
};
const struct cdi_field cdi_spec_rows[] = {
        NEEDED(cdi_spec, "cdiVersion", version, K_STR),
        NEEDED(cdi_spec, "kind", kind, K_STR),
        SUB(cdi_spec, "containerEdits", edits, cdi_edit_rows),
        LIST(cdi_spec, "devices", devices, device_rows),
};
const size_t cdi_n_spec_rows = NELEM(cdi_spec_rows), cdi_n_edit_rows = NELEM(cdi_edit_rows);

void *cdi_at(const void *base, size_t off)
{
        return (char *) (uintptr_t) base + off;
}

void *cdi_grow(void *list, size_t *n, size_t size)
{
        void *more = reallocarray(list, *n + 1, size);

        if (more)
                memset((char *) more + *n * size, 0, size);
        return more;
}

/* ---- freeing --------------------------------------------------------------------------------- */

static void done(const struct cdi_field *f, size_t n, void *base);

static void done_list(const struct cdi_field *f, void *base)
{
        void **list = cdi_at(base, f->off);
        size_t *n = cdi_at(base, f->off_n);

        for (size_t i = 0; i < *n; i++)
                done(f->sub, f->n_sub, cdi_at(*list, i * f->size));
        free(*list);
        *list = NULL;
        *n = 0;
}

static void done(const struct cdi_field *f, size_t n, void *base)
{
        for (size_t i = 0; i < n; i++) {
                char **s = cdi_at(base, f[i].off);
                char ***v = cdi_at(base, f[i].off);

                if (f[i].kind == K_STR) {
                        free(*s);
                        *s = NULL;
                } else if (f[i].kind == K_STRV) {
                        *v = strv_free(*v);
                } else if (f[i].kind == K_SUB) {
                        done(f[i].sub, f[i].n_sub, s);
                } else if (f[i].kind == K_LIST) {
                        done_list(&f[i], base);
                }
        }
}

void cdi_edits_done(struct cdi_edits *x)
{
        static const struct cdi_field links = LIST(cdi_edits, "", links, link_rows);

        for (size_t i = 0; i < x->n_mounts; i++)
                free(x->mounts[i].soname);
        done(cdi_edit_rows, cdi_n_edit_rows, x);
        done(&links, 1, x);
}

void cdi_spec_done(struct cdi_spec *s)
{
        for (size_t i = 0; i < s->n_devices; i++)
                cdi_edits_done(&s->devices[i].edits);
        cdi_edits_done(&s->edits);
        done(cdi_spec_rows, cdi_n_spec_rows, s);
        free(s->file);
        free(s->lib_dir);
        free(s->lib32_dir);
        *s = (struct cdi_spec){ .version = NULL };
}

/* ---- directories ------------------------------------------------------------------------------ */

static bool is_spec_name(const char *name)
{
        static const char *const ends[] = { ".yaml", ".yml", ".json" };
        size_t n = strlen(name);

        for (size_t i = 0; i < NELEM(ends); i++)
                if (name[0] != '.' && n > strlen(ends[i]) &&
                    str_eq(name + n - strlen(ends[i]), ends[i]))
                        return true;
        return false;
}

static int compare_names(const void *a, const void *b)
{
        return strcmp(*(char *const *) a, *(char *const *) b);
}

static int list_specs(int dir, char ***ret)
{
        int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
        DIR *d = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *de;

        if (!d) {
                r = -errno;
                (void) fd_close(fd);
                return r;
        }
        while (r >= 0 && (de = readdir(d)) != NULL)
                if (is_spec_name(de->d_name))
                        r = strv_push(ret, de->d_name);
        (void) closedir(d);
        if (*ret)
                qsort(*ret, strv_len(*ret), sizeof **ret, compare_names);
        return r;
}

static int load_file(int dir, const char *where, const char *name, struct cdi_set *s, struct err *e)
{
        AUTO(free) char *path = str_fmt("/%s/%s", where, name);
        AUTO(free) char *text = NULL;
        struct cdi_spec spec = { .version = NULL };
        struct cdi_spec *more;
        size_t len = 0;
        int r = path ? fd_read_file(dir, name, TREE_MAX_BYTES, &text, &len) : -ENOMEM;

        if (r < 0)
                return err_errno(e, r, "%s", path ? path : name);
        r = cdi_parse(path, text, len, &spec, e);
        if (r != 0)
                return r < 0 ? r : 0; /* another vendor's */
        more = cdi_grow(s->specs, &s->n, sizeof *s->specs);
        if (!more) {
                cdi_spec_done(&spec);
                return err_set(e, -ENOMEM, "out of memory");
        }
        s->specs = more;
        s->specs[s->n++] = spec;
        return 0;
}

static int load_dir(int root, const char *where, struct cdi_set *s, struct err *e)
{
        AUTO(fd) int dir = fd_open_in_root(root, where, O_PATH | O_DIRECTORY, 0);
        AUTO(strv_free) char **names = NULL;
        int r;

        if (dir == -ENOENT || dir == -ENOTDIR)
                return 0;
        r = dir < 0 ? dir : list_specs(dir, &names);
        if (r < 0)
                return err_errno(e, r, "/%s", where);
        for (char **n = names; n && *n && r >= 0; n++)
                r = load_file(dir, where, *n, s, e);
        return r;
}

int cdi_load(int root, struct cdi_set *ret, struct err *e)
{
        struct cdi_set s = { .n = 0 };
        int r = load_dir(root, "etc/cdi", &s, e);

        if (r >= 0)
                r = load_dir(root, "var/run/cdi", &s, e);
        if (r < 0)
                cdi_set_done(&s);
        else
                *ret = s;
        return r;
}

void cdi_set_done(struct cdi_set *s)
{
        for (size_t i = 0; i < s->n; i++)
                cdi_spec_done(&s->specs[i]);
        free(s->specs);
        *s = (struct cdi_set){ .n = 0 };
}

const struct cdi_device *cdi_find(const struct cdi_set *s, const char *name,
                                  const struct cdi_spec **ret_spec)
{
        for (size_t i = s->n; i-- > 0;)
                for (size_t k = 0; k < s->specs[i].n_devices; k++)
                        if (str_eq(s->specs[i].devices[k].name, name)) {
                                *ret_spec = &s->specs[i];
                                return &s->specs[i].devices[k];
                        }
        return NULL;
}

/* ---- hooks ------------------------------------------------------------------------------------ */

enum cdi_deed cdi_hook_deed(const struct cdi_hook *h)
{
        static const struct {
                const char *word;
                enum cdi_deed deed;
        } rows[] = {
                { "create-symlinks", CDI_DEED_SYMLINKS },
                { "update-ldcache", CDI_DEED_LDCACHE },
                { "chmod", CDI_DEED_NOTHING }, /* our /dev is open to everybody inside */
                { "disable-device-node-modification", CDI_DEED_NOTHING }, /* bind_proc.c */
        };
        size_t n = strv_len(h->args), i = 1;

        if (i < n && str_eq(h->args[i], "hook")) /* of nvidia-ctk */
                i++;
        for (size_t k = 0; i < n && k < NELEM(rows); k++)
                if (str_eq(h->args[i], rows[k].word))
                        return rows[k].deed;
        return CDI_DEED_NONE;
}

int cdi_hook_values(const struct cdi_hook *h, const char *option, cdi_value_fn *fn, void *arg)
{
        int r = 0;

        for (char **a = h->args; a && *a && r >= 0; a++) {
                const char *rest = str_after(*a, option);

                if (!rest)
                        continue;
                if (*rest == '=')
                        r = fn(arg, rest + 1);
                else if (*rest == '\0' && a[1])
                        r = fn(arg, *++a);
        }
        return r < 0 ? r : 0;
}
