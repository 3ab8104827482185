/* test_map.c - order, growth, replacing and removing, against a plain array. */
#include "base/map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

static void test_order(void **state)
{
        AUTO(map_free) struct map *m = map_new();
        char key[16], want[16];
        size_t n = 0;

        (void) state;
        assert_non_null(m);
        for (uintptr_t i = 1; i <= 1000; i++) {
                (void) snprintf(key, sizeof key, "k%zu", (size_t) i);
                assert_int_equal(map_set(m, key, (void *) i), 0);
        }
        assert_int_equal(map_len(m), 1000);
        assert_ptr_equal(map_get(m, "k500"), (void *) 500);
        assert_null(map_get(m, "k0"));
        assert_null(map_get(m, NULL));
        for (struct map_entry *e = map_first(m), *next; e; e = next) {
                next = map_next(e);
                (void) snprintf(want, sizeof want, "k%zu", ++n);
                assert_string_equal(map_key(e), want);
                assert_ptr_equal(map_value(e), (void *) n);
                if (n % 2)
                        assert_ptr_equal(map_del(m, want), (void *) n);
        }
        assert_int_equal(n, 1000);
        assert_int_equal(map_len(m), 500);
        assert_null(map_get(m, "k1"));
        assert_null(map_del(m, "k1"));
        assert_string_equal(map_key(map_first(m)), "k2");
}

static void test_replace(void **state)
{
        AUTO(map_free) struct map *m = map_new();

        (void) state;
        assert_int_equal(map_set(m, "a", (void *) 1), 0);
        assert_int_equal(map_set(m, "b", (void *) 2), 0);
        assert_int_equal(map_set(m, "a", (void *) 3), 0);
        assert_int_equal(map_len(m), 2);
        assert_ptr_equal(map_value(map_first(m)), (void *) 3);
        assert_ptr_equal(map_del(m, "a"), (void *) 3);
        assert_ptr_equal(map_del(m, "b"), (void *) 2);
        assert_null(map_first(m));
        assert_int_equal(map_set(m, "", (void *) 4), 0);
        assert_ptr_equal(map_get(m, ""), (void *) 4);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_order),
                cmocka_unit_test(test_replace),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
