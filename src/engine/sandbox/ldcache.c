/* ldcache.c - see ldcache.h.  First process; pure, no state.
 *
 * Theory of operation.  A cache is
 *
 *   head | libs * { flags, name, path, osversion, hwcap } | strings | extension
 *
 * where names and paths are offsets of strings from the head's first byte, the libs are sorted by
 * name, falling (the loader halves), and the extension names sub-directories for newer processors,
 * to which `hwcap` of a lib refers by number.  A cache of glibc before 2.32 may have an older table in
 * front, which no loader needs that knows the new one.  All of it is read into one array of rows whose
 * strings still lie in the old bytes, merged, sorted, and written anew. */
#include "engine/sandbox/ldcache.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

#define MAGIC      "glibc-ld.so.cache1.1"
#define MAGIC_OLD  "ld.so-1.7.0"
#define EXT_MAGIC  0xEAA42174U
#define EXT_HWCAPS 1U
#define HWCAP_EXT  (1ULL << 62) /* hwcap is 1 << 62 | number of a sub-directory */
#define HWCAPS_MAX 64U
#define ENDIAN_LE  2U
#define OLD_ENTRY  12U   /* the older table: a head of 16 bytes, then these */
#define TEXT_MAX   4096U /* of a name or path, its end included */
#define TEXTS_MAX                                                                                  \
        (32U << 20) /* of all of them, as they are written: rows may share them in the old one */

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are written as they are here");

struct head {
        char magic[20];
        uint32_t n_libs, len_strings;
        uint8_t flags, pad[3];
        uint32_t ext; /* offset of the extension; 0: none */
        uint32_t unused[3];
};
static_assert(sizeof(struct head) == 48, "as the loader has it");

struct lib {
        uint32_t flags, name, path, osversion;
        uint64_t hwcap;
};
static_assert(sizeof(struct lib) == 24, "as the loader has it");

struct section {
        uint32_t tag, flags, offset, size;
};

struct row {
        const char *name, *path;
        struct lib lib;
        size_t order; /* of those with one name, the loader takes the first that suits */
};

struct cache {
        struct row *row;
        size_t n;
        const char *hwcaps[HWCAPS_MAX];
        size_t n_hwcaps;
};

int ldcache_compare(const char *a, const char *b)
{
        while (*a) {
                bool da = *a >= '0' && *a <= '9', db = *b >= '0' && *b <= '9';
                uint32_t na = 0, nb = 0; /* the loader's int runs over; so does this, defined */

                if (da != db)
                        return da ? 1 : -1;
                if (!da) {
                        if (*a != *b)
                                return *a - *b;
                        a++;
                        b++;
                        continue;
                }
                for (; *a >= '0' && *a <= '9'; a++)
                        na = na * 10 + (uint32_t) (*a - '0');
                for (; *b >= '0' && *b <= '9'; b++)
                        nb = nb * 10 + (uint32_t) (*b - '0');
                if (na != nb)
                        return na > nb ? 1 : -1;
        }
        return *a - *b;
}

/* ---- reading --------------------------------------------------------------------------------- */

struct bytes {
        const char *at;
        size_t len;
};

static bool get(struct bytes b, size_t off, void *to, size_t size)
{
        if (off > b.len || b.len - off < size)
                return false;
        memcpy(to, b.at + off, size);
        return true;
}

/* A string that ends within the bytes, and soon; else NULL. */
static const char *get_string(struct bytes b, uint32_t off)
{
        size_t left = off < b.len ? b.len - off : 0;

        return left && memchr(b.at + off, '\0', left < TEXT_MAX ? left : TEXT_MAX) ? b.at + off
                                                                                   : NULL;
}

/* Past the older table, when there is one. */
static bool skip_old(struct bytes *b)
{
        uint32_t n;
        size_t skip;

        if (b->len < sizeof MAGIC_OLD - 1 || memcmp(b->at, MAGIC_OLD, sizeof MAGIC_OLD - 1) != 0)
                return true;
        if (!get(*b, 12, &n, sizeof n) || n > b->len / OLD_ENTRY)
                return false;
        skip = (16 + (size_t) n * OLD_ENTRY + 7) & ~(size_t) 7;
        if (skip > b->len)
                return false;
        b->at += skip;
        b->len -= skip;
        return true;
}

/* Sub-directories for newer processors; a cache whose extension makes no sense has none. */
static void read_hwcaps(struct bytes b, uint32_t ext, struct cache *c)
{
        uint32_t magic, count, at;
        struct section s;

        if (ext == 0 || !get(b, ext, &magic, sizeof magic) || magic != EXT_MAGIC ||
            !get(b, (size_t) ext + 4, &count, sizeof count))
                return;
        for (uint32_t i = 0; i < count && i < 16; i++) {
                if (!get(b, (size_t) ext + 8 + i * sizeof s, &s, sizeof s))
                        return;
                if (s.tag != EXT_HWCAPS)
                        continue;
                for (uint32_t k = 0; k < s.size / sizeof at && k < HWCAPS_MAX; k++) {
                        const char *name = get(b, (size_t) s.offset + k * sizeof at, &at, sizeof at)
                                                   ? get_string(b, at)
                                                   : NULL;

                        if (!name)
                                return;
                        c->hwcaps[c->n_hwcaps++] = name;
                }
                return;
        }
}

static bool row_usable(const struct row *r, const struct cache *c)
{
        if (!r->name || !r->path || r->path[0] != '/')
                return false;
        return !(r->lib.hwcap & HWCAP_EXT) || (r->lib.hwcap & UINT32_MAX) < c->n_hwcaps;
}

/* @c has room for @max rows.  Rows that lead nowhere are left out. */
static int read_cache(struct bytes b, struct cache *c, size_t max)
{
        size_t texts = 0;
        struct head h;

        if (!skip_old(&b) || !get(b, 0, &h, sizeof h) || memcmp(h.magic, MAGIC, 20) != 0 ||
            (h.flags & 3U) == 1 || (h.flags & 3U) == 3) /* invalid, or for big endians */
                return -EBADMSG;
        if (h.n_libs > max || h.n_libs > (b.len - sizeof h) / sizeof(struct lib))
                return -EBADMSG;
        read_hwcaps(b, h.ext, c);
        for (uint32_t i = 0; i < h.n_libs; i++) {
                struct row r = { .order = 0 };

                if (!get(b, sizeof h + i * sizeof r.lib, &r.lib, sizeof r.lib))
                        return -EBADMSG;
                r.name = get_string(b, r.lib.name);
                r.path = get_string(b, r.lib.path);
                r.order = max + i; /* behind ours */
                if (!row_usable(&r, c))
                        continue;
                texts += strlen(r.name) + strlen(r.path) + 2;
                if (texts > TEXTS_MAX)
                        return -EBADMSG;
                c->row[c->n++] = r;
        }
        return 0;
}

/* ---- writing --------------------------------------------------------------------------------- */

static int by_name(const void *pa, const void *pb)
{
        const struct row *a = pa, *b = pb;
        int r = ldcache_compare(b->name, a->name);

        return r ? r : (a->order > b->order) - (a->order < b->order);
}

static void drop_replaced(struct cache *c, const struct ldcache_entry *add, size_t n)
{
        size_t kept = 0;

        for (size_t i = 0; i < c->n; i++) {
                bool gone = false;

                for (size_t k = 0; k < n && !gone; k++)
                        gone = c->row[i].lib.flags == add[k].flags &&
                               str_eq(c->row[i].name, add[k].name);
                if (!gone)
                        c->row[kept++] = c->row[i];
        }
        c->n = kept;
}

static uint32_t put_string(struct strbuf *b, const char *s)
{
        uint32_t at = (uint32_t) b->len;

        strbuf_add(b, s, strlen(s) + 1);
        return at;
}

static void put_hwcaps(const struct cache *c, const uint32_t *at, struct strbuf *b)
{
        const uint32_t head[] = { EXT_MAGIC, 1 };
        struct section s = { .tag = EXT_HWCAPS, .size = (uint32_t) (c->n_hwcaps * sizeof *at) };

        s.offset = (uint32_t) (b->len + sizeof head + sizeof s);
        strbuf_add(b, head, sizeof head);
        strbuf_add(b, &s, sizeof s);
        strbuf_add(b, at, s.size);
}

static int write_cache(struct cache *c, struct strbuf *b)
{
        struct head h = { .n_libs = (uint32_t) c->n, .flags = ENDIAN_LE };
        uint32_t hwcaps[HWCAPS_MAX];
        size_t strings = sizeof h + c->n * sizeof(struct lib);

        memcpy(h.magic, MAGIC, sizeof h.magic);
        strbuf_add(b, &h, sizeof h);
        for (size_t i = 0; i < c->n; i++)
                strbuf_add(b, &c->row[i].lib, sizeof c->row[i].lib);
        for (size_t i = 0; i < c->n; i++) {
                c->row[i].lib.name = put_string(b, c->row[i].name);
                c->row[i].lib.path = put_string(b, c->row[i].path);
        }
        for (size_t i = 0; i < c->n_hwcaps; i++)
                hwcaps[i] = put_string(b, c->hwcaps[i]);
        while (b->len % 4 && !b->failed)
                strbuf_char(b, '\0');
        if (b->failed || b->len > UINT32_MAX / 2)
                return -ENOMEM;
        h.len_strings = (uint32_t) (b->len - strings);
        h.ext = c->n_hwcaps ? (uint32_t) b->len : 0;
        if (c->n_hwcaps)
                put_hwcaps(c, hwcaps, b);
        if (b->failed)
                return -ENOMEM;
        memcpy(b->s, &h, sizeof h);
        for (size_t i = 0; i < c->n; i++)
                memcpy(b->s + sizeof h + i * sizeof(struct lib), &c->row[i].lib,
                       sizeof(struct lib));
        return 0;
}

int ldcache_merge(const void *old, size_t len, const struct ldcache_entry *add, size_t n,
                  void **ret, size_t *ret_len, struct err *e)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        AUTO(free) struct row *rows = NULL;
        struct cache c = { .n = 0 };
        size_t max = len / sizeof(struct lib);
        int r = 0;

        if (len > LDCACHE_MAX_BYTES || n > LDCACHE_MAX_LIBS || max > LDCACHE_MAX_LIBS * 8)
                return err_set(e, -EBADMSG, "loader cache: too large");
        c.row = rows = calloc(max + n + 1, sizeof *rows);
        if (!rows)
                return err_set(e, -ENOMEM, "out of memory");
        if (old)
                r = read_cache((struct bytes){ old, len }, &c, LDCACHE_MAX_LIBS);
        if (r < 0)
                return err_set(e, r, "loader cache: not one that can be read");
        drop_replaced(&c, add, n);
        for (size_t i = 0; i < n; i++)
                c.row[c.n++] =
                        (struct row){ add[i].name, add[i].path, { .flags = add[i].flags }, i };
        qsort(c.row, c.n, sizeof *c.row, by_name);
        r = write_cache(&c, &b);
        if (r < 0)
                return err_set(e, r, "out of memory");
        *ret_len = b.len;
        *ret = TAKE(b.s);
        return 0;
}
