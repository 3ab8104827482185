/* api.h - requests to the TensorOne API: GraphQL, plain paths, and streams in both directions.
 * One handle, one connection kept open; every function blocks.  The key travels only in the
 * Authorization header and appears in no message. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

struct api;

/* Read the settings (config.h) and make a handle; no connection yet.  -ENOENT when the address is
 * not set, with how to set it. */
int api_new(struct api **ret, struct err *e);
struct api *api_free(struct api *a);
DEFINE_AUTO(struct api *, api_free)

/* Give up on a request after @seconds; 0: never (the preset for streams), otherwise 60. */
void api_set_timeout(struct api *a, long seconds);

/* For connections beside this one: whom to believe, and why one failed (tls.h); @curl is libcurl's handle. */
bool api_trust(const struct api *a, void *curl);
int api_trust_error(const struct api *a, void *curl, int code, struct err *e);

/* POST /graphql.  @vars is consumed in every case and may be NULL.  *@ret is the `data` object, a
 * new reference.  On an error the message is the API's own; the code is -EACCES (401, 403),
 * -ENOENT (404), -EBUSY (409), -EAGAIN (429), else -EREMOTEIO, or what the connection said. */
int api_graphql(struct api *a, const char *query, json_t *vars, json_t **ret, struct err *e);

/* Pieces of a body in the order in which they come; < 0 ends the request with that error. */
typedef int api_chunk_fn(void *arg, const char *data, size_t len, struct err *e);
/* Up to @len bytes of a request body; 0: the end; < 0 ends the request with that error. */
typedef ssize_t api_read_fn(void *arg, char *buf, size_t len, struct err *e);

struct api_request {
        const char *method;  /* "GET", "POST", "DELETE" */
        const char *path;    /* with its query string, escaped; see api_path() */
        const json_t *body;  /* JSON body, or NULL */
        api_read_fn *read;   /* streamed body, or NULL */
        const char *type;    /* its content type */
        api_chunk_fn *chunk; /* called for the body of a good answer; NULL: *ret_json */
        void *arg;           /* of both functions */
        json_t **ret_json;   /* new reference; may be NULL when the answer has no body */
};

/* Status 2xx: 0.  Otherwise as api_graphql. */
int api_request(struct api *a, const struct api_request *q, struct err *e);

/* Build a path: api_path_add() appends "?name=value" or "&name=value" with @value escaped. */
void api_path_add(struct strbuf *path, const char *name, const char *value);
/* Append one path component, escaped. */
void api_path_part(struct strbuf *path, const char *part);

/* For the WebSocket client. */
const char *api_base(const struct api *a);
const char *api_key(const struct api *a); /* NULL: none */

/* Turn the body of a refusal into *e; returns the code.  Pure. */
int api_refusal(long status, const char *body, size_t len, struct err *e);
