/* test_conf.c - configuration files: every kind, its limits, and where a message points. */
#include "base/conf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"

struct values {
        char *text;
        uint32_t number;
        bool flag;
        uint64_t us, bytes;
        double factor, price;
};

#define V(k) .off = offsetof(struct values, k)
static const struct conf_option options[] = {
        { "a", "text", CONF_STR, V(text), "preset", 0, 0, NULL, "h" },
        { "a", "number", CONF_U32, V(number), "4", 2, 256, NULL, "h" },
        { "a", "flag", CONF_BOOL, V(flag), "no", 0, 0, NULL, "h" },
        { "b", "time", CONF_DURATION, V(us), "10s", 0, 60000000, NULL, "h" },
        { "b", "size", CONF_BYTES, V(bytes), "1M", 1 << 20, 0, NULL, "h" },
        { "b", "factor", CONF_FACTOR, V(factor), "1", 0, 0, NULL, "h" },
        { "b", "price", CONF_PRICE, V(price), "0", 0, 0, NULL, "h" },
};

static char seen[256];

static int labelled(void *arg, const char *section, const char *label, const char *key,
                    const char *value, struct err *e)
{
        size_t n = strlen(seen);

        (void) arg;
        if (str_eq(key, "bad"))
                return err_set(e, -EINVAL, "no %s", key);
        (void) snprintf(seen + n, sizeof seen - n, "%s|%s|%s|%s;", section, label, key ? key : "",
                        value ? value : "");
        return 0;
}

static int load_bytes(const char *text, size_t len, struct values *v, struct err *e)
{
        char path[] = "/tmp/test_conf-XXXXXX";
        int fd = mkstemp(path), r;

        assert_true(fd >= 0);
        assert_int_equal(fd_write_full(fd, text, len), 0);
        (void) close(fd);
        seen[0] = '\0';
        r = conf_load(path, options, NELEM(options), v, labelled, NULL, e);
        (void) unlink(path);
        return r;
}

static int load(const char *text, struct values *v, struct err *e)
{
        return load_bytes(text, strlen(text), v, e);
}

static void test_nul(void **state)
{
        static const struct {
                const char *text;
                size_t len;
                const char *says;
        } t[] = {
#define T(s) s, sizeof s - 1
                { T("[a]\nnumber = 5\n\0\n"), ":3: a NUL byte: this is no text file" },
                { T("[a]\nnumber = 5\0 = 7\n"), ":2: a NUL byte" },
                { T("\0"), ":1: a NUL byte" },
                { T("# \0 in a comment\n[a]\nflag = maybe\n"), ":1: a NUL byte" },
                { T("[a]\nflag = maybe\n\0"), ":2: [a] flag = maybe" }, /* the first one */
                { T("[a]\nnumber = 5\n[registry \"x\"]\0"), ":3: a NUL byte" },
#undef T
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct values v = { 0 };
                struct err e = { 0 };
                int r = load_bytes(t[i].text, t[i].len, &v, &e);

                if (r != -EINVAL || !strstr(e.msg, t[i].says))
                        fail_msg("row %zu: %d %s", i, r, e.msg);
                conf_done(options, NELEM(options), &v);
        }
}

static void test_defaults(void **state)
{
        struct values v = { 0 };

        (void) state;
        assert_int_equal(conf_load(NULL, options, NELEM(options), &v, NULL, NULL, NULL), 0);
        assert_string_equal(v.text, "preset");
        assert_int_equal(v.number, 4);
        assert_false(v.flag);
        assert_int_equal(v.us, 10000000);
        assert_int_equal(v.bytes, 1 << 20);
        assert_true(v.factor >= 1.0 && v.factor <= 1.0);
        conf_done(options, NELEM(options), &v);
        assert_null(v.text);
        conf_done(options, NELEM(options), &v);
}

static void test_values(void **state)
{
        struct values v = { 0 };
        struct err e = { 0 };

        (void) state;
        if (load("# a comment\n; another\n[a]\ntext = two words\nnumber=256\nflag = yes\n\n[b]\n"
                 "time = 500ms\nsize = 20G\nfactor = 2.5\nprice = 1.19\n[a]\nflag = off\n"
                 "[registry \"127.0.0.1:5000\"]\ninsecure = yes\n[registry   \"x\"]\nu =\n"
                 "[registry \"bare\"] # no key at all\n",
                 &v, &e) < 0)
                fail_msg("%s", e.msg);
        assert_string_equal(v.text, "two words");
        assert_int_equal(v.number, 256);
        assert_false(v.flag);
        assert_int_equal(v.us, 500000);
        assert_int_equal(v.bytes, 20ULL << 30);
        assert_true(v.factor > 2.4 && v.factor < 2.6);
        assert_string_equal(seen, "registry|127.0.0.1:5000||;registry|127.0.0.1:5000|insecure|yes;"
                                  "registry|x||;registry|x|u|;registry|bare||;");
        conf_done(options, NELEM(options), &v);
}

static void test_refusals(void **state)
{
        static const struct {
                const char *text, *says;
        } t[] = {
                { "[a]\nnumber = 1\n",
                  ":2: [a] number = 1: must be a whole number within its limits, 2 to 256" },
                { "[a]\nnumber = 257\n", "within its limits" },
                { "[a]\nnumber = x\n", ":2: [a] number = x: must be a whole number" },
                { "[a]\nnumber = -4\n", "must be a whole number" },
                { "[a]\nflag = maybe\n", "must be yes or no" },
                { "[b]\ntime = 61s\n", "within its limits" },
                { "[b]\ntime = soon\n", "must be a time such as" },
                { "[b]\nsize = 1K\n", "within its limits" },
                { "[b]\nfactor = 0.5\n", "must be a factor from 1 to 1000" },
                { "[b]\nfactor = nan\n", "must be a factor" },
                { "\n\n[a]\nflags = yes\n", ":4: [a] flags: there is no such option" },
                { "[c]\nflag = yes\n", "[c] flag: there is no such option" },
                { "flag = yes\n", "[] flag: there is no such option" },
                { "[a]\nwhat\n", ":2: not 'key = value' and not '[section]'" },
                { "[x \"l\"]\nbad = 1\n", ":2: no bad" },
                { "[a]\nflag = maybe\nnumber = 1\n", "flag = maybe" }, /* the first one */
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct values v = { 0 };
                struct err e = { 0 };
                int r = load(t[i].text, &v, &e);

                if (r >= 0 || !strstr(e.msg, t[i].says))
                        fail_msg("row %zu: %d %s", i, r, e.msg);
                conf_done(options, NELEM(options), &v);
        }
}

static void test_no_file(void **state)
{
        struct values v = { 0 };
        struct err e = { 0 };

        (void) state;
        assert_int_equal(
                conf_load("/nonexistent/conf", options, NELEM(options), &v, NULL, NULL, &e),
                -ENOENT);
        assert_non_null(strstr(e.msg, "/nonexistent/conf: No such file"));
        conf_done(options, NELEM(options), &v);
        assert_int_equal(conf_load("/tmp", options, NELEM(options), &v, NULL, NULL, &e), -EISDIR);
        assert_non_null(strstr(e.msg, "configuration file /tmp: Is a directory"));
        conf_done(options, NELEM(options), &v);
}

static void test_set(void **state)
{
        struct values v = { 0 };
        struct err e = { 0 };

        (void) state;
        assert_int_equal(conf_set(options, NELEM(options), "x \"l\"", "number", "7", &v, &e), 0);
        assert_int_equal(v.number, 7);
        assert_int_equal(conf_set(options, NELEM(options), "x \"l\"", "number", "1", &v, &e),
                         -ERANGE);
        assert_non_null(strstr(e.msg, "[x \"l\"] number = 1: must be a whole number"));
        assert_int_equal(v.number, 7);
        assert_int_equal(conf_set(options, NELEM(options), "x", "nope", "1", &v, &e), -EINVAL);
        assert_string_equal(e.msg, "[x] nope: there is no such option");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_defaults), cmocka_unit_test(test_values),
                cmocka_unit_test(test_refusals), cmocka_unit_test(test_no_file),
                cmocka_unit_test(test_set),      cmocka_unit_test(test_nul),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
