/* fuzz_graphql.c - libFuzzer target for src/control/graphql: text to answer, over the world of the
 * unit tests.  Inputs are readable:
 *
 *   {"query": ...      an HTTP body
 *   #sdl\n...          schema text
 *   anything else      a query; after a line "---" the variables as JSON
 *
 * Checked beside memory errors: exactly one answer, status and body belong together, the body is
 * JSON in which no key is twice, the same question asked again (now from the cache) gets the same
 * answer, and what is refused did not run; of a subscription, that an event is told the same way each
 * time, whatever came between.  A trap is a finding. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/jsonx.h"
#include "gql_world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x)) {                                                                        \
                        fprintf(stderr, "fuzz_graphql: %s\n", #x);                                 \
                        __builtin_trap();                                                          \
                }                                                                                  \
        } while (0)

struct answer {
        struct world *w;
        unsigned times, status;
        char *body;
        size_t len;
};

static void answered(void *arg, unsigned status, struct strbuf *body)
{
        struct answer *a = arg;

        a->times++;
        a->status = status;
        a->len = body->len;
        a->body = strbuf_take(body);
}

static void check_answer(const struct answer *a)
{
        AUTO(json_put) json_t *j = NULL;
        const json_t *errors;

        CHECK(a->times == 1);
        CHECK(a->body && strlen(a->body) == a->len);
        CHECK(a->status == 200 || a->status == 400);
        j = json_loadb(a->body, a->len, JSON_REJECT_DUPLICATES, NULL);
        CHECK(json_is_object(j));
        errors = json_object_get(j, "errors");
        CHECK(!errors || json_array_size(errors) > 0);
        CHECK(a->status == 200 ? json_object_get(j, "data") != NULL : errors != NULL);
        CHECK(a->status == 200 || !json_is_object(json_object_get(j, "data")) || errors);
}

/* A subscription: refused in an answer, or the same answer for the same event, each time. */
static void emit(struct world *w, struct gql_request *r)
{
        AUTO(strbuf_done) struct strbuf refused = { 0 }, first = { 0 };
        unsigned status = 0;
        int rc = gql_subscribe(r, &status, &refused);

        CHECK(rc == 0 || rc == -EINVAL);
        if (rc < 0) {
                AUTO(json_put) json_t *j = json_loadb(refused.s, refused.len, 0, NULL);

                CHECK((status == 200 || status == 400) && json_object_get(j, "errors"));
                return;
        }
        CHECK(gql_subscribed(r));
        (void) gql_subscribed_args(r);
        for (int i = 0; i < 3; i++) {
                AUTO(strbuf_done) struct strbuf b = { 0 };
                AUTO(json_put) json_t *j = NULL;

                CHECK(gql_emit(r, &w->pods[i % 2], &b) == 0);
                j = json_loadb(b.s, b.len, JSON_REJECT_DUPLICATES, NULL);
                CHECK(json_object_get(j, "data"));
                if (i == 0)
                        strbuf_add(&first, b.s, b.len);
                CHECK(i != 2 || (b.len == first.len && memcmp(b.s, first.s, b.len) == 0));
        }
        CHECK(w->stops == 0 && w->last_args[0] == '\0');
}

static void ask(struct world *w, const char *text, size_t len, const char *vars, size_t vars_len,
                bool body, struct answer *a)
{
        AUTO(gql_request_free) struct gql_request *r = NULL;
        AUTO(json_put) json_t *v = vars ? json_loadb(vars, vars_len, JSON_DECODE_ANY, NULL) : NULL;

        *a = (struct answer){ .w = w };
        w->last_args[0] = '\0';
        w->stops = 0;
        if (body)
                CHECK(gql_request_new_body(w->schema, text, len, w, &r) == 0);
        else
                CHECK(gql_request_new(w->schema, text, len, NULL, v, w, &r) == 0);
        (void) gql_request_is_mutation(r);
        if (gql_request_is_subscription(r)) {
                AUTO(gql_request_free) struct gql_request *s = NULL;

                if (body)
                        CHECK(gql_request_new_body(w->schema, text, len, w, &s) == 0);
                else
                        CHECK(gql_request_new(w->schema, text, len, NULL, v, w, &s) == 0);
                emit(w, s);
        }
        gql_run(r, answered, a);
        check_answer(a);
        /* a parse or validation fault has no data, and then nothing may have run */
        if (a->status == 400 && strncmp(a->body, "{\"errors\"", 9) == 0)
                CHECK(w->stops == 0 && w->last_args[0] == '\0');
}

static int allow(void *ctx, enum gql_right need, struct err *e)
{
        (void) ctx;
        (void) need;
        (void) e;
        return 0;
}

static void read_schema(const char *text, size_t len)
{
        static const struct gql_ops ops = { .allow = allow };
        AUTO(gql_schema_free) struct gql_schema *s = NULL;
        struct err e = { 0 };
        int r = gql_schema_new(text, len, NULL, 0, &ops, &s, &e);

        CHECK(r == 0 ? s != NULL : s == NULL && e.msg[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct world worlds[2]; /* lenient and strict */
        /* a copy of exactly this size: reading one byte too far is seen */
        AUTO(free) char *text = malloc(size ? size : 1);
        const char *cut, *vars = NULL;
        size_t len = size, vars_len = 0;
        bool body;

        if (!worlds[0].schema)
                CHECK(world_up(&worlds[0], false) == 0 && world_up(&worlds[1], true) == 0);
        CHECK(text);
        memcpy(text, data, size);
        if (size >= 5 && memcmp(text, "#sdl\n", 5) == 0) {
                read_schema(text, size);
                return 0;
        }
        body = size >= 2 && memcmp(text, "{\"", 2) == 0;
        cut = body || size < 5 ? NULL : memmem(text, size, "\n---\n", 5);
        if (cut) {
                len = (size_t) (cut - text);
                vars = cut + 5;
                vars_len = size - len - 5;
        }
        for (size_t i = 0; i < 2; i++) {
                struct answer a, b;

                worlds[i].may = GQL_ADMIN;
                ask(&worlds[i], text, len, vars, vars_len, body, &a);
                ask(&worlds[i], text, len, vars, vars_len, body, &b);
                CHECK(a.status == b.status && a.len == b.len && memcmp(a.body, b.body, a.len) == 0);
                free(a.body);
                free(b.body);
        }
        return 0;
}
