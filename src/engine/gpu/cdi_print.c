/* cdi_print.c - a spec as YAML, for other runtimes.  `hypervisor-vmm cdi generate`; pure. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/gpu/cdi_priv.h"

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

static bool is_empty(const struct cdi_field *f, size_t n, const void *base)
{
        for (size_t i = 0; i < n; i++) {
                const void *m = cdi_at(base, f[i].off);

                if (f[i].kind == K_STR    ? !str_empty(*(char *const *) m)
                    : f[i].kind == K_STRV ? strv_len(*(char **const *) m) > 0
                    : f[i].kind == K_LIST ? *(const size_t *) cdi_at(base, f[i].off_n) > 0
                    : f[i].kind == K_SUB  ? !is_empty(f[i].sub, f[i].n_sub, m)
                                          : *(const uint32_t *) m != 0)
                        return false;
        }
        return true;
}

static void print_rows(struct strbuf *b, const struct cdi_field *f, size_t n, const void *base,
                       unsigned depth, bool dash);

static void print_list(struct strbuf *b, const struct cdi_field *f, const void *base,
                       unsigned depth)
{
        const void *list = *(void *const *) cdi_at(base, f->off);
        size_t n = *(const size_t *) cdi_at(base, f->off_n);

        for (size_t i = 0; i < n; i++)
                print_rows(b, f->sub, f->n_sub, cdi_at(list, i * f->size), depth + 1, true);
}

static void print_one(struct strbuf *b, const struct cdi_field *f, const void *base, unsigned depth)
{
        const void *m = cdi_at(base, f->off);

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
static void print_rows(struct strbuf *b, const struct cdi_field *f, size_t n, const void *base,
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
        print_rows(b, cdi_spec_rows, cdi_n_spec_rows, s, 0, false);
        return 0;
}
