/* map.c - see map.h.  Chained hash table whose entries also form a list in order of arrival.
 * Any program; one thread per map. */
#include "base/map.h"

#include <errno.h>
#include <stdint.h>

#include "base/proc.h"

struct map_entry {
        struct map_entry *chain;       /* same bucket */
        struct map_entry *prev, *next; /* order of arrival */
        uint64_t hash;
        void *value;
        char key[];
};

struct map {
        struct map_entry **bucket;
        size_t n_buckets, len; /* n_buckets is a power of two */
        struct map_entry *first, *last;
        uint64_t seed;
};

#define FIRST_BUCKETS 16U

/* FNV-1a over a seeded start, mixed at the end: short keys, no adversary who sees timing of it. */
static uint64_t hash_of(const struct map *m, const char *key)
{
        uint64_t h = m->seed ^ 0xcbf29ce484222325ULL;

        for (; *key; key++)
                h = (h ^ (unsigned char) *key) * 0x100000001b3ULL;
        h ^= h >> 32;
        h *= 0x9e3779b97f4a7c15ULL;
        return h ^ (h >> 29);
}

struct map *map_new(void)
{
        AUTO(map_free) struct map *m = calloc(1, sizeof *m);

        if (!m)
                return NULL;
        m->bucket = calloc(FIRST_BUCKETS, sizeof(struct map_entry *));
        m->n_buckets = FIRST_BUCKETS;
        if (!m->bucket || rand_bytes(&m->seed, sizeof m->seed) < 0)
                return NULL;
        return TAKE(m);
}

struct map *map_free(struct map *m)
{
        if (!m)
                return NULL;
        while (m->first) {
                struct map_entry *next = m->first->next;

                free(m->first);
                m->first = next;
        }
        free(m->bucket);
        free(m);
        return NULL;
}

/* The link that points at @key's entry, or at the NULL where it would go. */
static struct map_entry **slot_of(const struct map *m, const char *key, uint64_t hash)
{
        struct map_entry **at = &m->bucket[hash & (m->n_buckets - 1)];

        while (*at && ((*at)->hash != hash || strcmp((*at)->key, key) != 0))
                at = &(*at)->chain;
        return at;
}

static int grow(struct map *m)
{
        size_t n = m->n_buckets * 2;
        struct map_entry **bucket = calloc(n, sizeof(struct map_entry *));

        if (!bucket)
                return -ENOMEM;
        for (struct map_entry *e = m->first; e; e = e->next) {
                e->chain = bucket[e->hash & (n - 1)];
                bucket[e->hash & (n - 1)] = e;
        }
        free(m->bucket);
        m->bucket = bucket;
        m->n_buckets = n;
        return 0;
}

int map_set(struct map *m, const char *key, void *value)
{
        uint64_t hash = hash_of(m, key);
        struct map_entry **at = slot_of(m, key, hash), *e;
        size_t len = strlen(key) + 1;

        if (*at) {
                (*at)->value = value;
                return 0;
        }
        e = calloc(1, sizeof *e + len);
        if (!e)
                return -ENOMEM;
        memcpy(e->key, key, len);
        e->hash = hash;
        e->value = value;
        *at = e;
        e->prev = m->last;
        if (m->last)
                m->last->next = e;
        else
                m->first = e;
        m->last = e;
        if (++m->len > m->n_buckets)
                (void) grow(m); /* longer chains when memory is short, nothing worse */
        return 0;
}

void *map_get(const struct map *m, const char *key)
{
        const struct map_entry *e = key ? *slot_of(m, key, hash_of(m, key)) : NULL;

        return e ? e->value : NULL;
}

void *map_del(struct map *m, const char *key)
{
        struct map_entry **at = slot_of(m, key, hash_of(m, key)), *e = *at;
        void *value;

        if (!e)
                return NULL;
        *at = e->chain;
        if (e->prev)
                e->prev->next = e->next;
        else
                m->first = e->next;
        if (e->next)
                e->next->prev = e->prev;
        else
                m->last = e->prev;
        m->len--;
        value = e->value;
        free(e);
        return value;
}

size_t map_len(const struct map *m)
{
        return m->len;
}

struct map_entry *map_first(const struct map *m)
{
        return m->first;
}

struct map_entry *map_next(const struct map_entry *e)
{
        return e->next;
}

const char *map_key(const struct map_entry *e)
{
        return e->key;
}

void *map_value(const struct map_entry *e)
{
        return e->value;
}
