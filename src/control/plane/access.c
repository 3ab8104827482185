/* access.c - who may enter at the private ports of clusters (docs/edge.md, "Ports and links"): what the host's edge
 * is told of keys, and links.  tensorone-api, loop thread.
 *
 * A link is signed with a key of its cluster alone, which is derived (accounts_cluster_seed) and travels in
 * the cluster's plan: neither side asks the other when one is made or followed.  It names the API key it was
 * asked for with, and is worth nothing without that. */
#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/proc.h"
#include "base/str.h"
#include "control/plane/plane_priv.h"
#include "model/limits.h"
#include "model/plan.h"

#define SEED_BYTES   32U
#define URL_PATH_MAX 2048U

static_assert(PLAN_EDGE_KEY_LEN == (SEED_BYTES + 2) / 3 * 4, "base64 of the seed");

static int seed_of(const struct plane *p, const struct cluster *c, uint8_t ret[static SEED_BYTES])
{
        return accounts_cluster_seed(p->accounts, "edge-access", c->id, c->created_us, ret);
}

char *plane_edge_key(const struct plane *p, const struct cluster *c)
{
        unsigned char text[PLAN_EDGE_KEY_LEN + 1];
        uint8_t seed[SEED_BYTES];
        char *copy;

        if (seed_of(p, c, seed) < 0)
                return NULL;
        (void) EVP_EncodeBlock(text, seed, SEED_BYTES);
        explicit_bzero(seed, sizeof seed);
        copy = strdup((const char *) text);
        explicit_bzero(text, sizeof text);
        return copy;
}

/* ---- keys ---- */

void plane_tell_keys(struct plane *p, const char *account)
{
        AUTO(json_put) json_t *keys = p->foreign ? NULL : accounts_edge_keys(p->accounts, account);

        if (keys)
                node_keys(p->node, account, keys);
}

void plane_tell_all_keys(struct plane *p)
{
        for (struct map_entry *i = map_first(accounts_all(p->accounts)); i; i = map_next(i))
                plane_tell_keys(p, map_key(i));
        if (!p->foreign)
                node_keys_said(p->node);
}

/* ---- links ---- */

static int check_path(const char *path, struct err *e)
{
        if (path[0] != '/')
                return err_set(e, -EINVAL, "path: '%.64s' must begin with /", path);
        if (strlen(path) > URL_PATH_MAX)
                return err_set(e, -E2BIG, "path: %zu bytes, at most %u are allowed", strlen(path),
                               URL_PATH_MAX);
        for (const char *s = path; *s; s++)
                if ((unsigned char) *s <= ' ' || (unsigned char) *s >= 0x7f ||
                    strchr("#\"<>\\^`{|}", *s))
                        return err_set(e, -EINVAL,
                                       "path: byte %zu cannot stand in a URL; write it as %%%02X",
                                       (size_t) (s - path) + 1, (unsigned char) *s);
        return 0;
}

/* The cluster's http port of that number, or its only one. */
static int find_port(const struct cluster *c, uint32_t number, struct plan_port *ret, struct err *e)
{
        struct plan_port list[LIMIT_PORTS];
        const char *has = str_empty(c->ports) ? "none" : c->ports;
        int n = plan_ports(c->ports, list, NELEM(list), e), found = 0;

        for (int i = 0; i < n; i++) {
                if (list[i].type != PORT_HTTP || (number && list[i].private_port != number))
                        continue;
                *ret = list[i];
                found++;
        }
        if (found == 1 || n < 0)
                return n < 0 ? n : 0;
        return number ? err_set(e, -ENOENT, "port: %u is no http port of this cluster; it has %s",
                                number, has)
                      : err_set(e, -EINVAL,
                                "port: say which, because it has not just one http port; it has %s",
                                has);
}

/* "tensorone_access=UNTIL.KEY.SIGNATURE" */
static int put_token(const struct plane *p, const struct caller *who, const struct cluster *c,
                     const char *host, uint64_t until_s, struct strbuf *b)
{
        AUTO(free)
        char *said = str_fmt("link %s %llu %s", host, (unsigned long long) until_s, who->key);
        unsigned char mac[EVP_MAX_MD_SIZE];
        char hex[2 * EVP_MAX_MD_SIZE + 1];
        uint8_t seed[SEED_BYTES];
        unsigned int len = 0;
        bool good = said && seed_of(p, c, seed) >= 0 &&
                    HMAC(EVP_sha256(), seed, SEED_BYTES, (const unsigned char *) said, strlen(said),
                         mac, &len) != NULL;

        explicit_bzero(seed, sizeof seed);
        if (!good)
                return -ENOMEM;
        hex_encode(mac, len, hex);
        strbuf_fmt(b, PLANE_LINK_PARAMETER "=%llu.%s.%s", (unsigned long long) until_s, who->key,
                   hex);
        explicit_bzero(hex, sizeof hex);
        explicit_bzero(mac, sizeof mac);
        return b->failed ? -ENOMEM : 0;
}

int plane_open(const struct plane *p, const struct caller *who, const struct cluster *c,
               uint32_t number, const char *path, struct plane_link *ret, struct err *e)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        AUTO(free) char *host = NULL;
        struct plan_port port;
        uint64_t until_s = clock_wall_us() / US_PER_S + PLANE_LINK_S;
        int r = check_path(path, e);

        if (r >= 0)
                r = find_port(c, number, &port, e);
        if (r >= 0 && !p->cluster_domain)
                r = err_set(e, -ENOTCONN,
                            "this host serves no web ports: [edge] listen is none there");
        if (r < 0)
                return r;
        host = str_fmt("%s-%u.%s", c->id, port.private_port, p->cluster_domain);
        if (!host)
                return err_set(e, -ENOMEM, "out of memory");
        strbuf_fmt(&b, "https://%s%s", host, path);
        host[strcspn(host, ":")] = '\0';
        if (r >= 0 && port.is_private) {
                strbuf_char(&b, strchr(path, '?') ? '&' : '?');
                r = put_token(p, who, c, host, until_s, &b);
        }
        if (r < 0)
                return err_set(e, -ENOMEM, "out of memory");
        *ret = (struct plane_link){ .url = strbuf_take(&b),
                                    .until_s = port.is_private ? until_s : 0 };
        return ret->url ? 0 : err_set(e, -ENOMEM, "out of memory");
}
