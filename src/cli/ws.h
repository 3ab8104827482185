/* ws.h - a WebSocket to the API (RFC 6455), over libcurl's connection (so TLS and proxies work as
 * for every other request) with frames by wslay.  One thread; only ws_open() blocks. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

struct api;
struct ws;

/* A whole message; @data is valid during the call only.  < 0 ends ws_process() with that error. */
typedef int ws_message_fn(void *arg, const uint8_t *data, size_t len, struct err *e);

/* Connect and shake hands, at most 30 s.  @path has its query string, escaped.  A refusal of the
 * API becomes its message and code, as in api_graphql(). */
int ws_open(struct api *a, const char *path, const char *subprotocol, ws_message_fn *on_message,
            void *arg, struct ws **ret, struct err *e);
struct ws *ws_free(struct ws *w); /* drops the connection; no goodbye */
DEFINE_AUTO(struct ws *, ws_free)

int ws_fd(const struct ws *w);           /* borrowed, for poll(2) */
bool ws_wants_write(const struct ws *w); /* poll for POLLOUT too */
size_t ws_queued(const struct ws *w);    /* bytes accepted and not sent yet */

/* Queue one binary message: @channel, then @len bytes (copied).  -ENOMEM; -EPIPE after a close. */
int ws_send(struct ws *w, uint8_t channel, const void *data, size_t len);
int ws_ping(struct ws *w);

/* Read and write what goes without blocking; calls on_message.  1: both sides said goodbye, *@e
 * untouched; 0: go on; -ECONNRESET with *@e: it ended without a goodbye. */
int ws_process(struct ws *w, struct err *e);

/* The answer's key to our @key, 28 characters and NUL.  Pure. */
int ws_accept_key(const char *key, char ret[static 29]);
