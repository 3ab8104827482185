/* test_routes.c - src/edge/routes.c: the commands from one table to the next, and the whole of one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "edge/routes.h"

#define MAP "/m"

static void test_changes(void **state)
{
        static const uint32_t one[] = { 80 }, two[] = { 80, 81 }, other[] = { 82 };
        const struct {
                const char *cluster;
                struct routes_to to;
                const char *says;
                bool left;
                size_t names;
        } t[] = {
                { "a", { NULL, "", NULL, 0, NULL, NULL, NULL, NULL }, "", false, 0 },
                { "a",
                  { NULL, "=starting", one, 1, NULL, NULL, NULL, NULL },
                  "add map /m a-80.proxy.d =starting\n",
                  false,
                  1 },
                { "a", { NULL, "=starting", one, 1, NULL, NULL, NULL, NULL }, "", false, 1 },
                { "a",
                  { "10.0.0.1", "", one, 1, NULL, NULL, NULL, NULL },
                  "set map /m a-80.proxy.d 10.0.0.1:80\n",
                  false,
                  1 },
                { "a", { "10.0.0.1", "", one, 1, NULL, NULL, NULL, NULL }, "", false, 1 },
                { "a",
                  { "10.0.0.1", "", two, 2, NULL, NULL, NULL, NULL },
                  "add map /m a-81.proxy.d 10.0.0.1:81\n",
                  false,
                  2 },
                { "b",
                  { "10.0.0.2", "", other, 1, NULL, NULL, NULL, NULL },
                  "add map /m b-82.proxy.d 10.0.0.2:82\n",
                  false,
                  3 },
                { "a",
                  { "10.0.0.1", "", other, 1, NULL, NULL, NULL, NULL },
                  "del map /m a-80.proxy.d\ndel map /m a-81.proxy.d\nadd map /m a-82.proxy.d 10.0.0.1:82\n",
                  false,
                  2 },
                { "a",
                  { "10.0.0.3", "", other, 1, NULL, NULL, NULL, NULL },
                  "set map /m a-82.proxy.d 10.0.0.3:82\n",
                  true,
                  2 },
                { "a",
                  { NULL, "=stopping", other, 1, NULL, NULL, NULL, NULL },
                  "set map /m a-82.proxy.d =stopping\n",
                  true,
                  2 },
                { "a",
                  { NULL, "=stopped", other, 1, NULL, NULL, NULL, NULL },
                  "set map /m a-82.proxy.d =stopped\n",
                  false,
                  2 },
                { "a",
                  { NULL, "=pulling=1", two, 2, NULL, NULL, NULL, NULL },
                  "del map /m a-82.proxy.d\nadd map /m a-80.proxy.d =pulling=1\nadd map /m a-81.proxy.d =pulling=1\n",
                  false,
                  3 },
                { "a",
                  { NULL, "=pulling=2", two, 2, NULL, NULL, NULL, NULL },
                  "set map /m a-80.proxy.d =pulling=2\nset map /m a-81.proxy.d =pulling=2\n",
                  false,
                  3 },
                { "a",
                  { NULL, "", NULL, 0, NULL, NULL, NULL, NULL },
                  "del map /m a-80.proxy.d\ndel map /m a-81.proxy.d\n",
                  false,
                  1 },
                { "a", { NULL, "", NULL, 0, NULL, NULL, NULL, NULL }, "", false, 1 },
                { "b",
                  { NULL, "", NULL, 0, NULL, NULL, NULL, NULL },
                  "del map /m b-82.proxy.d\n",
                  true,
                  0 },
        };
        struct routes *r = routes_new(MAP, "d");

        (void) state;
        assert_non_null(r);
        for (size_t i = 0; i < NELEM(t); i++) {
                struct strbuf b = { 0 };
                bool left = !t[i].left;
                int lines = 0, n = routes_set(r, t[i].cluster, &t[i].to, &left, &b);

                for (const char *s = b.s; s && (s = strchr(s, '\n')); s++)
                        lines++;
                if (n != lines || strcmp(b.s ? b.s : "", t[i].says) != 0 || left != t[i].left ||
                    routes_count(r) != t[i].names)
                        fail_msg("row %zu: %d commands, %zu names, left %d: %s", i, n,
                                 routes_count(r), left, b.s);
                strbuf_done(&b);
        }
        (void) routes_free(r);
}

#define KEY "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

static void test_private(void **state)
{
        static const uint32_t ports[] = { 80, 81 };
        static const bool none[] = { false, false }, first[] = { true, false },
                          both[] = { true, true };
        static const struct {
                const char *account, *key;
                const bool *is_private;
                const char *says;
        } t[] = {
                { "acc", KEY, first,
                  "add map /m a-80.proxy.d 10.0.0.1:80:acc:" KEY "\n"
                  "add map /m a-81.proxy.d 10.0.0.1:81\n" },
                { "acc", KEY, first, "" },
                { "acc", KEY, both, "set map /m a-81.proxy.d 10.0.0.1:81:acc:" KEY "\n" },
                { "acc", KEY, none,
                  "set map /m a-80.proxy.d 10.0.0.1:80\nset map /m a-81.proxy.d 10.0.0.1:81\n" },
                { "acc", NULL, none, "" }, /* which nothing public hangs on */
                /* a private port that nobody could be let in at is none at all, and never a public one */
                { "acc", NULL, first, "del map /m a-80.proxy.d\n" },
                { NULL, KEY, first, "" },
                { "", KEY, first, "" },
                { "a c", KEY, first, "" },
                { "a;c", KEY, first, "" },
                { "acc", "A\nadd map", first, "" },
                { "acc", KEY, first, "add map /m a-80.proxy.d 10.0.0.1:80:acc:" KEY "\n" },
                { "other", KEY, first, "set map /m a-80.proxy.d 10.0.0.1:80:other:" KEY "\n" },
        };
        struct routes *r = routes_new(MAP, "d");
        struct strbuf b = { 0 };
        bool left = false;

        (void) state;
        assert_non_null(r);
        for (size_t i = 0; i < NELEM(t); i++) {
                const struct routes_to to = { "10.0.0.1",      "",           ports,    2,
                                              t[i].is_private, t[i].account, t[i].key, NULL };

                (void) routes_set(r, "a", &to, &left, &b);
                if (strcmp(b.s ? b.s : "", t[i].says) != 0)
                        fail_msg("row %zu: %s", i, b.s);
                strbuf_done(&b);
        }
        routes_file(r, &b);
        assert_string_equal(b.s, "a-80.proxy.d 10.0.0.1:80:other:" KEY "\n"
                                 "a-81.proxy.d 10.0.0.1:81\n");
        strbuf_done(&b);
        (void) routes_free(r);
}

/* Lines come before what needs them and go after it, and one that both lists have stays. */
static void test_allowed(void **state)
{
        static const uint32_t port = 80;
        static char eight[] = "10.0.0.0/8", nine[] = "10.0.0.0/9", one[] = "10.1.2.3", bad[] = "x";
        static char *const a[] = { eight, NULL }, *const b_[] = { nine, one, NULL },
                           *const c[] = { one, NULL }, *const wrong[] = { bad, NULL };
        static const struct {
                const char *address;
                char *const *list;
                const char *says;
        } t[] = {
                { "10.9.9.9", a,
                  "add map /m allow/a/40A =allow\nadd map /m a-80.proxy.d 10.9.9.9:80:*\n" },
                { "10.9.9.9", a, "" },
                { "10.9.9.9", b_,
                  "add map /m allow/a/40A0 =allow\nadd map /m allow/a/40A1 =allow\n"
                  "add map /m allow/a/40A2 =allow\nadd map /m allow/a/40A3 =allow\n"
                  "add map /m allow/a/40A4 =allow\nadd map /m allow/a/40A5 =allow\n"
                  "add map /m allow/a/40A6 =allow\nadd map /m allow/a/40A7 =allow\n"
                  "del map /m allow/a/40A\n" },
                { "10.9.9.9", NULL,
                  "set map /m a-80.proxy.d 10.9.9.9:80\n"
                  "del map /m allow/a/40A0\ndel map /m allow/a/40A1\n"
                  "del map /m allow/a/40A2\ndel map /m allow/a/40A3\n"
                  "del map /m allow/a/40A4\ndel map /m allow/a/40A5\n"
                  "del map /m allow/a/40A6\ndel map /m allow/a/40A7\n" },
                { "10.9.9.9", c,
                  "add map /m allow/a/40A010203 =allow\nset map /m a-80.proxy.d 10.9.9.9:80:*\n" },
                { NULL, c, "set map /m a-80.proxy.d =stopped\ndel map /m allow/a/40A010203\n" },
                { "10.9.9.9", wrong, "del map /m a-80.proxy.d\n" }, /* and never open to all */
                { "10.9.9.9", c,
                  "add map /m allow/a/40A010203 =allow\nadd map /m a-80.proxy.d 10.9.9.9:80:*\n" },
        };
        struct routes *r = routes_new(MAP, "d");
        struct strbuf b = { 0 };
        bool left = false;

        (void) state;
        assert_non_null(r);
        for (size_t i = 0; i < NELEM(t); i++) {
                const struct routes_to to = { t[i].address, "=stopped", &port, 1,
                                              NULL,         NULL,       NULL,  t[i].list };
                int n = routes_set(r, "a", &to, &left, &b);

                for (const char *s = b.s; s && (s = strchr(s, '\n')); s++)
                        n--;
                if (n != 0 || strcmp(b.s ? b.s : "", t[i].says) != 0)
                        fail_msg("row %zu: %s", i, b.s);
                strbuf_done(&b);
        }
        routes_file(r, &b);
        assert_string_equal(b.s, "a-80.proxy.d 10.9.9.9:80:*\nallow/a/40A010203 =allow\n");
        strbuf_done(&b);
        assert_int_equal(routes_fill(r, 3, &b), 2);
        assert_string_equal(b.s, "add map @3 /m <<\na-80.proxy.d 10.9.9.9:80:*\n"
                                 "allow/a/40A010203 =allow\n\ncommit map @3 /m\n");
        strbuf_done(&b);
        (void) routes_free(r);
}

/* A thousand clusters with ten ports: every name once, and no command longer than HAProxy can read. */
static void test_many(void **state)
{
        struct routes *r = routes_new(MAP, "tenants.example");
        struct strbuf b = { 0 };
        uint32_t ports[LIMIT_HTTP_PORTS];
        size_t n, begins = 0, names = 0, since = 0;
        char *save = NULL;

        (void) state;
        for (uint32_t i = 0; i < NELEM(ports); i++)
                ports[i] = 8000 + i;
        for (unsigned i = 0; i < 1000; i++) {
                char id[16], address[16];
                const struct routes_to to = { address, "",   ports, NELEM(ports),
                                              NULL,    NULL, NULL,  NULL };
                bool left = true;

                (void) snprintf(id, sizeof id, "c%u", i);
                (void) snprintf(address, sizeof address, "10.0.%u.%u", i / 250, i % 250);
                assert_int_equal(routes_set(r, id, &to, &left, &b), NELEM(ports));
                assert_false(left);
        }
        assert_int_equal(routes_count(r), 10000);
        strbuf_done(&b);
        routes_file(r, &b);
        for (char *line = strtok_r(b.s, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
                names++;
        assert_int_equal(names, 10000);
        strbuf_done(&b);
        n = routes_fill(r, 7, &b);
        names = 0;
        for (char *line = b.s, *end; (end = strchr(line, '\n')); line = end + 1) {
                *end = '\0';
                since += (size_t) (end - line) + 1;
                if (strcmp(line, "add map @7 /m <<") == 0) {
                        begins++;
                        since = 0;
                } else if (strstr(line, ".proxy.tenants.example 10.0.")) {
                        names++;
                }
                assert_true(since < 16000);
        }
        assert_int_equal(names, 10000);
        assert_int_equal(n, begins + 1);
        strbuf_done(&b);
        (void) routes_free(r);
}

/* Pages stand in the file and in a new version as routes do. */
static void test_pages(void **state)
{
        static const uint32_t port = 80;
        const struct routes_to to = { NULL, "=pulling=43", &port, 1, NULL, NULL, NULL, NULL };
        struct routes *r = routes_new(MAP, "d");
        struct strbuf b = { 0 };
        bool left;

        (void) state;
        assert_int_equal(routes_set(r, "a", &to, &left, &b), 1);
        strbuf_done(&b);
        routes_file(r, &b);
        assert_string_equal(b.s, "a-80.proxy.d =pulling=43\n");
        strbuf_done(&b);
        assert_int_equal(routes_fill(r, 3, &b), 2);
        assert_string_equal(b.s,
                            "add map @3 /m <<\na-80.proxy.d =pulling=43\n\ncommit map @3 /m\n");
        strbuf_done(&b);
        (void) routes_free(r);
}

static void test_none(void **state)
{
        struct routes *r = routes_new(MAP, "d");
        struct strbuf b = { 0 };

        (void) state;
        assert_int_equal(routes_fill(r, 3, &b), 1);
        assert_string_equal(b.s, "commit map @3 /m\n");
        strbuf_done(&b);
        (void) routes_free(r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_changes), cmocka_unit_test(test_private),
                cmocka_unit_test(test_allowed), cmocka_unit_test(test_many),
                cmocka_unit_test(test_pages),   cmocka_unit_test(test_none),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
