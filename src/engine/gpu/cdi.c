/* cdi.c - see cdi.h.  Operation process, and `cdi` on the command line.
 *
 * One table says what a spec is made of; reading, printing and freeing come from it.  Keys that it does
 * not know are passed over: a newer specification may have more. */
#include "engine/gpu/cdi.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "engine/gpu/cdi_tree.h"

enum kind { K_NONE, K_STR, K_STRV, K_U32, K_MODE, K_SUB, K_LIST, K_COUNT };

struct field {
        const char *name;
        enum kind kind;
        bool needed;
        size_t off, off_n, size; /* of the member, its count, one element */
        const struct field *sub;
        size_t n_sub;
};

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

static const struct field node_rows[] = {
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
static const struct field mount_rows[] = {
        NEEDED(cdi_mount, "hostPath", host_path, K_STR),
        NEEDED(cdi_mount, "containerPath", container_path, K_STR),
        F(cdi_mount, "type", type, K_STR),
        F(cdi_mount, "options", options, K_STRV),
};
static const struct field hook_rows[] = {
        NEEDED(cdi_hook, "hookName", name, K_STR), NEEDED(cdi_hook, "path", path, K_STR),
        F(cdi_hook, "args", args, K_STRV),         F(cdi_hook, "env", env, K_STRV),
        F(cdi_hook, "timeout", timeout, K_U32),
};
static const struct field net_rows[] = {
        NEEDED(cdi_net, "hostInterfaceName", host_name, K_STR),
        NEEDED(cdi_net, "name", name, K_STR),
};
static const struct field rdt_rows[] = { F(cdi_rdt, "closID", clos_id, K_STR) };
static const struct field link_rows[] = {
        F(cdi_link, "target", target, K_STR),
        F(cdi_link, "path", path, K_STR),
};
static const struct field edit_rows[] = {
        F(cdi_edits, "env", env, K_STRV),
        LIST(cdi_edits, "deviceNodes", nodes, node_rows),
        LIST(cdi_edits, "netDevices", nets, net_rows),
        LIST(cdi_edits, "mounts", mounts, mount_rows),
        LIST(cdi_edits, "hooks", hooks, hook_rows),
        SUB(cdi_edits, "intelRdt", rdt, rdt_rows),
        F(cdi_edits, "additionalGids", gids, K_STRV),
};
static const struct field device_rows[] = {
        NEEDED(cdi_device, "name", name, K_STR),
        SUB(cdi_device, "containerEdits", edits, edit_rows),
};
static const struct field spec_rows[] = {
        NEEDED(cdi_spec, "cdiVersion", version, K_STR),
        NEEDED(cdi_spec, "kind", kind, K_STR),
        SUB(cdi_spec, "containerEdits", edits, edit_rows),
        LIST(cdi_spec, "devices", devices, device_rows),
};

static void *at(const void *base, size_t off)
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

static void done(const struct field *f, size_t n, void *base);

static void done_list(const struct field *f, void *base)
{
        void **list = at(base, f->off);
        size_t *n = at(base, f->off_n);

        for (size_t i = 0; i < *n; i++)
                done(f->sub, f->n_sub, at(*list, i * f->size));
        free(*list);
        *list = NULL;
        *n = 0;
}

static void done(const struct field *f, size_t n, void *base)
{
        for (size_t i = 0; i < n; i++) {
                char **s = at(base, f[i].off);
                char ***v = at(base, f[i].off);

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
        static const struct field links = LIST(cdi_edits, "", links, link_rows);

        for (size_t i = 0; i < x->n_mounts; i++)
                free(x->mounts[i].soname);
        done(edit_rows, NELEM(edit_rows), x);
        done(&links, 1, x);
}

void cdi_spec_done(struct cdi_spec *s)
{
        for (size_t i = 0; i < s->n_devices; i++)
                cdi_edits_done(&s->devices[i].edits);
        cdi_edits_done(&s->edits);
        done(spec_rows, NELEM(spec_rows), s);
        free(s->file);
        free(s->lib_dir);
        free(s->lib32_dir);
        *s = (struct cdi_spec){ .version = NULL };
}

/* ---- reading --------------------------------------------------------------------------------- */

struct from {
        const char *name; /* of the file */
        struct err *e;
};

static int wrong(const struct from *x, const struct tree *t, const char *key, const char *why)
{
        return err_set(x->e, -EINVAL, "%s:%u: %s %s", x->name, t->line, key, why);
}

static int no_memory(const struct from *x)
{
        return err_set(x->e, -ENOMEM, "out of memory");
}

static int read_rows(const struct from *x, const struct tree *map, const struct field *f, size_t n,
                     void *base);

static int read_strv(const struct from *x, const struct tree *t, const struct field *f, char ***to)
{
        size_t n = 0;

        if (t->kind != TREE_LIST)
                return wrong(x, t, f->name, "is not a list");
        for (const struct tree *k = t->kids; k; k = k->next) {
                if (k->kind != TREE_SCALAR)
                        return wrong(x, k, f->name, "holds something that is no text");
                if (++n > CDI_MAX_LIST)
                        return wrong(x, k, f->name, "has more than 4096 elements");
                if (strv_push(to, k->text) < 0)
                        return no_memory(x);
        }
        return 0;
}

/* Decimal; a mode may also be octal, as YAML writes it: 0666 or 0o666. */
static int read_number(const struct from *x, const struct tree *t, const struct field *f,
                       uint32_t *to)
{
        const char *s = t->kind == TREE_SCALAR ? t->text : "";
        uint64_t v = 0;
        char *end;

        if (f->kind == K_MODE && s[0] == '0' && s[1]) {
                s += s[1] == 'o' ? 2 : 1;
                v = *s >= '0' && *s <= '7' ? strtoul(s, &end, 8) : UINT64_MAX;
                if (v > 07777 || *end)
                        return wrong(x, t, f->name, "is not a file mode");
        } else if (str_u64(s, 0, f->kind == K_MODE ? 07777 : UINT32_MAX, &v) < 0) {
                return wrong(x, t, f->name,
                             f->kind == K_MODE ? "is not a file mode" : "is not a number");
        }
        *to = (uint32_t) v;
        return 0;
}

static int read_list(const struct from *x, const struct tree *t, const struct field *f, void *base)
{
        void **list = at(base, f->off);
        size_t *n = at(base, f->off_n);

        if (t->kind != TREE_LIST)
                return wrong(x, t, f->name, "is not a list");
        for (const struct tree *k = t->kids; k; k = k->next) {
                void *more;
                int r;

                if (*n == CDI_MAX_LIST)
                        return wrong(x, k, f->name, "has more than 4096 elements");
                more = cdi_grow(*list, n, f->size);
                if (!more)
                        return no_memory(x);
                *list = more;
                r = read_rows(x, k, f->sub, f->n_sub, at(more, (*n)++ * f->size));
                if (r < 0)
                        return r;
        }
        return 0;
}

static int read_one(const struct from *x, const struct tree *t, const struct field *f, void *base)
{
        char **s = at(base, f->off);

        switch (f->kind) {
        case K_STR:
                if (t->kind != TREE_SCALAR)
                        return wrong(x, t, f->name, "is not a text");
                *s = strdup(t->text);
                return *s ? 0 : no_memory(x);
        case K_STRV:
                return read_strv(x, t, f, at(base, f->off));
        case K_U32:
        case K_MODE:
                return read_number(x, t, f, at(base, f->off));
        case K_SUB:
                return read_rows(x, t, f->sub, f->n_sub, at(base, f->off));
        case K_LIST:
                return read_list(x, t, f, base);
        case K_NONE:
        case K_COUNT:
        default:
                return -EINVAL;
        }
}

static int read_rows(const struct from *x, const struct tree *map, const struct field *f, size_t n,
                     void *base)
{
        if (map->kind != TREE_MAP)
                return err_set(x->e, -EINVAL, "%s:%u: keys and values are needed here", x->name,
                               map->line);
        for (size_t i = 0; i < n; i++) {
                const struct tree *t = tree_get(map, f[i].name);
                int r;

                if (!t && f[i].needed)
                        return wrong(x, map, f[i].name, "is needed here");
                r = t ? read_one(x, t, &f[i], base) : 0;
                if (r < 0)
                        return r;
        }
        return 0;
}

/* ---- what holds for a spec that has been read ------------------------------------------------- */

/* "0.5.0" to "1.1.0" */
static bool version_ok(const char *s)
{
        static const char *const known[] = { "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0" };

        for (size_t i = 0; i < NELEM(known); i++)
                if (str_eq(s, known[i]))
                        return true;
        return false;
}

static bool path_ok(const char *s)
{
        size_t n = strlen(s);

        return s[0] == '/' && n > 1 && !strstr(s, "/../") && (n < 3 || !str_eq(s + n - 3, "/.."));
}

static bool device_name_ok(const char *s)
{
        static const char letters[] =
                "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:";

        return *s && strlen(s) <= 128 && strspn(s, letters) == strlen(s) && !strchr("-_.:", *s);
}

static int bad_value(const struct from *x, const char *key, const char *value, const char *why)
{
        return err_set(x->e, -EINVAL, "%s: %s '%.120s' %s", x->name, key, value, why);
}

static int check_edits(const struct from *x, const struct cdi_edits *c)
{
        for (size_t i = 0; i < c->n_nodes; i++) {
                const struct cdi_node *d = &c->nodes[i];

                if (!path_ok(d->path) || !str_after(d->path, "/dev/"))
                        return bad_value(x, "path", d->path, "does not lie below /dev");
                if (d->host_path && *d->host_path && !path_ok(d->host_path))
                        return bad_value(x, "hostPath", d->host_path, "is not absolute");
                if (d->permissions && strspn(d->permissions, "rwm") != strlen(d->permissions))
                        return bad_value(x, "permissions", d->permissions, "are not of r, w and m");
                if (!str_empty(d->type) && (strlen(d->type) != 1 || !strchr("bcup", *d->type)))
                        return bad_value(x, "type", d->type, "is not b, c, u or p");
        }
        for (size_t i = 0; i < c->n_mounts; i++) {
                if (!path_ok(c->mounts[i].container_path))
                        return bad_value(x, "containerPath", c->mounts[i].container_path,
                                         "is not absolute");
                if (c->mounts[i].host_path[0] != '/')
                        return bad_value(x, "hostPath", c->mounts[i].host_path, "is not absolute");
        }
        for (char **v = c->env; v && *v; v++)
                if (!strchr(*v, '=') || **v == '=')
                        return bad_value(x, "env", *v, "is not NAME=VALUE");
        return 0;
}

static int check_spec(const struct from *x, const struct cdi_spec *s)
{
        int r = check_edits(x, &s->edits);

        if (!version_ok(s->version))
                return bad_value(x, "cdiVersion", s->version,
                                 "is none of 0.5.0, 0.6.0, 0.7.0, 0.8.0, 1.0.0, 1.1.0");
        if (r >= 0 && s->n_devices == 0)
                return err_set(x->e, -EINVAL, "%s: it names no devices", x->name);
        for (size_t i = 0; i < s->n_devices && r >= 0; i++) {
                if (!device_name_ok(s->devices[i].name))
                        return bad_value(x, "name", s->devices[i].name, "is no device's name");
                for (size_t k = 0; k < i; k++)
                        if (str_eq(s->devices[i].name, s->devices[k].name))
                                return bad_value(x, "name", s->devices[i].name, "is given twice");
                r = check_edits(x, &s->devices[i].edits);
        }
        return r;
}

int cdi_parse(const char *name, const char *text, size_t len, struct cdi_spec *ret, struct err *e)
{
        AUTO(tree_free) struct tree *t = NULL;
        const struct from x = { name, e };
        const struct tree *kind;
        struct cdi_spec s = { .version = NULL };
        int r = tree_parse(name, text, len, &t, e);

        if (r < 0)
                return r;
        kind = tree_get(t, "kind");
        if (kind && kind->kind == TREE_SCALAR && !str_eq(kind->text, CDI_KIND))
                return 1;
        r = read_rows(&x, t, spec_rows, NELEM(spec_rows), &s);
        if (r >= 0)
                r = check_spec(&x, &s);
        if (r >= 0 && !(s.file = strdup(name)))
                r = no_memory(&x);
        if (r < 0)
                cdi_spec_done(&s);
        else
                *ret = s;
        return r;
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

/* ---- printing --------------------------------------------------------------------------------- */

/* In double quotes, always: UUIDs that look like numbers and paths with blanks are texts. */
static void print_text(struct strbuf *b, const char *s)
{
        strbuf_char(b, '"');
        for (; *s; s++) {
                if (*s == '"' || *s == '\\')
                        strbuf_char(b, '\\');
                strbuf_char(b, *s);
        }
        strbuf_char(b, '"');
}

static void indent(struct strbuf *b, unsigned depth)
{
        strbuf_fmt(b, "%*s", (int) depth * 2, "");
}

static bool is_empty(const struct field *f, size_t n, const void *base)
{
        for (size_t i = 0; i < n; i++) {
                const void *m = at(base, f[i].off);

                if (f[i].kind == K_STR    ? !str_empty(*(char *const *) m)
                    : f[i].kind == K_STRV ? strv_len(*(char **const *) m) > 0
                    : f[i].kind == K_LIST ? *(const size_t *) at(base, f[i].off_n) > 0
                    : f[i].kind == K_SUB  ? !is_empty(f[i].sub, f[i].n_sub, m)
                                          : *(const uint32_t *) m != 0)
                        return false;
        }
        return true;
}

static void print_rows(struct strbuf *b, const struct field *f, size_t n, const void *base,
                       unsigned depth, bool dash);

static void print_list(struct strbuf *b, const struct field *f, const void *base, unsigned depth)
{
        const void *list = *(void *const *) at(base, f->off);
        size_t n = *(const size_t *) at(base, f->off_n);

        for (size_t i = 0; i < n; i++)
                print_rows(b, f->sub, f->n_sub, at(list, i * f->size), depth + 1, true);
}

static void print_one(struct strbuf *b, const struct field *f, const void *base, unsigned depth)
{
        const void *m = at(base, f->off);

        strbuf_fmt(b, "%s:", f->name);
        if (f->kind == K_STR) {
                strbuf_char(b, ' ');
                print_text(b, *(char *const *) m);
        } else if (f->kind == K_U32 || f->kind == K_MODE) {
                strbuf_fmt(b, " %u", *(const uint32_t *) m);
        }
        strbuf_char(b, '\n');
        if (f->kind == K_SUB)
                print_rows(b, f->sub, f->n_sub, m, depth + 1, false);
        else if (f->kind == K_LIST)
                print_list(b, f, base, depth);
        for (char *const *v = f->kind == K_STRV ? *(char **const *) m : NULL; v && *v; v++) {
                indent(b, depth + 1);
                strbuf_str(b, "- ");
                print_text(b, *v);
                strbuf_char(b, '\n');
        }
}

/* @dash: an element of a list, whose first line carries it. */
static void print_rows(struct strbuf *b, const struct field *f, size_t n, const void *base,
                       unsigned depth, bool dash)
{
        for (size_t i = 0; i < n; i++) {
                if (is_empty(&f[i], 1, base))
                        continue;
                indent(b, depth);
                if (dash)
                        strbuf_str(b, "- ");
                print_one(b, &f[i], base, depth + (dash ? 1 : 0));
                if (dash)
                        depth++;
                dash = false;
        }
}

/* "@lib/x" as it is on this host. */
static int expand(const struct cdi_spec *s, char **path)
{
        const char *rest, *dir;
        char *to;

        if ((rest = str_after(*path, "@lib/")))
                dir = s->lib_dir;
        else if ((rest = str_after(*path, "@lib32/")))
                dir = s->lib32_dir;
        else
                return 0;
        to = str_fmt("%s/%s", dir ? dir : "", rest);
        if (!to)
                return -ENOMEM;
        free(*path);
        *path = to;
        return 0;
}

static int push_link(const struct cdi_link *l, char ***args)
{
        AUTO(free) char *value = str_fmt("%s::%s", l->target, l->path);
        int r = value ? strv_push(args, "--link") : -ENOMEM;

        return r < 0 ? r : strv_push(args, value);
}

/* One more hook, its arguments so far. */
static struct cdi_hook *add_hook(struct cdi_edits *x, const char *verb)
{
        struct cdi_hook *h = cdi_grow(x->hooks, &x->n_hooks, sizeof *h);

        if (!h)
                return NULL;
        x->hooks = h;
        h += x->n_hooks++;
        h->name = strdup("createContainer");
        h->path = strdup("/usr/bin/nvidia-cdi-hook");
        if (!h->name || !h->path || strv_push(&h->args, "nvidia-cdi-hook") < 0 ||
            strv_push(&h->args, verb) < 0)
                return NULL;
        return h;
}

static int finish(const struct cdi_spec *s, struct cdi_edits *x, bool ldcache)
{
        struct cdi_hook *h;
        int r = 0;

        for (size_t i = 0; i < x->n_mounts && r >= 0; i++)
                r = expand(s, &x->mounts[i].container_path);
        for (size_t i = 0; i < x->n_links && r >= 0; i++)
                r = expand(s, &x->links[i].path);
        h = r >= 0 && x->n_links ? add_hook(x, "create-symlinks") : NULL;
        if (r >= 0 && x->n_links && !h)
                return -ENOMEM;
        for (size_t i = 0; h && i < x->n_links && r >= 0; i++)
                r = push_link(&x->links[i], &h->args);
        if (r < 0 || !ldcache || !s->lib_dir)
                return r;
        h = add_hook(x, "update-ldcache");
        if (!h || strv_push(&h->args, "--folder") < 0 || strv_push(&h->args, s->lib_dir) < 0)
                return -ENOMEM;
        if (s->lib32_dir &&
            (strv_push(&h->args, "--folder") < 0 || strv_push(&h->args, s->lib32_dir) < 0))
                return -ENOMEM;
        return 0;
}

int cdi_print(struct cdi_spec *s, struct strbuf *b, struct err *e)
{
        int r = finish(s, &s->edits, true);

        for (size_t i = 0; i < s->n_devices && r >= 0; i++)
                r = finish(s, &s->devices[i].edits, false);
        if (r < 0)
                return err_set(e, r, "out of memory");
        print_rows(b, spec_rows, NELEM(spec_rows), s, 0, false);
        return 0;
}
