/* schema.h - inside the graphql folder: what a schema is once it was read.  Immutable after
 * gql_schema_new() except for the cache of compiled queries. */
#pragma once
#include "control/graphql/arena.h"
#include "control/graphql/gql.h"
#include "control/graphql/lex.h"

/* First member of all that has a name in the schema: listed in order, found by name. */
struct named {
        const char *name;
        uint32_t len;
        const char *desc;       /* NULL: none */
        const char *deprecated; /* reason, NULL: it is not */
        struct named *next;
};

struct names {
        struct named *first, **tail;
        struct named **sorted; /* after names_index() */
        size_t n;
};

void names_add(struct names *l, struct named *n);
int names_index(struct names *l, struct arena *a, struct err *e); /* -EINVAL: a name twice */
void *names_find(const struct names *l, const char *name, size_t len);

/* What somebody probably meant, or NULL. */
const struct named *names_nearest(const struct names *l, const char *name, size_t len);

enum stype_kind { TK_NONE, TK_SCALAR, TK_ENUM, TK_INPUT, TK_OBJECT, TK_COUNT };
enum scalar {
        SC_NONE,
        SC_INT,
        SC_FLOAT,
        SC_STRING,
        SC_BOOLEAN,
        SC_ID,
        SC_DATETIME,
        SC_ANY, /* JSON and every scalar that has no rules of its own */
        SC_COUNT
};

/* A type as introspection sees it: NON_NULL of LIST of NON_NULL of a named type. */
struct tnode {
        enum { TN_NAMED, TN_LIST, TN_NONNULL } kind;
        const struct stype *named;
        const struct tnode *of;
};

struct tref {
        struct stype *base;
        bool list, nonnull, item_nonnull;
        const char *text; /* "[Pod!]!" */
        const struct tnode *node;
        uint32_t off; /* in the schema text, for messages */
};

struct stype {
        struct named n;
        enum stype_kind kind;
        enum scalar scalar;
        struct names members; /* struct sfield, struct sinput or struct named (enum values) */
        struct stype *twin;   /* the same in the other spelling */
        bool pod;             /* with a twin: this is the pod spelling */
        bool bound;           /* some row belongs to it */
        struct tnode self;
        struct gql_schema *schema;
};

struct sfield {
        struct named n;
        struct tref type;
        struct names args; /* struct sinput */
        const struct gql_field *row;
        const char *noun; /* "pod" or "cluster" when its own name decides; NULL: inherited */
        struct stype *parent;
};

struct sinput {
        struct named n;
        struct tref type;
        const char *canon;       /* name that resolvers see */
        const char *preset_text; /* as written; NULL: none */
        struct ast_value *preset_ast;
        const char *src; /* what preset_ast points into */
        json_t *preset;  /* converted */
};

struct cache;

struct gql_schema {
        struct arena arena;
        struct names types;
        struct stype *query, *mutation, *subscription; /* the last two may be NULL */
        struct stype *meta;                            /* "__Query": __schema and __type */
        struct gql_ops ops;
        json_t *no_args; /* {} */
        struct cache *cache;
        uint64_t hash_key[2]; /* random */
        uint64_t requests;
};

/* sdl.c: read @text into the schema; @meta: names with two underscores are allowed. */
int sdl_read(struct gql_schema *s, const char *text, size_t len, bool meta, struct err *e);

/* bind.c */
int schema_link(struct gql_schema *s, struct err *e);
int schema_bind(struct gql_schema *s, const struct gql_type *types, size_t n, struct err *e);
int schema_check_bound(const struct gql_schema *s, struct err *e);

/* introspect.c: the types behind __schema and their resolvers. */
extern const char introspect_sdl[];
extern const struct gql_type introspect_types[];
extern const size_t introspect_n_types;

/* Generated from schema/tensorone.graphqls. */
extern const char gql_schema_text[];
extern const size_t gql_schema_text_len;
