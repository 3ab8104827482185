/* erofs_dir.c - directories and attributes as EROFS has them.  Pure, into a sink. */
#include "store/erofs_priv.h"

#include "base/proc.h"
#include "store/bytes.h"
#include "store/layer_objects.h"

/* --- directories: blocks of { dirents, names }, sorted, none across a block's end --- */

void dir_walk_begin(struct dir_walk *w, const struct merge *m, uint32_t dir)
{
        *w = (struct dir_walk){
                .m = m, .dir = dir, .child = dir + 1, .end = merge_node(m, dir)->next
        };
}

bool dir_walk_next(struct dir_walk *w, struct dir_name *ret)
{
        static const char dots[] = "..";
        const struct merge_node *child;

        if (w->child < w->end) {
                child = merge_node(w->m, w->child);
                merge_name(w->m, child, &ret->name, &ret->len);
                if (w->dots == 2 ||
                    layer_name_compare(ret->name, ret->len, dots, w->dots + 1) < 0) {
                        ret->node = child->inode;
                        w->child = child->next;
                        return true;
                }
        } else if (w->dots == 2) {
                return false;
        }
        ret->name = dots;
        ret->len = ++w->dots;
        ret->node = w->dots == 1 ? w->dir : merge_node(w->m, w->dir)->parent;
        return true;
}

uint64_t dir_bytes(const struct merge *m, uint32_t dir)
{
        struct dir_walk w;
        struct dir_name n;
        uint64_t full = 0, used = 0;

        dir_walk_begin(&w, m, dir);
        while (dir_walk_next(&w, &n)) {
                if (used + DIRENT_BYTES + n.len > LAYER_BLOCK) {
                        full += LAYER_BLOCK;
                        used = 0;
                }
                used += DIRENT_BYTES + n.len;
        }
        return full + used;
}

static unsigned file_type(const struct merge_node *n)
{
        static const uint8_t types[LAYER_TYPE_COUNT] = {
                [LAYER_FILE] = 1, [LAYER_OBJECT] = 1, [LAYER_DIR] = 2,
                [LAYER_FIFO] = 5, [LAYER_SOCKET] = 6, [LAYER_SYMLINK] = 7,
        };

        return n->type < LAYER_TYPE_COUNT ? types[n->type] : 0;
}

/* One block: the names gather behind each other and move behind the dirents at its end. */
struct block {
        uint8_t dirents[LAYER_BLOCK], names[LAYER_BLOCK];
        size_t n, names_len;
};

static void block_add(struct block *b, const struct merge *m, const struct dir_name *n)
{
        const struct merge_node *inode = merge_node(m, n->node);
        uint8_t *p = b->dirents + b->n * DIRENT_BYTES;

        put64(p, inode->nid);
        put16(p + 8, (uint16_t) b->names_len); /* without the dirents: see block_close() */
        p[10] = (uint8_t) file_type(inode);
        p[11] = 0;
        memcpy(b->names + b->names_len, n->name, n->len);
        b->names_len += n->len;
        b->n++;
}

/* The whole block in b->dirents; its length. */
static size_t block_close(struct block *b)
{
        size_t head = b->n * DIRENT_BYTES, len = head + b->names_len;

        for (size_t i = 0; i < b->n; i++) {
                uint8_t *p = b->dirents + i * DIRENT_BYTES + 8;

                put16(p, (uint16_t) (get16(p) + head));
        }
        memcpy(b->dirents + head, b->names, b->names_len);
        b->n = b->names_len = 0;
        return len;
}

void dir_put(const struct merge *m, uint32_t dir, struct sink *s, uint8_t *last)
{
        struct block b = { .n = 0 };
        struct dir_walk w;
        struct dir_name n;
        size_t len;

        dir_walk_begin(&w, m, dir);
        while (dir_walk_next(&w, &n)) {
                if ((b.n + 1) * DIRENT_BYTES + b.names_len + n.len > LAYER_BLOCK) {
                        len = block_close(&b);
                        if (s) {
                                sink_put(s, b.dirents, len);
                                sink_zero(s, LAYER_BLOCK - len);
                        }
                }
                block_add(&b, m, &n);
        }
        len = block_close(&b);
        if (last)
                memcpy(last, b.dirents, len);
        else if (s)
                sink_put(s, b.dirents, len);
}

/* --- attributes --- */

static const char redirect_name[] = "overlay.redirect", metacopy_name[] = "overlay.metacopy";

static uint64_t xattr_bytes(size_t name_len, size_t value_len)
{
        return round_up(4 + name_len + value_len, 4);
}

static unsigned prefix_of(const struct layer_xattr *x, size_t *ret_skip)
{
        bool user = x->name[0] == 'u';

        *ret_skip = strlen(user ? "user." : "security.");
        return user ? XATTR_USER : XATTR_SECURITY;
}

uint64_t xattrs_bytes(const struct layer_entry *n)
{
        struct layer_xattr x;
        uint64_t sum = 0;
        size_t at = 0, skip;

        while (layer_xattr_next(n->xattrs, n->xattrs_len, &at, &x) > 0) {
                (void) prefix_of(&x, &skip);
                sum += xattr_bytes(x.name_len - skip, x.value_len);
        }
        if (n->type == LAYER_OBJECT)
                sum += xattr_bytes(sizeof metacopy_name - 1, 0) +
                       xattr_bytes(sizeof redirect_name - 1, EROFS_OBJECT_PATH_BYTES);
        return sum > 0 ? XATTR_HEADER_BYTES + sum : 0;
}

static void put_one(struct sink *s, unsigned prefix, const char *name, size_t name_len,
                    const void *value, size_t value_len)
{
        uint8_t head[4] = { (uint8_t) name_len, (uint8_t) prefix };

        put16(head + 2, (uint16_t) value_len);
        sink_put(s, head, sizeof head);
        sink_put(s, name, name_len);
        sink_put(s, value, value_len);
        sink_pad(s, 4);
}

void xattrs_put(const struct merge *m, const struct merge_node *node, const struct layout *l,
                struct sink *s)
{
        static const uint8_t head[XATTR_HEADER_BYTES]; /* nothing shared, no filter */
        struct layer_xattr x;
        size_t at = 0, skip;

        if (l->xattr_bytes == 0)
                return;
        sink_put(s, head, sizeof head);
        while (layer_xattr_next(l->n.xattrs, l->n.xattrs_len, &at, &x) > 0) {
                unsigned prefix = prefix_of(&x, &skip);

                put_one(s, prefix, x.name + skip, x.name_len - skip, x.value, x.value_len);
        }
        if (l->n.type == LAYER_OBJECT) {
                char path[1 + EROFS_OBJECT_PATH_BYTES] = "/";

                erofs_object_path(layer_objects_digest(&m->layers[node->layer], l->n.object),
                                  path + 1);
                put_one(s, XATTR_TRUSTED, metacopy_name, sizeof metacopy_name - 1, NULL, 0);
                put_one(s, XATTR_TRUSTED, redirect_name, sizeof redirect_name - 1, path,
                        EROFS_OBJECT_PATH_BYTES);
        }
}

void erofs_object_path(const uint8_t sha[LAYER_SHA_BYTES], char ret[EROFS_OBJECT_PATH_BYTES])
{
        hex_encode(sha, 1, ret);
        ret[2] = '/';
        hex_encode(sha + 1, LAYER_SHA_BYTES - 1, ret + 3);
}
