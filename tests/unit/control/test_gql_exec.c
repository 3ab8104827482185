/* test_gql_exec.c - execution: values, lists, nulls and errors, rights, merging, and root fields whose
 * answer comes later.  A schema of its own, small enough to see all of it. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/clock.h"
#include "control/graphql/gql.h"
#include "model/limits.h"

static const char sdl[] =
        "scalar DateTime scalar JSON scalar Void\n"
        "enum Color { RED GREEN }\n"
        "type Query { thing: Thing must: Thing! things: [Thing!]! maybe: [Thing] loose: [Thing!]\n"
        "  later: Thing laterNumber: Int secret: String admin: String nobody: String\n"
        "  number(n: Float): Int real(n: Float): Float text: String json: JSON time: DateTime }\n"
        "type Mutation { first: Thing second: Thing third: Void bad: Thing must: Thing! }\n"
        "type Thing { id: Int! name: String color: Color tags: [String!] inner: Thing strict: Thing!\n"
        "  fail: String failMust: String! nothingMust: String! list: [Thing!] two: String\n"
        "  forgot: [String!] object: String flag: Boolean big: Int small: Int when: DateTime\n"
        "  ratio: Float whole: Int unbound: String secret: String adminOnly: String holes: [String!]\n"
        "  gaps: [String] open: [Int!] }\n";

struct thing {
        int32_t id;
        const char *name;
        char color[8];
        char **tags;
        const struct thing *inner;
        bool flag;
        uint64_t big;
        int64_t small;
        uint64_t when;
        double ratio;
};

static char *tags[] = { (char[]){ "a" }, (char[]){ "b\"\n" }, NULL };
static const struct thing inner = { .id = 2, .name = "inner" };
static const struct thing outer = { .id = 1,
                                    .name = "outer",
                                    .color = "RED",
                                    .tags = tags,
                                    .inner = &inner,
                                    .flag = true,
                                    .big = UINT64_MAX,
                                    .small = INT64_MIN,
                                    .when = 1795359845123456ULL,
                                    .ratio = 0.125 };

struct ctx { /* of one request */
        enum gql_right may;
        bool keyless;
        struct gql_pending *pending;
        unsigned asked[GQL_RIGHT_COUNT];
        unsigned ran;
        uint64_t burn_us; /* that each thing takes */
        unsigned answers, status;
        char *body;
};

static struct ctx *ctx_of(struct gql_call *c)
{
        return gql_context(c);
}

#define RESOLVER(name) static int name(struct gql_call *c, const void *obj, struct err *e)
#define UNUSED         ((void) c, (void) obj, (void) e)

RESOLVER(r_thing)
{
        uint64_t until = clock_thread_us() + ctx_of(c)->burn_us;

        UNUSED;
        ctx_of(c)->ran++;
        while (ctx_of(c)->burn_us && clock_thread_us() < until)
                ;
        return gql_put_object(c, &outer);
}

RESOLVER(r_things)
{
        int r = gql_list_begin(c);

        UNUSED;
        if (r >= 0)
                r = gql_put_object(c, &outer);
        if (r >= 0)
                r = gql_put_object(c, &inner);
        return r < 0 ? r : gql_list_end(c);
}

RESOLVER(r_later)
{
        UNUSED;
        ctx_of(c)->ran++;
        ctx_of(c)->pending = gql_defer(c);
        assert_null(gql_defer(c)); /* one at a time */
        return GQL_PENDING;
}

RESOLVER(r_at_once) /* takes a handle and ends it from inside */
{
        struct gql_pending *p = gql_defer(c);

        UNUSED;
        ctx_of(c)->ran++;
        gql_complete(p, &inner);
        return GQL_PENDING;
}

RESOLVER(r_void)
{
        UNUSED;
        ctx_of(c)->ran++;
        return 0;
}

RESOLVER(r_bad) /* takes a handle, then fails */
{
        UNUSED;
        (void) gql_defer(c);
        return err_set(e, -EBUSY, "it is locked");
}

RESOLVER(r_no_handle)
{
        UNUSED;
        return GQL_PENDING;
}

RESOLVER(r_fail)
{
        UNUSED;
        (void) gql_put_str(c, "half");
        return err_set(e, -ENOENT, "no such thing");
}

RESOLVER(r_nothing)
{
        UNUSED;
        return 0;
}

RESOLVER(r_two)
{
        UNUSED;
        (void) gql_put_str(c, "one");
        return gql_put_str(c, "two");
}

RESOLVER(r_forgot)
{
        UNUSED;
        return gql_list_begin(c);
}

RESOLVER(r_object)
{
        UNUSED;
        return gql_put_object(c, &inner);
}

RESOLVER(r_holes)
{
        int r = gql_list_begin(c);

        UNUSED;
        if (r >= 0)
                r = gql_put_str(c, "x");
        if (r >= 0)
                r = gql_put_str(c, NULL);
        return r < 0 ? r : gql_list_end(c);
}

RESOLVER(r_open) /* a number where a list must be */
{
        UNUSED;
        return gql_put_int(c, 1);
}

RESOLVER(r_list)
{
        return r_things(c, obj, e);
}

RESOLVER(r_number)
{
        UNUSED;
        return gql_put_num(c, gql_arg(c, "n") ? json_number_value(gql_arg(c, "n")) : NAN);
}

RESOLVER(r_text)
{
        UNUSED;
        return gql_put_fmt(c, "%s of %s", "\x01\xff\"\\/\xe2\x82\xac", gql_field_name(c));
}

RESOLVER(r_json)
{
        json_t *j = json_pack("{s:[i,f,n],s:s}", "a", 1, 0.5, "b", "\"");
        int r = gql_put_json(c, j);

        UNUSED;
        json_decref(j);
        return r;
}

RESOLVER(r_time)
{
        UNUSED;
        return gql_put_time(c, 1795359845123456ULL);
}

#define FN(n, t, f)                                                                                \
        {                                                                                          \
                n, t, GQL_READ, f, GQL_GET_FN, 0                                                   \
        }
#define AT(n, t, g, m)                                                                             \
        {                                                                                          \
                n, t, GQL_READ, NULL, GQL_GET_##g, offsetof(struct thing, m)                       \
        }

static const struct gql_field query_rows[] = {
        FN("thing", "Thing", r_thing),
        FN("must", "Thing!", r_thing),
        FN("things", "[Thing!]!", r_things),
        FN("maybe", "[Thing]", r_things),
        FN("loose", "[Thing!]", r_things),
        FN("later", "Thing", r_later),
        FN("laterNumber", "Int", r_later),
        FN("number", "Int", r_number),
        FN("real", "Float", r_number),
        FN("text", "String", r_text),
        FN("json", "JSON", r_json),
        FN("time", "DateTime", r_time),
        { "admin", "String", GQL_ADMIN, r_text, GQL_GET_FN, 0 },
        { "secret", "String", GQL_WRITE, r_text, GQL_GET_FN, 0 },
};

static const struct gql_field mutation_rows[] = {
        FN("first", "Thing", r_later),     FN("second", "Thing", r_at_once),
        FN("third", "Void", r_void),       FN("bad", "Thing", r_bad),
        FN("must", "Thing!", r_no_handle),
};

static const struct gql_field thing_rows[] = {
        AT("id", "Int!", I32, id),
        AT("name", "String", STR, name),
        AT("color", "Color", CHARS, color),
        AT("tags", "[String!]", STRV, tags),
        AT("inner", "Thing", PTR, inner),
        AT("flag", "Boolean", BOOL, flag),
        AT("big", "Int", U64, big),
        AT("small", "Int", I64, small),
        AT("when", "DateTime", TIME, when),
        AT("ratio", "Float", F64, ratio),
        AT("whole", "Int", F64, ratio),
        { "strict", "Thing!", GQL_READ, NULL, GQL_GET_SELF, 0 },
        FN("fail", "String", r_fail),
        FN("failMust", "String!", r_fail),
        FN("nothingMust", "String!", r_nothing),
        FN("list", "[Thing!]", r_list),
        FN("two", "String", r_two),
        FN("forgot", "[String!]", r_forgot),
        FN("object", "String", r_object),
        FN("holes", "[String!]", r_holes),
        FN("gaps", "[String]", r_holes),
        FN("open", "[Int!]", r_open),
        { "adminOnly", "String", GQL_ADMIN, r_text, GQL_GET_FN, 0 },
};

static const struct gql_type types[] = {
        { "Query", query_rows, NELEM(query_rows) },
        { "Mutation", mutation_rows, NELEM(mutation_rows) },
        { "Thing", thing_rows, NELEM(thing_rows) },
};

static int allow(void *arg, enum gql_right need, struct err *e)
{
        struct ctx *x = arg;

        (void) e;
        x->asked[need]++;
        if (x->keyless)
                return -EACCES;
        return need <= x->may ? 0 : -EPERM;
}

static int up(void **state)
{
        static const struct gql_ops ops = { .allow = allow };
        struct gql_schema *s = NULL;
        struct err e = { 0 };

        if (gql_schema_new(sdl, sizeof sdl - 1, types, NELEM(types), &ops, &s, &e) < 0)
                fail_msg("%s", e.msg);
        *state = s;
        return 0;
}

static int down(void **state)
{
        gql_schema_free(*state);
        return 0;
}

static void done(void *arg, unsigned status, struct strbuf *body)
{
        struct ctx *x = arg;

        x->answers++;
        x->status = status;
        free(x->body);
        x->body = strbuf_take(body);
}

static struct gql_request *start(struct gql_schema *s, const char *query, struct ctx *x)
{
        struct gql_request *r = NULL;

        assert_int_equal(gql_request_new(s, query, strlen(query), NULL, NULL, x, &r), 0);
        gql_run(r, done, x);
        return r;
}

static void check(struct gql_schema *s, const char *query, unsigned status, const char *want)
{
        struct ctx x = { .may = GQL_READ };
        struct gql_request *r = start(s, query, &x);

        if (x.answers != 1 || x.status != status || strcmp(x.body, want) != 0)
                fail_msg("%s: %u times, %u\n got %s\nwant %s", query, x.answers, x.status, x.body,
                         want);
        gql_request_free(r);
        free(x.body);
}

static void test_values(void **state)
{
        check(*state,
              "{ thing { id name color tags flag big small when ratio whole unbound inner { id name "
              "color tags flag when inner { id } } } }",
              200,
              "{\"data\":{\"thing\":{\"id\":1,\"name\":\"outer\",\"color\":\"RED\",\"tags\":[\"a\","
              "\"b\\\"\\n\"],\"flag\":true,\"big\":18446744073709551615,"
              "\"small\":-9223372036854775808,\"when\":\"2026-11-22T15:04:05.123456Z\","
              "\"ratio\":0.125,\"whole\":0,\"unbound\":null,\"inner\":{\"id\":2,\"name\":\"inner\","
              "\"color\":null,\"tags\":[],\"flag\":false,\"when\":null,\"inner\":null}}}}");
        check(*state,
              "{ a: number(n: 8) b: number(n: 7.6) c: number d: real(n: 8) e: real(n: 0.44) }", 200,
              "{\"data\":{\"a\":8,\"b\":8,\"c\":null,\"d\":8,\"e\":0.44}}");
        check(*state, "{ json time text }", 200,
              "{\"data\":{\"json\":{\"a\":[1,0.5,null],\"b\":\"\\\"\"},"
              "\"time\":\"2026-11-22T15:04:05.123456Z\","
              "\"text\":\"\\u0001\xef\xbf\xbd\\\"\\\\/\xe2\x82\xac of text\"}}");
        check(*state, "{ things { id } maybe { id } loose { id } }", 200,
              "{\"data\":{\"things\":[{\"id\":1},{\"id\":2}],\"maybe\":[{\"id\":1},{\"id\":2}],"
              "\"loose\":[{\"id\":1},{\"id\":2}]}}");
}

#define ERR(msg, col, path, code)                                                                  \
        "{\"message\":\"" msg "\",\"locations\":[{\"line\":1,\"column\":" #col                     \
        "}],\"path\":[" path "],\"extensions\":{\"code\":\"" code "\"}}"

static void test_errors(void **state)
{
        check(*state, "{ thing { id fail } }", 200,
              "{\"data\":{\"thing\":{\"id\":1,\"fail\":null}},\"errors\":[" ERR(
                      "no such thing", 14, "\"thing\",\"fail\"", "NOT_FOUND") "]}");
        check(*state, "{ thing { id x: failMust } }", 200,
              "{\"data\":{\"thing\":null},\"errors\":[" ERR("no such thing", 14, "\"thing\",\"x\"",
                                                            "NOT_FOUND") "]}");
        check(*state, "{ thing { nothingMust } }", 200,
              "{\"data\":{\"thing\":null},\"errors\":[" ERR(
                      "Thing.nothingMust has no value but must have one", 11,
                      "\"thing\",\"nothingMust\"", "INTERNAL_SERVER_ERROR") "]}");
        check(*state, "{ thing { inner { strict { failMust } } id } }", 200,
              "{\"data\":{\"thing\":{\"inner\":null,\"id\":1}},\"errors\":[" ERR(
                      "no such thing", 28, "\"thing\",\"inner\",\"strict\",\"failMust\"",
                      "NOT_FOUND") "]}");
        check(*state, "{ must { failMust } thing { id } }", 200,
              "{\"data\":null,\"errors\":[" ERR("no such thing", 10, "\"must\",\"failMust\"",
                                                "NOT_FOUND") "]}");
        check(*state, "{ maybe { failMust } }", 200,
              "{\"data\":{\"maybe\":[null,null]},\"errors\":[" ERR(
                      "no such thing", 11, "\"maybe\",0,\"failMust\"",
                      "NOT_FOUND") "," ERR("no such thing", 11, "\"maybe\",1,\"failMust\"",
                                           "NOT_FOUND") "]}");
        check(*state, "{ loose { failMust } }", 200,
              "{\"data\":{\"loose\":null},\"errors\":[" ERR(
                      "no such thing", 11, "\"loose\",0,\"failMust\"", "NOT_FOUND") "]}");
        check(*state, "{ things { failMust } }", 200,
              "{\"data\":null,\"errors\":[" ERR("no such thing", 12, "\"things\",0,\"failMust\"",
                                                "NOT_FOUND") "]}");
        check(*state, "{ thing { gaps } }", 200, "{\"data\":{\"thing\":{\"gaps\":[\"x\",null]}}}");
        check(*state, "{ thing { holes } }", 200,
              "{\"data\":{\"thing\":{\"holes\":null}},\"errors\":[" ERR(
                      "Thing.holes: an element has no value but must have one", 11,
                      "\"thing\",\"holes\",1", "INTERNAL_SERVER_ERROR") "]}");
        check(*state, "{ nobody }", 200,
              "{\"data\":{\"nobody\":null},\"errors\":[" ERR(
                      "nobody is not available on this engine", 3, "\"nobody\"",
                      "NOT_IMPLEMENTED") "]}");
}

/* Resolvers that break the rules: an error on the field, a well-formed answer. */
static void test_misuse(void **state)
{
        static const char *const q[] = { "{ thing { two } }", "{ thing { forgot } }",
                                         "{ thing { object } }", "{ thing { open } }" };

        for (size_t i = 0; i < NELEM(q); i++) {
                struct ctx x = { .may = GQL_READ };
                struct gql_request *r = start(*state, q[i], &x);
                json_t *j = json_loads(x.body, 0, NULL);

                if (!j || !strstr(x.body, "INTERNAL_SERVER_ERROR") || x.status != 200)
                        fail_msg("%s: %s", q[i], x.body);
                json_decref(j);
                gql_request_free(r);
                free(x.body);
        }
        check(*state, "mutation { must { id } }", 200,
              "{\"data\":null,\"errors\":[" ERR(
                      "the resolver promised an answer without taking a handle", 12, "\"must\"",
                      "INTERNAL_SERVER_ERROR") "]}");
}

static void test_many_errors(void **state)
{
        AUTO(strbuf_done) struct strbuf q = { 0 };
        struct ctx x = { .may = GQL_READ };
        struct gql_request *r;
        json_t *j;

        strbuf_str(&q, "{ thing {");
        for (int i = 0; i < 500; i++)
                strbuf_fmt(&q, " f%d: fail", i);
        strbuf_str(&q, "} }");
        r = start(*state, q.s, &x);
        j = json_loads(x.body, 0, NULL);
        assert_int_equal(json_array_size(json_object_get(j, "errors")), 100);
        json_decref(j);
        gql_request_free(r);
        free(x.body);
}

/* The same dear field under a hundred names: of all that, no more than its time; what was reached stays. */
static void test_time(void **state)
{
        const unsigned each_ms = LIMIT_QUERY_MS / 10;
        AUTO(strbuf_done) struct strbuf q = { 0 };
        struct ctx x = { .may = GQL_READ, .burn_us = each_ms * US_PER_MS };
        struct gql_request *r;
        json_t *j;

        strbuf_str(&q, "{");
        for (int i = 0; i < 100; i++)
                strbuf_fmt(&q, " t%d: thing { id }", i);
        strbuf_str(&q, " }");
        r = start(*state, q.s, &x);
        assert_in_range(x.ran, 5, 12);
        assert_non_null(strstr(x.body, "takes over 500 ms of the server's time"));
        j = json_loads(x.body, 0, NULL);
        assert_true(json_is_object(json_object_get(json_object_get(j, "data"), "t0")));
        assert_true(json_is_null(json_object_get(json_object_get(j, "data"), "t99")));
        json_decref(j);
        gql_request_free(r);
        free(x.body);
        check(*state, "{ thing { id } }", 200, "{\"data\":{\"thing\":{\"id\":1}}}");
}

static void test_merging(void **state)
{
        check(*state,
              "{ thing { inner { id } id inner { name } ...F } } fragment F on Thing { id inner "
              "{ flag id } }",
              200,
              "{\"data\":{\"thing\":{\"inner\":{\"id\":2,\"name\":\"inner\",\"flag\":false},\"id\":1}}}");
        check(*state, "{ thing @include(if: false) { fail } }", 200, "{\"data\":{}}");
        check(*state, "{ thing @skip(if: true) { fail } x: thing { id @skip(if: false) } }", 200,
              "{\"data\":{\"x\":{\"id\":1}}}");
        check(*state,
              "query Q($t: Boolean = true, $f: Boolean = false) { thing { inner @include(if: $f) "
              "{ id } inner @include(if: $t) { name } ...F @skip(if: $t) ... @include(if: $t) { "
              "... @skip(if: $t) { color } flag } } } fragment F on Thing { id }",
              200, "{\"data\":{\"thing\":{\"inner\":{\"name\":\"inner\"},\"flag\":true}}}");
        check(*state,
              "query Q($t: Boolean = true, $f: Boolean = false) { thing { id @include(if: $f) id "
              "@include(if: $t) name @include(if: $f) name @skip(if: $t) flag @include(if: $f) "
              "flag } }",
              200, "{\"data\":{\"thing\":{\"id\":1,\"flag\":true}}}");
        check(*state, "{ __typename a: __typename thing { __typename } }", 200,
              "{\"data\":{\"__typename\":\"Query\",\"a\":\"Query\",\"thing\":{\"__typename\":\"Thing\"}}}");
        check(*state, "mutation { __typename }", 200, "{\"data\":{\"__typename\":\"Mutation\"}}");
        check(*state,
              "{ ...A ...A ...B } fragment A on Query { ...B } fragment B on Query { thing { id } "
              "}",
              200, "{\"data\":{\"thing\":{\"id\":1}}}");
}

static void test_rights(void **state)
{
        struct ctx x = { .may = GQL_READ, .keyless = true };
        struct gql_request *r = start(*state, "{ thing { id } }", &x);

        assert_int_equal(x.status, 401);
        assert_non_null(strstr(x.body, "unauthorized"));
        assert_non_null(strstr(x.body, "UNAUTHENTICATED"));
        assert_null(strstr(x.body, "data"));
        assert_int_equal(x.ran, 0);
        gql_request_free(r);
        free(x.body);

        x = (struct ctx){ .may = GQL_READ };
        r = start(*state, "{ things { id name adminOnly } admin thing { adminOnly } }", &x);
        assert_int_equal(x.status, 200);
        assert_string_equal(
                x.body,
                "{\"data\":{\"things\":[{\"id\":1,\"name\":\"outer\",\"adminOnly\":null},{\"id\":2,"
                "\"name\":\"inner\",\"adminOnly\":null}],\"admin\":null,\"thing\":{\"adminOnly\":null}},"
                "\"errors\":[" ERR(
                        "forbidden: this key may not use \\\"adminOnly\\\"", 20,
                        "\"things\",0,\"adminOnly\"",
                        "FORBIDDEN") "," ERR("forbidden: this key may not use \\\"adminOnly\\\"",
                                             20, "\"things\",1,\"adminOnly\"",
                                             "FORBIDDEN") "," ERR("forbidden: this key may not use \\\"admin\\\"",
                                                                  32, "\"admin\"",
                                                                  "FORBIDDEN") "," ERR("forbidden: this key may not use \\\"adminOnly\\\"",
                                                                                       46,
                                                                                       "\"thing\",\"adminOnly\"",
                                                                                       "FORBIDDEN") "]}");
        assert_int_equal(x.asked[GQL_READ], 1); /* once, not per field */
        gql_request_free(r);
        free(x.body);
}

/* ---- later ------------------------------------------------------------------------------------------ */

static void test_pending(void **state)
{
        struct ctx x = { .may = GQL_READ };
        struct gql_request *r = start(*state,
                                      "mutation { a: first { id } second { name } third b: first { "
                                      "id } bad { id } }",
                                      &x);
        struct gql_pending *p = x.pending;
        struct err e = { 0 };

        assert_int_equal(x.answers, 0);
        assert_int_equal(x.ran, 1); /* one after the other */
        assert_true(gql_pending_wanted(p));
        assert_ptr_equal(gql_pending_context(p), &x);
        gql_complete(p, &outer);
        assert_int_equal(x.answers, 0);
        assert_int_equal(x.ran, 4);
        (void) err_set(&e, -ENOSPC, "no longer any instances available");
        gql_fail(x.pending, NULL, &e);
        assert_int_equal(x.answers, 1);
        assert_int_equal(x.status, 200);
        assert_string_equal(
                x.body,
                "{\"data\":{\"a\":{\"id\":1},\"second\":{\"name\":\"inner\"},\"third\":null,"
                "\"b\":null,\"bad\":null},\"errors\":[" ERR(
                        "no longer any instances available", 50, "\"b\"",
                        "NO_CAPACITY") "," ERR("it is locked", 66, "\"bad\"", "BAD_STATE") "]}");
        gql_request_free(r);
        free(x.body);
}

/* What others have done while it waited is not its own. */
static void test_time_while_it_waits(void **state)
{
        const uint64_t until = clock_thread_us() + (LIMIT_QUERY_MS + 100) * US_PER_MS;
        AUTO(strbuf_done) struct strbuf q = { 0 };
        struct ctx x = { .may = GQL_READ };
        struct gql_request *r;

        strbuf_str(&q, "mutation { first {");
        for (int i = 0; i < 40; i++)
                strbuf_fmt(&q, " l%d: list { id }", i);
        strbuf_str(&q, " } second { id } }");
        r = start(*state, q.s, &x);
        while (clock_thread_us() < until)
                ;
        gql_complete(x.pending, &outer);
        assert_int_equal(x.answers, 1);
        assert_null(strstr(x.body, "errors"));
        assert_non_null(strstr(x.body, "\"l39\":[{\"id\":1},{\"id\":2}]},\"second\":{\"id\":2}"));
        gql_request_free(r);
        free(x.body);
}

RESOLVER(late_number)
{
        UNUSED;
        return gql_put_int(c, *(const int *) obj);
}

static void test_complete_with(void **state)
{
        struct ctx x = { .may = GQL_READ };
        struct gql_request *r = start(*state, "{ laterNumber thing { id } }", &x);
        int n = 7;

        gql_complete_with(x.pending, late_number, &n);
        assert_string_equal(x.body, "{\"data\":{\"laterNumber\":7,\"thing\":{\"id\":1}}}");
        gql_request_free(r);
        free(x.body);

        x = (struct ctx){ .may = GQL_READ };
        r = start(*state, "{ later { id } }", &x);
        gql_complete(x.pending, NULL);
        assert_string_equal(x.body, "{\"data\":{\"later\":null}}");
        gql_request_free(r);
        free(x.body);

        x = (struct ctx){ .may = GQL_READ };
        r = start(*state, "{ later { id } }", &x);
        gql_complete_with(x.pending, r_fail, NULL);
        assert_non_null(strstr(x.body, "\"later\":null"));
        assert_non_null(strstr(x.body, "no such thing"));
        gql_request_free(r);
        free(x.body);

        x = (struct ctx){ .may = GQL_READ };
        r = start(*state, "{ later { id } }", &x);
        gql_fail(x.pending, "Cluster not found", &(struct err){ -ENOENT, "gone" });
        assert_non_null(strstr(x.body, "\"code\":\"Cluster not found\""));
        gql_request_free(r);
        free(x.body);
}

/* The client goes away: the handle stays valid, the rest is not started, nobody is called. */
static void test_cancel(void **state)
{
        struct ctx x = { .may = GQL_READ };
        struct gql_request *r = start(*state, "mutation { first { id } second { id } }", &x);

        gql_request_free(r);
        assert_false(gql_pending_wanted(x.pending));
        assert_null(gql_pending_context(x.pending));
        gql_complete(x.pending, &outer);
        assert_int_equal(x.answers, 0);
        assert_int_equal(x.ran, 1);

        r = start(*state, "mutation { first { id } }", &x);
        gql_request_free(r);
        gql_fail(x.pending, NULL, &(struct err){ -EIO, "x" });
        r = start(*state, "mutation { first { id } }", &x);
        gql_request_free(r);
        gql_complete_with(x.pending, r_fail, NULL);
        assert_int_equal(x.answers, 0);
}

struct owner {
        struct gql_request *r;
        struct ctx x;
};

static void done_and_free(void *arg, unsigned status, struct strbuf *body)
{
        struct owner *o = arg;

        done(&o->x, status, body);
        o->r = gql_request_free(o->r);
}

static void test_free_when_done(void **state)
{
        static const char *const q[] = { "{ thing { id } }", "{ nope }",
                                         "mutation { first { id } }" };

        for (size_t i = 0; i < NELEM(q); i++) {
                struct owner o = { .x.may = GQL_READ };

                assert_int_equal(
                        gql_request_new(*state, q[i], strlen(q[i]), NULL, NULL, &o.x, &o.r), 0);
                gql_run(o.r, done_and_free, &o);
                if (o.x.pending)
                        gql_complete(o.x.pending, &inner);
                assert_int_equal(o.x.answers, 1);
                assert_null(o.r);
                free(o.x.body);
        }
}

static void test_is_mutation(void **state)
{
        struct gql_request *r = NULL;

        assert_int_equal(gql_request_new(*state, "{ thing { id } }", 16, NULL, NULL, NULL, &r), 0);
        assert_false(gql_request_is_mutation(r));
        r = gql_request_free(r);
        assert_int_equal(gql_request_new(*state, "mutation { third }", 18, NULL, NULL, NULL, &r),
                         0);
        assert_true(gql_request_is_mutation(r));
        r = gql_request_free(r);
        assert_int_equal(gql_request_new(*state, "mutation {", 10, NULL, NULL, NULL, &r), 0);
        assert_false(gql_request_is_mutation(r));
        gql_request_free(r);
}

static void test_cache(void **state)
{
        AUTO(gql_schema_free) struct gql_schema *s = NULL;
        struct gql_stats st;
        void *fresh = NULL;

        (void) state;
        assert_int_equal(up(&fresh), 0);
        s = fresh;
        for (int i = 0; i < 10; i++)
                check(s, "{ thing { id } }", 200, "{\"data\":{\"thing\":{\"id\":1}}}");
        gql_stats(s, &st);
        assert_int_equal(st.requests, 10);
        assert_int_equal(st.cache_hits, 9);
        assert_int_equal(st.cached, 1);
        for (int i = 0; i < 2000; i++) { /* more than it holds; each its own text */
                char q[64];

                (void) snprintf(q, sizeof q, "{ thing { id } } # %d", i);
                check(s, q, 200, "{\"data\":{\"thing\":{\"id\":1}}}");
        }
        gql_stats(s, &st);
        assert_int_equal(st.cached, 512);
        check(s, "{ thing { id } }", 200,
              "{\"data\":{\"thing\":{\"id\":1}}}"); /* fell out long ago */
        gql_stats(s, &st);
        assert_int_equal(st.cache_hits, 9);
        check(s, "{ thing { id } real(n: \"1\") }", 200,
              "{\"data\":{\"thing\":{\"id\":1},\"real\":1}}");
        check(s, "{ thing { id } real(n: \"1\") }", 200,
              "{\"data\":{\"thing\":{\"id\":1},\"real\":1}}");
        gql_stats(s, &st);
        assert_int_equal(st.cache_hits, 9); /* strings are not kept */
}

static void test_error_body(void **state)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };

        (void) state;
        gql_error_body(&b, "RATE_LIMITED", "too \"many\"");
        assert_string_equal(
                b.s, "{\"errors\":[{\"message\":\"too \\\"many\\\"\",\"extensions\":{\"code\":"
                     "\"RATE_LIMITED\"}}]}");
        assert_int_equal(strlen(b.s), b.len);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_values),
                cmocka_unit_test(test_errors),
                cmocka_unit_test(test_misuse),
                cmocka_unit_test(test_many_errors),
                cmocka_unit_test(test_merging),
                cmocka_unit_test(test_rights),
                cmocka_unit_test(test_pending),
                cmocka_unit_test(test_complete_with),
                cmocka_unit_test(test_cancel),
                cmocka_unit_test(test_free_when_done),
                cmocka_unit_test(test_is_mutation),
                cmocka_unit_test(test_cache),
                cmocka_unit_test(test_error_body),
                cmocka_unit_test(test_time),
                cmocka_unit_test(test_time_while_it_waits),
        };

        return cmocka_run_group_tests(tests, up, down);
}
