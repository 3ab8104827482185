/* http.h - GET from one registry, with everything that may go wrong on the way.
 *
 * Redirects, authentication, the address policy, plain HTTP only where allowed, back-off after
 * server errors and lost connections, resuming in the middle of a body, deadlines.  What comes out
 * is bytes; nothing here looks at them or vouches for them: the caller checks digests.
 * Runs in vmm-fetch; blocks; one thread at a time may use a client (it need not always be the same). */
#pragma once
#include "base/err.h"
#include "base/mem.h"
#include "fetch/stream.h"
#include "model/fetchwire.h"

struct http;

/* @req is borrowed.  @ca: PEM bundle, borrowed, NULL when the host has none (then https fails). */
int http_new(const struct fetch_request *req, const char *ca, size_t ca_len, struct http **ret,
             struct err *e);
struct http *http_free(struct http *h);
DEFINE_AUTO(struct http *, http_free)

/* "https://registry-1.docker.io/v2/REPOSITORY/@kind/@name"; the caller frees; NULL: no memory. */
char *http_registry_url(const struct http *h, const char *kind, const char *name);

/* A whole small document.  -ENOENT: not there; -EACCES: not for these credentials; -EFBIG;
 * -ETIMEDOUT; -EREMOTEIO: the registry failed.  *e is for the user. */
int http_get(struct http *h, const char *url, const char *accept, size_t max, const char *what,
             char **ret, size_t *ret_len, struct err *e);

/* A large body of exactly @size bytes as a stream, which borrows @h; resumes by itself. */
int http_stream(struct http *h, const char *url, uint64_t size, struct stream **ret, struct err *e);

/* The Authorization value that the registry accepted, borrowed; NULL: none was needed. */
const char *http_authorization(const struct http *h);
