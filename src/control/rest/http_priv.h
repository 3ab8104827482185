/* http_priv.h - handlers by route, and what the files of this folder share. */
#pragma once
#include <netinet/in.h>

#include "control/rest/http.h"
#include "control/rest/turns.h"

/* http.c */
void request_suspend(struct http_request *q);
void request_resume(struct http_request *q); /* nothing when it is not suspended */
bool http_closing(const struct http_server *s);

/* caller.c: fills ctx.who, or bad_key */
void request_identify(struct http_request *q);
void request_address(const struct http_request *q, char ret[static INET6_ADDRSTRLEN]);

/* upgrade.c: WebSockets */
#define UPGRADE_KEY_BYTES 64
bool upgrade_wanted(const struct http_request *q);
int upgrade_check(const struct http_request *q, const char *protocol,
                  char ret_accept[static UPGRADE_KEY_BYTES], struct err *e);
/* Of the subprotocols that are offered, what follows @prefix in the first that has it; heap, NULL: none. */
char *upgrade_offer(const struct http_request *q, const char *prefix);
/* @fn gets the request as its con_cls. */
void upgrade_reply(struct http_request *q, const char *protocol, const char *accept,
                   MHD_UpgradeHandler fn);

/* graphql.c */
void handle_graphql(struct http_request *q);
/* gqlws.c */
void handle_graphql_get(struct http_request *q);
/* sse.c: @gql is taken */
bool wants_event_stream(const struct http_request *q);
void handle_sse(struct http_request *q, struct gql_request *gql);
/* routes.c */
void handle_health(struct http_request *q);
void handle_root(struct http_request *q);
/* metrics.c */
void handle_metrics(struct http_request *q);
/* logs.c */
void handle_logs(struct http_request *q);
/* exec.c */
void handle_exec(struct http_request *q);
/* May a session be opened in it now?  @c NULL: there is none. */
int cluster_exec_ready(const struct cluster *c, struct err *e);
/* terminal.c */
void handle_terminal(struct http_request *q);
void handle_terminal_file(struct http_request *q);
void handle_exec_ticket(struct http_request *q);
/* open.c */
void handle_open(struct http_request *q);
/* images.c */
void handle_images(struct http_request *q);
void handle_image_pull(struct http_request *q);
void handle_image_import(struct http_request *q);
size_t upload_image(struct http_request *q, const char *data, size_t len);
void handle_image_remove(struct http_request *q);
/* registry.c */
void handle_registry_auths(struct http_request *q);
void handle_registry_auth(struct http_request *q);
void handle_registry_auth_new(struct http_request *q);
void handle_registry_auth_remove(struct http_request *q);
/* secrets.c */
void handle_secrets(struct http_request *q);
void handle_secret(struct http_request *q);
void handle_secret_new(struct http_request *q);
void handle_secret_remove(struct http_request *q);
void handle_cluster_secrets(struct http_request *q);
void handle_cluster_secret_new(struct http_request *q);
/* sshkeys.c */
void handle_ssh_keys(struct http_request *q);
void handle_ssh_keys_set(struct http_request *q);
/* accounts.c */
void handle_accounts(struct http_request *q);
void handle_account_new(struct http_request *q);
void handle_key_new(struct http_request *q);
void handle_key_remove(struct http_request *q);
