/* parse.h - the syntax tree of a query document.  Nodes live in the document's arena and point into
 * its text.  Pure; linear in the text; recursion is bounded by LIMIT_QUERY_DEPTH. */
#pragma once
#include "control/graphql/arena.h"
#include "control/graphql/lex.h"

enum ast_vkind {
        AV_NONE,
        AV_VAR, /* text: the name without '$' */
        AV_INT,
        AV_FLOAT,
        AV_STRING,
        AV_BLOCK,
        AV_BOOL, /* text: true or false */
        AV_NULL,
        AV_ENUM,
        AV_LIST,   /* items */
        AV_OBJECT, /* fields */
        AV_KIND_COUNT
};

struct ast_value {
        enum ast_vkind kind;
        struct slice text;
        struct ast_value *items; /* AV_LIST */
        struct ast_arg *fields;  /* AV_OBJECT */
        struct ast_value *next;
        bool has_var; /* a variable somewhere inside */
};

struct ast_arg { /* an argument, or a field of an object value */
        struct slice name;
        struct ast_value *value;
        struct ast_arg *next;
};

struct ast_directive {
        struct slice name;
        struct ast_arg *args;
        struct ast_directive *next;
};

enum ast_skind { AS_FIELD, AS_SPREAD, AS_INLINE };

struct ast_sel {
        enum ast_skind kind;
        struct slice key;  /* AS_FIELD: alias, or the name */
        struct slice name; /* AS_FIELD; AS_SPREAD: the fragment; AS_INLINE: type, len 0 = none */
        struct ast_arg *args;
        struct ast_directive *dirs;
        struct ast_sel *sub;
        struct ast_sel *next;
};

struct ast_var {
        struct slice name;
        struct ast_value *preset; /* NULL: none */
        struct ast_var *next;
};

enum ast_opkind { AO_QUERY, AO_MUTATION, AO_SUBSCRIPTION };

struct ast_op {
        enum ast_opkind kind;
        uint32_t off;
        struct slice name; /* len 0: anonymous */
        struct ast_var *vars;
        struct ast_directive *dirs;
        struct ast_sel *sel;
        struct ast_op *next;
};

struct ast_frag {
        struct slice name, on;
        struct ast_sel *sel;
        struct ast_directive *dirs;
        struct ast_frag *next;
        int mark;              /* compiler: 0 new, 1 being walked, 2 done */
        uint32_t seen_in;      /* compiler: the selection that spread it last, */
        const void *seen_cond; /* and under which conditions */
};

struct ast_doc {
        const char *src; /* borrowed */
        uint32_t len;
        struct ast_op *ops;
        struct ast_frag *frags;
        bool has_string; /* a string literal somewhere: may be a secret, is rarely asked again */
};

/* 0; or a negative errno with *f: -EINVAL, -E2BIG (tokens, depth), -ENOMEM. */
int parse_document(const char *src, size_t len, struct arena *a, struct ast_doc *ret,
                   struct gql_fault *f);

/* The parser's own state; schema text (sdl.c) uses the same words and values. */
struct parser {
        struct lexer lex;
        struct token tok; /* the one being looked at */
        struct arena *arena;
        struct gql_fault *fault;
        uint32_t depth;
        bool has_string;
};

int parser_init(struct parser *p, const char *src, size_t len, uint32_t max_tokens, struct arena *a,
                struct gql_fault *f);
int parser_next(struct parser *p);
bool parser_at(const struct parser *p, char punct);
int parser_eat(struct parser *p, char punct); /* 1 and on; 0 something else; < 0 */
int parser_want(struct parser *p, char punct, const char *where);
int parser_name(struct parser *p, struct slice *ret, const char *what);
int parser_unexpected(struct parser *p, const char *what);
int parser_value(struct parser *p, bool constant, struct ast_value **ret);
int parser_directives(struct parser *p, bool constant, struct ast_directive **ret);
