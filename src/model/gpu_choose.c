/* gpu_choose.c - see gpu_choose.h.  Pure; control plane.
 *
 * What always holds: every GPU that is for rent is in one group; a choice is a subset of what is free
 * and wanted, of exactly the size that was asked for. */
#include "model/gpu_choose.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/str.h"
#include "model/gpu_choose_priv.h"

#define COMBOS_MAX (1U << 20) /* of twins, where there is no table: a few ms */

struct partition {
        uint64_t set, score;
};

struct gpu_chooser {
        struct choose_group *groups;
        size_t n_groups;
        struct partition *partitions;
        size_t n_partitions;
        size_t n;
        uint64_t siblings[GPU_MAX]; /* instances of the same GPU; by position */
        uint32_t order[GPU_MAX];    /* instances: by GPU, GPU instance, compute instance */
        uint8_t numa[GPU_MAX];      /* by position: place of the NUMA node among those there are */
};

uint32_t gpu_pair_score(struct gpu_link l)
{
        static const uint8_t way[GP_PATH_COUNT] = {
                [GP_SYS] = 1, [GP_NODE] = 4, [GP_PHB] = 5, [GP_PXB] = 6, [GP_PIX] = 8
        };

        return 16384U * l.nvlinks + (l.path < GP_PATH_COUNT ? way[l.path] : 0);
}

static uint32_t lowest(uint64_t set)
{
        return (uint32_t) __builtin_ctzll(set);
}

static uint32_t count(uint64_t set)
{
        return (uint32_t) __builtin_popcountll(set);
}

static uint64_t score_within(const struct gpu_fleet *f, uint64_t set)
{
        uint64_t sum = 0;

        for (uint64_t a = set; a; a &= a - 1)
                for (uint64_t b = a & (a - 1); b; b &= b - 1)
                        sum += gpu_pair_score(f->links[lowest(a) * f->n + lowest(b)]);
        return sum;
}

/* ---- making it ---- */

static void place_numa(struct gpu_chooser *c, const struct gpu_fleet *f)
{
        uint32_t nodes[GPU_MAX], n = 0;

        for (size_t i = 0; i < f->n; i++) {
                uint32_t k = 0;

                while (k < n && nodes[k] != f->gpus[i].numa_node)
                        k++;
                if (k == n)
                        nodes[n++] = f->gpus[i].numa_node;
                c->numa[i] = (uint8_t) k;
        }
}

static const char *gpu_under(const struct gpu *g)
{
        return g->mig_profile && g->parent ? g->parent : g->uuid;
}

/* Place of the GPU that an instance lies on: its first instance in the fleet. */
static uint32_t first_sibling(const struct gpu_fleet *f, size_t i)
{
        uint32_t k = 0;

        while (!f->gpus[k].mig_profile || !str_eq(gpu_under(&f->gpus[k]), gpu_under(&f->gpus[i])))
                k++;
        return k;
}

static void place_instances(struct gpu_chooser *c, const struct gpu_fleet *f)
{
        for (size_t i = 0; i < f->n; i++) {
                const struct gpu *g = &f->gpus[i];
                uint32_t at;

                if (!g->mig_profile)
                        continue;
                at = first_sibling(f, i);
                c->order[i] = at << 16 | g->gi << 8 | g->ci; /* both at most 255 */
                c->siblings[at] |= 1ULL << i;
        }
        for (size_t i = 0; i < f->n; i++)
                if (f->gpus[i].mig_profile)
                        c->siblings[i] = c->siblings[first_sibling(f, i)];
}

/* @a and @b of @g are joined to every other one alike, and lie on one NUMA node. */
static bool are_twins(const struct choose_group *g, uint32_t a, uint32_t b)
{
        if (g->numa[a] != g->numa[b])
                return false;
        for (uint32_t i = 0; i < g->n; i++)
                if (i != a && i != b && g->w[a * g->n + i] != g->w[b * g->n + i])
                        return false;
        return true;
}

static void find_twins(struct choose_group *g)
{
        for (uint32_t i = 0; i < g->n; i++) {
                uint32_t k = 0;

                while (k < g->n_cls && !are_twins(g, g->first[k], i))
                        k++;
                if (k == g->n_cls)
                        g->first[g->n_cls++] = (uint8_t) i;
                g->cls[i] = (uint8_t) k;
        }
}

static int make_group(const struct gpu_chooser *c, const struct gpu_fleet *f,
                      const struct gpu_type *t, struct choose_group *g)
{
        g->members = t->members;
        g->mig = t->mig_profile;
        for (uint64_t m = t->members; m; m &= m - 1) {
                g->numa[g->n] = c->numa[lowest(m)];
                g->at[g->n++] = (uint8_t) lowest(m);
        }
        if (g->mig)
                return 0;
        g->w = calloc((size_t) g->n * g->n, sizeof *g->w);
        if (!g->w)
                return -ENOMEM;
        for (uint32_t a = 0; a < g->n; a++)
                for (uint32_t b = 0; b < g->n; b++)
                        if (a != b)
                                g->w[a * g->n + b] =
                                        gpu_pair_score(f->links[g->at[a] * f->n + g->at[b]]);
        find_twins(g);
        for (size_t i = 0; i < c->n_partitions; i++)
                if (c->partitions[i].set & g->members)
                        g->fabric = true;
        return g->n > TABLE_MAX || g->fabric ? 0 : choose_table_new(g, &g->table);
}

int gpu_chooser_new(const struct gpu_fleet *f, const struct gpu_types *types,
                    struct gpu_chooser **ret, struct err *e)
{
        AUTO(gpu_chooser_free) struct gpu_chooser *c = calloc(1, sizeof *c);

        if (!c)
                return err_set(e, -ENOMEM, "out of memory");
        c->n = f->n;
        c->groups = calloc(types->n + 1, sizeof *c->groups);
        c->partitions = calloc(f->n_partitions + 1, sizeof *c->partitions);
        if (!c->groups || !c->partitions)
                return err_set(e, -ENOMEM, "out of memory");
        place_numa(c, f);
        place_instances(c, f);
        for (size_t i = 0; i < f->n_partitions; i++)
                if (count(f->partitions[i]) >= 2)
                        c->partitions[c->n_partitions++] =
                                (struct partition){ f->partitions[i],
                                                    score_within(f, f->partitions[i]) };
        for (size_t i = 0; i < types->n; i++) {
                c->n_groups = i + 1;
                if (make_group(c, f, &types->list[i], &c->groups[i]) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        *ret = TAKE(c);
        return 0;
}

struct gpu_chooser *gpu_chooser_free(struct gpu_chooser *c)
{
        if (!c)
                return NULL;
        for (size_t i = 0; i < c->n_groups; i++) {
                free(c->groups[i].w);
                c->groups[i].table = choose_table_free(c->groups[i].table);
        }
        free(c->groups);
        free(c->partitions);
        free(c);
        return NULL;
}

/* ---- comparing ---- */

/* What is asked of one group. */
struct request {
        uint64_t avail; /* free, of this group, with what is kept */
        uint64_t keep;
        uint32_t k;
};

static uint32_t numa_nodes(const struct gpu_chooser *c, uint64_t set)
{
        uint64_t nodes = 0;

        for (; set; set &= set - 1)
                nodes |= 1ULL << c->numa[lowest(set)];
        return count(nodes);
}

static bool lower(uint64_t a, uint64_t b)
{
        uint64_t differ = a ^ b;

        return differ && a & differ & -differ;
}

/* @a before @b; one without a set is last. */
static bool is_better(const struct gpu_choice *a, const struct gpu_choice *b)
{
        if (!b->set || !a->set)
                return a->set;
        if (a->score != b->score)
                return a->score > b->score;
        if (a->loss != b->loss)
                return a->loss < b->loss;
        if (a->numa_nodes != b->numa_nodes)
                return a->numa_nodes < b->numa_nodes;
        return lower(a->set, b->set);
}

static void keep_better(struct gpu_choice *best, const struct gpu_choice *other)
{
        if (is_better(other, best))
                *best = *other;
}

/* ---- a fabric: its partitions, or one GPU by what it spoils ---- */

static void try_legal(const struct gpu_chooser *c, uint64_t set, uint64_t score, uint64_t avail,
                      struct gpu_choice *best)
{
        struct gpu_choice x = { set, score, 0, numa_nodes(c, set) };

        for (size_t i = 0; i < c->n_partitions; i++)
                if (!(c->partitions[i].set & ~avail) && c->partitions[i].set & set)
                        x.loss += c->partitions[i].score;
        keep_better(best, &x);
}

static void best_legal(const struct gpu_chooser *c, const struct request *q,
                       struct gpu_choice *best)
{
        if (q->k == 1)
                for (uint64_t m = q->keep ? q->keep : q->avail; m; m &= m - 1)
                        try_legal(c, m & -m, 0, q->avail, best);
        for (size_t i = 0; q->k > 1 && i < c->n_partitions; i++) {
                const struct partition *p = &c->partitions[i];

                if (count(p->set) == q->k && !(p->set & ~q->avail) && !(q->keep & ~p->set))
                        try_legal(c, p->set, p->score, q->avail, best);
        }
}

/* ---- instances: a GPU that is begun is used up first ---- */

/* Once for each that is missing: the order may change with each, but never away from a GPU of which
 * one was taken. */
static void best_instances(const struct gpu_chooser *c, const struct request *q, uint64_t free,
                           struct gpu_choice *best)
{
        struct gpu_choice x = { .set = q->keep };

        while (count(x.set) < q->k) {
                uint32_t first = 0;
                uint64_t least = UINT64_MAX;

                for (uint64_t m = q->avail & ~x.set; m; m &= m - 1) {
                        uint32_t i = lowest(m);
                        uint64_t key = (uint64_t) count(free & ~x.set & c->siblings[i]) << 32 |
                                       c->order[i];

                        if (key < least) {
                                least = key;
                                first = i;
                        }
                }
                x.set |= 1ULL << first;
        }
        x.numa_nodes = numa_nodes(c, x.set);
        keep_better(best, &x);
}

/* ---- twins: how many of each kind ---- */

struct twins {
        const struct gpu_chooser *chooser;
        const struct choose_group *g;
        uint32_t n;               /* kinds that are free */
        uint64_t free[GPU_MAX];   /* of a kind; positions */
        uint64_t keep[GPU_MAX];   /* of these, taken in any case */
        uint32_t size[GPU_MAX];   /* how many */
        uint32_t behind[GPU_MAX]; /* free ones of the later kinds */
        uint32_t first[GPU_MAX];  /* one of the kind, within the group */
        uint64_t degree[GPU_MAX]; /* of each one of the kind */
        uint32_t take[GPU_MAX];   /* the combination that is being looked at */
        struct gpu_choice *best;
};

static uint32_t pair(const struct twins *t, uint32_t a, uint32_t b)
{
        return t->g->w[t->first[a] * t->g->n + t->first[b]];
}

/* Score of a pair within kind @k; it has two members at least, free or not. */
static uint32_t inner(const struct twins *t, uint32_t k)
{
        uint32_t a = t->first[k], b = a + 1;

        while (b < t->g->n && t->g->cls[b] != t->g->cls[a])
                b++;
        return b < t->g->n ? t->g->w[a * t->g->n + b] : 0;
}

/* Returns how many combinations there are at most. */
static uint64_t twins_init(struct twins *t, const struct gpu_chooser *c,
                           const struct choose_group *g, const struct request *q,
                           struct gpu_choice *best)
{
        uint64_t combos = 1, of_cls[GPU_MAX] = { 0 };

        t->chooser = c;
        t->g = g;
        t->best = best;
        t->n = 0;
        for (uint32_t i = 0; i < g->n; i++)
                if (q->avail >> g->at[i] & 1)
                        of_cls[g->cls[i]] |= 1ULL << g->at[i];
        for (uint32_t k = 0; k < g->n_cls; k++) {
                if (!of_cls[k])
                        continue;
                t->free[t->n] = of_cls[k];
                t->keep[t->n] = of_cls[k] & q->keep;
                t->size[t->n] = count(of_cls[k]);
                t->first[t->n] = g->first[k];
                combos *= t->size[t->n++] + 1;
                if (combos > COMBOS_MAX)
                        return combos;
        }
        return combos;
}

static void twins_degrees(struct twins *t)
{
        for (uint32_t a = t->n; a-- > 0;) {
                t->behind[a] = a + 1 < t->n ? t->behind[a + 1] + t->size[a + 1] : 0;
                t->degree[a] = t->size[a] > 1 ? (uint64_t) (t->size[a] - 1) * inner(t, a) : 0;
                for (uint32_t b = 0; b < t->n; b++)
                        if (a != b)
                                t->degree[a] += (uint64_t) t->size[b] * pair(t, a, b);
        }
}

static uint64_t lowest_of(uint64_t set, uint32_t n)
{
        uint64_t ret = 0;

        for (; n > 0; n--, set &= set - 1)
                ret |= set & -set;
        return ret;
}

/* A combination is complete; most lose by score. */
static void twins_try(struct twins *t, uint64_t score, uint64_t degrees)
{
        struct gpu_choice x = { 0, score, degrees - score, 0 };

        if (t->best->set &&
            (score < t->best->score || (score == t->best->score && x.loss > t->best->loss)))
                return;
        for (uint32_t k = 0; k < t->n; k++)
                x.set |= t->keep[k] |
                         lowest_of(t->free[k] & ~t->keep[k], t->take[k] - count(t->keep[k]));
        x.numa_nodes = numa_nodes(t->chooser, x.set);
        keep_better(t->best, &x);
}

/* Kinds before @k are decided; @left are still to be taken. */
static void twins_walk(struct twins *t, uint32_t k, uint32_t left, uint64_t score, uint64_t degrees)
{
        uint64_t to_earlier = 0;
        uint32_t least, most, of_two;

        if (k == t->n) {
                twins_try(t, score, degrees);
                return;
        }
        least = left > t->behind[k] ? left - t->behind[k] : 0;
        if (least < count(t->keep[k]))
                least = count(t->keep[k]);
        most = left < t->size[k] ? left : t->size[k];
        of_two = most > 1 ? inner(t, k) : 0;
        for (uint32_t i = 0; i < k; i++)
                if (t->take[i])
                        to_earlier += (uint64_t) t->take[i] * pair(t, i, k);
        for (uint32_t n = least; n <= most; n++) {
                t->take[k] = n;
                twins_walk(t, k + 1, left - n,
                           score + n * to_earlier + (uint64_t) n * (n ? n - 1 : 0) / 2 * of_two,
                           degrees + n * t->degree[k]);
        }
        t->take[k] = 0;
}

/* ---- one set ---- */

static void try_set(const struct gpu_chooser *c, const struct choose_group *g, uint64_t avail,
                    uint64_t set, struct gpu_choice *best)
{
        struct gpu_choice x = { set, 0, 0, numa_nodes(c, set) };
        uint64_t twice = 0, degrees = 0;

        for (uint32_t a = 0; a < g->n; a++) {
                if (!(set >> g->at[a] & 1))
                        continue;
                for (uint32_t b = 0; b < g->n; b++) {
                        twice += set >> g->at[b] & 1 ? g->w[a * g->n + b] : 0;
                        degrees += avail >> g->at[b] & 1 ? g->w[a * g->n + b] : 0;
                }
        }
        x.score = twice / 2; /* each pair from both ends */
        x.loss = degrees - x.score;
        keep_better(best, &x);
}

static void best_of_table(const struct gpu_chooser *c, const struct choose_group *g,
                          const struct request *q, struct gpu_choice *best)
{
        uint32_t free = 0, keep = 0, s;
        uint64_t set = 0;

        for (uint32_t i = 0; i < g->n; i++) {
                free |= (uint32_t) (q->avail >> g->at[i] & 1) << i;
                keep |= (uint32_t) (q->keep >> g->at[i] & 1) << i;
        }
        s = choose_table_best(g->table, g, free, keep, q->k);
        for (; s; s &= s - 1)
                set |= 1ULL << g->at[__builtin_ctz(s)];
        try_set(c, g, q->avail, set, best);
}

/* ---- choosing ---- */

static int best_joined(const struct gpu_chooser *c, const struct choose_group *g,
                       const struct request *q, struct gpu_choice *best)
{
        struct twins t;

        if (q->k == count(q->avail) || q->k == count(q->keep)) {
                try_set(c, g, q->avail, q->k == count(q->keep) ? q->keep : q->avail, best);
                return 0;
        }
        if (g->table) {
                best_of_table(c, g, q, best);
        } else if (twins_init(&t, c, g, q, best) <= COMBOS_MAX) {
                twins_degrees(&t);
                twins_walk(&t, 0, q->k, 0, 0);
        } else if (q->k == 1) {
                for (uint64_t m = q->avail; m; m &= m - 1)
                        try_set(c, g, q->avail, m & -m, best);
        } else {
                return -E2BIG;
        }
        return 0;
}

static int best_of_group(const struct gpu_chooser *c, const struct choose_group *g, uint64_t free,
                         uint64_t keep, uint32_t k, struct gpu_choice *best)
{
        struct request q = { (free | keep) & g->members, keep, k };

        if (count(q.avail) < k || keep & ~g->members || count(keep) > k)
                return 0;
        if (g->mig)
                best_instances(c, &q, free, best);
        else if (g->fabric)
                best_legal(c, &q, best);
        else
                return best_joined(c, g, &q, best);
        return 0;
}

/* "2, 4 or 8": into how many GPUs of @members the fabric can be divided; whether @k is among them. */
static bool legal_sizes(const struct gpu_chooser *c, uint64_t members, uint32_t k, char *text,
                        size_t len)
{
        uint64_t sizes = 0; /* bit i: i + 1 */
        size_t at = 0;

        for (size_t i = 0; i < c->n_partitions; i++)
                if (!(c->partitions[i].set & ~members))
                        sizes |= 1ULL << (count(c->partitions[i].set) - 1);
        text[0] = '\0';
        for (uint64_t m = sizes; m && at < len; m &= m - 1)
                at += (size_t) snprintf(text + at, len - at, "%s%u",
                                        !at           ? ""
                                        : m & (m - 1) ? ", "
                                                      : " or ",
                                        lowest(m) + 1);
        return sizes >> (k - 1) & 1;
}

static int none(const struct gpu_chooser *c, uint64_t free, uint64_t wanted, uint64_t keep,
                uint32_t k, struct err *e)
{
        uint32_t most = 0;
        bool fabric = false, legal = false;
        char sizes[300] = "", text[300];

        for (const struct choose_group *g = c->groups; g < c->groups + c->n_groups; g++) {
                if (!(g->members & wanted))
                        continue;
                if (count((free | keep) & g->members) > most)
                        most = count((free | keep) & g->members);
                if (!g->fabric || k < 2)
                        continue;
                fabric = true;
                if (legal_sizes(c, g->members, k, text, sizeof text))
                        legal = true;
                if (*text)
                        (void) snprintf(sizes, sizeof sizes, "%s", text);
        }
        if (fabric && !legal && *sizes)
                return err_set(
                        e, -EINVAL,
                        "the NVSwitch fabric of this host is divided into sets of %s, not %u",
                        sizes, k);
        if (most < k || !fabric)
                return err_set(e, -ENOSPC, "%u of one type are free", most);
        return err_set(e, -ENOSPC,
                       "%u are free, but no %u of them are a set of the NVSwitch fabric", most, k);
}

int gpu_choose(const struct gpu_chooser *c, uint64_t free, uint64_t wanted, uint64_t keep,
               uint32_t k, struct gpu_choice *ret, struct err *e)
{
        struct gpu_choice best = { 0 };
        int r = 0;

        for (size_t i = 0; k > 0 && r >= 0 && i < c->n_groups; i++)
                if (c->groups[i].members & wanted)
                        r = best_of_group(c, &c->groups[i], free, keep, k, &best);
        if (r < 0)
                return err_set(
                        e, r,
                        "the best of more than %u GPUs that are joined in so many ways cannot be found; 1 or all that are free can be had",
                        TABLE_MAX);
        if (k > 0 && !best.set)
                return none(c, free, wanted, keep, k, e);
        *ret = best;
        return 0;
}
