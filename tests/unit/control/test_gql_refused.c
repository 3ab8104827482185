/* test_gql_refused.c - what must be refused: status, code, place and a message that names the field and
 * the limit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "gql_world.h"
#include "model/limits.h"

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

#define PARSE "GRAPHQL_PARSE_FAILED"
#define VALID "GRAPHQL_VALIDATION_FAILED"
#define INPUT "BAD_USER_INPUT"

static void test_refused(void **state)
{
        static const struct {
                const char *query, *vars, *code;
                unsigned line, column; /* 0: no place */
                const char *says;
        } t[] = {
                /* syntax */
                { "", NULL, PARSE, 0, 0, "no operation" },
                { "{", NULL, PARSE, 1, 2, "a field, '...' or '}', but the text ends here" },
                { "{ }", NULL, PARSE, 1, 3, "at least one field" },
                { "{ myself { } }", NULL, PARSE, 1, 12, "at least one field" },
                { "}", NULL, PARSE, 1, 1, "query, mutation, fragment or '{'" },
                { "foo { a }", NULL, PARSE, 1, 1, "found foo" },
                { "query (", NULL, PARSE, 1, 8, "'$' before a variable" },
                { "query Q($a) { myself { id } }", NULL, PARSE, 1, 11, "':'" },
                { "query Q($a: ) { myself { id } }", NULL, PARSE, 1, 13, "a type" },
                { "query Q($a: [Int) { myself { id } }", NULL, PARSE, 1, 17, "']'" },
                { "query Q($a: Int = $b) { myself { id } }", NULL, PARSE, 1, 19,
                  "a constant value" },
                { "{ myself() { id } }", NULL, PARSE, 1, 10, "an argument" },
                { "{ a(b: ) }", NULL, PARSE, 1, 8, "a value" },
                { "{ a(b 1) }", NULL, PARSE, 1, 7, "':'" },
                { "{ a(b: {c}) }", NULL, PARSE, 1, 10, "':'" },
                { "{ a(b: [1) }", NULL, PARSE, 1, 10, "a value" },
                { "{ a: }", NULL, PARSE, 1, 6, "the field behind its alias" },
                { "{ ...on }", NULL, PARSE, 1, 9, "a type behind 'on'" },
                { "{ ... }", NULL, PARSE, 1, 7, "'{' before a selection" },
                { "{ a } fragment on on A { b }", NULL, PARSE, 1, 16, "the name of a fragment" },
                { "{ a } fragment F A { b }", NULL, PARSE, 1, 18, "'on' and a type" },
                { "{ a }\n\n  \"x", NULL, PARSE, 3, 3, "a string is not closed" },
                { "{ a @ }", NULL, PARSE, 1, 7, "the name of a directive" },
                /* validation */
                { "{ nope }", NULL, VALID, 1, 3, "type Query has no field \\\"nope\\\"" },
                { "{\n  myself {\n    idd\n  }\n}", NULL, VALID, 3, 5,
                  "type User has no field \\\"idd\\\"; did you mean \\\"id\\\"?" },
                { "{ myself { pods { podHostId } } }", NULL, VALID, 1, 19,
                  "type Pod has no field" },
                { "{ cluster(input: {clusterId: \"x\"}) { podType } }", NULL, VALID, 1, 38,
                  "did you mean \\\"clusterType\\\"?" },
                { "{ myself }", NULL, VALID, 1, 3, "say which of its fields, as in myself { id }" },
                { "{ myself { id { x } } }", NULL, VALID, 1, 12, "has no fields to select" },
                { "mutation { podTerminate(input: {podId: \"x\"}) { id } }", NULL, VALID, 1, 12,
                  "type Void, which has no fields" },
                { "{ __typename { x } }", NULL, VALID, 1, 3, "__typename" },
                { "{ myself { __schema { types { name } } } }", NULL, VALID, 1, 12, "__schema" },
                { "mutation { __schema { types { name } } }", NULL, VALID, 1, 12, "__schema" },
                { "{ myself(x: 1) { id } }", NULL, VALID, 1, 10,
                  "\\\"x\\\" is not known by myself" },
                { "{ gpuTypes(inputt: {}) { id } }", NULL, VALID, 1, 12,
                  "did you mean \\\"input\\\"?" },
                { "mutation { podStop { id } }", NULL, VALID, 1, 12,
                  "podStop(input): PodStopInput! is required" },
                { "mutation { podStop(input: null) { id } }", NULL, VALID, 1, 20,
                  "podStop(input): PodStopInput! is required" },
                { "mutation { podStop(input: {}) { id } }", NULL, VALID, 1, 27,
                  "podStop(input.podId): String! is required" },
                { "mutation { podStop(input: {podId: null}) { id } }", NULL, VALID, 1, 27,
                  "podStop(input.podId): String! is required" },
                { "mutation { podStop(input: 5) { id } }", NULL, VALID, 1, 27,
                  "expected PodStopInput, got 5" },
                { "mutation { podStop(input: {podId: \"a\", podId: \"b\"}) { id } }", NULL, VALID,
                  1, 40, "\\\"clusterId\\\" is given twice" },
                { "mutation { podStop(input: {podId: \"a\", clusterId: \"b\"}) { id } }", NULL,
                  VALID, 1, 40, "given twice" },
                { "mutation { podStop(input: {podId: {a: 1}}) { id } }", NULL, VALID, 1, 35,
                  "expected a String, got an object" },
                { "mutation { podFindAndDeployOnDemand(input: {gpuCount: \"two\"}) { id } }", NULL,
                  VALID, 1, 55,
                  "podFindAndDeployOnDemand(input.gpuCount): expected an Int, got \\\"two\\\"" },
                { "mutation { podFindAndDeployOnDemand(input: {gpuCount: 1.5}) { id } }", NULL,
                  VALID, 1, 55, "expected an Int, got 1.5" },
                { "mutation { podFindAndDeployOnDemand(input: {gpuCount: true}) { id } }", NULL,
                  VALID, 1, 55, "expected an Int, got true" },
                { "mutation { podFindAndDeployOnDemand(input: {volumeInGb: 99999999999999999999}) { id } "
                  "}",
                  NULL, VALID, 1, 57, "99999999999999999999 is too large a number" },
                { "mutation { podFindAndDeployOnDemand(input: {deployCost: \"0x10\"}) { id } }",
                  NULL, VALID, 1, 57, "expected a Float" },
                { "mutation { podFindAndDeployOnDemand(input: {startSsh: \"yes\"}) { id } }", NULL,
                  VALID, 1, 55, "expected a Boolean (true or false), got \\\"yes\\\"" },
                { "mutation { podFindAndDeployOnDemand(input: {cloudType: SECRET}) { id } }", NULL,
                  VALID, 1, 56, "CloudTypeEnum has no value \\\"SECRET\\\"; did you mean SECURE?" },
                { "mutation { podFindAndDeployOnDemand(input: {stopAfter: \"soon\"}) { id } }",
                  NULL, VALID, 1, 56, "expected a DateTime such as" },
                { "mutation { podFindAndDeployOnDemand(input: {env: [{key: \"A\"}]}) { id } }",
                  NULL, VALID, 1, 51, "input.env.value): String! is required" },
                { "mutation { podFindAndDeployOnDemand(input: {env: [5]}) { id } }", NULL, VALID, 1,
                  51, "expected EnvironmentVariableInput, got 5" },
                { "{ a: myself { id } a: gpuTypes { id } }", NULL, VALID, 1, 20,
                  "\\\"a\\\" is selected twice with different meanings" },
                { "{ gpuTypes(input: {id: \"a\"}) { id } gpuTypes(input: {id: \"b\"}) { id } }",
                  NULL, VALID, 1, 37, "selected twice" },
                { "{ ...F }", NULL, VALID, 1, 6, "unknown fragment \\\"F\\\"" },
                { "{ ...F } fragment F on Pod { id }", NULL, VALID, 1, 24,
                  "a fragment on Pod cannot be used where the type is Query" },
                { "{ ... on Nope { id } }", NULL, VALID, 1, 10, "unknown type \\\"Nope\\\"" },
                { "{ ...F } fragment F on Query { myself { id } ...F }", NULL, VALID, 1, 49,
                  "fragment \\\"F\\\" spreads itself" },
                { "{ myself { ...A } } fragment A on User { pods { ...B } } fragment B on Pod { endpoint "
                  "{ pods { ...B } } }",
                  NULL, VALID, 1, 99, "fragment \\\"B\\\" spreads itself" },
                { "{ myself { id } } fragment F on A { x } fragment F on B { y }", NULL, VALID, 1,
                  50, "two fragments are called" },
                { "{ myself @foo { id } }", NULL, VALID, 1, 11, "@foo: unknown directive" },
                { "{ myself @include { id } }", NULL, VALID, 1, 11, "@include: needs exactly" },
                { "{ myself @skip(if: 1) { id } }", NULL, VALID, 1, 11,
                  "true, false or a variable" },
                { "{ myself @skip(unless: true) { id } }", NULL, VALID, 1, 11, "needs exactly" },
                { "subscription { pods { id } }", NULL, VALID, 1, 16,
                  "type Subscription has no field" },
                { "subscription { a: clusterEvents { kind } b: clusterEvents { kind } }", NULL,
                  VALID, 1, 1, "exactly one field" },
                { "subscription { __typename }", NULL, VALID, 1, 1, "exactly one field" },
                { "subscription { __schema { types { name } } }", NULL, VALID, 1, 16,
                  "type Subscription has no field" },
                { "subscription S($a: Boolean) { clusterEvents @include(if: $a) { kind } }", NULL,
                  VALID, 1, 1, "without a condition" },
                { "subscription { clusterEvents { kind } }", NULL, INPUT, 0, 0,
                  "over a WebSocket, or with Accept: text/event-stream" },
                { "query Q($a: Int, $a: Int) { myself { id } }", NULL, VALID, 1, 19,
                  "declared twice" },
                { "query A { myself { id } } query B { myself { id } }", NULL, VALID, 1, 1,
                  "operationName must say" },
                /* variables */
                { "query Q { gpuTypes(input: {id: $x}) { id } }", "{}", INPUT, 1, 33,
                  "variable \\\"$x\\\" is neither declared nor given" },
                { "query Q { myself @include(if: $x) { id } }", NULL, INPUT, 1, 32,
                  "neither declared nor given" },
                { "query Q($x: Boolean) { myself @include(if: $x) { id } }", "{\"x\":\"true\"}",
                  INPUT, 1, 45, "must be true or false" },
                { "query Q($x: Boolean) { myself @include(if: $x) { id } }", "{}", INPUT, 1, 45,
                  "must be true or false" },
                { "mutation M($i: PodStopInput!) { podStop(input: $i) { id } }", "{}", INPUT, 1, 41,
                  "podStop(input): PodStopInput! is required" },
                { "mutation M($i: PodStopInput!) { podStop(input: $i) { id } }", "{\"i\":{}}",
                  INPUT, 1, 49, "podStop(input.podId): String! is required" },
                { "mutation M($i: PodStopInput!) { podStop(input: $i) { id } }", "{\"i\":[]}",
                  INPUT, 1, 49, "expected PodStopInput, got a list" },
                { "mutation M($i: PodStopInput!) { podStop(input: $i) { id } }",
                  "{\"i\":{\"podId\":\"a\",\"clusterId\":\"b\"}}", INPUT, 1, 49, "given twice" },
                { "mutation M($p: String) { podStop(input: {podId: $p}) { id } }", "{\"p\":null}",
                  INPUT, 1, 41, "podStop(input.podId): String! is required" },
                { "mutation M($i: X) { podFindAndDeployOnDemand(input: $i) { id } }",
                  "{\"i\":{\"gpuCount\":1.5}}", INPUT, 1, 54,
                  "podFindAndDeployOnDemand(input.gpuCount): expected an Int, got 1.5" },
                { "mutation M($i: X) { podFindAndDeployOnDemand(input: $i) { id } }",
                  "{\"i\":{\"cloudType\":\"MOON\"}}", INPUT, 1, 54, "CloudTypeEnum has no value" },
        };
        struct world *w = *state;

        for (size_t i = 0; i < NELEM(t); i++) {
                const char *body = world_ask(w, t[i].query, t[i].vars, NULL);
                char place[64], code[80];

                (void) snprintf(place, sizeof place, "\"locations\":[{\"line\":%u,\"column\":%u}]",
                                t[i].line, t[i].column);
                (void) snprintf(code, sizeof code, "\"extensions\":{\"code\":\"%s\"}", t[i].code);
                if (!body || w->status != 400 || !strstr(body, t[i].says) || !strstr(body, code) ||
                    (t[i].line ? !strstr(body, place) : !!strstr(body, "locations")) ||
                    strncmp(body, "{\"errors\":[{\"message\":", 22) != 0 ||
                    strstr(body, "\"data\""))
                        fail_msg("row %zu: %s\n%u %s", i, t[i].query, w->status, body);
                assert_int_equal(w->last_args[0], 0); /* nothing ran */
        }
}

static void test_strict(void **state)
{
        struct world strict;
        const char *body;

        (void) state;
        assert_int_equal(world_up(&strict, true), 0);
        body = world_ask(&strict,
                         "mutation { podFindAndDeployOnDemand(input: {imageNam: \"i\"}) { id } }",
                         NULL, NULL);
        assert_int_equal(strict.status, 400);
        assert_non_null(strstr(body,
                               "\\\"imageNam\\\" is not known by PodFindAndDeployOnDemandInput; "
                               "did you mean \\\"imageName\\\"?"));
        body = world_ask(&strict, "mutation M($i: X) { podStop(input: $i) { id } }",
                         "{\"i\":{\"podId\":\"pod0000001\",\"x\":1}}", NULL);
        assert_int_equal(strict.status, 400);
        world_down(&strict);
}

/* Secrets that were typed wrongly must not come back in a message. */
static void test_secrets_stay(void **state)
{
        struct world *w = *state;
        const char *body =
                world_ask(w,
                          "mutation { saveRegistryAuth(input: {name: \"n\", username: \"u\", "
                          "password: {s3cr3t: 1}}) { id } }",
                          NULL, NULL);

        assert_null(strstr(body, "s3cr3t"));
        body = world_ask(
                w,
                "mutation { saveTemplate(input: {name: \"n\", imageName: \"i\", "
                "containerDiskInGb: 1, env: [{key: \"A\", value: [\"s3cr3t\", {}]}]}) { id } }",
                NULL, NULL);
        assert_int_equal(w->status, 400);
        assert_null(strstr(body, "s3cr3t"));
}

/* ---- size and depth -------------------------------------------------------------------------------- */

static char *repeat(const char *before, const char *part, size_t n, const char *after)
{
        struct strbuf b = { 0 };

        strbuf_str(&b, before);
        for (size_t i = 0; i < n; i++)
                strbuf_str(&b, part);
        strbuf_str(&b, after);
        return strbuf_take(&b);
}

static void test_deep(void **state)
{
        static const struct {
                const char *before, *part;
                const char *says;
        } t[] = {
                { "", "{ a ", "query: nested deeper than 64 levels" },
                { "{ a(b: ", "[", "query: nested deeper than 64 levels" },
                { "{ a(b: ", "{c: ", "query: nested deeper than 64 levels" },
                { "{ myself ", "{ ... on User ", "query: nested deeper than 64 levels" },
                { "{ myself { pods { endpoint ", "{ pods { endpoint ", "nested deeper than 64" },
                { "query Q($a: ", "[", "" },
        };
        struct world *w = *state;

        for (size_t i = 0; i < NELEM(t); i++) {
                for (size_t n = 200; n <= 200000; n *= 1000) {
                        AUTO(free) char *q = repeat(t[i].before, t[i].part, n, "");
                        const char *body = world_ask(w, q, NULL, NULL);

                        if (!body || w->status != 400 || !strstr(body, t[i].says))
                                fail_msg("row %zu: %u %s", i, w->status, body);
                }
        }
}

static void test_deep_fragments(void **state)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        struct world *w = *state;

        strbuf_str(&b, "{ ...F0 }");
        for (unsigned i = 0; i < 5000; i++)
                strbuf_fmt(&b, " fragment F%u on Query { ...F%u }", i, i + 1);
        strbuf_str(&b, " fragment F5000 on Query { myself { id } }");
        assert_non_null(
                strstr(world_ask(w, b.s, NULL, NULL), "fragments nest deeper than 64 levels"));
        assert_int_equal(w->status, 400);
}

/* Each level doubles the work: counted, not done. */
static void test_bombs(void **state)
{
        AUTO(strbuf_done) struct strbuf a = { 0 }, b = { 0 };
        struct world *w = *state;

        strbuf_str(&a, "query Q($x: Boolean) { ...F0 }");
        strbuf_str(&b, "{ myself { pods { ...G0 } } }");
        for (unsigned i = 0; i < 25; i++) {
                strbuf_fmt(
                        &a,
                        " fragment F%u on Query { ...F%u @skip(if: $x) ...F%u @include(if: $x) }",
                        i, i + 1, i + 1);
                strbuf_fmt(&b,
                           " fragment G%u on Pod { a: endpoint { pods { ...G%u } } b: endpoint { "
                           "pods { ...G%u } } }",
                           i, i + 1, i + 1);
        }
        strbuf_str(&a, " fragment F25 on Query { myself { id } }");
        strbuf_str(&b, " fragment G25 on Pod { id }");
        assert_non_null(strstr(world_ask(w, a.s, "{\"x\":true}", NULL), "expand to more than"));
        assert_int_equal(w->status, 400);
        assert_non_null(
                strstr(world_ask(w, b.s, NULL, NULL), "query: selects more than 65536 fields"));
        assert_int_equal(w->status, 400);
}

static void test_one_megabyte(void **state)
{
        AUTO(free) char *same = repeat("{ myself { ", "id ", 350000, "} }");
        AUTO(free)
        char *text = repeat("mutation { podFindAndDeployOnDemand(input: {dockerArgs: \"",
                            "QUJDREVGR0hJSktM", 70000, "\"}) { id } }");
        AUTO(free) char *comment = repeat("#", "lorem ipsum ", 90000, "\n{ myself { id } }");
        AUTO(free)
        char *lists = repeat("{ gpuTypes(input: {ids: [", "\"ab\" ", 200000, "]}) { id } }");
        AUTO(strbuf_done) struct strbuf aliases = { 0 };
        struct world *w = *state;

        assert_string_equal(world_ask(w, same, NULL, NULL),
                            "{\"data\":{\"myself\":{\"id\":\"user1\"}}}");
        assert_non_null(strstr(world_ask(w, text, NULL, NULL), "pod0000000"));
        assert_int_equal(w->status, 200);
        assert_non_null(strstr(world_ask(w, comment, NULL, NULL), "user1"));
        assert_non_null(strstr(world_ask(w, lists, NULL, NULL), "H200"));
        strbuf_str(&aliases, "{ myself {");
        for (unsigned i = 0; i < 60000; i++)
                strbuf_fmt(&aliases, " alias_number_%u: id", i);
        strbuf_str(&aliases, "} }");
        assert_true(aliases.len > 1 << 20);
        assert_non_null(
                strstr(world_ask(w, aliases.s, NULL, NULL), "\"alias_number_59999\":\"user1\""));
        assert_int_equal(w->status, 200);
}

static void test_too_much(void **state)
{
        AUTO(free) char *tokens = repeat("{ myself { ", "a ", LIMIT_QUERY_TOKENS, "} }");
        AUTO(free)
        char *bytes = repeat("#", "lorem ipsum ", LIMIT_QUERY_BYTES / 12, "\n{ myself { id } }");
        AUTO(strbuf_done) struct strbuf vars = { 0 };
        struct world *w = *state;

        assert_non_null(
                strstr(world_ask(w, tokens, NULL, NULL), "query: more than 1048576 tokens"));
        assert_int_equal(w->status, 400);
        assert_non_null(
                strstr(world_ask(w, bytes, NULL, NULL), "query: longer than 4194304 bytes"));
        assert_int_equal(w->status, 400);
        assert_non_null(
                strstr(world_post(w, bytes, strlen(bytes)), "body: longer than 4194304 bytes"));
        strbuf_str(&vars, "query Q(");
        for (unsigned i = 0; i < 300; i++)
                strbuf_fmt(&vars, "$v%u: Int ", i);
        strbuf_str(&vars, ") { myself { id } }");
        assert_non_null(
                strstr(world_ask(w, vars.s, NULL, NULL), "declares more than 256 variables"));
}

/* A short query with an endless answer. */
static void test_long_answer(void **state)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        struct world *w = *state;
        const char *body;

        strbuf_str(&b, "{ __schema {");
        for (unsigned i = 0; i < 2000; i++)
                strbuf_fmt(&b, " a%u: types { kind name fields { name type { name } } }", i);
        strbuf_str(&b, " } }");
        body = world_ask(w, b.s, NULL, NULL);
        assert_non_null(body);
        if (!strstr(body, "ANSWER_TOO_LONG"))
                fail_msg("%zu bytes: %.200s", w->body_len, body);
        assert_int_equal(strncmp(body, "{\"data\":null,\"errors\":[", 23), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_refused, up, down),
                cmocka_unit_test(test_strict),
                cmocka_unit_test_setup_teardown(test_secrets_stay, up, down),
                cmocka_unit_test_setup_teardown(test_deep, up, down),
                cmocka_unit_test_setup_teardown(test_deep_fragments, up, down),
                cmocka_unit_test_setup_teardown(test_bombs, up, down),
                cmocka_unit_test_setup_teardown(test_one_megabyte, up, down),
                cmocka_unit_test_setup_teardown(test_too_much, up, down),
                cmocka_unit_test_setup_teardown(test_long_answer, up, down),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
