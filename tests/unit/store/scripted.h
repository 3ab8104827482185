/* scripted.h - layers from a line of words, for the tests of the store.
 *
 * A word is a letter and a path, "." for the root: d directory, f file (its size is the length of its
 * path), o object, l symbolic link, p fifo, h hard link (hPATH>TARGET), w whiteout, q opaque mark. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "store/layer_log.h"
#include "store/layer_objects.h"

#define SCRIPT_PACK 4096U

static inline int script_add(struct layer_log *l, char kind, const char *path, uint32_t *objects,
                             struct err *e)
{
        struct layer_entry n = { .type = LAYER_DIR, .mode = 0750, .uid = 7, .mtime_s = 5 };
        const uint32_t chunk = 0;

        if (kind == 'f' || kind == 'o') {
                n.type = kind == 'f' ? LAYER_FILE : LAYER_OBJECT;
                n.size = strlen(path);
                n.n_chunks = kind == 'f';
                n.object = kind == 'o' ? (*objects)++ : 0;
        } else if (kind == 'l') {
                n.type = LAYER_SYMLINK;
                n.target = path;
                n.size = strlen(path);
        } else if (kind == 'p') {
                n.type = LAYER_FIFO;
        }
        return layer_log_add(l, path, &n, &chunk, e);
}

static inline int script_word(struct layer_log *l, char *word, uint32_t *objects, struct err *e)
{
        char *path = str_eq(word + 1, ".") ? word + 2 : word + 1;
        char *target = strchr(path, '>');

        switch (*word) {
        case 'w':
                return layer_log_whiteout(l, path, e);
        case 'q':
                return layer_log_opaque(l, path, e);
        case 'h':
                *target = '\0';
                return layer_log_link(l, path, target + 1, e);
        default:
                return script_add(l, *word, path, objects, e);
        }
}

struct scripted {
        uint8_t *p; /* heap */
        size_t len;
};

/* Names for the objects of @x, made up; heap, in *@ret. */
static inline void script_attach(struct layer_index *x, uint8_t **ret)
{
        size_t len = 16 + 40UL * x->n_objects;
        uint8_t *p = calloc(1, len);

        memcpy(p, "hvmmobj1", 8);
        memcpy(p + 8, &x->n_objects, 4); /* the build machine is little-endian */
        for (uint32_t i = 0; i < x->n_objects; i++) {
                uint64_t size = layer_index_object(x, i);

                memset(p + 16 + 40UL * i, size > 0 ? 0xa0 + (int) i : 0, 32);
                memcpy(p + 48 + 40UL * i, &size, 8);
        }
        if (layer_objects_attach(x, p, len, NULL) < 0)
                abort();
        *ret = p;
}

/* The index of the words in @text. */
static inline int script_index(const char *text, struct scripted *ret, struct err *e)
{
        const struct layer_log_limits limits = { 0 };
        struct layer_totals totals = { .pack_bytes = SCRIPT_PACK, .threshold = 1 };
        AUTO(layer_log_free) struct layer_log *l = NULL;
        AUTO(fd) int fd = memfd_create("index", MFD_CLOEXEC);
        AUTO(free) char *copy = strdup(text);
        char *rest = copy, *word;
        uint32_t objects = 0;
        struct stat st;
        int r = layer_log_new(-EBADF, &limits, &l, e);

        while (r >= 0 && (word = strsep(&rest, " ")))
                if (*word)
                        r = script_word(l, word, &objects, e);
        if (r >= 0)
                r = layer_log_finish(l, &totals, fd, e);
        if (r < 0)
                return r;
        (void) fstat(fd, &st);
        ret->len = (size_t) st.st_size;
        ret->p = malloc(ret->len);
        return pread(fd, ret->p, ret->len, 0) == st.st_size ? 0 : -EIO;
}
