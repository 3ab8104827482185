/* test_handover_judge.c - the checks after a lease, one row per thing that can be wrong. */
#include "engine/gpu/handover_judge.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "base/jsonx.h"
#include "base/mem.h"

/* Single quotes for double ones, to be readable. */
static json_t *parse(const char *text)
{
        char copy[1024];
        size_t n = strlen(text);
        json_t *j;

        assert_true(n < sizeof copy);
        for (size_t i = 0; i <= n; i++)
                copy[i] = text[i] == '\'' ? '"' : text[i];
        j = json_loads(copy, 0, NULL);
        assert_non_null(j);
        return j;
}

/* @changes over what a sound GPU says. */
static json_t *merged(const char *sound, const char *changes)
{
        json_t *j = parse(sound), *more = parse(changes);

        assert_int_equal(json_object_update(j, more), 0);
        json_decref(more);
        return j;
}

#define SOUND_BEFORE                                                                               \
        "{'began_us':1,'memory_mib':450,'ecc_uncorrected':0,'xid':0,'vbios':'92.00','inforom':'G1'}"
#define SOUND_NOW                                                                                   \
        "{'present':true,'processes':[],'memory_used_mib':453,'ecc_uncorrected':0,'remap_pending':" \
        "false,'remap_failed':false,'retired_pending':false,'xid':0,'vbios':'92.00','inforom':'G1'}"

static void judge(const char *before, const char *now, struct handover_finding *f)
{
        AUTO(json_put) json_t *bj = merged(SOUND_BEFORE, before);
        AUTO(json_put) json_t *nj = merged(SOUND_NOW, now);
        struct handover_before b;
        struct handover_now n;
        struct err e = { 0 };

        if (handover_before_decode(bj, &b, &e) < 0 || handover_now_decode(nj, &n, &e) < 0)
                fail_msg("%s", e.msg);
        handover_judge(&b, &n, f);
}

static void test_judge(void **state)
{
        static const struct {
                const char *before, *now;
                enum handover_verdict v;
                const char *says; /* in the reason; NULL: there is none */
        } t[] = {
                { "{}", "{}", HV_CLEAN, NULL },
                /* processes */
                { "{}", "{'processes':[{'pid':77,'memory_mib':5}]}", HV_WAIT,
                  "processes still hold it: 1, one is pid 77" },
                /* memory: tolerance 64 MiB over what it was when first seen idle */
                { "{}", "{'memory_used_mib':514}", HV_CLEAN, NULL },
                { "{}", "{'memory_used_mib':515}", HV_WAIT, "515 MiB, baseline 450" },
                { "{}", "{'memory_used_mib':0}", HV_CLEAN, NULL },
                { "{}", "{'memory_used_mib':null}", HV_BAD, "does not say" },
                { "{'memory_mib':null}", "{'memory_used_mib':1024}", HV_CLEAN, NULL },
                { "{'memory_mib':null}", "{'memory_used_mib':1025}", HV_WAIT, "never seen idle" },
                { "{}", "{'memory_used_mib':-5}", HV_BAD, "does not say" },
                /* ECC: new ones alone */
                { "{}", "{'ecc_uncorrected':1}", HV_BAD, "1 uncorrected, 0 before" },
                { "{'ecc_uncorrected':3}", "{'ecc_uncorrected':3}", HV_CLEAN, NULL },
                { "{'ecc_uncorrected':3}", "{'ecc_uncorrected':4}", HV_BAD, "4 uncorrected, 3" },
                { "{'ecc_uncorrected':3}", "{'ecc_uncorrected':0}", HV_CLEAN, NULL },
                { "{'ecc_uncorrected':3}", "{'ecc_uncorrected':1}", HV_BAD, "1 uncorrected" },
                { "{'ecc_uncorrected':null}", "{'ecc_uncorrected':null}", HV_CLEAN, NULL },
                { "{'ecc_uncorrected':null}", "{'ecc_uncorrected':2}", HV_BAD, "2 uncorrected" },
                { "{}", "{'ecc_uncorrected':null}", HV_BAD, "not counted any more" },
                /* rows and pages */
                { "{}", "{'remap_pending':true}", HV_BAD, "waits to be remapped" },
                { "{}", "{'remap_failed':true}", HV_BAD, "could not be remapped" },
                { "{}", "{'retired_pending':true}", HV_BAD, "waits to be retired" },
                /* Xid: by the driver's last one, and by events while vmm-gpu listened */
                { "{}", "{'xid':79}", HV_BAD, "(Xid): 79" },
                { "{'xid':79}", "{'xid':79}", HV_CLEAN, NULL },
                { "{'xid':13}", "{'xid':48}", HV_BAD, "48" },
                { "{'xids':[48]}", "{}", HV_BAD, "48" },
                { "{'xids':[13,43]}", "{'xid':45}", HV_CLEAN, NULL },
                { "{'xids':[13]}", "{'xid':94}", HV_BAD, "94, 13 (of a program)" },
                { "{'xids':[8,13,31,32,43,45,68,69]}", "{'xid':79}", HV_BAD, "79" },
                /* versions */
                { "{}", "{'vbios':'92.01'}", HV_BAD, "VBIOS is another one: 92.01, 92.00 when" },
                { "{}", "{'vbios':null}", HV_BAD, "not known, 92.00 when" },
                { "{'vbios':null}", "{}", HV_CLEAN, NULL },
                { "{'vbios':null}", "{'vbios':null}", HV_CLEAN, NULL },
                { "{}", "{'inforom':'G1 '}", HV_BAD, "InfoROM is another one" },
                /* gone */
                { "{}", "{'present':false}", HV_BAD, "fallen off the bus" },
                { "{}", "{'present':false,'processes':null}", HV_BAD, "fallen off the bus" },
                /* what waiting cannot mend comes before what it can */
                { "{}", "{'processes':[{'pid':1}],'xid':79}", HV_BAD, "79" },
                { "{}", "{'processes':[{'pid':1}],'memory_used_mib':9000}", HV_WAIT, "processes" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct handover_finding f;

                judge(t[i].before, t[i].now, &f);
                if (f.verdict != t[i].v || (t[i].says ? !strstr(f.reason, t[i].says) : *f.reason))
                        fail_msg("row %zu: %d, '%s'", i, (int) f.verdict, f.reason);
        }
}

/* Bytes of a GPU end up on operators' terminals. */
static void test_hostile_text(void **state)
{
        struct handover_finding f;

        (void) state;
        judge("{}", "{'vbios':'\\u001b[2J\\u00e4'}", &f);
        assert_int_equal(f.verdict, HV_BAD);
        assert_null(strchr(f.reason, 033));
        for (const char *c = f.reason; *c; c++)
                assert_in_range((unsigned char) *c, ' ', '~');
}

static void test_refused(void **state)
{
        static const char *const bad[] = { "{}", "{'present':1}", "{'present':true}",
                                           "{'present':true,'processes':7}" };
        struct handover_now n;
        struct handover_before b;

        (void) state;
        for (size_t i = 0; i < NELEM(bad); i++) {
                AUTO(json_put) json_t *j = parse(bad[i]);

                assert_int_equal(handover_now_decode(j, &n, NULL), -EPROTO);
        }
        assert_int_equal(handover_before_decode(NULL, &b, NULL), -EPROTO);
}

static void test_written_down(void **state)
{
        AUTO(json_put) json_t *j = merged(SOUND_BEFORE, "{'xids':[13,79],'ecc_uncorrected':null}");
        AUTO(json_put) json_t *again = NULL, *once_more = NULL;
        struct handover_before b, c;

        (void) state;
        assert_int_equal(handover_before_decode(j, &b, NULL), 0);
        again = handover_before_encode(&b);
        assert_int_equal(handover_before_decode(again, &c, NULL), 0);
        once_more = handover_before_encode(&c);
        assert_true(json_equal(again, once_more));
        assert_int_equal(c.ecc_uncorrected, GPU_UNKNOWN);
        assert_int_equal(c.memory_mib, 450);
        assert_int_equal(c.n_xids, 2);
}

static void test_receipt(void **state)
{
        struct handover_finding f;
        AUTO(json_put) json_t *j = NULL, *bad = NULL;

        (void) state;
        judge("{}", "{}", &f);
        j = handover_receipt("GPU-1", 77, &f, "80,000 MiB");
        assert_true(json_is_true(json_object_get(j, "ok")));
        assert_int_equal(json_integer_value(json_object_get(j, "at_us")), 77);
        assert_int_equal(json_object_size(json_object_get(j, "checks")), HC_COUNT + 1);
        assert_string_equal(jsonx_str(json_object_get(j, "checks"), "memory"),
                            "453 MiB, baseline 450");
        judge("{}", "{'present':false}", &f);
        bad = handover_receipt("GPU-1", 78, &f, NULL);
        assert_true(json_is_false(json_object_get(bad, "ok")));
        assert_int_equal(json_object_size(json_object_get(bad, "checks")), 0);
        assert_true(*jsonx_str(bad, "reason"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_judge),   cmocka_unit_test(test_hostile_text),
                cmocka_unit_test(test_refused), cmocka_unit_test(test_written_down),
                cmocka_unit_test(test_receipt),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
