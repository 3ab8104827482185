/* layer_index_write.c - the writing half of layer_index.h.  vmm-fetch. */
#include "store/layer_index.h"

#include "store/bytes.h"
#include "store/layer_index_priv.h"

size_t layer_xattr_put(uint8_t *p, size_t room, const struct layer_xattr *x)
{
        size_t need = XATTR_FIXED + x->name_len + x->value_len;

        if (x->name_len > UINT8_MAX || x->value_len > UINT16_MAX || round_up(need, 4) > room)
                return 0;
        memset(p, 0, round_up(need, 4));
        p[0] = (uint8_t) x->name_len;
        put16(p + 2, (uint16_t) x->value_len);
        memcpy(p + XATTR_FIXED, x->name, x->name_len);
        if (x->value_len > 0)
                memcpy(p + XATTR_FIXED + x->name_len, x->value, x->value_len);
        return round_up(need, 4);
}

static uint64_t target_bytes(const struct layer_entry *n)
{
        return n->type == LAYER_SYMLINK ? n->size : 0;
}

uint64_t layer_index_entry_bytes(const struct layer_entry *n)
{
        return round_up(ENTRY_FIXED + round_up(n->name_len, 4) + 4ULL * n->n_chunks +
                                n->xattrs_len + target_bytes(n),
                        ENTRY_ALIGN);
}

void layer_index_put(struct sink *s, const struct layer_entry *n)
{
        uint8_t p[ENTRY_FIXED] = { 0 };

        put32(p + EN_LENGTH, (uint32_t) layer_index_entry_bytes(n));
        put16(p + EN_DEPTH, (uint16_t) n->depth);
        p[EN_TYPE] = (uint8_t) n->type;
        p[EN_FLAGS] = (uint8_t) n->flags;
        put16(p + EN_MODE, n->mode);
        put16(p + EN_NAME_LEN, (uint16_t) n->name_len);
        put32(p + EN_GROUP, n->group);
        put32(p + EN_UID, n->uid);
        put32(p + EN_GID, n->gid);
        put64(p + EN_MTIME, (uint64_t) n->mtime_s);
        put32(p + EN_MTIME_NS, n->mtime_ns);
        put32(p + EN_XATTRS, (uint32_t) n->xattrs_len);
        put64(p + EN_SIZE, n->size);
        put32(p + EN_CHUNKS, n->type == LAYER_OBJECT ? n->object : n->n_chunks);
        p[EN_CHUNK_BITS] = (uint8_t) n->chunk_bits;
        sink_put(s, p, sizeof p);
        sink_put(s, n->name, n->name_len);
        sink_pad(s, 4);
        sink_put(s, n->chunks, 4ULL * n->n_chunks);
        sink_put(s, n->xattrs, n->xattrs_len);
        sink_put(s, n->target, target_bytes(n));
        sink_pad(s, ENTRY_ALIGN);
}

void layer_index_put_header(struct sink *s, const struct layer_index *x)
{
        uint8_t p[LAYER_HEADER_BYTES] = { 0 };

        memcpy(p, HEADER_MAGIC, 8);
        put64(p + HD_LENGTH, x->len);
        put64(p + HD_PACK, x->totals.pack_bytes);
        put64(p + HD_THRESHOLD, x->totals.threshold);
        put64(p + HD_CONTENT, x->content_bytes);
        put32(p + HD_ENTRIES, x->n_entries);
        put32(p + HD_OBJECTS, x->n_objects);
        put32(p + HD_GROUPS, x->n_groups);
        memcpy(p + HD_DIFF_ID, x->totals.diff_id, LAYER_SHA_BYTES);
        sink_put(s, p, sizeof p);
}
