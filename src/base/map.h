/* map.h - strings to pointers, in the order in which they were added.
 *
 * The map copies its keys and borrows its values.  An entry may be removed during a walk when its
 * successor was taken first.  Keys from strangers are hashed with a random seed. */
#pragma once
#include <stddef.h>

#include "base/mem.h"

struct map;
struct map_entry;

struct map *map_new(void); /* NULL: out of memory */
struct map *map_free(struct map *m);
DEFINE_AUTO(struct map *, map_free)

/* Add @key, or replace its value.  0, or -ENOMEM and nothing changed. */
int map_set(struct map *m, const char *key, void *value);
void *map_get(const struct map *m, const char *key); /* NULL when absent */
void *map_del(struct map *m, const char *key);       /* the value that was there, or NULL */
size_t map_len(const struct map *m);

/* for (e = map_first(m); e; e = map_next(e)) */
struct map_entry *map_first(const struct map *m);
struct map_entry *map_next(const struct map_entry *e);
const char *map_key(const struct map_entry *e);
void *map_value(const struct map_entry *e);
