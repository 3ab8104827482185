/* arena.h - memory that is given back all at once: syntax trees and plans.  Nothing blocks. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct arena_block;

/* Zero-initialise.  After an allocation failure it is `failed` and hands out NULL for good. */
struct arena {
        struct arena_block *head;
        char *at, *end;
        size_t total_bytes; /* taken from the heap */
        bool failed;
};

/* @len zeroed bytes, aligned for any object; NULL when out of memory. */
void *arena_alloc(struct arena *a, size_t len);

/* @n elements of @size; NULL when out of memory or the product overflows. */
void *arena_array(struct arena *a, size_t n, size_t size);

/* A NUL-terminated copy of @len bytes; NULL when out of memory. */
char *arena_strn(struct arena *a, const char *s, size_t len);

void arena_done(struct arena *a);

static inline void arena_done_cleanup(struct arena *a)
{
        arena_done(a);
}
