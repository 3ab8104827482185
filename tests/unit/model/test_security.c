/* test_security.c - names of security profiles. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "model/security.h"

static void test_names_round_trip(void **state)
{
        (void) state;
        for (int i = SECURITY_STANDARD; i < SECURITY_PROFILE_COUNT; i++) {
                enum security_profile p = SECURITY_NONE;

                assert_int_equal(
                        security_profile_parse("f", security_profile_names[i], &p, NULL), 0);
                assert_int_equal(p, i);
        }
}

static void test_what_is_no_profile(void **state)
{
        static const char *const bad[] = { "none", "Strict", "strict ", "unconfined" };
        enum security_profile p = SECURITY_NONE;
        struct err e = { 0 };

        (void) state;
        assert_int_equal(security_profile_parse("f", NULL, &p, NULL), 0);
        assert_int_equal(p, SECURITY_STANDARD);
        for (size_t i = 0; i < NELEM(bad); i++) {
                p = SECURITY_COMPAT; /* failure must not write */
                assert_int_equal(security_profile_parse("securityProfile", bad[i], &p, &e),
                                 -EINVAL);
                assert_int_equal(p, SECURITY_COMPAT);
                assert_non_null(strstr(e.msg, "securityProfile: '"));
                assert_non_null(strstr(e.msg, "standard, strict, compat"));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_names_round_trip),
                cmocka_unit_test(test_what_is_no_profile),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
