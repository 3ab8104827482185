/* keys.c - see keys.h.  Engine process, loop thread.
 *
 * What stands in a command was checked character by character: it comes from another program. */
#include "edge/keys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/jsonx.h"
#include "base/map.h"
#include "edge/mapfill.h"

#define DIGEST_LEN   64U
#define ID_MAX       24U
#define ACCOUNT_MAX  64U
#define LOWER_DIGITS "abcdefghijklmnopqrstuvwxyz0123456789"

struct key {
        char id[ID_MAX + 1], digest[DIGEST_LEN + 1];
        bool opens;
};

struct owner {
        size_t n;
        bool told;
        struct key key[];
};

struct keys {
        char *map;
        struct map *owners; /* account -> struct owner */
        bool complete;
};

struct keys *keys_new(const char *map)
{
        AUTO(keys_free) struct keys *k = calloc(1, sizeof *k);

        if (!k)
                return NULL;
        k->map = strdup(map);
        k->owners = map_new();
        return k->map && k->owners ? TAKE(k) : NULL;
}

struct keys *keys_free(struct keys *k)
{
        if (!k)
                return NULL;
        for (struct map_entry *i = k->owners ? map_first(k->owners) : NULL; i; i = map_next(i))
                free(map_value(i));
        (void) map_free(k->owners);
        free(k->map);
        free(k);
        return NULL;
}

static bool is_made_of(const char *s, size_t min, size_t max, const char *set)
{
        size_t n = s ? strlen(s) : 0;

        return n >= min && n <= max && strspn(s, set) == n;
}

static int by_digest(const void *a, const void *b)
{
        return strcmp(((const struct key *) a)->digest, ((const struct key *) b)->digest);
}

static int decode(const json_t *list, struct owner **ret, struct err *e)
{
        size_t n = json_array_size(list), i;
        AUTO(free) struct owner *o = NULL;
        const json_t *j;

        if (!json_is_array(list))
                return err_set(e, -EINVAL, "keys: no list");
        if (n > KEYS_PER_ACCOUNT)
                return err_set(e, -E2BIG, "keys: %zu of one account, at most %u are allowed", n,
                               KEYS_PER_ACCOUNT);
        o = calloc(1, sizeof *o + n * sizeof o->key[0]);
        if (!o)
                return err_set(e, -ENOMEM, "out of memory");
        json_array_foreach(list, i, j)
        {
                const char *id = jsonx_str(j, "id"), *digest = jsonx_str(j, "sha256");

                if (!is_made_of(id, 1, ID_MAX, LOWER_DIGITS "-") ||
                    !is_made_of(digest, DIGEST_LEN, DIGEST_LEN, "0123456789abcdef"))
                        return err_set(e, -EINVAL, "keys: number %zu is none", i + 1);
                o->key[i].opens = json_is_true(json_object_get(j, "opens"));
                memcpy(o->key[i].id, id, strlen(id));
                memcpy(o->key[i].digest, digest, DIGEST_LEN);
        }
        qsort(o->key, n, sizeof o->key[0], by_digest);
        o->n = n;
        o->told = true;
        *ret = TAKE(o);
        return 0;
}

static bool has(const struct owner *o, const struct key *k)
{
        const struct key *same = o ? bsearch(k, o->key, o->n, sizeof *k, by_digest) : NULL;

        return same && same->opens == k->opens && str_eq(same->id, k->id);
}

/* What is no more goes first: no name ever stands there twice. */
static int say_change(const struct keys *k, const char *account, const struct owner *was,
                      const struct owner *is, struct strbuf *b)
{
        int commands = 0;

        for (size_t i = 0; was && i < was->n; i++) {
                const struct key *key = &was->key[i];

                if (has(is, key))
                        continue;
                strbuf_fmt(b, "del map %s %s\n", k->map, key->digest);
                if (key->opens)
                        strbuf_fmt(b, "del map %s %s\n", k->map, key->id);
                commands += key->opens ? 2 : 1;
        }
        for (size_t i = 0; is && i < is->n; i++) {
                const struct key *key = &is->key[i];

                if (has(was, key))
                        continue;
                strbuf_fmt(b, "add map %s %s %s\n", k->map, key->digest,
                           key->opens ? account : "-");
                if (key->opens)
                        strbuf_fmt(b, "add map %s %s %s\n", k->map, key->id, account);
                commands += key->opens ? 2 : 1;
        }
        return commands;
}

void keys_begin(struct keys *k)
{
        for (struct map_entry *i = map_first(k->owners); i; i = map_next(i))
                ((struct owner *) map_value(i))->told = false;
}

int keys_set(struct keys *k, const char *account, const json_t *list, struct strbuf *commands,
             struct err *e)
{
        struct owner *was, *is = NULL;
        int r = is_made_of(account, 1, ACCOUNT_MAX, LOWER_DIGITS)
                        ? decode(list, &is, e)
                        : err_set(e, -EINVAL, "keys: account is none");

        if (r < 0)
                return r;
        was = map_get(k->owners, account);
        if (map_set(k->owners, account, is) < 0) {
                free(is);
                return err_set(e, -ENOMEM, "out of memory");
        }
        r = say_change(k, account, was, is, commands);
        free(was);
        return r;
}

int keys_end(struct keys *k, struct strbuf *commands)
{
        int n = 0;

        for (struct map_entry *i = map_first(k->owners), *next; i; i = next) {
                struct owner *o = map_value(i);

                next = map_next(i);
                if (o->told)
                        continue;
                n += say_change(k, map_key(i), o, NULL, commands);
                free(map_del(k->owners, map_key(i)));
        }
        k->complete = true;
        return n;
}

bool keys_complete(const struct keys *k)
{
        return k->complete;
}

typedef void line_fn(void *arg, const char *name, const char *value);

static void each(const struct keys *k, line_fn *fn, void *arg)
{
        for (struct map_entry *e = map_first(k->owners); e; e = map_next(e)) {
                const struct owner *o = map_value(e);

                for (size_t i = 0; i < o->n; i++) {
                        fn(arg, o->key[i].digest, o->key[i].opens ? map_key(e) : "-");
                        if (o->key[i].opens)
                                fn(arg, o->key[i].id, map_key(e));
                }
        }
}

static void put_line(void *arg, const char *name, const char *value)
{
        strbuf_fmt(arg, "%s %s\n", name, value);
}

void keys_file(const struct keys *k, struct strbuf *b)
{
        each(k, put_line, b);
}

static void put_payload(void *arg, const char *name, const char *value)
{
        struct map_fill *f = arg;

        map_fill_next(f);
        put_line(f->out, name, value);
}

size_t keys_fill(const struct keys *k, unsigned version, struct strbuf *commands)
{
        struct map_fill f = { .map = k->map, .version = version, .out = commands };

        each(k, put_payload, &f);
        return map_fill_end(&f);
}
