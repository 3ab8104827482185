/* test_gql_emit.c - subscriptions: one request, an answer for each thing that happens.  Each stands for
 * itself, none is longer than may be, whatever it is asked for, and nothing of a long one is kept. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "control/graphql/exec.h"
#include "model/limits.h"

static const char sdl[] =
        "type Query { thing: Thing }\n"
        "type Subscription { things(n: Int): Thing! maybe: Thing admins: Thing nowhere: Thing }\n"
        "type Thing { id: Int! text: String tags: [String!] inner: Thing must: String!\n"
        "  adminOnly: String slow: String }\n";

struct thing {
        int32_t id;
        const char *text;
        char **tags;
        const struct thing *inner;
};

struct ctx {
        enum gql_right may;
        bool keyless;
        uint64_t burn_us;
        const struct thing *thing; /* of the query */
};

static int r_thing(struct gql_call *c, const void *obj, struct err *e)
{
        const struct ctx *x = gql_context(c);

        (void) obj;
        (void) e;
        return gql_put_object(c, x->thing);
}

static int r_must(struct gql_call *c, const void *obj, struct err *e)
{
        const struct thing *t = obj;

        return t->text ? gql_put_str(c, t->text) : err_set(e, -ENOENT, "no text");
}

static int r_slow(struct gql_call *c, const void *obj, struct err *e)
{
        const struct ctx *x = gql_context(c);
        uint64_t until = clock_thread_us() + x->burn_us;

        (void) obj;
        (void) e;
        while (x->burn_us && clock_thread_us() < until)
                ;
        return gql_put_str(c, "slow");
}

#define AT(n, t, g, m)                                                                             \
        {                                                                                          \
                n, t, GQL_READ, NULL, GQL_GET_##g, offsetof(struct thing, m)                       \
        }

static const struct gql_field query_rows[] = { { "thing", "Thing", GQL_READ, r_thing, GQL_GET_FN,
                                                 0 } };
static const struct gql_field subscription_rows[] = {
        { "things", "Thing!", GQL_READ, NULL, GQL_GET_SELF, 0 },
        { "maybe", "Thing", GQL_READ, NULL, GQL_GET_SELF, 0 },
        { "admins", "Thing", GQL_ADMIN, NULL, GQL_GET_SELF, 0 },
};
static const struct gql_field thing_rows[] = {
        AT("id", "Int!", I32, id),
        AT("text", "String", STR, text),
        AT("tags", "[String!]", STRV, tags),
        AT("inner", "Thing", PTR, inner),
        { "must", "String!", GQL_READ, r_must, GQL_GET_FN, 0 },
        { "slow", "String", GQL_READ, r_slow, GQL_GET_FN, 0 },
        { "adminOnly", "String", GQL_ADMIN, r_must, GQL_GET_FN, 0 },
};
static const struct gql_type types[] = {
        { "Query", query_rows, NELEM(query_rows) },
        { "Subscription", subscription_rows, NELEM(subscription_rows) },
        { "Thing", thing_rows, NELEM(thing_rows) },
};

static int allow(void *arg, enum gql_right need, struct err *e)
{
        const struct ctx *x = arg;

        (void) e;
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

static struct gql_request *request(struct gql_schema *s, const char *query, const char *variables,
                                   struct ctx *x)
{
        AUTO(json_put) json_t *v = variables ? json_loads(variables, 0, NULL) : NULL;
        struct gql_request *r = NULL;

        assert_int_equal(gql_request_new(s, query, strlen(query), NULL, v, x, &r), 0);
        return r;
}

/* One that is let in. */
static struct gql_request *open_one(struct gql_schema *s, const char *query, const char *variables,
                                    struct ctx *x)
{
        struct gql_request *r = request(s, query, variables, x);
        AUTO(strbuf_done) struct strbuf body = { 0 };
        unsigned status = 0;

        if (gql_subscribe(r, &status, &body) != 0)
                fail_msg("%s: %u %s", query, status, body.s);
        return r;
}

static void emits(struct gql_request *r, const struct thing *t, const char *want)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };

        strbuf_str(&b, "before ");
        assert_int_equal(gql_emit(r, t, &b), 0);
        strbuf_char(&b, '\0');
        if (strcmp(b.s + 7, want) != 0)
                fail_msg("got %s\nwant %s", b.s + 7, want);
        assert_memory_equal(b.s, "before ", 7);
}

static void test_each_by_itself(void **state)
{
        struct ctx x = { .may = GQL_READ };
        AUTO(gql_request_free)
        struct gql_request *r = open_one(
                *state,
                "subscription S($not: Boolean!) { a: things { id must tags @skip(if: $not) "
                "inner { id } x: text } }",
                "{\"not\": true}", &x);
        const struct thing in = { .id = 7 };
        const struct thing good = { .id = 1, .text = "one", .inner = &in }, bad = { .id = 2 };
        const char *const fine = "{\"data\":{\"a\":{\"id\":1,\"must\":\"one\",\"inner\":{\"id\":7},"
                                 "\"x\":\"one\"}}}";

        assert_string_equal(gql_subscribed(r), "things");
        for (int i = 0; i < 3; i++) {
                emits(r, &good, fine);
                emits(r, &bad,
                      "{\"data\":null,\"errors\":[{\"message\":\"no text\",\"locations\":[{\"line\":1,"
                      "\"column\":49}],\"path\":[\"a\",\"must\"],\"extensions\":{\"code\":"
                      "\"NOT_FOUND\"}}]}");
        }
        emits(r, &good, fine);
}

static void test_a_part_is_missing(void **state)
{
        struct ctx x = { .may = GQL_READ };
        AUTO(gql_request_free)
        struct gql_request *r = open_one(*state, "subscription { maybe { must } }", NULL, &x);
        const struct thing bad = { .id = 2 };

        emits(r, &bad,
              "{\"data\":{\"maybe\":null},\"errors\":[{\"message\":\"no text\",\"locations\":"
              "[{\"line\":1,\"column\":24}],\"path\":[\"maybe\",\"must\"],\"extensions\":"
              "{\"code\":\"NOT_FOUND\"}}]}");
}

static void test_rights(void **state)
{
        static const struct {
                const char *query;
                struct ctx x;
                unsigned status;
                const char *says;
        } t[] = {
                { "subscription { things { id } }", { .keyless = true }, 401, "UNAUTHENTICATED" },
                { "subscription { admins { id } }", { .may = GQL_READ }, 200, "FORBIDDEN" },
                { "subscription { nowhere { id } }", { .may = GQL_READ }, 200, "NOT_IMPLEMENTED" },
                { "{ thing { id } }", { .may = GQL_READ }, 400, "only subscriptions" },
                { "subscription { things { nothing } }", { .may = GQL_READ }, 400, "nothing" },
                { "subscription { a: things { id } b: things { id } }",
                  { .may = GQL_READ },
                  400,
                  "exactly one field" },
                { "subscription", { .may = GQL_READ }, 400, "" },
        };
        struct ctx x = { .may = GQL_READ };
        AUTO(gql_request_free)
        struct gql_request *r =
                open_one(*state, "subscription { maybe { id adminOnly } }", NULL, &x);
        const struct thing one = { .id = 1, .text = "secret" };
        AUTO(strbuf_done) struct strbuf b = { 0 };

        for (size_t i = 0; i < NELEM(t); i++) {
                struct ctx who = t[i].x;
                AUTO(gql_request_free)
                struct gql_request *no = request(*state, t[i].query, NULL, &who);
                AUTO(strbuf_done) struct strbuf body = { 0 };
                unsigned status = 0;

                assert_int_equal(gql_subscribe(no, &status, &body), -EINVAL);
                strbuf_char(&body, '\0');
                if (status != t[i].status || !strstr(body.s, t[i].says))
                        fail_msg("%s: %u %s", t[i].query, status, body.s);
        }
        assert_int_equal(gql_emit(r, &one, &b), 0);
        strbuf_char(&b, '\0');
        assert_null(strstr(b.s, "secret"));
        assert_non_null(strstr(b.s, "FORBIDDEN"));
}

/* "prefix{a0:text a1:text ... }}" */
static char *many(const char *prefix, unsigned n)
{
        struct strbuf b = { 0 };

        strbuf_str(&b, prefix);
        for (unsigned i = 0; i < n; i++)
                strbuf_fmt(&b, " a%u: text", i);
        strbuf_str(&b, " } }");
        return strbuf_take(&b);
}

static char *long_text(size_t len)
{
        char *s = malloc(len + 1);

        assert_non_null(s);
        memset(s, 'x', len);
        s[len] = '\0';
        return s;
}

/* The fields of one object are as good for a long answer as objects in a list. */
static void test_long_answers(void **state)
{
        struct ctx x = { .may = GQL_READ };
        AUTO(free) char *query = many("subscription { things { id", 400);
        AUTO(gql_request_free) struct gql_request *r = open_one(*state, query, NULL, &x);
        AUTO(free) char *text = long_text(100000);
        const struct thing large = { .id = 1, .text = text }, small = { .id = 2, .text = "s" };

        for (int i = 0; i < 2; i++) {
                AUTO(strbuf_done) struct strbuf b = { 0 };

                emits(r, &large,
                      "{\"data\":null,\"errors\":[{\"message\":\"the answer is longer than 262144 "
                      "bytes: ask for less at once\",\"extensions\":{\"code\":\"ANSWER_TOO_LONG\"}}]}");
                assert_true(r->out.len <= 4096 || !r->out.s); /* it may wait for days */
                assert_int_equal(gql_emit(r, &small, &b), 0);
                assert_memory_equal(b.s, "{\"data\":{\"things\":{\"id\":2,\"a0\":\"s\"", 32);
        }
        assert_true(LIMIT_SUBSCRIPTION_BYTES == 262144);
}

static void on_answer(void *arg, unsigned status, struct strbuf *body)
{
        struct strbuf *b = arg;

        (void) status;
        *b = *body;
        *body = (struct strbuf){ 0 };
}

/* Of a query, too: one cluster with long variables, asked for them under 65,000 names. */
static void test_long_answer_of_a_query(void **state)
{
        AUTO(free) char *text = long_text(1 << 20);
        const struct thing large = { .id = 1, .text = text };
        struct ctx x = { .may = GQL_READ, .thing = &large };
        AUTO(free) char *query = many("{ thing { id", 100);
        AUTO(gql_request_free) struct gql_request *r = request(*state, query, NULL, &x);
        AUTO(strbuf_done) struct strbuf b = { 0 };

        gql_run(r, on_answer, &b);
        strbuf_char(&b, '\0');
        if (b.len > 4096)
                fail_msg("%zu bytes, at most %u are allowed", b.len, LIMIT_ANSWER_BYTES);
        assert_non_null(strstr(b.s, "ANSWER_TOO_LONG"));
}

static void test_time(void **state)
{
        struct ctx x = { .may = GQL_READ, .burn_us = 40000 };
        struct strbuf q = { 0 };
        AUTO(free) char *query = NULL;
        AUTO(gql_request_free) struct gql_request *r = NULL;
        const struct thing one = { .id = 1 };
        AUTO(strbuf_done) struct strbuf b = { 0 };

        strbuf_str(&q, "subscription { maybe {");
        for (unsigned i = 0; i < 100; i++)
                strbuf_fmt(&q, " s%u: slow", i);
        strbuf_str(&q, " } }");
        query = strbuf_take(&q);
        r = open_one(*state, query, NULL, &x);
        assert_int_equal(gql_emit(r, &one, &b), 0);
        strbuf_char(&b, '\0');
        assert_non_null(strstr(b.s, "of the server's time"));
        x.burn_us = 0; /* the next one has its own time */
        strbuf_done(&b);
        assert_int_equal(gql_emit(r, &one, &b), 0);
        strbuf_char(&b, '\0');
        assert_null(strstr(b.s, "errors"));
}

static void test_arguments(void **state)
{
        struct ctx x = { .may = GQL_READ };
        AUTO(gql_request_free)
        struct gql_request *r = open_one(*state, "subscription($n: Int) { things(n: $n) { id } }",
                                         "{\"n\": 5}", &x);
        const json_t *args = gql_subscribed_args(r);
        const struct thing one = { .id = 1 };

        assert_int_equal(json_integer_value(json_object_get(args, "n")), 5);
        emits(r, &one, "{\"data\":{\"things\":{\"id\":1}}}");
        assert_int_equal(json_integer_value(json_object_get(gql_subscribed_args(r), "n")), 5);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_each_by_itself),
                cmocka_unit_test(test_a_part_is_missing),
                cmocka_unit_test(test_rights),
                cmocka_unit_test(test_long_answers),
                cmocka_unit_test(test_long_answer_of_a_query),
                cmocka_unit_test(test_time),
                cmocka_unit_test(test_arguments),
        };

        return cmocka_run_group_tests(tests, up, down);
}
