/* tree.h - writing the entries of one layer below one directory.
 *
 * Paths come clean from tarpath.h.  Nothing is ever reached through a symbolic link: a link or file
 * that stands where a directory is needed is replaced by one, as the later entry of a layer wins.
 * Whiteouts and opaque directories apply to lower layers only, in whatever order they come.
 * Runs in vmm-fetch as root of its own user namespace; ids are what the tar says, 0..65535. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/err.h"
#include "base/mem.h"

struct tree;

struct tree_xattr {
        const char *name;
        const void *value;
        size_t size;
};

struct tree_meta {
        uint64_t uid, gid;
        mode_t mode; /* permission and set-id bits */
        struct timespec mtime;
        const struct tree_xattr *xattrs; /* of files and directories; those that a layer may not
                                          * bring are left out */
        size_t n_xattrs;
};

/* @root_fd is taken over. */
int tree_new(int root_fd, struct tree **ret, struct err *e);
struct tree *tree_free(struct tree *t);
DEFINE_AUTO(struct tree *, tree_free)

/* A directory; "" is the root. */
int tree_dir(struct tree *t, const char *path, const struct tree_meta *m, struct err *e);
int tree_symlink(struct tree *t, const char *path, const char *target, const struct tree_meta *m,
                 struct err *e);
int tree_fifo(struct tree *t, const char *path, const struct tree_meta *m, struct err *e);
/* @target: a clean path of an earlier entry of this layer. */
int tree_hardlink(struct tree *t, const char *path, const char *target, struct err *e);
/* A new, empty regular file, open for writing.  tree_file_end() gives it its attributes. */
int tree_file(struct tree *t, const char *path, struct err *e);
int tree_file_end(struct tree *t, int fd, const char *path, const struct tree_meta *m,
                  struct err *e);

int tree_whiteout(struct tree *t, const char *path, struct err *e);
int tree_opaque(struct tree *t, const char *path, struct err *e);

/* Times of directories, which later entries have touched; then each directory that must be marked
 * opaque ("opaque") or that the layer did not describe ("implied"). */
typedef int tree_report_fn(void *arg, const char *type, const char *path);
int tree_finish(struct tree *t, tree_report_fn *fn, void *arg, struct err *e);

/* Which attributes a layer may bring.  Pure. */
bool tree_xattr_allowed(const char *name);
