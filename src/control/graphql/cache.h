/* cache.h - compiled queries by their text: the most recently used ones, within bounds of number and
 * bytes.  One per schema, loop thread. */
#pragma once
#include "control/graphql/compile.h"

struct cache;

/* @hash_key is borrowed: two random words.  NULL: out of memory. */
struct cache *cache_new(const uint64_t *hash_key);
struct cache *cache_free(struct cache *c);

/* What a text is a key of: the query alone, or the whole HTTP body around it. */
enum cache_key { CACHE_QUERY, CACHE_BODY };

/* A new reference, or NULL.  *ret_hash is for cache_put(). */
struct cquery *cache_get(struct cache *c, enum cache_key kind, const char *text, size_t len,
                         const char *op_name, uint64_t *ret_hash);

/* Keep @q for the next one who asks the same; what should not be kept is not. */
void cache_put(struct cache *c, enum cache_key kind, const char *text, size_t len,
               const char *op_name, uint64_t hash, struct cquery *q);

void cache_stats(const struct cache *c, struct gql_stats *ret);
