/* bind.c - ties a schema together: names to types, the two spellings to each other, resolver rows
 * to fields.  API program, at start.  Text and tables are ours; whatever does not fit is refused
 * by name, so a schema that exists is complete. */
#include <errno.h>
#include <stdio.h>

#include "base/proc.h"
#include "control/graphql/cache.h"
#include "control/graphql/coerce.h"
#include "control/graphql/schema.h"

#define NAME_MAX_LEN 128U

/* ---- the two spellings -------------------------------------------------------------------------- */

static bool word_char(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_';
}

/* Replace each '@' by the noun: lower case where a field name begins, else with a capital. */
static int spell(const char *tmpl, bool field, bool pod, char ret[static NAME_MAX_LEN])
{
        size_t n = 0;

        for (const char *p = tmpl; *p; p++) {
                char one[2] = { *p, '\0' };
                const char *add = one;
                bool inside = p > tmpl && word_char(p[-1]);

                if (*p == '@')
                        add = field && !inside ? (pod ? "pod" : "cluster")
                                               : (pod ? "Pod" : "Cluster");
                if (n + strlen(add) >= NAME_MAX_LEN)
                        return -EINVAL;
                memcpy(ret + n, add, strlen(add));
                n += strlen(add);
        }
        ret[n] = '\0';
        return 0;
}

/* "podId" -> "clusterId", "deployCpuPodInput" -> "deployCpuClusterInput"; false: not such a name. */
static bool respell(const char *name, char ret[static NAME_MAX_LEN])
{
        const char *at = NULL, *noun = "Cluster";
        int n;

        if (strncmp(name, "pod", 3) == 0 && !(name[3] >= 'a' && name[3] <= 'z' && name[3] != 's')) {
                at = name;
                noun = "cluster";
        } else {
                at = strstr(name, "Pod");
        }
        if (!at)
                return false;
        n = snprintf(ret, NAME_MAX_LEN, "%.*s%s%s", (int) (at - name), name, noun, at + 3);
        return n > 0 && (size_t) n < NAME_MAX_LEN;
}

static void find_twins(struct gql_schema *s)
{
        char other[NAME_MAX_LEN];

        for (struct named *n = s->types.first; n; n = n->next) {
                struct stype *pod = (struct stype *) n, *cluster;

                if (!respell(n->name, other))
                        continue;
                cluster = names_find(&s->types, other, strlen(other));
                if (!cluster || cluster->kind != pod->kind)
                        continue;
                pod->twin = cluster;
                pod->pod = true;
                cluster->twin = pod;
        }
}

/* Resolvers see one name for both spellings of an input field: the cluster one. */
static void find_canonical_names(struct stype *t)
{
        char other[NAME_MAX_LEN];

        for (struct named *n = t->members.first; n; n = n->next) {
                const struct named *twin = NULL;

                if (respell(n->name, other))
                        twin = names_find(&t->twin->members, other, strlen(other));
                if (twin)
                        ((struct sinput *) n)->canon = twin->name;
        }
}

/* ---- names to types ------------------------------------------------------------------------------- */

static int add_nodes(struct gql_schema *s, struct tref *t, struct err *e)
{
        const struct tnode *node = &t->base->self;
        int kinds[3], n = 0;

        if (t->list) {
                if (t->item_nonnull)
                        kinds[n++] = TN_NONNULL;
                kinds[n++] = TN_LIST;
        }
        if (t->nonnull)
                kinds[n++] = TN_NONNULL;
        for (int i = 0; i < n; i++) {
                struct tnode *outer = arena_alloc(&s->arena, sizeof *outer);

                if (!outer)
                        return err_set(e, -ENOMEM, "schema: out of memory");
                outer->kind = kinds[i] == TN_LIST ? TN_LIST : TN_NONNULL;
                outer->of = node;
                node = outer;
        }
        t->node = node;
        return 0;
}

static int link_ref(struct gql_schema *s, struct tref *t, bool input, const char *owner,
                    const char *name, struct err *e)
{
        size_t skip = t->list ? 1 : 0, len = strcspn(t->text + skip, "]!");

        t->base = names_find(&s->types, t->text + skip, len);
        if (!t->base)
                return err_set(e, -EINVAL, "schema: %s.%s: unknown type %s", owner, name, t->text);
        if (t->base->kind == (input ? TK_OBJECT : TK_INPUT))
                return err_set(e, -EINVAL, "schema: %s.%s: %s cannot be used for %s", owner, name,
                               t->text, input ? "a value given" : "an answer");
        return add_nodes(s, t, e);
}

static int link_inputs(struct gql_schema *s, struct names *list, const char *owner, struct err *e)
{
        int r = names_index(list, &s->arena, e);

        if (r < 0)
                return err_wrap(e, r, "schema: %s", owner);
        for (struct named *n = list->first; n; n = n->next) {
                r = link_ref(s, &((struct sinput *) n)->type, true, owner, n->name, e);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int link_type(struct gql_schema *s, struct stype *t, struct err *e)
{
        int r;

        if (t->kind == TK_INPUT)
                return link_inputs(s, &t->members, t->n.name, e);
        r = names_index(&t->members, &s->arena, e);
        if (r < 0)
                return err_wrap(e, r, "schema: %s", t->n.name);
        if (t->kind != TK_SCALAR && t->members.n == 0)
                return err_set(e, -EINVAL, "schema: %s is empty", t->n.name);
        for (struct named *n = t->members.first; t->kind == TK_OBJECT && n; n = n->next) {
                struct sfield *f = (struct sfield *) n;

                r = link_ref(s, &f->type, false, t->n.name, n->name, e);
                if (r >= 0)
                        r = link_inputs(s, &f->args, t->n.name, e);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int convert_presets(struct gql_schema *s, struct names *list, const char *owner,
                           struct err *e)
{
        for (struct named *n = list->first; n; n = n->next) {
                struct sinput *in = (struct sinput *) n;
                struct gql_fault f = { 0 };
                struct coerce c = { .schema = s, .src = in->src, .code = "", .fault = &f };

                if (in->preset_ast &&
                    coerce_literal(&c, &in->type, in->preset_ast, &in->preset) < 0)
                        return err_set(e, f.err.code, "schema: %s.%s: default %s%s", owner, n->name,
                                       in->preset_text, f.err.msg);
        }
        return 0;
}

static int convert_type_presets(struct gql_schema *s, struct stype *t, struct err *e)
{
        int r = 0;

        if (t->kind == TK_INPUT)
                return convert_presets(s, &t->members, t->n.name, e);
        for (struct named *n = t->members.first; r >= 0 && t->kind == TK_OBJECT && n; n = n->next)
                r = convert_presets(s, &((struct sfield *) n)->args, n->name, e);
        return r;
}

int schema_link(struct gql_schema *s, struct err *e)
{
        int r = names_index(&s->types, &s->arena, e);

        if (r < 0)
                return err_wrap(e, r, "schema");
        for (struct named *n = s->types.first; r >= 0 && n; n = n->next)
                r = link_type(s, (struct stype *) n, e);
        if (r < 0)
                return r;
        s->query = names_find(&s->types, "Query", 5);
        s->mutation = names_find(&s->types, "Mutation", 8);
        s->subscription = names_find(&s->types, "Subscription", 12);
        s->meta = names_find(&s->types, "__Query", 7);
        if (!s->query || s->query->kind != TK_OBJECT || !s->meta ||
            (s->mutation && s->mutation->kind != TK_OBJECT) ||
            (s->subscription && s->subscription->kind != TK_OBJECT))
                return err_set(e, -EINVAL, "schema: no type Query");
        find_twins(s);
        for (struct named *n = s->types.first; n; n = n->next) {
                struct stype *t = (struct stype *) n;

                if (t->kind == TK_INPUT && t->twin && t->pod)
                        find_canonical_names(t);
                for (struct named *m = t->members.first; t->kind == TK_OBJECT && t->twin && m;
                     m = m->next)
                        ((struct sfield *) m)->noun = t->pod ? "pod" : "cluster";
        }
        for (struct named *n = s->types.first; r >= 0 && n; n = n->next)
                r = convert_type_presets(s, (struct stype *) n, e);
        return r;
}

/* ---- rows to fields -------------------------------------------------------------------------------- */

static bool get_fits(enum gql_get get, const struct tref *t)
{
        const struct stype *b = t->base;
        bool number = b->kind == TK_SCALAR &&
                      (b->scalar == SC_INT || b->scalar == SC_FLOAT || b->scalar == SC_ANY);
        bool text = b->kind == TK_ENUM || (b->kind == TK_SCALAR && b->scalar != SC_INT &&
                                           b->scalar != SC_FLOAT && b->scalar != SC_BOOLEAN);

        switch (get) {
        case GQL_GET_FN:
                return true;
        case GQL_GET_STR:
        case GQL_GET_CHARS:
                return text && !t->list;
        case GQL_GET_TIME:
                return text && !t->list && b->kind == TK_SCALAR;
        case GQL_GET_STRV:
                return text && t->list;
        case GQL_GET_BOOL:
                return b->kind == TK_SCALAR && b->scalar == SC_BOOLEAN && !t->list;
        case GQL_GET_I32:
        case GQL_GET_U32:
        case GQL_GET_I64:
        case GQL_GET_U64:
        case GQL_GET_F64:
                return number && !t->list;
        case GQL_GET_SUB:
        case GQL_GET_PTR:
        case GQL_GET_SELF:
                return b->kind == TK_OBJECT && !t->list;
        case GQL_GET_NULL:
                return !t->nonnull;
        case GQL_GET_COUNT:
        default:
                return false;
        }
}

static int bind_row(struct stype *t, const struct gql_field *row, bool pod, struct err *e)
{
        char name[NAME_MAX_LEN], type[NAME_MAX_LEN];
        struct sfield *f;

        if (spell(row->name, true, pod, name) < 0 || spell(row->type, false, pod, type) < 0)
                return err_set(e, -EINVAL, "%s.%s: too long", t->n.name, row->name);
        f = names_find(&t->members, name, strlen(name));
        if (!f)
                return err_set(e, -EINVAL, "%s.%s: not in the schema", t->n.name, name);
        if (f->row)
                return err_set(e, -EINVAL, "%s.%s: two rows", t->n.name, name);
        if (strcmp(f->type.text, type) != 0)
                return err_set(e, -EINVAL, "%s.%s: the row says %s, the schema %s", t->n.name, name,
                               type, f->type.text);
        if (row->need <= GQL_RIGHT_NONE || row->need >= GQL_RIGHT_COUNT)
                return err_set(e, -EINVAL, "%s.%s: the row names no right", t->n.name, name);
        if ((row->get == GQL_GET_FN) != (row->fn != NULL))
                return err_set(e, -EINVAL, "%s.%s: either fn or get", t->n.name, name);
        if ((t == t->schema->query || t == t->schema->mutation) && row->get != GQL_GET_FN &&
            row->get != GQL_GET_NULL)
                return err_set(e, -EINVAL, "%s.%s: a root field has no object to get from",
                               t->n.name, name);
        if (t == t->schema->subscription && row->get != GQL_GET_SELF)
                return err_set(e, -EINVAL, "%s.%s: is answered with what has happened itself",
                               t->n.name, name);
        if (!get_fits(row->get, &f->type))
                return err_set(e, -EINVAL, "%s.%s: this get does not make a %s", t->n.name, name,
                               type);
        f->row = row;
        if (!t->twin && strchr(row->name, '@'))
                f->noun = pod ? "pod" : "cluster";
        t->bound = true;
        return 0;
}

static int bind_type(struct gql_schema *s, const struct gql_type *g, bool pod, struct err *e)
{
        char name[NAME_MAX_LEN];
        struct stype *t = NULL;
        int r = 0;

        if (spell(g->name, false, pod, name) == 0)
                t = names_find(&s->types, name, strlen(name));
        /* "deployCpu@Input"-like names begin small; object types never do */
        if (!t || t->kind != TK_OBJECT)
                return err_set(e, -EINVAL, "table %s: the schema has no such object type", name);
        for (size_t i = 0; r >= 0 && i < g->n; i++) {
                bool both = !t->twin && strchr(g->fields[i].name, '@');

                r = bind_row(t, &g->fields[i], both || pod, e);
                if (r >= 0 && both)
                        r = bind_row(t, &g->fields[i], false, e);
        }
        return r;
}

int schema_bind(struct gql_schema *s, const struct gql_type *types, size_t n, struct err *e)
{
        int r = 0;

        for (size_t i = 0; r >= 0 && i < n; i++) {
                bool both = strchr(types[i].name, '@') != NULL;

                r = bind_type(s, &types[i], both, e);
                if (r >= 0 && both)
                        r = bind_type(s, &types[i], false, e);
        }
        return r;
}

int schema_check_bound(const struct gql_schema *s, struct err *e)
{
        for (const struct named *n = s->types.first; n; n = n->next) {
                const struct stype *t = (const struct stype *) n;

                if (!t->bound || t == s->query || t == s->mutation || t == s->subscription)
                        continue;
                for (const struct named *m = t->members.first; m; m = m->next) {
                        const struct sfield *f = (const struct sfield *) m;

                        if (f->type.nonnull && !f->row)
                                return err_set(e, -EINVAL, "%s.%s is %s and has no row", n->name,
                                               m->name, f->type.text);
                }
        }
        return 0;
}

/* ---- life ------------------------------------------------------------------------------------------ */

int gql_schema_new(const char *sdl, size_t len, const struct gql_type *types, size_t n,
                   const struct gql_ops *ops, struct gql_schema **ret, struct err *e)
{
        AUTO(gql_schema_free) struct gql_schema *s = calloc(1, sizeof *s);
        int r;

        if (!s)
                return err_set(e, -ENOMEM, "schema: out of memory");
        if (!ops->allow)
                return err_set(e, -EINVAL, "schema: nobody answers for rights");
        s->ops = *ops;
        s->no_args = json_object();
        s->cache = cache_new(s->hash_key);
        if (!s->no_args || !s->cache)
                return err_set(e, -ENOMEM, "schema: out of memory");
        r = rand_bytes(s->hash_key, sizeof s->hash_key);
        if (r < 0)
                return err_errno(e, r, "schema: random key");
        r = sdl_read(s, introspect_sdl, strlen(introspect_sdl), true, e);
        if (r >= 0)
                r = sdl_read(s, sdl ? sdl : gql_schema_text, sdl ? len : gql_schema_text_len, false,
                             e);
        if (r >= 0)
                r = schema_link(s, e);
        if (r >= 0)
                r = schema_bind(s, introspect_types, introspect_n_types, e);
        if (r >= 0)
                r = schema_bind(s, types, n, e);
        if (r >= 0)
                r = schema_check_bound(s, e);
        if (r < 0)
                return r;
        *ret = TAKE(s);
        return 0;
}

static void free_presets(struct names *list)
{
        for (struct named *n = list->first; n; n = n->next)
                json_decref(((struct sinput *) n)->preset);
}

struct gql_schema *gql_schema_free(struct gql_schema *s)
{
        if (!s)
                return NULL;
        for (struct named *n = s->types.first; n; n = n->next) {
                struct stype *t = (struct stype *) n;

                if (t->kind == TK_INPUT)
                        free_presets(&t->members);
                for (struct named *m = t->members.first; t->kind == TK_OBJECT && m; m = m->next)
                        free_presets(&((struct sfield *) m)->args);
        }
        cache_free(s->cache);
        json_decref(s->no_args);
        arena_done(&s->arena);
        free(s);
        return NULL;
}

void gql_stats(const struct gql_schema *s, struct gql_stats *ret)
{
        *ret = (struct gql_stats){ .requests = s->requests };
        cache_stats(s->cache, ret);
}
