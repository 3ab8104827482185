/* parse.c - see parse.h.  API program; recursive descent over hostile text.
 *
 * One counter bounds all nesting (selections, lists, objects), so neither this recursion nor the
 * ones that walk the tree later can run out of stack. */
#include "control/graphql/parse.h"

#include <errno.h>
#include <stdio.h>

#include "model/limits.h"

#define PARSE_FAILED "GRAPHQL_PARSE_FAILED"

static int no_memory(struct parser *p)
{
        return fault_set(p->fault, -ENOMEM, "INTERNAL_SERVER_ERROR", UINT32_MAX, "out of memory");
}

int parser_next(struct parser *p)
{
        return lex_next(&p->lex, &p->tok, p->fault);
}

int parser_init(struct parser *p, const char *src, size_t len, uint32_t max_tokens, struct arena *a,
                struct gql_fault *f)
{
        *p = (struct parser){ .arena = a, .fault = f };
        if (len >= UINT32_MAX)
                return fault_set(f, -E2BIG, PARSE_FAILED, UINT32_MAX, "query: too long");
        p->lex = (struct lexer){ .src = src, .len = (uint32_t) len, .max_tokens = max_tokens };
        return parser_next(p);
}

bool parser_at(const struct parser *p, char punct)
{
        return p->tok.kind == TOK_PUNCT && p->tok.punct == punct;
}

int parser_eat(struct parser *p, char punct)
{
        int r;

        if (!parser_at(p, punct))
                return 0;
        r = parser_next(p);
        return r < 0 ? r : 1;
}

int parser_unexpected(struct parser *p, const char *what)
{
        struct slice at = p->tok.at;

        if (p->tok.kind == TOK_EOF)
                return fault_set(p->fault, -EINVAL, PARSE_FAILED, at.off,
                                 "expected %s, but the text ends here", what);
        return fault_set(p->fault, -EINVAL, PARSE_FAILED, at.off, "expected %s, found %.*s", what,
                         (int) (at.len > 40 ? 40 : at.len), p->lex.src + at.off);
}

int parser_want(struct parser *p, char punct, const char *where)
{
        char what[80];
        int r = parser_eat(p, punct);

        if (r != 0)
                return r;
        (void) snprintf(what, sizeof what, "'%c' %s", punct, where);
        return parser_unexpected(p, what);
}

int parser_name(struct parser *p, struct slice *ret, const char *what)
{
        if (p->tok.kind != TOK_NAME)
                return parser_unexpected(p, what);
        *ret = p->tok.at;
        return parser_next(p);
}

static bool at_word(const struct parser *p, const char *word)
{
        return p->tok.kind == TOK_NAME && slice_is(p->lex.src, p->tok.at, word);
}

static int deeper(struct parser *p)
{
        if (++p->depth > LIMIT_QUERY_DEPTH)
                return fault_set(p->fault, -E2BIG, PARSE_FAILED, p->tok.at.off,
                                 "query: nested deeper than %u levels", LIMIT_QUERY_DEPTH);
        return 0;
}

static int value_list(struct parser *p, bool constant, struct ast_value *v)
{
        struct ast_value **tail = &v->items;
        int r = deeper(p);

        v->kind = AV_LIST;
        if (r == 0)
                r = parser_next(p);
        while (r >= 0 && !parser_at(p, ']')) {
                r = parser_value(p, constant, tail);
                if (r < 0)
                        break;
                v->has_var |= (*tail)->has_var;
                tail = &(*tail)->next;
        }
        p->depth--;
        return r < 0 ? r : parser_next(p);
}

/* "name: value" up to @close, as arguments and as fields of an object. */
static int arg_list(struct parser *p, bool constant, char close, const char *what,
                    struct ast_arg **ret)
{
        while (!parser_at(p, close)) {
                struct ast_arg *arg = arena_alloc(p->arena, sizeof *arg);
                int r;

                if (!arg)
                        return no_memory(p);
                r = parser_name(p, &arg->name, what);
                if (r >= 0)
                        r = parser_want(p, ':', "before the value");
                if (r >= 0)
                        r = parser_value(p, constant, &arg->value);
                if (r < 0)
                        return r;
                *ret = arg;
                ret = &arg->next;
        }
        return parser_next(p);
}

static int value_object(struct parser *p, bool constant, struct ast_value *v)
{
        int r = deeper(p);

        v->kind = AV_OBJECT;
        if (r == 0)
                r = parser_next(p);
        if (r == 0)
                r = arg_list(p, constant, '}', "a field name or '}'", &v->fields);
        for (struct ast_arg *f = v->fields; r >= 0 && f; f = f->next)
                v->has_var |= f->value->has_var;
        p->depth--;
        return r;
}

static enum ast_vkind word_kind(const char *src, struct slice at)
{
        if (slice_is(src, at, "null"))
                return AV_NULL;
        if (slice_is(src, at, "true") || slice_is(src, at, "false"))
                return AV_BOOL;
        return AV_ENUM;
}

int parser_value(struct parser *p, bool constant, struct ast_value **ret)
{
        static const enum ast_vkind of[TOK_COUNT] = {
                [TOK_INT] = AV_INT,
                [TOK_FLOAT] = AV_FLOAT,
                [TOK_STRING] = AV_STRING,
                [TOK_BLOCK] = AV_BLOCK,
        };
        struct ast_value *v = arena_alloc(p->arena, sizeof *v);

        if (!v)
                return no_memory(p);
        *ret = v;
        v->text = p->tok.at;
        if (parser_at(p, '['))
                return value_list(p, constant, v);
        if (parser_at(p, '{'))
                return value_object(p, constant, v);
        if (parser_at(p, '$') && !constant) {
                int r = parser_next(p);

                v->kind = AV_VAR;
                v->has_var = true;
                return r < 0 ? r : parser_name(p, &v->text, "the name of a variable");
        }
        v->kind = p->tok.kind == TOK_NAME ? word_kind(p->lex.src, v->text) : of[p->tok.kind];
        if (v->kind == AV_NONE)
                return parser_unexpected(p, constant ? "a constant value" : "a value");
        p->has_string |= v->kind == AV_STRING || v->kind == AV_BLOCK;
        return parser_next(p);
}

static int arguments(struct parser *p, bool constant, struct ast_arg **ret)
{
        int r = parser_eat(p, '(');

        if (r <= 0)
                return r;
        if (parser_at(p, ')'))
                return parser_unexpected(p, "an argument");
        return arg_list(p, constant, ')', "an argument or ')'", ret);
}

int parser_directives(struct parser *p, bool constant, struct ast_directive **ret)
{
        int r;

        while ((r = parser_eat(p, '@')) > 0) {
                struct ast_directive *d = arena_alloc(p->arena, sizeof *d);

                if (!d)
                        return no_memory(p);
                r = parser_name(p, &d->name, "the name of a directive");
                if (r >= 0)
                        r = arguments(p, constant, &d->args);
                if (r < 0)
                        return r;
                *ret = d;
                ret = &d->next;
        }
        return r;
}

static int selection_set(struct parser *p, struct ast_sel **ret);

static int field(struct parser *p, struct ast_sel *s)
{
        int r = parser_name(p, &s->name, "a field, '...' or '}'");

        s->key = s->name;
        if (r >= 0)
                r = parser_eat(p, ':');
        if (r > 0)
                r = parser_name(p, &s->name, "the field behind its alias");
        if (r >= 0)
                r = arguments(p, false, &s->args);
        if (r >= 0)
                r = parser_directives(p, false, &s->dirs);
        if (r >= 0 && parser_at(p, '{'))
                r = selection_set(p, &s->sub);
        return r;
}

static int spread(struct parser *p, struct ast_sel *s)
{
        int r = parser_next(p);

        s->kind = AS_INLINE;
        s->key = (struct slice){ p->tok.at.off, 0 };
        if (r < 0)
                return r;
        if (at_word(p, "on")) {
                r = parser_next(p);
                if (r >= 0)
                        r = parser_name(p, &s->name, "a type behind 'on'");
        } else if (p->tok.kind == TOK_NAME) {
                s->kind = AS_SPREAD;
                r = parser_name(p, &s->name, "the name of a fragment");
        }
        if (r >= 0)
                r = parser_directives(p, false, &s->dirs);
        if (r >= 0 && s->kind == AS_INLINE)
                r = selection_set(p, &s->sub);
        return r;
}

static int selection_set(struct parser *p, struct ast_sel **ret)
{
        int r = deeper(p);

        if (r == 0)
                r = parser_want(p, '{', "before a selection");
        if (r >= 0 && parser_at(p, '}'))
                return parser_unexpected(p, "at least one field");
        while (r >= 0 && !parser_at(p, '}')) {
                struct ast_sel *s = arena_alloc(p->arena, sizeof *s);

                if (!s)
                        return no_memory(p);
                *ret = s;
                ret = &s->next;
                r = parser_at(p, '.') ? spread(p, s) : field(p, s);
        }
        p->depth--;
        return r < 0 ? r : parser_next(p);
}

/* The declared type only has to be well-formed: values are checked against the place where the
 * variable is used, because clients declare other nullabilities than the schema has. */
static int type_reference(struct parser *p)
{
        uint32_t lists = 0;
        struct slice name;
        int r;

        while ((r = parser_eat(p, '[')) > 0)
                lists++;
        if (r >= 0)
                r = parser_name(p, &name, "a type");
        if (r >= 0)
                r = parser_eat(p, '!');
        for (; r >= 0 && lists > 0; lists--) {
                r = parser_want(p, ']', "behind the type");
                if (r >= 0)
                        r = parser_eat(p, '!');
        }
        return r;
}

static int variables(struct parser *p, struct ast_var **ret)
{
        int r = parser_eat(p, '(');

        if (r <= 0)
                return r;
        while (!parser_at(p, ')')) {
                struct ast_var *v = arena_alloc(p->arena, sizeof *v);
                struct ast_directive *ignored = NULL;

                if (!v)
                        return no_memory(p);
                r = parser_want(p, '$', "before a variable");
                if (r >= 0)
                        r = parser_name(p, &v->name, "the name of a variable");
                if (r >= 0)
                        r = parser_want(p, ':', "before the variable's type");
                if (r >= 0)
                        r = type_reference(p);
                if (r >= 0)
                        r = parser_eat(p, '=');
                if (r > 0)
                        r = parser_value(p, true, &v->preset);
                if (r >= 0)
                        r = parser_directives(p, true, &ignored);
                if (r < 0)
                        return r;
                *ret = v;
                ret = &v->next;
        }
        return parser_next(p);
}

static int operation(struct parser *p, struct ast_op **ret)
{
        static const char *const word[] = { "query", "mutation", "subscription" };
        struct ast_op *op = arena_alloc(p->arena, sizeof *op);
        int r = 0;

        if (!op)
                return no_memory(p);
        op->off = p->tok.at.off;
        if (!parser_at(p, '{')) {
                size_t i = 0;

                while (i < NELEM(word) && !at_word(p, word[i]))
                        i++;
                if (i == NELEM(word))
                        return parser_unexpected(p, "query, mutation, fragment or '{'");
                op->kind = (enum ast_opkind) i;
                r = parser_next(p);
                if (r >= 0 && p->tok.kind == TOK_NAME)
                        r = parser_name(p, &op->name, "a name");
                if (r >= 0)
                        r = variables(p, &op->vars);
                if (r >= 0)
                        r = parser_directives(p, false, &op->dirs);
        }
        if (r >= 0)
                r = selection_set(p, &op->sel);
        *ret = op;
        return r;
}

static int fragment(struct parser *p, struct ast_frag **ret)
{
        struct ast_frag *f = arena_alloc(p->arena, sizeof *f);
        int r;

        if (!f)
                return no_memory(p);
        r = parser_next(p);
        if (r >= 0 && at_word(p, "on"))
                return parser_unexpected(p, "the name of a fragment");
        if (r >= 0)
                r = parser_name(p, &f->name, "the name of a fragment");
        if (r >= 0 && !at_word(p, "on"))
                return parser_unexpected(p, "'on' and a type");
        if (r >= 0)
                r = parser_next(p);
        if (r >= 0)
                r = parser_name(p, &f->on, "a type");
        if (r >= 0)
                r = parser_directives(p, false, &f->dirs);
        if (r >= 0)
                r = selection_set(p, &f->sel);
        *ret = f;
        return r;
}

int parse_document(const char *src, size_t len, struct arena *a, struct ast_doc *ret,
                   struct gql_fault *f)
{
        struct ast_doc d = { .src = src, .len = (uint32_t) len };
        struct ast_frag **frag = &d.frags;
        struct ast_op **op = &d.ops;
        struct parser p;
        int r;

        r = parser_init(&p, src, len, LIMIT_QUERY_TOKENS, a, f);
        while (r >= 0 && p.tok.kind != TOK_EOF) {
                if (at_word(&p, "fragment")) {
                        r = fragment(&p, frag);
                        if (r >= 0)
                                frag = &(*frag)->next;
                } else {
                        r = operation(&p, op);
                        if (r >= 0)
                                op = &(*op)->next;
                }
        }
        if (r < 0)
                return r;
        if (!d.ops)
                return fault_set(f, -EINVAL, PARSE_FAILED, UINT32_MAX,
                                 "the query holds no operation");
        d.has_string = p.has_string;
        *ret = d;
        return 0;
}
