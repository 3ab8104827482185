/* image_build.c - see image_build.h.  Runs in the image builder's sandbox. */
#include "store/image_build.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

struct builder {
        struct layer_index layers[MERGE_LAYERS_MAX];
        void *maps[MERGE_LAYERS_MAX];
        size_t lens[MERGE_LAYERS_MAX], n;
};

static struct builder *builder_free(struct builder *b)
{
        if (!b)
                return NULL;
        for (size_t i = 0; i < b->n; i++)
                (void) munmap(b->maps[i], b->lens[i]);
        free(b);
        return NULL;
}

DEFINE_AUTO(struct builder *, builder_free)

static int add_layer(struct builder *b, int fd, struct err *e)
{
        struct stat st;
        void *p;

        if (fstat(fd, &st) < 0)
                return err_errno(e, -errno, "a layer's index");
        if (!S_ISREG(st.st_mode) || st.st_size < LAYER_HEADER_BYTES ||
            (uint64_t) st.st_size > LAYER_INDEX_BYTES_MAX)
                return err_set(e, -EBADMSG, "a layer's index is none");
        p = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
                return err_errno(e, -errno, "a layer's index");
        b->maps[b->n] = p;
        b->lens[b->n++] = (size_t) st.st_size;
        return layer_index_open(p, (size_t) st.st_size, &b->layers[b->n - 1], e);
}

int image_build(const int *indexes, size_t n, int scratch, int out, struct erofs_totals *ret,
                struct err *e)
{
        AUTO(builder_free) struct builder *b = calloc(1, sizeof *b);
        AUTO(merge_done) struct merge m = { 0 };
        int r = 0;

        if (!b)
                return err_set(e, -ENOMEM, "out of memory");
        if (n == 0 || n > MERGE_LAYERS_MAX)
                return err_set(e, -EINVAL, "an image of %zu layers", n);
        for (size_t i = 0; r >= 0 && i < n; i++) {
                r = add_layer(b, indexes[i], e);
                if (r < 0)
                        r = err_wrap(e, r, "layer %zu", i + 1);
        }
        if (r >= 0)
                r = merge_layers(b->layers, n, scratch, &m, e);
        return r < 0 ? r : erofs_write(&m, out, ret, e);
}
