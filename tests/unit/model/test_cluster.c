/* test_cluster.c - the state table: names, the public statuses, and that no sequence gets stuck. */
#include "model/cluster.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

static void test_names(void **state)
{
        (void) state;
        for (int s = 1; s < CS_STATE_COUNT; s++)
                assert_int_equal(cluster_state_parse(cluster_state_name((enum cluster_state) s)),
                                 s);
        assert_int_equal(cluster_state_parse("nonsense"), CS_NONE);
        assert_int_equal(cluster_state_parse("none"), CS_NONE);
}

static void test_life(void **state)
{
        static const enum cluster_event life[] = { CE_PULL,    CE_BIND,      CE_LAUNCH,
                                                   CE_STARTED, CE_EXIT,      CE_START,
                                                   CE_BIND,    CE_LAUNCH,    CE_STARTED,
                                                   CE_STOP,    CE_RELEASED,  CE_START,
                                                   CE_FAIL,    CE_TERMINATE, CE_RELEASED };
        enum cluster_state s = CS_ACCEPTED;

        (void) state;
        for (size_t i = 0; i < sizeof life / sizeof life[0]; i++)
                assert_int_equal(cluster_step(&s, life[i], NULL), 0);
        assert_int_equal(s, CS_TERMINATED);
}

static void test_refused_leaves_state(void **state)
{
        enum cluster_state s = CS_RUNNING;
        struct err e = { 0 };

        (void) state;
        assert_int_equal(cluster_step(&s, CE_PULL, &e), -EPROTO);
        assert_int_equal(s, CS_RUNNING);
        assert_string_equal(e.msg, "pull while running");
}

/* From every state that can be reached, some sequence leads to terminated. */
static void test_never_stuck(void **state)
{
        (void) state;
        for (int from = CS_ACCEPTED; from < CS_TERMINATED; from++) {
                enum cluster_state s = (enum cluster_state) from;

                if (s != CS_TERMINATING)
                        assert_int_equal(cluster_step(&s, CE_TERMINATE, NULL), 0);
                assert_int_equal(cluster_step(&s, CE_RELEASED, NULL), 0);
                assert_int_equal(s, CS_TERMINATED);
        }
}

/* 100,000 random events: a cluster that is gone stays gone, and only a running one has a runtime. */
static void test_random(void **state)
{
        unsigned seed = 20261122;
        enum cluster_state s = CS_ACCEPTED;

        (void) state;
        for (int i = 0; i < 100000; i++) {
                enum cluster_event ev = (enum cluster_event)(rand_r(&seed) % CE_EVENT_COUNT);
                enum cluster_state before = s;
                int r = cluster_step(&s, ev, NULL);

                assert_true(r == 0 || s == before);
                assert_true(s > CS_NONE && s < CS_STATE_COUNT);
                if (before == CS_TERMINATED)
                        assert_int_equal(s, CS_TERMINATED);
                assert_true(cluster_has_runtime(s) == (s == CS_RUNNING));
                if (s == CS_TERMINATED)
                        s = CS_ACCEPTED;
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_names),
                cmocka_unit_test(test_life),
                cmocka_unit_test(test_refused_leaves_state),
                cmocka_unit_test(test_never_stuck),
                cmocka_unit_test(test_random),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
