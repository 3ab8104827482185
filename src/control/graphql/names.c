/* names.c - lists of named things of a schema: in order, by name, and the nearest one for
 * "did you mean".  API program; pure. */
#include <errno.h>

#include "control/graphql/schema.h"

void names_add(struct names *l, struct named *n)
{
        if (!l->tail)
                l->tail = &l->first;
        *l->tail = n;
        l->tail = &n->next;
        l->n++;
}

static int compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
        if (a_len != b_len)
                return a_len < b_len ? -1 : 1;
        return memcmp(a, b, a_len);
}

static int by_name(const void *x, const void *y)
{
        const struct named *const *a = x, *const *b = y;

        return compare((*a)->name, (*a)->len, (*b)->name, (*b)->len);
}

int names_index(struct names *l, struct arena *a, struct err *e)
{
        size_t i = 0;

        l->sorted = arena_array(a, l->n + 1, sizeof(struct named *));
        if (!l->sorted)
                return err_set(e, -ENOMEM, "out of memory");
        for (struct named *n = l->first; n; n = n->next)
                l->sorted[i++] = n;
        if (i > 0)
                qsort(l->sorted, i, sizeof(struct named *), by_name);
        for (size_t k = 1; k < i; k++)
                if (by_name(&l->sorted[k - 1], &l->sorted[k]) == 0)
                        return err_set(e, -EINVAL, "\"%s\" is there twice", l->sorted[k]->name);
        return 0;
}

void *names_find(const struct names *l, const char *name, size_t len)
{
        size_t lo = 0, hi = l->n;

        while (lo < hi) {
                size_t mid = lo + (hi - lo) / 2;
                int c = compare(name, len, l->sorted[mid]->name, l->sorted[mid]->len);

                if (c == 0)
                        return l->sorted[mid];
                if (c < 0)
                        hi = mid;
                else
                        lo = mid + 1;
        }
        return NULL;
}

#define NEAREST_LEN 64U

static char lower(char c)
{
        return (char) (c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
        unsigned m = a < b ? a : b;

        return m < c ? m : c;
}

/* Edit distance, case ignored; both at most NEAREST_LEN bytes. */
static unsigned distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
        unsigned row[NEAREST_LEN + 1];

        for (unsigned j = 0; j <= b_len; j++)
                row[j] = j;
        for (unsigned i = 1; i <= a_len; i++) {
                unsigned diagonal = row[0];

                row[0] = i;
                for (unsigned j = 1; j <= b_len; j++) {
                        unsigned cost = lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1;
                        unsigned above = row[j];

                        row[j] = min3(above + 1, row[j - 1] + 1, diagonal + cost);
                        diagonal = above;
                }
        }
        return row[b_len];
}

const struct named *names_nearest(const struct names *l, const char *name, size_t len)
{
        const struct named *best = NULL;
        unsigned least = 1 + (unsigned) (len < 24 ? len / 3 : 8);

        if (len > NEAREST_LEN)
                return NULL;
        for (const struct named *n = l->first; n; n = n->next) {
                unsigned d;

                if (n->len > NEAREST_LEN)
                        continue;
                d = distance(name, len, n->name, n->len);
                if (d < least || (d == least && !best)) {
                        least = d;
                        best = n;
                }
        }
        return best;
}
