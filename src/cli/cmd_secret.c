/* cmd_secret.c - `create secret`, `get secrets`, `remove secret`.  Runs in tensoronecli.
 * The value goes from the terminal, standard input or a file into one request, and is wiped. */
#include <errno.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "cli/api.h"
#include "cli/cli.h"
#include "cli/out.h"
#include "cli/secret.h"
#include "cli/values.h"

static int read_value(const struct cli *c, char **ret, struct err *e)
{
        const char *file = c->opt[OPT_SECRET_FILE].s;
        int r = str_empty(file) ? secret_read("Value", true, ret, e) : secret_file(file, ret, e);

        if (r < 0)
                return err_wrap(e, r, "value");
        return str_empty(*ret) ? err_set(e, -EINVAL, "the value is empty") : 0;
}

int cmd_secret_create(struct cli *c, struct err *e)
{
        AUTO(json_put)
        json_t *input = json_pack("{s:s, s:s*}", "name", c->operands[0], "description",
                                  c->opt[OPT_SECRET_TEXT].s);
        AUTO(str_wipe_free) char *value = NULL;
        AUTO(json_put) json_t *data = NULL;
        const json_t *made;
        int r;

        if (!input)
                return err_set(e, -EINVAL, "NAME, --description: must be UTF-8 text");
        r = read_value(c, &value, e);
        if (r < 0)
                return r;
        if (json_object_set_new(input, "value", json_string(value)) < 0)
                return err_set(e, -EINVAL, "the value is not UTF-8 text; encode it, in base64 say");
        r = api_graphql(c->api,
                        "mutation secretCreate($input: SecretCreateInput!){"
                        "secretCreate(input:$input){id name description createdAt}}",
                        json_pack("{s:O}", "input", input), &data, e);
        if (r < 0)
                return r;
        made = json_object_get(data, "secretCreate");
        if (str_empty(jsonx_str(made, "id")))
                return err_set(e, -EPROTO, "the API's answer names no secret");
        return cli_json(c)
                       ? out_json(made, e)
                       : out_printf(e,
                                    "secret \"%s\" created; use it as {{ TENSORONE_SECRET_%s }}\n",
                                    jsonx_str(made, "id"), c->operands[0]);
}

/* New reference to the list. */
static int list_secrets(struct api *a, json_t **ret, struct err *e)
{
        AUTO(json_put) json_t *data = NULL;
        json_t *list;
        int r = api_graphql(a, "query secrets{myself{secrets{id name description createdAt}}}",
                            NULL, &data, e);

        if (r < 0)
                return r;
        list = json_object_get(json_object_get(data, "myself"), "secrets");
        if (!json_is_array(list))
                return err_set(e, -EPROTO, "the API's answer has no list of secrets");
        *ret = json_incref(list);
        return 0;
}

int cmd_get_secrets(struct cli *c, struct err *e)
{
        static const char *const headers[] = { "ID", "NAME", "CREATED", "DESCRIPTION" };
        static const char *const keys[] = { "id", "name", "createdAt", "description" };
        AUTO(table_free) struct table *t = NULL;
        AUTO(json_put) json_t *list = NULL;
        const json_t *j;
        size_t i;
        int r = list_secrets(c->api, &list, e);

        if (r < 0)
                return r;
        if (cli_json(c))
                return out_json(list, e);
        if (table_new(headers, NELEM(headers), &t) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        json_array_foreach(list, i, j)
        {
                for (size_t k = 0; k < NELEM(keys); k++)
                        if (table_cell(t, jsonx_str(j, keys[k])) < 0)
                                return err_set(e, -ENOMEM, "out of memory");
        }
        return table_print(t, e);
}

static int remove_one(struct cli *c, const json_t *list, const char *word, json_t *done,
                      struct err *e)
{
        AUTO(json_put) json_t *data = NULL;
        json_t *one = NULL;
        int r = values_pick(list, word, "there is no secret", &one, e);

        if (r < 0)
                return r;
        r = api_graphql(c->api, "mutation secretDelete($id: String!){secretDelete(id:$id)}",
                        json_pack("{s:O}", "id", json_object_get(one, "id")), &data, e);
        if (r < 0)
                return r;
        if (!cli_json(c))
                return out_printf(e, "secret \"%s\" removed\n", word);
        return json_array_append_new(
                       done, json_pack("{s:O,s:O,s:b}", "id", json_object_get(one, "id"), "name",
                                       json_object_get(one, "name"), "removed", 1)) < 0
                       ? err_set(e, -ENOMEM, "out of memory")
                       : 0;
}

int cmd_secret_remove(struct cli *c, struct err *e)
{
        AUTO(json_put) json_t *list = NULL, *done = json_array();
        int status = 0, r = list_secrets(c->api, &list, e);

        for (size_t i = 0; r >= 0 && i < c->n_operands; i++) {
                struct err why = { 0 };

                if (remove_one(c, list, c->operands[i], done, &why) >= 0)
                        continue;
                if (c->n_operands == 1)
                        return err_copy(e, &why);
                out_error(why.msg);
                status = 1;
        }
        if (r >= 0 && cli_json(c))
                r = out_json(c->n_operands == 1 ? json_array_get(done, 0) : done, e);
        return r < 0 ? r : status;
}
