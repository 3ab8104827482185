/* test_gpu.c - the fleet's JSON form there and back, and what of it is refused. */
#include "model/gpu.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "base/jsonx.h"
#include "model/gpu_telemetry.h"

#define GPU_A "{'uuid':'GPU-a1','name':'NVIDIA H200','state':'ok','memory_mib':143771}"
#define GPU_B "{'uuid':'GPU-b2','name':'NVIDIA H200','state':'lost','reason':'gone','numa_node':1}"
#define TWO   "'list':[" GPU_A "," GPU_B "]"

/* Single quotes for double ones, to be readable. */
static json_t *parse(const char *text)
{
        char copy[2048];
        size_t n = strlen(text);

        assert_true(n < sizeof copy);
        for (size_t i = 0; i <= n; i++)
                copy[i] = text[i] == '\'' ? '"' : text[i];
        return json_loads(copy, 0, NULL);
}

static void test_round_trip(void **state)
{
        json_t *j = parse("{'driver_version':'550.54.15','simulated':true," TWO
                          ",'links':[['X','NV12/SYS'],['NV12/SYS','X']],"
                          "'p2p':[['','CNS'],['CNS','']],'partitions':[[0,1]]}");
        struct gpu_fleet f = { 0 }, copy = { 0 };
        struct err e = { 0 };
        json_t *again;

        (void) state;
        assert_non_null(j);
        if (gpu_fleet_decode(j, &f, &e) < 0)
                fail_msg("%s", e.msg);
        assert_int_equal(f.n, 2);
        assert_int_equal(f.gpus[0].numa_node, GPU_NUMA_UNKNOWN);
        assert_int_equal(f.gpus[1].state, GS_LOST);
        assert_int_equal(f.links[1].nvlinks, 12);
        assert_int_equal(f.links[1].path, GP_SYS);
        assert_int_equal(f.links[1].p2p, GPP_CHIPSET);
        assert_int_equal(f.partitions[0], 3);
        assert_true(gpu_is_for_rent(&f.gpus[0]));
        assert_ptr_equal(gpu_fleet_find(&f, "GPU-b2"), &f.gpus[1]);
        assert_null(gpu_fleet_find(&f, "GPU-c3"));
        assert_int_equal(gpu_fleet_copy(&f, &copy), 0);
        again = gpu_fleet_encode(&copy);
        json_decref(j);
        j = gpu_fleet_encode(&f);
        assert_true(json_equal(again, j));
        json_decref(again);
        json_decref(j);
        gpu_fleet_done(&copy);
        gpu_fleet_done(&f);
}

static void test_refused(void **state)
{
        static const char *const bad[][2] = {
                { "{'list':[{'uuid':'GPU-a1','name':'x'}]}", "state" },
                { "{'list':[{'uuid':'../etc','name':'x','state':'ok'}]}", "uuid" },
                { "{'list':[" GPU_A "," GPU_A "]}", "twice" },
                { "{" TWO ",'links':[['X','SYS']]}", "1 rows for 2" },
                { "{" TWO ",'links':[['X','SYS'],['X']]}", "row 1" },
                { "{" TWO ",'links':[['X','SYS'],['PIX','X']]}", "disagree" },
                { "{" TWO ",'p2p':[['','OK'],['NS','']]}", "p2p: 0 and 1 disagree" },
                { "{" TWO ",'p2p':[['','ok'],['ok','']]}", "'ok' is none" },
                { "{" TWO ",'p2p':[[''],['']]}", "row 0" },
                { "{" TWO ",'p2p':7}", "p2p: is no list" },
                { "{" TWO ",'links':[['X','NV0'],['NV0','X']]}", "'NV0' is none" },
                { "{" TWO ",'links':[['X','NVX'],['NVX','X']]}", "'NVX' is none" },
                { "{" TWO ",'partitions':[[2]]}", "2 is no GPU" },
                { "{" TWO ",'partitions':[[-1]]}", "-1 is no GPU" },
                { "{" TWO ",'partitions':[[]]}", "empty" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(bad); i++) {
                json_t *j = parse(bad[i][0]);
                struct gpu_fleet f = { 0 };
                struct err e = { 0 };

                assert_non_null(j);
                if (gpu_fleet_decode(j, &f, &e) >= 0 || !strstr(e.msg, bad[i][1]))
                        fail_msg("row %zu: %s", i, e.msg);
                assert_null(f.gpus);
                json_decref(j);
        }
}

static void test_links(void **state)
{
        static const char *const text[] = { "X",   "SYS", "NODE", "PHB",
                                            "PXB", "PIX", "NV1",  "NV18/PIX" };
        static const char *const bad[] = { "NV",  "NV12/", "NV12/X",  "NV123",
                                           "sys", "PIX ",  "NV12/NV1" };

        (void) state;
        for (size_t i = 0; i < NELEM(text); i++) {
                struct gpu_link l;
                char out[16];

                assert_int_equal(gpu_link_parse(text[i], &l), 0);
                gpu_link_text(l, true, out);
                assert_string_equal(out, text[i]);
        }
        for (size_t i = 0; i < NELEM(bad); i++) {
                struct gpu_link l;

                if (gpu_link_parse(bad[i], &l) >= 0)
                        fail_msg("%s", bad[i]);
        }
}

static void test_telemetry(void **state)
{
        struct gpu_telemetry t, back;
        struct err e = { 0 };
        json_t *j;

        (void) state;
        for (size_t i = 0; i < GM_COUNT; i++)
                assert_non_null(gpu_metrics[i].name);
        gpu_telemetry_init(&t, "GPU-a1");
        t.value[GM_UTIL_PCT] = 0;
        t.value[GM_XID] = 79;
        j = gpu_telemetry_encode(&t);
        assert_int_equal(json_object_size(j), 3);
        assert_int_equal(gpu_telemetry_decode(j, &back, &e), 0);
        assert_memory_equal(back.value, t.value, sizeof t.value);
        json_object_set_new(j, "xid", json_integer(-1));
        assert_int_equal(gpu_telemetry_decode(j, &back, &e), -EINVAL);
        json_decref(j);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_round_trip),
                cmocka_unit_test(test_refused),
                cmocka_unit_test(test_links),
                cmocka_unit_test(test_telemetry),
        };

        return cmocka_run_group_tests_name("gpu", tests, NULL, NULL);
}
