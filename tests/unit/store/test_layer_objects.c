/* test_layer_objects.c - what a publisher makes of the objects that a fetcher left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>

#include "scripted.h"
#include "store/bytes.h"

#define ABC "\xba\x78\x16\xbf\x8f\x01\xcf\xea\x41\x41\x40\xde\x5d\xae\x22\x23"

struct world {
        char path[64];
        int dir;
        struct scripted s;
        struct layer_index x;
};

/* Two objects of three bytes, and between them one that was replaced. */
static void world_init(struct world *w)
{
        (void) snprintf(w->path, sizeof w->path, "/tmp/test-objects-XXXXXX");
        assert_non_null(mkdtemp(w->path));
        w->dir = open(w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_int_equal(script_index("oaaa obbb oddd fbbb", &w->s, NULL), 0);
        assert_int_equal(layer_index_open(w->s.p, w->s.len, &w->x, NULL), 0);
        assert_int_equal(w->x.n_objects, 3);
        assert_int_equal(fd_replace_file(w->dir, "0", "abc", 3, 0600, false), 0);
        assert_int_equal(fd_replace_file(w->dir, "1", "gone", 4, 0600, false), 0);
        assert_int_equal(fd_replace_file(w->dir, "2", "xyz", 3, 0600, false), 0);
}

static void world_done(struct world *w)
{
        for (int i = 0; i < 4; i++) {
                char name[2] = { (char) ('0' + i), '\0' };

                (void) unlinkat(w->dir, name, 0);
        }
        (void) close(w->dir);
        assert_int_equal(rmdir(w->path), 0);
        free(w->s.p);
}

static void test_hash_put_attach(void **state)
{
        static const uint8_t zeros[LAYER_SHA_BYTES];
        AUTO(fd) int fd = memfd_create("names", MFD_CLOEXEC);
        AUTO(sink_free) struct sink *s = NULL;
        uint8_t digests[3][LAYER_SHA_BYTES], file[16 + 3 * 40 + 1] = { 0 };
        size_t len = sizeof file - 1;
        struct world w;

        (void) state;
        world_init(&w);
        assert_int_equal(layer_objects_hash(&w.x, w.dir, digests, NULL), 0);
        assert_memory_equal(digests[0], ABC, 16);
        assert_memory_equal(digests[1], zeros, sizeof zeros);
        assert_int_equal(sink_new(fd, &s, NULL), 0);
        layer_objects_put(s, &w.x, (const uint8_t(*)[LAYER_SHA_BYTES]) digests);
        assert_int_equal(sink_flush(s, NULL), 0);
        assert_int_equal(pread(fd, file, sizeof file, 0), (ssize_t) len);
        assert_int_equal(layer_objects_attach(&w.x, file, len, NULL), 0);
        assert_memory_equal(layer_objects_digest(&w.x, 0), ABC, 16);
        assert_memory_equal(layer_objects_digest(&w.x, 2), digests[2], LAYER_SHA_BYTES);

        assert_int_equal(layer_objects_attach(&w.x, file, len - 1, NULL), -EBADMSG);
        assert_int_equal(layer_objects_attach(&w.x, file, len + 1, NULL), -EBADMSG);
        for (size_t i = 0; i < 16; i++) { /* the header */
                file[i] ^= 1;
                assert_int_equal(layer_objects_attach(&w.x, file, len, NULL), -EBADMSG);
                file[i] ^= 1;
        }
        file[16 + 32] ^= 1; /* the size of the first */
        assert_int_equal(layer_objects_attach(&w.x, file, len, NULL), -EBADMSG);
        file[16 + 32] ^= 1;
        file[16 + 40] = 1; /* a name for the one that is gone */
        assert_int_equal(layer_objects_attach(&w.x, file, len, NULL), -EBADMSG);
        file[16 + 40] = 0;
        memset(file + 16, 0, 32); /* none for one that is there */
        assert_int_equal(layer_objects_attach(&w.x, file, len, NULL), -EBADMSG);
        world_done(&w);
}

static void test_what_is_no_object(void **state)
{
        uint8_t digests[3][LAYER_SHA_BYTES];
        struct world w;

        (void) state;
        world_init(&w);
        assert_int_equal(fd_replace_file(w.dir, "2", "wxyz", 4, 0600, false), 0);
        assert_int_equal(layer_objects_hash(&w.x, w.dir, digests, NULL), -EBADMSG);
        assert_int_equal(unlinkat(w.dir, "2", 0), 0);
        assert_int_equal(layer_objects_hash(&w.x, w.dir, digests, NULL), -EBADMSG);
        assert_int_equal(symlinkat("0", w.dir, "2"), 0);
        assert_int_equal(layer_objects_hash(&w.x, w.dir, digests, NULL), -EBADMSG);
        assert_int_equal(unlinkat(w.dir, "2", 0), 0);
        assert_int_equal(linkat(w.dir, "0", w.dir, "2", 0), 0);
        assert_int_equal(layer_objects_hash(&w.x, w.dir, digests, NULL), -EBADMSG);
        assert_int_equal(unlinkat(w.dir, "2", 0), 0);
        assert_int_equal(mkfifoat(w.dir, "2", 0600), 0);
        assert_int_equal(layer_objects_hash(&w.x, w.dir, digests, NULL), -EBADMSG);
        world_done(&w);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_hash_put_attach),
                cmocka_unit_test(test_what_is_no_object),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
