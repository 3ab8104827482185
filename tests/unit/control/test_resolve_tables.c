/* test_resolve_tables.c - the resolver tables of the control plane against schema/tensorone.graphqls:
 * making the schema refuses any row that does not fit.  And which operations are still unanswered,
 * so that one cannot be lost without a test noticing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "control/graphql/schema.h"
#include "control/resolve/resolve.h"

static const char *const not_here[] = {
        /* multi-node, serverless, volumes and secrets come with later issues */
        "addModelToRepo",
        "completeModelRepoUpload",
        "createCluster",
        "createModelRepoUpload",
        "createNetworkVolume",
        "deleteCluster",
        "deleteEndpoint",
        "deleteNetworkVolume",
        "listing",
        "listingFromRepo",
        "myModel",
        "removeModelFromRepo",
        "saveEndpoint",
        "updateEndpointTemplate",
        "updateModelVersionStatus",
        "updateNetworkVolume",
};

static bool expected(const char *name)
{
        for (size_t i = 0; i < NELEM(not_here); i++)
                if (strcmp(not_here[i], name) == 0)
                        return true;
        return false;
}

static void check_root(const struct stype *root)
{
        for (const struct named *n = root->members.first; n; n = n->next) {
                const struct sfield *f = (const struct sfield *) n;

                if (!f->row && !expected(n->name))
                        fail_msg("%s.%s has no resolver", root->n.name, n->name);
                if (f->row && expected(n->name))
                        fail_msg("%s.%s has a resolver now: take it off the list", root->n.name,
                                 n->name);
        }
}

/* What a resolver answers with objects of a type has resolvers too, or is a known empty list. */
static void test_tables(void **state)
{
        AUTO(gql_schema_free) struct gql_schema *s = NULL;
        struct err e = { 0 };

        (void) state;
        if (resolve_schema_new(&s, &e) < 0)
                fail_msg("%s", e.msg);
        check_root(s->query);
        check_root(s->mutation);
}

/* Both spellings are answered by the same rows. */
static void test_spellings(void **state)
{
        AUTO(gql_schema_free) struct gql_schema *s = NULL;

        (void) state;
        assert_int_equal(resolve_schema_new(&s, NULL), 0);
        for (const struct named *n = s->types.first; n; n = n->next) {
                const struct stype *t = (const struct stype *) n;
                const struct named *a = t->members.first,
                                   *b = t->twin ? t->twin->members.first : NULL;

                if (t->kind != TK_OBJECT || !t->twin)
                        continue;
                for (; a && b; a = a->next, b = b->next)
                        if (((const struct sfield *) a)->row != ((const struct sfield *) b)->row)
                                fail_msg("%s.%s and %s.%s are answered differently", t->n.name,
                                         a->name, t->twin->n.name, b->name);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_tables),
                cmocka_unit_test(test_spellings),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
