/* test_tarpath.c - names in a tar. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>

#include "base/str.h"
#include "fetch/tarpath.h"
#include "store/layer_index.h"
#include "model/limits.h"

static void test_clean(void **state)
{
        static const struct {
                const char *in;
                int r;
                const char *out;
        } t[] = {
                { "a", 0, "a" },
                { "a/b", 0, "a/b" },
                { "./a", 0, "a" },
                { "./", 0, "" },
                { ".", 0, "" },
                { "/", 0, "" },
                { "//a///b//", 0, "a/b" },
                { "a/./b/.", 0, "a/b" },
                { "/etc/passwd", 0, "etc/passwd" },
                { "...", 0, "..." },
                { "..a/b..", 0, "..a/b.." },
                { "a b\n", 0, "a b\n" },
                { "\xff\xfe", 0, "\xff\xfe" },
                { "", -EINVAL, NULL },
                { "..", -EINVAL, NULL },
                { "a/..", -EINVAL, NULL },
                { "../a", -EINVAL, NULL },
                { "a/../../b", -EINVAL, NULL },
                { "/..", -EINVAL, NULL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                char buf[PATH_MAX] = "canary";
                int r = tarpath_clean(t[i].in, buf, NULL);

                if (r != t[i].r || (r >= 0 && !str_eq(buf, t[i].out)))
                        fail_msg("row %zu '%s': r=%d '%s'", i, t[i].in, r, buf);
        }
}

static void repeat(char *buf, const char *what, size_t n)
{
        buf[0] = '\0';
        for (size_t i = 0, len = strlen(what); i < n; i++)
                memcpy(buf + i * len, what, len + 1);
}

static void test_lengths(void **state)
{
        static char in[16384], out[PATH_MAX];

        (void) state;
        repeat(in, "n", NAME_MAX);
        assert_int_equal(tarpath_clean(in, out, NULL), 0);
        repeat(in, "n", NAME_MAX + 1);
        assert_int_equal(tarpath_clean(in, out, NULL), -ENAMETOOLONG);
        repeat(in, "d/", LIMIT_LAYER_DEPTH);
        assert_int_equal(tarpath_clean(in, out, NULL), 0);
        repeat(in, "d/", LIMIT_LAYER_DEPTH + 1);
        assert_int_equal(tarpath_clean(in, out, NULL), -ENAMETOOLONG);
        repeat(in, "./", 5000);
        assert_int_equal(tarpath_clean(in, out, NULL), 0);
        repeat(in, "0123456789012345678901234567890/", 127); /* 127 * 32 - 1 = 4,063 */
        assert_int_equal(tarpath_clean(in, out, NULL), 0);
        assert_int_equal(strlen(out), 4063);
        repeat(in, "0123456789012345678901234567890/", 128); /* 4,095: the longest */
        assert_int_equal(tarpath_clean(in, out, NULL), 0);
        assert_int_equal(strlen(out), PATH_MAX - 1);
        repeat(in, "0123456789012345678901234567890/", 129);
        assert_int_equal(tarpath_clean(in, out, NULL), -ENAMETOOLONG);
}

static void test_mark(void **state)
{
        static const struct {
                const char *in;
                int r;
                enum tarpath_mark mark;
                const char *out;
        } t[] = {
                { "", 0, TARPATH_PLAIN, "" },
                { "a", 0, TARPATH_PLAIN, "a" },
                { ".wh.a", 0, TARPATH_WHITEOUT, "a" },
                { "d/.wh.a", 0, TARPATH_WHITEOUT, "d/a" },
                { "d/.wh..hidden", 0, TARPATH_WHITEOUT, "d/.hidden" },
                { ".wh..wh..opq", 0, TARPATH_OPAQUE, "" },
                { "d/e/.wh..wh..opq", 0, TARPATH_OPAQUE, "d/e" },
                { ".wh..wh.plnk", 0, TARPATH_SKIP, NULL },
                { ".wh..wh.plnk/x", 0, TARPATH_SKIP, NULL },
                { "d/.wh..wh.orph/y", 0, TARPATH_SKIP, NULL },
                { "d/.wh..wh..opq/y", 0, TARPATH_SKIP, NULL },
                { "x.wh.a", 0, TARPATH_PLAIN, "x.wh.a" },
                { ".wha", 0, TARPATH_PLAIN, ".wha" },
                { ".wh.", -EINVAL, TARPATH_PLAIN, NULL },
                { "d/.wh.", -EINVAL, TARPATH_PLAIN, NULL },
                { ".wh..", -EINVAL, TARPATH_PLAIN, NULL },
                { ".wh...", -EINVAL, TARPATH_PLAIN, NULL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                enum tarpath_mark mark = TARPATH_PLAIN;
                char path[PATH_MAX];
                int r;

                (void) snprintf(path, sizeof path, "%s", t[i].in);
                r = tarpath_mark(path, &mark, NULL);
                if (r != t[i].r ||
                    (r >= 0 && (mark != t[i].mark || (t[i].out && !str_eq(path, t[i].out)))))
                        fail_msg("row %zu '%s': r=%d mark=%d '%s'", i, t[i].in, r, (int) mark,
                                 path);
        }
}

static void test_xattrs(void **state)
{
        static const struct {
                const char *name;
                bool yes;
        } t[] = {
                { "user.x", true },
                { "user.overlayish", true },
                { "security.capability", true },
                { "user.overlay.opaque", false },
                { "trusted.overlay.opaque", false },
                { "trusted.x", false },
                { "security.selinux", false },
                { "security.ima", false },
                { "system.posix_acl_access", false },
                { "", false },
                { "user", false },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++)
                if (layer_xattr_allowed(t[i].name, strlen(t[i].name)) != t[i].yes)
                        fail_msg("%s", t[i].name);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_clean),
                cmocka_unit_test(test_lengths),
                cmocka_unit_test(test_mark),
                cmocka_unit_test(test_xattrs),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
