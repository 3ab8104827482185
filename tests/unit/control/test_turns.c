/* test_turns.c - whose query is next: who has taken more than his share waits, and is never forgotten. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "control/rest/turns.h"

#define DEAR_US                                                                                    \
        ((TURN_AHEAD_US / TURN_SHARE) + 100000U) /* one of these is more than may be had ahead */

static uint64_t mono_us, thread_us; /* on an idle machine */

static uint64_t get_mono(void)
{
        return mono_us;
}

static uint64_t get_thread(void)
{
        return thread_us;
}

struct world {
        sd_event *loop;
        struct turns *t;
        char order[64]; /* who ran, a letter each */
};

struct work {
        struct world *w;
        struct turn turn;
        uint64_t burn_us;
        char name;
};

static void work(void *arg)
{
        struct work *x = arg;
        size_t n = strlen(x->w->order);

        assert_true(n + 1 < sizeof x->w->order);
        x->w->order[n] = x->name;
        mono_us += x->burn_us;
        thread_us += x->burn_us;
}

static void take(struct world *w, struct work *x, const char *account, char name, uint64_t burn_us)
{
        *x = (struct work){ .w = w, .burn_us = burn_us, .name = name };
        turn_take(w->t, account, &x->turn, work, x);
}

static void run_loop(struct world *w)
{
        while (sd_event_run(w->loop, 0) > 0)
                ;
}

static int up(void **state)
{
        struct world *w = calloc(1, sizeof *w);

        mono_us = thread_us = 1000000;
        if (!w || sd_event_new(&w->loop) < 0 ||
            turns_new(w->loop, &(struct turn_clocks){ get_mono, get_thread }, &w->t, NULL) < 0)
                return -1;
        *state = w;
        return 0;
}

static int down(void **state)
{
        struct world *w = *state;

        w->t = turns_free(w->t);
        w->loop = sd_event_unref(w->loop);
        free(w);
        return 0;
}

static void test_who_takes_much_waits(void **state)
{
        struct world *w = *state;
        struct work x[5];

        take(w, &x[0], "a", 'A', DEAR_US); /* nobody knows before */
        take(w, &x[1], "a", 'a', 0);       /* cheap ones of his wait with the rest of his */
        take(w, &x[2], "b", 'b', 0);
        take(w, &x[3], "", 'n', 0);
        take(w, &x[4], "b", 'b', 0);
        assert_string_equal(w->order, "Abnb");
        run_loop(w);
        assert_string_equal(w->order, "Abnba");
        assert_int_equal(sd_event_run(w->loop, 0), 0); /* nothing turns for nobody */
}

static void test_who_has_taken_least_is_first(void **state)
{
        struct world *w = *state;
        struct work x[7];

        take(w, &x[0], "a", 'A', DEAR_US + 200000);
        take(w, &x[1], "b", 'B', DEAR_US);
        for (size_t i = 2; i < 5; i++)
                take(w, &x[i], "a", 'a', 0);
        take(w, &x[5], "b", 'b', DEAR_US + 500000);
        take(w, &x[6], "b", 'c', 0);
        assert_string_equal(w->order, "AB");
        run_loop(w);
        assert_string_equal(w->order, "ABbaaac");
}

static void test_time_pays(void **state)
{
        struct world *w = *state;
        struct work x;

        take(w, &x, "a", 'A', 100 * TURN_DEBT_US);
        mono_us += TURN_DEBT_US - TURN_AHEAD_US - 1;
        take(w, &x, "a", '1', 0);
        assert_string_equal(w->order, "A");
        turn_leave(&x.turn);
        mono_us++;
        take(w, &x, "a", '2', 0);
        assert_string_equal(w->order, "A2");
}

static void test_what_is_ordinary_is_not_counted(void **state)
{
        struct world *w = *state;
        struct work x;

        for (size_t i = 0; i < 60; i++) {
                take(w, &x, "a", 'a', TURN_FREE_US);
                mono_us = 1000000;
        }
        assert_int_equal(strlen(w->order), 60);
        assert_null(x.turn.account);
}

static void test_who_leaves(void **state)
{
        struct world *w = *state;
        struct work x[4];

        take(w, &x[0], "a", 'A', DEAR_US);
        for (size_t i = 1; i < 4; i++)
                take(w, &x[i], "a", (char) ('0' + i), 0);
        turn_leave(&x[3].turn);
        turn_leave(&x[3].turn);
        turn_leave(&x[1].turn);
        run_loop(w);
        assert_string_equal(w->order, "A2");
        take(w, &x[1], "a", '1', 0);
        turn_leave(&x[1].turn);
        take(w, &x[3], "a", '3', 0);
        run_loop(w);
        assert_string_equal(w->order, "A23");
        take(w, &x[1], "a", '1', 0); /* is still there at the end */
        turn_leave(&x[1].turn);
}

static void test_many_accounts(void **state)
{
        struct world *w = *state;
        struct work x, dear, waits;
        char name[16];

        take(w, &dear, "dear", 'D', DEAR_US);
        take(w, &waits, "dear", 'd', 0);
        for (int i = 0; i < 5000; i++) {
                (void) snprintf(name, sizeof name, "a%d", i);
                w->order[0] = '\0';
                take(w, &x, name, 'x', 0);
                assert_string_equal(w->order, "x");
        }
        run_loop(w);
        assert_string_equal(w->order, "xd");
        take(w, &waits, "dear", 'd', 0); /* what it owes is remembered */
        assert_string_equal(w->order, "xd");
        turn_leave(&waits.turn);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_who_takes_much_waits, up, down),
                cmocka_unit_test_setup_teardown(test_who_has_taken_least_is_first, up, down),
                cmocka_unit_test_setup_teardown(test_time_pays, up, down),
                cmocka_unit_test_setup_teardown(test_what_is_ordinary_is_not_counted, up, down),
                cmocka_unit_test_setup_teardown(test_who_leaves, up, down),
                cmocka_unit_test_setup_teardown(test_many_accounts, up, down),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
