/* test_gpuhost.c - what is believed of vmm-gpu's words, and how a fleet follows another. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "base/jsonx.h"
#include "engine/gpu/gpuhost_priv.h"

/* Single quotes for double ones, to be readable. */
static json_t *parse(const char *text)
{
        char copy[4096];
        size_t n = strlen(text);

        assert_true(n < sizeof copy);
        for (size_t i = 0; i <= n; i++)
                copy[i] = text[i] == '\'' ? '"' : text[i];
        return json_loads(copy, 0, NULL);
}

#define GPU(id, more)                                                                              \
        "{'uuid':'GPU-" id "','name':'NVIDIA H200','state':'ok','pci':'00000000:0" id              \
        ":00.0'" more "}"
#define MIG(id, more)                                                                              \
        "{'uuid':'MIG-" id "','name':'NVIDIA H200','state':'ok','pci':'00000000:01:00.0'" more "}"

static void test_fleet(void **state)
{
        static const struct {
                const char *list;
                int r;
        } t[] = {
                { "[]", 0 },
                { "[" GPU("1", "") "," GPU("2", ",'minor':255") "]", 0 },
                { "[" GPU("1", ",'minor':256") "]", -EPROTO },
                { "[{'uuid':'GPU-1','name':'x','state':'ok'}]", -EPROTO },
                { "[{'uuid':'GPU-1','name':'x','state':'ok','pci':'../../../etc'}]", -EPROTO },
                { "[{'uuid':'GPU-1','name':'x','state':'ok','pci':'00000000:0A:00.0'}]", -EPROTO },
                { "[{'uuid':'GPU-1','name':'x','state':'ok','pci':'00000000:0a:00.0/'}]", -EPROTO },
                { "[{'uuid':'GPU-1/..','name':'x','state':'ok','pci':'00000000:0a:00.0'}]",
                  -EINVAL },
                { "[{'uuid':'GPU-1','name':'x','state':'lost','pci':'00000000:0a:00.0'}]",
                  -EPROTO },
                { "[{'uuid':'GPU-1','name':'x','state':'quarantined','pci':'00000000:0a:00.0'}]",
                  -EPROTO },
                { "[" GPU("1", ",'mig_mode':true") "," MIG(
                          "a", ",'parent':'GPU-1','mig_profile':'1g.10gb+me'") "]",
                  0 },
                { "[" GPU("1", "") "," MIG("a", ",'parent':'GPU-1','mig_profile':'1g.10gb'") "]",
                  -EPROTO },
                { "[" MIG("a", ",'parent':'GPU-1','mig_profile':'1g.10gb'") "]", -EPROTO },
                { "[" GPU("1", ",'mig_mode':true") "," MIG("a", ",'parent':'GPU-1'") "]", -EPROTO },
                { "[" GPU("1", ",'mig_mode':true") "," MIG(
                          "a", ",'parent':'GPU-1','mig_profile':'../x'") "]",
                  -EPROTO },
                { "[" GPU("1", ",'mig_mode':true") "," MIG(
                          "a", ",'parent':'MIG-a','mig_profile':'1g.10gb'") "]",
                  -EPROTO },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(json_put) json_t *j = json_object(), *list = parse(t[i].list);
                struct gpu_fleet f = { 0 };
                struct err e = { 0 };
                int r;

                assert_non_null(list);
                assert_int_equal(json_object_set(j, "list", list), 0);
                r = gpu_words_fleet(j, &f, &e);
                if (r != t[i].r)
                        fail_msg("row %zu: %d %s", i, r, e.msg);
                gpu_fleet_done(&f);
        }
}

static void test_tamed(void **state)
{
        AUTO(json_put)
        json_t *j = parse("{'note':'a\\u001b[2Jb','list':[" GPU("1", ",'serial':'x\\ny'") "]}");
        struct gpu_fleet f = { 0 };

        (void) state;
        assert_int_equal(gpu_words_fleet(j, &f, NULL), 0);
        assert_string_equal(f.note, "a?[2Jb");
        assert_string_equal(f.gpus[0].serial, "x?y");
        gpu_fleet_done(&f);
}

static void test_checked(void **state)
{
        static const struct {
                const char *gpus, *want;
        } t[] = {
                { "[]", "{'uuid':'GPU-1','present':false}" },
                { "17", "{'uuid':'GPU-1','present':false}" },
                { "[{'uuid':'GPU-2','present':true}]", "{'uuid':'GPU-1','present':false}" },
                { "[{'uuid':'GPU-1','present':1,'xid':0}]", "{'uuid':'GPU-1','present':false}" },
                { "[{'uuid':'GPU-1','present':true,'memory_used_mib':-3,'xid':'0',"
                  "'remap_pending':0,'vbios':7,'processes':{},'more':1}]",
                  "{'uuid':'GPU-1','present':true}" },
                { "[{'uuid':'GPU-1','present':true,'memory_used_mib':3,'xid':79,'remap_failed':true,"
                  "'vbios':'9\\u0007','processes':[{'pid':7,'memory_mib':1},{'pid':-1},3]}]",
                  "{'uuid':'GPU-1','present':true,'memory_used_mib':3,'xid':79,'remap_failed':true,"
                  "'vbios':'9?','processes':[{'pid':7,'memory_mib':1},{},{}]}" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(json_put) json_t *gpus = NULL, *want = parse(t[i].want), *got = NULL;

                gpus = *t[i].gpus == '1' ? json_integer(17) : parse(t[i].gpus);
                got = gpu_words_checked(gpus, "GPU-1");
                if (!json_equal(got, want))
                        fail_msg("row %zu: %s", i, json_dumps(got, 0));
        }
}

static void test_event(void **state)
{
        static const struct {
                const char *msg;
                int r;
        } t[] = {
                { "{'uuid':'GPU-1','kind':'xid','code':79,'text':'x'}", 0 },
                { "{'uuid':'GPU-1','kind':'ecc','code':0}", 0 },
                { "{'uuid':'GPU-1','kind':'released','code':0}", -EPROTO },
                { "{'uuid':'GPU-1','kind':'xid','code':-1}", -EPROTO },
                { "{'uuid':'GPU-1','kind':'xid'}", -EPROTO },
                { "{'uuid':'1','kind':'xid','code':79}", -EPROTO },
                { "{'kind':'xid','code':79}", -EPROTO },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(json_put) json_t *j = parse(t[i].msg);
                struct gpu_word_event ev;

                if (gpu_words_event(j, &ev, NULL) != t[i].r)
                        fail_msg("row %zu", i);
        }
}

/* ---- one fleet after another ---- */

static struct gpu_fleet fleet(const char *text)
{
        AUTO(json_put) json_t *j = parse(text);
        struct gpu_fleet f = { 0 };
        struct err e = { 0 };

        assert_non_null(j);
        if (gpu_fleet_decode(j, &f, &e) < 0)
                fail_msg("%s", e.msg);
        return f;
}

#define FOUR                                                                                       \
        "{'driver_version':'550','list':[" GPU("1", "") "," GPU("2", "") "," GPU("3", "") "," GPU( \
                "4",                                                                               \
                "") "],'links':[['X','NV1','NV2','NV3'],['NV1','X','NV4','NV5'],['NV2','NV4',"     \
                    "'X','NV6'],['NV3','NV5','NV6','X']],'partitions':[[0],[1],[2],[3],[0,1],"     \
                    "[2,3],[0,1,2,3]]}"

static unsigned link_of(const struct gpu_fleet *f, const char *a, const char *b)
{
        const struct gpu *x = gpu_fleet_find(f, a), *y = gpu_fleet_find(f, b);

        assert_non_null(x);
        assert_non_null(y);
        return f->links[(size_t) (x - f->gpus) * f->n + (size_t) (y - f->gpus)].nvlinks;
}

static bool has_partition(const struct gpu_fleet *f, const char *a, const char *b)
{
        uint64_t set = 1ULL << (gpu_fleet_find(f, a) - f->gpus);

        if (b)
                set |= 1ULL << (gpu_fleet_find(f, b) - f->gpus);
        for (size_t i = 0; i < f->n_partitions; i++)
                if (f->partitions[i] == set)
                        return true;
        return false;
}

static void test_one_missing(void **state)
{
        struct gpu_fleet was = fleet(FOUR), ret = { 0 };
        struct gpu_fleet now = fleet("{'driver_version':'551','list':[" GPU("4", "") "," GPU(
                "1",
                ",'serial':'s'") "],'links':[['X','NV9'],['NV9','X']],'partitions':[[0],[1],[0,1]]}");

        (void) state;
        assert_int_equal(gpu_fleet_merge(&was, &now, &ret), 0);
        assert_int_equal(ret.n, 4);
        assert_string_equal(ret.driver_version, "551");
        assert_string_equal(gpu_fleet_find(&ret, "GPU-1")->serial, "s");
        assert_int_equal(link_of(&ret, "GPU-1", "GPU-4"), 9); /* today's */
        assert_int_equal(link_of(&ret, "GPU-4", "GPU-1"), 9);
        assert_int_equal(link_of(&ret, "GPU-2", "GPU-3"), 4); /* yesterday's */
        assert_int_equal(link_of(&ret, "GPU-1", "GPU-2"), 1);
        assert_int_equal(ret.n_partitions, 7);
        assert_true(has_partition(&ret, "GPU-1", "GPU-2"));
        assert_true(has_partition(&ret, "GPU-3", "GPU-4"));
        assert_false(has_partition(&ret, "GPU-1", "GPU-4"));
        gpu_fleet_done(&was);
        gpu_fleet_done(&now);
        gpu_fleet_done(&ret);
}

static void test_all_there(void **state)
{
        struct gpu_fleet was = fleet("{'list':[" GPU("1", "") "]}"), now = fleet(FOUR), ret = { 0 };

        (void) state;
        assert_int_equal(gpu_fleet_merge(&was, &now, &ret), 0);
        assert_int_equal(ret.n, 4);
        assert_int_equal(ret.n_partitions, 7);
        assert_int_equal(link_of(&ret, "GPU-3", "GPU-4"), 6);
        gpu_fleet_done(&was);
        gpu_fleet_done(&now);
        gpu_fleet_done(&ret);
}

static void test_none_left(void **state)
{
        struct gpu_fleet was = fleet(FOUR), now = fleet("{'note':'no driver','list':[]}"),
                         ret = { 0 };

        (void) state;
        assert_int_equal(gpu_fleet_merge(&was, &now, &ret), 0);
        assert_int_equal(ret.n, 4);
        assert_string_equal(ret.note, "no driver");
        assert_string_equal(ret.driver_version, "550");
        assert_int_equal(ret.n_partitions, 7);
        gpu_fleet_done(&was);
        gpu_fleet_done(&now);
        gpu_fleet_done(&ret);
}

/* An instance that was taken apart goes; one of a GPU that is gone stays with it. */
static void test_instances(void **state)
{
        struct gpu_fleet was = fleet("{'list':[" GPU("1", ",'mig_mode':true") "," MIG(
                "a",
                ",'parent':'GPU-1','mig_profile':'1g.10gb'") "," MIG("b",
                                                                     ",'parent':'GPU-1','mig_profile':'1g.10gb'") "]}");
        struct gpu_fleet now = fleet("{'list':[" GPU("1", ",'mig_mode':true") "," MIG(
                "b", ",'parent':'GPU-1','mig_profile':'1g.10gb'") "]}");
        struct gpu_fleet none = fleet("{'list':[]}"), ret = { 0 };

        (void) state;
        assert_int_equal(gpu_fleet_merge(&was, &now, &ret), 0);
        assert_int_equal(ret.n, 2);
        assert_null(gpu_fleet_find(&ret, "MIG-a"));
        gpu_fleet_done(&ret);
        assert_int_equal(gpu_fleet_merge(&was, &none, &ret), 0);
        assert_int_equal(ret.n, 3);
        gpu_fleet_done(&ret);
        gpu_fleet_done(&was);
        gpu_fleet_done(&now);
        gpu_fleet_done(&none);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_fleet),       cmocka_unit_test(test_tamed),
                cmocka_unit_test(test_checked),     cmocka_unit_test(test_event),
                cmocka_unit_test(test_one_missing), cmocka_unit_test(test_all_there),
                cmocka_unit_test(test_none_left),   cmocka_unit_test(test_instances),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
