/* Who a program runs as, from files that a tenant wrote. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/str.h"
#include "engine/sandbox/sandbox_priv.h"

static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\n"
                             "# a comment: x:y\n"
                             "short:x:7\n"
                             ":x:8:8::/:\n"
                             "huge:x:99999999999:1::/:\n"
                             "minus:x:-1:1::/:\n"
                             "user:x:1000:1001:A User:/home/user:/bin/sh\n"
                             "1234:x:77:78::/num:/bin/sh\n"
                             "rel:x:1002:1002::home:/bin/sh\n"
                             "user:x:1999:1999::/second:/bin/sh\n"
                             "last:x:1003:1003::/last:/bin/sh";
static const char group[] = "root:x:0:\n"
                            "wheel:x:10:root,user\n"
                            "broken:x:abc:user\n"
                            "users:x:1001:\n"
                            "near:x:11:username,use\n"
                            "extra:x:2000:other,user";

static void test_who(void **state)
{
        static const struct {
                const char *spec;
                int r;
                uint32_t uid, gid;
                size_t n;
                uint32_t first;
                const char *home;
        } t[] = {
                { NULL, 0, 0, 0, 1, 10, "/root" },
                { "", 0, 0, 0, 1, 10, "/root" },
                { "root", 0, 0, 0, 1, 10, "/root" },
                { "user", 0, 1000, 1001, 2, 10, "/home/user" },
                { "1000", 0, 1000, 1001, 2, 10, "/home/user" },
                { "user:wheel", 0, 1000, 10, 0, 0, "/home/user" },
                { "user:5", 0, 1000, 5, 0, 0, "/home/user" },
                { "user:", 0, 1000, 1001, 2, 10, "/home/user" },
                { "4711", 0, 4711, 0, 0, 0, "/" },
                { "4711:4712", 0, 4711, 4712, 0, 0, "/" },
                { "65535:65535", 0, 65535, 65535, 0, 0, "/" },
                { "1234", 0, 77, 78, 0, 0, "/num" }, /* a name goes before a number */
                { "rel", 0, 1002, 1002, 0, 0, "/" },
                { "last", 0, 1003, 1003, 0, 0, "/last" },
                { "65536", -ERANGE, 0, 0, 0, 0, NULL },
                { "99999999999999999999", -ERANGE, 0, 0, 0, 0, NULL },
                { "user:70000", -ERANGE, 0, 0, 0, 0, NULL },
                { "user:nogroup", -ENOENT, 0, 0, 0, 0, NULL },
                { "user:broken", -ENOENT, 0, 0, 0, 0, NULL },
                { "nobody", -ENOENT, 0, 0, 0, 0, NULL },
                { "short", -ENOENT, 0, 0, 0, 0, NULL },
                { "huge", -ENOENT, 0, 0, 0, 0, NULL },
                { "minus", -ENOENT, 0, 0, 0, 0, NULL },
                { "-1", -ENOENT, 0, 0, 0, 0, NULL },
                { "us", -ENOENT, 0, 0, 0, 0, NULL },
                { ":wheel", -EINVAL, 0, 0, 0, 0, NULL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct user u = { .uid = 7777 };
                struct err e = { .msg = "" };
                int r = user_parse(passwd, group, t[i].spec, &u, &e);

                if (r != t[i].r)
                        fail_msg("row %zu '%s': %d (%s)", i, t[i].spec, r, e.msg);
                if (r < 0) {
                        assert_int_equal(u.uid, 7777);
                        assert_string_not_equal(e.msg, "");
                        continue;
                }
                if (u.uid != t[i].uid || u.gid != t[i].gid || u.n_groups != t[i].n ||
                    (t[i].n && u.groups[0] != t[i].first) || strcmp(u.home, t[i].home) != 0)
                        fail_msg("row %zu '%s': %u:%u, %zu groups, %s", i, t[i].spec, u.uid, u.gid,
                                 u.n_groups, u.home);
        }
}

static void test_without_files(void **state)
{
        struct user u;

        (void) state;
        assert_int_equal(user_parse(NULL, NULL, NULL, &u, NULL), 0);
        assert_true(u.uid == 0 && u.gid == 0 && u.n_groups == 0);
        assert_string_equal(u.home, "/root");
        assert_int_equal(user_parse(NULL, NULL, "12:13", &u, NULL), 0);
        assert_true(u.uid == 12 && u.gid == 13);
        assert_int_equal(user_parse(NULL, NULL, "root", &u, NULL), -ENOENT);
        assert_int_equal(user_parse("", "", "1", &u, NULL), 0);
}

static void test_too_many_groups(void **state)
{
        struct strbuf b = { 0 };
        AUTO(free) char *text = NULL;
        struct user u;

        (void) state;
        for (unsigned i = 0; i < USER_GROUPS_MAX + 1; i++)
                strbuf_fmt(&b, "g%u:x:%u:user\n", i, i);
        text = strbuf_take(&b);
        assert_non_null(text);
        assert_int_equal(user_parse(passwd, text, "user", &u, NULL), -E2BIG);
        assert_int_equal(user_parse(passwd, text, "user:g5", &u, NULL), 0);
        assert_int_equal(u.gid, 5);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_who),
                cmocka_unit_test(test_without_files),
                cmocka_unit_test(test_too_many_groups),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
