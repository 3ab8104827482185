/* cdi.h - specifications of the Container Device Interface (CNCF TAG container-device-interface,
 * versions 0.5.0 to 1.1.0): read, chosen from, printed.
 *
 * Hooks are programs that a runtime would start as root beside a container.  None is ever run here:
 * links that one would make are read out of its arguments, what the loader's cache needs is done by
 * us (engine/sandbox/inject.c), and every other hook is passed over.  Operation process; blocks on
 * files alone. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

#define CDI_KIND "nvidia.com/gpu"

struct cdi_node {
        char *path, *host_path; /* inside; on the host, NULL: the same */
        char *type;             /* "c", "b", "u", "p"; NULL: as it is */
        uint32_t major, minor;  /* 0 and 0: as it is */
        uint32_t file_mode;     /* 0: not said */
        char *permissions;      /* of "rwm"; NULL: all */
        uint32_t uid, gid;
};

struct cdi_mount {
        char *host_path;
        char *container_path; /* or "@lib/..": sandbox.h; of specs of our own alone */
        char *type;           /* NULL, "bind": a file or directory; else not done */
        char *soname;         /* not in the file: what bind.c has read out of the library */
        bool is_32, looked;   /* the same; whether it has */
        int held;             /* O_PATH on the file, kept by gpu_bind_prepare(); 0: not open */
        char **options;
};

struct cdi_hook {
        char *name, *path;
        char **args, **env;
        uint32_t timeout;
};

/* Made by us; what CDI says with a create-symlinks hook. */
struct cdi_link {
        char *target, *path; /* what it says; its own path, or "@lib/.." */
};

struct cdi_net {
        char *host_name, *name;
};

struct cdi_rdt {
        char *clos_id;
};

struct cdi_edits {
        char **env;
        struct cdi_node *nodes;
        size_t n_nodes;
        struct cdi_mount *mounts;
        size_t n_mounts;
        struct cdi_hook *hooks;
        size_t n_hooks;
        struct cdi_link *links;
        size_t n_links;
        struct cdi_net *nets;
        size_t n_nets;
        char **gids;
        struct cdi_rdt rdt;
};

struct cdi_device {
        char *name;
        struct cdi_edits edits;
};

struct cdi_spec {
        char *version, *kind;
        struct cdi_edits edits;
        struct cdi_device *devices;
        size_t n_devices;
        char *file;                /* where it was read, for messages; NULL: made by us */
        char *lib_dir, *lib32_dir; /* what "@lib/" means on this host, for printing */
};

#define CDI_MAX_LIST 4096U /* elements of one list */

/* *@ret is to be zeroed; 1: of another kind than CDI_KIND, and not read further.  -EINVAL, -EFBIG with
 * "NAME:LINE: why". */
int cdi_parse(const char *name, const char *text, size_t len, struct cdi_spec *ret, struct err *e);
void cdi_spec_done(struct cdi_spec *s);
void cdi_edits_done(struct cdi_edits *x);

/* All specs of our kind below @root: /etc/cdi, then /var/run/cdi, each by file name. */
struct cdi_set {
        struct cdi_spec *specs; /* a device of a later one wins */
        size_t n;
};
int cdi_load(int root, struct cdi_set *ret, struct err *e);
void cdi_set_done(struct cdi_set *s);

/* The last device of that name, and the spec that it is in; NULL: none. */
const struct cdi_device *cdi_find(const struct cdi_set *s, const char *name,
                                  const struct cdi_spec **ret_spec);

/* What a hook would do, when it is one that we do ourselves. */
enum cdi_deed {
        CDI_DEED_NONE,
        CDI_DEED_SYMLINKS,
        CDI_DEED_LDCACHE,
        CDI_DEED_NOTHING,
        CDI_DEED_COUNT
};
enum cdi_deed cdi_hook_deed(const struct cdi_hook *h);
/* The values of its option, "--link" or "--folder", in both spellings; borrowed; @fn may stop it. */
typedef int cdi_value_fn(void *arg, const char *value);
int cdi_hook_values(const struct cdi_hook *h, const char *option, cdi_value_fn *fn, void *arg);

/* As YAML, for other runtimes; links become hooks, which those run. */
int cdi_print(struct cdi_spec *s, struct strbuf *b, struct err *e);

/* Grow a list of edits; NULL: no memory.  The new element is zeroed. */
void *cdi_grow(void *list, size_t *n, size_t size);
