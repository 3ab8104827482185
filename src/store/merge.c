/* merge.c - see merge.h.  Runs in the image builder's sandbox.
 *
 * Theory of operation.  Each layer has a cursor on its next entry; all entries are in the same order,
 * so the merged tree is read off the front.  In an open directory the layers that take part in it are
 * a set of bits; the smallest name at their cursors comes next, and the topmost layer that has it
 * decides.  Whatever a decision hides is stepped over.  A cursor is past a directory as soon as its
 * entry is not one level below it. */
#include "store/merge.h"

#include <errno.h>

#include "store/bytes.h"

#define NO_NODE UINT32_MAX
#define WORDS   (MERGE_LAYERS_MAX / 64)

struct group {
        uint32_t entry_at, first; /* first: the first node with this inode, or NO_NODE */
};

struct cursor {
        struct layer_entry n;
        uint64_t at, next;
        bool end;
        struct group *groups; /* [n_groups], owned */
};

struct layer_set {
        uint64_t bits[WORDS];
};

struct frame {
        uint32_t node;
        struct layer_set in; /* the layers that take part in this directory */
};

struct merger {
        struct merge *m;
        struct cursor at[MERGE_LAYERS_MAX];
        struct frame stack[LAYER_DEPTH_MAX + 2];
        unsigned depth; /* frames in use */
};

static bool in_set(const struct layer_set *s, unsigned i)
{
        return s->bits[i / 64] >> i % 64 & 1;
}

static void set_add(struct layer_set *s, unsigned i)
{
        s->bits[i / 64] |= 1ULL << i % 64;
}

/* --- cursors --- */

static void load(struct merger *w, unsigned layer)
{
        struct cursor *c = &w->at[layer];

        c->end = layer_index_entry(&w->m->layers[layer], c->at, &c->n, &c->next) == 0;
        if (!c->end && c->n.group && c->n.type != LAYER_LINK)
                c->groups[c->n.group - 1].entry_at = (uint32_t) (c->at / 8);
}

static void step(struct merger *w, unsigned layer)
{
        w->at[layer].at = w->at[layer].next;
        load(w, layer);
}

/* Past the present entry and all below it. */
static void step_over(struct merger *w, unsigned layer)
{
        const struct cursor *c = &w->at[layer];
        unsigned depth = c->n.depth;

        do
                step(w, layer);
        while (!c->end && c->n.depth > depth);
}

static int open_cursors(struct merger *w, struct err *e)
{
        for (unsigned i = 0; i < w->m->n_layers; i++) {
                const struct layer_index *x = &w->m->layers[i];
                struct cursor *c = &w->at[i];

                c->groups = calloc(x->n_groups + 1ULL, sizeof *c->groups);
                if (!c->groups)
                        return err_set(e, -ENOMEM, "out of memory");
                for (uint32_t g = 0; g < x->n_groups; g++)
                        c->groups[g].first = NO_NODE;
                c->at = x->entries_at;
                load(w, i);
        }
        return 0;
}

/* --- nodes --- */

static int add_node(struct merger *w, const struct merge_node *n, uint32_t *ret, struct err *e)
{
        struct merge_node *p;
        int r;

        if (w->m->n_nodes == MERGE_NODES_MAX)
                return err_set(e, -E2BIG, "the image has more than %u files", MERGE_NODES_MAX);
        r = scratch_add(&w->m->nodes, sizeof *p, &p, e);
        if (r < 0)
                return r;
        *p = *n;
        *ret = w->m->n_nodes++;
        return 0;
}

/* Anything but a directory, from the cursor of @layer. */
static int add_bare(struct merger *w, unsigned layer, struct err *e)
{
        const struct cursor *c = &w->at[layer];
        struct group *g = c->n.group ? &c->groups[c->n.group - 1] : NULL;
        struct merge_node n = {
                .parent = w->stack[w->depth - 1].node,
                .next = w->m->n_nodes + 1,
                .inode = w->m->n_nodes,
                .links = 1,
                .layer = (uint16_t) layer,
                .type = (uint16_t) c->n.type,
                .name_at = (uint32_t) (c->at / 8),
                .entry_at = (uint32_t) (c->at / 8),
        };
        uint32_t node;

        if (g) {
                struct layer_entry inode;
                uint64_t next;

                n.entry_at = g->entry_at;
                (void) layer_index_entry(&w->m->layers[layer], n.entry_at * 8ULL, &inode, &next);
                n.type = (uint16_t) inode.type;
                if (g->first == NO_NODE) {
                        g->first = w->m->n_nodes;
                } else {
                        n.inode = g->first;
                        n.links = 0;
                        merge_node(w->m, g->first)->links++;
                }
        }
        return add_node(w, &n, &node, e);
}

static int add_dir(struct merger *w, unsigned layer, uint32_t entry_at, const struct layer_set *in,
                   struct err *e)
{
        uint32_t parent = w->depth > 0 ? w->stack[w->depth - 1].node : 0;
        struct merge_node n = {
                .parent = parent,
                .inode = w->m->n_nodes,
                .links = 2,
                .layer = (uint16_t) layer,
                .type = LAYER_DIR,
                .name_at = entry_at,
                .entry_at = entry_at,
        };
        uint32_t node;
        int r = add_node(w, &n, &node, e);

        if (r < 0)
                return r;
        if (w->depth > 0)
                merge_node(w->m, parent)->links++;
        w->stack[w->depth++] = (struct frame){ .node = node, .in = *in };
        return 0;
}

/* --- one name --- */

/* What a name comes to; filled from the topmost layer downwards. */
struct choice {
        bool decided, hidden, is_dir, described;
        unsigned layer;
        uint32_t entry_at;
        struct layer_set in;
};

/* The entry at the cursor of @layer, which has the name; steps past it. */
static int choose(struct merger *w, unsigned layer, struct choice *ch, struct err *e)
{
        struct cursor *c = &w->at[layer];
        int r = 0;

        if (ch->hidden || (ch->decided && c->n.type != LAYER_DIR)) {
                ch->hidden = true;
                step_over(w, layer);
                return 0;
        }
        if (c->n.type == LAYER_DIR) {
                bool described = !(c->n.flags & LAYER_IMPLIED);

                if (!ch->decided || (described && !ch->described)) {
                        ch->layer = layer;
                        ch->entry_at = (uint32_t) (c->at / 8);
                        ch->described = described;
                }
                ch->decided = ch->is_dir = true;
                ch->hidden = c->n.flags & LAYER_OPAQUE;
                set_add(&ch->in, layer);
                step(w, layer);
                return 0;
        }
        ch->decided = ch->hidden = true;
        if (c->n.type != LAYER_WHITEOUT)
                r = add_bare(w, layer, e);
        if (r >= 0)
                step(w, layer);
        return r;
}

/* All layers of @with have the same name at their cursors. */
static int merge_name_of(struct merger *w, const struct layer_set *with, struct err *e)
{
        struct choice ch = { 0 };

        for (unsigned i = w->m->n_layers; i-- > 0;) {
                int r = in_set(with, i) ? choose(w, i, &ch, e) : 0;

                if (r < 0)
                        return r;
        }
        return ch.is_dir ? add_dir(w, ch.layer, ch.entry_at, &ch.in, e) : 0;
}

/* The smallest name in the open directory, and who has it.  False: there is none left. */
static bool next_name(const struct merger *w, struct layer_set *ret)
{
        const struct frame *f = &w->stack[w->depth - 1];
        const struct layer_entry *least = NULL;

        for (unsigned word = 0; word < WORDS; word++)
                for (uint64_t b = f->in.bits[word]; b; b &= b - 1) {
                        unsigned i = word * 64 + (unsigned) __builtin_ctzll(b);
                        const struct cursor *c = &w->at[i];
                        int r;

                        if (c->end || c->n.depth != w->depth)
                                continue;
                        r = least ? layer_name_compare(c->n.name, c->n.name_len, least->name,
                                                       least->name_len)
                                  : -1;
                        if (r > 0)
                                continue;
                        if (r < 0) {
                                least = &c->n;
                                *ret = (struct layer_set){ 0 };
                        }
                        set_add(ret, i);
                }
        return least;
}

static int run(struct merger *w, struct err *e)
{
        struct layer_set with = { 0 };
        int r;

        for (unsigned i = 0; i < w->m->n_layers; i++)
                set_add(&with, i);
        r = merge_name_of(w, &with, e); /* the roots */
        while (r >= 0 && w->depth > 0) {
                if (next_name(w, &with)) {
                        r = merge_name_of(w, &with, e);
                } else {
                        w->depth--;
                        merge_node(w->m, w->stack[w->depth].node)->next = w->m->n_nodes;
                }
        }
        return r;
}

int merge_layers(const struct layer_index *layers, size_t n_layers, int scratch, struct merge *ret,
                 struct err *e)
{
        AUTO(merge_done) struct merge m = { .layers = layers };
        AUTO(free) struct merger *w = calloc(1, sizeof *w);
        int r;

        scratch_init(&m.nodes, scratch, (uint64_t) MERGE_NODES_MAX * sizeof(struct merge_node));
        if (!w)
                return err_set(e, -ENOMEM, "out of memory");
        if (n_layers == 0 || n_layers > MERGE_LAYERS_MAX)
                return err_set(e, -EINVAL, "an image of %zu layers", n_layers);
        m.n_layers = (uint32_t) n_layers;
        w->m = &m;
        r = open_cursors(w, e);
        if (r >= 0)
                r = run(w, e);
        for (unsigned i = 0; i < m.n_layers; i++)
                free(w->at[i].groups);
        if (r < 0)
                return r;
        *ret = m;
        m.nodes.p = NULL; /* handed over */
        return 0;
}

void merge_done(struct merge *m)
{
        scratch_done(&m->nodes);
        m->n_nodes = 0;
}

void merge_entry(const struct merge *m, const struct merge_node *n, struct layer_entry *ret)
{
        uint64_t next;

        (void) layer_index_entry(&m->layers[n->layer], n->entry_at * 8ULL, ret, &next);
}

void merge_name(const struct merge *m, const struct merge_node *n, const char **ret,
                size_t *ret_len)
{
        struct layer_entry name;
        uint64_t next;

        (void) layer_index_entry(&m->layers[n->layer], n->name_at * 8ULL, &name, &next);
        *ret = name.name;
        *ret_len = name.name_len;
}
