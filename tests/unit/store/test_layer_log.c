/* test_layer_log.c - what the entries of a tar come to, whatever their order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "scripted.h"

/* The entries of an index as words: letter, ! opaque, ? implied, #group, path. */
static char *listing(const struct layer_index *x)
{
        static const char letters[] = "-dfolpshw";
        char path[4096] = "";
        size_t ends[LAYER_DEPTH_MAX + 1] = { 0 };
        struct strbuf b = { 0 };
        struct layer_entry n;

        for (uint64_t at = x->entries_at; layer_index_entry(x, at, &n, &at);) {
                size_t len = n.depth > 0 ? ends[n.depth - 1] : 0;

                if (n.depth > 1)
                        path[len++] = '/';
                memcpy(path + len, n.name, n.name_len);
                len += n.name_len;
                path[len] = '\0';
                ends[n.depth] = len;
                strbuf_fmt(&b, "%s%c%s%s", b.len ? " " : "", letters[n.type],
                           n.flags & LAYER_OPAQUE ? "!" : "", n.flags & LAYER_IMPLIED ? "?" : "");
                if (n.group)
                        strbuf_fmt(&b, "#%u", n.group);
                strbuf_str(&b, n.depth ? path : ".");
        }
        return strbuf_take(&b);
}

static void test_order_and_rules(void **state)
{
        static const struct {
                const char *in, *out; /* out NULL: refused */
        } t[] = {
                { "", "d?." },
                { "d.", "d." },
                { "d. da fa/b", "d. da fa/b" },
                { "fa/b da d.", "d. da fa/b" },
                { "fx/y/z", "d?. d?x d?x/y fx/y/z" },
                /* names in byte order, what is in a directory right behind it */
                { "fb fa-b fa/c fa!", "d?. d?a fa/c fa! fa-b fb" },
                /* the later entry wins */
                { "fa la", "d?. la" },
                { "da da", "d?. da" },
                { "da fa/x fa", "d?. fa" },
                { "fa da", "d?. da" },
                { "fa fa/x", "d?. d?a fa/x" },
                { "la fa/x", "d?. d?a fa/x" },
                { "da fa/x fa fa/y", "d?. d?a fa/y" },
                { "da fa/x fa da fa/y", "d?. da fa/y" },
                { "fa/b/c la fa/d", "d?. d?a fa/d" },
                { "fa/b/c fa/b/d la/b", "d?. d?a la/b" },
                { "fa/b/c pa pa/b", "d?. d?a pa/b" },
                /* whiteouts and marks hide lower layers only, wherever they stand */
                { "wa", "d?. wa" },
                { "wa/b", "d?. d?a wa/b" },
                { "wa fa", "d?. fa" },
                { "fa wa", "d?. fa" },
                { "wa da", "d?. d!a" },
                { "da wa", "d?. d!a" },
                { "wa fa/b", "d?. d!?a fa/b" },
                { "fa/b wa", "d?. d!?a fa/b" },
                { "qa", "d?. d!?a" },
                { "qa da", "d?. d!a" },
                { "da qa", "d?. d!a" },
                { "q.", "d!?." },
                { "q. d. fa", "d!. fa" },
                { "qa fa", "d?. fa" },
                { "qa fa da", "d?. da" },
                { "wa fa da", "d?. d!a" },
                { "wa/b fa", "d?. fa" },
                { "wa/b fa da", "d?. da" },
                /* hard links: the inode that the name had at that moment */
                { "fa hb>a", "d?. f#1a h#1b" },
                { "fb ha>b", "d?. f#1a h#1b" },
                { "fa hb>a hc>b", "d?. f#1a h#1b h#1c" },
                { "fa hb>a fa", "d?. fa fb" },
                { "fa hb>a wa", "d?. f#1a h#1b" },
                { "fa hb>a hb>a", "d?. f#1a h#1b" },
                { "fa ha>a", "d?. fa" },
                { "lx hb>x fc hd>c", "d?. l#1b f#2c h#2d h#1x" },
                { "fd/a hb>d/a fd", "d?. fb fd" },
                { "fd/a fd hb>d/a", NULL },
                { "fd/a hd>d/a", "d?. fd" },
                { "fa ha/b>a", "d?. d?a fa/b" },
                { "hb>a", NULL },
                { "hb>a fa", NULL },
                { "da hb>a", NULL },
                { "wa hb>a", NULL },
                { "fa da hb>a", NULL },
                { "fa fa/x hb>a", NULL },
                { "fa/x fa hb>a", "d?. f#1a h#1b" },
                /* objects */
                { "oa ob hc>a", "d?. o#1a ob h#1c" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct scripted s = { 0 };
                struct err e = { 0 };
                struct layer_index x;
                AUTO(free) char *got = NULL;
                int r = script_index(t[i].in, &s, &e);

                if (r >= 0)
                        r = layer_index_open(s.p, s.len, &x, &e);
                if (r >= 0)
                        got = listing(&x);
                if ((r >= 0) != (t[i].out != NULL) || (got && !str_eq(got, t[i].out)))
                        fail_msg("'%s': r=%d %s\n  got  '%s'\n  want '%s'", t[i].in, r, e.msg,
                                 got ? got : "-", t[i].out ? t[i].out : "refused");
                if (!t[i].out && r != -EINVAL)
                        fail_msg("'%s': r=%d %s", t[i].in, r, e.msg);
                free(s.p);
        }
}

static void test_objects_are_numbered_as_they_come(void **state)
{
        static const uint64_t sizes[] = { 1, 1, 0, 3, 2, 0 };
        struct scripted s = { 0 };
        struct layer_index x;

        (void) state;
        assert_int_equal(script_index("oa ob occ oddd hx>ddd oee ozz wy lcc fzz", &s, NULL), 0);
        assert_int_equal(layer_index_open(s.p, s.len, &x, NULL), 0);
        assert_int_equal(x.n_objects, NELEM(sizes));
        for (uint32_t i = 0; i < NELEM(sizes); i++)
                assert_int_equal(layer_index_object(&x, i), sizes[i]);
        assert_int_equal(x.n_groups, 1);
        assert_int_equal(x.content_bytes, 1 + 1 + 3 + 2 + 2);
        free(s.p);
}

static void test_limits(void **state)
{
        struct layer_log_limits few = { .max_entries = 2 }, small = { .max_bytes = 1024 };
        struct layer_entry n = { .type = LAYER_DIR, .uid = 65536 };
        AUTO(layer_log_free) struct layer_log *l = NULL, *m = NULL;
        char deep[2 * (LAYER_DEPTH_MAX + 1) + 1];
        int r = 0;

        (void) state;
        assert_int_equal(layer_log_new(-EBADF, &few, &l, NULL), 0);
        assert_int_equal(layer_log_add(l, "a", &n, NULL, NULL), -ERANGE);
        n.uid = 65535;
        assert_int_equal(layer_log_add(l, "a", &n, NULL, NULL), 0);
        n.type = LAYER_FIFO;
        assert_int_equal(layer_log_add(l, "", &n, NULL, NULL), -EINVAL);
        assert_int_equal(layer_log_whiteout(l, "", NULL), -EINVAL);
        assert_int_equal(layer_log_link(l, "", "a", NULL), -EINVAL);
        assert_int_equal(layer_log_opaque(l, "", NULL), 0);
        assert_int_equal(layer_log_whiteout(l, "b", NULL), -E2BIG);

        assert_int_equal(layer_log_new(-EBADF, &small, &m, NULL), 0);
        for (int i = 0; i < 100 && r >= 0; i++)
                r = layer_log_whiteout(m, "b", NULL);
        assert_int_equal(r, -E2BIG);

        for (size_t i = 0; i <= LAYER_DEPTH_MAX; i++)
                memcpy(deep + 2 * i, "a/", 3);
        deep[sizeof deep - 2] = '\0'; /* 257 components */
        l = layer_log_free(l);
        assert_int_equal(layer_log_new(-EBADF, &(struct layer_log_limits){ 0 }, &l, NULL), 0);
        assert_int_equal(layer_log_add(l, deep, &n, NULL, NULL), 0);
        assert_int_equal(layer_log_finish(l, &(struct layer_totals){ 0 }, -EBADF, NULL),
                         -ENAMETOOLONG);
}

/* Half the layer replaces a directory of the other half and is linked to, again and again. */
static void test_tangled_links_end(void **state)
{
        const struct layer_log_limits limits = { 0 };
        AUTO(layer_log_free) struct layer_log *l = NULL;
        struct layer_entry n = { .type = LAYER_FIFO };
        char path[64];

        (void) state;
        assert_int_equal(layer_log_new(-EBADF, &limits, &l, NULL), 0);
        for (int i = 0; i < 20000; i++) {
                (void) snprintf(path, sizeof path, "t/%d", i);
                assert_int_equal(layer_log_add(l, path, &n, NULL, NULL), 0);
        }
        assert_int_equal(layer_log_add(l, "t", &n, NULL, NULL), 0);
        for (int i = 0; i < 20000; i++) {
                (void) snprintf(path, sizeof path, "l%d", i);
                assert_int_equal(layer_log_link(l, path, "t", NULL), 0);
        }
        assert_int_equal(layer_log_finish(l, &(struct layer_totals){ 0 }, -EBADF, NULL), -E2BIG);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_order_and_rules),
                cmocka_unit_test(test_objects_are_numbered_as_they_come),
                cmocka_unit_test(test_limits),
                cmocka_unit_test(test_tangled_links_end),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
