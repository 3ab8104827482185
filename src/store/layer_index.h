/* layer_index.h - the index of one layer: what it holds, without the content of its files.
 *
 * The bytes are described in docs/image-store.md, section 4.  There is one encoding of a tree and the
 * reader refuses every other: entries in order, paddings zero, fields that mean nothing zero.  An
 * index is written by a fetcher that a hostile layer may have taken over; everything that is handed
 * out here has been checked, and nothing is read outside the given bytes.  The bytes must not change
 * while they are in use: they are a published file, or memory.  Pure; nothing blocks. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "store/sink.h"

#define LAYER_INDEX_BYTES_MAX (2ULL << 30) /* of one index */
#define LAYER_XATTRS_MAX      (128U << 10) /* encoded attributes of one entry */
#define LAYER_CHUNKS_MAX      65536U       /* pieces of one sparse file */
#define LAYER_CHUNK_BITS_MAX  31U
#define LAYER_HOLE            UINT32_MAX /* a chunk that is not in the pack */
#define LAYER_BLOCK_BITS      12U
#define LAYER_BLOCK           4096U
#define LAYER_OBJECTS_MAX     1000000U
#define LAYER_SIZE_MAX        (1ULL << 43) /* of a file: what one chunk can span */
#define LAYER_ID_MAX          65535U
#define LAYER_DEPTH_MAX       256U
#define LAYER_SHA_BYTES       32U
#define LAYER_OBJECT_BYTES    8U /* of a row of the object table: its size */
#define LAYER_HEADER_BYTES    128U

enum layer_type {
        LAYER_NONE,
        LAYER_DIR,
        LAYER_FILE,   /* content in the pack */
        LAYER_OBJECT, /* content is a row of the object table */
        LAYER_SYMLINK,
        LAYER_FIFO,
        LAYER_SOCKET,
        LAYER_LINK,     /* one more name of an entry before this one */
        LAYER_WHITEOUT, /* hides that name of lower layers */
        LAYER_TYPE_COUNT
};

#define LAYER_OPAQUE  1U /* directory: hides what lower layers have in it */
#define LAYER_IMPLIED 2U /* directory: the layer uses but does not describe it */

struct layer_entry {
        enum layer_type type;
        unsigned flags, depth; /* depth: components of the path; 0 is the root */
        uint16_t mode;         /* 07777 */
        uint32_t uid, gid;
        int64_t mtime_s;
        uint32_t mtime_ns;
        uint32_t group;   /* names of one inode share a number from 1 on; 0: it has one name */
        uint64_t size;    /* file, object: bytes of content; symbolic link: of the target; else 0 */
        const char *name; /* not terminated */
        size_t name_len;
        const uint8_t *chunks; /* file: n_chunks little-endian block numbers in the pack */
        uint32_t n_chunks;
        unsigned chunk_bits;   /* a chunk is 4096 << chunk_bits bytes */
        uint32_t object;       /* object: its number, which is its row */
        const uint8_t *xattrs; /* encoded, for layer_xattr_next() */
        size_t xattrs_len;
        const char *target; /* symbolic link; size bytes, not terminated */
};

struct layer_totals {
        uint64_t pack_bytes; /* a multiple of LAYER_BLOCK */
        uint64_t threshold;  /* files of so many bytes and more are objects; 0: none is */
        uint8_t diff_id[LAYER_SHA_BYTES];
};

struct layer_index {
        const uint8_t *p; /* borrowed */
        size_t len;
        struct layer_totals totals;
        uint64_t content_bytes; /* sizes of all files, each inode once */
        uint64_t entries_at;    /* where the root's entry is */
        uint32_t n_entries, n_objects, n_groups;
        const uint8_t *digests; /* borrowed, by layer_objects_attach(): see layer_objects.h */
};

/* Check every byte of @p.  -EBADMSG with the reason in *e.  Afterwards the functions below cannot
 * fail on it, except by our own mistakes. */
int layer_index_open(const uint8_t *p, size_t len, struct layer_index *ret, struct err *e);

/* The header and the object table alone, which @p begins with; @file_len is how long the whole index is.
 * For whoever wants to know the objects and parse nothing of a stranger's making: *@ret has no
 * entries.  layer_index_table_bytes() says how much of a file to read, from its first
 * LAYER_HEADER_BYTES. */
int layer_index_open_table(const uint8_t *p, size_t len, uint64_t file_len, struct layer_index *ret,
                           struct err *e);
size_t layer_index_table_bytes(const uint8_t header[LAYER_HEADER_BYTES]);

/* Decode the entry at offset @at and set *@ret_next to the offset behind it.  1; 0 at the end. */
int layer_index_entry(const struct layer_index *x, uint64_t at, struct layer_entry *ret,
                      uint64_t *ret_next);

/* The size of object @n; @n < n_objects.  0: no entry has it any more. */
uint64_t layer_index_object(const struct layer_index *x, uint32_t n);

struct layer_xattr {
        const char *name; /* with its prefix; not terminated */
        size_t name_len;
        const uint8_t *value;
        size_t value_len;
};
/* Walk encoded attributes from *@at = 0 on.  1; 0 at the end; -EBADMSG. */
int layer_xattr_next(const uint8_t *p, size_t len, size_t *at, struct layer_xattr *ret);
/* Whether a layer may bring it: user.* but not user.overlay.*, and security.capability. */
bool layer_xattr_allowed(const char *name, size_t len);
/* Append one attribute; names must come in strictly ascending order.  The bytes it takes, or 0 when
 * they would be more than @room. */
size_t layer_xattr_put(uint8_t *p, size_t room, const struct layer_xattr *x);

/* -1, 0, 1: the order of names in a directory and of whole paths: a directory's entries follow it
 * before anything else, names compare as unsigned bytes. */
int layer_name_compare(const char *a, size_t a_len, const char *b, size_t b_len);
int layer_path_compare(const char *a, size_t a_len, const char *b, size_t b_len);

/* The smallest chunk that holds @size bytes at once, and the one that a sparse file is cut into. */
unsigned layer_chunk_bits_whole(uint64_t size);
unsigned layer_chunk_bits_sparse(uint64_t size);
uint64_t layer_chunk_count(uint64_t size, unsigned bits);

/* --- writing: the caller keeps the order and the rules; the reader is the judge --- */

/* Bytes that layer_index_put() will write for @n. */
uint64_t layer_index_entry_bytes(const struct layer_entry *n);
void layer_index_put(struct sink *s, const struct layer_entry *n);
void layer_index_put_header(struct sink *s, const struct layer_index *x);
