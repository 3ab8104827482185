/* arena.c - see arena.h.  API program, any thread; an arena belongs to one owner. */
#include "control/graphql/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct arena_block {
        struct arena_block *next;
        alignas(max_align_t) char data[];
};

#define BLOCK_MIN ((size_t) 4096)
#define BLOCK_MAX ((size_t) 1 << 18)

/* Blocks grow with what is already there, so that a long query costs few of them. */
static void *from_new_block(struct arena *a, size_t len)
{
        size_t size = a->total_bytes < BLOCK_MIN ? BLOCK_MIN : a->total_bytes;
        struct arena_block *b;

        if (size > BLOCK_MAX)
                size = BLOCK_MAX;
        if (size < len)
                size = len;
        b = size > SIZE_MAX / 2 ? NULL : calloc(1, sizeof *b + size);
        if (!b) {
                a->failed = true;
                return NULL;
        }
        b->next = a->head;
        a->head = b;
        a->total_bytes += size;
        a->at = b->data + len;
        a->end = b->data + size;
        return b->data;
}

void *arena_alloc(struct arena *a, size_t len)
{
        size_t rounded = (len + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
        char *p = a->at;

        if (a->failed || rounded < len)
                return NULL;
        if (p && (size_t) (a->end - p) >= rounded) {
                a->at = p + rounded;
                return p;
        }
        return from_new_block(a, rounded);
}

void *arena_array(struct arena *a, size_t n, size_t size)
{
        size_t len;

        if (__builtin_mul_overflow(n, size, &len)) {
                a->failed = true;
                return NULL;
        }
        return arena_alloc(a, len);
}

char *arena_strn(struct arena *a, const char *s, size_t len)
{
        char *copy = arena_alloc(a, len + 1);

        if (copy && len > 0)
                memcpy(copy, s, len);
        return copy;
}

void arena_done(struct arena *a)
{
        while (a->head) {
                struct arena_block *b = a->head;

                a->head = b->next;
                free(b);
        }
        *a = (struct arena){ 0 };
}
