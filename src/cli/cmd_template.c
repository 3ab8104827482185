/* cmd_template.c - `template create|ls|get|rm`.  Runs in tensoronecli. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "cli/api.h"
#include "cli/cli.h"
#include "cli/each.h"
#include "cli/out.h"
#include "cli/values.h"

static const char list_query[] =
        "query listTemplates{clusterTemplates{id name imageName dockerArgs containerDiskInGb "
        "volumeInGb volumeMountPath ports env{key value} startSsh isPublic securityProfile readinessPath egressAllow "
        "idleTimeoutSeconds idleAction}}";

static const struct field_row template_fields[] = {
        { OPT_IMAGE_NAME, "imageName" },
        { OPT_CONTAINER_DISK, "containerDiskInGb" },
        { OPT_VOLUME_SIZE, "volumeInGb" },
        { OPT_VOLUME_PATH, "volumeMountPath" },
        { OPT_ARGS, "dockerArgs" },
        { OPT_START_SSH, "startSsh" },
        { OPT_PUBLIC, "isPublic" },
        { OPT_REGISTRY_AUTH, "containerRegistryAuthId" },
        { OPT_SECURITY_PROFILE, "securityProfile" },
        { OPT_READINESS_PATH, "readinessPath" },
};

int cmd_template_create(struct cli *c, struct err *e)
{
        static const char query[] = "mutation saveTemplate($input: SaveTemplateInput!){"
                                    "saveTemplate(input:$input){id name imageName}}";
        AUTO(json_put) json_t *data = NULL, *input = NULL;
        const json_t *made;
        int r;

        if (str_empty(c->opt[OPT_IMAGE_NAME].s))
                return err_set(e, -EINVAL, "required flag(s) \"imageName\" not set");
        input = json_pack("{s:s,s:s,s:[]}", "name", c->operands[0], "dockerArgs", "", "env");
        if (!input)
                return err_set(e, -EINVAL, "NAME: not UTF-8 text");
        r = values_json(c, template_fields, NELEM(template_fields), false, input, e);
        if (r >= 0)
                r = values_env(c, OPT_ENV, input, e);
        if (r >= 0)
                r = values_ports(c, OPT_PORTS, input, e);
        if (r >= 0)
                r = values_egress(c, OPT_EGRESS, input, e);
        if (r >= 0)
                r = values_idle(c, input, e);
        if (r >= 0)
                r = api_graphql(c->api, query, json_pack("{s:O}", "input", input), &data, e);
        if (r < 0)
                return r;
        made = json_object_get(data, "saveTemplate");
        if (str_empty(jsonx_str(made, "id")))
                return err_set(e, -EPROTO, "the API's answer names no template");
        return cli_json(c) ? out_json(made, e)
                           : out_printf(e, "template \"%s\" created\n", jsonx_str(made, "id"));
}

/* New reference to the list. */
static int list_templates(struct api *a, json_t **ret, struct err *e)
{
        AUTO(json_put) json_t *data = NULL;
        json_t *list;
        int r = api_graphql(a, list_query, NULL, &data, e);

        if (r < 0)
                return r;
        list = json_object_get(data, "clusterTemplates");
        if (!json_is_array(list))
                return err_set(e, -EPROTO, "the API's answer has no list of templates");
        *ret = json_incref(list);
        return 0;
}

static int print_templates(const json_t *list, struct err *e)
{
        static const char *const headers[] = { "ID",          "NAME",
                                               "IMAGE NAME",  "CONTAINER DISK",
                                               "VOLUME DISK", "PORTS",
                                               "ARGS",        "PUBLIC" };
        AUTO(table_free) struct table *t = NULL;
        const json_t *j;
        size_t i;

        if (table_new(headers, NELEM(headers), &t) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        json_array_foreach(list, i, j)
        {
                char disk[24], volume[24];
                const char *cells[] = {
                        jsonx_str(j, "id"),
                        jsonx_str(j, "name"),
                        jsonx_str(j, "imageName"),
                        disk,
                        volume,
                        jsonx_str(j, "ports"),
                        jsonx_str(j, "dockerArgs"),
                        json_is_true(json_object_get(j, "isPublic")) ? "yes" : "no",
                };

                (void) snprintf(disk, sizeof disk, "%.0f",
                                json_number_value(json_object_get(j, "containerDiskInGb")));
                (void) snprintf(volume, sizeof volume, "%.0f",
                                json_number_value(json_object_get(j, "volumeInGb")));
                for (size_t k = 0; k < NELEM(cells); k++)
                        if (table_cell(t, cells[k]) < 0)
                                return err_set(e, -ENOMEM, "out of memory");
        }
        return table_print(t, e);
}

int cmd_template_ls(struct cli *c, struct err *e)
{
        AUTO(json_put) json_t *list = NULL;
        int r = list_templates(c->api, &list, e);

        if (r < 0)
                return r;
        return cli_json(c) ? out_json(list, e) : print_templates(list, e);
}

int cmd_template_get(struct cli *c, struct err *e)
{
        AUTO(json_put) json_t *list = NULL, *only = NULL;
        json_t *one = NULL;
        int r = list_templates(c->api, &list, e);

        if (r >= 0)
                r = values_pick(list, c->operands[0], "there is no template", &one, e);
        if (r < 0)
                return r;
        if (cli_json(c))
                return out_json(one, e);
        only = json_pack("[O]", one);
        return only ? print_templates(only, e) : err_set(e, -ENOMEM, "out of memory");
}

static int remove_one(struct cli *c, const char *word, void *list, json_t **ret, struct err *e)
{
        AUTO(json_put) json_t *data = NULL;
        json_t *one = NULL;
        int r = values_pick(list, word, "there is no template", &one, e);

        if (r < 0)
                return r;
        r = api_graphql(c->api,
                        "mutation deleteTemplate($name: String!){"
                        "deleteTemplate(templateName:$name)}",
                        json_pack("{s:O}", "name", json_object_get(one, "name")), &data, e);
        if (r < 0)
                return r;
        *ret = json_pack("{s:O,s:O,s:b}", "id", json_object_get(one, "id"), "name",
                         json_object_get(one, "name"), "removed", 1);
        if (!*ret)
                return err_set(e, -ENOMEM, "out of memory");
        return cli_json(c) ? 0 : out_printf(e, "template \"%s\" removed\n", word);
}

int cmd_template_rm(struct cli *c, struct err *e)
{
        AUTO(json_put) json_t *list = NULL;
        int r = list_templates(c->api, &list, e);

        return r < 0 ? r : each_operand(c, remove_one, list, e);
}
