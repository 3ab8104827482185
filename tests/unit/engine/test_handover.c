/* test_handover.c - the way of GPUs through the checks after a lease, with a driver, a journal and a scrub
 * that do what each case says. */
#include "engine/gpu/handover.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/str.h"
#include "engine/gpu/gpuhost.h"
#include "engine/gpu/scrub_op.h"
#include "engine/journal/journal_gpu.h"

#define A "GPU-aaaaaaaa-0000-0000-0000-000000000000"
#define B "GPU-bbbbbbbb-0000-0000-0000-000000000000"

#define CLEAN "\"present\":true,\"processes\":[],\"memory_used_mib\":4,\"xid\":0,\"vbios\":\"1\""
#define BUSY                                                                                       \
        "\"present\":true,\"processes\":[{\"pid\":7}],\"memory_used_mib\":4,\"xid\":0,"            \
        "\"vbios\":\"1\""
#define XID "\"present\":true,\"processes\":[],\"memory_used_mib\":4,\"xid\":79,\"vbios\":\"1\""

/* Answers come on a later turn of the loop, or not before they are told to. */
struct scrub_op {
        char uuid[72];
        scrub_op_fn *done;
        void *arg;
        unsigned turns;
        bool over;
};

static struct world {
        sd_event *loop;
        struct instance inst;
        struct handover *h;
        struct gpu_fleet fleet;
        /* the driver's answers, one after the other; the last one stays. "A{..}B{..}" */
        const char *const *answers;
        size_t n_answers, asked;
        int errors; /* so many times -EPIPE first */
        gpuhost_check_fn *done;
        void *arg;
        char **uuids;
        bool hold; /* no answer until it is false */
        /* the journal */
        int quarantine_fails; /* so many times */
        int quarantine_r;
        char quarantined[256], remembered[256];
        struct scrub_op scrubs[2];
        size_t n_scrubs;
        int scrub_r;
        /* the result */
        json_t *receipts;
        unsigned dones;
} w;

/* ---- what handover.c calls ---- */

int gpuhost_check(struct gpuhost *g, char *const *uuids, gpuhost_check_fn *done, void *arg,
                  struct err *e)
{
        (void) g;
        assert_null(w.done);
        if (w.errors > 0) {
                w.errors--;
                return err_set(e, -EPIPE, "vmm-gpu is being started");
        }
        w.done = done;
        w.arg = arg;
        w.uuids = strv_dup(uuids);
        return 0;
}

const struct gpu_fleet *gpuhost_fleet(const struct gpuhost *g)
{
        (void) g;
        return &w.fleet;
}

const json_t *gpuhost_telemetry(const struct gpuhost *g)
{
        (void) g;
        return NULL;
}

int gpuhost_quarantine(struct gpuhost *g, const char *uuid, const char *reason, const char *cluster,
                       struct err *e)
{
        (void) g;
        assert_string_equal(cluster, "abc");
        if (w.quarantine_fails > 0) {
                w.quarantine_fails--;
                return err_set(e, -EIO, "the journal cannot be written");
        }
        if (w.quarantine_r < 0)
                return err_set(e, w.quarantine_r, "there is no such GPU");
        (void) snprintf(w.quarantined + strlen(w.quarantined),
                        sizeof w.quarantined - strlen(w.quarantined), "%.5s: %s;", uuid, reason);
        return 0;
}

int journal_gpu_get(struct journal *j, const char *uuid, struct journal_gpu *ret, struct err *e)
{
        (void) j;
        (void) e;
        *ret = (struct journal_gpu){ .memory_mib = 4, .vbios = "1" };
        (void) snprintf(ret->uuid, sizeof ret->uuid, "%s", uuid);
        return 1;
}

int journal_gpu_save(struct journal *j, const struct journal_gpu *row, struct err *e)
{
        (void) j;
        (void) e;
        (void) snprintf(w.remembered, sizeof w.remembered, "%.5s: %.200s", row->uuid,
                        row->quarantine);
        return 0;
}

int scrub_op_start(struct op_runner *r, const struct instance *inst, const struct gpu_driver *d,
                   const char *uuid, scrub_op_fn *done, void *arg, struct scrub_op **ret,
                   struct err *e)
{
        struct scrub_op *s = &w.scrubs[w.n_scrubs];

        (void) r;
        (void) inst;
        (void) d;
        (void) e;
        assert_true(w.n_scrubs < NELEM(w.scrubs));
        *s = (struct scrub_op){ .done = done, .arg = arg, .turns = (unsigned) w.n_scrubs * 2 };
        (void) snprintf(s->uuid, sizeof s->uuid, "%s", uuid);
        w.n_scrubs++;
        *ret = s;
        return 0;
}

struct scrub_op *scrub_op_cancel(struct scrub_op *s)
{
        if (s)
                s->over = true;
        return NULL;
}

/* ---- the world goes on ---- */

/* Of "A{..}B{..}" the rows that were asked for. */
static json_t *answer_to(const char *text)
{
        json_t *list = json_array();

        for (char *const *u = w.uuids; u && *u; u++) {
                const char key[] = { (*u)[4] == 'a' ? 'A' : 'B', '{', '\0' };
                const char *at = strstr(text, key), *end = at ? strstr(at, "}|") : NULL;
                AUTO(free) char *row = NULL;
                json_t *j;

                if (!at || !end)
                        continue;
                row = str_fmt("{\"uuid\":\"%s\",%.*s}", *u, (int) (end - at - 2), at + 2);
                j = json_loads(row, 0, NULL);
                assert_non_null(j);
                assert_int_equal(json_array_append_new(list, j), 0);
        }
        return list;
}

static void give_answer(void)
{
        const char *text = w.answers[w.asked < w.n_answers ? w.asked : w.n_answers - 1];
        AUTO(json_put) json_t *rows = answer_to(text);
        gpuhost_check_fn *done = w.done;

        w.asked++;
        w.done = NULL;
        w.uuids = strv_free(w.uuids);
        done(w.arg, rows, NULL);
}

static void turn(void)
{
        for (size_t i = 0; i < w.n_scrubs; i++) {
                struct scrub_op *s = &w.scrubs[i];
                struct scrub_result res = { .r = w.scrub_r };

                if (s->over || s->turns-- > 0)
                        continue;
                s->over = true;
                (void) snprintf(res.text, sizeof res.text, "%s", w.scrub_r < 0 ? "no" : "yes");
                s->done(s->arg, &res);
        }
        if (w.done && !w.hold)
                give_answer();
        assert_true(sd_event_run(w.loop, 5 * US_PER_MS) >= 0);
}

static void on_done(void *arg, const json_t *receipts)
{
        assert_ptr_equal(arg, &w);
        w.dones++;
        w.receipts = json_deep_copy(receipts);
}

static int setup(void **state)
{
        struct handover_spec spec = { .gpuhost = (struct gpuhost *) (void *) &w };

        (void) state;
        w = (struct world){ .fleet = { .n = 1 } };
        w.inst.conf.gpu_scrub = (char *) (uintptr_t) "off";
        w.fleet.gpus = calloc(1, sizeof *w.fleet.gpus);
        w.fleet.gpus[0].uuid = strdup("GPU-other");
        if (sd_event_new(&w.loop) < 0)
                return -1;
        spec.loop = w.loop;
        spec.inst = &w.inst;
        return handover_new(&spec, &w.h, NULL);
}

static int teardown(void **state)
{
        (void) state;
        w.h = handover_free(w.h);
        w.loop = sd_event_unref(w.loop);
        json_decref(w.receipts);
        free(w.fleet.gpus[0].uuid);
        free(w.fleet.gpus);
        (void) strv_free(w.uuids);
        return 0;
}

static struct handover_job *start(json_t *held)
{
        static char a[] = A, b[] = B;
        char *const uuids[] = { a, b, NULL };
        struct handover_job *job = NULL;

        if (json_object_size(held) == 0)
                assert_int_equal(handover_begin(w.h, uuids, held, NULL), 0);
        assert_int_equal(handover_check(w.h, "abc", held, NULL, on_done, &w, &job, NULL), 0);
        assert_int_equal(w.dones, 0); /* later */
        return job;
}

static void run(const char *const *answers, size_t n)
{
        uint64_t until = clock_mono_us() + 10 * US_PER_S;
        AUTO(json_put) json_t *held = json_object();

        w.answers = answers;
        w.n_answers = n;
        (void) start(held);
        while (!w.dones && clock_mono_us() < until)
                turn();
        assert_int_equal(w.dones, 1);
}

static bool receipt_ok(const char *uuid)
{
        size_t i;
        json_t *one;

        json_array_foreach(w.receipts, i, one)
        {
                if (str_eq(jsonx_str(one, "uuid"), uuid))
                        return json_is_true(json_object_get(one, "ok"));
        }
        fail_msg("no receipt of %s", uuid);
        return false;
}

static void test_clean(void **state)
{
        static const char *const answers[] = { "A{" CLEAN "}|B{" CLEAN "}|" };

        (void) state;
        run(answers, 1);
        assert_int_equal(json_array_size(w.receipts), 2);
        assert_true(receipt_ok(A) && receipt_ok(B));
        assert_int_equal(w.asked, 1);
}

static void test_waits(void **state)
{
        static const char *const answers[] = { "A{" BUSY "}|B{" CLEAN "}|", "A{" BUSY "}|",
                                               "A{" CLEAN "}|" };

        (void) state;
        w.errors = 2;
        run(answers, 3);
        assert_true(receipt_ok(A) && receipt_ok(B));
        assert_int_equal(w.asked, 3); /* the one that was clean is not asked about again */
        assert_string_equal(w.quarantined, "");
}

static void test_bad_and_gone(void **state)
{
        static const char *const answers[] = { "A{" XID "}|" };

        (void) state;
        w.quarantine_fails = 1; /* not over until it is written down */
        run(answers, 1);
        assert_false(receipt_ok(A));
        assert_false(receipt_ok(B));
        assert_non_null(strstr(w.quarantined, "GPU-a: the driver reported errors (Xid): 79;"));
        assert_non_null(strstr(w.quarantined, "GPU-b: the driver does not list it any more"));
}

/* One that gpuhost has never seen is remembered all the same. */
static void test_unknown(void **state)
{
        static const char *const answers[] = { "A{" CLEAN "}|" };

        (void) state;
        w.quarantine_r = -ENOENT;
        run(answers, 1);
        assert_non_null(strstr(w.remembered, "GPU-b: the driver does not list it any more"));
}

static void test_damaged(void **state)
{
        static const char *const answers[] = { "A{" CLEAN "}|B{" CLEAN "}|" };
        AUTO(json_put) json_t *held = json_pack("{s:n}", A);
        uint64_t until = clock_mono_us() + 5 * US_PER_S;

        (void) state;
        w.answers = answers;
        w.n_answers = 1;
        (void) start(held);
        while (!w.dones && clock_mono_us() < until)
                turn();
        assert_false(receipt_ok(A));
        assert_non_null(strstr(w.quarantined, "how it was before the lease is not known"));
}

/* Two that end their scrubs at different times: none is judged by an answer about the other. */
static void test_scrub(void **state)
{
        static const char *const answers[] = { "A{" CLEAN "}|B{" CLEAN "}|" };

        (void) state;
        w.inst.conf.gpu_scrub = (char *) (uintptr_t) "require";
        run(answers, 1);
        assert_true(receipt_ok(A) && receipt_ok(B));
        assert_int_equal(w.n_scrubs, 2);
        assert_true(w.asked >= 3); /* before, and once more after each */
}

static void test_scrub_modes(void **state)
{
        static const char *const answers[] = { "A{" CLEAN "}|B{" CLEAN "}|" };
        static const struct {
                const char *mode;
                int r;
                bool ok;
        } t[] = { { "auto", 0, true },           { "auto", -ENOENT, true }, /* there is no CUDA */
                  { "auto", -EIO, false },       { "auto", -EBADMSG, false },
                  { "require", -ENOENT, false }, { "require", -ETIMEDOUT, false } };

        for (size_t i = 0; i < NELEM(t); i++) {
                assert_int_equal(teardown(state), 0);
                assert_int_equal(setup(state), 0);
                w.inst.conf.gpu_scrub = (char *) (uintptr_t) t[i].mode;
                w.scrub_r = t[i].r;
                run(answers, 1);
                if (receipt_ok(A) != t[i].ok || receipt_ok(B) != t[i].ok)
                        fail_msg("row %zu", i);
        }
}

static void test_cancelled(void **state)
{
        static const char *const answers[] = { "A{" CLEAN "}|B{" CLEAN "}|" };
        AUTO(json_put) json_t *held = json_object();
        struct handover_job *job;

        (void) state;
        w.answers = answers;
        w.n_answers = 1;
        w.hold = true;
        job = start(held);
        for (int i = 0; i < 50 && !w.done; i++)
                turn();
        assert_non_null(w.done);
        assert_null(handover_cancel(job));
        w.hold = false;
        for (int i = 0; i < 10; i++) /* the answer comes to nobody */
                turn();
        assert_int_equal(w.dones, 0);
        assert_null(handover_cancel(start(held))); /* before its first turn */
        for (int i = 0; i < 10; i++)
                turn();
        assert_int_equal(w.dones, 0);
}

static void test_note(void **state)
{
        AUTO(json_put) json_t *held = json_object();
        static char a[] = A;
        char *const uuids[] = { a, NULL };

        (void) state;
        assert_int_equal(handover_begin(w.h, uuids, held, NULL), 0);
        assert_false(handover_note(held, "GPU-x", 48));
        assert_false(handover_note(held, A, 0));
        assert_true(handover_note(held, A, 48));
        assert_false(handover_note(held, A, 48)); /* known */
        assert_int_equal(json_array_size(json_object_get(json_object_get(held, A), "xids")), 1);
        /* a lease that goes on keeps what it has */
        assert_int_equal(handover_begin(w.h, uuids, held, NULL), 0);
        assert_int_equal(json_array_size(json_object_get(json_object_get(held, A), "xids")), 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_clean),       TEST(test_waits),     TEST(test_bad_and_gone),
                TEST(test_unknown),     TEST(test_damaged),   TEST(test_scrub),
                TEST(test_scrub_modes), TEST(test_cancelled), TEST(test_note),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
