/* http_origin.c - where a URL leads and what may be done there.  Runs in vmm-fetch; pure. */
#include <errno.h>
#include <strings.h>

#include "fetch/addr.h"
#include "fetch/http_priv.h"

void origin_done(struct origin *o)
{
        free(o->scheme);
        free(o->host);
        *o = (struct origin){ 0 };
}

bool origin_same(const struct origin *a, const struct origin *b)
{
        return str_eq(a->scheme, b->scheme) && a->port == b->port && a->host && b->host &&
               strcasecmp(a->host, b->host) == 0;
}

static bool in_list(char *const *list, const struct origin *o)
{
        unsigned preset = str_eq(o->scheme, "http") ? 80 : 443;

        for (; list && *list; list++)
                if (addr_listed(*list, o->host, o->port, preset))
                        return true;
        return false;
}

char *url_part(CURLU *u, CURLUPart part, unsigned flags)
{
        char *s = NULL, *copy = NULL;

        if (curl_url_get(u, part, &s, flags) == CURLUE_OK)
                copy = strdup(s);
        curl_free(s);
        return copy;
}

/* Split a URL and judge its scheme. */
int origin_parse(const struct fetch_request *req, CURLU *u, struct origin *ret, struct err *e)
{
        AUTO(free) char *port = url_part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT);
        struct origin o = { .scheme = url_part(u, CURLUPART_SCHEME, 0),
                            .host = url_part(u, CURLUPART_HOST, 0) };
        uint64_t n = 0;
        size_t len;
        int r = 0;

        if (!o.scheme || !o.host || !port || str_u64(port, 1, 65535, &n) < 0) {
                r = err_set(e, -EPROTO, "an address that is not understood");
        } else {
                o.port = (unsigned) n;
                len = strlen(o.host);
                if (o.host[0] == '[' && o.host[len - 1] == ']') {
                        memmove(o.host, o.host + 1, len - 2);
                        o.host[len - 2] = '\0';
                }
                o.listed = in_list(req->listed, &o);
                if (str_eq(o.scheme, "http") && !in_list(req->insecure, &o))
                        r = err_set(
                                e, -EACCES,
                                "%s:%u would need plain HTTP, which the configuration does not allow there",
                                o.host, o.port);
                else if (!str_eq(o.scheme, "http") && !str_eq(o.scheme, "https"))
                        r = err_set(e, -EACCES, "%s:// is not fetched", o.scheme);
        }
        if (r < 0)
                origin_done(&o);
        else
                *ret = o;
        return r;
}
