/* What is told of refused devices: each once an hour, every refusal in exactly one sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "engine/fleet/refused.h"

#define HOUR REFUSED_EVERY_US

static char said[4096];

static void tell(void *arg, const char *sentence)
{
        size_t len = strlen(said);

        (void) arg;
        (void) snprintf(said + len, sizeof said - len, "%s|", sentence);
}

static const char *look(struct refused *s, const struct slice_refusals *now, uint64_t at)
{
        said[0] = '\0';
        refused_look(s, now, at, tell, NULL);
        return said;
}

static struct slice_refusals one(uint64_t program, char type, uint32_t minor, uint64_t count)
{
        return (struct slice_refusals){ .program = program,
                                        .dev = { { type, 10, minor, count } },
                                        .n = 1 };
}

#define TOLD(type, minor, times)                                                                   \
        type " device 10:" minor " refused, " times ": no device of this cluster's|"

static void test_once_an_hour(void **state)
{
        AUTO(refused_free) struct refused *s = refused_new(NULL);
        struct slice_refusals now = { .program = 7 };

        (void) state;
        assert_string_equal(look(s, &now, 1), "");
        now = one(7, 'c', 232, 1);
        assert_string_equal(look(s, &now, 5), TOLD("character", "232", "1 time"));
        assert_string_equal(look(s, &now, 6), "");
        now = one(7, 'c', 232, 4);
        assert_string_equal(look(s, &now, 7), "");
        now = one(7, 'c', 232, 9);
        assert_string_equal(look(s, &now, HOUR + 4), "");
        /* what waited is told when the hour is over, also without another */
        assert_string_equal(look(s, &now, HOUR + 5), TOLD("character", "232", "8 times"));
        assert_string_equal(look(s, &now, 3 * HOUR), "");
        /* the same numbers of another type are another device */
        now.dev[now.n++] = (struct slice_refused){ 'b', 10, 232, 2 };
        assert_string_equal(look(s, &now, 3 * HOUR), TOLD("block", "232", "2 times"));
}

static void test_another_program_counts_anew(void **state)
{
        AUTO(refused_free) struct refused *s = refused_new(NULL);
        struct slice_refusals now = one(1, 'c', 5, 3);

        (void) state;
        now.others = 2;
        assert_string_equal(
                look(s, &now, 1),
                TOLD("character", "5",
                     "3 times") "other devices refused, 2 times: no device of this cluster's|");
        now = one(2, 'c', 5, 4); /* 4 more, not 1 */
        now.others = 3;
        assert_string_equal(
                look(s, &now, HOUR + 1),
                TOLD("character", "5",
                     "4 times") "other devices refused, 3 times: no device of this cluster's|");
}

/* What was there when the engine found it is not told again; what comes after is. */
static void test_found_running(void **state)
{
        struct slice_refusals now = one(1, 'c', 5, 3);
        AUTO(refused_free) struct refused *s = refused_new(&now);

        (void) state;
        assert_string_equal(look(s, &now, 1), "");
        now.dev[0].count = 5;
        assert_string_equal(look(s, &now, 2), TOLD("character", "5", "2 times"));
}

/* More devices than there are places: none is forgotten, and what waits is not lost to another. */
static void test_many_devices(void **state)
{
        AUTO(refused_free) struct refused *s = refused_new(NULL);
        uint64_t told = 0, program = 0, t = 1;

        (void) state;
        for (uint32_t minor = 0; minor < 40; minor++)
                for (uint64_t count = 1; count <= 2; count++) { /* the second one waits */
                        struct slice_refusals now = one(program, 'c', minor, count);

                        program += count == 2;
                        (void) look(s, &now, t++);
                        for (const char *p = said; (p = strstr(p, "refused, ")); p++)
                                told += strtoull(p + strlen("refused, "), NULL, 10);
                }
        assert_true(told < 80);
        struct slice_refusals none = { .program = program };

        (void) look(s, &none, t + HOUR);
        for (const char *p = said; (p = strstr(p, "refused, ")); p++)
                told += strtoull(p + strlen("refused, "), NULL, 10);
        assert_int_equal(told, 80);
        /* and places are given again: an hour later each is free */
        none = one(program + 1, 'c', 99, 1);
        assert_string_equal(look(s, &none, t + 3 * HOUR), TOLD("character", "99", "1 time"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_once_an_hour),
                cmocka_unit_test(test_another_program_counts_anew),
                cmocka_unit_test(test_found_running),
                cmocka_unit_test(test_many_devices),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
