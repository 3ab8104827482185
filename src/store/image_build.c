/* image_build.c - see image_build.h.  Runs in the image builder's sandbox. */
#include "store/image_build.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "store/layer_objects.h"

struct builder {
        struct layer_index layers[MERGE_LAYERS_MAX];
        struct {
                void *p;
                size_t len;
        } maps[2 * MERGE_LAYERS_MAX];
        size_t n_maps;
};

static struct builder *builder_free(struct builder *b)
{
        if (!b)
                return NULL;
        for (size_t i = 0; i < b->n_maps; i++)
                (void) munmap(b->maps[i].p, b->maps[i].len);
        free(b);
        return NULL;
}

DEFINE_AUTO(struct builder *, builder_free)

static int map_file(struct builder *b, int fd, uint8_t **ret, size_t *ret_len, struct err *e)
{
        struct stat st;
        void *p;

        if (fstat(fd, &st) < 0)
                return err_errno(e, -errno, "reading the image store");
        if (!S_ISREG(st.st_mode) || st.st_size == 0 ||
            (uint64_t) st.st_size > LAYER_INDEX_BYTES_MAX)
                return err_set(e, -EBADMSG, "its index is none");
        p = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
                return err_errno(e, -errno, "reading the image store");
        b->maps[b->n_maps].p = p;
        b->maps[b->n_maps++].len = (size_t) st.st_size;
        *ret = p;
        *ret_len = (size_t) st.st_size;
        return 0;
}

static int add_layer(struct builder *b, size_t i, int index, int objects, struct err *e)
{
        uint8_t *p = NULL;
        size_t len = 0;
        int r = map_file(b, index, &p, &len, e);

        if (r >= 0)
                r = layer_index_open(p, len, &b->layers[i], e);
        if (r < 0 || objects < 0)
                return r;
        r = map_file(b, objects, &p, &len, e);
        return r < 0 ? r : layer_objects_attach(&b->layers[i], p, len, e);
}

int image_build(const int *indexes, const int *objects, size_t n, int scratch, int out,
                struct erofs_totals *ret, struct err *e)
{
        AUTO(builder_free) struct builder *b = calloc(1, sizeof *b);
        AUTO(merge_done) struct merge m = { 0 };
        int r = 0;

        if (!b)
                return err_set(e, -ENOMEM, "out of memory");
        if (n == 0 || n > MERGE_LAYERS_MAX)
                return err_set(e, -EINVAL, "an image of %zu layers", n);
        for (size_t i = 0; r >= 0 && i < n; i++) {
                r = add_layer(b, i, indexes[i], objects[i], e);
                if (r < 0)
                        r = err_wrap(e, r, "layer %zu", i + 1);
        }
        if (r >= 0)
                r = merge_layers(b->layers, n, scratch, &m, e);
        return r < 0 ? r : erofs_write(&m, out, ret, e);
}
