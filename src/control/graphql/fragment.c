/* fragment.c - fragments by name, and those that spread themselves.  API program; hostile queries. */
#include <errno.h>

#include "control/graphql/compile_priv.h"
#include "control/graphql/hash.h"
#include "model/limits.h"

static struct ast_frag **frag_slot(struct compiler *k, struct slice name)
{
        uint32_t i = (uint32_t) hash_bytes(k->s->hash_key, k->src + name.off, name.len) &
                     (k->n_frag - 1);

        while (k->frag[i] && !slice_same(k->src, k->frag[i]->name, name))
                i = (i + 1) & (k->n_frag - 1);
        return &k->frag[i];
}

int frag_index(struct compiler *k)
{
        uint32_t n = 0;

        for (const struct ast_frag *f = k->q->doc.frags; f; f = f->next)
                n++;
        for (k->n_frag = 4; k->n_frag < n * 2;)
                k->n_frag *= 2;
        k->frag = arena_array(&k->q->arena, k->n_frag, sizeof(struct ast_frag *));
        if (!k->frag)
                return compile_no_memory(k);
        for (struct ast_frag *f = k->q->doc.frags; f; f = f->next) {
                struct ast_frag **slot = frag_slot(k, f->name);

                if (*slot)
                        return fault_set(k->f, -EINVAL, INVALID, f->name.off,
                                         "two fragments are called \"%.*s\"", show_len(f->name),
                                         k->src + f->name.off);
                *slot = f;
        }
        return 0;
}

int frag_find(struct compiler *k, struct slice name, struct ast_frag **ret)
{
        *ret = *frag_slot(k, name);
        if (!*ret)
                return fault_set(k->f, -EINVAL, INVALID, name.off, "unknown fragment \"%.*s\"",
                                 show_len(name), k->src + name.off);
        return 0;
}

/* Walk what @sel spreads; a fragment met again while it is being walked spreads itself. */
static int check_cycles(struct compiler *k, const struct ast_sel *sel, uint32_t spreads)
{
        struct ast_frag *f;
        int r = 0;

        if (spreads > LIMIT_QUERY_DEPTH)
                return fault_set(k->f, -E2BIG, INVALID, sel->key.off,
                                 "query: fragments nest deeper than %u levels", LIMIT_QUERY_DEPTH);
        for (; r >= 0 && sel; sel = sel->next) {
                if (sel->kind != AS_SPREAD) {
                        r = sel->sub ? check_cycles(k, sel->sub, spreads) : 0;
                        continue;
                }
                r = frag_find(k, sel->name, &f);
                if (r < 0 || f->mark == 2)
                        continue;
                if (f->mark == 1)
                        return fault_set(k->f, -EINVAL, INVALID, sel->name.off,
                                         "fragment \"%.*s\" spreads itself", show_len(sel->name),
                                         k->src + sel->name.off);
                f->mark = 1;
                r = check_cycles(k, f->sel, spreads + 1);
                f->mark = 2;
        }
        return r;
}

int frag_check_cycles(struct compiler *k, const struct ast_sel *sel)
{
        return check_cycles(k, sel, 0);
}
