/* cdi_tree.h - a YAML (or JSON) file as a tree that remembers its lines.  What CDI specs need and no
 * more: no anchors, no aliases, no tags with a meaning, one document.  Pure but for libyaml. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/mem.h"

enum tree_kind { TREE_NONE, TREE_SCALAR, TREE_LIST, TREE_MAP, TREE_KIND_COUNT };

struct tree {
        enum tree_kind kind;
        unsigned line;            /* from 1 */
        bool quoted;              /* a scalar that is text, whatever it looks like */
        char *key;                /* of a map's member */
        char *text;               /* of a scalar */
        struct tree *kids, *last; /* of a list or a map */
        struct tree *next;
};

#define TREE_MAX_BYTES (4U << 20)
#define TREE_MAX_NODES 65536U
#define TREE_MAX_DEPTH 16U
#define TREE_MAX_TEXT  4096U /* bytes of one scalar */

/* @name is for messages.  -EINVAL with "NAME:LINE: why". */
int tree_parse(const char *name, const char *text, size_t len, struct tree **ret, struct err *e);
struct tree *tree_free(struct tree *t);
DEFINE_AUTO(struct tree *, tree_free)

/* Member of a map; NULL: there is none, or it is null. */
const struct tree *tree_get(const struct tree *map, const char *key);
/* Plain "null", "~" or nothing. */
bool tree_is_null(const struct tree *t);
