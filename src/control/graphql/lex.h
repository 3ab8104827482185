/* lex.h - the words of GraphQL: queries and schema text alike.  Tokens point into the source, which
 * is hostile and is at most UINT32_MAX bytes.  Pure; nothing is copied or allocated. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct slice {
        uint32_t off, len; /* bytes in the source */
};

enum tok {
        TOK_NONE,
        TOK_EOF,
        TOK_PUNCT, /* one of ! $ & ( ) : = @ [ ] { | } or '.' for "..." */
        TOK_NAME,
        TOK_INT,
        TOK_FLOAT,
        TOK_STRING, /* "..." with its quotes; escapes are well-formed */
        TOK_BLOCK,  /* """...""" with its quotes */
        TOK_COUNT
};

struct token {
        enum tok kind;
        char punct;
        struct slice at;
};

/* Why and where a text was refused. */
struct gql_fault {
        const char *code; /* GRAPHQL_PARSE_FAILED, ... ; NULL: no fault */
        uint32_t off;     /* UINT32_MAX: no place */
        struct err err;
};

struct lexer {
        const char *src;
        uint32_t len, pos;
        uint32_t tokens, max_tokens; /* 0: no limit */
};

/* Next token.  -EINVAL (or -E2BIG: too many) with *f filled. */
int lex_next(struct lexer *l, struct token *ret, struct gql_fault *f);

/* Fill *f.  @r is a negative errno and is returned. */
int fault_set(struct gql_fault *f, int r, const char *code, uint32_t off, const char *fmt, ...)
        __attribute__((format(printf, 5, 6)));

/* 1-based line and column (in bytes) of an offset. */
void lex_position(const char *src, uint32_t len, uint32_t off, uint32_t *ret_line,
                  uint32_t *ret_column);

/* The text that a TOK_STRING or TOK_BLOCK stands for, appended to @out. */
void lex_unquote(const char *src, struct slice at, bool block, struct strbuf *out);

static inline bool slice_is(const char *src, struct slice s, const char *text)
{
        return strlen(text) == s.len && memcmp(src + s.off, text, s.len) == 0;
}

static inline bool slice_same(const char *src, struct slice a, struct slice b)
{
        return a.len == b.len && memcmp(src + a.off, src + b.off, a.len) == 0;
}
