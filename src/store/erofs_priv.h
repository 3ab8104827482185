/* erofs_priv.h - the parts of EROFS that we write (Documentation/filesystems/erofs.rst), and how an
 * inode is laid out: shared by the pass that places and the passes that write. */
#pragma once
#include "store/erofs.h"

enum {
        SB_AT = 1024,
        SB_MAGIC = 0,
        SB_CHECKSUM = 4,
        SB_COMPAT = 8,
        SB_BLOCK_BITS = 12,
        SB_ROOT_NID = 14,
        SB_INODES = 16,
        SB_BLOCKS = 36,
        SB_META_BLOCK = 40,
        SB_UUID = 48,
        SB_INCOMPAT = 80,
        SB_DEVICES = 86,
        SB_DEVICE_SLOT = 88,
        SB_BYTES = 128,
        SLOT_BLOCKS = 64, /* after 64 bytes of tag */
        SLOT_MAPPED = 68,
        SLOT_BYTES = 128,
};
#define EROFS_MAGIC          0xE0F5E1E2U
#define COMPAT_CHECKSUM      0x1U
#define COMPAT_MTIME         0x2U
#define INCOMPAT_CHUNKED     0x4U
#define INCOMPAT_DEVICES     0x8U
#define LAYOUT_PLAIN         0U
#define LAYOUT_INLINE        2U
#define LAYOUT_CHUNKS        4U
#define CHUNK_FORMAT_INDEXES 0x20U
#define CHUNK_INDEX_BYTES    8U
#define INODE_BYTES          64U
#define INODE_EXTENDED       1U
#define NID_BYTES            32U
#define XATTR_HEADER_BYTES   12U
#define XATTR_USER           1U
#define XATTR_TRUSTED        4U
#define XATTR_SECURITY       6U
#define DIRENT_BYTES         12U

struct layout {
        struct layer_entry n;
        unsigned format;     /* LAYOUT_... */
        unsigned chunk_bits; /* of LAYOUT_CHUNKS */
        uint32_t chunks;
        uint64_t size;        /* i_size */
        uint64_t xattr_bytes; /* header included; 0: none */
        uint64_t meta_bytes;  /* inode, attributes, tail or chunk table */
        uint64_t tail_bytes;  /* inline */
        uint64_t blocks;      /* of its own in the data area */
};

/* @dir_bytes: the length of a directory, else ignored. */
void erofs_layout(const struct merge *m, const struct merge_node *n, struct layout *ret);

/* The names of a directory in order, "." and ".." among them. */
struct dir_walk {
        const struct merge *m;
        uint32_t dir, child, end; /* child: the next one, end: no more */
        unsigned dots;            /* how many of "." and ".." have been given */
};
struct dir_name {
        const char *name;
        size_t len;
        uint32_t node; /* the inode's */
};
void dir_walk_begin(struct dir_walk *w, const struct merge *m, uint32_t dir);
bool dir_walk_next(struct dir_walk *w, struct dir_name *ret);

/* Writing the data of a directory block by block. */
uint64_t dir_bytes(const struct merge *m, uint32_t dir);
/* All of it into @s, full blocks padded; @last: the bytes behind the last full block go to it instead
 * when not NULL (room for a block), else into @s. */
void dir_put(const struct merge *m, uint32_t dir, struct sink *s, uint8_t *last);

/* The attributes of an inode, xattr_bytes of them. */
void xattrs_put(const struct merge *m, const struct merge_node *node, const struct layout *l,
                struct sink *s);
uint64_t xattrs_bytes(const struct layer_entry *n);
