/* jsonx.h - JSON to C structs and back, by table.
 *
 * A struct that crosses a process border has one `struct jfield` table; both directions, the
 * limits and the error messages come from it.  jansson does the parsing.  Nothing blocks. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

static inline json_t *json_put(json_t *j)
{
        json_decref(j);
        return NULL;
}

DEFINE_AUTO(json_t *, json_put)

enum jkind {
        J_NONE,
        J_STR,  /* char *, heap; max = longest length in bytes, 0 = 4,096; null or absent = NULL */
        J_STRV, /* char **, heap; max = most elements, 0 = 1,024; absent = NULL */
        J_U32,  /* uint32_t within [min, max], max 0 = UINT32_MAX */
        J_U64,  /* uint64_t within [min, max], max 0 = INT64_MAX */
        J_BOOL, /* bool */
        J_ENUM, /* an enum (int-sized) through `names`, which has `max` elements */
        J_SUB,  /* an embedded struct described by `sub`, `max` rows */
        J_KIND_COUNT
};

struct jfield {
        const char *name;
        enum jkind kind;
        size_t off; /* offsetof() in the struct */
        uint64_t min, max;
        bool required;
        const char *const *names;
        const struct jfield *sub;
};

/* Fill the zeroed struct at @out.  On failure what was set so far stays (the caller's _done
 * function frees it) and @e names the field, the limit and what came.  Unknown keys are ignored:
 * a newer peer may know more. */
int jsonx_decode(const json_t *obj, const struct jfield *f, size_t n, void *out, struct err *e);

/* A new object the caller owns, or NULL when out of memory.  Empty strings and vectors are left
 * out; numbers and booleans are always written. */
json_t *jsonx_encode(const struct jfield *f, size_t n, const void *in);

/* Free what J_STR and J_STRV rows own and reset them. */
void jsonx_done(const struct jfield *f, size_t n, void *out);

/* Parse @len bytes with our limits (depth 64 by jansson's own limit less; duplicate keys refused).
 * Returns a new reference or NULL with *e naming the place. */
json_t *jsonx_parse(const char *text, size_t len, struct err *e);

/* String member, borrowed; NULL when absent or not a string. */
const char *jsonx_str(const json_t *obj, const char *key);

/* Larger integers are not the same in every reader. */
#define JSONX_EXACT_MAX ((1ULL << 53) - 1)

/* Compact text on the heap, or NULL. */
char *jsonx_dump(const json_t *j);
