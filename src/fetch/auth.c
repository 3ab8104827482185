/* auth.c - see auth.h.  Grammar: RFC 9110 section 11; parameters are token or quoted-string. */
#include "fetch/auth.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "base/jsonx.h"
#include "base/str.h"

#define TOKEN_MAX 65536U

void auth_challenge_done(struct auth_challenge *c)
{
        free(c->realm);
        free(c->service);
        free(c->scope);
        *c = (struct auth_challenge){ 0 };
}

static const char *skip_blanks(const char *p)
{
        return p + strspn(p, " \t");
}

static size_t token_len(const char *p)
{
        size_t n = 0;

        while (isalnum((unsigned char) p[n]) || (p[n] && strchr("!#$%&'*+-.^_`|~", p[n])))
                n++;
        return n;
}

/* A value after "key=", quoted or not, into *ret; returns what follows or NULL. */
static const char *parse_value(const char *p, char **ret)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };

        if (*p != '"') {
                size_t n = strcspn(p, " \t,"); /* wider than a token: some send bare URLs */

                strbuf_add(&b, p, n);
                p += n;
        } else {
                for (p++; *p != '"'; p++) {
                        if (*p == '\\' && p[1])
                                p++;
                        if (!*p)
                                return NULL;
                        strbuf_char(&b, *p);
                }
                p++;
        }
        *ret = strbuf_take(&b);
        return *ret ? p : NULL;
}

static void set_param(struct auth_challenge *c, const char *key, size_t n, char *value)
{
        static const struct {
                const char *key;
                size_t off;
        } known[] = {
                { "realm", offsetof(struct auth_challenge, realm) },
                { "service", offsetof(struct auth_challenge, service) },
                { "scope", offsetof(struct auth_challenge, scope) },
        };

        for (size_t i = 0; i < NELEM(known); i++) {
                char **at = (char **) ((char *) c + known[i].off);

                if (strlen(known[i].key) != n || strncasecmp(key, known[i].key, n) != 0 || *at)
                        continue;
                *at = value;
                return;
        }
        free(value);
}

/* key=value, key=value... up to the next scheme; NULL when it is neither. */
static const char *parse_params(const char *p, struct auth_challenge *c)
{
        for (;;) {
                const char *key, *eq;
                char *value = NULL;
                size_t n;

                p += strspn(p, " \t,");
                key = p;
                n = token_len(p);
                eq = skip_blanks(p + n);
                if (n == 0 || *eq != '=')
                        return p; /* a scheme, or the end */
                p = parse_value(skip_blanks(eq + 1), &value);
                if (!p)
                        return NULL;
                set_param(c, key, n, value);
        }
}

static enum auth_kind scheme(const char *p, size_t n)
{
        if (n == 6 && strncasecmp(p, "bearer", n) == 0)
                return AUTH_BEARER;
        if (n == 5 && strncasecmp(p, "basic", n) == 0)
                return AUTH_BASIC;
        return AUTH_NONE;
}

int auth_parse(const char *header, struct auth_challenge *ret, struct err *e)
{
        const char *p = header + strspn(header, " \t,");

        while (*p) {
                AUTO(auth_challenge_done) struct auth_challenge c = { 0 };
                size_t n = token_len(p);

                if (n == 0)
                        return err_set(e, -EINVAL, "WWW-Authenticate: '%.80s' is not understood",
                                       header);
                c.kind = scheme(p, n);
                p = parse_params(p + n, &c);
                if (!p)
                        return err_set(e, -EINVAL, "WWW-Authenticate: a quote is never closed");
                if (c.kind <= ret->kind)
                        continue;
                auth_challenge_done(ret);
                *ret = c;
                c = (struct auth_challenge){ 0 };
        }
        return 0;
}

static int add_query(CURLU *u, const char *key, const char *value)
{
        AUTO(free) char *pair = str_fmt("%s=%s", key, value);

        if (!pair || curl_url_set(u, CURLUPART_QUERY, pair, CURLU_APPENDQUERY | CURLU_URLENCODE) !=
                             CURLUE_OK)
                return -ENOMEM;
        return 0;
}

int auth_token_url(const struct auth_challenge *c, const char *repository, const char *account,
                   char **ret, struct err *e)
{
        AUTO(free) char *scope = NULL, *url = NULL;
        CURLU *u = curl_url();
        char *text = NULL;
        int r = 0;

        scope = c->scope ? strdup(c->scope) : str_fmt("repository:%s:pull", repository);
        if (!u || !scope)
                r = err_set(e, -ENOMEM, "out of memory");
        else if (!c->realm || curl_url_set(u, CURLUPART_URL, c->realm, 0) != CURLUE_OK)
                r = err_set(e, -EPROTO, "the registry's token realm is not an address");
        else if ((c->service && add_query(u, "service", c->service) < 0) ||
                 add_query(u, "scope", scope) < 0 ||
                 (account && add_query(u, "account", account) < 0) ||
                 curl_url_get(u, CURLUPART_URL, &text, 0) != CURLUE_OK)
                r = err_set(e, -ENOMEM, "out of memory");
        if (r >= 0) {
                url = strdup(text);
                if (!url)
                        r = err_set(e, -ENOMEM, "out of memory");
        }
        curl_free(text);
        curl_url_cleanup(u);
        if (r >= 0)
                *ret = TAKE(url);
        return r;
}

/* A header value: nothing that could end the line. */
static bool token_ok(const char *s)
{
        size_t n = strlen(s);

        if (n == 0 || n > TOKEN_MAX)
                return false;
        for (; *s; s++)
                if ((unsigned char) *s <= 0x20 || (unsigned char) *s >= 0x7f)
                        return false;
        return true;
}

int auth_token_parse(const char *text, size_t len, char **ret, struct err *e)
{
        AUTO(json_put) json_t *j = jsonx_parse(text, len, e);
        const char *token;

        if (!j)
                return err_wrap(e, -EPROTO, "the token service's answer");
        token = jsonx_str(j, "token");
        if (str_empty(token))
                token = jsonx_str(j, "access_token");
        if (str_empty(token) || !token_ok(token))
                return err_set(e, -EPROTO, "the token service's answer holds no token");
        *ret = str_fmt("Bearer %s", token);
        return *ret ? 0 : err_set(e, -ENOMEM, "out of memory");
}

char *auth_basic(const char *username, const char *password)
{
        AUTO(str_wipe_free) char *pair = str_fmt("%s:%s", username, password ? password : "");
        AUTO(str_wipe_free) char *b64 = NULL;
        size_t n = pair ? strlen(pair) : 0;

        if (!pair || n > TOKEN_MAX)
                return NULL;
        b64 = calloc(1, (n + 2) / 3 * 4 + 1);
        if (!b64)
                return NULL;
        (void) EVP_EncodeBlock((unsigned char *) b64, (const unsigned char *) pair, (int) n);
        return str_fmt("Basic %s", b64);
}
