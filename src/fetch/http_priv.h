/* http_priv.h - shared by http.c (one attempt), http_get.c (attempts, resuming) and http_origin.c. */
#pragma once
#include <curl/curl.h>

#include "base/str.h"
#include "fetch/auth.h"
#include "fetch/http.h"

#define HTTP_BUFFER_BYTES (4U << 20)

/* Where a request goes, and what it may do there. */
struct origin {
        char *scheme, *host; /* host without brackets */
        unsigned port;
        bool listed; /* may have a private address */
};

void origin_done(struct origin *o);
bool origin_same(const struct origin *a, const struct origin *b);
/* Split a URL and judge its scheme: -EACCES when the configuration does not allow it there. */
int origin_parse(const struct fetch_request *req, CURLU *u, struct origin *ret, struct err *e);
/* One part of a URL on the heap, or NULL. */
char *url_part(CURLU *u, CURLUPart part, unsigned flags);

struct http {
        const struct fetch_request *req;
        const char *ca;
        size_t ca_len;
        CURL *easy;
        CURLM *multi;
        struct curl_slist *headers;
        struct origin registry;
        char *authorization;      /* for the registry's own origin only */
        bool authorization_fixed; /* this attempt has asked already */
        bool running;             /* easy is in multi */

        /* the transfer in progress */
        struct origin hop;
        const char *refused; /* the policy said no to every address: why */
        char refused_addr[64];
        struct strbuf body;
        uint64_t header_bytes;
        bool body_began, done, paused;
        CURLcode result;
        long status;
        char curl_err[CURL_ERROR_SIZE];
        bool retry; /* the failure may pass */
        uint64_t retry_after_us;
};

/* One attempt: redirects and authentication included, up to a 200 or 206 with the body pending.
 * On failure h->retry says whether another attempt makes sense.  Ends what was running before. */
int http_begin(struct http *h, const char *url, const char *accept, uint64_t offset, struct err *e);
/* More body into h->body; 1: there is some, 0: the end, negative: the attempt failed. */
int http_pump(struct http *h, struct err *e);
void http_end(struct http *h);
/* -ETIMEDOUT when the request's deadline has passed. */
int http_check_deadline(const struct http *h, struct err *e);
