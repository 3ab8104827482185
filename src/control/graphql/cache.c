/* cache.c - see cache.h.  API program, loop thread.
 *
 * Whole HTTP bodies are keys too when they bring no variables: a client that polls sends the same
 * bytes every time, and reading them as JSON costs more than half of answering.
 * Queries with a string literal are not kept: clients that inline their values never send the same
 * text twice, and the text may hold a password.  The hash is keyed at start, so nobody can aim
 * at one bucket; the bound on entries bounds a chain in any case. */
#include "control/graphql/cache.h"

#include "control/graphql/hash.h"

#define CACHE_ENTRIES    512U
#define CACHE_BUCKETS    1024U
#define CACHE_BYTES      (8U << 20)
#define CACHE_TEXT_BYTES 16384U /* longer ones are not asked often */
#define CACHE_NAME_BYTES 64U

struct entry {
        struct entry *chain;         /* same bucket */
        struct entry *newer, *older; /* by last use */
        uint64_t hash;
        struct cquery *q;
        char op_name[CACHE_NAME_BYTES];
        enum cache_key kind;
        size_t bytes; /* what it is charged with: the query may be shared with another entry */
        size_t len;
        char text[];
};

struct cache {
        struct entry *bucket[CACHE_BUCKETS];
        struct entry *newest, *oldest;
        const uint64_t *key; /* of the schema */
        struct gql_stats stats;
};

struct cache *cache_new(const uint64_t *hash_key)
{
        struct cache *c = calloc(1, sizeof *c);

        if (c)
                c->key = hash_key;
        return c;
}

static void unlink_age(struct cache *c, struct entry *e)
{
        *(e->newer ? &e->newer->older : &c->newest) = e->older;
        *(e->older ? &e->older->newer : &c->oldest) = e->newer;
        e->newer = e->older = NULL;
}

static void link_newest(struct cache *c, struct entry *e)
{
        e->older = c->newest;
        *(c->newest ? &c->newest->newer : &c->oldest) = e;
        c->newest = e;
}

static void drop(struct cache *c, struct entry *e)
{
        struct entry **p = &c->bucket[e->hash % CACHE_BUCKETS];

        while (*p != e)
                p = &(*p)->chain;
        *p = e->chain;
        unlink_age(c, e);
        c->stats.cached--;
        c->stats.cached_bytes -= e->bytes;
        cquery_unref(e->q);
        free(e);
}

struct cache *cache_free(struct cache *c)
{
        while (c && c->oldest)
                drop(c, c->oldest);
        free(c);
        return NULL;
}

struct cquery *cache_get(struct cache *c, enum cache_key kind, const char *text, size_t len,
                         const char *op_name, uint64_t *ret_hash)
{
        struct entry *e;

        *ret_hash = 0;
        if (len > CACHE_TEXT_BYTES)
                return NULL;
        *ret_hash = hash_bytes(c->key, text, len) + kind;
        for (e = c->bucket[*ret_hash % CACHE_BUCKETS]; e; e = e->chain)
                if (e->hash == *ret_hash && e->kind == kind && e->len == len &&
                    memcmp(e->text, text, len) == 0 &&
                    strcmp(e->op_name, op_name ? op_name : "") == 0)
                        break;
        if (!e)
                return NULL;
        c->stats.cache_hits++;
        if (c->newest != e) {
                unlink_age(c, e);
                link_newest(c, e);
        }
        return cquery_ref(e->q);
}

void cache_put(struct cache *c, enum cache_key kind, const char *text, size_t len,
               const char *op_name, uint64_t hash, struct cquery *q)
{
        size_t bytes = sizeof(struct entry) + len + q->arena.total_bytes;
        struct entry *e;

        if (len > CACHE_TEXT_BYTES || q->doc.has_string || bytes > CACHE_BYTES / 8 ||
            (op_name && strlen(op_name) >= CACHE_NAME_BYTES))
                return;
        while (c->oldest &&
               (c->stats.cached >= CACHE_ENTRIES || c->stats.cached_bytes + bytes > CACHE_BYTES))
                drop(c, c->oldest);
        e = calloc(1, sizeof *e + len + 1);
        if (!e)
                return; /* not kept: the next one compiles again */
        e->hash = hash;
        e->kind = kind;
        e->q = cquery_ref(q);
        e->bytes = bytes;
        e->len = len;
        memcpy(e->text, text, len);
        memcpy(e->op_name, op_name ? op_name : "", op_name ? strlen(op_name) : 0);
        e->chain = c->bucket[hash % CACHE_BUCKETS];
        c->bucket[hash % CACHE_BUCKETS] = e;
        link_newest(c, e);
        c->stats.cached++;
        c->stats.cached_bytes += bytes;
}

void cache_stats(const struct cache *c, struct gql_stats *ret)
{
        ret->cache_hits = c->stats.cache_hits;
        ret->cached = c->stats.cached;
        ret->cached_bytes = c->stats.cached_bytes;
}
