/* layer_index_priv.h - where the fields are: docs/image-store.md, section 4. */
#pragma once

#define HEADER_MAGIC "hvmmidx1"

enum {
        HD_LENGTH = 8,
        HD_PACK = 16,
        HD_THRESHOLD = 24,
        HD_CONTENT = 32,
        HD_ENTRIES = 40,
        HD_OBJECTS = 44,
        HD_GROUPS = 48,
        HD_ZERO = 52,
        HD_DIFF_ID = 56,
        HD_END = 88, /* zeros up to LAYER_HEADER_BYTES */
};

enum {
        EN_LENGTH = 0,
        EN_DEPTH = 4,
        EN_TYPE = 6,
        EN_FLAGS = 7,
        EN_MODE = 8,
        EN_NAME_LEN = 10,
        EN_GROUP = 12,
        EN_UID = 16,
        EN_GID = 20,
        EN_MTIME = 24,
        EN_MTIME_NS = 32,
        EN_XATTRS = 36,
        EN_SIZE = 40,
        EN_CHUNKS = 48, /* an object: its row */
        EN_CHUNK_BITS = 52,
        ENTRY_FIXED = 56,
};

#define ENTRY_ALIGN 8U
#define XATTR_FIXED 4U
