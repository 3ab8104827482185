/* str.h - strings: formatted, growing, split, and numbers parsed with a range.  Heap strings
 * belong to the caller; nothing blocks. */
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

/* printf into a fresh string; NULL when out of memory. */
char *str_fmt(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Copy of @s, or NULL for NULL. */
char *str_dup(const char *s);

static inline bool str_eq(const char *a, const char *b)
{
        return a == b || (a && b && strcmp(a, b) == 0);
}

/* NULL and "" both mean "not set" throughout the API. */
static inline bool str_empty(const char *s)
{
        return !s || !*s;
}

/* What a terminal would obey becomes @with: control characters, those beyond ASCII (U+0080 to U+009F)
 * included. */
void str_tame(char *s, char with);

/* What follows @prefix in @s, or NULL when @s does not begin with it. */
const char *str_after(const char *s, const char *prefix);

/* Whole-string unsigned decimal within [min, max].  -EINVAL: not a number, -ERANGE: outside. */
int str_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret);

/* The number of @base (10 or 16, lower or upper case) that @s begins with, behind blanks, whatever
 * follows it: for the kernel's text files.  -EINVAL: no digit, -ERANGE: over 64 bits. */
int str_u64_prefix(const char *s, unsigned base, uint64_t *ret);

/* Seconds with an optional suffix ms, s, m, h, d -> microseconds; the same errors. */
int str_duration_us(const char *s, uint64_t *ret);

/* Bytes with an optional suffix K, M, G, T (powers of 1024); the same errors. */
int str_bytes(const char *s, uint64_t *ret);

/* NULL-terminated vectors of heap strings. */
char **strv_free(char **v);
size_t strv_len(char *const *v);
int strv_push(char ***v, const char *s); /* copies @s; *v may be NULL; -ENOMEM */
char **strv_dup(char *const *v);

bool strv_has(char *const *v, const char *s);

/* Split a command line as a POSIX shell splits words: blanks, '...', "..." and \; nothing is
 * expanded.  -EINVAL names an open quote, -E2BIG: more than @max words.  An empty line gives an
 * empty vector. */
int strv_split_shell(const char *line, size_t max, char ***ret, struct err *e);

/* KEY=VALUE vectors: set or replace, and look up (borrowed, NULL when absent). */
int strv_env_set(char ***v, const char *key, const char *value);
const char *strv_env_get(char *const *v, const char *key);

DEFINE_AUTO(char **, strv_free)

/* A growing byte buffer.  Zero-initialise it; after an allocation failure it is `failed`, keeps
 * its content, and ignores further additions, so that one check at the end is enough. */
struct strbuf {
        char *s; /* NUL-terminated when not NULL */
        size_t len, cap;
        bool failed;
};

void strbuf_add(struct strbuf *b, const void *data, size_t len);
void strbuf_str(struct strbuf *b, const char *s);
void strbuf_char(struct strbuf *b, char c);
void strbuf_fmt(struct strbuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void strbuf_vfmt(struct strbuf *b, const char *fmt, va_list ap)
        __attribute__((format(printf, 2, 0)));
void strbuf_drop_front(struct strbuf *b, size_t len);
void strbuf_done(struct strbuf *b);
/* The content as a heap string ("" when empty), or NULL when anything failed; resets @b. */
char *strbuf_take(struct strbuf *b);

static inline void strbuf_done_cleanup(struct strbuf *b)
{
        strbuf_done(b);
}
