/* routes.c - every path of the HTTP API in one table (docs/http-api.md), and the two smallest
 * handlers.  tensorone-api, loop thread. */
#include <errno.h>

#include "control/rest/http_priv.h"

const struct http_route http_routes[] = {
        { "GET", "/health", handle_health, NULL, KEY_NONE, false, NULL },
        { "GET", "/", handle_root, NULL, KEY_NONE, false, NULL },
        { "GET", "/metrics", handle_metrics, NULL, KEY_ADMIN, false, NULL },
        { "GET", "/graphql", handle_graphql_get, NULL, KEY_NONE, false, NULL },
        { "POST", "/", handle_graphql, NULL, KEY_NONE, true, NULL },
        { "POST", "/graphql", handle_graphql, NULL, KEY_NONE, true, NULL },
        { "POST", "/v1", handle_graphql, NULL, KEY_NONE, false, NULL },
        { "GET", "/v1/clusters/{}/logs", handle_logs, NULL, KEY_READ, false, NULL },
        { "GET", "/v1/clusters/{}/exec", handle_exec, NULL, KEY_WRITE, false, "audit.exec" },
        { "POST", "/v1/clusters/{}/exec/tickets", handle_exec_ticket, NULL, KEY_WRITE, false,
          NULL },
        { "GET", "/terminal", handle_terminal, NULL, KEY_NONE, false, NULL },
        { "GET", "/terminal/{}", handle_terminal_file, NULL, KEY_NONE, false, NULL },
        { "POST", "/v1/clusters/{}/open", handle_open, NULL, KEY_WRITE, false, "audit.change" },
        { "GET", "/v1/images", handle_images, NULL, KEY_READ, false, NULL },
        { "POST", "/v1/images/pull", handle_image_pull, NULL, KEY_WRITE, false, "audit.change" },
        { "POST", "/v1/images/import", handle_image_import, upload_image, KEY_WRITE, false,
          "audit.change" },
        { "DELETE", "/v1/images", handle_image_remove, NULL, KEY_WRITE, false, "audit.change" },
        { "GET", "/v1/containerregistryauth", handle_registry_auths, NULL, KEY_READ, false, NULL },
        { "POST", "/v1/containerregistryauth", handle_registry_auth_new, NULL, KEY_WRITE, false,
          "audit.change" },
        { "GET", "/v1/containerregistryauth/{}", handle_registry_auth, NULL, KEY_READ, false,
          NULL },
        { "DELETE", "/v1/containerregistryauth/{}", handle_registry_auth_remove, NULL, KEY_WRITE,
          false, "audit.change" },
        { "GET", "/v2/secrets", handle_secrets, NULL, KEY_READ, false, NULL },
        { "POST", "/v2/secrets", handle_secret_new, NULL, KEY_WRITE, false, "audit.change" },
        { "GET", "/v2/secrets/{}", handle_secret, NULL, KEY_READ, false, NULL },
        { "DELETE", "/v2/secrets/{}", handle_secret_remove, NULL, KEY_WRITE, false,
          "audit.change" },
        { "GET", "/v2/clusters/{}/secrets", handle_cluster_secrets, NULL, KEY_READ, false, NULL },
        { "POST", "/v2/clusters/{}/secrets", handle_cluster_secret_new, NULL, KEY_WRITE, false,
          "audit.change" },
        { "GET", "/v2/account/ssh-keys", handle_ssh_keys, NULL, KEY_READ, false, NULL },
        { "PUT", "/v2/account/ssh-keys", handle_ssh_keys_set, NULL, KEY_WRITE, false,
          "audit.change" },
        { "GET", "/v1/accounts", handle_accounts, NULL, KEY_ADMIN, false, NULL },
        { "POST", "/v1/accounts", handle_account_new, NULL, KEY_ADMIN, false, "audit.change" },
        { "POST", "/v1/accounts/{}/keys", handle_key_new, NULL, KEY_ADMIN, false, "audit.change" },
        { "DELETE", "/v1/keys/{}", handle_key_remove, NULL, KEY_WRITE, false, "audit.change" },
};
const size_t http_n_routes = NELEM(http_routes);

void handle_health(struct http_request *q)
{
        const char *why;

        if (plane_healthy(q->plane, &why))
                http_reply_json(q, MHD_HTTP_OK, json_pack("{s:s}", "status", "ok"));
        else
                http_reply_json(q, MHD_HTTP_SERVICE_UNAVAILABLE,
                                json_pack("{s:s, s:s}", "status", "unavailable", "reason", why));
}

void handle_root(struct http_request *q)
{
        http_reply_json(q, MHD_HTTP_OK,
                        json_pack("{s:s, s:s, s:s}", "name", "tensorone-api", "version",
                                  HVMM_VERSION, "graphql", "/graphql"));
}
