/* test_plan.c - plans are checked field by field, and survive the way over the wire. */
#include "model/plan.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "base/jsonx.h"
#include "base/str.h"

static const char good[] =
        "{\"cluster\":\"abc\",\"generation\":1,\"account\":\"a1\",\"image\":\"x\",\"vcpu\":1,"
        "\"cpus\":[\"0\"],\"memory_mib\":1024,\"container_disk_gib\":5,\"env\":[\"A=b\"],"
        "\"ports\":\"8888/http, 22/tcp\",\"volume_gib\":1,\"volume_path\":\"/workspace\"}";

static void test_round_trip(void **state)
{
        AUTO(json_put) json_t *j = jsonx_parse(good, sizeof good - 1, NULL);
        AUTO(json_put) json_t *again = NULL, *twice = NULL;
        AUTO(plan_done) struct plan p = { 0 }, q = { 0 };

        (void) state;
        assert_int_equal(plan_decode(j, &p, NULL), 0);
        again = plan_encode(&p);
        assert_int_equal(plan_decode(again, &q, NULL), 0);
        twice = plan_encode(&q);
        assert_true(json_equal(again, twice));
        assert_string_equal(q.volume_path, "/workspace");
        assert_int_equal(q.memory_mib, 1024);
}

/* Journals of earlier versions say how set-id programs were to be treated; the profile does now. */
static void test_older_plan(void **state)
{
        AUTO(json_put) json_t *j = jsonx_parse(good, sizeof good - 1, NULL);
        AUTO(plan_done) struct plan p = { 0 };

        (void) state;
        assert_int_equal(json_object_set_new(j, "new_privs", json_true()), 0);
        assert_int_equal(plan_decode(j, &p, NULL), 0);
        assert_int_equal(plan_profile(&p), SECURITY_STANDARD);
}

static void test_profile(void **state)
{
        AUTO(json_put) json_t *j = jsonx_parse(good, sizeof good - 1, NULL);

        (void) state;
        for (int i = SECURITY_STANDARD; i < SECURITY_PROFILE_COUNT; i++) {
                AUTO(plan_done) struct plan p = { 0 };

                assert_int_equal(json_object_set_new(j, "security_profile",
                                                     json_string(security_profile_names[i])),
                                 0);
                assert_int_equal(plan_decode(j, &p, NULL), 0);
                assert_int_equal(plan_profile(&p), i);
        }
}

/* One member replaced by @value (JSON text); the message must begin with "plan: <field>". */
static void test_refused(void **state)
{
        static const struct {
                const char *field, *value, *names;
        } t[] = {
                { "cluster", "\"Abc\"", "cluster" },
                { "cluster", "\"abcdefghijklmno\"", "cluster" },
                { "cluster", "\"../x\"", "cluster" },
                { "cluster", "null", "cluster" },
                { "generation", "0", "generation" },
                { "generation", "-1", "generation" },
                { "vcpu", "0", "vcpu" },
                { "vcpu", "1.5", "vcpu" },
                { "memory_mib", "1", "memory_mib" },
                { "memory_mib", "99999999999", "memory_mib" },
                { "container_disk_gib", "0", "container_disk_gib" },
                { "container_disk_gib", "-5", "container_disk_gib" },
                { "env", "[\"novalue\"]", "env" },
                { "env", "[\"=x\"]", "env" },
                { "env", "[7]", "env" },
                { "ports", "\"99999/http\"", "ports" },
                { "ports", "\"80/udp\"", "ports" },
                { "ports", "\"80/http,80/http\"", "ports" },
                { "ports", "\"80/http,80/http:private\"", "ports" },
                { "ports", "\"80/http:secret\"", "ports" },
                { "ports", "\"80/http:\"", "ports" },
                { "ports", "\"22/tcp:private\"", "ports" },
                { "ports", "\"80:private\"", "ports" },
                { "edge_key", "\"AAAA\"", "edge_key" },
                { "edge_key", "\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA?A=\"", "edge_key" },
                { "ports",
                  "\"1/http,2/http,3/http,4/http,5/http,6/http,7/http,8/http,9/http,10/http,11/http\"",
                  "ports" },
                { "volume_path", "\"workspace\"", "volumeMountPath" },
                { "security_profile", "\"lax\"", "securityProfile" },
                { "security_profile", "\"none\"", "securityProfile" },
                { "volume_path", "\"/\"", "volumeMountPath" },
                { "volume_path", "\"/proc\"", "volumeMountPath" },
                { "volume_path", "\"/proc/x\"", "volumeMountPath" },
                { "volume_path", "\"/a/../proc\"", "volumeMountPath" },
                { "volume_path", "\"/a/..\"", "volumeMountPath" },
                { "volume_path", "\"/../..\"", "volumeMountPath" },
                { "volume_path", "\"/dev/shm\"", "volumeMountPath" },
                { "volume_path", "\"//proc\"", "volumeMountPath" },
                { "cpus", "[\"0\",\"1\"]", "cpus" },
                { "cpus", "[\"x\"]", "cpus" },
                { "gpu_count", "1", "gpus" },
                { "mems", "\"x\"", "mems" },
                { "mems", "\"0-\"", "mems" },
                { "mems", "\"-1\"", "mems" },
                { "mems", "\"1-0\"", "mems" },
                { "mems", "\"0,0\"", "mems" },
                { "mems", "\"0-1,1\"", "mems" },
                { "mems", "\"1024\"", "mems" },
                { "mems", "\",\"", "mems" },
                { "mems", "\"0-1-2\"", "mems" },
                { "mems", "\"0 1\"", "mems" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(json_put) json_t *j = jsonx_parse(good, sizeof good - 1, NULL);
                AUTO(free) char *want = str_fmt("plan: %s", t[i].names);
                AUTO(plan_done) struct plan p = { 0 };
                json_t *v = json_loads(t[i].value, JSON_DECODE_ANY, NULL);
                struct err e = { 0 };

                assert_non_null(v);
                (void) json_object_set_new(j, t[i].field, v);
                if (plan_decode(j, &p, &e) >= 0)
                        fail_msg("%s = %s was taken", t[i].field, t[i].value);
                if (!str_after(e.msg, want))
                        fail_msg("%s = %s: '%s'", t[i].field, t[i].value, e.msg);
                assert_null(p.cluster); /* failure gives nothing */
        }
}

static int decode_with(const char *field, const char *value, const char *count)
{
        AUTO(json_put) json_t *j = jsonx_parse(good, sizeof good - 1, NULL);
        AUTO(plan_done) struct plan p = { 0 };

        (void) json_object_set_new(j, field, json_loads(value, JSON_DECODE_ANY, NULL));
        (void) json_object_set_new(j, "gpu_count", json_loads(count, JSON_DECODE_ANY, NULL));
        return plan_decode(j, &p, NULL);
}

static void test_nodes_and_gpus(void **state)
{
        static const char *const mems[] = { "\"0\"", "\"0-1\"", "\"0-1,3\"", "\"1023\"", "null" };

        (void) state;
        for (size_t i = 0; i < NELEM(mems); i++)
                assert_int_equal(decode_with("mems", mems[i], "0"), 0);
        assert_int_equal(decode_with("gpus", "[\"GPU-a\",\"MIG-b\"]", "2"), 0);
        assert_int_equal(decode_with("gpus", "[\"GPU-a\",\"GPU-a\"]", "2"), -EINVAL);
        assert_int_equal(decode_with("gpus", "[\"../../x\"]", "1"), -EINVAL);
        assert_int_equal(decode_with("gpus", "[\"GPU-a\"]", "2"), -EINVAL);
}

static void test_mount_paths_allowed(void **state)
{
        static const char *const ok[] = { "/workspace", "/runpod",      "/usr/local/data",
                                          "/data/",     "/home/user/x", "/procedures",
                                          "/..x" };

        (void) state;
        for (size_t i = 0; i < NELEM(ok); i++) {
                struct err e = { 0 };

                if (plan_mount_path("f", ok[i], &e) < 0)
                        fail_msg("%s: %s", ok[i], e.msg);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_refused),
                cmocka_unit_test(test_older_plan),     cmocka_unit_test(test_profile),
                cmocka_unit_test(test_nodes_and_gpus), cmocka_unit_test(test_mount_paths_allowed),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
