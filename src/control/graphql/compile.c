/* compile.c - see compile.h.  API program; hostile queries.
 *
 * A short text can ask for endless work (fragments that spread each other, the same field under a
 * thousand aliases), so work is counted here: fields of the result, visits of the tree, depth
 * through fragments.  Fragments that are never spread are not looked at. */
#include "control/graphql/compile_priv.h"

#include <errno.h>
#include <stdio.h>

#include "base/jsonx.h"
#include "control/graphql/coerce.h"
#include "control/graphql/hash.h"
#include "model/limits.h"

struct occurrence { /* one place that selects a field: its sub-selection counts */
        const struct ast_sel *sub;
        const struct cond *cond;
        struct occurrence *next;
};

struct draft { /* a field while places are still being found */
        struct qfield q;
        const struct ast_sel *first;
        struct occurrence *occ, **tail;
        bool always;
        struct draft *next, *bucket;
};

struct collector { /* one selection while it is being made */
        const struct stype *type;
        const char *noun;
        struct draft *first, **tail;
        struct draft **bucket;
        uint32_t n, n_buckets;
        uint32_t id;
};

/* ---- directives --------------------------------------------------------------------------------- */

static int directive_fault(struct compiler *k, const struct ast_directive *d, const char *why)
{
        return fault_set(k->f, -EINVAL, INVALID, d->name.off, "@%.*s: %s", show_len(d->name),
                         k->src + d->name.off, why);
}

/* Add what @dirs ask for to the chain *cond. */
static int conditions(struct compiler *k, const struct ast_directive *dirs,
                      const struct cond **cond)
{
        for (const struct ast_directive *d = dirs; d; d = d->next) {
                bool skip = slice_is(k->src, d->name, "skip");
                const struct ast_value *v;
                struct cond *c;

                if (!skip && !slice_is(k->src, d->name, "include"))
                        return directive_fault(k, d, "unknown directive");
                if (!d->args || d->args->next || !slice_is(k->src, d->args->name, "if"))
                        return directive_fault(k, d, "needs exactly the argument \"if\"");
                v = d->args->value;
                if (v->kind != AV_VAR && v->kind != AV_BOOL)
                        return directive_fault(k, d, "\"if\" must be true, false or a variable");
                if (v->kind == AV_BOOL && (v->text.len == 4) != skip)
                        continue;
                c = arena_alloc(&k->q->arena, sizeof *c);
                if (!c)
                        return compile_no_memory(k);
                c->up = *cond;
                c->kind = v->kind == AV_BOOL ? COND_NEVER : COND_VAR;
                c->variable = v->text;
                c->skip = skip;
                *cond = c;
        }
        return 0;
}

/* ---- one selection -------------------------------------------------------------------------------- */

static int rehash(struct compiler *k, struct collector *c)
{
        c->n_buckets = c->n_buckets ? c->n_buckets * 4 : 32;
        c->bucket = arena_array(&k->q->arena, c->n_buckets, sizeof(struct draft *));
        if (!c->bucket)
                return compile_no_memory(k);
        for (struct draft *d = c->first; d; d = d->next) {
                struct draft **b =
                        &c->bucket[hash_bytes(k->s->hash_key, d->q.key + 2, d->q.key_len - 4) &
                                   (c->n_buckets - 1)];

                d->bucket = *b;
                *b = d;
        }
        return 0;
}

static struct draft *draft_find(struct compiler *k, const struct collector *c, struct slice key)
{
        uint32_t h = (uint32_t) hash_bytes(k->s->hash_key, k->src + key.off, key.len) &
                     (c->n_buckets - 1);
        struct draft *d = c->bucket[h];

        while (d && !(d->q.key_len - 4 == key.len &&
                      memcmp(d->q.key + 2, k->src + key.off, key.len) == 0))
                d = d->bucket;
        return d;
}

static int draft_new(struct compiler *k, struct collector *c, const struct ast_sel *sel,
                     struct draft **ret)
{
        struct draft *d = arena_alloc(&k->q->arena, sizeof *d);
        char *key = arena_alloc(&k->q->arena, sel->key.len + 4 + 1);
        struct draft **b;

        if (!d || !key)
                return compile_no_memory(k);
        if (k->q->n_fields >= LIMIT_QUERY_FIELDS)
                return fault_set(k->f, -E2BIG, INVALID, sel->key.off,
                                 "query: selects more than %u fields", LIMIT_QUERY_FIELDS);
        memcpy(key, ",\"", 2);
        memcpy(key + 2, k->src + sel->key.off, sel->key.len);
        memcpy(key + 2 + sel->key.len, "\":", 2);
        d->q.key = key;
        d->q.key_len = sel->key.len + 4;
        d->q.off = sel->key.off;
        d->q.index = k->q->n_fields++;
        d->q.arg_slot = -1;
        d->q.args = k->s->no_args;
        d->q.given = sel->args;
        d->first = sel;
        d->tail = &d->occ;
        *c->tail = d;
        c->tail = &d->next;
        if (++c->n > c->n_buckets) {
                *ret = d;
                return rehash(k, c);
        }
        b = &c->bucket[hash_bytes(k->s->hash_key, key + 2, sel->key.len) & (c->n_buckets - 1)];
        d->bucket = *b;
        *b = d;
        *ret = d;
        return 0;
}

static bool same_args(const char *src, const struct ast_arg *a, const struct ast_arg *b);

static bool same_value(const char *src, const struct ast_value *a, const struct ast_value *b)
{
        const struct ast_value *x = a->items, *y = b->items;

        if (a->kind != b->kind)
                return false;
        if (a->kind == AV_OBJECT)
                return same_args(src, a->fields, b->fields);
        if (a->kind != AV_LIST)
                return slice_same(src, a->text, b->text);
        for (; x && y && same_value(src, x, y); x = x->next)
                y = y->next;
        return !x && !y;
}

static bool same_args(const char *src, const struct ast_arg *a, const struct ast_arg *b)
{
        for (; a && b; a = a->next, b = b->next)
                if (!slice_same(src, a->name, b->name) || !same_value(src, a->value, b->value))
                        return false;
        return !a && !b;
}

static bool is_root(const struct gql_schema *s, const struct stype *t)
{
        return t == s->query || t == s->mutation || t == s->subscription;
}

static const struct sfield *field_find(const struct compiler *k, const struct stype *t,
                                       struct slice name)
{
        const char *s = k->src + name.off;

        if (t == k->s->query && name.len > 2 && memcmp(s, "__", 2) == 0)
                return names_find(&k->s->meta->members, s, name.len);
        return names_find(&t->members, s, name.len);
}

/* A field of the other spelling stands at the same place there. */
static const struct named *other_spelling(const struct stype *t, const char *name, size_t len)
{
        const struct named *mine = t->members.first,
                           *theirs = t->twin ? t->twin->members.first : NULL;

        for (; mine && theirs; mine = mine->next, theirs = theirs->next)
                if (theirs->len == len && memcmp(theirs->name, name, len) == 0)
                        return mine;
        return NULL;
}

static int unknown_field(struct compiler *k, const struct stype *t, struct slice name)
{
        const char *s = k->src + name.off;
        const struct named *near = other_spelling(t, s, name.len);

        if (!near)
                near = names_nearest(&t->members, s, name.len);
        return fault_set(k->f, -EINVAL, INVALID, name.off, "type %s has no field \"%.*s\"%s%s%s",
                         t->n.name, show_len(name), s, near ? "; did you mean \"" : "",
                         near ? near->name : "", near ? "\"?" : "");
}

static int check_leaf(struct compiler *k, const struct sfield *f, const struct ast_sel *sel)
{
        bool object = f->type.base->kind == TK_OBJECT;

        if (object == !!sel->sub)
                return 0;
        if (object)
                return fault_set(k->f, -EINVAL, INVALID, sel->key.off,
                                 "\"%s\" is of type %s: say which of its fields, as in %s { %s }",
                                 f->n.name, f->type.text, f->n.name,
                                 f->type.base->members.first->name);
        return fault_set(k->f, -EINVAL, INVALID, sel->key.off,
                         "\"%s\" is of type %s, which has no fields to select", f->n.name,
                         f->type.text);
}

static bool is_typename(const struct compiler *k, struct slice name)
{
        return slice_is(k->src, name, "__typename");
}

static int place_add(struct compiler *k, struct draft *d, const struct ast_sel *sel,
                     const struct cond *cond)
{
        if (sel->sub) {
                struct occurrence *o = arena_alloc(&k->q->arena, sizeof *o);

                if (!o)
                        return compile_no_memory(k);
                *o = (struct occurrence){ sel->sub, cond, NULL };
                *d->tail = o;
                d->tail = &o->next;
        }
        d->always |= !cond;
        if (cond && !d->always && !(d->q.conds && d->q.conds->cond == cond)) {
                struct cond_list *l = arena_alloc(&k->q->arena, sizeof *l);

                if (!l)
                        return compile_no_memory(k);
                *l = (struct cond_list){ cond, d->q.conds };
                d->q.conds = l;
        }
        return 0;
}

static int add_field(struct compiler *k, struct collector *c, const struct ast_sel *sel,
                     const struct cond *cond)
{
        struct draft *d = c->n_buckets ? draft_find(k, c, sel->key) : NULL;
        int r;

        if (d && (!slice_same(k->src, d->first->name, sel->name) ||
                  !same_args(k->src, d->first->args, sel->args)))
                return fault_set(k->f, -EINVAL, INVALID, sel->key.off,
                                 "\"%.*s\" is selected twice with different meanings: use aliases",
                                 show_len(sel->key), k->src + sel->key.off);
        if (!d) {
                r = draft_new(k, c, sel, &d);
                if (r < 0)
                        return r;
                d->q.noun = c->noun;
                if (!is_typename(k, sel->name)) {
                        d->q.f = field_find(k, c->type, sel->name);
                        if (!d->q.f)
                                return unknown_field(k, c->type, sel->name);
                        if (d->q.f->noun)
                                d->q.noun = d->q.f->noun;
                        d->q.not_here = !d->q.f->row && is_root(k->s, c->type);
                }
        }
        if (d->q.f && !d->q.not_here) {
                r = check_leaf(k, d->q.f, sel);
                if (r < 0)
                        return r;
        }
        if (!d->q.f && (sel->sub || sel->args))
                return fault_set(k->f, -EINVAL, INVALID, sel->key.off,
                                 "__typename has neither arguments nor fields");
        return place_add(k, d, sel, cond);
}

static int collect_from(struct compiler *k, struct collector *c, const struct ast_sel *sel,
                        const struct cond *cond);

/* A type condition must name the type itself: nothing else can ever match. */
static int check_condition(struct compiler *k, const struct stype *t, struct slice on)
{
        const char *name = k->src + on.off;

        if (on.len == 0 || (on.len == t->n.len && memcmp(name, t->n.name, on.len) == 0))
                return 0;
        if (!names_find(&k->s->types, name, on.len))
                return fault_set(k->f, -EINVAL, INVALID, on.off, "unknown type \"%.*s\"",
                                 show_len(on), name);
        return fault_set(k->f, -EINVAL, INVALID, on.off,
                         "a fragment on %.*s cannot be used where the type is %s", show_len(on),
                         name, t->n.name);
}

static int add_fragment(struct compiler *k, struct collector *c, const struct ast_sel *sel,
                        const struct cond *cond)
{
        const struct ast_sel *sub = sel->sub;
        struct ast_frag *f = NULL;
        int r = 0;

        if (sel->kind == AS_SPREAD) {
                r = frag_find(k, sel->name, &f);
                if (r < 0)
                        return r;
                if (f->seen_in == c->id && f->seen_cond == cond)
                        return 0; /* nothing new */
                f->seen_in = c->id;
                f->seen_cond = cond;
                sub = f->sel;
                r = conditions(k, f->dirs, &cond);
        }
        if (r >= 0)
                r = check_condition(k, c->type, f ? f->on : sel->name);
        if (r >= 0 && ++k->depth > 2 * LIMIT_QUERY_DEPTH)
                r = fault_set(k->f, -E2BIG, INVALID, sel->key.off,
                              "query: nested deeper than %u levels", LIMIT_QUERY_DEPTH);
        if (r >= 0)
                r = collect_from(k, c, sub, cond);
        k->depth--;
        return r;
}

static int collect_from(struct compiler *k, struct collector *c, const struct ast_sel *sel,
                        const struct cond *cond)
{
        for (; sel; sel = sel->next) {
                const struct cond *own = cond;
                int r = 0;

                if (++k->visits > LIMIT_QUERY_TOKENS)
                        return fault_set(k->f, -E2BIG, INVALID, sel->key.off,
                                         "query: its fragments expand to more than %u selections",
                                         LIMIT_QUERY_TOKENS);
                if (sel->dirs)
                        r = conditions(k, sel->dirs, &own);
                if (r >= 0)
                        r = sel->kind == AS_FIELD ? add_field(k, c, sel, own)
                                                  : add_fragment(k, c, sel, own);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* ---- arguments ------------------------------------------------------------------------------- */

static bool any_variable(const struct ast_arg *a)
{
        for (; a; a = a->next)
                if (a->value->has_var)
                        return true;
        return false;
}

static int keep_json(struct compiler *k, json_t *j)
{
        struct cquery *q = k->q;
        json_t **grown = q->owned;

        if ((q->n_owned & (q->n_owned - 1)) == 0)
                grown = realloc(q->owned, (q->n_owned ? q->n_owned * 2 : 1) * sizeof *grown);
        if (!grown) {
                json_decref(j);
                return compile_no_memory(k);
        }
        q->owned = grown;
        q->owned[q->n_owned++] = j;
        return 0;
}

static int arguments(struct compiler *k, struct qfield *f)
{
        struct coerce c = { .schema = k->s,
                            .src = k->src,
                            .vars = k->q->op->vars,
                            .code = INVALID,
                            .fault = k->f,
                            .off = f->off,
                            .deferred = any_variable(f->given) };
        AUTO(json_put) json_t *args = NULL;
        int r;

        if (!f->given && f->f->args.n == 0)
                return 0;
        r = coerce_args(&c, f->f->n.name, &f->f->args, f->given, &args);
        if (r < 0)
                return r;
        if (c.deferred) {
                f->arg_slot = (int32_t) k->q->n_slots++;
                return 0;
        }
        f->args = args;
        return keep_json(k, TAKE(args));
}

static int collect(struct compiler *k, const struct stype *t, const char *noun,
                   const struct occurrence *occ, const struct selection **ret);

static int finish_fields(struct compiler *k, struct collector *c, struct selection *s)
{
        for (struct draft *d = c->first; d; d = d->next) {
                struct qfield *q = &s->v[s->n++];
                int r = 0;

                *q = d->q;
                if (d->always)
                        q->conds = NULL;
                if (!q->f || q->not_here)
                        continue;
                r = arguments(k, q);
                if (r >= 0 && d->occ)
                        r = collect(k, q->f->type.base, q->noun, d->occ, &q->sub);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int collect(struct compiler *k, const struct stype *t, const char *noun,
                   const struct occurrence *occ, const struct selection **ret)
{
        struct selection *s = arena_alloc(&k->q->arena, sizeof *s);
        struct collector c = { .type = t, .noun = noun, .id = ++k->selections };
        int r = 0;

        if (!s)
                return compile_no_memory(k);
        c.tail = &c.first;
        if (++k->depth > LIMIT_QUERY_DEPTH)
                return fault_set(k->f, -E2BIG, INVALID, occ->sub->key.off,
                                 "query: nested deeper than %u levels", LIMIT_QUERY_DEPTH);
        for (; r >= 0 && occ; occ = occ->next)
                r = collect_from(k, &c, occ->sub, occ->cond);
        if (r < 0)
                return r;
        s->type = t;
        s->v = arena_array(&k->q->arena, c.n + 1, sizeof *s->v);
        if (!s->v)
                return compile_no_memory(k);
        r = finish_fields(k, &c, s);
        k->depth--;
        *ret = s;
        return r;
}

/* ---- the whole query ------------------------------------------------------------------------------ */

static int choose_operation(struct compiler *k, const char *name, const struct ast_op **ret)
{
        const struct ast_op *op = k->q->doc.ops;

        if (str_empty(name)) {
                if (op->next)
                        return fault_set(k->f, -EINVAL, INVALID, op->off,
                                         "the query holds several operations: operationName must "
                                         "say which one to run");
                *ret = op;
                return 0;
        }
        for (; op; op = op->next)
                if (slice_is(k->src, op->name, name))
                        break;
        if (!op)
                return fault_set(k->f, -EINVAL, INVALID, UINT32_MAX,
                                 "operationName: the query holds no operation \"%.60s\"", name);
        *ret = op;
        return 0;
}

static int check_operation(struct compiler *k, const struct ast_op *op)
{
        const struct cond *ignored = NULL;
        unsigned n = 0;

        if (op->kind == AO_SUBSCRIPTION && !k->s->subscription)
                return fault_set(k->f, -EINVAL, INVALID, op->off,
                                 "subscriptions do not exist here");
        if (op->kind == AO_MUTATION && !k->s->mutation)
                return fault_set(k->f, -EINVAL, INVALID, op->off, "mutations do not exist here");
        for (const struct ast_var *v = op->vars; v; v = v->next) {
                if (++n > LIMIT_QUERY_VARIABLES)
                        return fault_set(k->f, -E2BIG, INVALID, v->name.off,
                                         "query: declares more than %u variables",
                                         LIMIT_QUERY_VARIABLES);
                for (const struct ast_var *w = op->vars; w != v; w = w->next)
                        if (slice_same(k->src, v->name, w->name))
                                return fault_set(k->f, -EINVAL, INVALID, v->name.off,
                                                 "variable \"$%.*s\" is declared twice",
                                                 show_len(v->name), k->src + v->name.off);
        }
        return conditions(k, op->dirs, &ignored);
}

/* Lists of the fields that need a look when a request begins. */
static void note_fields(struct cquery *q, const struct selection *s)
{
        for (size_t i = 0; i < s->n; i++) {
                const struct qfield *f = &s->v[i];

                if (f->arg_slot >= 0)
                        q->slots[f->arg_slot] = f;
                if (f->conds)
                        q->conditional[q->n_conditional++] = f;
                if (f->sub)
                        note_fields(q, f->sub);
        }
}

/* What it waits for is one thing, and one that is known. */
static int check_subscription(struct compiler *k)
{
        const struct selection *s = k->q->root;

        if (s->n == 1 && s->v[0].f && !s->v[0].conds)
                return 0;
        return fault_set(k->f, -EINVAL, INVALID, k->q->op->off,
                         "a subscription has exactly one field, without a condition");
}

static int compile(struct compiler *k, const char *op_name)
{
        struct occurrence root = { 0 };
        struct cquery *q = k->q;
        int r = choose_operation(k, op_name, &q->op);

        if (r >= 0)
                r = check_operation(k, q->op);
        if (r >= 0)
                r = frag_index(k);
        if (r >= 0)
                r = frag_check_cycles(k, q->op->sel);
        if (r < 0)
                return r;
        q->mutation = q->op->kind == AO_MUTATION;
        root.sub = q->op->sel;
        q->subscription = q->op->kind == AO_SUBSCRIPTION;
        r = collect(k,
                    q->mutation       ? k->s->mutation
                    : q->subscription ? k->s->subscription
                                      : k->s->query,
                    "cluster", &root, &q->root);
        if (r >= 0 && q->subscription)
                r = check_subscription(k);
        if (r < 0)
                return r;
        q->slots = arena_array(&q->arena, q->n_slots + 1, sizeof *q->slots);
        q->conditional = arena_array(&q->arena, q->n_fields + 1, sizeof *q->conditional);
        if (!q->slots || !q->conditional)
                return compile_no_memory(k);
        note_fields(q, q->root);
        return 0;
}

int cquery_make(struct gql_schema *s, const char *text, size_t len, const char *op_name,
                struct cquery **ret, struct gql_fault *f)
{
        AUTO(cquery_unref) struct cquery *q = calloc(1, sizeof *q);
        struct compiler k = { .s = s, .q = q, .f = f };
        char *copy;
        int r;

        if (!q)
                return compile_no_memory(&k);
        q->refs = 1;
        copy = arena_strn(&q->arena, text, len);
        if (!copy)
                return compile_no_memory(&k);
        r = parse_document(copy, len, &q->arena, &q->doc, f);
        k.src = copy;
        if (r >= 0)
                r = compile(&k, op_name);
        if (r < 0)
                return r;
        *ret = TAKE(q);
        return 0;
}

struct cquery *cquery_ref(struct cquery *q)
{
        q->refs++;
        return q;
}

struct cquery *cquery_unref(struct cquery *q)
{
        if (!q || --q->refs > 0)
                return NULL;
        for (size_t i = 0; i < q->n_owned; i++)
                json_decref(q->owned[i]);
        free(q->owned);
        arena_done(&q->arena);
        free(q);
        return NULL;
}
