/* merge.h - the tree of an image: its layers laid over each other, bottom first.
 *
 * A table of nodes in the order of a walk: a directory, then all that lies below it, names in the
 * order of layer_name_compare().  The whole of what overlayfs would show over the unpacked layers:
 * the topmost entry of a name counts, directories merge down to an opaque one, whiteouts hide, a
 * directory that a layer only implies has the attributes of the next layer that describes it.
 * Hard links hold within one layer; a name that an upper layer replaced leaves its group.
 * Indexes are checked ones.  The result is a function of them alone.  One pass over each index;
 * memory: NODE bytes per entry in the scratch file, 8 bytes per hard linked inode. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "store/layer_index.h"
#include "store/scratch.h"

#define MERGE_NODES_MAX  20000000U
#define MERGE_LAYERS_MAX 128U

struct merge_node {
        uint32_t parent; /* the root's is itself */
        uint32_t next;   /* the first node that is not below this one */
        uint32_t inode;  /* the first node with the same inode; itself for most */
        uint32_t links;  /* of a first node: st_nlink */
        uint16_t layer;
        uint16_t type;     /* enum layer_type of the inode; never link or whiteout */
        uint32_t name_at;  /* offset / 8 in that layer's index of the entry with the name */
        uint32_t entry_at; /* of the entry with the attributes */
        uint32_t zero;
        uint64_t nid, bytes; /* for erofs.c: where the inode is, how long a directory */
};

struct merge {
        struct scratch nodes;
        const struct layer_index *layers; /* borrowed */
        uint32_t n_layers, n_nodes;
};

/* @scratch: an empty file, borrowed, or -EBADF: memory.  -E2BIG over MERGE_NODES_MAX. */
int merge_layers(const struct layer_index *layers, size_t n_layers, int scratch, struct merge *ret,
                 struct err *e);
void merge_done(struct merge *m);

static inline struct merge_node *merge_node(const struct merge *m, uint32_t n)
{
        return (struct merge_node *) (void *) m->nodes.p + n;
}

/* The entries behind a node. */
void merge_name(const struct merge *m, const struct merge_node *n, const char **ret,
                size_t *ret_len);
void merge_entry(const struct merge *m, const struct merge_node *n, struct layer_entry *ret);

static inline void merge_done_cleanup(struct merge *m)
{
        merge_done(m);
}
