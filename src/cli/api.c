/* api.c - see api.h.  Runs in tensoronecli, one thread, libcurl's easy interface.
 *
 * Always holds: redirects are never followed (the key would travel along), only http and https
 * are spoken, and answers that are kept in memory are bounded. */
#include "cli/api.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/jsonx.h"
#include "cli/cli.h"
#include "cli/config.h"
#include "cli/tls.h"

#define ANSWER_MAX  (64U << 20) /* bytes of a good answer kept in memory */
#define REFUSAL_MAX (64U << 10) /* bytes of a refusal that are read for its message */

struct api {
        CURL *curl;
        struct config cfg;
        char *auth;     /* header line, or NULL */
        long timeout_s; /* -1: the preset */
};

/* One request under way. */
struct exchange {
        CURL *curl;
        const struct api_request *q;
        struct strbuf body;
        struct err err; /* why a callback ended it; code 0: it did not */
};

int api_new(struct api **ret, struct err *e)
{
        AUTO(api_free) struct api *a = calloc(1, sizeof *a);
        int r;

        if (!a)
                return err_set(e, -ENOMEM, "out of memory");
        a->timeout_s = -1;
        r = config_load(&a->cfg, e);
        if (r < 0)
                return r;
        if (!a->cfg.url)
                return err_set(e, -ENOENT,
                               "the API's address is not set; run: " CLI_PROGRAM
                               " config --apiUrl URL --apiKey KEY");
        if (a->cfg.key) {
                a->auth = str_fmt("Authorization: Bearer %s", a->cfg.key);
                if (!a->auth)
                        return err_set(e, -ENOMEM, "out of memory");
        }
        if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
                return err_set(e, -ENOMEM, "libcurl does not start");
        a->curl = curl_easy_init();
        if (!a->curl)
                return err_set(e, -ENOMEM, "out of memory");
        *ret = TAKE(a);
        return 0;
}

struct api *api_free(struct api *a)
{
        if (!a)
                return NULL;
        if (a->curl)
                curl_easy_cleanup(a->curl);
        config_done(&a->cfg);
        (void) str_wipe_free(a->auth);
        free(a);
        return NULL;
}

void api_set_timeout(struct api *a, long seconds)
{
        a->timeout_s = seconds;
}

const char *api_base(const struct api *a)
{
        return a->cfg.url;
}

const char *api_key(const struct api *a)
{
        return a->cfg.key;
}

bool api_trust(const struct api *a, void *curl)
{
        return tls_setup(curl, a->cfg.ca);
}

int api_trust_error(const struct api *a, void *curl, int code, struct err *e)
{
        const struct tls_trust t = { a->cfg.url, a->cfg.ca, a->cfg.ca_from };

        return tls_error(curl, code, &t, e);
}

static bool unreserved(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               (c && strchr("-._~", c));
}

void api_path_part(struct strbuf *path, const char *part)
{
        for (; *part; part++) {
                if (unreserved(*part))
                        strbuf_char(path, *part);
                else
                        strbuf_fmt(path, "%%%02X", (unsigned char) *part);
        }
}

void api_path_add(struct strbuf *path, const char *name, const char *value)
{
        strbuf_char(path, path->s && strchr(path->s, '?') ? '&' : '?');
        strbuf_str(path, name);
        strbuf_char(path, '=');
        api_path_part(path, value);
}

static int status_code(long status)
{
        switch (status) {
        case 401:
        case 403:
                return -EACCES;
        case 404:
                return -ENOENT;
        case 409:
                return -EBUSY;
        case 429:
                return -EAGAIN;
        default:
                return -EREMOTEIO;
        }
}

/* The first message of `errors`, or of {"error","message"}; borrowed, NULL when there is none. */
static const char *refusal_message(const json_t *j)
{
        const json_t *errors = json_object_get(j, "errors");
        const char *msg = jsonx_str(json_array_get(errors, 0), "message");

        if (str_empty(msg))
                msg = jsonx_str(j, "message");
        if (str_empty(msg))
                msg = jsonx_str(j, "error");
        return str_empty(msg) ? NULL : msg;
}

int api_refusal(long status, const char *body, size_t len, struct err *e)
{
        AUTO(json_put) json_t *j = body ? jsonx_parse(body, len, NULL) : NULL;
        const char *msg = refusal_message(j);
        int code = status_code(status);

        if (status == 401)
                return err_set(e, code,
                               "%s%sthe API refused the key (HTTP 401); set one with: " CLI_PROGRAM
                               " config --apiKey KEY",
                               msg ? msg : "", msg ? ": " : "");
        if (msg)
                return err_set(e, code, "%s", msg);
        return err_set(e, code, "the API answered with HTTP status %ld and no message", status);
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
        struct exchange *x = arg;
        size_t len = size * n;
        long status = 0;

        (void) curl_easy_getinfo(x->curl, CURLINFO_RESPONSE_CODE, &status);
        if (status >= 200 && status < 300 && x->q->chunk) {
                int r = x->q->chunk(x->q->arg, data, len, &x->err);

                if (r >= 0)
                        return len;
                x->err.code = r;
                return 0;
        }
        if (status < 200 || status >= 300) {
                if (x->body.len < REFUSAL_MAX)
                        strbuf_add(&x->body, data, len);
                return len;
        }
        if (x->body.len + len > ANSWER_MAX) {
                (void) err_set(&x->err, -EFBIG, "the API's answer is larger than %u MB",
                               ANSWER_MAX >> 20);
                return 0;
        }
        strbuf_add(&x->body, data, len);
        return len;
}

static size_t on_read(char *buf, size_t size, size_t n, void *arg)
{
        struct exchange *x = arg;
        ssize_t r = x->q->read(x->q->arg, buf, size * n, &x->err);

        if (r >= 0)
                return (size_t) r;
        x->err.code = (int) r;
        return CURL_READFUNC_ABORT;
}

static int add_header(struct curl_slist **list, const char *line)
{
        struct curl_slist *longer = curl_slist_append(*list, line);

        if (!longer)
                return -ENOMEM;
        *list = longer;
        return 0;
}

static int set_headers(const struct api *a, const struct api_request *q, struct curl_slist **list)
{
        int r = add_header(list, "Accept: application/json");

        if (r >= 0 && a->auth)
                r = add_header(list, a->auth);
        if (r >= 0 && q->body)
                r = add_header(list, "Content-Type: application/json");
        if (r >= 0 && q->read) {
                AUTO(free) char *type = str_fmt("Content-Type: %s", q->type);

                r = type ? add_header(list, type) : -ENOMEM;
                if (r >= 0)
                        r = add_header(list, "Transfer-Encoding: chunked");
        }
        /* a refusal must come before the body: once that flows, the answer may be lost with it */
        if (r >= 0)
                r = add_header(list, q->read ? "Expect: 100-continue" : "Expect:");
        return r;
}

/* Set everything but the body; false when libcurl is out of memory. */
static bool set_common(struct api *a, const struct api_request *q, struct exchange *x,
                       const char *url, const struct curl_slist *headers)
{
        bool stream = q->read || q->chunk;
        long timeout = a->timeout_s >= 0 ? a->timeout_s : stream ? 0 : 60;
        CURL *c = a->curl;

        curl_easy_reset(c);
        return curl_easy_setopt(c, CURLOPT_URL, url) == CURLE_OK && api_trust(a, c) &&
               curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
               curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, q->method) == CURLE_OK &&
               curl_easy_setopt(c, CURLOPT_USERAGENT, CLI_PROGRAM "/" HVMM_VERSION) == CURLE_OK &&
               curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
               curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, 10L) == CURLE_OK &&
               curl_easy_setopt(c, CURLOPT_TIMEOUT, timeout) == CURLE_OK &&
               curl_easy_setopt(c, CURLOPT_TCP_KEEPALIVE, 1L) == CURLE_OK &&
               curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers) == CURLE_OK &&
               curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK &&
               curl_easy_setopt(c, CURLOPT_WRITEDATA, x) == CURLE_OK;
}

static bool set_body(struct api *a, const struct api_request *q, struct exchange *x,
                     const char *text)
{
        CURL *c = a->curl;

        if (text)
                return curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE,
                                        (curl_off_t) strlen(text)) == CURLE_OK &&
                       curl_easy_setopt(c, CURLOPT_POSTFIELDS, text) == CURLE_OK;
        if (!q->read)
                return true;
        return curl_easy_setopt(c, CURLOPT_POST, 1L) == CURLE_OK &&
               curl_easy_setopt(c, CURLOPT_READFUNCTION, on_read) == CURLE_OK &&
               curl_easy_setopt(c, CURLOPT_READDATA, x) == CURLE_OK;
}

static int transfer_error(const struct api *a, CURLcode code, const struct exchange *x,
                          struct err *e)
{
        int r = x->err.code ? err_copy(e, &x->err) : api_trust_error(a, a->curl, (int) code, e);

        if (r < 0)
                return r;
        switch ((int) code) {
        case CURLE_COULDNT_RESOLVE_HOST:
        case CURLE_COULDNT_CONNECT:
                return err_set(e, -ECONNREFUSED, "the API at %s cannot be reached: %s", a->cfg.url,
                               curl_easy_strerror(code));
        case CURLE_OPERATION_TIMEDOUT:
                return err_set(e, -ETIMEDOUT, "the API at %s did not answer in time", a->cfg.url);
        case CURLE_OUT_OF_MEMORY:
                return err_set(e, -ENOMEM, "out of memory");
        default:
                return err_set(e, -EIO, "the connection to the API at %s failed: %s", a->cfg.url,
                               curl_easy_strerror(code));
        }
}

/* The answer as a whole: a refusal, or JSON for q->ret_json. */
static int finish(const struct api *a, struct exchange *x, struct err *e)
{
        const struct api_request *q = x->q;
        long status = 0;

        (void) curl_easy_getinfo(a->curl, CURLINFO_RESPONSE_CODE, &status);
        if (x->body.failed)
                return err_set(e, -ENOMEM, "out of memory");
        if (status < 200 || status >= 300)
                return api_refusal(status, x->body.s, x->body.len, e);
        if (q->chunk || !q->ret_json)
                return 0;
        *q->ret_json = jsonx_parse(x->body.s ? x->body.s : "", x->body.len, e);
        if (*q->ret_json)
                return 0;
        return err_wrap(e, -EPROTO, "%s does not speak the TensorOne API", a->cfg.url);
}

static bool refused(const struct api *a, const struct exchange *x)
{
        long status = 0;

        (void) curl_easy_getinfo(a->curl, CURLINFO_RESPONSE_CODE, &status);
        return !x->err.code && status >= 400 && x->body.len > 0;
}

int api_request(struct api *a, const struct api_request *q, struct err *e)
{
        struct exchange x = { .curl = a->curl, .q = q };
        AUTO(free) char *url = str_fmt("%s%s", a->cfg.url, q->path);
        AUTO(free) char *text = q->body ? jsonx_dump(q->body) : NULL;
        struct curl_slist *headers = NULL;
        CURLcode code;
        int r;

        if (!url || (q->body && !text) || set_headers(a, q, &headers) < 0 ||
            !set_common(a, q, &x, url, headers) || !set_body(a, q, &x, text)) {
                curl_slist_free_all(headers);
                return err_set(e, -ENOMEM, "out of memory");
        }
        code = curl_easy_perform(a->curl);
        /* a server that refuses an upload half-way may close before it has read the rest */
        r = code == CURLE_OK || refused(a, &x) ? finish(a, &x, e) : transfer_error(a, code, &x, e);
        curl_slist_free_all(headers);
        strbuf_done(&x.body);
        return r;
}

int api_graphql(struct api *a, const char *query, json_t *vars, json_t **ret, struct err *e)
{
        AUTO(json_put) json_t *body = json_pack("{s:s,s:o*}", "query", query, "variables", vars);
        AUTO(json_put) json_t *answer = NULL;
        struct api_request q = {
                .method = "POST",
                .path = "/graphql",
                .body = body,
                .ret_json = &answer,
        };
        const char *msg;
        json_t *data;
        int r;

        if (!body)
                return err_set(e, -ENOMEM, "out of memory");
        r = api_request(a, &q, e);
        if (r < 0)
                return r;
        msg = refusal_message(answer);
        if (msg)
                return err_set(e, -EREMOTEIO, "%s", msg);
        data = json_object_get(answer, "data");
        if (!json_is_object(data))
                return err_set(e, -EPROTO,
                               "%s does not speak the TensorOne API: the answer has "
                               "no data",
                               a->cfg.url);
        *ret = json_incref(data);
        return 0;
}
