/* bench_gpu_choose.c - how long choosing takes, at its worst: many shapes of link tables, each with
 * everything free and with many random free sets.  Beside it a plain full enumeration, which must give
 * the same answer.  Prints "NAME WORST MEDIAN PEER-MEDIAN" in
 * microseconds per line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/str.h"
#include "model/gpu_choose.h"

#define REPEAT 9 /* the least of so many counts for one case */
#define SETS   60

static uint64_t now_ns(void)
{
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000000ULL + (uint64_t) t.tv_nsec;
}

static uint32_t seed = 12345;

static uint32_t rnd(uint32_t n)
{
        seed = seed * 1664525U + 1013904223U;
        return (uint32_t) ((uint64_t) (seed >> 8) * n >> 24);
}

/* ---- shapes ---- */

typedef struct gpu_link shape_fn(uint32_t a, uint32_t b, uint32_t n);

static struct gpu_link nv(bool yes, uint8_t links)
{
        return (struct gpu_link){ .path = GP_SYS, .nvlinks = yes ? links : 0 };
}

static struct gpu_link all_alike(uint32_t a, uint32_t b, uint32_t n)
{
        (void) a;
        (void) b;
        (void) n;
        return nv(true, 12);
}

static struct gpu_link pairs(uint32_t a, uint32_t b, uint32_t n)
{
        (void) n;
        return nv(a / 2 == b / 2, 4);
}

static struct gpu_link quads(uint32_t a, uint32_t b, uint32_t n)
{
        (void) n;
        return nv(a / 4 == b / 4, 4);
}

static struct gpu_link star(uint32_t a, uint32_t b, uint32_t n)
{
        (void) n;
        return nv(a == 0 || b == 0, 4);
}

static struct gpu_link ring(uint32_t a, uint32_t b, uint32_t n)
{
        return nv((a + 1) % n == b || (b + 1) % n == a, 4);
}

static struct gpu_link cube(uint32_t a, uint32_t b, uint32_t n)
{
        (void) n;
        return nv(__builtin_popcount(a ^ b) == 1, 4);
}

static struct gpu_link both_sides(uint32_t a, uint32_t b, uint32_t n)
{
        (void) n;
        return nv(a % 2 != b % 2, 4);
}

static struct gpu_link few_edges(uint32_t a, uint32_t b, uint32_t n)
{
        (void) a;
        (void) b;
        (void) n;
        return nv(rnd(10) == 0, 4);
}

static struct gpu_link two_kinds(uint32_t a, uint32_t b, uint32_t n)
{
        (void) a;
        (void) b;
        (void) n;
        return nv(rnd(2), 4);
}

static struct gpu_link anything(uint32_t a, uint32_t b, uint32_t n)
{
        (void) a;
        (void) b;
        (void) n;
        return (struct gpu_link){ .path = (uint8_t) (GP_SYS + rnd(5)),
                                  .nvlinks = (uint8_t) rnd(19) };
}

static struct gpu_link nothing_but(uint32_t a, uint32_t b, uint32_t n)
{
        (void) n;
        return nv(a < 5 && b < 5 && rnd(2), 4); /* five that differ, and many without a link */
}

static const struct {
        const char *name;
        shape_fn *link;
} shapes[] = {
        { "alike", all_alike },     { "pairs", pairs },     { "quads", quads },
        { "star", star },           { "ring", ring },       { "cube", cube },
        { "sides", both_sides },    { "few", few_edges },   { "two kinds", two_kinds },
        { "random", anything },     { "random", anything }, { "random", anything },
        { "two kinds", two_kinds }, { "few", few_edges },   { "five", nothing_but },
};

static void make(struct gpu_fleet *f, uint32_t n, shape_fn *link)
{
        *f = (struct gpu_fleet){ .gpus = calloc(n, sizeof *f->gpus),
                                 .n = n,
                                 .links = calloc((size_t) n * n, sizeof *f->links) };
        if (!f->gpus || !f->links)
                exit(1);
        for (uint32_t a = 0; a < n; a++) {
                f->gpus[a] = (struct gpu){ .uuid = str_fmt("GPU-%u", a),
                                           .name = strdup("NVIDIA H100 80GB HBM3"),
                                           .state = GS_OK,
                                           .numa_node = a * 2 / n };
                for (uint32_t b = 0; b < a; b++)
                        f->links[a * n + b] = f->links[b * n + a] = link(a, b, n);
        }
}

/* ---- the peer: look at every subset ---- */

static uint64_t pair_sum(const struct gpu_fleet *f, uint64_t set)
{
        uint64_t sum = 0;

        for (uint64_t a = set; a; a &= a - 1)
                for (uint64_t b = a & (a - 1); b; b &= b - 1)
                        sum += gpu_pair_score(f->links[(uint32_t) __builtin_ctzll(a) * f->n +
                                                       (uint32_t) __builtin_ctzll(b)]);
        return sum;
}

static uint32_t node_count(const struct gpu_fleet *f, uint64_t set)
{
        uint64_t nodes = 0;

        for (; set; set &= set - 1)
                nodes |= 1ULL << f->gpus[__builtin_ctzll(set)].numa_node;
        return (uint32_t) __builtin_popcountll(nodes);
}

static uint64_t peer(const struct gpu_fleet *f, uint64_t avail, uint32_t k)
{
        uint64_t best = 0, top = 0, left = 0;

        for (uint64_t s = (1ULL << k) - 1; s < 1ULL << f->n;) {
                uint64_t low = s & -s, up = s + low, score, rest, differ;

                if (!(s & ~avail)) {
                        score = pair_sum(f, s);
                        rest = !best || score >= top ? pair_sum(f, avail & ~s) : 0;
                        differ = s ^ best;
                        if (!best || score > top ||
                            (score == top &&
                             (rest > left ||
                              (rest == left && (node_count(f, s) < node_count(f, best) ||
                                                (node_count(f, s) == node_count(f, best) &&
                                                 s & differ & -differ)))))) {
                                best = s;
                                top = score;
                                left = rest;
                        }
                }
                s = up | ((s ^ up) / low >> 2);
        }
        return best;
}

/* ---- measuring ---- */

struct times {
        double ours[16384], peer[16384];
        size_t n;
};

static void one(const struct gpu_fleet *f, const struct gpu_chooser *c, uint64_t avail, uint32_t k,
                struct times *t, const char *name)
{
        uint64_t least = UINT64_MAX, start = now_ns(), want = peer(f, avail, k);
        struct gpu_choice x = { 0 };

        t->peer[t->n] = (double) (now_ns() - start) / 1000;
        for (int i = 0; i < REPEAT; i++) {
                uint64_t took;

                start = now_ns();
                if (gpu_choose(c, avail, ~0ULL, 0, k, &x, NULL) < 0)
                        exit(1);
                took = now_ns() - start;
                least = took < least ? took : least;
        }
        if (x.set != want) {
                fprintf(stderr, "bench_gpu_choose: %s: %llx is not %llx (%u of %llx)\n", name,
                        (unsigned long long) x.set, (unsigned long long) want, k,
                        (unsigned long long) avail);
                exit(1);
        }
        t->ours[t->n++] = (double) least / 1000;
}

static int by_size(const void *a, const void *b)
{
        double x = *(const double *) a, y = *(const double *) b;

        return x < y ? -1 : x > y;
}

/* @k 0: every size. */
static void measure(const char *name, uint32_t n, uint32_t k)
{
        static struct times t;

        memset(&t, 0, sizeof t);
        for (size_t s = 0; s < NELEM(shapes); s++) {
                struct gpu_fleet f;
                struct gpu_types types;
                struct gpu_chooser *c = NULL;

                make(&f, n, shapes[s].link);
                if (gpu_types_init(&f, &types, NULL) < 0 ||
                    gpu_chooser_new(&f, &types, &c, NULL) < 0)
                        exit(1);
                for (uint32_t i = 0; i < SETS; i++) {
                        uint64_t avail = (1ULL << n) - 1;

                        for (uint32_t b = 0; i > 0 && b < n; b++)
                                if (rnd(i % 2 ? 8 : 3) == 0)
                                        avail &= ~(1ULL << b);
                        for (uint32_t size = k ? k : 1; size <= (k ? k : n); size++)
                                if ((uint32_t) __builtin_popcountll(avail) >= size)
                                        one(&f, c, avail, size, &t, shapes[s].name);
                }
                (void) gpu_chooser_free(c);
                gpu_types_done(&types);
                gpu_fleet_done(&f);
        }
        qsort(t.ours, t.n, sizeof *t.ours, by_size);
        qsort(t.peer, t.n, sizeof *t.peer, by_size);
        printf("%s %.3f %.3f %.3f\n", name, t.ours[t.n - 1], t.ours[t.n / 2], t.peer[t.n / 2]);
}

static void measure_making(void)
{
        struct gpu_fleet f;
        struct gpu_types types;
        struct gpu_chooser *c = NULL;
        uint64_t start;

        make(&f, 16, anything);
        start = now_ns();
        if (gpu_types_init(&f, &types, NULL) < 0 || gpu_chooser_new(&f, &types, &c, NULL) < 0)
                exit(1);
        printf("table_16 %.3f\n", (double) (now_ns() - start) / 1000);
        (void) gpu_chooser_free(c);
        gpu_types_done(&types);
        gpu_fleet_done(&f);
}

int main(void)
{
        measure("choose_8", 8, 0);
        measure("choose_16", 16, 8);
        measure("choose_16_any", 16, 0);
        measure_making();
        return 0;
}
