/* test_image_catalog.c - rows of the image store on a real database: whose layers are shared, who
 * fetches what, what becomes of damaged and removed ones.  No files, no root. */
#include "engine/image/store_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "engine/image/scrub.h"

struct fixture {
        char dir[32];
        struct instance inst;
        struct image_store *store;
};

static int set_up(void **state)
{
        struct fixture *f = calloc(1, sizeof *f);

        if (!f)
                return -1;
        (void) strcpy(f->dir, "/tmp/test-catalog-XXXXXX");
        if (!mkdtemp(f->dir))
                return -1;
        f->inst.data_dir = f->dir;
        f->inst.data_fd = open(f->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        *state = f;
        return image_store_open(&f->inst, &f->store, NULL);
}

static int tear_down(void **state)
{
        struct fixture *f = *state;
        int r;

        (void) image_store_close(f->store);
        (void) fd_close(f->inst.data_fd);
        r = fd_rm_rf(AT_FDCWD, f->dir);
        free(f);
        return r;
}

static const struct catalog_layer facts = {
        .pack_bytes = 4096, .content_bytes = 300, .objects = 2, .index_sha = "i", .names_sha = "n"
};

static int64_t add_layer(struct image_store *s, const char *domain, const char *diff_id,
                         uint64_t threshold)
{
        const struct catalog_key k = { domain, diff_id, threshold };
        int64_t n = 0;

        assert_int_equal(catalog_begin(s, NULL), 0);
        assert_true(catalog_add_layer(s, &k, &facts, &n, NULL) >= 0);
        assert_int_equal(catalog_commit(s, NULL), 0);
        return n;
}

static bool has_layer(struct image_store *s, const char *domain, const char *diff_id,
                      uint64_t threshold)
{
        const struct catalog_key k = { domain, diff_id, threshold };
        struct catalog_layer l;
        int64_t n;
        int r = catalog_find_layer(s, &k, &n, &l, NULL);

        assert_true(r >= 0);
        if (r > 0)
                assert_memory_equal(&l, &facts, sizeof l);
        return r > 0;
}

static void test_domains(void **state)
{
        struct image_store *s = ((struct fixture *) *state)->store;

        (void) add_layer(s, "pull:a/b", "sha256:1", 7);
        assert_true(has_layer(s, "pull:a/b", "sha256:1", 7));
        assert_false(has_layer(s, "pull:a/c", "sha256:1", 7));
        assert_false(has_layer(s, "pull:a/b", "sha256:2", 7));
        assert_false(has_layer(s, "pull:a/b", "sha256:1", 0));
        (void) add_layer(s, "pull:a/b", "sha256:1", 0);
        assert_true(has_layer(s, "pull:a/b", "sha256:1", 0));
}

static char digest[] = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

static int64_t add_image(struct image_store *s, struct catalog_image *c, const char *name)
{
        int64_t id = 0;

        assert_int_equal(catalog_begin(s, NULL), 0);
        assert_true(catalog_add_image(s, c, &id, NULL) >= 0);
        assert_true(catalog_set_name(s, name, NULL, false, id, NULL) >= 0);
        assert_int_equal(catalog_commit(s, NULL), 0);
        return id;
}

#define NAME_A "docker.io/library/a:latest"
#define NAME_B "docker.io/library/b:latest"

static void test_images(void **state)
{
        struct image_store *s = ((struct fixture *) *state)->store;
        struct fetch_layer layer = { .digest = digest, .diff_id = digest };
        struct fetch_image image = {
                .digest = digest, .config_digest = digest, .layers = &layer, .n_layers = 1
        };
        const unsigned devices[] = { 1 };
        int64_t layers[2] = { add_layer(s, "pull:a", "sha256:1", 0),
                              add_layer(s, "pull:a", "sha256:2", 0) };
        struct catalog_image c = { .domain = "pull:a",
                                   .image = &image,
                                   .layers = layers,
                                   .n_layers = 2,
                                   .devices = devices,
                                   .n_devices = 1,
                                   .meta_sha = "m",
                                   .meta_bytes = 4096 };
        int64_t id = add_image(s, &c, NAME_A), found = 0;
        struct err e = { 0 };
        struct image i;

        assert_int_equal(catalog_find_image(s, &c, &found, NULL), 1);
        assert_int_equal(found, id);
        c.threshold = 1;
        assert_int_equal(catalog_find_image(s, &c, &found, NULL), 0);
        c.threshold = 0;
        assert_int_equal(image_find(s, "x", "a", &i, NULL), 0);
        assert_int_equal(i.id, id);
        assert_string_equal(i.meta_sha, "m");
        assert_int_equal(strv_len(i.devices), 1);
        assert_int_equal(strtoll(i.devices[0], NULL, 10), layers[1]);
        assert_int_equal(i.size_bytes, 600);
        assert_int_equal(i.shared_bytes, 0);
        assert_true(i.objects && !i.quarantined);
        image_done(&i);

        /* another image over the first of its layers */
        image.user = (char *) (uintptr_t) "other";
        c.n_layers = 1;
        c.n_devices = 0;
        (void) add_image(s, &c, NAME_B);
        assert_int_equal(image_find(s, "x", "a", &i, NULL), 0);
        assert_int_equal(i.shared_bytes, 300);
        image_done(&i);

        /* the second layer rots: `a` has it, `b` has not */
        assert_true(catalog_quarantine_layer(s, layers[1], "because", NULL) >= 0);
        assert_false(has_layer(s, "pull:a", "sha256:2", 0));
        assert_int_equal(image_find(s, "x", "a", &i, &e), -ENOENT);
        assert_non_null(strstr(e.msg, "because"));
        assert_int_equal(image_find(s, "x", "b", &i, NULL), 0);
        image_done(&i);
        image.user = NULL;
        assert_int_equal(catalog_find_image(s, &c, &found, NULL), 0);

        /* without its name it goes, and that layer with it */
        assert_int_equal(image_unname(s, "", true, NAME_A, NULL, NULL), 0);
        assert_int_equal(image_unswept(s, NULL), 1);
        assert_int_equal(catalog_begin(s, NULL), 0);
        assert_int_equal(catalog_sweep(s, NULL, NULL), 1);
        assert_int_equal(catalog_knows(s, CATALOG_LAYERS, "1", NULL), 1);
        assert_int_equal(catalog_knows(s, CATALOG_LAYERS, "2", NULL), 0);
        assert_int_equal(catalog_knows(s, CATALOG_IMAGES, "1", NULL), 0);
        assert_int_equal(catalog_knows(s, CATALOG_IMAGES, "2", NULL), 1);
        assert_int_equal(catalog_knows(s, CATALOG_IMAGES, "x", NULL), 0);
        assert_int_equal(catalog_commit(s, NULL), 0);
}

/* 1: a commit need not survive a power cut; 2: it does. */
static int synchronous(struct image_store *s)
{
        sqlite3_stmt *st = NULL;
        int v;

        assert_int_equal(sqlite3_prepare_v2(s->db, "PRAGMA synchronous", -1, &st, NULL), SQLITE_OK);
        assert_int_equal(sqlite3_step(st), SQLITE_ROW);
        v = sqlite3_column_int(st, 0);
        assert_int_equal(sqlite3_finalize(st), SQLITE_OK);
        return v;
}

static void test_claims(void **state)
{
        struct image_store *s = ((struct fixture *) *state)->store;
        const struct catalog_key one = { "d", "1", 0 }, two = { "d", "2", 0 };
        int64_t turn = 0;
        char op[16];

        assert_int_equal(catalog_begin_lazily(s, NULL), 0);
        assert_int_equal(catalog_claim_owner(s, &one, op, &turn, NULL), 0);
        assert_int_equal(catalog_claim_turn(s, &turn, NULL), 0);
        assert_int_equal(turn, 1);
        assert_int_equal(catalog_claim(s, &one, "first", turn, NULL), 0);
        assert_int_equal(catalog_claim_turn(s, &turn, NULL), 0);
        assert_int_equal(turn, 2);
        assert_int_equal(catalog_claim(s, &two, "second", turn, NULL), 0);
        assert_int_equal(synchronous(s), 1);
        assert_int_equal(catalog_commit(s, NULL), 0);
        assert_int_equal(synchronous(s), 2);
        assert_int_equal(catalog_begin_lazily(s, NULL), 0);
        catalog_rollback(s);
        assert_int_equal(synchronous(s), 2);
        assert_int_equal(catalog_claim_owner(s, &one, op, &turn, NULL), 1);
        assert_string_equal(op, "first");
        assert_int_equal(turn, 1);
        assert_int_equal(catalog_claim(s, &one, "second", 2, NULL), 0); /* the first is dead */
        assert_int_equal(catalog_unclaim(s, "second", NULL), 0);
        assert_int_equal(catalog_claim_owner(s, &one, op, &turn, NULL), 0);
        assert_int_equal(catalog_claim_owner(s, &two, op, &turn, NULL), 0);
}

static void test_locks(void **state)
{
        struct image_store *s = ((struct fixture *) *state)->store;
        struct staging g;
        int fd;

        assert_int_equal(staging_begin(s, &g, NULL), 0);
        assert_true(staging_is_held(s, g.name));
        assert_false(staging_is_held(s, "other"));
        assert_false(staging_is_held(s, ".."));
        fd = staging_dir(&g, "x", NULL);
        assert_true(fd >= 0);
        (void) fd_close(fd);
        staging_drop(&g, "x");
        assert_int_equal(faccessat(g.fd, "x", F_OK, 0), -1);
        staging_end(&g);
        assert_false(staging_is_held(s, g.name));

        /* the collection waits for publishers, but not for ever */
        assert_int_equal(mkdirat(s->objects_fd, "ab", 0700), 0);
        fd = collect_hold(s, NULL);
        assert_true(fd >= 0);
        assert_int_equal(collect_objects(s, NULL), 0);
        assert_int_equal(faccessat(s->objects_fd, "ab", F_OK, 0), 0);
        (void) fd_close(fd);
        assert_int_equal(collect_objects(s, NULL), 0);
        assert_int_equal(faccessat(s->objects_fd, "ab", F_OK, 0), -1);
}

/* An image of @domain that has a name of account x; its number. */
static int64_t add_image_of_x(struct image_store *s, const char *domain)
{
        struct fetch_layer layer = { .digest = digest, .diff_id = digest };
        struct fetch_image image = {
                .digest = digest, .config_digest = digest, .layers = &layer, .n_layers = 1
        };
        int64_t layers[1] = { add_layer(s, domain, "sha256:1", 0) }, id = 0;
        struct catalog_image c = { .domain = domain,
                                   .image = &image,
                                   .layers = layers,
                                   .n_layers = 1,
                                   .meta_sha = "m",
                                   .meta_bytes = 4096 };

        assert_int_equal(catalog_begin(s, NULL), 0);
        assert_true(catalog_add_image(s, &c, &id, NULL) >= 0);
        assert_true(catalog_set_name(s, NAME_A, "x", false, id, NULL) >= 0);
        assert_int_equal(catalog_commit(s, NULL), 0);
        return id;
}

/* Whose pull with credentials it was finds it, and only who asks for such; uploads and what all may have
 * are found by both. */
static void test_private(void **state)
{
        struct image_store *s = ((struct fixture *) *state)->store;
        int64_t id = add_image_of_x(s, "pull:a");
        struct image i;

        for (int again = 0; again < 2; again++) { /* from the database, then from memory */
                assert_int_equal(image_find(s, "x", "a", &i, NULL), -ENOENT);
                assert_int_equal(image_find_private(s, "y", "a", &i, NULL), -ENOENT);
                assert_int_equal(image_find_private(s, "x", "a", &i, NULL), 0);
                assert_true(i.is_private && !i.is_public);
                image_done(&i);
        }
        /* the same for all: who has one of its own prefers it, if it asks */
        assert_int_equal(catalog_begin(s, NULL), 0);
        assert_true(catalog_set_name(s, NAME_A, NULL, false, id, NULL) >= 0);
        assert_int_equal(catalog_commit(s, NULL), 0);
        recents_forget(s);
        assert_int_equal(image_find(s, "x", "a", &i, NULL), 0);
        assert_false(i.is_private);
        image_done(&i);
        assert_int_equal(image_find_private(s, "x", "a", &i, NULL), 0);
        assert_true(i.is_private);
        image_done(&i);
        assert_int_equal(image_find_private(s, "y", "a", &i, NULL), 0);
        assert_false(i.is_private);
        image_done(&i);
}

/* An upload is its account's without anybody's proof. */
static void test_uploads_are_not_private(void **state)
{
        struct image_store *s = ((struct fixture *) *state)->store;
        struct image i;

        (void) add_image_of_x(s, "import:x");
        assert_int_equal(image_find(s, "x", "a", &i, NULL), 0);
        assert_false(i.is_private);
        image_done(&i);
        assert_int_equal(image_find(s, "y", "a", &i, NULL), -ENOENT);
}

static void test_scrub_due(void **state)
{
        static const struct {
                uint64_t total, period_us, bytes, rate;
        } cases[] = {
                { 0, 604800 * US_PER_S, 1, 32 << 20 },
                { 604800ULL << 20, 604800 * US_PER_S, (60 << 20) + 1, 32 << 20 },
                { 604800ULL << 30, 604800 * US_PER_S, (60ULL << 30) + 1, 2ULL << 30 },
                { 1ULL << 30, 60 * US_PER_S, (1ULL << 30) + 1, (2ULL << 30) / 60 },
                { 1ULL << 40, US_PER_S, (1ULL << 40) + 1, 2ULL << 40 },
                { 1ULL << 45, 1, (1ULL << 45) + 1, 1ULL << 50 },
                { INT64_MAX, 1, (1ULL << 63), 1ULL << 50 },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(cases); i++) {
                struct image_scrub x = { 0 };

                image_scrub_due(&x, cases[i].total, cases[i].period_us);
                assert_int_equal(x.bytes, cases[i].bytes);
                assert_int_equal(x.rate, cases[i].rate);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_domains, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_images, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_private, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_uploads_are_not_private, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_claims, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_locks, set_up, tear_down),
                cmocka_unit_test(test_scrub_due),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
