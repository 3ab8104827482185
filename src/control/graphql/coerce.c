/* coerce.c - see coerce.h.  API program; values come from strangers.
 *
 * What clients really send, and what becomes of it:
 *   enum          bare or quoted
 *   Int           8, 8.0, "8"
 *   Float         8, 8.5, "8.5"
 *   String        "x", a bare word, a number
 *   Boolean       true, "true", 0, 1
 *   [T]           a lone T
 *   "" for anything but a String, null, a missing variable: not set
 *   podId in a Cluster... input and clusterId in a Pod... input: the same field
 *   unknown input fields: ignored, unless the schema is strict
 * Resolvers see one form.  Recursion follows the schema's types, or the tree that the parser has
 * bounded. */
#include "control/graphql/coerce.h"

#include <errno.h>
#include <stdio.h>

#include "base/jsonx.h"
#include "base/log.h"
#include "control/graphql/leaf.h"

/* Enter a member; returns the length to hand to path_leave(). */
static size_t path_enter(struct coerce *c, const char *name)
{
        size_t keep = c->path_len;
        bool first = !strchr(c->path, '(');
        int n = snprintf(c->path + keep, sizeof c->path - keep, "%s%s", first ? "(" : ".", name);

        if (n > 0)
                c->path_len +=
                        (size_t) n < sizeof c->path - keep ? (size_t) n : sizeof c->path - keep - 1;
        return keep;
}

static void path_leave(struct coerce *c, size_t keep)
{
        c->path_len = keep;
        c->path[keep] = '\0';
}

/* ---- objects ------------------------------------------------------------------------------ */

/* The input field that somebody means; the other spelling counts too. */
static const struct sinput *input_field(const struct stype *t, const char *name, size_t len)
{
        const struct sinput *f = names_find(&t->members, name, len), *other;

        if (f || !t->twin)
                return f;
        other = names_find(&t->twin->members, name, len);
        for (const struct named *n = t->members.first; other && n; n = n->next)
                if (strcmp(((const struct sinput *) n)->canon, other->canon) == 0)
                        return (const struct sinput *) n;
        return NULL;
}

static int unknown_field(struct coerce *c, const struct names *known, const char *owner,
                         const char *name, size_t len, uint32_t off)
{
        const struct named *near = names_nearest(known, name, len);
        int show = (int) (len > 60 ? 60 : len);

        if (near)
                return coerce_refuse(c, off, "\"%.*s\" is not known by %s; did you mean \"%s\"?",
                                     show, name, owner, near->name);
        return coerce_refuse(c, off, "\"%.*s\" is not known by %s", show, name, owner);
}

/* Newer clients send fields that we do not know yet.  The name is a stranger's: shown only when
 * it is a name. */
static int skip_unknown(struct coerce *c, const struct stype *t, const char *name, size_t len,
                        uint32_t off)
{
        if (c->schema->ops.strict)
                return unknown_field(c, &t->members, t->n.name, name, len, off);
        for (size_t i = 0; i < len; i++)
                if (name[i] < '0' || name[i] > 'z')
                        return 0;
        log_debug("graphql: %s has no field %.*s: ignored", t->n.name, (int) (len > 60 ? 60 : len),
                  name);
        return 0;
}

static int store(struct coerce *c, const char *key, json_t *v, uint32_t off, json_t *obj)
{
        if (!v)
                return 0; /* null and absent are the same */
        if (json_object_get(obj, key)) {
                json_decref(v);
                return coerce_refuse(c, off, "\"%s\" is given twice", key);
        }
        return json_object_set_new_nocheck(obj, key, v) < 0 ? coerce_no_memory(c) : 0;
}

/* Whether @in was given as a variable, whose value is not known yet. */
static bool known_later(const struct coerce *c, const struct stype *t, const struct sinput *in,
                        const struct ast_arg *given)
{
        for (; c->deferred && given; given = given->next) {
                const char *name = c->src + given->name.off;

                if (given->value->kind != AV_VAR)
                        continue;
                if (t ? input_field(t, name, given->name.len) == in
                      : slice_is(c->src, given->name, in->n.name))
                        return true;
        }
        return false;
}

/* Defaults, and what must be there: fields of the input @t, or arguments (@t NULL). */
static int fill_in(struct coerce *c, const struct stype *t, const struct names *known, uint32_t off,
                   json_t *obj, const struct ast_arg *given)
{
        for (const struct named *n = known->first; n; n = n->next) {
                const struct sinput *in = (const struct sinput *) n;

                if (json_object_get(obj, in->canon))
                        continue;
                if (in->preset) {
                        if (json_object_set_nocheck(obj, in->canon, in->preset) < 0)
                                return coerce_no_memory(c);
                        continue;
                }
                if (!in->type.nonnull || known_later(c, t, in, given))
                        continue;
                (void) path_enter(c, n->name);
                return coerce_refuse(c, off, "%s is required", in->type.text);
        }
        return 0;
}

static int from_json(struct coerce *c, const struct tref *type, const json_t *j, json_t **ret);

static int object_from_json(struct coerce *c, const struct stype *t, const json_t *j, json_t **ret)
{
        AUTO(json_put) json_t *obj = json_object();
        json_t *value;
        const char *key;

        if (!obj)
                return coerce_no_memory(c);
        json_object_foreach((json_t *) j, key, value)
        {
                const struct sinput *in = input_field(t, key, strlen(key));
                json_t *v = NULL;
                size_t keep;
                int r;

                if (!in) {
                        r = skip_unknown(c, t, key, strlen(key), c->off);
                } else {
                        keep = path_enter(c, key);
                        r = from_json(c, &in->type, value, &v);
                        if (r >= 0)
                                r = store(c, in->canon, v, c->off, obj);
                        path_leave(c, r < 0 ? c->path_len : keep);
                }
                if (r < 0)
                        return r;
        }
        if (fill_in(c, t, &t->members, c->off, obj, NULL) < 0)
                return c->fault->err.code;
        *ret = TAKE(obj);
        return 0;
}

static int list_add(struct coerce *c, json_t *list, json_t *v)
{
        if (!v)
                return 0; /* null in a list says nothing */
        return json_array_append_new(list, v) < 0 ? coerce_no_memory(c) : 0;
}

static struct tref item_of(const struct tref *type)
{
        struct tref item = *type;

        item.list = false;
        item.nonnull = false;
        return item;
}

static int list_from_json(struct coerce *c, const struct tref *type, const json_t *j, json_t **ret)
{
        AUTO(json_put) json_t *list = json_array();
        struct tref item = item_of(type);
        size_t n = json_is_array(j) ? json_array_size(j) : 1;

        if (!list)
                return coerce_no_memory(c);
        for (size_t i = 0; i < n; i++) {
                const json_t *one = json_is_array(j) ? json_array_get(j, i) : j;
                json_t *v = NULL;
                int r;

                if (json_is_string(one) && json_string_length(one) == 0 && one == j)
                        return 0; /* "" for a list: not set */
                r = from_json(c, &item, one, &v);
                if (r >= 0)
                        r = list_add(c, list, v);
                if (r < 0)
                        return r;
        }
        *ret = TAKE(list);
        return 0;
}

/* *ret stays NULL for null; whoever needs a value looks. */
static int from_json(struct coerce *c, const struct tref *type, const json_t *j, json_t **ret)
{
        const struct stype *t = type->base;
        struct leaf l;

        if (!j || json_is_null(j))
                return 0;
        if (type->list)
                return list_from_json(c, type, j, ret);
        if (t->kind == TK_INPUT && json_is_object(j))
                return object_from_json(c, t, j, ret);
        if (t->kind == TK_SCALAR && t->scalar == SC_ANY) {
                *ret = json_incref((json_t *) j);
                return 0;
        }
        l = leaf_of_json(j, c->off);
        return leaf_convert(c, t, &l, ret);
}

/* ---- literals ------------------------------------------------------------------------------- */

static int from_literal(struct coerce *c, const struct tref *type, const struct ast_value *v,
                        json_t **ret);

static const struct ast_var *declared(const struct coerce *c, struct slice name)
{
        for (const struct ast_var *v = c->vars; v; v = v->next)
                if (slice_same(c->src, v->name, name))
                        return v;
        return NULL;
}

/* What was given for a variable, borrowed; NULL: nothing. */
static const json_t *given_value(const struct coerce *c, struct slice name)
{
        char key[256];

        if (name.len >= sizeof key)
                return NULL;
        memcpy(key, c->src + name.off, name.len);
        key[name.len] = '\0';
        return json_object_get(c->values, key);
}

static int undeclared(struct coerce *c, struct slice name)
{
        return fault_set(c->fault, -EINVAL, c->code, name.off,
                         "variable \"$%.*s\" is neither declared nor given",
                         (int) (name.len > 60 ? 60 : name.len), c->src + name.off);
}

static int from_variable(struct coerce *c, const struct tref *type, struct slice name, json_t **ret)
{
        const struct ast_var *var = declared(c, name);
        const json_t *given;

        if (c->deferred)
                return 0;
        given = given_value(c, name);
        if (!given && !var)
                return undeclared(c, name);
        c->off = name.off;
        if (given)
                return from_json(c, type, given, ret);
        return var->preset ? from_literal(c, type, var->preset, ret) : 0;
}

/* Fields or arguments of @owner into @obj. */
static int members_from_literal(struct coerce *c, const struct stype *t, const struct names *known,
                                const struct ast_arg *given, json_t *obj)
{
        for (; given; given = given->next) {
                const char *name = c->src + given->name.off;
                const struct sinput *in = t ? input_field(t, name, given->name.len)
                                            : names_find(known, name, given->name.len);
                json_t *v = NULL;
                size_t keep;
                int r;

                if (!in) {
                        r = t ? skip_unknown(c, t, name, given->name.len, given->name.off)
                              : unknown_field(c, known, c->path, name, given->name.len,
                                              given->name.off);
                } else {
                        keep = path_enter(c, in->n.name);
                        r = from_literal(c, &in->type, given->value, &v);
                        if (r >= 0)
                                r = store(c, in->canon, v, given->name.off, obj);
                        path_leave(c, r < 0 ? c->path_len : keep);
                }
                if (r < 0)
                        return r;
        }
        return 0;
}

static int object_from_literal(struct coerce *c, const struct stype *t, const struct ast_value *v,
                               json_t **ret)
{
        AUTO(json_put) json_t *obj = json_object();
        int r;

        if (!obj)
                return coerce_no_memory(c);
        r = members_from_literal(c, t, &t->members, v->fields, obj);
        if (r >= 0)
                r = fill_in(c, t, &t->members, v->text.off, obj, v->fields);
        if (r < 0)
                return r;
        *ret = TAKE(obj);
        return 0;
}

static int leaf_literal(struct coerce *c, const struct stype *t, const struct ast_value *v,
                        json_t **ret)
{
        AUTO(strbuf_done) struct strbuf text = { 0 };
        struct leaf l = {
                .kind = LEAF_WORD, .s = c->src + v->text.off, .len = v->text.len, .off = v->text.off
        };
        bool is_int = false;

        switch (v->kind) {
        case AV_INT:
        case AV_FLOAT:
                l.kind = v->kind == AV_INT ? LEAF_INT : LEAF_FLOAT;
                if (!leaf_number(l.s, l.len, &l.d, &l.i, &is_int) || (v->kind == AV_INT && !is_int))
                        l.huge = true;
                break;
        case AV_BOOL:
                l.kind = LEAF_BOOL;
                l.b = l.len == 4;
                break;
        case AV_STRING:
        case AV_BLOCK:
                lex_unquote(c->src, v->text, v->kind == AV_BLOCK, &text);
                if (text.failed)
                        return coerce_no_memory(c);
                l.kind = LEAF_STRING;
                l.s = text.s ? text.s : "";
                l.len = text.len;
                break;
        case AV_LIST:
        case AV_OBJECT:
                l.kind = LEAF_OTHER;
                l.s = v->kind == AV_LIST ? "a list" : "an object";
                break;
        case AV_ENUM:
        case AV_NONE:
        case AV_VAR:
        case AV_NULL:
        case AV_KIND_COUNT:
        default:
                break;
        }
        return leaf_convert(c, t, &l, ret);
}

static int list_from_literal(struct coerce *c, const struct tref *type, const struct ast_value *v,
                             json_t **ret)
{
        AUTO(json_put) json_t *list = json_array();
        struct tref item = item_of(type);
        const struct ast_value *one = v->kind == AV_LIST ? v->items : v;

        if (!list)
                return coerce_no_memory(c);
        if (v->kind == AV_STRING && v->text.len == 2)
                return 0; /* "" for a list: not set */
        while (one) {
                json_t *got = NULL;
                int r = from_literal(c, &item, one, &got);

                if (r >= 0)
                        r = list_add(c, list, got);
                if (r < 0)
                        return r;
                one = v->kind == AV_LIST ? one->next : NULL;
        }
        *ret = TAKE(list);
        return 0;
}

/* The JSON scalar takes whole trees; the parser has bounded their depth. */
static int any_from_literal(struct coerce *c, const struct tref *type, const struct ast_value *v,
                            json_t **ret)
{
        AUTO(json_put) json_t *obj = NULL;

        if (v->kind == AV_LIST) {
                struct tref list = *type;

                list.list = true;
                return list_from_literal(c, &list, v, ret);
        }
        if (v->kind != AV_OBJECT)
                return leaf_literal(c, type->base, v, ret);
        obj = json_object();
        for (const struct ast_arg *f = v->fields; obj && f; f = f->next) {
                AUTO(free) char *key = str_fmt("%.*s", (int) f->name.len, c->src + f->name.off);
                json_t *got = NULL;
                int r = key ? from_literal(c, type, f->value, &got) : coerce_no_memory(c);

                if (r >= 0)
                        r = store(c, key, got, f->name.off, obj);
                if (r < 0)
                        return r;
        }
        *ret = TAKE(obj);
        return *ret ? 0 : coerce_no_memory(c);
}

static int from_literal(struct coerce *c, const struct tref *type, const struct ast_value *v,
                        json_t **ret)
{
        const struct stype *t = type->base;

        if (v->kind == AV_NULL)
                return 0;
        if (v->kind == AV_VAR)
                return from_variable(c, type, v->text, ret);
        if (type->list)
                return list_from_literal(c, type, v, ret);
        if (t->kind == TK_INPUT && v->kind == AV_OBJECT)
                return object_from_literal(c, t, v, ret);
        if (t->kind == TK_SCALAR && t->scalar == SC_ANY)
                return any_from_literal(c, type, v, ret);
        return leaf_literal(c, t, v, ret);
}

int coerce_literal(struct coerce *c, const struct tref *type, const struct ast_value *v,
                   json_t **ret)
{
        json_t *got = NULL;
        int r = from_literal(c, type, v, &got);

        if (r >= 0)
                *ret = got;
        return r;
}

int coerce_args(struct coerce *c, const char *owner, const struct names *declared_args,
                const struct ast_arg *given, json_t **ret)
{
        AUTO(json_put) json_t *obj = json_object();
        int n = snprintf(c->path, sizeof c->path, "%.100s", owner);
        int r;

        if (!obj)
                return coerce_no_memory(c);
        c->path_len = n > 0 ? strlen(c->path) : 0;
        r = members_from_literal(c, NULL, declared_args, given, obj);
        if (r >= 0)
                r = fill_in(c, NULL, declared_args, given ? given->name.off : c->off, obj, given);
        if (r < 0)
                return r;
        *ret = TAKE(obj);
        return 0;
}

int coerce_condition(struct coerce *c, struct slice variable, bool *ret)
{
        const struct ast_var *var = declared(c, variable);
        const json_t *given = given_value(c, variable);
        struct leaf l = { .kind = LEAF_BOOL, .off = variable.off };

        if (!given && !var)
                return undeclared(c, variable);
        if (given)
                l = leaf_of_json(given, variable.off);
        else if (var->preset && var->preset->kind == AV_BOOL)
                l.b = var->preset->text.len == 4;
        else
                l.kind = LEAF_OTHER;
        if (l.kind != LEAF_BOOL)
                return fault_set(c->fault, -EINVAL, c->code, variable.off,
                                 "variable \"$%.*s\" decides whether to include a field: "
                                 "it must be true or false",
                                 (int) (variable.len > 60 ? 60 : variable.len),
                                 c->src + variable.off);
        *ret = l.b;
        return 0;
}
