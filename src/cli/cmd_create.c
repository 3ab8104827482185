/* cmd_create.c - `create cluster` and `create clusters`.  Runs in tensoronecli.
 *
 * The request is built from a table of option -> input field.  With a template only what was
 * really typed is sent, so that the template's values are not covered by our presets. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/clusters.h"
#include "cli/values.h"

#define NO_CAPACITY "no longer any instances available"
#define TRY_AGAIN   "try again. " /* what follows is about the type that was asked for */

static const struct field_row create_fields[] = {
        { OPT_IMAGE_NAME, "imageName" },
        { OPT_TEMPLATE_ID, "templateId" },
        { OPT_GPU_COUNT, "gpuCount" },
        { OPT_CONTAINER_DISK, "containerDiskInGb" },
        { OPT_VOLUME_SIZE, "volumeInGb" },
        { OPT_VOLUME_PATH, "volumeMountPath" },
        { OPT_MEM, "minMemoryInGb" },
        { OPT_VCPU, "minVcpuCount" },
        { OPT_ARGS, "dockerArgs" },
        { OPT_COST, "deployCost" },
        { OPT_NETWORK_VOLUME, "networkVolumeId" },
        { OPT_DATA_CENTER, "dataCenterId" },
        { OPT_START_SSH, "startSsh" },
        { OPT_COMPUTE_TYPE, "computeType" },
        { OPT_REGISTRY_AUTH, "containerRegistryAuthId" },
        { OPT_SECURITY_PROFILE, "securityProfile" },
        { OPT_READINESS_PATH, "readinessPath" },
};

/* "docker.io/library/debian:12@sha256:..." -> the part before tag and digest. */
static json_t *default_name(const char *image)
{
        size_t n = strcspn(image, "@");
        const char *slash = memrchr(image, '/', n);
        const char *from = slash ? slash : image;
        const char *colon = memchr(from, ':', n - (size_t) (from - image));

        return json_stringn(image, colon ? (size_t) (colon - image) : n);
}

static int check(const struct cli *c, struct err *e)
{
        bool has_gpu = c->opt[OPT_GPU_COUNT].n > 0 && !str_eq(c->opt[OPT_COMPUTE_TYPE].s, "CPU");
        const char *missing = NULL;

        if (str_empty(c->opt[OPT_IMAGE_NAME].s) && str_empty(c->opt[OPT_TEMPLATE_ID].s))
                missing = "imageName";
        else if (str_empty(c->opt[OPT_GPU_TYPE].s) && has_gpu)
                missing = "gpuType";
        if (missing)
                return err_set(e, -EINVAL, "required flag(s) \"%s\" not set%s", missing,
                               str_eq(missing, "gpuType")
                                       ? "; a cluster without GPUs needs --gpuCount 0"
                                       : "");
        if (c->opt[OPT_SECURE_CLOUD].b && c->opt[OPT_COMMUNITY_CLOUD].b)
                return err_set(e, -EINVAL, "--secureCloud and --communityCloud exclude each other");
        return 0;
}

static int set_time(const struct cli *c, enum opt_id id, json_t *input, struct err *e)
{
        char text[32];
        int r;

        if (!c->opt[id].given)
                return 0;
        r = time_text(options[id].name, c->opt[id].s, true, text, e);
        if (r < 0)
                return r;
        return json_object_set_new(input, options[id].name, json_string(text)) < 0
                       ? err_set(e, -ENOMEM, "out of memory")
                       : 0;
}

/* Everything but the GPU type. */
static int build_input(const struct cli *c, json_t **ret, struct err *e)
{
        bool sparse = !str_empty(c->opt[OPT_TEMPLATE_ID].s);
        AUTO(json_put) json_t *input = json_object();
        const char *image = c->opt[OPT_IMAGE_NAME].s, *name = c->opt[OPT_NAME].s;
        int r = check(c, e);

        if (r < 0)
                return r;
        r = values_json(c, create_fields, NELEM(create_fields), sparse, input, e);
        if (r >= 0)
                r = values_env(c, OPT_ENV, input, e);
        if (r >= 0)
                r = values_ports(c, OPT_PORTS, input, e);
        if (r >= 0)
                r = values_egress(c, OPT_EGRESS, input, e);
        if (r >= 0)
                r = values_allowed_ips(c, input, e);
        if (r >= 0)
                r = values_idle(c, input, e);
        if (r >= 0)
                r = set_time(c, OPT_STOP_AFTER, input, e);
        if (r >= 0)
                r = set_time(c, OPT_TERMINATE_AFTER, input, e);
        if (r < 0)
                return r;
        r = json_object_set_new(input, "cloudType",
                                json_string(c->opt[OPT_SECURE_CLOUD].b ? "SECURE" : "COMMUNITY"));
        if (r >= 0 && !str_empty(name))
                r = json_object_set_new(input, "name", json_string(name));
        else if (r >= 0 && !str_empty(image))
                r = json_object_set_new(input, "name", default_name(image));
        if (r < 0)
                return err_set(e, -ENOMEM, "out of memory");
        *ret = TAKE(input);
        return 0;
}

static int create_one(struct api *a, json_t *input, json_t **ret, struct err *e)
{
        static const char query[] =
                "mutation createCluster($input: "
                "ClusterFindAndDeployOnDemandInput!){clusterFindAndDeployOnDemand(input:$input)"
                "{id name costPerHr desiredStatus lastStatusChange urls}}";
        AUTO(json_put) json_t *data = NULL;
        json_t *made;
        int r = api_graphql(a, query, json_pack("{s:O}", "input", input), &data, e);

        if (r < 0)
                return r;
        made = json_object_get(data, "clusterFindAndDeployOnDemand");
        if (str_empty(jsonx_str(made, "id")))
                return err_set(e, -EPROTO, "the API's answer names no cluster");
        if (!str_eq(jsonx_str(made, "desiredStatus"), "RUNNING"))
                return err_set(e, -EREMOTEIO, "cluster \"%s\" is %s: %s", jsonx_str(made, "id"),
                               jsonx_str(made, "desiredStatus"),
                               jsonx_str(made, "lastStatusChange"));
        *ret = json_incref(made);
        return 0;
}

/* Why each type of the list had no room: the API's sentence, then what it says of every one. */
static void add_reason(struct err *all, const struct err *why)
{
        struct err was = *all;
        const char *of_it = strstr(why->msg, TRY_AGAIN);

        if (str_empty(was.msg))
                (void) err_copy(all, why);
        else
                (void) err_set(all, why->code, "%s; %s", was.msg,
                               of_it ? of_it + strlen(TRY_AGAIN) : why->msg);
}

/* The comma list from *@at on: the first type that has room.  *@at stays on the one that worked. */
static int create_on_some_gpu(struct api *a, char *const *types, size_t *at, json_t *input,
                              json_t **ret, struct err *e)
{
        struct err all = { 0 };
        size_t n = strv_len(types);

        for (;; (*at)++) {
                struct err why = { 0 };
                bool full;
                int r;

                if (n > 0 && json_object_set_new(input, "gpuTypeId", json_string(types[*at])) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
                r = create_one(a, input, ret, &why);
                if (r >= 0)
                        return r;
                full = strcasestr(why.msg, NO_CAPACITY) != NULL;
                if (full)
                        add_reason(&all, &why);
                if (*at + 1 >= n || !full)
                        return err_copy(e, full ? &all : &why);
        }
}

static int report(const struct cli *c, const json_t *made, struct err *e)
{
        if (cli_json(c))
                return 0; /* printed together at the end */
        return out_printf(e, "cluster \"%s\" created for $%.3f / hr\n", jsonx_str(made, "id"),
                          json_number_value(json_object_get(made, "costPerHr")));
}

static int wait_all(struct cli *c, const json_t *made, struct err *e)
{
        size_t i;
        json_t *one;

        json_array_foreach(made, i, one)
        {
                int r = cluster_wait(c->api, jsonx_str(one, "id"), GOAL_READY, e);

                if (r >= 0)
                        r = cluster_report_reached(c, jsonx_str(one, "id"), e);
                if (r < 0)
                        return r;
        }
        return 0;
}

int cmd_create(struct cli *c, struct err *e)
{
        bool many = str_eq(c->verb->noun, "clusters");
        uint64_t count = many ? c->opt[OPT_CLUSTER_COUNT].n : 1;
        AUTO(json_put) json_t *input = NULL, *made = json_array();
        AUTO(strv_free) char **types = NULL;
        struct err later;
        size_t at = 0;
        int r;

        if (!made)
                return err_set(e, -ENOMEM, "out of memory");
        r = build_input(c, &input, e);
        if (r >= 0)
                r = values_split(c->opt[OPT_GPU_TYPE].s, &types, e);
        if (r >= 0 && !str_empty(c->opt[OPT_GPU_TYPE].s) && strv_len(types) == 0)
                r = err_set(e, -EINVAL, "--gpuType: \"%s\" names no type", c->opt[OPT_GPU_TYPE].s);
        for (uint64_t i = 0; r >= 0 && i < count; i++) {
                json_t *one = NULL;

                r = create_on_some_gpu(c->api, types, &at, input, &one, e);
                if (r >= 0 && json_array_append_new(made, one) < 0)
                        r = err_set(e, -ENOMEM, "out of memory");
                if (r >= 0)
                        r = report(c, one, e);
        }
        /* what was made is told even when the next one failed */
        if (cli_json(c) && json_array_size(made) > 0 &&
            out_json(many ? made : json_array_get(made, 0), &later) < 0 && r >= 0)
                return err_copy(e, &later);
        if (r < 0)
                return r;
        return c->opt[OPT_WAIT].b ? wait_all(c, made, e) : 0;
}
