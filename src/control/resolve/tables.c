/* tables.c - every type that the control plane answers, field by field, in schema order; and who
 * may ask.  The functions are in the other files of this folder.  tensorone-api, loop thread. */
#include <assert.h>
#include <errno.h>

#include "control/resolve/resolve_priv.h"

#define FN(n, t, need, f)                                                                          \
        {                                                                                          \
                n, t, need, f, GQL_GET_FN, 0                                                       \
        }
#define AT(n, t, need, get, s, m)                                                                  \
        {                                                                                          \
                n, t, need, NULL, GQL_GET_##get, offsetof(struct s, m)                             \
        }
#define SAME(n, t, need)                                                                           \
        {                                                                                          \
                n, t, need, NULL, GQL_GET_SELF, 0                                                  \
        }
#define EMPTY(n, t, need)                                                                          \
        {                                                                                          \
                n, t, need, r_empty_list, GQL_GET_FN, 0                                            \
        }
#define NELEMS(t) t, NELEM(t)

int r_empty_list(struct gql_call *c, const void *obj, struct err *e)
{
        int r = gql_list_begin(c);

        (void) obj;
        (void) e;
        return r < 0 ? r : gql_list_end(c);
}

static const struct gql_field query_fields[] = {
        FN("@", "@", GQL_SELF, q_cluster),
        FN("@Templates", "[Template!]!", GQL_ANYONE, q_templates),
        FN("@Template", "Template", GQL_ANYONE, q_template),
        FN("myself", "User", GQL_SELF, q_myself),
        FN("gpuTypes", "[GpuType!]!", GQL_ANYONE, q_gpu_types),
        FN("cpuFlavors", "[CpuFlavor!]!", GQL_ANYONE, q_cpu_flavors),
        FN("cpuTypes", "[CpuType!]!", GQL_ANYONE, q_cpu_types),
        FN("dataCenters", "[DataCenter!]!", GQL_ANYONE, q_data_centers),
        EMPTY("countryCodes", "[String!]!", GQL_ANYONE),
        FN("serverlessGpuPools", "[ServerlessGpuPool!]!", GQL_ANYONE, q_gpu_pools),
        FN("machines", "[Machine!]!", GQL_READ, q_machines),
        FN("gpus", "[HostGpu!]!", GQL_ADMIN, q_gpus),
        FN("gpuVfio", "JSON", GQL_ADMIN, q_gpu_vfio),
        FN("events", "[Event!]!", GQL_READ, q_events),
        EMPTY("listings", "[Listing!]!", GQL_ANYONE),
        EMPTY("myModels", "[Model!]!", GQL_READ),
};

static const struct gql_field mutation_fields[] = {
        FN("@FindAndDeployOnDemand", "@", GQL_WRITE, m_deploy),
        FN("@RentInterruptable", "@", GQL_WRITE, m_rent),
        FN("deployCpu@", "@", GQL_WRITE, m_deploy_cpu),
        FN("@Resume", "@", GQL_SELF, m_resume),
        FN("@BidResume", "@", GQL_SELF, m_resume),
        FN("@Restart", "@", GQL_SELF, m_restart),
        FN("@Stop", "@", GQL_SELF, m_stop),
        FN("@Terminate", "Void", GQL_SELF, m_terminate),
        FN("@EditJob", "@", GQL_WRITE, m_edit),
        FN("gpuRelease", "HostGpu", GQL_ADMIN, m_gpu_release),
        FN("@Update", "@", GQL_WRITE, m_update),
        FN("saveTemplate", "Template", GQL_WRITE, m_save_template),
        FN("deleteTemplate", "Void", GQL_WRITE, m_delete_template),
        FN("updateUserSettings", "User", GQL_WRITE, m_user_settings),
        FN("saveRegistryAuth", "ContainerRegistryAuth", GQL_WRITE, m_save_registry_auth),
        FN("updateRegistryAuth", "ContainerRegistryAuth", GQL_WRITE, m_update_registry_auth),
        FN("deleteRegistryAuth", "Void", GQL_WRITE, m_delete_registry_auth),
        FN("secretCreate", "Secret", GQL_WRITE, m_secret_create),
        FN("secretDelete", "Void", GQL_WRITE, m_secret_delete),
};

/* Where they come from: control/rest/subscribe.c. */
static const struct gql_field subscription_fields[] = {
        SAME("@Events", "Event!", GQL_READ),
        SAME("@Logs", "LogLine!", GQL_READ),
        SAME("@Metrics", "@Telemetry!", GQL_SELF),
};

#define L(n, t, get, m) AT(n, t, GQL_READ, get, log_line_view, m)
static const struct gql_field log_line_rows[] = {
        L("time", "DateTime!", STR, time),
        L("stream", "String!", STR, stream),
        FN("text", "String!", GQL_READ, r_log_text),
        L("whole", "Boolean!", BOOL, whole),
};
#undef L

#define C(n, t, get, m) AT(n, t, GQL_SELF, get, cluster, m)
#define F(n, t, f)      FN(n, t, GQL_SELF, f)
static const struct gql_field cluster_rows[] = {
        C("id", "String!", STR, id),
        C("name", "String!", STR, name),
        C("imageName", "String!", STR, image),
        F("desiredStatus", "@Status!", r_status),
        C("lastStatusChange", "String", STR, status_change),
        C("lastStartedAt", "DateTime", TIME, started_us),
        C("createdAt", "DateTime", TIME, created_us),
        F("phase", "String", r_phase),
        F("progressPercent", "Int", r_progress),
        F("progressBytes", "Float", r_progress_bytes),
        F("progressTotalBytes", "Float", r_progress_total),
        F("progressBytesPerSecond", "Float", r_progress_rate),
        C("reason", "String", STR, reason),
        F("security", "JSON", r_security),
        F("costPerHr", "Float!", r_cost),
        F("adjustedCostPerHr", "Float!", r_cost),
        F("costMultiplier", "Float", r_one),
        C("@Type", "@Type", STR, pod_type),
        C("gpuCount", "Int!", U32, gpu_count),
        F("gpus", "[@Gpu!]!", r_gpus),
        F("gpuReceipts", "JSON", r_gpu_receipts),
        F("gpuPowerLimitPercent", "Int!", r_hundred),
        C("vcpuCount", "Int", U32, vcpu),
        F("memoryInGb", "Int", r_memory_gib),
        C("containerDiskInGb", "Int", U32, container_disk_gib),
        C("volumeInGb", "Int", U32, volume_gib),
        C("volumeMountPath", "String", STR, volume_path),
        F("volumeEncrypted", "Boolean", r_false),
        C("dockerArgs", "String", STR, docker_args),
        C("env", "[String!]", STRV, env),
        C("ports", "String", STR, ports),
        F("urls", "[String!]", r_urls),
        F("machineId", "String!", r_machine_id),
        SAME("machine", "@MachineInfo!", GQL_SELF),
        F("runtime", "@Runtime", r_runtime),
        C("templateId", "String", STR, template_id),
        C("containerRegistryAuthId", "String", STR, registry_auth),
        F("securityProfile", "String", r_security_profile),
        C("readinessPath", "String", STR, readiness_path),
        F("egressAllow", "[String!]", r_egress),
        F("allowedIps", "[String!]", r_allowed_ips),
        C("idleTimeoutSeconds", "Int", U32, idle_timeout_s),
        F("idleAction", "IdleAction", r_idle_action),
        F("idleSeconds", "Int", r_idle_seconds),
        F("lastUse", "String", r_last_use),
        F("sshHostKey", "String", r_ssh_host_key),
        F("uptimeSeconds", "Int", r_uptime),
        C("locked", "Boolean", BOOL, locked),
        C("stopAfter", "DateTime", TIME, stop_after_us),
        C("terminateAfter", "DateTime", TIME, terminate_after_us),
        C("version", "Int", U64, generation),
        C("clusterIp", "String", STR, address),
        F("latestTelemetry", "@Telemetry", r_telemetry),
        F("updating", "Boolean", r_updating),
        C("updateRefused", "String", STR, refused),
};

static const struct gql_field machine_info_rows[] = {
        F("id", "String", r_machine_id),
        F("@HostId", "String", r_host_id),
        F("costPerHr", "Float", r_cost),
        F("currentPricePerGpu", "Float", r_price_per_gpu),
        F("gpuDisplayName", "String", r_gpu_name),
        F("gpuTypeId", "String", r_gpu_type_id),
        F("gpuType", "GpuType", r_cluster_gpu_type),
        F("gpuAvailable", "Int", r_gpu_available),
        F("min@GpuCount", "Int", r_one),
        F("location", "String", r_location),
        F("dataCenterId", "String", r_location),
        F("secureCloud", "Boolean", r_true),
        F("supportPublicIp", "Boolean", r_false),
        F("listed", "Boolean", r_true),
        SAME("machineSystem", "MachineSystem", GQL_SELF),
        F("cpuCount", "Int", r_host_cpus),
        F("vcpuTotal", "Int", r_host_cpus),
        F("vcpuReserved", "Int", r_host_cpus_taken),
        F("memoryTotal", "Int", r_host_memory),
        F("memoryReserved", "Int", r_host_memory_taken),
};

static const struct gql_field machine_system_rows[] = {
        F("cudaVersion", "String", r_machine_cuda),
        F("diskTotal", "Int", r_disk_total),
        F("diskFree", "Int", r_disk_free),
};

static const struct gql_field gpu_rows[] = {
        AT("id", "String!", GQL_SELF, STR, gpu_view, id),
        AT("@Id", "String!", GQL_SELF, STR, gpu_view, cluster),
};

static const struct gql_field runtime_rows[] = {
        F("uptimeInSeconds", "Int", r_uptime),
        F("ports", "[@RuntimePort!]", r_ports),
        F("gpus", "[@RuntimeGpu!]", r_runtime_gpus),
        SAME("container", "@RuntimeContainer", GQL_SELF),
};

static const struct gql_field runtime_port_rows[] = {
        AT("ip", "String", GQL_SELF, STR, port_view, ip),
        AT("isIpPublic", "Boolean", GQL_SELF, BOOL, port_view, is_public),
        AT("privatePort", "Int", GQL_SELF, U32, port_view, private),
        AT("publicPort", "Int", GQL_SELF, U32, port_view, public),
        AT("type", "String", GQL_SELF, STR, port_view, type),
};

static const struct gql_field runtime_container_rows[] = {
        F("cpuPercent", "Int", r_cpu_pct),
        F("memoryPercent", "Int", r_memory_pct),
        F("cpuPressurePercent", "Float", r_cpu_pressure),
        F("memoryPressurePercent", "Float", r_memory_pressure),
        F("ioPressurePercent", "Float", r_io_pressure),
};

#define R(n, t, get, m) AT(n, t, GQL_SELF, get, gpu_reading, m)
static const struct gql_field runtime_gpu_rows[] = {
        R("id", "String!", STR, id),
        R("gpuUtilPercent", "Int", F64, util_pct),
        R("memoryUtilPercent", "Int", F64, memory_pct),
};

static const struct gql_field gpu_metrics_rows[] = {
        R("id", "String", STR, id),
        R("percentUtilization", "Float", F64, util_pct),
        R("temperatureCelcius", "Float", F64, temperature_c),
        R("memoryUtilization", "Float", F64, memory_pct),
        R("powerWatts", "Float", F64, watts),
};
#undef R

static const struct gql_field telemetry_rows[] = {
        F("state", "String", r_phase),
        F("time", "DateTime", r_telemetry_time),
        F("cpuUtilization", "Float", r_cpu_pct),
        F("memoryUtilization", "Float", r_memory_pct),
        F("averageGpuMetrics", "@GpuMetrics", r_gpu_average),
        F("individualGpuMetrics", "[@GpuMetrics!]", r_gpu_metrics),
        C("lastStateTransitionTimestamp", "DateTime", TIME, started_us),
};
#undef C
#undef F

#define A(n, t, get, m) AT(n, t, GQL_READ, get, account, m)
#define F(n, t, f)      FN(n, t, GQL_READ, f)
static const struct gql_field user_rows[] = {
        AT("id", "String!", GQL_SELF, STR, account, id),
        A("authId", "String", STR, id),
        A("email", "String", STR, email),
        A("pubKey", "String", STR, pub_key),
        F("clientBalance", "Float", r_zero),
        F("currentSpendPerHr", "Float", r_spend),
        F("spendLimit", "Float", r_zero),
        F("underBalance", "Boolean", r_false),
        F("notifyPodsStale", "Boolean", r_false),
        F("notifyClustersStale", "Boolean", r_false),
        F("notifyPodsGeneral", "Boolean", r_false),
        F("notifyClustersGeneral", "Boolean", r_false),
        F("notifyLowBalance", "Boolean", r_false),
        FN("@s", "[@!]!", GQL_SELF, r_my_clusters),
        EMPTY("endpoints", "[Endpoint!]!", GQL_READ),
        EMPTY("networkVolumes", "[NetworkVolume!]!", GQL_READ),
        F("@Templates", "[Template!]!", q_my_templates),
        F("containerRegistryCreds", "[ContainerRegistryAuth!]!", r_my_registry_auths),
        F("apiKeys", "[ApiKey!]!", r_my_keys),
        F("secrets", "[Secret!]!", r_my_secrets),
};
#undef A
#undef F

#define K(n, t, get, m) AT(n, t, GQL_READ, get, key_view, m)
static const struct gql_field api_key_rows[] = {
        K("id", "String!", STR, id),
        K("name", "String", STR, name),
        K("permissions", "String", STR, rights),
        K("createdAt", "DateTime", TIME, created_us),
};
#undef K

#define T(n, t, get, m) AT(n, t, GQL_ANYONE, get, template, m)
static const struct gql_field template_rows[] = {
        T("id", "String!", STR, id),
        T("name", "String!", STR, name),
        T("imageName", "String", STR, image),
        T("dockerArgs", "String", STR, docker_args),
        T("containerDiskInGb", "Int", U32, container_disk_gib),
        T("volumeInGb", "Int", U32, volume_gib),
        T("volumeMountPath", "String", STR, volume_path),
        T("ports", "String", STR, ports),
        FN("env", "[EnvironmentVariable!]", GQL_ANYONE, r_env_list),
        T("isServerless", "Boolean", BOOL, is_serverless),
        T("isPublic", "Boolean", BOOL, is_public),
        T("isRunpod", "Boolean", BOOL, builtin),
        T("category", "TemplateCategory", STR, category),
        T("readme", "String", STR, readme),
        T("startSsh", "Boolean", BOOL, start_ssh),
        T("startJupyter", "Boolean", BOOL, start_jupyter),
        T("startScript", "String", STR, start_script),
        T("advancedStart", "Boolean", BOOL, advanced_start),
        FN("containerRegistryAuthId", "String", GQL_ANYONE, r_template_registry_auth),
        FN("securityProfile", "String", GQL_ANYONE, r_template_security_profile),
        T("readinessPath", "String", STR, readiness_path),
        FN("egressAllow", "[String!]", GQL_ANYONE, r_template_egress),
        T("idleTimeoutSeconds", "Int", U32, idle_timeout_s),
        FN("idleAction", "IdleAction", GQL_ANYONE, r_template_idle_action),
};
#undef T

static const struct gql_field registry_auth_rows[] = {
        AT("id", "String!", GQL_READ, STR, registry_auth, id),
        AT("name", "String", GQL_READ, STR, registry_auth, name),
};

static const struct gql_field secret_rows[] = {
        AT("id", "String!", GQL_READ, STR, secret, id),
        AT("name", "String", GQL_READ, STR, secret, name),
        AT("description", "String", GQL_READ, STR, secret, description),
        AT("createdAt", "DateTime", GQL_READ, TIME, secret, created_us),
};

#define F(n, t, f) FN(n, t, GQL_ANYONE, f)
static const struct gql_field env_variable_rows[] = {
        F("key", "String!", r_env_key),
        F("value", "String!", r_env_value),
};

static const struct gql_field cpu_flavor_rows[] = {
        F("id", "String!", r_flavor_id),
        F("groupId", "String", r_flavor_id),
        F("groupName", "String", r_flavor_id),
        F("displayName", "String", r_flavor_id),
        F("minVcpu", "Int", r_one),
        F("maxVcpu", "Int", r_flavor_max),
        F("vcpuBurstable", "Boolean", r_false),
        F("specifics", "Specifics", r_flavor_specifics),
};

static const struct gql_field specifics_rows[] = {
        F("stockStatus", "String", r_stock),
        F("securePrice", "Float", r_zero),
        F("slsPrice", "Float", r_zero),
};

static const struct gql_field cpu_type_rows[] = {
        F("id", "String!", r_flavor_id),     F("displayName", "String", r_flavor_id),
        F("cores", "Int", r_flavor_max),     F("threadsPerCore", "Int", r_one),
        F("groupId", "String", r_flavor_id),
};

static const struct gql_field data_center_rows[] = {
        F("id", "String!", r_data_center_id),
        F("name", "String", r_data_center_name),
        F("location", "String", r_data_center_name),
        F("listed", "Boolean", r_true),
        F("storageSupport", "Boolean", r_false),
        F("gpuAvailability", "[GpuAvailability!]", r_gpu_availability),
};

#define S(n, t, get, m) AT(n, t, GQL_ANYONE, get, gpu_stock_view, m)
static const struct gql_field gpu_availability_rows[] = {
        S("gpuTypeId", "String", STR, id),
        S("displayName", "String", STR, display),
        S("stockStatus", "String", STR, stock),
        S("available", "Boolean", BOOL, available),
};
#undef S

static const struct gql_field gpu_pool_rows[] = {
        AT("id", "String!", GQL_ANYONE, STR, gpu_pool_view, id),
        F("gpuTypeIds", "[String!]!", r_pool_types),
};

#define G(n, t, get, m) AT(n, t, GQL_ANYONE, get, gpu_type_view, m)
static const struct gql_field gpu_type_rows[] = {
        G("id", "String!", STR, id),
        G("displayName", "String", CHARS, display),
        G("manufacturer", "String", STR, manufacturer),
        G("memoryInGb", "Int", U32, memory_gib),
        G("cudaCores", "Int", U32, cuda_cores),
        G("maxGpuCount", "Int", U32, count),
        G("maxGpuCountCommunityCloud", "Int", U32, count),
        G("maxGpuCountSecureCloud", "Int", U32, count),
        F("min@GpuCount", "Int", r_one),
        F("secureCloud", "Boolean", r_true),
        F("communityCloud", "Boolean", r_true),
        G("securePrice", "Float", F64, on_demand),
        G("communityPrice", "Float", F64, on_demand),
        G("secureSpotPrice", "Float", F64, spot),
        G("communitySpotPrice", "Float", F64, spot),
        F("lowestPrice", "LowestPrice", r_lowest_price),
        G("simulated", "Boolean", BOOL, simulated),
};
#undef G

static const struct gql_field host_rows[] = {
        F("id", "String!", r_machine_id),
        F("name", "String", r_machine_name),
        F("location", "String", r_data_center_name),
        F("listed", "Boolean", r_true),
        F("gpuType", "GpuType", r_machine_gpu_type),
        F("gpuTotal", "Int", r_machine_gpus),
        FN("gpuNote", "String", GQL_ADMIN, r_machine_gpu_note),
        F("driverVersion", "String", r_machine_driver),
        F("cudaVersion", "String", r_machine_cuda),
        F("simulated", "Boolean", r_machine_simulated),
        F("secureCloud", "Boolean", r_true),
        F("dataCenterId", "String", r_data_center_id),
};
#undef F

#define P(n, t, get, m) AT(n, t, GQL_ANYONE, get, lowest_price, m)
static const struct gql_field lowest_price_rows[] = {
        P("gpuName", "String", STR, name),
        P("gpuTypeId", "String", STR, id),
        P("minimumBidPrice", "Float", F64, bid),
        P("uninterruptablePrice", "Float", F64, price),
        P("minMemory", "Int", F64, memory_gib),
        P("minVcpu", "Int", F64, vcpu),
        P("minDisk", "Int", F64, disk_gib),
        P("rentalPercentage", "Float", F64, rental_pct),
        P("rentedCount", "Int", U32, rented),
        P("totalCount", "Int", U32, total),
        P("stockStatus", "String", STR, stock),
        FN("supportPublicIp", "Boolean", GQL_ANYONE, r_false),
        EMPTY("compliance", "[String!]", GQL_ANYONE),
        P("maxUnreservedGpuCount", "Int", U32, most),
        FN("availableGpuCounts", "[Int!]", GQL_ANYONE, r_lp_counts),
};
#undef P

#define H(n, t, get, m) AT(n, t, GQL_ADMIN, get, host_gpu, m)
#define F(n, t, f)      FN(n, t, GQL_ADMIN, f)
static const struct gql_field host_gpu_rows[] = {
        H("id", "String!", STR, id),
        H("name", "String!", STR, name),
        H("displayName", "String", STR, display),
        H("gpuTypeId", "String", STR, type),
        H("index", "Int", U32, index),
        H("pci", "String", STR, pci),
        F("numaNode", "Int", r_hg_numa),
        F("cpus", "[String!]!", r_hg_cpus),
        H("memoryInGb", "Int", U32, memory_gib),
        H("state", "String!", STR, state),
        H("reason", "String", STR, reason),
        H("@Id", "String", STR, cluster),
        H("forRent", "Boolean!", BOOL, for_rent),
        H("migMode", "Boolean", BOOL, mig_mode),
        H("migProfile", "String", STR, mig_profile),
        H("parentId", "String", STR, parent),
        H("ecc", "Boolean", BOOL, ecc),
        H("serial", "String", STR, serial),
        H("vbios", "String", STR, vbios),
        H("inforom", "String", STR, inforom),
        F("links", "[String!]!", r_hg_links),
        F("p2p", "[String!]!", r_hg_p2p),
        F("telemetry", "JSON", r_hg_telemetry),
        H("simulated", "Boolean!", BOOL, simulated),
};
#undef H
#undef F

#define E(n, t, get, m) AT(n, t, GQL_READ, get, event_view, m)
static const struct gql_field event_rows[] = {
        E("time", "DateTime!", TIME, at_us),  E("kind", "String!", STR, kind),
        E("object", "String", STR, object),   E("@Id", "String", STR, cluster),
        E("account", "String", STR, account), E("text", "String", STR, text),
        E("actor", "String", STR, actor),     E("operation", "String", STR, operation),
        E("outcome", "String", STR, outcome),
};
#undef E

static const struct gql_type types[] = {
        { "Query", NELEMS(query_fields) },
        { "Mutation", NELEMS(mutation_fields) },
        { "Subscription", NELEMS(subscription_fields) },
        { "@", NELEMS(cluster_rows) },
        { "@MachineInfo", NELEMS(machine_info_rows) },
        { "@Gpu", NELEMS(gpu_rows) },
        { "@Runtime", NELEMS(runtime_rows) },
        { "@RuntimePort", NELEMS(runtime_port_rows) },
        { "@RuntimeGpu", NELEMS(runtime_gpu_rows) },
        { "@Telemetry", NELEMS(telemetry_rows) },
        { "@GpuMetrics", NELEMS(gpu_metrics_rows) },
        { "MachineSystem", NELEMS(machine_system_rows) },
        { "@RuntimeContainer", NELEMS(runtime_container_rows) },
        { "User", NELEMS(user_rows) },
        { "ContainerRegistryAuth", NELEMS(registry_auth_rows) },
        { "Secret", NELEMS(secret_rows) },
        { "ApiKey", NELEMS(api_key_rows) },
        { "Template", NELEMS(template_rows) },
        { "EnvironmentVariable", NELEMS(env_variable_rows) },
        { "CpuFlavor", NELEMS(cpu_flavor_rows) },
        { "Specifics", NELEMS(specifics_rows) },
        { "CpuType", NELEMS(cpu_type_rows) },
        { "DataCenter", NELEMS(data_center_rows) },
        { "Machine", NELEMS(host_rows) },
        { "GpuType", NELEMS(gpu_type_rows) },
        { "GpuAvailability", NELEMS(gpu_availability_rows) },
        { "ServerlessGpuPool", NELEMS(gpu_pool_rows) },
        { "LowestPrice", NELEMS(lowest_price_rows) },
        { "HostGpu", NELEMS(host_gpu_rows) },
        { "Event", NELEMS(event_rows) },
        { "LogLine", NELEMS(log_line_rows) },
};

/* Which keys may do what a field needs; row: the key's right, cell: yes. */
static const bool may[KEY_RIGHT_COUNT][GQL_RIGHT_COUNT] = {
        [KEY_NONE] = { [GQL_ANYONE] = true },
        [KEY_CLUSTER] = { [GQL_ANYONE] = true, [GQL_SELF] = true },
        [KEY_READ] = { [GQL_ANYONE] = true, [GQL_SELF] = true, [GQL_READ] = true },
        [KEY_WRITE] = { [GQL_ANYONE] = true,
                        [GQL_SELF] = true,
                        [GQL_READ] = true,
                        [GQL_WRITE] = true },
        [KEY_ADMIN] = { [GQL_ANYONE] = true,
                        [GQL_SELF] = true,
                        [GQL_READ] = true,
                        [GQL_WRITE] = true,
                        [GQL_ADMIN] = true },
};

static enum key_right least_key(enum gql_right need)
{
        enum key_right k = KEY_NONE;

        while (k < KEY_ADMIN && !may[k][need])
                k++;
        return k;
}

static int allow(void *arg, enum gql_right need, struct err *e)
{
        const struct resolve_ctx *ctx = arg;

        if (may[ctx->who.right][need])
                return 0;
        if (ctx->who.right == KEY_NONE)
                return err_set(e, -EACCES, "unauthorized: an API key is needed");
        return err_set(e, -EPERM, "%s", key_needed[least_key(need)]);
}

int resolve_schema_new(struct gql_schema **ret, struct err *e)
{
        static const struct gql_ops ops = { .allow = allow,
                                            .mutate = audit_mutate,
                                            .mutated = audit_mutated };

        return gql_schema_new(NULL, 0, types, NELEM(types), &ops, ret, e);
}
