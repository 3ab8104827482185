/* layer_index.c - see layer_index.h: reading, which is checking.  What reads runs in the sandbox of
 * the image builder and, for the object table, in the publisher. */
#include "store/layer_index.h"

#include <assert.h>
#include <errno.h>
#include <linux/capability.h>

#include "store/bytes.h"
#include "store/layer_index_priv.h"

static int bad(struct err *e, uint64_t at, const char *why)
{
        return err_set(e, -EBADMSG, "the layer's index is damaged at byte %llu: %s",
                       (unsigned long long) at, why);
}

static bool all_zero(const uint8_t *p, uint64_t n)
{
        for (uint64_t i = 0; i < n; i++)
                if (p[i])
                        return false;
        return true;
}

int layer_name_compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
        int r = memcmp(a, b, a_len < b_len ? a_len : b_len);

        if (r != 0)
                return r < 0 ? -1 : 1;
        return a_len == b_len ? 0 : a_len < b_len ? -1 : 1;
}

int layer_path_compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
        size_t n = a_len < b_len ? a_len : b_len, i = 0;

        while (i + 8 <= n && memcmp(a + i, b + i, 8) == 0)
                i += 8;
        for (; i < n; i++)
                if (a[i] != b[i]) { /* '/' ends a name: it comes before every byte of one */
                        if (a[i] == '/' || b[i] == '/')
                                return a[i] == '/' ? -1 : 1;
                        return (uint8_t) a[i] < (uint8_t) b[i] ? -1 : 1;
                }
        return a_len == b_len ? 0 : a_len < b_len ? -1 : 1;
}

unsigned layer_chunk_bits_whole(uint64_t size)
{
        unsigned bits = 0;

        while (bits < LAYER_CHUNK_BITS_MAX && ((uint64_t) LAYER_BLOCK << bits) < size)
                bits++;
        return bits;
}

uint64_t layer_chunk_count(uint64_t size, unsigned bits)
{
        return (size >> (LAYER_BLOCK_BITS + bits)) +
               ((size & (((uint64_t) LAYER_BLOCK << bits) - 1)) != 0);
}

unsigned layer_chunk_bits_sparse(uint64_t size)
{
        unsigned bits = 0;

        while (bits < LAYER_CHUNK_BITS_MAX && layer_chunk_count(size, bits) > LAYER_CHUNKS_MAX)
                bits++;
        return bits;
}

/* --- attributes --- */

static bool begins(const char *name, size_t len, const char *prefix)
{
        size_t n = strlen(prefix);

        return len > n && memcmp(name, prefix, n) == 0;
}

static bool is_capability(const char *name, size_t len)
{
        static const char cap[] = "security.capability";

        return len == sizeof cap - 1 && memcmp(name, cap, len) == 0;
}

bool layer_xattr_allowed(const char *name, size_t len)
{
        if (len > 255 || memchr(name, '\0', len))
                return false;
        return is_capability(name, len) ||
               (begins(name, len, "user.") && !begins(name, len, "user.overlay."));
}

/* Version 2 only: version 3 names a root that belongs to whoever made the layer. */
static bool capability_fine(const struct layer_xattr *x)
{
        return x->value_len == XATTR_CAPS_SZ_2 &&
               (get32(x->value) & ~(uint32_t) VFS_CAP_FLAGS_EFFECTIVE) == VFS_CAP_REVISION_2;
}

int layer_xattr_next(const uint8_t *p, size_t len, size_t *at, struct layer_xattr *ret)
{
        size_t left = len - *at, need;

        if (*at == len)
                return 0;
        if (*at > len || left < XATTR_FIXED || p[*at + 1] != 0)
                return -EBADMSG;
        ret->name_len = p[*at];
        ret->value_len = get16(p + *at + 2);
        ret->name = (const char *) p + *at + XATTR_FIXED;
        ret->value = p + *at + XATTR_FIXED + ret->name_len;
        need = XATTR_FIXED + ret->name_len + ret->value_len;
        if (round_up(need, 4) > left || !all_zero(p + *at + need, round_up(need, 4) - need))
                return -EBADMSG;
        if (!layer_xattr_allowed(ret->name, ret->name_len) ||
            (is_capability(ret->name, ret->name_len) && !capability_fine(ret)))
                return -EBADMSG;
        *at += round_up(need, 4);
        return 1;
}

static int check_xattrs(const struct layer_entry *n)
{
        struct layer_xattr x = { 0 }, last = { 0 };
        size_t at = 0;
        int r;

        if (n->xattrs_len > LAYER_XATTRS_MAX)
                return -EBADMSG;
        while ((r = layer_xattr_next(n->xattrs, n->xattrs_len, &at, &x)) > 0) {
                if (last.name &&
                    layer_name_compare(last.name, last.name_len, x.name, x.name_len) >= 0)
                        return -EBADMSG;
                last = x;
        }
        return r;
}

/* --- one entry --- */

/* Where its parts are; NULL when all fits, else what is wrong.  The values are checked elsewhere. */
static const char *decode(const uint8_t *p, uint64_t left, struct layer_entry *n, uint64_t *ret_len)
{
        uint64_t len, need;

        if (left < ENTRY_FIXED)
                return "it ends inside an entry";
        len = get32(p + EN_LENGTH);
        if (len < ENTRY_FIXED || len > left || len % ENTRY_ALIGN)
                return "an entry's length";
        if (p[EN_TYPE] == LAYER_NONE || p[EN_TYPE] >= LAYER_TYPE_COUNT)
                return "an entry's type";
        *n = (struct layer_entry){
                .type = (enum layer_type) p[EN_TYPE],
                .flags = p[EN_FLAGS],
                .depth = get16(p + EN_DEPTH),
                .mode = get16(p + EN_MODE),
                .name_len = get16(p + EN_NAME_LEN),
                .group = get32(p + EN_GROUP),
                .uid = get32(p + EN_UID),
                .gid = get32(p + EN_GID),
                .mtime_s = (int64_t) get64(p + EN_MTIME),
                .mtime_ns = get32(p + EN_MTIME_NS),
                .xattrs_len = get32(p + EN_XATTRS),
                .size = get64(p + EN_SIZE),
                .chunk_bits = p[EN_CHUNK_BITS],
        };
        if (n->type == LAYER_OBJECT)
                n->object = get32(p + EN_CHUNKS);
        else
                n->n_chunks = get32(p + EN_CHUNKS);
        if (n->name_len > 255 || n->xattrs_len > LAYER_XATTRS_MAX ||
            n->n_chunks > LAYER_CHUNKS_MAX || (n->type == LAYER_SYMLINK && n->size > 4095))
                return "a length inside an entry";
        n->name = (const char *) p + ENTRY_FIXED;
        n->chunks = p + ENTRY_FIXED + round_up(n->name_len, 4);
        n->xattrs = n->chunks + 4ULL * n->n_chunks;
        n->target = (const char *) n->xattrs + n->xattrs_len;
        need = (uint64_t) ((const uint8_t *) n->target - p) +
               (n->type == LAYER_SYMLINK ? n->size : 0);
        if (round_up(need, ENTRY_ALIGN) != len)
                return "an entry's length and its parts";
        *ret_len = len;
        return NULL;
}

static const char *check_padding(const uint8_t *p, const struct layer_entry *n, uint64_t len)
{
        const uint8_t *end = (const uint8_t *) n->target + (n->type == LAYER_SYMLINK ? n->size : 0);

        if (!all_zero(p + EN_CHUNK_BITS + 1, 3) ||
            !all_zero((const uint8_t *) n->name + n->name_len,
                      round_up(n->name_len, 4) - n->name_len) ||
            !all_zero(end, len - (uint64_t) (end - p)))
                return "padding";
        return NULL;
}

static const char *check_name(const struct layer_entry *n)
{
        if (n->depth > LAYER_DEPTH_MAX || (n->depth == 0) != (n->name_len == 0))
                return "a name's depth";
        if (memchr(n->name, '/', n->name_len) || memchr(n->name, '\0', n->name_len) ||
            (n->name_len == 1 && n->name[0] == '.') ||
            (n->name_len == 2 && n->name[0] == '.' && n->name[1] == '.'))
                return "a name";
        return NULL;
}

static const char *check_chunks(const struct layer_index *x, const struct layer_entry *n)
{
        uint64_t left = n->size, whole;
        uint32_t holes = 0;

        if (n->size > LAYER_SIZE_MAX ||
            (n->chunk_bits != layer_chunk_bits_whole(n->size) &&
             n->chunk_bits != layer_chunk_bits_sparse(n->size)) ||
            n->n_chunks != layer_chunk_count(n->size, n->chunk_bits))
                return "a file's chunks";
        whole = (uint64_t) LAYER_BLOCK << n->chunk_bits;
        for (uint32_t i = 0; i < n->n_chunks; i++) {
                uint64_t part = left < whole ? left : whole;
                uint64_t block = get32(n->chunks + 4ULL * i);

                left -= part;
                if (block == LAYER_HOLE)
                        holes++;
                else if ((block << LAYER_BLOCK_BITS) + round_up(part, LAYER_BLOCK) >
                         x->totals.pack_bytes)
                        return "a chunk outside the pack";
        }
        return n->n_chunks > 1 && holes == n->n_chunks ? "a hole in pieces" : NULL;
}

static const char *check_content(const struct layer_index *x, const struct layer_entry *n)
{
        if (n->type != LAYER_FILE && (n->n_chunks || n->chunk_bits))
                return "chunks of something that is no file";
        switch (n->type) {
        case LAYER_FILE:
                return check_chunks(x, n);
        case LAYER_OBJECT:
                if (n->object >= x->n_objects)
                        return "an object that is not in the table";
                return n->size == 0 || layer_index_object(x, n->object) != n->size
                               ? "an object's size"
                               : NULL;
        case LAYER_SYMLINK:
                return n->size == 0 || memchr(n->target, '\0', n->size) ? "a link's target" : NULL;
        case LAYER_NONE:
        case LAYER_DIR:
        case LAYER_FIFO:
        case LAYER_SOCKET:
        case LAYER_LINK:
        case LAYER_WHITEOUT:
        case LAYER_TYPE_COUNT:
                break;
        }
        return n->size ? "a size of something that has none" : NULL;
}

/* A name alone: a whiteout, or one more link.  Everything else of it is zero. */
static bool only_name(const struct layer_entry *n)
{
        return !n->mode && !n->uid && !n->gid && !n->mtime_s && !n->mtime_ns && !n->xattrs_len;
}

static const char *check_values(const struct layer_entry *n)
{
        bool is_dir = n->type == LAYER_DIR;

        if (n->flags & ~(is_dir ? LAYER_OPAQUE | LAYER_IMPLIED : 0U))
                return "flags";
        if (n->mode & ~07777U || n->uid > LAYER_ID_MAX || n->gid > LAYER_ID_MAX ||
            n->mtime_ns > 999999999)
                return "mode, owner or time";
        if (n->type == LAYER_SYMLINK && n->mode != 0777)
                return "a link's mode";
        if (n->flags & LAYER_IMPLIED &&
            (n->mode != 0755 || n->uid || n->gid || n->mtime_s || n->mtime_ns || n->xattrs_len))
                return "an implied directory with attributes";
        if ((n->type == LAYER_LINK || n->type == LAYER_WHITEOUT) && !only_name(n))
                return "attributes of a bare name";
        if (n->group && (is_dir || n->type == LAYER_WHITEOUT))
                return "a hard link to a directory";
        if (n->xattrs_len && !is_dir && n->type != LAYER_FILE && n->type != LAYER_OBJECT)
                return "attributes of something that has none";
        return check_xattrs(n) < 0 ? "extended attributes" : NULL;
}

int layer_index_entry(const struct layer_index *x, uint64_t at, struct layer_entry *ret,
                      uint64_t *ret_next)
{
        uint64_t len;

        if (at >= x->len || decode(x->p + at, x->len - at, ret, &len))
                return 0;
        *ret_next = at + len;
        return 1;
}

uint64_t layer_index_object(const struct layer_index *x, uint32_t n)
{
        return get64(x->p + LAYER_HEADER_BYTES + (uint64_t) n * LAYER_OBJECT_BYTES);
}

/* --- the whole --- */

/* What must be remembered on the way down: the last name at each depth. */
struct walk {
        struct layer_entry last[LAYER_DEPTH_MAX + 1];
        unsigned depth; /* of the entry before */
        bool is_dir;    /* whether that was a directory */
        uint32_t n, groups;
        uint64_t content;
        uint8_t *used; /* a bit for each object that some file is */
        uint32_t n_used;
        uint8_t *linked; /* a bit for each group that has a second name */
        uint32_t n_linked;
};

static void mark(uint8_t *bits, uint32_t i, uint32_t *count)
{
        *count += !(bits[i / 8] & (1U << i % 8));
        bits[i / 8] |= (uint8_t) (1U << i % 8);
}

static const char *check_order(struct walk *w, const struct layer_entry *n)
{
        const struct layer_entry *last = &w->last[n->depth];

        if (w->n == 0)
                return n->depth == 0 && n->type == LAYER_DIR ? NULL
                                                             : "it does not begin with a root";
        if (n->depth == 0 || n->depth > w->depth + (w->is_dir ? 1 : 0))
                return "an entry without its directory";
        if (n->depth <= w->depth &&
            layer_name_compare(last->name, last->name_len, n->name, n->name_len) >= 0)
                return "the order of names";
        return NULL;
}

static const char *check_group(const struct layer_index *x, struct walk *w,
                               const struct layer_entry *n)
{
        if (n->type == LAYER_LINK)
                return n->group == 0 || n->group > w->groups ? "a link to nothing" : NULL;
        if (n->group == 0)
                return NULL;
        return n->group == ++w->groups && n->group <= x->n_groups ? NULL : "a hard link's number";
}

/* Each object is the content of one inode. */
static const char *check_owner(const struct walk *w, const struct layer_entry *n)
{
        if (n->type == LAYER_OBJECT && w->used[n->object / 8] & (1U << n->object % 8))
                return "an object that two files have";
        return NULL;
}

static void note(struct walk *w, const struct layer_entry *n)
{
        w->last[n->depth] = *n;
        w->depth = n->depth;
        w->is_dir = n->type == LAYER_DIR;
        w->n++;
        if (n->type == LAYER_FILE || n->type == LAYER_OBJECT)
                w->content += n->size;
        if (n->type == LAYER_OBJECT)
                mark(w->used, n->object, &w->n_used);
        if (n->type == LAYER_LINK)
                mark(w->linked, n->group - 1, &w->n_linked);
}

static int check_entries(const struct layer_index *x, uint32_t n_used, struct walk *w,
                         struct err *e)
{
        uint64_t at = x->entries_at, len = 0;

        for (; at < x->len; at += len) {
                struct layer_entry n;
                const uint8_t *p = x->p + at;
                const char *why = decode(p, x->len - at, &n, &len);

                why = why ? why : check_padding(p, &n, len);
                why = why ? why : check_name(&n);
                why = why ? why : check_values(&n);
                why = why ? why : check_content(x, &n);
                why = why ? why : check_order(w, &n);
                why = why ? why : check_group(x, w, &n);
                why = why ? why : check_owner(w, &n);
                if (!why && n.size > UINT64_MAX - w->content)
                        why = "more content than can be counted";
                if (why)
                        return bad(e, at, why);
                note(w, &n);
        }
        if (w->n != x->n_entries || w->groups != x->n_groups || w->content != x->content_bytes ||
            w->n_used != n_used || w->n_linked != x->n_groups)
                return bad(e, 0, "totals that do not fit its entries");
        return 0;
}

/* *@ret_used: how many of them some entry must have. */
static int check_objects(const struct layer_index *x, uint32_t *ret_used, struct err *e)
{
        for (uint32_t i = 0; i < x->n_objects; i++) {
                uint64_t size = layer_index_object(x, i);

                if (size > 0 && (size > LAYER_SIZE_MAX || size < x->totals.threshold))
                        return bad(e, LAYER_HEADER_BYTES + i * (uint64_t) LAYER_OBJECT_BYTES,
                                   "an object's size");
                *ret_used += size > 0;
        }
        if (x->n_objects > 0 && x->totals.threshold == 0)
                return bad(e, HD_THRESHOLD, "objects without a threshold");
        return 0;
}

static int read_header(const uint8_t *p, uint64_t len, struct layer_index *x, struct err *e)
{
        uint64_t table;

        if (len < LAYER_HEADER_BYTES || memcmp(p, HEADER_MAGIC, 8) != 0)
                return bad(e, 0, "it is none");
        *x = (struct layer_index){
                .p = p,
                .len = (size_t) len,
                .totals = { .pack_bytes = get64(p + HD_PACK),
                            .threshold = get64(p + HD_THRESHOLD) },
                .content_bytes = get64(p + HD_CONTENT),
                .n_entries = get32(p + HD_ENTRIES),
                .n_objects = get32(p + HD_OBJECTS),
                .n_groups = get32(p + HD_GROUPS),
        };
        memcpy(x->totals.diff_id, p + HD_DIFF_ID, LAYER_SHA_BYTES);
        if (get64(p + HD_LENGTH) != len || len > LAYER_INDEX_BYTES_MAX || len % ENTRY_ALIGN ||
            !all_zero(p + HD_ZERO, 4) || !all_zero(p + HD_END, LAYER_HEADER_BYTES - HD_END))
                return bad(e, 0, "its header");
        if (x->totals.pack_bytes % LAYER_BLOCK ||
            x->totals.pack_bytes >> LAYER_BLOCK_BITS >= LAYER_HOLE)
                return bad(e, HD_PACK, "the size of the pack");
        table = (uint64_t) x->n_objects * LAYER_OBJECT_BYTES;
        if (x->n_objects > LAYER_OBJECTS_MAX || table > len - LAYER_HEADER_BYTES ||
            x->n_groups > x->n_entries ||
            x->n_entries > (len - LAYER_HEADER_BYTES - table) / ENTRY_FIXED)
                return bad(e, HD_ENTRIES, "its numbers");
        x->entries_at = LAYER_HEADER_BYTES + table;
        return 0;
}

size_t layer_index_table_bytes(const uint8_t header[LAYER_HEADER_BYTES])
{
        uint32_t n = get32(header + HD_OBJECTS);

        return LAYER_HEADER_BYTES + (n <= LAYER_OBJECTS_MAX ? (size_t) n * LAYER_OBJECT_BYTES : 0);
}

int layer_index_open_table(const uint8_t *p, size_t len, uint64_t file_len, struct layer_index *ret,
                           struct err *e)
{
        struct layer_index x;
        uint32_t n_used = 0;
        int r;

        if (len < LAYER_HEADER_BYTES || len > file_len)
                return bad(e, 0, "it is none");
        r = read_header(p, file_len, &x, e);
        if (r >= 0 && x.entries_at > len)
                r = bad(e, 0, "it is cut short");
        if (r >= 0)
                r = check_objects(&x, &n_used, e);
        if (r < 0)
                return r;
        x.len = (size_t) x.entries_at; /* so that nobody walks the entries */
        *ret = x;
        return 0;
}

int layer_index_open(const uint8_t *p, size_t len, struct layer_index *ret, struct err *e)
{
        AUTO(free) struct walk *w = calloc(1, sizeof *w);
        AUTO(free) uint8_t *used = NULL, *linked = NULL;
        struct layer_index x;
        uint32_t n_used = 0;
        int r;

        if (!w)
                return err_set(e, -ENOMEM, "out of memory");
        r = read_header(p, len, &x, e);
        if (r < 0)
                return r;
        used = calloc(1, x.n_objects / 8 + 1);
        linked = calloc(1, x.n_groups / 8 + 1);
        if (!used || !linked)
                return err_set(e, -ENOMEM, "out of memory");
        w->used = used;
        w->linked = linked;
        r = check_objects(&x, &n_used, e);
        if (r >= 0)
                r = check_entries(&x, n_used, w, e);
        if (r >= 0)
                *ret = x;
        return r;
}
