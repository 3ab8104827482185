/* cdi_read.c - a spec's tree into the structures of cdi.h, and what it must hold.  Operation process; pure. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/gpu/cdi_priv.h"
#include "engine/gpu/cdi_tree.h"

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

static int read_rows(const struct from *x, const struct tree *map, const struct cdi_field *f,
                     size_t n, void *base);

static int read_strv(const struct from *x, const struct tree *t, const struct cdi_field *f,
                     char ***to)
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
static int read_number(const struct from *x, const struct tree *t, const struct cdi_field *f,
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

static int read_list(const struct from *x, const struct tree *t, const struct cdi_field *f,
                     void *base)
{
        void **list = cdi_at(base, f->off);
        size_t *n = cdi_at(base, f->off_n);

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
                r = read_rows(x, k, f->sub, f->n_sub, cdi_at(more, (*n)++ * f->size));
                if (r < 0)
                        return r;
        }
        return 0;
}

static int read_one(const struct from *x, const struct tree *t, const struct cdi_field *f,
                    void *base)
{
        char **s = cdi_at(base, f->off);

        switch (f->kind) {
        case K_STR:
                if (t->kind != TREE_SCALAR)
                        return wrong(x, t, f->name, "is not a text");
                *s = strdup(t->text);
                return *s ? 0 : no_memory(x);
        case K_STRV:
                return read_strv(x, t, f, cdi_at(base, f->off));
        case K_U32:
        case K_MODE:
                return read_number(x, t, f, cdi_at(base, f->off));
        case K_SUB:
                return read_rows(x, t, f->sub, f->n_sub, cdi_at(base, f->off));
        case K_LIST:
                return read_list(x, t, f, base);
        case K_NONE:
        case K_COUNT:
        default:
                return -EINVAL;
        }
}

static int read_rows(const struct from *x, const struct tree *map, const struct cdi_field *f,
                     size_t n, void *base)
{
        if (map->kind != TREE_MAP)
                return err_set(x->e, -EINVAL, "%s:%u: keys and values are needed here", x->name,
                               map->line);
        for (size_t i = 0; i < n; i++) {
                const struct tree *t = tree_get(map, f[i].name);
                int r;

                if (!t && f[i].needed)
                        return wrong(x, map, f[i].name, "is needed here");
                if (f[i].needed && t->kind == TREE_SCALAR && str_empty(t->text))
                        return wrong(x, t, f[i].name, "is empty");
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
        r = read_rows(&x, t, cdi_spec_rows, cdi_n_spec_rows, &s);
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
