/* test_err.c - messages that grow outwards, are cut, and carry no control characters. */
#include "base/err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

static void test_set_and_wrap(void **state)
{
        struct err e = { 0 };

        (void) state;
        assert_int_equal(err_errno(&e, -ENOENT, "open %s", "/x"), -ENOENT);
        assert_string_equal(e.msg, "open /x: No such file or directory");
        assert_int_equal(err_wrap(&e, -ENODATA, "machine %d", 7), -ENODATA);
        assert_string_equal(e.msg, "machine 7: open /x: No such file or directory");
        assert_int_equal(e.code, -ENODATA);
        assert_int_equal(err_set(&e, -EINVAL, "new"), -EINVAL);
        assert_string_equal(e.msg, "new");
}

static void test_nobody_asks(void **state)
{
        const struct err from = { -EIO, "x" };
        struct err to = { 0 };

        (void) state;
        assert_int_equal(err_set(NULL, -EINVAL, "%s", "x"), -EINVAL);
        assert_int_equal(err_errno(NULL, -EIO, "x"), -EIO);
        assert_int_equal(err_wrap(NULL, -EPERM, "x"), -EPERM);
        assert_int_equal(err_copy(NULL, &from), -EIO);
        assert_int_equal(err_copy(&to, &from), -EIO);
        assert_string_equal(to.msg, "x");
}

/* A stranger's bytes may be in any message: one line, whatever they are. */
static void test_control_characters(void **state)
{
        struct err e = { 0 };

        (void) state;
        (void) err_set(&e, -EINVAL, "%s", "a\nb\033[31mc\x7f\xc3\xa9");
        assert_string_equal(e.msg, "a b [31mc \xc3\xa9");
        (void) err_wrap(&e, -EINVAL, "x\ry");
        assert_string_equal(e.msg, "x y: a b [31mc \xc3\xa9");
        (void) err_set(&e, -EINVAL, "%s",
                       "\xc2\x9b"
                       "31m\xc2\xa0\xc2\x80\xc2"); /* the same, in two bytes */
        assert_string_equal(e.msg, "  31m\xc2\xa0  \xc2");
}

static void test_too_long(void **state)
{
        struct err e = { 0 };
        char text[2 * sizeof e.msg];

        (void) state;
        memset(text, 'x', sizeof text - 1);
        text[sizeof text - 1] = '\0';
        (void) err_set(&e, -EINVAL, "%s", text);
        assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
        (void) err_wrap(&e, -EINVAL, "outer");
        assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
        assert_memory_equal(e.msg, "outer: xxx", 10);
        (void) err_wrap(&e, -EINVAL, "%s", text);
        assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_set_and_wrap),
                cmocka_unit_test(test_nobody_asks),
                cmocka_unit_test(test_control_characters),
                cmocka_unit_test(test_too_long),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
