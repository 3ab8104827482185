/* test_gql_clients.c - what real clients send, quirks included (docs/http-api.md): each row must be taken,
 * and the resolver must see the arguments in their one form. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "gql_world.h"

static int up(void **state)
{
        struct world *w = calloc(1, sizeof *w);

        *state = w;
        return w ? world_up(w, false) : -1;
}

static int down(void **state)
{
        world_down(*state);
        free(*state);
        return 0;
}

static void test_accepted(void **state)
{
        static const struct {
                const char *what, *query, *vars;
                const char *body; /* NULL: only that there is data and no errors */
                const char *args; /* NULL: not looked at */
        } t[] = {
                { "shorthand", "{ myself { id } }", NULL,
                  "{\"data\":{\"myself\":{\"id\":\"user1\"}}}", NULL },
                { "anonymous query", "query { myself { id } }", NULL,
                  "{\"data\":{\"myself\":{\"id\":\"user1\"}}}", NULL },
                { "operation named like a root field", "query myself { myself { id } }", NULL,
                  "{\"data\":{\"myself\":{\"id\":\"user1\"}}}", NULL },
                { "runpodctl get pod", world_my_pods, "{}", NULL, NULL },
                { "variables: null", world_my_pods, "null", NULL, NULL },
                { "runpodctl create pod",
                  "mutation createPod($input: PodFindAndDeployOnDemandInput!) { "
                  "podFindAndDeployOnDemand(input: $input) { id costPerHr desiredStatus "
                  "lastStatusChange } }",
                  "{\"input\":{\"cloudType\":\"COMMUNITY\",\"containerDiskInGb\":20,\"deployCost\":0,"
                  "\"dockerArgs\":\"\",\"env\":[{\"key\":\"A\",\"value\":\"b\"}],\"gpuCount\":1,"
                  "\"gpuTypeId\":\"NVIDIA A100\",\"dataCenterId\":null,\"name\":\"\"}}",
                  "{\"data\":{\"podFindAndDeployOnDemand\":{\"id\":\"pod0000000\",\"costPerHr\":3.59,"
                  "\"desiredStatus\":\"RUNNING\","
                  "\"lastStatusChange\":\"Rented by User: Sun Nov 22 2026\"}}}",
                  "{\"input\":{\"cloudType\":\"COMMUNITY\",\"containerDiskInGb\":20,"
                  "\"deployCost\":0.0,\"dockerArgs\":\"\",\"env\":[{\"key\":\"A\",\"value\":\"b\"}],"
                  "\"gpuCount\":1,\"gpuTypeId\":\"NVIDIA A100\",\"name\":\"\"}}" },
                { "runpod-python create_pod, inline, multi-line",
                  "\n    mutation {\n      podFindAndDeployOnDemand(\n        input: {\n          "
                  "name: \"x\", imageName: \"i\", gpuTypeId: \"NVIDIA H200\", cloudType: ALL, "
                  "supportPublicIp: true, startSsh: true, dataCenterId: null, gpuCount: 1, "
                  "volumeInGb: 0, containerDiskInGb: 10, minVcpuCount: 1, minMemoryInGb: 1, "
                  "dockerArgs: \"\", volumeMountPath: \"/runpod-volume\", "
                  "env: [{ key: \"A\", value: \"b\" }, { key: \"B\", value: \"\\\"q\\\"\\n\" }]\n"
                  "        }\n      ) {\n        id\n        imageName\n        env\n        "
                  "machineId\n        machine {\n          podHostId\n        }\n      }\n    }\n",
                  NULL,
                  "{\"data\":{\"podFindAndDeployOnDemand\":{\"id\":\"pod0000000\","
                  "\"imageName\":\"tensorone/llm-starter:v1\",\"env\":[\"MODE=serve\",\"PORT=8888\","
                  "\"JUPYTER=0\",\"NAME=\\\"q\\\"\"],\"machineId\":\"pod0000000-64410a0b\","
                  "\"machine\":{\"podHostId\":\"pod0000000-64410a0b\"}}}}",
                  "{\"input\":{\"cloudType\":\"ALL\",\"containerDiskInGb\":10,\"dockerArgs\":\"\","
                  "\"env\":[{\"key\":\"A\",\"value\":\"b\"},{\"key\":\"B\",\"value\":\"\\\"q\\\"\\n\"}]"
                  ",\"gpuCount\":1,\"gpuTypeId\":\"NVIDIA H200\",\"imageName\":\"i\","
                  "\"minMemoryInGb\":1,\"minVcpuCount\":1,\"name\":\"x\",\"startSsh\":true,"
                  "\"supportPublicIp\":true,\"volumeInGb\":0,"
                  "\"volumeMountPath\":\"/runpod-volume\"}}" },
                { "defaults of the schema",
                  "mutation { podFindAndDeployOnDemand(input: {}) { id } }", NULL, NULL,
                  "{\"input\":{\"cloudType\":\"ALL\",\"gpuCount\":1}}" },
                { "enum quoted, enum bare",
                  "mutation { saveEndpoint(input: { name: \"abc\", scalerType: \"QUEUE_DELAY\", "
                  "flashBootType: FLASHBOOT, type: \"QB\", gpuIds: \"AMPERE_16\", idleTimeout: 5, "
                  "scalerValue: 4, workersMin: 0, workersMax: 3 }) { id name } }",
                  NULL, "{\"data\":{\"saveEndpoint\":{\"id\":\"saved\",\"name\":\"saved\"}}}",
                  "{\"input\":{\"flashBootType\":\"FLASHBOOT\",\"gpuIds\":\"AMPERE_16\","
                  "\"idleTimeout\":5,\"name\":\"abc\",\"scalerType\":\"QUEUE_DELAY\","
                  "\"scalerValue\":4,\"type\":\"QB\",\"workersMax\":3,\"workersMin\":0}}" },
                { "commas between selections (dstack)",
                  "{ myself { containerRegistryCreds { id, name } networkVolumes { id, name, size, "
                  "dataCenter { id name, }, } } }",
                  NULL,
                  "{\"data\":{\"myself\":{\"containerRegistryCreds\":[],\"networkVolumes\":[]}}}",
                  NULL },
                { "no commas in an input, blank before a colon",
                  "mutation { podEditJob(input: { podId: \"p\" containerRegistryAuthId : \"r\" }) "
                  "{ id } }",
                  NULL, NULL,
                  "{\"input\":{\"clusterId\":\"p\",\"containerRegistryAuthId\":\"r\"}}" },
                { "commas everywhere", ",,{,myself,{,id,},},", NULL, NULL, NULL },
                { "alias",
                  "{ pod(input: { podId: \"pod0000001\" }) { runtime { ports { "
                  "PortType: type } } } }",
                  NULL,
                  "{\"data\":{\"pod\":{\"runtime\":{\"ports\":[{\"PortType\":\"tcp\"},"
                  "{\"PortType\":\"http\"}]}}}}",
                  NULL },
                { "nullability differs",
                  "mutation S($input: SaveTemplateInput) { saveTemplate(input: "
                  "$input) { id } }",
                  "{\"input\":{\"name\":\"n\",\"imageName\":\"i\",\"containerDiskInGb\":5,"
                  "\"dockerArgs\":\"\"}}",
                  NULL,
                  "{\"input\":{\"containerDiskInGb\":5,\"dockerArgs\":\"\",\"imageName\":\"i\","
                  "\"isPublic\":false,\"isServerless\":false,\"name\":\"n\"}}" },
                { "declared but unused", "query Q($x: Int, $y: [Foo!]!) { myself { id } }", "{}",
                  NULL, NULL },
                { "supplied but not declared (gpuhunt)", "query Q { gpuTypes { id } }",
                  "{\"secureCloud\":true}", "{\"data\":{\"gpuTypes\":[{\"id\":\"NVIDIA H200\"}]}}",
                  NULL },
                { "supplied, used, not declared", "query Q { gpuTypes(input: { id: $id }) { id } }",
                  "{\"id\":\"x\"}", NULL, "{\"input\":{\"id\":\"x\"}}" },
                { "variable of another type",
                  "query Q($id: Int) { gpuTypes(input: {id: $id}) { id } }", "{\"id\":\"x\"}", NULL,
                  "{\"input\":{\"id\":\"x\"}}" },
                { "default of a variable",
                  "query Q($n: Int = 4) { gpuTypes { lowestPrice(input: { gpuCount: $n }) { "
                  "uninterruptablePrice minMemory } } }",
                  NULL,
                  "{\"data\":{\"gpuTypes\":[{\"lowestPrice\":{\"uninterruptablePrice\":3.59,"
                  "\"minMemory\":4}}]}}",
                  "{\"input\":{\"gpuCount\":4}}" },
                { "runpodctl get cloud",
                  "query LowestPrice($input: GpuLowestPriceInput!) { gpuTypes { lowestPrice(input: "
                  "$input) { gpuName gpuTypeId minimumBidPrice uninterruptablePrice minMemory "
                  "minVcpu } } }",
                  "{\"input\":{\"gpuCount\":1,\"secureCloud\":null,\"totalDisk\":10}}", NULL,
                  "{\"input\":{\"gpuCount\":1,\"totalDisk\":10}}" },
                { "scalar without a selection",
                  "mutation { podTerminate(input: { podId: \"pod0000001\" }) }", NULL,
                  "{\"data\":{\"podTerminate\":null}}", NULL },
                { "deleteTemplate", "mutation { deleteTemplate(templateName: \"t\") }", NULL,
                  "{\"data\":{\"deleteTemplate\":null}}", "{\"templateName\":\"t\"}" },
                { "deleteEndpoint", "mutation { deleteEndpoint(id: \"e\") }", NULL,
                  "{\"data\":{\"deleteEndpoint\":null}}", NULL },
                { "deleteNetworkVolume", "mutation { deleteNetworkVolume(input: {id: \"v\"}) }",
                  NULL, "{\"data\":{\"deleteNetworkVolume\":null}}", NULL },
                { "deleteRegistryAuth", "mutation { deleteRegistryAuth(registryAuthId: \"r\") }",
                  NULL, "{\"data\":{\"deleteRegistryAuth\":null}}", NULL },
                { "secretDelete", "mutation { secretDelete(id: \"s\") }", NULL,
                  "{\"data\":{\"secretDelete\":null}}", NULL },
                { "unknown input field (objectMounts)",
                  "mutation { podFindAndDeployOnDemand(input: { imageName: \"i\", objectMounts: [{a: "
                  "1, b: {c: [2, 3]}}] }) { id } }",
                  NULL, NULL,
                  "{\"input\":{\"cloudType\":\"ALL\",\"gpuCount\":1,\"imageName\":\"i\"}}" },
                { "unknown input field in a variable",
                  "mutation M($input: PodStopInput!) { podStop(input: $input) { id } }",
                  "{\"input\":{\"podId\":\"pod0000001\",\"newThing\":{\"a\":[1]}}}",
                  "{\"data\":{\"podStop\":{\"id\":\"pod0000001\"}}}",
                  "{\"input\":{\"clusterId\":\"pod0000001\"}}" },
                { "every known field answers null",
                  "{ pod(input: {podId: \"pod0000001\"}) { dockerId "
                  "port locked clusterIp latestTelemetry { state } "
                  "savingsPlans { id } } }",
                  NULL,
                  "{\"data\":{\"pod\":{\"dockerId\":null,\"port\":null,\"locked\":null,"
                  "\"clusterIp\":null,\"latestTelemetry\":null,\"savingsPlans\":null}}}",
                  NULL },
                { "podBidResume without gpuCount",
                  "mutation { podBidResume(input: {podId: \"p\", bidPerGpu: 0.2}) { id } }", NULL,
                  "", "{\"input\":{\"bidPerGpu\":0.2,\"clusterId\":\"p\"}}" },
                { "a fragment, an inline fragment, __typename, directives",
                  "query Q($y: Boolean!, $n: Boolean = false) { pod(input: {podId: \"pod0000002\"}) { "
                  "...F ... on Pod { name @include(if: $y) gpuCount @skip(if: $y) } ... @include(if: "
                  "$n) { ports } __typename } } fragment F on Pod { id machine { location } }",
                  "{\"y\":true}",
                  "{\"data\":{\"pod\":{\"id\":\"pod0000002\",\"machine\":{\"location\":\"DE\"},"
                  "\"name\":\"my pod 2\",\"__typename\":\"Pod\"}}}",
                  NULL },
                { "the other spelling",
                  "mutation { clusterFindAndDeployOnDemand(input: { imageName: \"i\" }) { id "
                  "__typename machineId machine { clusterHostId __typename } } }",
                  NULL,
                  "{\"data\":{\"clusterFindAndDeployOnDemand\":{\"id\":\"pod0000000\","
                  "\"__typename\":\"Cluster\",\"machineId\":\"pod0000000-64410a0b\","
                  "\"machine\":{\"clusterHostId\":\"pod0000000-64410a0b\","
                  "\"__typename\":\"ClusterMachineInfo\"}}}}",
                  NULL },
                { "clusterId", "{ cluster(input: { clusterId: \"pod0000003\" }) { id } }", NULL,
                  "{\"data\":{\"cluster\":{\"id\":\"pod0000003\"}}}", NULL },
                { "podId in the cluster spelling",
                  "{ cluster(input: { podId: \"pod0000003\" }) { id } }", NULL,
                  "{\"data\":{\"cluster\":{\"id\":\"pod0000003\"}}}", NULL },
                { "TensorOne's endpoints",
                  "{ myself { endpoints { gpuIds id idleTimeout clusters { desiredStatus } } "
                  "serverlessDiscount { discountFactor type expirationDate } } }",
                  NULL, "{\"data\":{\"myself\":{\"endpoints\":[],\"serverlessDiscount\":null}}}",
                  NULL },
                { "numbers as text and as float",
                  "mutation { podFindAndDeployOnDemand(input: { containerDiskInGb: \"20\", volumeInGb: "
                  "8.0, deployCost: 1, minVcpuCount: \"\", gpuCount: \"2\" }) { id } }",
                  NULL, NULL,
                  "{\"input\":{\"cloudType\":\"ALL\",\"containerDiskInGb\":20,\"deployCost\":1.0,"
                  "\"gpuCount\":2,\"volumeInGb\":8}}" },
                { "one value for a list", "{ gpuTypes(input: { ids: \"a\" }) { id } }", NULL, NULL,
                  "{\"input\":{\"ids\":[\"a\"]}}" },
                { "a block string and comments",
                  "mutation { # create\n podFindAndDeployOnDemand(input: { dockerArgs: \"\"\"\n   "
                  "bash\n     -c \\\"\"\"\n  \"\"\" }) { id } }",
                  NULL, NULL,
                  "{\"input\":{\"cloudType\":\"ALL\",\"dockerArgs\":\"bash\\n  -c \\\"\\\"\\\"\","
                  "\"gpuCount\":1}}" },
                { "unicode escapes",
                  "mutation { deleteTemplate(templateName: \"\\u00e9\\ud83d\\ude00\\u{1F600}\") }",
                  NULL, NULL, "{\"templateName\":\"\303\251\360\237\230\200\360\237\230\200\"}" },
        };
        struct world *w = *state;

        for (size_t i = 0; i < NELEM(t); i++) {
                const char *body = world_ask(w, t[i].query, t[i].vars, NULL);
                bool any = t[i].body && !*t[i].body; /* resolver error is fine */

                if (!body || w->status != 200 || (!any && strstr(body, "\"errors\"")))
                        fail_msg("%s: %u %s", t[i].what, w->status, body ? body : "-");
                if (t[i].body && !any && strcmp(body, t[i].body) != 0)
                        fail_msg("%s:\n got %s\nwant %s", t[i].what, body, t[i].body);
                if (t[i].args && strcmp(w->last_args, t[i].args) != 0)
                        fail_msg("%s: arguments\n got %s\nwant %s", t[i].what, w->last_args,
                                 t[i].args);
        }
}

static void test_operation_name(void **state)
{
        static const char two[] = "query A { myself { id } } query B { gpuTypes { id } }";
        struct world *w = *state;

        assert_string_equal(world_ask(w, two, NULL, "B"),
                            "{\"data\":{\"gpuTypes\":[{\"id\":\"NVIDIA H200\"}]}}");
        assert_string_equal(world_ask(w, two, NULL, "A"),
                            "{\"data\":{\"myself\":{\"id\":\"user1\"}}}");
        assert_non_null(strstr(world_ask(w, two, NULL, NULL), "operationName must say"));
        assert_int_equal(w->status, 400);
        assert_non_null(strstr(world_ask(w, two, NULL, "C"), "no operation \\\"C\\\""));
        assert_int_equal(w->status, 400);
        assert_non_null(strstr(world_ask(w, "{ myself { id } }", NULL, ""), "user1"));
}

/* myPods: every field in its place, numbers without a point, lists as lists. */
static void test_my_pods(void **state)
{
        static const char first[] =
                "{\"data\":{\"myself\":{\"pods\":[{\"id\":\"pod0000000\",\"containerDiskInGb\":20,"
                "\"costPerHr\":3.59,\"desiredStatus\":\"RUNNING\",\"dockerArgs\":\"python run.py\","
                "\"dockerId\":null,\"env\":[\"MODE=serve\",\"PORT=8888\",\"JUPYTER=0\","
                "\"NAME=\\\"q\\\"\"],\"gpuCount\":1,\"imageName\":\"tensorone/llm-starter:v1\","
                "\"lastStatusChange\":\"Rented by User: Sun Nov 22 2026\","
                "\"machineId\":\"pod0000000-64410a0b\",\"memoryInGb\":188,\"name\":\"my pod 0\","
                "\"podType\":null,\"port\":null,\"ports\":\"8888/http,22/tcp\","
                "\"uptimeSeconds\":86400,\"vcpuCount\":16,\"volumeInGb\":40,"
                "\"volumeMountPath\":\"/workspace\",\"machine\":{\"gpuDisplayName\":\"H200 SXM\","
                "\"location\":\"DE\"},\"runtime\":{\"ports\":[{\"ip\":\"203.0.113.7\","
                "\"isIpPublic\":true,\"privatePort\":22,\"publicPort\":40000,\"PortType\":\"tcp\"},"
                "{\"ip\":\"100.65.0.2\",\"isIpPublic\":false,\"privatePort\":8888,"
                "\"publicPort\":60000,\"PortType\":\"http\"}]}},{\"id\":\"pod0000001\"";
        struct world *w = *state;
        const char *body = world_ask(w, world_my_pods, NULL, NULL);

        if (strncmp(body, first, sizeof first - 1) != 0)
                fail_msg("%.1200s", body);
        assert_null(strstr(body, "errors"));
}

static void test_body(void **state)
{
        static const struct {
                const char *body;
                unsigned status;
                const char *has;
        } t[] = {
                { "{\"query\":\"{ myself { id } }\"}", 200, "\"user1\"" },
                { "{\"query\":\"{ myself { id } }\",\"variables\":null,\"operationName\":null}",
                  200, "\"user1\"" },
                { "{\"query\":\"query A { myself { id } }\",\"operationName\":\"A\"}", 200,
                  "\"user1\"" },
                { "", 400, "GRAPHQL_PARSE_FAILED" },
                { "{\"query\":", 400, "body: not JSON" },
                { "[]", 400, "BAD_USER_INPUT" },
                { "{}", 400, "\\\"query\\\"" },
                { "{\"query\":7}", 400, "\\\"query\\\"" },
                { "{\"query\":\"{ myself { id } }\",\"variables\":[]}", 400, "variables: must be" },
                { "{\"query\":\"{ myself { id } }\",\"variables\":\"{}\"}", 400, "variables" },
                { "{\"query\":\"{ myself { id } }\",\"operationName\":1}", 400, "operationName" },
                { "{\"query\":\"\"}", 400, "no operation" },
                { "{\"query\":\"# nothing\"}", 400, "no operation" },
        };
        struct world *w = *state;

        for (size_t i = 0; i < NELEM(t); i++) {
                const char *body = world_post(w, t[i].body, strlen(t[i].body));

                if (!body || w->status != t[i].status || !strstr(body, t[i].has))
                        fail_msg("row %zu: %u %s", i, w->status, body ? body : "-");
        }
}

/* Section 1.3 and 1.5: status, code and the messages that clients look for. */
static void test_statuses(void **state)
{
        static const struct {
                enum gql_right may;
                const char *query;
                unsigned status;
                const char *body;
        } t[] = {
                { GQL_WRITE, "mutation { podTerminate(input: {podId: \"nope\"}) }", 200,
                  "{\"data\":{\"podTerminate\":null},\"errors\":[{\"message\":"
                  "\"pod not found to terminate\",\"locations\":[{\"line\":1,\"column\":12}],"
                  "\"path\":[\"podTerminate\"],\"extensions\":{\"code\":\"NOT_FOUND\"}}]}" },
                { GQL_WRITE, "mutation { clusterTerminate(input: {clusterId: \"nope\"}) }", 200,
                  "{\"data\":{\"clusterTerminate\":null},\"errors\":[{\"message\":"
                  "\"cluster not found to terminate\",\"locations\":[{\"line\":1,\"column\":12}],"
                  "\"path\":[\"clusterTerminate\"],\"extensions\":{\"code\":\"NOT_FOUND\"}}]}" },
                { GQL_WRITE, "mutation { deleteCluster(input: {id: \"nope\"}) }", 200,
                  "{\"data\":{\"deleteCluster\":null},\"errors\":[{\"message\":\"no such cluster\","
                  "\"locations\":[{\"line\":1,\"column\":12}],\"path\":[\"deleteCluster\"],"
                  "\"extensions\":{\"code\":\"Cluster not found\"}}]}" },
                { GQL_ADMIN,
                  "mutation { createNetworkVolume(input: {name: \"n\", size: 0, dataCenterId: \"d\"}) "
                  "{ id } }",
                  400,
                  "{\"data\":{\"createNetworkVolume\":null},\"errors\":[{\"message\":"
                  "\"size: 0 is below 1 GB\",\"locations\":[{\"line\":1,\"column\":12}],"
                  "\"path\":[\"createNetworkVolume\"],\"extensions\":{\"code\":\"BAD_USER_INPUT\"}}]}" },
                { GQL_ANYONE, "{ gpuTypes { id } }", 200,
                  "{\"data\":{\"gpuTypes\":[{\"id\":\"NVIDIA H200\"}]}}" },
                { GQL_ANYONE, "{ __schema { queryType { name } } }", 200,
                  "{\"data\":{\"__schema\":{\"queryType\":{\"name\":\"Query\"}}}}" },
                { GQL_ANYONE, "{ gpuTypes { id } myself { id } }", 401,
                  "{\"errors\":[{\"message\":\"unauthorized: this needs an API key (Authorization: Bearer "
                  "KEY), and a valid one\",\"extensions\":{\"code\":\"UNAUTHENTICATED\"}}]}" },
                { GQL_ANYONE, "{ myModels { id } }", 401, NULL },
                { GQL_READ, "{ myModels { anything { at all } } }", 200,
                  "{\"data\":null,\"errors\":[{\"message\":\"myModels is not available on this engine\","
                  "\"locations\":[{\"line\":1,\"column\":3}],\"path\":[\"myModels\"],"
                  "\"extensions\":{\"code\":\"NOT_IMPLEMENTED\"}}]}" },
        };
        struct world *w = *state;

        for (size_t i = 0; i < NELEM(t); i++) {
                const char *body;

                w->may = t[i].may;
                body = world_ask(w, t[i].query, NULL, NULL);
                if (!body || w->status != t[i].status ||
                    (t[i].body && strcmp(body, t[i].body) != 0))
                        fail_msg("%s: %u\n got %s\nwant %s", t[i].query, w->status, body,
                                 t[i].body);
        }
}

static void test_held(void **state)
{
        static const char q[] = "mutation { podStop(input: {podId: \"pod0000001\"}) { id "
                                "desiredStatus } }";
        struct world *w = *state;
        struct gql_request *r = NULL;

        w->hold = true;
        assert_null(world_ask(w, q, NULL, NULL)); /* freed while it waits */
        assert_false(gql_pending_wanted(w->pending));
        gql_complete(w->pending, &w->pods[1]);
        assert_null(w->body);

        assert_int_equal(gql_request_new(w->schema, q, sizeof q - 1, NULL, NULL, w, &r), 0);
        gql_run(r, world_done, w);
        assert_null(w->body);
        w->pods[1].status = "EXITED";
        gql_complete(w->pending, &w->pods[1]);
        assert_string_equal(w->body, "{\"data\":{\"podStop\":{\"id\":\"pod0000001\","
                                     "\"desiredStatus\":\"EXITED\"}}}");
        gql_request_free(r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_accepted, up, down),
                cmocka_unit_test_setup_teardown(test_operation_name, up, down),
                cmocka_unit_test_setup_teardown(test_my_pods, up, down),
                cmocka_unit_test_setup_teardown(test_body, up, down),
                cmocka_unit_test_setup_teardown(test_statuses, up, down),
                cmocka_unit_test_setup_teardown(test_held, up, down),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
