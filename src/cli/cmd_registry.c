/* cmd_registry.c - `registry-auth create|update|ls|rm`.  Runs in tensoronecli.
 * The password goes from the terminal or standard input into one request, and is wiped. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "cli/api.h"
#include "cli/cli.h"
#include "cli/each.h"
#include "cli/out.h"
#include "cli/secret.h"
#include "cli/values.h"

/* @input gets the password; then @query with it. */
static int save(struct cli *c, const char *query, const char *field, json_t *input,
                const char *done, struct err *e)
{
        AUTO(str_wipe_free) char *password = NULL;
        AUTO(json_put) json_t *data = NULL;
        const json_t *made;
        int r;

        if (!input)
                return err_set(e, -EINVAL, "the name is not UTF-8 text");
        r = secret_read("Password", true, &password, e);
        if (r < 0)
                return err_wrap(e, r, "password");
        if (str_empty(password))
                return err_set(e, -EINVAL, "the password is empty");
        if (json_object_set_new(input, "password", json_string(password)) < 0)
                return err_set(e, -EINVAL, "the password is not UTF-8 text");
        r = api_graphql(c->api, query, json_pack("{s:O}", "input", input), &data, e);
        if (r < 0)
                return r;
        made = json_object_get(data, field);
        if (str_empty(jsonx_str(made, "id")))
                return err_set(e, -EPROTO, "the API's answer names no credentials");
        return cli_json(c) ? out_json(made, e)
                           : out_printf(e, "registry credentials \"%s\" %s\n",
                                        jsonx_str(made, "id"), done);
}

int cmd_registry_create(struct cli *c, struct err *e)
{
        AUTO(json_put) json_t *input = NULL;

        if (str_empty(c->opt[OPT_REGISTRY_USER].s))
                return err_set(e, -EINVAL, "required flag(s) \"username\" not set");
        input = json_pack("{s:s,s:s}", "name", c->operands[0], "username",
                          c->opt[OPT_REGISTRY_USER].s);
        return save(c,
                    "mutation saveRegistryAuth($input: SaveRegistryAuthInput){"
                    "saveRegistryAuth(input:$input){id name}}",
                    "saveRegistryAuth", input, "created", e);
}

/* New reference to the list. */
static int list_auths(struct api *a, json_t **ret, struct err *e)
{
        AUTO(json_put) json_t *data = NULL;
        json_t *list;
        int r = api_graphql(a, "query listRegistryAuths{myself{containerRegistryCreds{id name}}}",
                            NULL, &data, e);

        if (r < 0)
                return r;
        list = json_object_get(json_object_get(data, "myself"), "containerRegistryCreds");
        if (!json_is_array(list))
                return err_set(e, -EPROTO, "the API's answer has no list of credentials");
        *ret = json_incref(list);
        return 0;
}

int cmd_registry_update(struct cli *c, struct err *e)
{
        AUTO(json_put) json_t *list = NULL, *input = NULL;
        json_t *one = NULL;
        int r = list_auths(c->api, &list, e);

        if (r >= 0)
                r = values_pick(list, c->operands[0], "there are no registry credentials", &one, e);
        if (r < 0)
                return r;
        input = json_pack("{s:O,s:s*}", "id", json_object_get(one, "id"), "username",
                          c->opt[OPT_REGISTRY_USER].s);
        return save(c,
                    "mutation updateRegistryAuth($input: UpdateRegistryAuthInput){"
                    "updateRegistryAuth(input:$input){id name}}",
                    "updateRegistryAuth", input, "changed", e);
}

int cmd_registry_ls(struct cli *c, struct err *e)
{
        static const char *const headers[] = { "ID", "NAME" };
        AUTO(table_free) struct table *t = NULL;
        AUTO(json_put) json_t *list = NULL;
        const json_t *j;
        size_t i;
        int r = list_auths(c->api, &list, e);

        if (r < 0)
                return r;
        if (cli_json(c))
                return out_json(list, e);
        if (table_new(headers, NELEM(headers), &t) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        json_array_foreach(list, i, j)
        {
                if (table_cell(t, jsonx_str(j, "id")) < 0 ||
                    table_cell(t, jsonx_str(j, "name")) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        return table_print(t, e);
}

static int remove_one(struct cli *c, const char *word, void *list, json_t **ret, struct err *e)
{
        AUTO(json_put) json_t *data = NULL;
        json_t *one = NULL;
        int r = values_pick(list, word, "there are no registry credentials", &one, e);

        if (r < 0)
                return r;
        r = api_graphql(c->api,
                        "mutation deleteRegistryAuth($id: String!){"
                        "deleteRegistryAuth(registryAuthId:$id)}",
                        json_pack("{s:O}", "id", json_object_get(one, "id")), &data, e);
        if (r < 0)
                return r;
        *ret = json_pack("{s:O,s:O,s:b}", "id", json_object_get(one, "id"), "name",
                         json_object_get(one, "name"), "removed", 1);
        if (!*ret)
                return err_set(e, -ENOMEM, "out of memory");
        return cli_json(c) ? 0 : out_printf(e, "registry credentials \"%s\" removed\n", word);
}

int cmd_registry_rm(struct cli *c, struct err *e)
{
        AUTO(json_put) json_t *list = NULL;
        int r = list_auths(c->api, &list, e);

        return r < 0 ? r : each_operand(c, remove_one, list, e);
}
