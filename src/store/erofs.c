/* erofs.c - see erofs.h.  Runs in the image builder's sandbox.
 *
 * Theory of operation.  The file system is { super block and device table | inodes | data blocks of
 * long directories and links }.  Inodes come in the order: the root, then for each directory, in the
 * order of the walk, what it holds; so `ls -l` reads neighbours.  One pass gives every inode its
 * place; then all is written from front to back.  Everything an inode looks like follows from its
 * node (erofs_layout), so nothing is kept between the passes but nid and the length of directories. */
#include "store/erofs.h"

#include <errno.h>
#include <openssl/evp.h>
#include <sys/stat.h>

#include "base/proc.h"
#include "store/bytes.h"
#include "store/erofs_priv.h"

struct writer {
        struct merge *m;
        struct sink *s;
        uint64_t meta_at, meta_end; /* bytes; inodes lie between */
        uint64_t data_blocks;       /* behind meta_end */
        uint64_t next_block;        /* of the data area, while inodes are written */
        uint32_t inodes, objects;
        int (*each)(struct writer *w, uint32_t node, struct err *e);
};

/* The pieces of an inode and whether its data's end can lie beside it. */
void erofs_layout(const struct merge *m, const struct merge_node *n, struct layout *ret)
{
        uint64_t head;

        *ret = (struct layout){ .format = LAYOUT_PLAIN };
        merge_entry(m, n, &ret->n);
        ret->xattr_bytes = xattrs_bytes(&ret->n);
        head = INODE_BYTES + ret->xattr_bytes;
        ret->meta_bytes = head;
        ret->size = n->type == LAYER_DIR ? n->bytes : ret->n.size;
        if (ret->size == 0)
                return;
        if (n->type == LAYER_FILE || n->type == LAYER_OBJECT) {
                ret->format = LAYOUT_CHUNKS;
                ret->chunk_bits = n->type == LAYER_FILE ? ret->n.chunk_bits
                                                        : layer_chunk_bits_whole(ret->size);
                ret->chunks = n->type == LAYER_FILE ? ret->n.n_chunks : 1;
                ret->meta_bytes = round_up(head, CHUNK_INDEX_BYTES) +
                                  (uint64_t) ret->chunks * CHUNK_INDEX_BYTES;
                return;
        }
        ret->blocks = ret->size >> LAYER_BLOCK_BITS;
        ret->tail_bytes = ret->size & (LAYER_BLOCK - 1);
        if (ret->tail_bytes == 0)
                return;
        if (head + ret->tail_bytes <= LAYER_BLOCK) {
                ret->format = LAYOUT_INLINE;
                ret->meta_bytes = head + ret->tail_bytes;
        } else {
                ret->blocks++;
                ret->tail_bytes = 0;
        }
}

/* Where an inode goes that cannot begin before @at: its head never lies across two blocks, and with an
 * inline tail nothing of it does. */
static uint64_t place(uint64_t at, const struct layout *l)
{
        uint64_t whole = l->format == LAYOUT_INLINE ? l->meta_bytes : INODE_BYTES;
        uint64_t in;

        at = round_up(at, NID_BYTES);
        in = at & (LAYER_BLOCK - 1);
        return in + whole <= LAYER_BLOCK ? at : round_up(at, LAYER_BLOCK);
}

/* w->each() for every inode, in the order of their places. */
static int for_each_inode(struct writer *w, struct err *e)
{
        int r = w->each(w, 0, e);

        for (uint32_t dir = 0; r >= 0 && dir < w->m->n_nodes; dir++) {
                uint32_t end = merge_node(w->m, dir)->next;

                if (merge_node(w->m, dir)->type != LAYER_DIR)
                        continue;
                for (uint32_t c = dir + 1; r >= 0 && c < end; c = merge_node(w->m, c)->next)
                        if (merge_node(w->m, c)->inode == c)
                                r = w->each(w, c, e);
        }
        return r;
}

/* --- places --- */

static int each_place(struct writer *w, uint32_t i, struct err *e)
{
        struct merge_node *n = merge_node(w->m, i);
        struct layout l;
        uint64_t at;

        if (n->type == LAYER_DIR)
                n->bytes = dir_bytes(w->m, i);
        erofs_layout(w->m, n, &l);
        at = place(w->meta_end, &l);
        n->nid = at / NID_BYTES;
        w->meta_end = at + l.meta_bytes;
        w->data_blocks += l.blocks;
        w->inodes++;
        w->objects += n->type == LAYER_OBJECT;
        if ((w->meta_end >> LAYER_BLOCK_BITS) + w->data_blocks >= UINT32_MAX - 1)
                return err_set(e, -EFBIG, "the image's metadata is too large");
        return 0;
}

/* --- inodes --- */

static uint16_t type_bits(unsigned type)
{
        static const uint16_t bits[LAYER_TYPE_COUNT] = {
                [LAYER_DIR] = S_IFDIR,     [LAYER_FILE] = S_IFREG, [LAYER_OBJECT] = S_IFREG,
                [LAYER_SYMLINK] = S_IFLNK, [LAYER_FIFO] = S_IFIFO, [LAYER_SOCKET] = S_IFSOCK,
        };

        return bits[type];
}

/* Slot of the layer's pack in the device table; 0: it has none. */
static unsigned device_of(const struct merge *m, unsigned layer)
{
        unsigned n = 0;

        for (unsigned i = 0; i <= layer; i++)
                n += m->layers[i].totals.pack_bytes > 0;
        return m->layers[layer].totals.pack_bytes > 0 ? n : 0;
}

static void put_head(struct writer *w, const struct merge_node *n, const struct layout *l)
{
        uint8_t p[INODE_BYTES] = { 0 };

        put16(p, (uint16_t) (INODE_EXTENDED | l->format << 1));
        if (l->xattr_bytes > 0)
                put16(p + 2, (uint16_t) ((l->xattr_bytes - XATTR_HEADER_BYTES) / 4 + 1));
        put16(p + 4, (uint16_t) (type_bits(n->type) | l->n.mode));
        put64(p + 8, l->size);
        if (l->format == LAYOUT_CHUNKS)
                put16(p + 16, (uint16_t) (CHUNK_FORMAT_INDEXES | l->chunk_bits));
        else if (l->blocks > 0)
                put32(p + 16, (uint32_t) w->next_block);
        put32(p + 20, ++w->inodes);
        put32(p + 24, l->n.uid);
        put32(p + 28, l->n.gid);
        put64(p + 32, (uint64_t) l->n.mtime_s);
        put32(p + 40, l->n.mtime_ns);
        put32(p + 44, n->links);
        sink_put(w->s, p, sizeof p);
}

static void put_chunks(struct writer *w, const struct merge_node *n, const struct layout *l)
{
        unsigned device = device_of(w->m, n->layer);

        sink_pad(w->s, CHUNK_INDEX_BYTES);
        for (uint32_t i = 0; i < l->chunks; i++) {
                uint32_t block = n->type == LAYER_FILE ? get32(l->n.chunks + 4ULL * i) : LAYER_HOLE;
                uint8_t p[CHUNK_INDEX_BYTES] = { 0 };

                put16(p + 2, (uint16_t) (block == LAYER_HOLE ? 0 : device));
                put32(p + 4, block);
                sink_put(w->s, p, sizeof p);
        }
}

static int each_inode(struct writer *w, uint32_t i, struct err *e)
{
        const struct merge_node *n = merge_node(w->m, i);
        uint8_t last[LAYER_BLOCK];
        struct layout l;

        (void) e;
        erofs_layout(w->m, n, &l);
        sink_zero(w->s, n->nid * NID_BYTES - sink_at(w->s));
        put_head(w, n, &l);
        xattrs_put(w->m, n, &l, w->s);
        if (l.format == LAYOUT_CHUNKS)
                put_chunks(w, n, &l);
        if (l.format == LAYOUT_INLINE && n->type == LAYER_DIR) {
                dir_put(w->m, i, NULL, last);
                sink_put(w->s, last, l.tail_bytes);
        } else if (l.format == LAYOUT_INLINE) {
                sink_put(w->s, l.n.target, l.size);
        }
        w->next_block += l.blocks;
        return 0;
}

static int each_data(struct writer *w, uint32_t i, struct err *e)
{
        const struct merge_node *n = merge_node(w->m, i);
        uint8_t last[LAYER_BLOCK];
        struct layout l;

        (void) e;
        erofs_layout(w->m, n, &l);
        if (l.blocks == 0)
                return 0;
        if (n->type == LAYER_DIR)
                dir_put(w->m, i, w->s, l.format == LAYOUT_INLINE ? last : NULL);
        else
                sink_put(w->s, l.n.target, l.size);
        sink_pad(w->s, LAYER_BLOCK);
        return 0;
}

/* --- super block and device table --- */

unsigned erofs_devices(const struct layer_index *layers, size_t n_layers, unsigned *ret)
{
        unsigned n = 0;

        for (unsigned i = 0; i < n_layers && i < MERGE_LAYERS_MAX; i++)
                if (layers[i].totals.pack_bytes > 0)
                        ret[n++] = i;
        return n;
}

/* The identity of what is in it: a function of diff ids and thresholds, as all the rest. */
static int identity(const struct merge *m, uint8_t uuid[16])
{
        EVP_MD_CTX *c = EVP_MD_CTX_new();
        uint8_t sha[EVP_MAX_MD_SIZE], threshold[8];
        bool fine = c && EVP_DigestInit_ex(c, EVP_sha256(), NULL) == 1;

        for (unsigned i = 0; fine && i < m->n_layers; i++) {
                put64(threshold, m->layers[i].totals.threshold);
                fine = EVP_DigestUpdate(c, m->layers[i].totals.diff_id, LAYER_SHA_BYTES) == 1 &&
                       EVP_DigestUpdate(c, threshold, sizeof threshold) == 1;
        }
        fine = fine && EVP_DigestFinal_ex(c, sha, NULL) == 1;
        EVP_MD_CTX_free(c);
        if (!fine)
                return -EIO;
        memcpy(uuid, sha, 16);
        uuid[6] = (uint8_t) ((uuid[6] & 0x0f) | 0x80); /* RFC 9562: version 8, our own kind */
        uuid[8] = (uint8_t) ((uuid[8] & 0x3f) | 0x80);
        return 0;
}

/* As EROFS wants it: seeded with ones, not inverted at the end. */
static uint32_t crc32c(const uint8_t *p, size_t len)
{
        uint32_t crc = UINT32_MAX;

        for (size_t i = 0; i < len; i++) {
                crc ^= p[i];
                for (int bit = 0; bit < 8; bit++)
                        crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78U : 0);
        }
        return crc;
}

/* *@flat: where the pack begins when the file system and its packs lie behind each other on one
 * device; past what 32 bits of blocks can say there is no such place. */
static void put_device(uint8_t *slot, const struct layer_index *x, uint64_t *flat)
{
        uint64_t blocks = x->totals.pack_bytes >> LAYER_BLOCK_BITS;

        hex_encode(x->totals.diff_id, LAYER_SHA_BYTES, (char *) slot); /* its NUL is overwritten */
        put32(slot + SLOT_BLOCKS, (uint32_t) blocks);
        if (*flat + blocks < UINT32_MAX)
                put32(slot + SLOT_MAPPED, (uint32_t) *flat);
        *flat += blocks;
}

static int put_super(struct writer *w, struct err *e)
{
        AUTO(free) uint8_t *p = calloc(1, w->meta_at);
        unsigned devices[MERGE_LAYERS_MAX];
        unsigned n = erofs_devices(w->m->layers, w->m->n_layers, devices);
        uint64_t flat = (w->meta_end >> LAYER_BLOCK_BITS) + w->data_blocks;
        uint8_t *sb;

        if (!p)
                return err_set(e, -ENOMEM, "out of memory");
        sb = p + SB_AT;
        put32(sb + SB_MAGIC, EROFS_MAGIC);
        put32(sb + SB_COMPAT, COMPAT_CHECKSUM | COMPAT_MTIME);
        sb[SB_BLOCK_BITS] = LAYER_BLOCK_BITS;
        put16(sb + SB_ROOT_NID, (uint16_t) merge_node(w->m, 0)->nid);
        put64(sb + SB_INODES, w->inodes);
        put32(sb + SB_BLOCKS, (uint32_t) flat);
        put32(sb + SB_INCOMPAT, INCOMPAT_CHUNKED | (n > 0 ? INCOMPAT_DEVICES : 0));
        put16(sb + SB_DEVICES, (uint16_t) n);
        put16(sb + SB_DEVICE_SLOT, n > 0 ? (SB_AT + SB_BYTES) / SLOT_BYTES : 0);
        if (identity(w->m, sb + SB_UUID) < 0)
                return err_set(e, -EIO, "SHA-256 failed");
        for (unsigned i = 0; i < n; i++)
                put_device(sb + SB_BYTES + i * SLOT_BYTES, &w->m->layers[devices[i]], &flat);
        put32(sb + SB_CHECKSUM, crc32c(sb, LAYER_BLOCK - SB_AT));
        sink_put(w->s, p, w->meta_at);
        return 0;
}

/* --- all of it --- */

static int pass(struct writer *w, int (*each)(struct writer *w, uint32_t node, struct err *e),
                struct err *e)
{
        w->each = each;
        w->inodes = 0;
        return for_each_inode(w, e);
}

int erofs_write(struct merge *m, int out, struct erofs_totals *ret, struct err *e)
{
        AUTO(sink_free) struct sink *s = NULL;
        unsigned devices[MERGE_LAYERS_MAX];
        struct writer w = { .m = m };
        int r = 0;

        for (unsigned i = 0; i < m->n_layers; i++)
                if (m->layers[i].n_objects > 0 && !m->layers[i].digests)
                        return err_set(e, -EINVAL, "layer %u: its objects have no names", i + 1);
        r = sink_new(out, &s, e);
        if (r < 0)
                return r;
        w.s = s;
        w.meta_at = round_up(SB_AT + SB_BYTES +
                                     (uint64_t) SLOT_BYTES *
                                             erofs_devices(m->layers, m->n_layers, devices),
                             LAYER_BLOCK);
        w.meta_end = w.meta_at;
        r = pass(&w, each_place, e);
        if (r < 0)
                return r;
        w.meta_end = round_up(w.meta_end, LAYER_BLOCK);
        ret->inodes = w.inodes;
        ret->objects = w.objects;
        r = put_super(&w, e);
        if (r < 0)
                return r;
        w.next_block = w.meta_end >> LAYER_BLOCK_BITS;
        r = pass(&w, each_inode, e);
        sink_zero(s, w.meta_end - sink_at(s));
        if (r >= 0)
                r = pass(&w, each_data, e);
        if (r < 0)
                return r;
        ret->bytes = sink_at(s);
        return sink_flush(s, e);
}
