/* test_merge.c - layers over each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "scripted.h"
#include "store/merge.h"

#define LAYERS 8

/* Open the layers of "bottom | next | top". */
static size_t open_all(const char *text, struct scripted *s, struct layer_index *x)
{
        AUTO(free) char *copy = strdup(text);
        char *rest = copy, *part;
        size_t n = 0;

        while ((part = strsep(&rest, "|"))) {
                assert_int_equal(script_index(part, &s[n], NULL), 0);
                assert_int_equal(layer_index_open(s[n].p, s[n].len, &x[n], NULL), 0);
                n++;
        }
        return n;
}

/* Every node as letter, link count where it says something, the layer of its attributes, path. */
static char *listing(const struct merge *m)
{
        static const char letters[] = "-dfolpshw";
        struct strbuf b = { 0 };

        for (uint32_t i = 0; i < m->n_nodes; i++) {
                const struct merge_node *n = merge_node(m, i), *first = merge_node(m, n->inode);
                uint32_t up[LAYER_DEPTH_MAX + 1];
                unsigned depth = 0;

                strbuf_fmt(&b, "%s%c", i ? " " : "", letters[n->type]);
                if (n->type != LAYER_DIR && first->links > 1)
                        strbuf_fmt(&b, "#%u", first->links);
                strbuf_fmt(&b, "%u", n->layer);
                for (uint32_t k = i; k != 0; k = merge_node(m, k)->parent)
                        up[depth++] = k;
                if (i == 0)
                        strbuf_char(&b, '.');
                while (depth-- > 0) {
                        const char *name;
                        size_t len;

                        merge_name(m, merge_node(m, up[depth]), &name, &len);
                        strbuf_char(&b, '/');
                        strbuf_add(&b, name, len);
                }
                assert_true(n->next > i && n->next <= m->n_nodes);
        }
        return strbuf_take(&b);
}

static void test_rules(void **state)
{
        static const struct {
                const char *in, *out;
        } t[] = {
                { "d. fa", "d0. f0/a" },
                { "d. fa | fb", "d0. f0/a f1/b" },
                { "d. fa | d. fb", "d1. f0/a f1/b" },
                { "fa | fa", "d1. f1/a" },
                { "da fa/x | da fa/y", "d1. d1/a f0/a/x f1/a/y" },
                { "da fa/x | fa/y", "d1. d0/a f0/a/x f1/a/y" },
                { "da | fa/x | fa/y", "d2. d0/a f1/a/x f2/a/y" },
                { "da fa/x | wa", "d1." },
                { "da fa/x | wa | fa/y", "d2. d2/a f2/a/y" },
                { "da fa/x | wa da", "d1. d1/a" },
                { "da fa/x fa/y | wa/x", "d1. d0/a f0/a/y" },
                { "da fa/x | qa fa/y", "d1. d1/a f1/a/y" },
                { "fa fb | q. fc", "d1. f1/c" },
                { "da fa/x | fa", "d1. f1/a" },
                { "da fa/x | fa | fa/y", "d2. d2/a f2/a/y" },
                { "fa | da fa/y", "d1. d1/a f1/a/y" },
                { "fa | wa | wa", "d2." },
                { "| wa", "d1." },
                { "da fa/x | la | da", "d2. d2/a" },
                { "fa-b fa/c | fa/d fa", "d1. f1/a f0/a-b" },
                /* links: only the names that are left count */
                { "fa hb>a", "d0. f#20/a f#20/b" },
                { "fa hb>a | wa", "d1. f0/b" },
                { "fa hb>a hc>a | wa", "d1. f#20/b f#20/c" },
                { "fa hb>a hc>a | fb", "d1. f#20/a f1/b f#20/c" },
                { "fa hz/b>a | wa | fa", "d2. f2/a d0/z f0/z/b" },
                { "fz ha>z hb>z | fb hc>b", "d1. f#20/a f#21/b f#21/c f#20/z" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct scripted s[LAYERS] = { 0 };
                struct layer_index x[LAYERS];
                size_t n = open_all(t[i].in, s, x);
                AUTO(merge_done) struct merge m = { 0 };
                AUTO(free) char *got = NULL;
                struct err e = { 0 };

                if (merge_layers(x, n, -EBADF, &m, &e) < 0)
                        fail_msg("'%s': %s", t[i].in, e.msg);
                got = listing(&m);
                if (!str_eq(got, t[i].out))
                        fail_msg("'%s'\n  got  '%s'\n  want '%s'", t[i].in, got, t[i].out);
                for (size_t k = 0; k < n; k++)
                        free(s[k].p);
        }
}

static void test_limits(void **state)
{
        static struct layer_index x[MERGE_LAYERS_MAX + 1];
        AUTO(merge_done) struct merge m = { 0 };
        struct scripted s = { 0 };

        (void) state;
        assert_int_equal(script_index("da fa/b", &s, NULL), 0);
        for (size_t i = 0; i < NELEM(x); i++)
                assert_int_equal(layer_index_open(s.p, s.len, &x[i], NULL), 0);
        assert_int_equal(merge_layers(x, 0, -EBADF, &m, NULL), -EINVAL);
        assert_int_equal(merge_layers(x, NELEM(x), -EBADF, &m, NULL), -EINVAL);
        assert_int_equal(merge_layers(x, MERGE_LAYERS_MAX, -EBADF, &m, NULL), 0);
        assert_int_equal(m.n_nodes, 3);
        assert_int_equal(merge_node(&m, 2)->layer, MERGE_LAYERS_MAX - 1);
        free(s.p);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rules),
                cmocka_unit_test(test_limits),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
