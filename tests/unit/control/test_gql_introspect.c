/* test_gql_introspect.c - the schema about itself, as clients of GraphQL ask for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/jsonx.h"
#include "control/graphql/schema.h"
#include "gql_world.h"

static int up(void **state)
{
        struct world *w = calloc(1, sizeof *w);

        *state = w;
        return w ? world_up(w, false) : -1;
}

static int down(void **state)
{
        world_down(*state);
        free(*state);
        return 0;
}

#define TYPE_REF                                                                                   \
        "fragment TypeRef on __Type { kind name ofType { kind name ofType { kind name ofType { "   \
        "kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name "   \
        "} } } } } } } }"

/* What tools ask first: all types, their fields and arguments. */
static const char standard[] =
        "query IntrospectionQuery { __schema { description queryType { name kind } "
        "mutationType { name kind } subscriptionType { name kind } types { ...FullType } "
        "directives { name description locations isRepeatable args(includeDeprecated: true) { "
        "...InputValue } } } } "
        "fragment FullType on __Type { kind name description specifiedByURL isOneOf "
        "fields(includeDeprecated: true) { name description args(includeDeprecated: true) { "
        "...InputValue } type { ...TypeRef } isDeprecated deprecationReason } "
        "inputFields(includeDeprecated: true) { ...InputValue } interfaces { ...TypeRef } "
        "enumValues(includeDeprecated: true) { name description isDeprecated deprecationReason } "
        "possibleTypes { ...TypeRef } } "
        "fragment InputValue on __InputValue { name description type { ...TypeRef } defaultValue "
        "isDeprecated deprecationReason } " TYPE_REF;

static json_t *named(const json_t *list, const char *name)
{
        json_t *one;
        size_t i;

        json_array_foreach((json_t *) list, i,
                           one) if (str_eq(jsonx_str(one, "name"), name)) return one;
        return NULL;
}

/* "[Pod!]!" from kinds and names. */
static void spell_type(const json_t *t, struct strbuf *out)
{
        const char *kind = jsonx_str(t, "kind");

        if (str_eq(kind, "NON_NULL") || str_eq(kind, "LIST")) {
                if (str_eq(kind, "LIST"))
                        strbuf_char(out, '[');
                spell_type(json_object_get(t, "ofType"), out);
                strbuf_char(out, str_eq(kind, "LIST") ? ']' : '!');
                return;
        }
        assert_true(json_is_null(json_object_get(t, "ofType")));
        strbuf_str(out, jsonx_str(t, "name"));
}

static void assert_type(const json_t *field, const char *want)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };

        assert_non_null(field);
        spell_type(json_object_get(field, "type"), &b);
        assert_string_equal(b.s, want);
}

/* Every name that a type refers to is a type of the list: what a tool builds must be closed. */
static void check_refs(const json_t *types, const json_t *t)
{
        if (!json_is_object(t))
                return;
        if (json_is_string(json_object_get(t, "name")))
                assert_non_null(named(types, jsonx_str(t, "name")));
        check_refs(types, json_object_get(t, "ofType"));
}

static void test_standard(void **state)
{
        struct world *w = *state;
        AUTO(json_put)
        json_t *j = json_loads(world_ask(w, standard, NULL, "IntrospectionQuery"), 0, NULL);
        const json_t *schema = json_object_get(json_object_get(j, "data"), "__schema");
        const json_t *types = json_object_get(schema, "types"), *t, *f, *list;
        size_t i, k;

        assert_null(json_object_get(j, "errors"));
        assert_string_equal(jsonx_str(json_object_get(schema, "queryType"), "name"), "Query");
        assert_string_equal(jsonx_str(json_object_get(schema, "mutationType"), "name"), "Mutation");
        assert_string_equal(jsonx_str(json_object_get(schema, "subscriptionType"), "name"),
                            "Subscription");

        t = named(types, "Query");
        assert_string_equal(jsonx_str(t, "kind"), "OBJECT");
        assert_null(named(json_object_get(t, "fields"), "__schema"));
        assert_type(named(json_object_get(t, "fields"), "gpuTypes"), "[GpuType!]!");
        assert_int_equal(json_array_size(json_object_get(t, "interfaces")), 0);
        assert_true(json_is_null(json_object_get(t, "inputFields")));
        t = named(types, "PodFindAndDeployOnDemandInput");
        assert_string_equal(jsonx_str(t, "kind"), "INPUT_OBJECT");
        f = named(json_object_get(t, "inputFields"), "gpuCount");
        assert_string_equal(jsonx_str(f, "defaultValue"), "1");
        assert_type(f, "Int");
        assert_type(named(json_object_get(t, "inputFields"), "env"), "[EnvironmentVariableInput!]");
        t = named(types, "PodStatus");
        assert_string_equal(jsonx_str(t, "kind"), "ENUM");
        assert_int_equal(json_array_size(json_object_get(t, "enumValues")), 7);
        assert_string_equal(jsonx_str(named(types, "DateTime"), "kind"), "SCALAR");
        assert_non_null(named(types, "__Type"));
        assert_null(named(types, "__Query"));
        assert_null(named(types, "__Directives"));

        list = json_object_get(schema, "directives");
        assert_int_equal(json_array_size(list), 3);
        assert_type(named(json_object_get(named(list, "skip"), "args"), "if"), "Boolean!");

        json_array_foreach((json_t *) types, i, t)
        {
                json_array_foreach(json_object_get(t, "fields"), k, f)
                        check_refs(types, json_object_get(f, "type"));
                json_array_foreach(json_object_get(t, "inputFields"), k, f)
                        check_refs(types, json_object_get(f, "type"));
        }
}

static void test_type(void **state)
{
        struct world *w = *state;

        assert_string_equal(
                world_ask(w,
                          "{ __type(name: \"PodGpu\") { name kind fields { name type { kind "
                          "ofType { name } } } enumValues { name } ofType { name } } }",
                          NULL, NULL),
                "{\"data\":{\"__type\":{\"name\":\"PodGpu\",\"kind\":\"OBJECT\",\"fields\":["
                "{\"name\":\"id\",\"type\":{\"kind\":\"NON_NULL\",\"ofType\":{\"name\":"
                "\"String\"}}},{\"name\":\"podId\",\"type\":{\"kind\":\"NON_NULL\",\"ofType\":"
                "{\"name\":\"String\"}}}],\"enumValues\":null,\"ofType\":null}}}");
        assert_string_equal(world_ask(w, "{ __type(name: \"Nope\") { name } }", NULL, NULL),
                            "{\"data\":{\"__type\":null}}");
        assert_string_equal(
                world_ask(w, "query Q($n: String!) { __type(name: $n) { __typename name } }",
                          "{\"n\":\"User\"}", NULL),
                "{\"data\":{\"__type\":{\"__typename\":\"__Type\",\"name\":\"User\"}}}");
}

static void test_deprecated(void **state)
{
        static const char sdl[] =
                "type Query { old: Int @deprecated(reason: \"use new\") older: Int "
                "@deprecated new: Int }";
        static const char q[] =
                "{ __type(name: \"Query\") { fields { name } all: fields("
                "includeDeprecated: true) { name isDeprecated deprecationReason } } }";
        struct world *w = *state;
        struct gql_schema *mine = w->schema;
        struct gql_ops ops = mine->ops;

        assert_int_equal(gql_schema_new(sdl, sizeof sdl - 1, NULL, 0, &ops, &w->schema, NULL), 0);
        assert_string_equal(
                world_ask(w, q, NULL, NULL),
                "{\"data\":{\"__type\":{\"fields\":[{\"name\":\"new\"}],\"all\":["
                "{\"name\":\"old\",\"isDeprecated\":true,\"deprecationReason\":\"use new\"},"
                "{\"name\":\"older\",\"isDeprecated\":true,\"deprecationReason\":"
                "\"No longer supported\"},"
                "{\"name\":\"new\",\"isDeprecated\":false,\"deprecationReason\":null}]}}}");
        gql_schema_free(w->schema);
        w->schema = mine;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_standard, up, down),
                cmocka_unit_test_setup_teardown(test_type, up, down),
                cmocka_unit_test_setup_teardown(test_deprecated, up, down),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
