/* introspect.c - the schema about itself: __schema and __type, answered by the same machinery as
 * everything else.  API program, loop thread; pure look-ups.
 *
 * Two types here are never shown: __Query holds the two root fields, __Directives has one field per
 * directive because directives have names, descriptions and arguments like fields. */
#include <stddef.h>

#include "control/graphql/exec.h"

const char introspect_sdl[] =
        "scalar Int scalar Float scalar String scalar Boolean scalar ID\n"
        "type __Query { __schema: __Schema! __type(name: String!): __Type }\n"
        "type __Directives {\n"
        "  \"Takes the field in only when the argument is true.\" include(if: Boolean!): Boolean\n"
        "  \"Leaves the field out when the argument is true.\" skip(if: Boolean!): Boolean\n"
        "  \"Marks what will go away.\"\n"
        "  deprecated(reason: String = \"No longer supported\"): Boolean\n"
        "}\n"
        "type __Schema { description: String types: [__Type!]! queryType: __Type!\n"
        "  mutationType: __Type subscriptionType: __Type directives: [__Directive!]! }\n"
        "type __Type { kind: __TypeKind! name: String description: String specifiedByURL: String\n"
        "  fields(includeDeprecated: Boolean = false): [__Field!] interfaces: [__Type!]\n"
        "  possibleTypes: [__Type!]\n"
        "  enumValues(includeDeprecated: Boolean = false): [__EnumValue!]\n"
        "  inputFields(includeDeprecated: Boolean = false): [__InputValue!] ofType: __Type\n"
        "  isOneOf: Boolean }\n"
        "type __Field { name: String! description: String\n"
        "  args(includeDeprecated: Boolean = false): [__InputValue!]! type: __Type!\n"
        "  isDeprecated: Boolean! deprecationReason: String }\n"
        "type __InputValue { name: String! description: String type: __Type! defaultValue: String\n"
        "  isDeprecated: Boolean! deprecationReason: String }\n"
        "type __EnumValue { name: String! description: String isDeprecated: Boolean!\n"
        "  deprecationReason: String }\n"
        "type __Directive { name: String! description: String locations: [__DirectiveLocation!]!\n"
        "  args(includeDeprecated: Boolean = false): [__InputValue!]! isRepeatable: Boolean! }\n"
        "enum __TypeKind { SCALAR OBJECT INTERFACE UNION ENUM INPUT_OBJECT LIST NON_NULL }\n"
        "enum __DirectiveLocation { QUERY MUTATION SUBSCRIPTION FIELD FRAGMENT_DEFINITION\n"
        "  FRAGMENT_SPREAD INLINE_FRAGMENT VARIABLE_DEFINITION SCHEMA SCALAR OBJECT\n"
        "  FIELD_DEFINITION ARGUMENT_DEFINITION INTERFACE UNION ENUM ENUM_VALUE INPUT_OBJECT\n"
        "  INPUT_FIELD_DEFINITION }\n";

#define FN(field, text, func)                                                                      \
        {                                                                                          \
                .name = field, .type = text, .need = GQL_ANYONE, .fn = func                        \
        }
#define MEMBER(field, text, g, o)                                                                  \
        {                                                                                          \
                .name = field, .type = text, .need = GQL_ANYONE, .get = g, .off = o                \
        }
#define NOTHING(field, text)                                                                       \
        {                                                                                          \
                .name = field, .type = text, .need = GQL_ANYONE, .get = GQL_GET_NULL               \
        }

/* A list of members; deprecated ones only when asked for. */
static int put_members(struct gql_call *c, const struct names *l)
{
        bool all = json_is_true(gql_arg(c, "includeDeprecated"));
        int r = gql_list_begin(c);

        for (const struct named *n = l->first; r >= 0 && n; n = n->next)
                if (all || !n->deprecated)
                        r = gql_put_object(c, n);
        return r < 0 ? r : gql_list_end(c);
}

/* ---- __Query and __Schema ------------------------------------------------------------------------- */

static int q_schema(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        return gql_put_object(c, c->req->schema);
}

static int q_type(struct gql_call *c, const void *obj, struct err *e)
{
        const char *name = gql_arg_str(c, "name");
        const struct stype *t;

        (void) obj;
        (void) e;
        t = names_find(&c->req->schema->types, name, strlen(name));
        return gql_put_object(c, t ? &t->self : NULL);
}

static bool hidden(const struct named *n)
{
        return strcmp(n->name, "__Query") == 0 || strcmp(n->name, "__Directives") == 0;
}

static int s_types(struct gql_call *c, const void *obj, struct err *e)
{
        const struct gql_schema *s = obj;
        int r = gql_list_begin(c);

        (void) e;
        for (const struct named *n = s->types.first; r >= 0 && n; n = n->next)
                if (!hidden(n))
                        r = gql_put_object(c, &((const struct stype *) n)->self);
        return r < 0 ? r : gql_list_end(c);
}

static int s_query(struct gql_call *c, const void *obj, struct err *e)
{
        (void) e;
        return gql_put_object(c, &((const struct gql_schema *) obj)->query->self);
}

static int s_mutation(struct gql_call *c, const void *obj, struct err *e)
{
        const struct stype *t = ((const struct gql_schema *) obj)->mutation;

        (void) e;
        return gql_put_object(c, t ? &t->self : NULL);
}

static int s_subscription(struct gql_call *c, const void *obj, struct err *e)
{
        const struct stype *t = ((const struct gql_schema *) obj)->subscription;

        (void) e;
        return gql_put_object(c, t ? &t->self : NULL);
}

static int s_directives(struct gql_call *c, const void *obj, struct err *e)
{
        const struct stype *t =
                names_find(&((const struct gql_schema *) obj)->types, "__Directives", 12);

        (void) e;
        return put_members(c, &t->members);
}

/* ---- __Type: a struct tnode ------------------------------------------------------------------------ */

static int t_kind(struct gql_call *c, const void *obj, struct err *e)
{
        static const char *const kinds[TK_COUNT] = {
                [TK_NONE] = NULL,       [TK_SCALAR] = "SCALAR",
                [TK_ENUM] = "ENUM",     [TK_INPUT] = "INPUT_OBJECT",
                [TK_OBJECT] = "OBJECT",
        };
        const struct tnode *t = obj;

        (void) e;
        if (t->kind == TN_NAMED)
                return gql_put_str(c, kinds[t->named->kind]);
        return gql_put_str(c, t->kind == TN_LIST ? "LIST" : "NON_NULL");
}

static int t_name(struct gql_call *c, const void *obj, struct err *e)
{
        const struct tnode *t = obj;

        (void) e;
        return gql_put_str(c, t->kind == TN_NAMED ? t->named->n.name : NULL);
}

static int t_description(struct gql_call *c, const void *obj, struct err *e)
{
        const struct tnode *t = obj;

        (void) e;
        return gql_put_str(c, t->kind == TN_NAMED ? t->named->n.desc : NULL);
}

static int members_if(struct gql_call *c, const struct tnode *t, enum stype_kind kind)
{
        if (t->kind != TN_NAMED || t->named->kind != kind)
                return gql_put_null(c);
        return put_members(c, &t->named->members);
}

static int t_fields(struct gql_call *c, const void *obj, struct err *e)
{
        (void) e;
        return members_if(c, obj, TK_OBJECT);
}

static int t_values(struct gql_call *c, const void *obj, struct err *e)
{
        (void) e;
        return members_if(c, obj, TK_ENUM);
}

static int t_inputs(struct gql_call *c, const void *obj, struct err *e)
{
        (void) e;
        return members_if(c, obj, TK_INPUT);
}

/* No interfaces here, but an object says so with an empty list. */
static int t_interfaces(struct gql_call *c, const void *obj, struct err *e)
{
        const struct tnode *t = obj;
        int r;

        (void) e;
        if (t->kind != TN_NAMED || t->named->kind != TK_OBJECT)
                return gql_put_null(c);
        r = gql_list_begin(c);
        return r < 0 ? r : gql_list_end(c);
}

static int t_one_of(struct gql_call *c, const void *obj, struct err *e)
{
        const struct tnode *t = obj;

        (void) e;
        if (t->kind != TN_NAMED || t->named->kind != TK_INPUT)
                return gql_put_null(c);
        return gql_put_bool(c, false);
}

/* ---- members ---------------------------------------------------------------------------------------- */

static int m_deprecated(struct gql_call *c, const void *obj, struct err *e)
{
        (void) e;
        return gql_put_bool(c, ((const struct named *) obj)->deprecated != NULL);
}

static int f_args(struct gql_call *c, const void *obj, struct err *e)
{
        (void) e;
        return put_members(c, &((const struct sfield *) obj)->args);
}

static int d_locations(struct gql_call *c, const void *obj, struct err *e)
{
        static const char *const field[] = { "FIELD", "FRAGMENT_SPREAD", "INLINE_FRAGMENT", NULL };
        static const char *const definition[] = { "FIELD_DEFINITION", "ARGUMENT_DEFINITION",
                                                  "INPUT_FIELD_DEFINITION", "ENUM_VALUE", NULL };
        bool dep = strcmp(((const struct named *) obj)->name, "deprecated") == 0;
        int r = gql_list_begin(c);

        (void) e;
        for (const char *const *p = dep ? definition : field; r >= 0 && *p; p++)
                r = gql_put_str(c, *p);
        return r < 0 ? r : gql_list_end(c);
}

static int d_repeatable(struct gql_call *c, const void *obj, struct err *e)
{
        (void) obj;
        (void) e;
        return gql_put_bool(c, false);
}

#define NAMED_ROWS                                                                                 \
        MEMBER("name", "String!", GQL_GET_STR, offsetof(struct named, name)),                      \
                MEMBER("description", "String", GQL_GET_STR, offsetof(struct named, desc))
#define DEPRECATED_ROWS                                                                            \
        FN("isDeprecated", "Boolean!", m_deprecated),                                              \
                MEMBER("deprecationReason", "String", GQL_GET_STR,                                 \
                       offsetof(struct named, deprecated))

static const struct gql_field query_rows[] = {
        FN("__schema", "__Schema!", q_schema),
        FN("__type", "__Type", q_type),
};

static const struct gql_field schema_rows[] = {
        NOTHING("description", "String"),
        FN("types", "[__Type!]!", s_types),
        FN("queryType", "__Type!", s_query),
        FN("mutationType", "__Type", s_mutation),
        FN("subscriptionType", "__Type", s_subscription),
        FN("directives", "[__Directive!]!", s_directives),
};

static const struct gql_field type_rows[] = {
        FN("kind", "__TypeKind!", t_kind),
        FN("name", "String", t_name),
        FN("description", "String", t_description),
        NOTHING("specifiedByURL", "String"),
        FN("fields", "[__Field!]", t_fields),
        FN("interfaces", "[__Type!]", t_interfaces),
        NOTHING("possibleTypes", "[__Type!]"),
        FN("enumValues", "[__EnumValue!]", t_values),
        FN("inputFields", "[__InputValue!]", t_inputs),
        MEMBER("ofType", "__Type", GQL_GET_PTR, offsetof(struct tnode, of)),
        FN("isOneOf", "Boolean", t_one_of),
};

static const struct gql_field field_rows[] = {
        NAMED_ROWS,
        FN("args", "[__InputValue!]!", f_args),
        MEMBER("type", "__Type!", GQL_GET_PTR, offsetof(struct sfield, type.node)),
        DEPRECATED_ROWS,
};

static const struct gql_field input_rows[] = {
        NAMED_ROWS,
        MEMBER("type", "__Type!", GQL_GET_PTR, offsetof(struct sinput, type.node)),
        MEMBER("defaultValue", "String", GQL_GET_STR, offsetof(struct sinput, preset_text)),
        DEPRECATED_ROWS,
};

static const struct gql_field value_rows[] = { NAMED_ROWS, DEPRECATED_ROWS };

static const struct gql_field directive_rows[] = {
        NAMED_ROWS,
        FN("locations", "[__DirectiveLocation!]!", d_locations),
        FN("args", "[__InputValue!]!", f_args),
        FN("isRepeatable", "Boolean!", d_repeatable),
};

const struct gql_type introspect_types[] = {
        { "__Query", query_rows, NELEM(query_rows) },
        { "__Schema", schema_rows, NELEM(schema_rows) },
        { "__Type", type_rows, NELEM(type_rows) },
        { "__Field", field_rows, NELEM(field_rows) },
        { "__InputValue", input_rows, NELEM(input_rows) },
        { "__EnumValue", value_rows, NELEM(value_rows) },
        { "__Directive", directive_rows, NELEM(directive_rows) },
};
const size_t introspect_n_types = NELEM(introspect_types);
