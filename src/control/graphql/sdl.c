/* sdl.c - reads schema text: scalars, enums, inputs and object types with descriptions, defaults
 * and @deprecated.  API program, at start.  The text is ours, so what the contract does not use
 * (interfaces, unions, extensions, lists of lists) is refused instead of half supported. */
#include <errno.h>

#include "control/graphql/parse.h"
#include "control/graphql/schema.h"

struct sdl {
        struct parser p;
        struct gql_schema *s;
        bool meta;
};

static int oom(struct sdl *d)
{
        return fault_set(d->p.fault, -ENOMEM, "", UINT32_MAX, "out of memory");
}

static int copy_slice(struct sdl *d, struct slice at, const char **ret)
{
        *ret = arena_strn(&d->s->arena, d->p.lex.src + at.off, at.len);
        return *ret ? 0 : oom(d);
}

static int text_of(struct sdl *d, struct slice at, bool block, const char **ret)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };

        lex_unquote(d->p.lex.src, at, block, &b);
        if (b.failed)
                return oom(d);
        *ret = arena_strn(&d->s->arena, b.s ? b.s : "", b.len);
        return *ret ? 0 : oom(d);
}

static int description(struct sdl *d, const char **ret)
{
        enum tok kind = d->p.tok.kind;
        int r;

        *ret = NULL;
        if (kind != TOK_STRING && kind != TOK_BLOCK)
                return 0;
        r = text_of(d, d->p.tok.at, kind == TOK_BLOCK, ret);
        return r < 0 ? r : parser_next(&d->p);
}

static int name_of(struct sdl *d, struct named *n, const char *what)
{
        struct slice at;
        int r = parser_name(&d->p, &at, what);

        if (r < 0)
                return r;
        if (!d->meta && at.len >= 2 && memcmp(d->p.lex.src + at.off, "__", 2) == 0)
                return fault_set(d->p.fault, -EINVAL, "", at.off,
                                 "names that begin with __ belong to introspection");
        n->len = at.len;
        return copy_slice(d, at, &n->name);
}

/* @deprecated(reason: "...") is the only directive with a meaning here. */
static int deprecation(struct sdl *d, struct named *n)
{
        struct ast_directive *dir = NULL;
        int r = parser_directives(&d->p, true, &dir);

        for (; r >= 0 && dir; dir = dir->next) {
                if (!slice_is(d->p.lex.src, dir->name, "deprecated"))
                        return fault_set(d->p.fault, -EINVAL, "", dir->name.off,
                                         "unknown directive in the schema");
                n->deprecated = "No longer supported";
                if (dir->args && dir->args->value->kind == AV_STRING)
                        r = text_of(d, dir->args->value->text, false, &n->deprecated);
        }
        return r;
}

/* The base type may come later in the text: bind.c fills it in from `text`. */
static int type_ref(struct sdl *d, struct tref *t)
{
        uint32_t start = d->p.tok.at.off;
        AUTO(strbuf_done) struct strbuf text = { 0 };
        struct slice base;
        int r = parser_eat(&d->p, '[');

        t->off = start;
        t->list = r > 0;
        if (r >= 0)
                r = parser_name(&d->p, &base, "a type");
        if (r < 0)
                return r;
        strbuf_fmt(&text, "%s%.*s", t->list ? "[" : "", (int) base.len, d->p.lex.src + base.off);
        r = parser_eat(&d->p, '!');
        if (r > 0)
                strbuf_char(&text, '!');
        if (t->list)
                t->item_nonnull = r > 0;
        else
                t->nonnull = r > 0;
        if (r >= 0 && t->list) {
                r = parser_want(&d->p, ']', "behind the type (lists do not nest)");
                strbuf_char(&text, ']');
                if (r >= 0)
                        r = parser_eat(&d->p, '!');
                t->nonnull = r > 0;
                if (r > 0)
                        strbuf_char(&text, '!');
        }
        if (r < 0)
                return r;
        t->text = text.failed ? NULL : arena_strn(&d->s->arena, text.s, text.len);
        return t->text ? 0 : oom(d);
}

/* name: Type = default @directives; arguments and fields of inputs. */
static int input_value(struct sdl *d, struct names *list)
{
        struct sinput *in = arena_alloc(&d->s->arena, sizeof *in);
        int r;

        if (!in)
                return oom(d);
        r = description(d, &in->n.desc);
        if (r >= 0)
                r = name_of(d, &in->n, "a name");
        if (r >= 0)
                r = parser_want(&d->p, ':', "before the type");
        if (r >= 0)
                r = type_ref(d, &in->type);
        if (r >= 0)
                r = parser_eat(&d->p, '=');
        if (r > 0) {
                uint32_t start = d->p.tok.at.off;

                in->src = d->p.lex.src;
                r = parser_value(&d->p, true, &in->preset_ast);
                if (r >= 0) {
                        uint32_t end = d->p.tok.at.off;

                        while (end > start && strchr(" \t\r\n,", d->p.lex.src[end - 1]))
                                end--;
                        r = copy_slice(d, (struct slice){ start, end - start }, &in->preset_text);
                }
        }
        if (r >= 0)
                r = deprecation(d, &in->n);
        in->canon = in->n.name;
        if (r >= 0)
                names_add(list, &in->n);
        return r;
}

static int object_field(struct sdl *d, struct stype *t)
{
        struct sfield *f = arena_alloc(&d->s->arena, sizeof *f);
        int r;

        if (!f)
                return oom(d);
        f->parent = t;
        r = description(d, &f->n.desc);
        if (r >= 0)
                r = name_of(d, &f->n, "a field");
        if (r >= 0)
                r = parser_eat(&d->p, '(');
        if (r > 0) {
                while (r >= 0 && !parser_at(&d->p, ')'))
                        r = input_value(d, &f->args);
                if (r >= 0)
                        r = parser_next(&d->p);
        }
        if (r >= 0)
                r = parser_want(&d->p, ':', "before the type");
        if (r >= 0)
                r = type_ref(d, &f->type);
        if (r >= 0)
                r = deprecation(d, &f->n);
        if (r >= 0)
                names_add(&t->members, &f->n);
        return r;
}

static int enum_value(struct sdl *d, struct stype *t)
{
        struct named *n = arena_alloc(&d->s->arena, sizeof *n);
        int r;

        if (!n)
                return oom(d);
        r = description(d, &n->desc);
        if (r >= 0)
                r = name_of(d, n, "a value");
        if (r >= 0)
                r = deprecation(d, n);
        if (r >= 0)
                names_add(&t->members, n);
        return r;
}

static enum scalar scalar_of(const char *name)
{
        static const struct {
                const char *name;
                enum scalar scalar;
        } known[] = {
                { "Int", SC_INT },         { "Float", SC_FLOAT }, { "String", SC_STRING },
                { "Boolean", SC_BOOLEAN }, { "ID", SC_ID },       { "DateTime", SC_DATETIME },
        };

        for (size_t i = 0; i < NELEM(known); i++)
                if (strcmp(known[i].name, name) == 0)
                        return known[i].scalar;
        return SC_ANY;
}

static int members(struct sdl *d, struct stype *t)
{
        int r = parser_want(&d->p, '{', "before the members");

        while (r >= 0 && !parser_at(&d->p, '}')) {
                if (t->kind == TK_ENUM)
                        r = enum_value(d, t);
                else if (t->kind == TK_INPUT)
                        r = input_value(d, &t->members);
                else
                        r = object_field(d, t);
        }
        return r < 0 ? r : parser_next(&d->p);
}

/* schema { query: Query mutation: Mutation ... }: our roots have these names and no others. */
static bool is_root(const char *src, struct slice word, struct slice type)
{
        static const char *const roots[][2] = {
                { "query", "Query" },
                { "mutation", "Mutation" },
                { "subscription", "Subscription" },
        };

        for (size_t i = 0; i < NELEM(roots); i++)
                if (slice_is(src, word, roots[i][0]) && slice_is(src, type, roots[i][1]))
                        return true;
        return false;
}

static int root_block(struct sdl *d)
{
        int r = parser_want(&d->p, '{', "behind schema");

        while (r >= 0 && !parser_at(&d->p, '}')) {
                struct slice word, type;

                r = parser_name(&d->p, &word, "query, mutation or subscription");
                if (r >= 0)
                        r = parser_want(&d->p, ':', "before the type");
                if (r >= 0)
                        r = parser_name(&d->p, &type, "a type");
                if (r >= 0 && !is_root(d->p.lex.src, word, type))
                        return fault_set(
                                d->p.fault, -EINVAL, "", word.off,
                                "expected query: Query, mutation: Mutation or subscription: Subscription");
        }
        return r < 0 ? r : parser_next(&d->p);
}

static int definition(struct sdl *d)
{
        static const struct {
                const char *word;
                enum stype_kind kind;
        } words[] = {
                { "scalar", TK_SCALAR },
                { "enum", TK_ENUM },
                { "input", TK_INPUT },
                { "type", TK_OBJECT },
        };
        enum stype_kind kind = TK_NONE;
        const char *desc = NULL;
        struct stype *t;
        int r = description(d, &desc);

        for (size_t i = 0; r >= 0 && d->p.tok.kind == TOK_NAME && i < NELEM(words); i++)
                if (slice_is(d->p.lex.src, d->p.tok.at, words[i].word))
                        kind = words[i].kind;
        if (r < 0)
                return r;
        if (kind == TK_NONE && d->p.tok.kind == TOK_NAME &&
            slice_is(d->p.lex.src, d->p.tok.at, "schema")) {
                r = parser_next(&d->p);
                return r < 0 ? r : root_block(d);
        }
        if (kind == TK_NONE)
                return parser_unexpected(&d->p, "scalar, enum, input, type or schema");
        t = arena_alloc(&d->s->arena, sizeof *t);
        if (!t)
                return oom(d);
        t->kind = kind;
        t->n.desc = desc;
        t->schema = d->s;
        t->self = (struct tnode){ TN_NAMED, t, NULL };
        r = parser_next(&d->p);
        if (r >= 0)
                r = name_of(d, &t->n, "the name of the type");
        if (r < 0)
                return r;
        if (kind == TK_SCALAR)
                t->scalar = scalar_of(t->n.name);
        else
                r = members(d, t);
        if (r >= 0)
                names_add(&d->s->types, &t->n);
        return r;
}

int sdl_read(struct gql_schema *s, const char *text, size_t len, bool meta, struct err *e)
{
        struct gql_fault f = { 0 };
        struct sdl d = { .s = s, .meta = meta };
        uint32_t line, column;
        char *copy;
        int r;

        /* defaults are converted later and point into the text */
        copy = arena_strn(&s->arena, text, len);
        if (!copy)
                return err_set(e, -ENOMEM, "schema: out of memory");
        r = parser_init(&d.p, copy, len, 0, &s->arena, &f);
        while (r >= 0 && d.p.tok.kind != TOK_EOF)
                r = definition(&d);
        if (r >= 0)
                return 0;
        if (f.off == UINT32_MAX)
                return err_set(e, r, "schema: %s", f.err.msg);
        lex_position(text, (uint32_t) len, f.off, &line, &column);
        return err_set(e, r, "schema line %u column %u: %s", line, column, f.err.msg);
}
