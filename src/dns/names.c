/* names.c - see names.h.  Two maps to the same entries: by address, which says who asks, and by id; and
 * one of their accounts.  An account learns nothing of another's clusters, not even that they are there. */
#include "dns/names.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/jsonx.h"
#include "base/map.h"
#include "base/str.h"
#include "dns/message.h"
#include "model/plan.h"

#define SUFFIX      ".internal"
#define DOMAIN_PORT 53

struct names {
        struct map *by_address, *by_cluster, *accounts;
        uint32_t service, pool_base;
        unsigned pool_bits;
        struct sockaddr_storage server[NAMES_SERVERS];
        size_t n_servers;
};

struct account *names_account_hold(struct account *a)
{
        a->users++;
        return a;
}

void names_account_leave(struct names *n, struct account *a)
{
        if (!a || --a->users > 0)
                return;
        (void) map_del(n->accounts, a->id);
        free(a->id);
        free(a);
}

/* Held for the caller; NULL: out of memory. */
static struct account *account_of(struct names *n, const char *id)
{
        struct account *a = map_get(n->accounts, id);

        if (a)
                return names_account_hold(a);
        a = calloc(1, sizeof *a);
        if (!a)
                return NULL;
        a->id = str_dup(id);
        if (!a->id || map_set(n->accounts, a->id, a) < 0) {
                free(a->id);
                free(a);
                return NULL;
        }
        return names_account_hold(a);
}

static void name_free(struct names *n, struct name *x)
{
        if (!x)
                return;
        names_account_leave(n, x->account);
        free(x->cluster);
        free(x);
}

struct names *names_new(void)
{
        struct names *n = calloc(1, sizeof *n);

        if (!n)
                return NULL;
        n->by_address = map_new();
        n->by_cluster = map_new();
        n->accounts = map_new();
        return n->by_address && n->by_cluster && n->accounts ? n : names_free(n);
}

struct names *names_free(struct names *n)
{
        if (!n)
                return NULL;
        for (struct map_entry *m = n->by_address ? map_first(n->by_address) : NULL; m;
             m = map_next(m))
                name_free(n, map_value(m));
        (void) map_free(n->by_address);
        (void) map_free(n->by_cluster);
        (void) map_free(n->accounts);
        free(n);
        return NULL;
}

static void key_of(uint32_t address, char ret[static 16])
{
        (void) snprintf(ret, 16, "%08x", address);
}

static int parse4(const char *s, uint32_t *ret)
{
        struct in_addr a;

        if (!s || inet_pton(AF_INET, s, &a) != 1)
                return -EINVAL;
        *ret = ntohl(a.s_addr);
        return 0;
}

static void forget(struct names *n, uint32_t address)
{
        char key[16];
        struct name *old;

        key_of(address, key);
        old = map_del(n->by_address, key);
        if (old && map_get(n->by_cluster, old->cluster) == old)
                (void) map_del(n->by_cluster, old->cluster);
        name_free(n, old);
}

static int on_name(struct names *n, const json_t *msg, struct err *e)
{
        const char *v6 = jsonx_str(msg, "address6"), *account = jsonx_str(msg, "account"),
                   *cluster = jsonx_str(msg, "cluster");
        struct name *new;
        uint32_t address;
        char key[16];

        if (parse4(jsonx_str(msg, "address"), &address) < 0 || str_empty(account) ||
            !plan_cluster_id_ok(cluster))
                return err_set(e, -EPROTO, "name: no address, account or cluster");
        forget(n, address);
        new = calloc(1, sizeof *new);
        if (!new)
                return err_set(e, -ENOMEM, "out of memory");
        new->address = address;
        new->has_address6 = v6 &&inet_pton(AF_INET6, v6, &new->address6) == 1;
        new->account = account_of(n, account);
        new->cluster = str_dup(cluster);
        key_of(address, key);
        if (!new->account || !new->cluster || map_set(n->by_address, key, new) < 0) {
                name_free(n, new);
                return err_set(e, -ENOMEM, "out of memory");
        }
        if (map_set(n->by_cluster, new->cluster, new) < 0) {
                forget(n, address);
                return err_set(e, -ENOMEM, "out of memory");
        }
        return 0;
}

static int on_forget(struct names *n, const json_t *msg, struct err *e)
{
        uint32_t address;

        if (parse4(jsonx_str(msg, "address"), &address) < 0)
                return err_set(e, -EPROTO, "forget: no address");
        forget(n, address);
        return 0;
}

static int parse_server(const char *s, struct sockaddr_storage *ret)
{
        struct sockaddr_storage a = { .ss_family = AF_UNSPEC };
        struct sockaddr_in *v4 = (struct sockaddr_in *) (void *) &a;
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *) (void *) &a;

        if (!s)
                return -EINVAL;
        if (inet_pton(AF_INET, s, &v4->sin_addr) == 1) {
                v4->sin_family = AF_INET;
                v4->sin_port = htons(DOMAIN_PORT);
        } else if (inet_pton(AF_INET6, s, &v6->sin6_addr) == 1) {
                v6->sin6_family = AF_INET6;
                v6->sin6_port = htons(DOMAIN_PORT);
        } else {
                return -EINVAL;
        }
        *ret = a;
        return 0;
}

static int on_settings(struct names *n, const json_t *msg, struct err *e)
{
        const json_t *servers = json_object_get(msg, "servers"),
                     *bits = json_object_get(msg, "pool_bits");
        struct sockaddr_storage server[NAMES_SERVERS];
        uint32_t service, base;
        size_t count = json_array_size(servers);

        if (parse4(jsonx_str(msg, "service"), &service) < 0 ||
            parse4(jsonx_str(msg, "pool"), &base) < 0 || !json_is_integer(bits) ||
            json_integer_value(bits) < 1 || json_integer_value(bits) > 32)
                return err_set(e, -EPROTO, "settings: no service or pool");
        if (count > NAMES_SERVERS)
                return err_set(e, -EPROTO, "settings: %zu servers", count);
        for (size_t i = 0; i < count; i++)
                if (parse_server(json_string_value(json_array_get(servers, i)), &server[i]) < 0)
                        return err_set(e, -EPROTO, "settings: a server that is no address");
        n->service = service;
        n->pool_base = base;
        n->pool_bits = (unsigned) json_integer_value(bits);
        n->n_servers = count;
        memcpy(n->server, server, count * sizeof *server);
        return 0;
}

int names_message(struct names *n, const json_t *msg, struct err *e)
{
        static const struct {
                const char *type;
                int (*fn)(struct names *n, const json_t *msg, struct err *e);
        } types[] = { { "settings", on_settings }, { "name", on_name }, { "forget", on_forget } };
        const char *type = jsonx_str(msg, "type");

        for (size_t i = 0; i < NELEM(types); i++)
                if (str_eq(type, types[i].type))
                        return types[i].fn(n, msg, e);
        return 0; /* a newer engine may say more */
}

struct name *names_by_address(const struct names *n, uint32_t address)
{
        char key[16];

        key_of(address, key);
        return map_get(n->by_address, key);
}

const struct name *names_by_cluster(const struct names *n, const char *cluster)
{
        return map_get(n->by_cluster, cluster);
}

uint32_t names_service(const struct names *n)
{
        return n->service;
}

const struct sockaddr_storage *names_server(const struct names *n, size_t i)
{
        return i < n->n_servers ? &n->server[i] : NULL;
}

/* "1.0.96.100.in-addr.arpa": an address of the pool is nobody else's to name. */
static enum names_verdict judge_address(const struct names *n, const struct name *from,
                                        const char *name, const struct name **ret_name)
{
        uint32_t addr, mask = n->pool_bits ? UINT32_MAX << (32 - n->pool_bits) : UINT32_MAX;
        const struct name *who;

        if (dns_reverse4(name, &addr) < 0 || (addr & mask) != (n->pool_base & mask))
                return NAMES_FORWARD;
        if (addr == n->service)
                return NAMES_SERVICE;
        who = names_by_address(n, addr);
        if (!who || who->account != from->account)
                return NAMES_ABSENT;
        *ret_name = who;
        return NAMES_CLUSTER;
}

enum names_verdict names_judge(const struct names *n, const struct name *from, const char *name,
                               const struct name **ret_name)
{
        size_t len = strlen(name), suffix = strlen(SUFFIX);
        char id[DNS_NAME_TEXT];
        const struct name *who;

        if (str_eq(name, &SUFFIX[1]))
                return NAMES_EMPTY;
        if (len <= suffix || !str_eq(name + len - suffix, SUFFIX))
                return judge_address(n, from, name, ret_name);
        memcpy(id, name, len - suffix);
        id[len - suffix] = '\0';
        if (str_eq(id, "api"))
                return NAMES_SERVICE;
        who = names_by_cluster(n, id);
        if (!who || who->account != from->account)
                return NAMES_ABSENT;
        *ret_name = who;
        return NAMES_CLUSTER;
}
