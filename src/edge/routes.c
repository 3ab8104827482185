/* routes.c - see routes.h.  Engine process, loop thread. */
#include "edge/routes.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/map.h"
#include "edge/config.h"
#include "edge/mapfill.h"
#include "model/allow.h"
#include "model/plan.h"

#define ALLOW_LINE  "allow/%s/%s" /* cluster, an entry of model/allow.h; no name has a "/" */
#define ALLOW_VALUE "=allow"
#define ACCOUNT_MAX 64U
#define ACCESS_MAX  (1 + ACCOUNT_MAX + 1 + PLAN_EDGE_KEY_LEN + 1)
#define TO_MAX      (EDGE_PAGE_WORD_MAX > 16U ? EDGE_PAGE_WORD_MAX : 16U)

struct cluster {
        char to[TO_MAX]; /* an address, or the word of a page */
        bool is_address;
        struct allow allow;      /* of an address */
        char access[ACCESS_MAX]; /* ":ACCOUNT:KEY", of those ports that are private */
        size_t n;
        uint32_t port[LIMIT_HTTP_PORTS];
        bool is_private[LIMIT_HTTP_PORTS];
};

struct routes {
        char *map, *domain;
        struct map *clusters; /* id -> struct cluster */
        size_t names;
};

struct routes *routes_new(const char *map, const char *domain)
{
        AUTO(routes_free) struct routes *r = calloc(1, sizeof *r);

        if (!r)
                return NULL;
        r->map = strdup(map);
        r->domain = strdup(domain);
        r->clusters = map_new();
        return r->map && r->domain && r->clusters ? TAKE(r) : NULL;
}

struct routes *routes_free(struct routes *r)
{
        if (!r)
                return NULL;
        for (struct map_entry *e = r->clusters ? map_first(r->clusters) : NULL; e; e = map_next(e))
                free(map_value(e));
        (void) map_free(r->clusters);
        free(r->map);
        free(r->domain);
        free(r);
        return NULL;
}

/* Which of its ports that is; c->n: none. */
static size_t place_of(const struct cluster *c, uint32_t port)
{
        size_t i = 0;

        while (i < c->n && c->port[i] != port)
                i++;
        return i;
}

static void put_to(struct strbuf *b, const struct cluster *c, size_t i)
{
        if (c->is_address)
                strbuf_fmt(b, "%s:%u%s%s\n", c->to, c->port[i], c->is_private[i] ? c->access : "",
                           c->allow.n ? ":*" : "");
        else
                strbuf_fmt(b, "%s\n", c->to);
}

static bool same_to(const struct cluster *a, const struct cluster *b)
{
        return a->is_address == b->is_address && str_eq(a->to, b->to);
}

static bool same_access(const struct cluster *a, size_t i, const struct cluster *b, size_t j)
{
        return !a->allow.n == !b->allow.n && a->is_private[i] == b->is_private[j] &&
               (!a->is_private[i] || str_eq(a->access, b->access));
}

/* What @a has and @b has not; how many. */
static int say_allow(const struct routes *r, const char *id, const struct cluster *a,
                     const struct cluster *b, const char *what, const char *value,
                     struct strbuf *out)
{
        char entry[ALLOW_ENTRIES][ALLOW_ENTRY_MAX];
        int commands = 0;

        for (size_t i = 0; i < a->allow.n && !allow_same(&a->allow, &b->allow); i++) {
                size_t n = allow_entries(&a->allow.net[i], entry);

                for (size_t k = 0; k < n; k++) {
                        if (allow_has_entry(&b->allow, entry[k]))
                                continue;
                        strbuf_fmt(out, "%s map %s " ALLOW_LINE "%s\n", what, r->map, id, entry[k],
                                   value);
                        commands++;
                }
        }
        return commands;
}

/* A name that stays is changed in place: at no moment it stands there twice, or not at all. */
static int say_change(const struct routes *r, const char *id, const struct cluster *was,
                      const struct cluster *is, struct strbuf *b)
{
        char name[EDGE_NAME_MAX];
        int commands = say_allow(r, id, is, was, "add", " " ALLOW_VALUE, b);

        for (size_t i = 0; i < was->n; i++) {
                if (place_of(is, was->port[i]) < is->n)
                        continue;
                edge_name(name, id, was->port[i], r->domain);
                strbuf_fmt(b, "del map %s %s\n", r->map, name);
                commands++;
        }
        for (size_t i = 0; i < is->n; i++) {
                const size_t at = place_of(was, is->port[i]);
                const bool there = at < was->n;

                if (there && same_to(was, is) && same_access(was, at, is, i))
                        continue;
                edge_name(name, id, is->port[i], r->domain);
                strbuf_fmt(b, "%s map %s %s ", there ? "set" : "add", r->map, name);
                put_to(b, is, i);
                commands++;
        }
        return commands + say_allow(r, id, was, is, "del", "", b);
}

static bool is_made_of(const char *s, size_t max, const char *set)
{
        size_t n = s ? strlen(s) : 0;

        return n > 0 && n <= max && strspn(s, set) == n;
}

/* Both stand in commands, and come from another program. */
static void set_ports(struct cluster *c, const struct routes_to *to)
{
        static const char
                lower[] = "abcdefghijklmnopqrstuvwxyz0123456789",
                base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=";

        if (is_made_of(to->account, ACCOUNT_MAX, lower) &&
            is_made_of(to->key, PLAN_EDGE_KEY_LEN, base64))
                (void) snprintf(c->access, sizeof c->access, ":%s:%s", to->account, to->key);
        for (size_t i = 0; i < to->n; i++) {
                const bool is_private = to->is_private && to->is_private[i];

                if (is_private && !*c->access)
                        continue;
                c->is_private[c->n] = is_private;
                c->port[c->n++] = to->ports[i];
        }
}

int routes_set(struct routes *r, const char *cluster, const struct routes_to *to, bool *ret_left,
               struct strbuf *commands)
{
        struct cluster *had = map_get(r->clusters, cluster), none = { .n = 0 }, is = { .n = 0 };
        const struct cluster was = had ? *had : none;
        AUTO(free) struct cluster *fresh = NULL;

        assert(to->n <= NELEM(is.port));
        set_ports(&is, to);
        if (is.n) {
                is.is_address = to->address != NULL;
                if (is.is_address &&
                    allow_parse("allowedIps", to->allowed_ips, &is.allow, NULL) < 0)
                        is.n = 0; /* rather none than all: a plan with such a list is refused before */
                (void) snprintf(is.to, sizeof is.to, "%s", to->address ? to->address : to->page);
        }
        if (is.n && !had) {
                fresh = calloc(1, sizeof *fresh);
                if (!fresh || map_set(r->clusters, cluster, fresh) < 0)
                        return -ENOMEM;
                had = TAKE(fresh);
        }
        if (is.n)
                *had = is;
        else if (had)
                free(map_del(r->clusters, cluster));
        r->names = r->names - was.n + is.n;
        *ret_left = was.is_address && !same_to(&was, &is);
        return say_change(r, cluster, &was, &is, commands);
}

size_t routes_count(const struct routes *r)
{
        return r->names;
}

typedef void line_fn(void *arg, const struct strbuf *line);

static void say_line(line_fn *fn, void *arg, struct strbuf *line)
{
        fn(arg, line);
        strbuf_drop_front(line, line->len);
}

static void each_of(const struct routes *r, const char *id, const struct cluster *c, line_fn *fn,
                    void *arg, struct strbuf *line)
{
        char entry[ALLOW_ENTRIES][ALLOW_ENTRY_MAX], name[EDGE_NAME_MAX];

        for (size_t i = 0; i < c->n; i++) {
                edge_name(name, id, c->port[i], r->domain);
                strbuf_fmt(line, "%s ", name);
                put_to(line, c, i);
                say_line(fn, arg, line);
        }
        for (size_t i = 0; i < c->allow.n; i++) {
                size_t n = allow_entries(&c->allow.net[i], entry);

                for (size_t k = 0; k < n; k++) {
                        strbuf_fmt(line, ALLOW_LINE " " ALLOW_VALUE "\n", id, entry[k]);
                        say_line(fn, arg, line);
                }
        }
}

static void each(const struct routes *r, line_fn *fn, void *arg)
{
        AUTO(strbuf_done) struct strbuf line = { 0 };

        for (struct map_entry *e = map_first(r->clusters); e; e = map_next(e))
                each_of(r, map_key(e), map_value(e), fn, arg, &line);
}

static void put_line(void *arg, const struct strbuf *line)
{
        struct strbuf *b = arg;

        if (line->failed)
                b->failed = true;
        else
                strbuf_add(b, line->s, line->len);
}

void routes_file(const struct routes *r, struct strbuf *b)
{
        each(r, put_line, b);
}

static void put_payload(void *arg, const struct strbuf *line)
{
        struct map_fill *f = arg;

        map_fill_next(f);
        put_line(f->out, line);
}

size_t routes_fill(const struct routes *r, unsigned version, struct strbuf *commands)
{
        struct map_fill f = { .map = r->map, .version = version, .out = commands };

        each(r, put_payload, &f);
        return map_fill_end(&f);
}
