/* bench_graphql.c - what one core does with GraphQL: runpodctl's `myPods` over 20 pods in memory, from
 * the bytes of the HTTP body to the bytes of the answer, and the parts of that.  No root, no network.
 * Usage: bench_graphql [SECONDS]; one line per figure, "name value unit". */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "control/graphql/compile.h"
#include "gql_world.h"

struct bench {
        struct world *w;
        const char *body; /* of the request */
        size_t len;
        uint64_t answers, bytes;
};

static void answered(void *arg, unsigned status, struct strbuf *body)
{
        struct bench *b = arg;

        b->answers += status == 200;
        b->bytes += body->len;
}

static void from_body(struct bench *b)
{
        AUTO(gql_request_free) struct gql_request *r = NULL;

        if (gql_request_new_body(b->w->schema, b->body, b->len, b->w, &r) == 0)
                gql_run(r, answered, b);
}

static void from_query(struct bench *b)
{
        AUTO(gql_request_free) struct gql_request *r = NULL;

        if (gql_request_new(b->w->schema, world_my_pods, strlen(world_my_pods), NULL, NULL, b->w,
                            &r) == 0)
                gql_run(r, answered, b);
}

/* Parse, validate and compile, as the first of many equal requests does. */
static void compile_only(struct bench *b)
{
        AUTO(cquery_unref) struct cquery *q = NULL;
        struct gql_fault f = { 0 };

        if (cquery_make(b->w->schema, world_my_pods, strlen(world_my_pods), NULL, &q, &f) == 0)
                b->answers++;
}

static void measure(struct bench *b, const char *name, void (*one)(struct bench *), uint64_t run_us)
{
        uint64_t start = clock_mono_us(), now = start, n = 0;

        b->answers = b->bytes = 0;
        while (now - start < run_us) {
                for (int i = 0; i < 100; i++)
                        one(b);
                n += 100;
                now = clock_mono_us();
        }
        if (b->answers != n) {
                fprintf(stderr, "bench_graphql: %s: %llu of %llu answered\n", name,
                        (unsigned long long) b->answers, (unsigned long long) n);
                exit(1);
        }
        printf("graphql.%s %.0f 1/s\n", name, (double) n * 1e6 / (double) (now - start));
        if (b->bytes)
                printf("graphql.%s_bytes %llu B\n", name, (unsigned long long) (b->bytes / n));
}

int main(int argc, char **argv)
{
        static struct world w;
        AUTO(free) char *body = str_fmt("{\"query\":\"%s\",\"variables\":{}}", world_my_pods);
        static const char tiny[] = "{\"query\":\"{ myself { id } }\"}";
        struct bench b = { .w = &w };
        uint64_t run_us = US_PER_S;

        if (argc > 1 && str_duration_us(argv[1], &run_us) < 0) {
                fprintf(stderr, "usage: bench_graphql [SECONDS]\n");
                return 1;
        }
        if (!body || world_up(&w, false) < 0)
                return 1;
        b.body = body;
        b.len = strlen(body);
        measure(&b, "my_pods_20", from_body, run_us);
        measure(&b, "my_pods_20_query", from_query, run_us);
        b.body = tiny;
        b.len = sizeof tiny - 1;
        measure(&b, "tiny", from_body, run_us);
        measure(&b, "compile_my_pods", compile_only, run_us);
        world_down(&w);
        return 0;
}
