/* Claim records, the choice of a number, and an index that was left behind by a kill. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/claim/claim_priv.h"
#include "model/limits.h"

#define Q CLAIM_QUARANTINE_US

static void test_records(void **state)
{
        static const struct {
                const char *text;
                int r;
        } t[] = {
                { "inst0001 abc 7\n", 0 },       { "inst0001 p-1-2 18446744073709551615\n", 0 },
                { "in_st001 a_b_-c 1\n", 0 },    { "_ - 0\n", 0 },
                { "inst0001 a.b 7\n", -EINVAL }, { "inst0001 abc 18446744073709551616\n", -ERANGE },
                { "inst0001 abc\n", -EINVAL },   { "", -EINVAL },
                { "inst0001 ABC 7\n", -EINVAL }, { "inst0001 abc -7\n", -EINVAL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct claim_rec rec;
                char back[160];
                int r = claim_rec_parse(t[i].text, &rec);

                if (t[i].r == -ERANGE)
                        assert_true(r < 0);
                else
                        assert_int_equal(r, t[i].r);
                if (r < 0)
                        continue;
                assert_true(claim_rec_format(&rec, back, sizeof back) > 0);
                assert_string_equal(back, t[i].text);
        }
}

static void test_pick(void **state)
{
        static const struct {
                struct claim_cell cell[5]; /* 1..4 count */
                uint64_t now;
                uint32_t want;
        } t[] = {
                { { { 0 } }, 5, 1 },
                { { { 0 }, { 9, 0 } }, 5, 2 },
                { { { 0 }, { 0, 100 } }, 101, 2 },     /* 1 rests, 2 was never used */
                { { { 0 }, { 0, 100 } }, 100 + Q, 1 }, /* rested */
                { { { 0 }, { 9, 0 }, { 0, 7 }, { 0, 5 }, { 0, 6 } }, 8, 3 }, /* longest at rest */
                { { { 0 }, { 9, 0 }, { 9, 0 }, { 9, 0 }, { 9, 0 } }, 8, 0 },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct claim_cell cell[5];
                struct claim_table table = { .first = 1, .last = 4, .cell = cell };

                memcpy(cell, t[i].cell, sizeof cell);
                assert_int_equal(claim_pick(&table, t[i].now), t[i].want);
        }
}

/* --- over a real directory; needs no root -------------------------------------------------- */

struct world {
        char dir[40];
        int fd;
        struct claim_table t;
};

static int world_up(void **state)
{
        struct world *w = calloc(1, sizeof *w);

        if (!w)
                return -1;
        (void) snprintf(w->dir, sizeof w->dir, "/tmp/test-claim-XXXXXX");
        if (!mkdtemp(w->dir))
                return -1;
        w->fd = open(w->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        *state = w;
        return claim_table_open(w->fd, CLAIM_KIND_SLOT, &w->t, NULL);
}

static int world_down(void **state)
{
        struct world *w = *state;

        claim_table_done(&w->t);
        (void) close(w->fd);
        (void) fd_rm_rf(AT_FDCWD, w->dir);
        free(w);
        return 0;
}

static const struct claim_rec one = { "inst0001", "abc", 3 }, two = { "inst0002", "xyz", 1 };

static void test_take_and_drop(void **state)
{
        struct world *w = *state;
        struct claim_rec got;

        assert_int_equal(claim_table_take(&w->t, 5, &one, false), 0);
        assert_int_equal(claim_table_take(&w->t, 5, &two, false), -EEXIST);
        assert_int_equal(claim_table_read(&w->t, 5, &got), 0);
        assert_string_equal(got.cluster, "abc");
        assert_int_equal(got.generation, 3);
        assert_int_equal(claim_table_take(&w->t, 5, &two, true), 0);
        assert_int_equal(w->t.cell[5].holder, claim_hash("inst0002", "xyz"));
        assert_int_equal(claim_table_drop(&w->t, 5, 77), 0);
        assert_int_equal(claim_table_drop(&w->t, 5, 77), 0);
        assert_int_equal(claim_table_read(&w->t, 5, &got), -ENOENT);
        assert_int_equal(w->t.cell[5].holder, 0);
        assert_int_equal(w->t.cell[5].released_us, 77);
}

/* Killed after the file appeared, before the index knew. */
static void test_file_without_index(void **state)
{
        struct world *w = *state;

        assert_int_equal(claim_table_take(&w->t, 1, &one, false), 0);
        w->t.cell[1].holder = 0;
        assert_int_equal(claim_pick(&w->t, 0), 1);
        assert_int_equal(claim_table_take(&w->t, 1, &two, false), -EEXIST);
        assert_int_equal(w->t.cell[1].holder, claim_hash("inst0001", "abc"));
        assert_int_equal(claim_pick(&w->t, 0), 2);
}

/* The index was lost or is older than the files: the check at start mends both ways. */
static void test_check(void **state)
{
        struct world *w = *state;
        AUTO(fd) int junk = -EBADF;

        assert_int_equal(claim_table_take(&w->t, 1, &one, false), 0);
        assert_int_equal(claim_table_take(&w->t, LIMIT_SLOTS, &two, false), 0);
        memset(w->t.cell, 0, (LIMIT_SLOTS + 1) * sizeof *w->t.cell);
        w->t.cell[9].holder = 4711; /* no such file */
        junk = openat(w->t.dir, "2", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_true(junk >= 0);
        assert_int_equal(claim_table_check(&w->t, NULL), 0);
        assert_int_equal(w->t.cell[1].holder, claim_hash("inst0001", "abc"));
        assert_int_equal(w->t.cell[LIMIT_SLOTS].holder, claim_hash("inst0002", "xyz"));
        assert_int_equal(w->t.cell[9].holder, 0);
        assert_true(w->t.cell[2].holder != 0); /* unreadable means taken */
        assert_int_equal(claim_pick(&w->t, 0), 3);
}

static void test_settings(void **state)
{
        static const struct {
                const char *text;
                int r;
                size_t n;
        } t[] = {
                { "saved 0\nholder a\nholder b\n", 0, 2 },
                { "saved \n", 0, 0 },
                { "nonsense\n", -EINVAL, 0 },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(free) char *back = NULL;
                struct claim_setting s;
                int r = claim_setting_parse(t[i].text, &s);

                assert_int_equal(r, t[i].r);
                if (r < 0)
                        continue;
                assert_int_equal(s.n, t[i].n);
                assert_int_equal(claim_setting_format(&s, &back), 0);
                assert_string_equal(back, t[i].text);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_records),
                cmocka_unit_test(test_pick),
                cmocka_unit_test(test_settings),
                cmocka_unit_test_setup_teardown(test_take_and_drop, world_up, world_down),
                cmocka_unit_test_setup_teardown(test_file_without_index, world_up, world_down),
                cmocka_unit_test_setup_teardown(test_check, world_up, world_down),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
