/* test_gql_schema.c - schema text, rows that do not fit it, and the contract itself: both spellings say
 * the same, and every operation of the API is there. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "control/graphql/schema.h"
#include "gql_world.h"

static int allow(void *ctx, enum gql_right need, struct err *e)
{
        (void) ctx;
        (void) need;
        (void) e;
        return 0;
}

static const struct gql_ops ops = { .allow = allow };

static void test_text_refused(void **state)
{
        static const struct {
                const char *sdl, *says;
        } t[] = {
                { "", "no type Query" },
                { "type Foo { a: Int }", "no type Query" },
                { "type Query { a: Foo }", "Query.a: unknown type Foo" },
                { "type Query { a: Int a: Int }", "schema: Query: \"a\" is there twice" },
                { "type Query { a: Int } type Query { b: Int }", "\"Query\" is there twice" },
                { "type Query { }", "Query is empty" },
                { "type Query { a: [[Int]] }", "line 1 column 18: expected a type" },
                { "type Query { a: Int } interface X { b: Int }", "expected scalar, enum, input" },
                { "type Query { a: Int } union U = A", "expected scalar, enum, input" },
                { "type Query { a: Int }\nextend type Query { b: Int }", "line 2 column 1" },
                { "type Query { a(b: Query): Int }",
                  "Query.b: Query cannot be used for a value given" },
                { "input I { a: Int } type Query { a: I }",
                  "Query.a: I cannot be used for an answer" },
                { "type Query { __a: Int }", "belong to introspection" },
                { "type __X { a: Int } type Query { a: Int }", "belong to introspection" },
                { "type Query { a(b: Int = \"x\"): Int }", "a.b: default" },
                { "type Query { a(b: Int = $x): Int }", "expected a constant value" },
                { "enum E { A A } type Query { a: Int }", "schema: E: \"A\" is there twice" },
                { "schema { query: Root } type Root { a: Int }", "expected query: Query" },
                { "type Query { a: Int @foo }", "unknown directive" },
                { "type Query { a: Int ", "expected" },
                { "type Query { \"\"\"x }", "a block string is not closed" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct gql_schema *s = NULL;
                struct err e = { 0 };
                int r = gql_schema_new(t[i].sdl, strlen(t[i].sdl), NULL, 0, &ops, &s, &e);

                if (r != -EINVAL || s || !strstr(e.msg, t[i].says))
                        fail_msg("row %zu '%s': r=%d %s", i, t[i].sdl, r, e.msg);
        }
}

static int nothing(struct gql_call *c, const void *obj, struct err *e)
{
        (void) c;
        (void) obj;
        (void) e;
        return 0;
}

static void test_rows_refused(void **state)
{
        static const char sdl[] = "type Query { a: T pods: [Pod!]! clusters: [Cluster!]! } "
                                  "type T { id: String! n: Int l: [String!] o: T } "
                                  "type Pod { podId: String! } type Cluster { clusterId: String! }";
        static const struct {
                const char *type;
                struct gql_field row;
                const char *says; /* NULL: fits */
        } t[] = {
                { "Query", { "a", "T", GQL_READ, nothing, GQL_GET_FN, 0 }, NULL },
                { "Query", { "@s", "[@!]!", GQL_READ, nothing, GQL_GET_FN, 0 }, NULL },
                { "@", { "@Id", "String!", GQL_READ, NULL, GQL_GET_STR, 0 }, NULL },
                { "T", { "id", "String!", GQL_READ, NULL, GQL_GET_STR, 0 }, NULL },
                { "T",
                  { "n", "Int", GQL_READ, NULL, GQL_GET_U32, 0 },
                  "T.id is String! and has no row" },
                { "Nope", { "n", "Int", GQL_READ, NULL, GQL_GET_U32, 0 }, "no such object type" },
                { "T", { "x", "Int", GQL_READ, NULL, GQL_GET_U32, 0 }, "T.x: not in the schema" },
                { "T",
                  { "id", "String", GQL_READ, NULL, GQL_GET_STR, 0 },
                  "T.id: the row says String, the schema String!" },
                { "T",
                  { "id", "String!", GQL_RIGHT_NONE, NULL, GQL_GET_STR, 0 },
                  "names no right" },
                { "T", { "id", "String!", GQL_READ, NULL, GQL_GET_FN, 0 }, "either fn or get" },
                { "T", { "id", "String!", GQL_READ, nothing, GQL_GET_STR, 0 }, "either fn or get" },
                { "T",
                  { "id", "String!", GQL_READ, NULL, GQL_GET_U32, 0 },
                  "does not make a String!" },
                { "T",
                  { "id", "String!", GQL_READ, NULL, GQL_GET_NULL, 0 },
                  "does not make a String!" },
                { "T", { "n", "Int", GQL_READ, NULL, GQL_GET_STR, 0 }, "does not make a Int" },
                { "T", { "l", "[String!]", GQL_READ, NULL, GQL_GET_STR, 0 }, "does not make" },
                { "T", { "o", "T", GQL_READ, NULL, GQL_GET_STR, 0 }, "does not make" },
                { "Query",
                  { "a", "T", GQL_READ, NULL, GQL_GET_PTR, 0 },
                  "a root field has no object" },
                { "@",
                  { "@", "String!", GQL_READ, nothing, GQL_GET_FN, 0 },
                  "Pod.pod: not in the schema" },
                { "Pod",
                  { "clusterId", "String!", GQL_READ, NULL, GQL_GET_STR, 0 },
                  "not in the schema" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct gql_type type = { t[i].type, &t[i].row, 1 };
                struct gql_schema *s = NULL;
                struct err e = { 0 };
                int r = gql_schema_new(sdl, sizeof sdl - 1, &type, 1, &ops, &s, &e);

                if (r != (t[i].says ? -EINVAL : 0) || (t[i].says && !strstr(e.msg, t[i].says)))
                        fail_msg("row %zu: r=%d %s", i, r, e.msg);
                gql_schema_free(s);
        }
}

static void test_two_rows(void **state)
{
        static const struct gql_field rows[] = { { "a", "Int", GQL_READ, nothing, GQL_GET_FN, 0 },
                                                 { "a", "Int", GQL_READ, nothing, GQL_GET_FN, 0 } };
        static const struct gql_type type = { "Query", rows, 2 };
        struct gql_schema *s = NULL;
        struct err e = { 0 };

        (void) state;
        assert_int_equal(gql_schema_new("type Query { a: Int }", 21, &type, 1, &ops, &s, &e),
                         -EINVAL);
        assert_non_null(strstr(e.msg, "Query.a: two rows"));
        assert_int_equal(gql_schema_new("type Query { a: Int }", 21, NULL, 0,
                                        &(struct gql_ops){ 0 }, &s, &e),
                         -EINVAL);
}

/* ---- the contract ------------------------------------------------------------------------------------ */

static int up(void **state)
{
        struct gql_schema *s = NULL;
        struct err e = { 0 };

        if (gql_schema_new(NULL, 0, NULL, 0, &ops, &s, &e) < 0)
                fail_msg("%s", e.msg);
        *state = s;
        return 0;
}

static int down(void **state)
{
        gql_schema_free(*state);
        return 0;
}

/* Whether @pod becomes @cluster when the noun is exchanged once or not at all. */
static bool twins(const char *pod, const char *cluster)
{
        char as[256];
        const char *at = strstr(pod, "Pod");

        if (strcmp(pod, cluster) == 0)
                return true;
        if (strncmp(pod, "pod", 3) == 0)
                (void) snprintf(as, sizeof as, "cluster%s", pod + 3);
        else if (at)
                (void) snprintf(as, sizeof as, "%.*sCluster%s", (int) (at - pod), pod, at + 3);
        else
                return false;
        return strcmp(as, cluster) == 0;
}

static const struct tref *type_of(const struct stype *t, const struct named *n)
{
        return t->kind == TK_INPUT ? &((const struct sinput *) n)->type
                                   : &((const struct sfield *) n)->type;
}

static void test_spellings(void **state)
{
        const struct gql_schema *s = *state;
        size_t pairs = 0;

        for (const struct named *n = s->types.first; n; n = n->next) {
                const struct stype *pod = (const struct stype *) n;
                const struct named *c, *p;

                if (!pod->twin || !pod->pod)
                        continue;
                pairs++;
                c = pod->twin->members.first;
                for (p = pod->members.first; p && c; p = p->next, c = c->next) {
                        if (!twins(p->name, c->name))
                                fail_msg("%s.%s is %s.%s", n->name, p->name, pod->twin->n.name,
                                         c->name);
                        if (pod->kind != TK_ENUM &&
                            !twins(type_of(pod, p)->text, type_of(pod, c)->text))
                                fail_msg("%s.%s: %s and %s", n->name, p->name,
                                         type_of(pod, p)->text, type_of(pod, c)->text);
                        if (pod->kind == TK_INPUT)
                                assert_string_equal(((const struct sinput *) p)->canon, c->name);
                }
                if (p || c)
                        fail_msg("%s and %s differ in length", n->name, pod->twin->n.name);
        }
        assert_true(pairs >= 20);
        for (const struct named *n = s->types.first; n; n = n->next)
                if (strncmp(n->name, "Pod", 3) == 0 || strncmp(n->name, "deployCpu", 9) == 0)
                        if (!((const struct stype *) n)->twin)
                                fail_msg("%s exists in one spelling", n->name);
}

/* Section 2 of the contract: operation, its arguments, what it returns. */
static void test_operations(void **state)
{
        static const struct {
                bool mutation;
                const char *name, *args, *type;
        } t[] = {
                { true, "podFindAndDeployOnDemand", "input:PodFindAndDeployOnDemandInput", "Pod" },
                { true, "clusterFindAndDeployOnDemand", "input:ClusterFindAndDeployOnDemandInput",
                  "Cluster" },
                { true, "podRentInterruptable", "input:PodRentInterruptableInput!", "Pod" },
                { true, "clusterRentInterruptable", "input:ClusterRentInterruptableInput!",
                  "Cluster" },
                { true, "deployCpuPod", "input:deployCpuPodInput!", "Pod" },
                { true, "deployCpuCluster", "input:deployCpuClusterInput!", "Cluster" },
                { true, "podResume", "input:PodResumeInput!", "Pod" },
                { true, "clusterResume", "input:ClusterResumeInput!", "Cluster" },
                { true, "podBidResume", "input:PodBidResumeInput!", "Pod" },
                { true, "clusterBidResume", "input:ClusterBidResumeInput!", "Cluster" },
                { true, "podStop", "input:PodStopInput!", "Pod" },
                { true, "clusterStop", "input:ClusterStopInput!", "Cluster" },
                { true, "podTerminate", "input:PodTerminateInput!", "Void" },
                { true, "clusterTerminate", "input:ClusterTerminateInput!", "Void" },
                { true, "podEditJob", "input:PodEditJobInput!", "Pod" },
                { true, "clusterEditJob", "input:ClusterEditJobInput!", "Cluster" },
                { false, "pod", "input:PodFilter", "Pod" },
                { false, "cluster", "input:ClusterFilter", "Cluster" },
                { false, "myself", "", "User" },
                { false, "gpuTypes", "input:GpuTypeFilter", "[GpuType!]!" },
                { false, "cpuFlavors", "input:CpuFlavorInput", "[CpuFlavor!]!" },
                { false, "cpuTypes", "", "[CpuType!]!" },
                { false, "dataCenters", "", "[DataCenter!]!" },
                { false, "countryCodes", "", "[String!]!" },
                { false, "serverlessGpuPools", "", "[ServerlessGpuPool!]!" },
                { false, "podTemplates", "input:PodTemplateInput", "[Template!]!" },
                { false, "clusterTemplates", "input:ClusterTemplateInput", "[Template!]!" },
                { false, "podTemplate", "id:String!", "Template" },
                { false, "clusterTemplate", "id:String!", "Template" },
                { true, "saveTemplate", "input:SaveTemplateInput", "Template" },
                { true, "deleteTemplate", "templateName:String!", "Void" },
                { true, "saveEndpoint", "input:EndpointInput!", "Endpoint" },
                { true, "deleteEndpoint", "id:String!", "Void" },
                { true, "updateEndpointTemplate", "input:UpdateEndpointTemplateInput", "Endpoint" },
                { true, "saveRegistryAuth", "input:SaveRegistryAuthInput",
                  "ContainerRegistryAuth" },
                { true, "updateRegistryAuth", "input:UpdateRegistryAuthInput",
                  "ContainerRegistryAuth" },
                { true, "deleteRegistryAuth", "registryAuthId:String!", "Void" },
                { true, "createNetworkVolume", "input:CreateNetworkVolumeInput!", "NetworkVolume" },
                { true, "updateNetworkVolume", "input:UpdateNetworkVolumeInput!", "NetworkVolume" },
                { true, "deleteNetworkVolume", "input:DeleteNetworkVolumeInput!", "Void" },
                { true, "updateUserSettings", "input:UpdateUserSettingsInput", "User" },
                { true, "secretCreate", "input:SecretCreateInput!", "Secret" },
                { true, "secretDelete", "id:String!", "Void" },
                { true, "createCluster", "input:CreateClusterInput!", "MultiNodeCluster" },
                { true, "deleteCluster", "input:DeleteClusterInput!", "Boolean" },
                { false, "listings", "input:JSON", "[Listing!]!" },
                { false, "listing", "id:String input:JSON", "Listing" },
                { false, "myModels", "input:JSON", "[Model!]!" },
                { false, "machines", "", "[Machine!]!" },
        };
        const struct gql_schema *s = *state;

        for (size_t i = 0; i < NELEM(t); i++) {
                const struct stype *root = t[i].mutation ? s->mutation : s->query;
                const struct sfield *f = names_find(&root->members, t[i].name, strlen(t[i].name));
                char args[256] = "";

                if (!f)
                        fail_msg("%s is missing", t[i].name);
                for (const struct named *a = f->args.first; a; a = a->next)
                        (void) snprintf(args + strlen(args), sizeof args - strlen(args), "%s%s:%s",
                                        args[0] ? " " : "", a->name,
                                        ((const struct sinput *) a)->type.text);
                if (strcmp(args, t[i].args) != 0 || strcmp(f->type.text, t[i].type) != 0)
                        fail_msg("%s(%s): %s", t[i].name, args, f->type.text);
        }
}

/* Sections 2.1 to 2.3: every field of every object and input, in the pod spelling. */
static void test_members(void **state)
{
        static const struct {
                const char *type, *fields;
        } t[] = {
                { "PodFindAndDeployOnDemandInput",
                  "imageName templateId gpuTypeId gpuType gpuTypeIdList gpuCount cloudType name containerDiskInGb "
                  "volumeInGb volumeKey volumeMountPath networkVolumeId dockerArgs env ports port "
                  "minMemoryInGb minVcpuCount minDisk minDownload minUpload countryCode dataCenterId "
                  "deployCost supportPublicIp startSsh startJupyter cudaVersion minCudaVersion "
                  "allowedCudaVersions containerRegistryAuthId stopAfter terminateAfter computeType "
                  "instanceIds savingsPlan compliance globalNetwork aiApiId securityProfile egressAllow idleTimeoutSeconds idleAction readinessPath" },
                { "PodRentInterruptableInput",
                  "imageName gpuTypeId bidPerGpu env stopAfter securityProfile egressAllow idleTimeoutSeconds idleAction readinessPath" },
                { "deployCpuPodInput",
                  "name imageName instanceId cloudType deployCost startSsh startJupyter dataCenterId "
                  "containerDiskInGb dockerArgs ports volumeMountPath env templateId networkVolumeId "
                  "containerRegistryAuthId countryCode minDownload minUpload volumeKey securityProfile egressAllow idleTimeoutSeconds idleAction readinessPath" },
                { "PodResumeInput", "podId gpuCount syncMachine computeType allowedCudaVersions" },
                { "PodBidResumeInput", "podId bidPerGpu gpuCount" },
                { "PodStopInput", "podId incrementVersion" },
                { "PodTerminateInput", "podId" },
                { "PodFilter", "podId" },
                { "PodEditJobInput",
                  "podId dockerArgs imageName env port ports containerDiskInGb volumeInGb "
                  "volumeMountPath containerRegistryAuthId" },
                { "GpuTypeFilter", "id ids cluster" },
                { "GpuLowestPriceInput",
                  "gpuCount minMemoryInGb minVcpuCount minDisk totalDisk minDownload minUpload "
                  "secureCloud countryCode dataCenterId supportPublicIp includeAiApi cudaVersion "
                  "minCudaVersion allowedCudaVersions compliance" },
                { "SaveTemplateInput",
                  "id name imageName containerDiskInGb volumeInGb dockerArgs env ports volumeMountPath "
                  "isServerless isPublic startSsh startJupyter startScript advancedStart readme "
                  "containerRegistryAuthId portsConfig category securityProfile egressAllow idleTimeoutSeconds idleAction readinessPath" },
                { "EndpointInput",
                  "id name templateId template hubReleaseId gpuIds gpuCount instanceIds networkVolumeId "
                  "networkVolumeIds locations idleTimeout scalerType scalerValue workersMin workersMax "
                  "workersStandby flashBootType allowedCudaVersions minCudaVersion executionTimeoutMs "
                  "modelReferences type" },
                { "CreateClusterInput",
                  "clusterName gpuTypeId podCount gpuCountPerPod imageName type deployCost templateId "
                  "networkVolumeId volumeInGb throughput allowedCudaVersions volumeKey dataCenterId "
                  "startJupyter startSsh containerDiskInGb dockerArgs env volumeMountPath ports" },
                { "Pod",
                  "id name imageName desiredStatus lastStatusChange lastStartedAt createdAt costPerHr "
                  "adjustedCostPerHr costMultiplier podType gpuCount gpus gpuPowerLimitPercent vcpuCount "
                  "memoryInGb containerDiskInGb volumeInGb volumeMountPath volumeKey volumeEncrypted "
                  "networkVolumeId networkVolume dockerArgs dockerId env ports port machineId machine "
                  "runtime templateId containerRegistryAuthId registry uptimeSeconds "
                  "lowestBidPriceToResume locked consumerUserId apiKey aiApiId endpoint slsVersion "
                  "cpuFlavorId machineType savingsPlans version clusterIp latestTelemetry phase "
                  "progressPercent progressBytes progressTotalBytes progressBytesPerSecond reason "
                  "security securityProfile egressAllow idleTimeoutSeconds idleAction idleSeconds lastUse urls readinessPath" },
                { "PodGpu", "id podId" },
                { "PodRegistry", "url user username" },
                { "PodRuntime", "uptimeInSeconds ports gpus container" },
                { "PodRuntimePort", "ip isIpPublic privatePort publicPort type" },
                { "PodRuntimeGpu", "id gpuUtilPercent memoryUtilPercent" },
                { "PodRuntimeContainer", "cpuPercent memoryPercent cpuPressurePercent "
                                         "memoryPressurePercent ioPressurePercent" },
                { "PodTelemetry", "state time cpuUtilization memoryUtilization averageGpuMetrics "
                                  "individualGpuMetrics lastStateTransitionTimestamp" },
                { "PodGpuMetrics",
                  "id percentUtilization temperatureCelcius memoryUtilization powerWatts" },
                { "PodMachineInfo",
                  "id podHostId costPerHr currentPricePerGpu gpuDisplayName gpuTypeId gpuType "
                  "gpuAvailable minPodGpuCount location dataCenterId secureCloud supportPublicIp listed "
                  "diskMBps maxDownloadSpeedMbps maxUploadSpeedMbps maintenanceStart maintenanceEnd "
                  "maintenanceNote note machineType machineSystem cpuTypeId cpuType cpuCount vcpuTotal "
                  "vcpuReserved memoryTotal memoryReserved runpodIp" },
                { "MachineSystem",
                  "os cudaVersion diskTotal diskFree dockerVersion kernelVersion" },
                { "User",
                  "id authId email pubKey clientBalance currentSpendPerHr spendLimit machineQuota "
                  "maxServerlessConcurrency minBalance underBalance notifyPodsStale notifyPodsGeneral "
                  "notifyLowBalance pods clusters endpoints endpoint networkVolumes podTemplates "
                  "containerRegistryCreds apiKeys secrets spendDetails serverlessDiscount billing" },
                { "NetworkVolume", "id name size dataCenterId dataCenter" },
                { "SpendDetails", "localStoragePerHour networkStoragePerHour gpuComputePerHour" },
                { "ServerlessDiscount",
                  "userId type discountFactor expirationDate activeDiscountFactor "
                  "activeWorkers" },
                { "Endpoint",
                  "id name type userId version aiKey templateId template gpuIds gpuCount instanceIds "
                  "computeType locations networkVolumeId networkVolume networkVolumeIds idleTimeout "
                  "scalerType scalerValue workersMin workersMax workersStandby allowedCudaVersions "
                  "minCudaVersion executionTimeoutMs flashBootType modelReferences env createdAt pods "
                  "clusters workerState webhookRequests" },
                { "EndpointNetworkVolume", "networkVolumeId dataCenterId" },
                { "Template",
                  "id name imageName dockerArgs containerDiskInGb volumeInGb volumeMountPath ports "
                  "portsConfig env isServerless isPublic isRunpod category readme startSsh startJupyter "
                  "startScript advancedStart containerRegistryAuthId securityProfile egressAllow idleTimeoutSeconds idleAction readinessPath" },
                { "GpuType",
                  "id displayName manufacturer memoryInGb cudaCores maxGpuCount "
                  "maxGpuCountCommunityCloud maxGpuCountSecureCloud minPodGpuCount secureCloud "
                  "communityCloud securePrice communityPrice secureSpotPrice communitySpotPrice "
                  "oneWeekPrice oneMonthPrice threeMonthPrice sixMonthPrice oneYearPrice clusterPrice "
                  "nodeGroupGpuSizes nodeGroupDatacenters throughput lowestPrice" },
                { "LowestPrice",
                  "gpuName gpuTypeId minimumBidPrice uninterruptablePrice minMemory minVcpu minDisk "
                  "minDownload minUpload rentalPercentage rentedCount totalCount stockStatus countryCode "
                  "supportPublicIp compliance maxUnreservedGpuCount availableGpuCounts" },
                { "CpuFlavor", "id groupId groupName displayName minVcpu maxVcpu vcpuBurstable "
                               "ramMultiplier diskLimitPerVcpu specifics" },
                { "Specifics", "stockStatus securePrice slsPrice" },
                { "CpuType", "id displayName manufacturer cores threadsPerCore groupId" },
                { "DataCenter", "id name location listed storageSupport gpuAvailability" },
                { "GpuAvailability", "gpuTypeId displayName stockStatus available" },
                { "ServerlessGpuPool", "id gpuTypeIds" },
                { "Listing",
                  "id title repoName repoOwner description category type tags stars views "
                  "deploys language createdAt updatedAt" },
                { "Machine", "id name location listed gpuType gpuTotal secureCloud dataCenterId" },
                { "PodStatus", "CREATED RUNNING RESTARTING EXITED PAUSED DEAD TERMINATED" },
                { "PodType", "RESERVED INTERRUPTABLE BID BACKGROUND" },
                { "CloudTypeEnum", "ALL SECURE COMMUNITY" },
        };
        const struct gql_schema *s = *state;

        for (size_t i = 0; i < NELEM(t); i++) {
                const struct stype *type = names_find(&s->types, t[i].type, strlen(t[i].type));

                if (!type)
                        fail_msg("%s is missing", t[i].type);
                for (const char *p = t[i].fields; *p; p += strspn(p, " ")) {
                        size_t n = strcspn(p, " ");

                        if (!names_find(&type->members, p, n))
                                fail_msg("%s.%.*s is missing", t[i].type, (int) n, p);
                        p += n;
                }
        }
}

static void test_nearest(void **state)
{
        static const struct {
                const char *name, *near;
        } t[] = {
                { "nam", "name" },          { "imagename", "imageName" },
                { "gpucount", "gpuCount" }, { "desiredState", "desiredStatus" },
                { "zzzzzzzz", NULL },       { "x", NULL },
                { "prots", "ports" },       { "", NULL },
        };
        const struct gql_schema *s = *state;
        const struct stype *pod = names_find(&s->types, "Pod", 3);

        for (size_t i = 0; i < NELEM(t); i++) {
                const struct named *n = names_nearest(&pod->members, t[i].name, strlen(t[i].name));

                if (!str_eq(n ? n->name : NULL, t[i].near))
                        fail_msg("%s: %s", t[i].name, n ? n->name : "-");
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_text_refused),
                cmocka_unit_test(test_rows_refused),
                cmocka_unit_test(test_two_rows),
                cmocka_unit_test_setup_teardown(test_spellings, up, down),
                cmocka_unit_test_setup_teardown(test_operations, up, down),
                cmocka_unit_test_setup_teardown(test_members, up, down),
                cmocka_unit_test_setup_teardown(test_nearest, up, down),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
