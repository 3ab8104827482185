/* test_kaudit_line.c - records of the kernel's audit stream: what is one of ours, and what a stranger's
 * names can do in it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/str.h"
#include "engine/kaudit/line.h"

#define HEAD "audit(1795412525.402:306): "
/* as Linux 6.18 and 6.1 have written them */
#define KILL                                                                                       \
        HEAD "auid=4294967295 uid=1346961408 gid=1346961408 ses=4294967295 pid=1330 "              \
             "comm=\"python3\" exe=\"/usr/bin/python3.11\" sig=31 arch=c000003e syscall=39 "       \
             "compat=0 ip=0x7f5978edb829 code=0x80000000"
#define DENIED                                                                                     \
        HEAD "apparmor=\"DENIED\" operation=\"open\" class=\"file\" profile=\"hvmm-12\" "          \
             "name=\"/proc/sys/kernel/core_pattern\" pid=1244 comm=\"sh\" requested_mask=\"w\" "   \
             "denied_mask=\"w\" fsuid=1347682304 ouid=0"

static int parse(unsigned type, const char *text, struct kaudit_line *l)
{
        return kaudit_parse(type, text, strlen(text), l);
}

static void test_seccomp(void **state)
{
        struct kaudit_line l = { .kind = NULL };
        char text[512];

        (void) state;
        assert_int_equal(parse(KAUDIT_SECCOMP, KILL, &l), 0);
        assert_string_equal(l.kind, "seccomp");
        assert_true(l.has_uid && l.uid == 1346961408 && l.slot == 0);
        assert_int_equal(l.pid, 1330);
        kaudit_sentence(&l, text, sizeof text);
        assert_string_equal(text,
                            "seccomp has ended python3: system call 39 of x86_64 is not allowed");
}

static void test_apparmor(void **state)
{
        struct kaudit_line l = { .kind = NULL };
        char text[512];

        (void) state;
        assert_int_equal(parse(KAUDIT_LSM, DENIED, &l), 0);
        assert_string_equal(l.kind, "apparmor");
        assert_int_equal(l.slot, 12);
        kaudit_sentence(&l, text, sizeof text);
        assert_string_equal(text,
                            "AppArmor has denied sh: open of /proc/sys/kernel/core_pattern (w)");
        assert_int_equal(parse(KAUDIT_LSM,
                               HEAD "apparmor=\"DENIED\" operation=\"ptrace\" class=\"ptrace\" "
                                    "profile=\"hvmm-4094-strict\" pid=9 comm=\"gdb\" "
                                    "requested_mask=\"trace\" denied_mask=\"trace\" peer=\"x\"",
                               &l),
                         0);
        assert_int_equal(l.slot, 4094);
        kaudit_sentence(&l, text, sizeof text);
        assert_string_equal(text, "AppArmor has denied gdb: ptrace (trace)");
}

/* Nothing of these is ours; the result is left alone. */
static void test_others(void **state)
{
        static const struct {
                unsigned type;
                const char *text;
        } t[] = {
                { KAUDIT_SECCOMP, "" },
                { KAUDIT_SECCOMP, "audit(" },
                { KAUDIT_SECCOMP, "audit(1:2)" },
                { KAUDIT_SECCOMP, "audit(1:2): " },
                { KAUDIT_SECCOMP, HEAD "uid=1 pid=2 comm=\"x\" sig=0 syscall=1" },
                { KAUDIT_SECCOMP, HEAD "pid=2 comm=\"x\" sig=31 syscall=1" },
                { KAUDIT_SECCOMP, HEAD "uid=-1 pid=2 comm=\"x\" sig=31 syscall=1" },
                { KAUDIT_SECCOMP, HEAD "uid=99999999999 pid=2 sig=31" },
                { KAUDIT_SECCOMP, "uid=1 sig=31" },
                { KAUDIT_LSM, KILL },
                { 1300, KILL },
                { KAUDIT_SECCOMP, DENIED },
                { KAUDIT_LSM, HEAD "apparmor=\"ALLOWED\" profile=\"hvmm-12\"" },
                { KAUDIT_LSM, HEAD "apparmor=\"STATUS\" operation=\"profile_load\" "
                                   "profile=\"unconfined\" name=\"hvmm-12\"" },
                { KAUDIT_LSM,
                  HEAD "apparmor=\"DENIED\" profile=\"docker-default\" name=\"hvmm-1\"" },
                { KAUDIT_LSM, HEAD "apparmor=\"DENIED\" profile=\"hvmm-\"" },
                { KAUDIT_LSM, HEAD "apparmor=\"DENIED\" profile=\"hvmm-12x\"" },
                { KAUDIT_LSM, HEAD "apparmor=\"DENIED\" profile=\"hvmm-99999999999\"" },
                { KAUDIT_LSM, HEAD "apparmor=\"DENIED\" profile=\"hvmm-0\"" },
                { KAUDIT_LSM, HEAD "avc:  denied  { read } for  pid=1 comm=\"x\"" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct kaudit_line l = { .pid = 4711 };

                if (parse(t[i].type, t[i].text, &l) != -ENOMSG || l.pid != 4711)
                        fail_msg("row %zu: %s", i, t[i].text);
        }
}

/* The kernel puts a name in quotes, or in hex where it could end them: neither can be a field. */
static void test_names(void **state)
{
        static const struct {
                const char *comm, *want;
        } t[] = {
                { "\"sh\"", "sh" },
                { "\"uid=0\"", "uid=0" },
                /* a" uid=0 pid=1 x=" */
                { "612220756964", "a\" uid" },
                { "0A1B5B6D", "??[m" },
                { "\"\x1b[31m\"", "?[31m" },
                { "\"\xc3\xa4\"", "??" },
                { "616", "616" }, /* not hex: an odd number */
                { "(null)", "(null)" },
                { "", "" },
                { "\"unended", "" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(free)
                char *text = str_fmt(HEAD "uid=7 pid=3 sig=31 arch=c000003e syscall=1 comm=%s",
                                     t[i].comm);
                struct kaudit_line l = { .kind = NULL };

                assert_int_equal(parse(KAUDIT_SECCOMP, text, &l), 0);
                assert_int_equal(l.uid, 7);
                assert_string_equal(l.comm, t[i].want);
        }
}

/* What is said twice was said first by the kernel. */
static void test_first_counts(void **state)
{
        struct kaudit_line l = { .kind = NULL };

        (void) state;
        assert_int_equal(parse(KAUDIT_SECCOMP, HEAD "uid=7 pid=3 sig=31 uid=8 pid=4 sig=0", &l), 0);
        assert_true(l.uid == 7 && l.pid == 3);
        assert_int_equal(parse(KAUDIT_LSM,
                               HEAD "apparmor=\"DENIED\" profile=\"hvmm-3\" name=\"profile=\" "
                                    "profile=\"hvmm-4\"",
                               &l),
                         0);
        assert_int_equal(l.slot, 3);
}

static void test_long(void **state)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        struct kaudit_line l = { .kind = NULL };
        char text[512];

        (void) state;
        strbuf_str(&b, HEAD "apparmor=\"DENIED\" profile=\"hvmm-3\" name=\"");
        for (int i = 0; i < 8000; i++)
                strbuf_char(&b, 'x');
        strbuf_str(&b, "\" comm=\"y\"");
        assert_int_equal(kaudit_parse(KAUDIT_LSM, b.s, b.len, &l), 0);
        assert_int_equal(strlen(l.name), KAUDIT_NAME_BYTES - 1);
        kaudit_sentence(&l, text, sizeof text);
        assert_true(strlen(text) < 512);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_seccomp),      cmocka_unit_test(test_apparmor),
                cmocka_unit_test(test_others),       cmocka_unit_test(test_names),
                cmocka_unit_test(test_first_counts), cmocka_unit_test(test_long),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
