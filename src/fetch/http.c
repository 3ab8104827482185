/* http.c - one attempt at one document: connect, redirects, authentication.  Runs in vmm-fetch.
 *
 * What always holds: credentials go to the registry's own origin (scheme, host and port) and, as
 * basic authentication, to the token realm it names, and nowhere else; each connection's address is
 * judged after name resolution, when the socket is made, so neither a redirect nor a name server can
 * lead to an address that the configuration does not list; http:// only where it is allowed. */
#include "fetch/http_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <strings.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "fetch/addr.h"
#include "model/limits.h"

#define HEADER_BYTES_MAX  (256U << 10)
#define TOKEN_BYTES_MAX   (128U << 10)
#define RETRY_AFTER_MAX_S 60
#define ERROR_BYTES_MAX   4096U

/* curl asks for a socket: the name is resolved, nothing has been sent. */
static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
        struct http *h = arg;
        const char *why = addr_refusal(&a->addr, a->addrlen);

        (void) purpose;
        if (why && !(h->hop.listed && (a->family == AF_INET || a->family == AF_INET6))) {
                const void *raw =
                        a->family == AF_INET
                                ? (const void *) &((struct sockaddr_in *) &a->addr)->sin_addr
                                : (const void *) &((struct sockaddr_in6 *) &a->addr)->sin6_addr;

                h->refused = why;
                if (!inet_ntop(a->family, raw, h->refused_addr, sizeof h->refused_addr))
                        h->refused_addr[0] = '\0';
                return CURL_SOCKET_BAD;
        }
        return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
        struct http *h = arg;

        (void) p;
        h->header_bytes += size * n;
        return h->header_bytes > HEADER_BYTES_MAX ? 0 : size * n;
}

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
        struct http *h = arg;

        h->body_began = true;
        if (h->body.len >= HTTP_BUFFER_BYTES) {
                h->paused = true;
                return CURL_WRITEFUNC_PAUSE;
        }
        strbuf_add(&h->body, p, size * n);
        return h->body.failed ? 0 : size * n;
}

int http_check_deadline(const struct http *h, struct err *e)
{
        if (h->req->deadline_us && clock_mono_us() >= h->req->deadline_us)
                return err_set(e, -ETIMEDOUT, "%s:%u did not answer in time", h->registry.host,
                               h->registry.port);
        return 0;
}

static void reap(struct http *h)
{
        CURLMsg *m;
        int left;

        while ((m = curl_multi_info_read(h->multi, &left)) != NULL) {
                if (m->msg != CURLMSG_DONE)
                        continue;
                h->done = true;
                h->result = m->data.result;
        }
}

/* Turn the transfer until there is more body than @have, or it is over. */
static int turn(struct http *h, size_t have, struct err *e)
{
        for (;;) {
                int running = 0, r = http_check_deadline(h, e);

                if (r < 0)
                        return r;
                if (h->paused && h->body.len == 0) {
                        h->paused = false;
                        (void) curl_easy_pause(h->easy, CURLPAUSE_CONT);
                }
                if (curl_multi_perform(h->multi, &running) != CURLM_OK)
                        return err_set(e, -EIO, "the HTTP client failed");
                reap(h);
                if (h->body.failed)
                        return err_set(e, -ENOMEM, "out of memory");
                if (h->body.len > have || h->done)
                        return 0;
                (void) curl_multi_poll(h->multi, NULL, 0, 500, NULL);
        }
}

void http_end(struct http *h)
{
        if (h->running)
                (void) curl_multi_remove_handle(h->multi, h->easy);
        h->running = false;
        curl_slist_free_all(h->headers);
        h->headers = NULL;
        h->body.len = 0;
        h->body.failed = false;
}

static int add_header(struct http *h, const char *name, const char *value)
{
        AUTO(str_wipe_free) char *line = str_fmt("%s: %s", name, value);
        struct curl_slist *l = line ? curl_slist_append(h->headers, line) : NULL;

        if (!l)
                return -ENOMEM;
        h->headers = l;
        return 0;
}

/* A fresh handle with the settings that hold for every request; connections live in the multi
 * handle and are used again. */
static int set_always(struct http *h)
{
        CURL *c = curl_easy_init();
        struct curl_blob ca = { (void *) (uintptr_t) h->ca, h->ca_len, CURL_BLOB_NOCOPY };
        CURLcode r = CURLE_OK;

        curl_easy_cleanup(h->easy);
        h->easy = c;
        if (!c)
                return -ENOMEM;
#define SET(opt, value)                                                                            \
        if (r == CURLE_OK)                                                                         \
        r = curl_easy_setopt(c, (opt), (value))
        SET(CURLOPT_NOSIGNAL, 1L);
        SET(CURLOPT_FOLLOWLOCATION, 0L);
        SET(CURLOPT_PROTOCOLS_STR, "http,https");
        SET(CURLOPT_PROXY, "");
        SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
        SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
        SET(CURLOPT_HTTP09_ALLOWED, 0L);
        SET(CURLOPT_SSL_VERIFYPEER, 1L);
        SET(CURLOPT_SSL_VERIFYHOST, 2L);
        SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
        SET(CURLOPT_CAINFO, NULL);
        SET(CURLOPT_CAPATH, NULL);
        SET(CURLOPT_BUFFERSIZE, 256L << 10);
        SET(CURLOPT_CONNECTTIMEOUT_MS, (long) (h->req->connect_us / US_PER_MS));
        SET(CURLOPT_LOW_SPEED_LIMIT, (long) h->req->rate_bytes);
        SET(CURLOPT_LOW_SPEED_TIME, (long) ((h->req->stall_us + US_PER_S - 1) / US_PER_S));
        SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
        SET(CURLOPT_OPENSOCKETDATA, h);
        SET(CURLOPT_HEADERFUNCTION, on_header);
        SET(CURLOPT_HEADERDATA, h);
        SET(CURLOPT_WRITEFUNCTION, on_body);
        SET(CURLOPT_WRITEDATA, h);
        SET(CURLOPT_ERRORBUFFER, h->curl_err);
        SET(CURLOPT_USERAGENT, "hypervisor-vmm/" HVMM_VERSION);
#undef SET
        if (r == CURLE_OK && h->ca)
                r = curl_easy_setopt(c, CURLOPT_CAINFO_BLOB, &ca);
        return r == CURLE_OK ? 0 : -EIO;
}

/* curl gave up before or within an answer. */
static int explain_curl(struct http *h, struct err *e)
{
        const char *text = h->curl_err[0] ? h->curl_err : curl_easy_strerror(h->result);

        if (h->refused &&
            (h->result == CURLE_COULDNT_CONNECT || h->result == CURLE_ABORTED_BY_CALLBACK))
                return err_set(
                        e, -EACCES,
                        "%s has the %s address %s; only a registry that the configuration lists may have one",
                        h->hop.host, h->refused, h->refused_addr);
        if (h->result == CURLE_WRITE_ERROR && h->header_bytes > HEADER_BYTES_MAX)
                return err_set(e, -EPROTO, "%s sent too many headers", h->hop.host);
        switch ((int) h->result) {
        case CURLE_PEER_FAILED_VERIFICATION:
        case CURLE_SSL_CACERT_BADFILE:
        case CURLE_URL_MALFORMAT:
        case CURLE_UNSUPPORTED_PROTOCOL:
        case CURLE_WEIRD_SERVER_REPLY:
                h->retry = false;
                break;
        default:
                h->retry = true;
        }
        if (h->result == CURLE_OPERATION_TIMEDOUT)
                return err_set(e, -ETIMEDOUT, "%s:%u: %s", h->hop.host, h->hop.port, text);
        return err_set(e, -EREMOTEIO, "%s:%u: %s", h->hop.host, h->hop.port, text);
}

/* Send one GET to h->hop and wait for the status. */
static int exchange(struct http *h, const char *url, const char *accept, uint64_t offset,
                    const char *authorization, struct err *e)
{
        int r;

        http_end(h);
        h->refused = NULL;
        h->header_bytes = 0;
        h->body_began = h->done = h->paused = h->retry = false;
        h->retry_after_us = 0;
        h->status = 0;
        h->curl_err[0] = '\0';
        r = set_always(h);
        if (r >= 0 && accept)
                r = add_header(h, "Accept", accept);
        if (r >= 0 && authorization)
                r = add_header(h, "Authorization", authorization);
        if (r >= 0 && offset > 0) {
                char range[40];

                (void) snprintf(range, sizeof range, "bytes=%llu-", (unsigned long long) offset);
                r = add_header(h, "Range", range);
        }
        if (r < 0 || curl_easy_setopt(h->easy, CURLOPT_URL, url) != CURLE_OK ||
            curl_easy_setopt(h->easy, CURLOPT_HTTPHEADER, h->headers) != CURLE_OK ||
            curl_multi_add_handle(h->multi, h->easy) != CURLM_OK)
                return err_set(e, -ENOMEM, "the HTTP client cannot be set up");
        h->running = true;
        r = turn(h, 0, e);
        if (r < 0)
                return r;
        (void) curl_easy_getinfo(h->easy, CURLINFO_RESPONSE_CODE, &h->status);
        if (h->done && h->result != CURLE_OK && !(h->body_began && h->body.len > 0))
                return explain_curl(h, e);
        return 0;
}

static const char *header(struct http *h, const char *name, size_t i)
{
        struct curl_header *out = NULL;

        return curl_easy_header(h->easy, name, i, CURLH_HEADER, -1, &out) == CURLHE_OK ? out->value
                                                                                       : NULL;
}

/* The words in a registry's error body: {"errors":[{"code":...,"message":...}]} */
static char *error_words(struct http *h)
{
        AUTO(json_put) json_t *j = NULL;
        const json_t *first;
        const char *msg;

        while (!h->done && h->body.len <= ERROR_BYTES_MAX)
                if (turn(h, h->body.len, NULL) < 0)
                        return NULL;
        if (h->body.len == 0 || h->body.len > ERROR_BYTES_MAX)
                return NULL;
        j = jsonx_parse(h->body.s, h->body.len, NULL);
        first = json_array_get(json_object_get(j, "errors"), 0);
        msg = jsonx_str(first, "message");
        if (!msg)
                msg = jsonx_str(first, "code");
        return msg ? str_fmt("%.200s", msg) : NULL;
}

static int explain_status(struct http *h, struct err *e)
{
        const char *after = header(h, "Retry-After", 0);
        AUTO(free) char *words = error_words(h);
        const char *sep = words ? ": " : "", *tail = words ? words : "";
        uint64_t s;

        if (after && str_u64(after, 0, RETRY_AFTER_MAX_S, &s) == 0)
                h->retry_after_us = s * US_PER_S;
        h->retry = h->status >= 500 || h->status == 429 || h->status == 408;
        switch (h->status) {
        case 401:
        case 403:
                return err_set(e, -EACCES, "%s denies access (HTTP %ld)%s%s", h->hop.host,
                               h->status, sep, tail);
        case 404:
                return err_set(e, -ENOENT, "not found at %s%s%s", h->hop.host, sep, tail);
        default:
                return err_set(e, -EREMOTEIO, "%s answers HTTP %ld%s%s", h->hop.host, h->status,
                               sep, tail);
        }
}

/* Take the challenge of the 401 that is before us and make h->authorization from it. */
static int authenticate(struct http *h, struct err *e);

/* Where a 3xx leads: *url and h->hop are replaced. */
static int follow(struct http *h, char **url, struct err *e)
{
        const char *location = header(h, "Location", 0);
        CURLU *u = curl_url();
        struct origin to = { 0 };
        char *next = NULL;
        int r;

        if (!u || !location || curl_url_set(u, CURLUPART_URL, *url, 0) != CURLUE_OK ||
            curl_url_set(u, CURLUPART_URL, location, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK) {
                r = err_set(e, -EPROTO, "%s redirects to nowhere", h->hop.host);
        } else {
                (void) curl_url_set(u, CURLUPART_USER, NULL, 0); /* nobody else's credentials */
                (void) curl_url_set(u, CURLUPART_PASSWORD, NULL, 0);
                (void) curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0);
                r = origin_parse(h->req, u, &to, e);
                next = url_part(u, CURLUPART_URL, 0);
        }
        curl_url_cleanup(u);
        if (r < 0)
                return err_wrap(e, r, "redirect of %s", h->hop.host);
        if (!next) {
                origin_done(&to);
                return err_set(e, -ENOMEM, "out of memory");
        }
        origin_done(&h->hop);
        h->hop = to;
        free(*url);
        *url = next;
        return 0;
}

/* One document through redirects.  @basic: a fixed value for the first origin only, instead of the
 * registry's own authorization. */
static int walk(struct http *h, const char *first, const char *accept, uint64_t offset,
                bool token_service, const char *basic, struct err *e)
{
        AUTO(free) char *url = strdup(first);
        CURLU *u = curl_url();
        struct origin start = { 0 };
        int r = -ENOMEM;

        if (u && url && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK)
                r = origin_parse(h->req, u, &start, e);
        else
                r = err_set(e, -EPROTO, "'%.100s' is not an address", first);
        curl_url_cleanup(u);
        if (r < 0)
                return r;
        origin_done(&h->hop);
        h->hop = (struct origin){ strdup(start.scheme), strdup(start.host), start.port,
                                  start.listed };
        for (unsigned hops = 0; r >= 0;) {
                const char *auth = token_service ? basic : h->authorization;
                const struct origin *owner = token_service ? &start : &h->registry;

                r = exchange(h, url, accept, offset, origin_same(&h->hop, owner) ? auth : NULL, e);
                if (r < 0 || h->status == 200 || (h->status == 206 && offset > 0))
                        break;
                if (h->status >= 301 && h->status <= 308 && h->status != 304 && h->status != 305 &&
                    h->status != 306) {
                        r = ++hops > LIMIT_REDIRECTS
                                    ? err_set(e, -ELOOP, "%s redirects more than %u times",
                                              start.host, LIMIT_REDIRECTS)
                                    : follow(h, &url, e);
                        continue;
                }
                if (h->status == 401 && !token_service && origin_same(&h->hop, &h->registry) &&
                    !h->authorization_fixed) {
                        r = authenticate(h, e);
                        if (r > 0) { /* the token service was asked meanwhile: start again */
                                origin_done(&h->hop);
                                h->hop = (struct origin){ strdup(start.scheme), strdup(start.host),
                                                          start.port, start.listed };
                                free(url);
                                url = strdup(first);
                                if (!url || !h->hop.host || !h->hop.scheme)
                                        r = err_set(e, -ENOMEM, "out of memory");
                                continue;
                        }
                        if (r < 0)
                                break;
                }
                r = explain_status(h, e);
        }
        origin_done(&start);
        return r;
}

/* Read a small body to its end. */
static int finish_small(struct http *h, size_t max, struct err *e)
{
        while (!h->done) {
                int r = turn(h, h->body.len, e);

                if (r < 0)
                        return r;
                if (h->body.len > max)
                        return err_set(e, -EFBIG, "%s sends more than %zu bytes", h->hop.host, max);
        }
        return h->result == CURLE_OK ? 0 : explain_curl(h, e);
}

/* 1: h->authorization is new; 0: nothing can be done about the 401. */
static int authenticate(struct http *h, struct err *e)
{
        AUTO(auth_challenge_done) struct auth_challenge c = { 0 };
        AUTO(str_wipe_free) char *basic = NULL;
        AUTO(free) char *url = NULL;
        const char *value;
        int r = 0;

        for (size_t i = 0; r >= 0 && (value = header(h, "WWW-Authenticate", i)) != NULL; i++)
                r = auth_parse(value, &c, e);
        if (r < 0 || c.kind == AUTH_NONE)
                return r;
        if (h->req->username) {
                basic = auth_basic(h->req->username, h->req->password);
                if (!basic)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        h->authorization_fixed = true;
        if (c.kind == AUTH_BASIC) {
                if (!basic)
                        return 0;
                h->authorization = str_wipe_free(h->authorization);
                h->authorization = TAKE(basic);
                return 1;
        }
        r = auth_token_url(&c, h->req->repository, h->req->username, &url, e);
        if (r >= 0)
                r = walk(h, url, "application/json", 0, true, basic, e);
        if (r >= 0)
                r = finish_small(h, TOKEN_BYTES_MAX, e);
        if (r >= 0) {
                h->authorization = str_wipe_free(h->authorization);
                r = auth_token_parse(h->body.s ? h->body.s : "", h->body.len, &h->authorization, e);
        }
        if (r < 0) {
                h->authorization_fixed = false; /* a passing failure may be tried again */
                return err_wrap(e, r, "token service");
        }
        return 1;
}

int http_begin(struct http *h, const char *url, const char *accept, uint64_t offset, struct err *e)
{
        h->retry = false;
        h->authorization_fixed = false; /* tokens expire: each attempt may ask for one */
        return walk(h, url, accept, offset, false, NULL, e);
}

int http_pump(struct http *h, struct err *e)
{
        int r = 0;

        if (h->body.len == 0 && !h->done)
                r = turn(h, 0, e);
        if (r < 0)
                return r;
        if (h->body.len > 0)
                return 1;
        return h->result == CURLE_OK ? 0 : explain_curl(h, e);
}

char *http_registry_url(const struct http *h, const char *kind, const char *name)
{
        const char *v6 = strchr(h->registry.host, ':') ? "[" : "", *v6e = *v6 ? "]" : "";

        return str_fmt("%s://%s%s%s:%u/v2/%s/%s/%s", h->registry.scheme, v6, h->registry.host, v6e,
                       h->registry.port, h->req->repository, kind, name);
}

const char *http_authorization(const struct http *h)
{
        return h->authorization;
}

/* The registry's address is the request's; http:// when the configuration says so. */
static int find_registry(struct http *h, struct err *e)
{
        const char *name =
                str_eq(h->req->registry, "docker.io") ? "registry-1.docker.io" : h->req->registry;
        static const char *const schemes[] = { "http", "https" };
        int r = 0;

        for (size_t i = 0; i < NELEM(schemes); i++) {
                AUTO(free) char *url = str_fmt("%s://%s/", schemes[i], name);
                CURLU *u = curl_url();

                if (!url || !u || curl_url_set(u, CURLUPART_URL, url, 0) != CURLUE_OK)
                        r = err_set(e, -EINVAL, "'%s' is not a registry address", name);
                else
                        r = origin_parse(h->req, u, &h->registry, e);
                curl_url_cleanup(u);
                if (r >= 0)
                        return 0;
        }
        return r;
}

int http_new(const struct fetch_request *req, const char *ca, size_t ca_len, struct http **ret,
             struct err *e)
{
        AUTO(http_free) struct http *h = calloc(1, sizeof *h);
        int r;

        if (!h)
                return err_set(e, -ENOMEM, "out of memory");
        h->req = req;
        h->ca = ca;
        h->ca_len = ca_len;
        h->multi = curl_multi_init();
        if (!h->multi)
                return err_set(e, -ENOMEM, "the HTTP client cannot be set up");
        if (req->authorization) {
                h->authorization = strdup(req->authorization);
                if (!h->authorization)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        r = find_registry(h, e);
        if (r < 0)
                return r;
        *ret = TAKE(h);
        return 0;
}

struct http *http_free(struct http *h)
{
        if (!h)
                return NULL;
        http_end(h);
        strbuf_done(&h->body);
        curl_easy_cleanup(h->easy);
        if (h->multi)
                (void) curl_multi_cleanup(h->multi);
        origin_done(&h->registry);
        origin_done(&h->hop);
        (void) str_wipe_free(h->authorization);
        free(h);
        return NULL;
}
