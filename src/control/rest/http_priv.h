/* http_priv.h - handlers by route, and what the files of this folder share. */
#pragma once
#include "control/rest/http.h"
#include "control/rest/turns.h"

/* http.c */
void request_suspend(struct http_request *q);
void request_resume(struct http_request *q); /* nothing when it is not suspended */
bool http_closing(const struct http_server *s);

/* caller.c: fills ctx.who, or bad_key */
void request_identify(struct http_request *q);

/* graphql.c */
void handle_graphql(struct http_request *q);
/* routes.c */
void handle_health(struct http_request *q);
void handle_root(struct http_request *q);
/* metrics.c */
void handle_metrics(struct http_request *q);
/* logs.c */
void handle_logs(struct http_request *q);
/* exec.c */
void handle_exec(struct http_request *q);
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
