/* out.h - JSON text written straight into a buffer.  The hot path of every answer, so the common
 * cases are inline.  Pure. */
#pragma once
#include "base/str.h"

/* Room for @more bytes and a NUL; false when out of memory (then the buffer is `failed`). */
bool out_grow(struct strbuf *b, size_t more);

static inline bool out_room(struct strbuf *b, size_t more)
{
        return more < b->cap - b->len || out_grow(b, more);
}

static inline void out_raw(struct strbuf *b, const char *s, size_t len)
{
        if (out_room(b, len)) {
                memcpy(b->s + b->len, s, len);
                b->len += len;
        }
}

static inline void out_char(struct strbuf *b, char c)
{
        if (out_room(b, 1))
                b->s[b->len++] = c;
}

#define OUT_LITERAL(b, text) out_raw((b), (text), sizeof(text) - 1)

void out_int(struct strbuf *b, int64_t v);
void out_u64(struct strbuf *b, uint64_t v);

/* The shortest decimal text that reads back as @v; whole numbers without a point; null for NaN
 * and infinities. */
void out_num(struct strbuf *b, double v);

/* A JSON string with its quotes.  What is not valid UTF-8 becomes U+FFFD. */
void out_str(struct strbuf *b, const char *s, size_t len);
