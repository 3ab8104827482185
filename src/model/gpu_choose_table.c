/* gpu_choose_table.c - all subsets of up to 16 GPUs, sorted; see gpu_choose.h.  Pure.
 *
 * Twins are interchangeable, so of those subsets that differ in twins alone one is kept: with the first
 * of each kind.  What is free is looked at as if it were the first of each kind, too, and the answer is
 * turned back into those that are; so machines of many equals have short lists.
 *
 * For each k there is one list of the subsets of k GPUs, as 16-bit sets: best score first, with equal
 * scores the fewer NUMA nodes, then the lower positions.  The longest (25 KiB for 8 of 16 that are all
 * different) lies in the first-level cache, and looking for the first subset of what is free is a pass
 * of a few vector instructions over it.
 *
 * Of several with the same score the least loss wins.  Loss = V(A) - V(A without S), and the degrees
 * of S's GPUs within A (the scores of their pairs with all of A) add up to twice the pairs within S
 * and once those out of it.  So with equal scores loss is the sum of degrees, a number per GPU. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/gpu_choose_priv.h"

#define VEC 16 /* sets per vector */
typedef uint16_t vec __attribute__((vector_size(VEC * sizeof(uint16_t))));
typedef int16_t vec_mask __attribute__((vector_size(VEC * sizeof(uint16_t))));

struct choose_table {
        uint32_t start[TABLE_MAX + 2]; /* of the list for k in `sets` */
        uint16_t *sets;
        uint64_t *last_score; /* one bit per place: the next one has another score */
        uint64_t *last_numa;  /* ... or other NUMA nodes */
};

struct choose_table *choose_table_free(struct choose_table *t)
{
        if (t) {
                free(t->sets);
                free(t->last_score);
                free(t->last_numa);
        }
        free(t);
        return NULL;
}

DEFINE_AUTO(struct choose_table *, choose_table_free)

/* ---- making it ---- */

/* One number by which a list is sorted, smaller first: 31 bits of score, 5 of NUMA nodes, 16 of
 * positions.  120 pairs of 65 NVLinks stay below 2^27. */
#define SCORE_TOP   ((1U << 31) - 1)
#define NUMA_SHIFT  16U
#define SCORE_SHIFT 21U

static uint32_t reverse16(uint32_t s)
{
        uint32_t r = 0;

        for (uint32_t i = 0; i < 16; i++)
                r |= (s >> i & 1) << (15 - i);
        return r;
}

static uint32_t numa_nodes(const struct choose_group *g, uint32_t s)
{
        uint64_t nodes = 0;

        for (; s; s &= s - 1)
                nodes |= 1ULL << g->numa[__builtin_ctz(s)];
        return (uint32_t) __builtin_popcountll(nodes);
}

/* From the score of the set without its lowest GPU. */
static uint32_t score_of(const struct choose_group *g, const uint32_t *score, uint32_t s)
{
        uint32_t rest = s & (s - 1), sum = rest ? score[rest] : 0;
        const uint32_t *row = s ? &g->w[(uint32_t) __builtin_ctz(s) * g->n] : NULL;

        for (; rest; rest &= rest - 1)
                sum += row[__builtin_ctz(rest)];
        return sum;
}

static int by_key(const void *a, const void *b)
{
        uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;

        return x < y ? -1 : x > y;
}

/* Lowest positions first is highest reversed bits first. */
static uint64_t key_of(const struct choose_group *g, uint32_t score, uint32_t s)
{
        return (uint64_t) (SCORE_TOP - score) << SCORE_SHIFT |
               (uint64_t) numa_nodes(g, s) << NUMA_SHIFT | (0xffffU - reverse16(s));
}

/* Every GPU that has a twin before it, and that twin. */
static uint32_t find_earlier(const struct choose_group *g, uint8_t *ret)
{
        uint32_t set = 0;

        for (uint32_t i = 0; i < g->n; i++)
                for (uint32_t k = 0; k < i; k++)
                        if (g->cls[k] == g->cls[i]) {
                                ret[i] = (uint8_t) k;
                                set |= 1U << i;
                        }
        return set;
}

/* Of each kind of twins @s has the first ones; @with: those that have an @earlier one. */
static bool has_first_ones(uint32_t s, uint32_t with, const uint8_t *earlier)
{
        for (uint32_t m = s & with; m; m &= m - 1)
                if (!(s >> earlier[__builtin_ctz(m)] & 1))
                        return false;
        return true;
}

static void set_bit(uint64_t *bits, uint32_t i, bool on)
{
        if (on)
                bits[i / 64] |= 1ULL << i % 64;
}

static void sort_list(struct choose_table *t, uint64_t *keys, uint32_t from, uint32_t end)
{
        qsort(keys + from, end - from, sizeof *keys, by_key);
        for (uint32_t i = from; i < end; i++) {
                uint64_t next = i + 1 < end ? keys[i + 1] : UINT64_MAX;

                t->sets[i] = (uint16_t) reverse16(0xffffU - (keys[i] & 0xffffU));
                set_bit(t->last_score, i, keys[i] >> SCORE_SHIFT != next >> SCORE_SHIFT);
                set_bit(t->last_numa, i, keys[i] >> NUMA_SHIFT != next >> NUMA_SHIFT);
        }
}

static void fill(struct choose_table *t, const struct choose_group *g, uint32_t *score,
                 uint64_t *keys)
{
        uint32_t all = 1U << g->n, next[TABLE_MAX + 2];
        uint8_t earlier[TABLE_MAX];
        uint32_t with = find_earlier(g, earlier);

        for (uint32_t s = 0; s < all; s++)
                if (has_first_ones(s, with, earlier))
                        t->start[(uint32_t) __builtin_popcount(s) + 1]++;
        for (uint32_t k = 0; k <= g->n; k++)
                t->start[k + 1] += t->start[k];
        memcpy(next, t->start, sizeof next);
        for (uint32_t s = 0; s < all; s++) {
                score[s] = score_of(g, score, s);
                if (has_first_ones(s, with, earlier))
                        keys[next[__builtin_popcount(s)]++] = key_of(g, score[s], s);
        }
        for (uint32_t k = 0; k <= g->n; k++)
                sort_list(t, keys, t->start[k], t->start[k + 1]);
}

int choose_table_new(const struct choose_group *g, struct choose_table **ret)
{
        AUTO(choose_table_free) struct choose_table *t = calloc(1, sizeof *t);
        size_t all = (size_t) 1 << g->n;
        AUTO(free) uint32_t *score = calloc(all, sizeof *score);
        AUTO(free) uint64_t *keys = calloc(all, sizeof *keys);

        if (!t || !score || !keys)
                return -ENOMEM;
        t->sets = calloc(all, sizeof *t->sets);
        t->last_score = calloc(all / 64 + 1, sizeof *t->last_score);
        t->last_numa = calloc(all / 64 + 1, sizeof *t->last_numa);
        if (!t->sets || !t->last_score || !t->last_numa)
                return -ENOMEM;
        fill(t, g, score, keys);
        *ret = TAKE(t);
        return 0;
}

/* ---- looking it up ---- */

/* What a set must be like: with these bits, `care`, as in `want`. */
struct filter {
        uint16_t care, want;
};

static bool fits(struct filter f, uint16_t set)
{
        return ((set ^ f.want) & f.care) == 0;
}

/* The first place from @i on whose set fits; @end: none. */
static uint32_t next_fit(const uint16_t *sets, uint32_t i, uint32_t end, struct filter f)
{
        for (; i + 4 * VEC <= end; i += 4 * VEC) {
                vec v[4];
                vec_mask m;
                uint64_t hit[sizeof m / 8];

                memcpy(v, sets + i, sizeof v);
                m = (((v[0] ^ f.want) & f.care) == 0) | (((v[1] ^ f.want) & f.care) == 0) |
                    (((v[2] ^ f.want) & f.care) == 0) | (((v[3] ^ f.want) & f.care) == 0);
                memcpy(hit, &m, sizeof hit);
                if (hit[0] | hit[1] | hit[2] | hit[3])
                        break;
        }
        while (i < end && !fits(f, sets[i]))
                i++;
        return i;
}

/* The last place that is as place @i. */
static uint32_t run_end(const uint64_t *last, uint32_t i)
{
        uint32_t word = i / 64;
        uint64_t bits = last[word] & ~0ULL << i % 64;

        while (!bits)
                bits = last[++word];
        return word * 64 + (uint32_t) __builtin_ctzll(bits);
}

/* A request in terms of first ones, and the way back. */
struct question {
        uint32_t free, keep;
        uint32_t deg[TABLE_MAX];  /* of a first one, within what is free */
        uint16_t real[TABLE_MAX]; /* the GPU that a first one stands for, as a set */
        bool same;                /* they stand for themselves */
};

/* @of: of each kind, the free ones that are not kept, or those that are; they follow each other. */
static void stand_for(struct question *q, const struct choose_group *g, uint32_t of, bool kept,
                      uint32_t *next)
{
        for (; of; of &= of - 1) {
                uint32_t i = (uint32_t) __builtin_ctz(of), first = next[g->cls[i]];

                q->real[first] = (uint16_t) (1U << i);
                q->free |= 1U << first;
                q->keep |= kept ? 1U << first : 0;
                q->same = q->same && first == i;
                do
                        first++;
                while (first < g->n && g->cls[first] != g->cls[i]);
                next[g->cls[i]] = first;
        }
}

static void ask(struct question *q, const struct choose_group *g, uint32_t free, uint32_t keep)
{
        uint32_t next[TABLE_MAX];

        *q = (struct question){ .same = true };
        for (uint32_t k = 0; k < g->n_cls; k++)
                next[k] = g->first[k];
        stand_for(q, g, keep, true, next);
        stand_for(q, g, free & ~keep, false, next);
}

/* The degrees, and the least that those of @k can add up to. */
static uint32_t degrees(struct question *q, const struct choose_group *g, uint32_t k)
{
        uint32_t sorted[TABLE_MAX] = { 0 }, n = 0, least = 0;

        for (uint32_t a = q->free; a; a &= a - 1) {
                uint32_t i = (uint32_t) __builtin_ctz(a), sum = 0, at = n++;
                const uint32_t *row = &g->w[i * g->n];

                for (uint32_t b = q->free & ~(1U << i); b; b &= b - 1)
                        sum += row[__builtin_ctz(b)];
                q->deg[i] = sum;
                for (; at > 0 && sorted[at - 1] > sum; at--)
                        sorted[at] = sorted[at - 1];
                sorted[at] = sum;
        }
        for (uint32_t i = 0; i < k; i++)
                least += sorted[i];
        return least;
}

/* For every low and every high byte of a set: its degrees added up, above 16 bits of real GPUs. */
static void sum_bytes(const struct question *q, uint64_t sums[2][256])
{
        for (uint32_t half = 0; half < 2; half++) {
                sums[half][0] = 0;
                for (uint32_t s = 1; s < 256; s++) {
                        uint32_t i = 8 * half + (uint32_t) __builtin_ctz(s);

                        sums[half][s] =
                                sums[half][s & (s - 1)] + ((uint64_t) q->deg[i] << 16 | q->real[i]);
                }
        }
}

static uint64_t sum_of(uint64_t sums[2][256], uint16_t set)
{
        return sums[0][set & 255] + sums[1][set >> 8];
}

static bool lower(uint64_t a, uint64_t b)
{
        uint64_t differ = (a ^ b) & 0xffff;

        return a & differ & -differ;
}

/* Of the equals from place @i to before @end the one of the least degrees. */
static uint32_t best_of_equals(const struct choose_table *t, const struct question *q,
                               struct filter f, uint32_t i, uint32_t end, uint32_t least)
{
        uint64_t sums[2][256], best;
        uint32_t numa_end = run_end(t->last_numa, i);

        sum_bytes(q, sums);
        best = sum_of(sums, t->sets[i]);
        while (++i < end) {
                uint64_t sum;

                if (best >> 16 == least && (q->same || i > numa_end))
                        break; /* what follows is worse in the next respect */
                if (!fits(f, t->sets[i])) {
                        i = next_fit(t->sets, i, end, f);
                        if (i == end)
                                break;
                }
                sum = sum_of(sums, t->sets[i]);
                if (sum >> 16 > best >> 16)
                        continue;
                if (sum >> 16 == best >> 16 && (q->same || i > numa_end || !lower(sum, best)))
                        continue;
                best = sum;
                numa_end = run_end(t->last_numa, i);
        }
        return (uint32_t) (best & 0xffff);
}

uint32_t choose_table_best(const struct choose_table *t, const struct choose_group *g,
                           uint32_t free, uint32_t keep, uint32_t k)
{
        struct question q;
        struct filter f;
        uint32_t i, end, set = 0, at_first = 0, least;

        ask(&q, g, free, keep);
        f = (struct filter){ (uint16_t) (~q.free | q.keep), (uint16_t) q.keep };
        i = next_fit(t->sets, t->start[k], t->start[k + 1], f);
        end = run_end(t->last_score, i) + 1;
        if (next_fit(t->sets, i + 1, end, f) < end) {
                least = degrees(&q, g, k);
                for (uint32_t s = t->sets[i]; s; s &= s - 1)
                        at_first += q.deg[__builtin_ctz(s)];
                if (!q.same || at_first != least)
                        return best_of_equals(t, &q, f, i, end, least);
        }
        for (uint32_t s = t->sets[i]; s; s &= s - 1)
                set |= q.real[__builtin_ctz(s)];
        return set;
}
