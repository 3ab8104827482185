/* The compiled seccomp policy, run in an interpreter against its own rows and against what people
 * rely on; and the tree builder with programs that the policy does not make. */
#include <errno.h>
#include <linux/audit.h>
#include <sched.h>
#include <seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/str.h"
#include "engine/sandbox/filter.h"

#define ABSENT (SECCOMP_RET_ERRNO | ENOSYS)
#define DENY   (SECCOMP_RET_ERRNO | EPERM)
#define ALLOW  SECCOMP_RET_ALLOW
#define NATIVE (seccomp_arch_native())

/* Classic BPF as far as filter.c uses it; anything else, and running off the end, fails. */
static uint32_t run(const struct filter *f, const struct seccomp_data *d, unsigned *steps)
{
        uint32_t a = 0;

        for (size_t pc = 0; pc < f->len; pc++) {
                const struct sock_filter *i = &f->insn[pc];

                ++*steps;
                switch (i->code) {
                case BPF_LD | BPF_W | BPF_ABS:
                        assert_true(i->k % 4 == 0 && i->k + 4 <= sizeof *d);
                        memcpy(&a, (const char *) d + i->k, 4);
                        break;
                case BPF_ALU | BPF_AND | BPF_K:
                        a &= i->k;
                        break;
                case BPF_JMP | BPF_JA:
                        pc += i->k;
                        break;
                case BPF_JMP | BPF_JEQ | BPF_K:
                        pc += a == i->k ? i->jt : i->jf;
                        break;
                case BPF_JMP | BPF_JGE | BPF_K:
                        pc += a >= i->k ? i->jt : i->jf;
                        break;
                case BPF_RET | BPF_K:
                        return i->k;
                default:
                        fail_msg("instruction %zu: code 0x%x", pc, i->code);
                }
        }
        fail_msg("ran off the end");
        return 0;
}

static uint32_t decide(const struct filter *f, uint32_t arch, uint32_t nr, const uint64_t *args)
{
        struct seccomp_data d = { .nr = (int) nr, .arch = arch };
        unsigned steps = 0;

        if (args)
                memcpy(d.args, args, sizeof d.args);
        return run(f, &d, &steps);
}

static int number_of(const struct filter_row *r)
{
        return r->number >= 0 ? r->number : seccomp_syscall_resolve_name(r->name);
}

/* The rows read one by one: what the program must come to. */
static uint32_t expected(const struct filter_row *rows, size_t n, enum security_profile profile,
                         uint32_t nr, const uint64_t *args)
{
        for (size_t i = 0; i < n; i++) {
                bool holds = number_of(&rows[i]) == (int) nr &&
                             (rows[i].profile == SECURITY_NONE || rows[i].profile == profile);

                for (size_t t = 0; holds && t < rows[i].n_tests; t++) {
                        const struct filter_test *x = &rows[i].tests[t];

                        holds = (args[x->arg] & x->mask) == x->value;
                }
                if (holds)
                        return rows[i].action;
        }
        return ABSENT;
}

/* A program and the rows that it comes from. */
struct built {
        struct filter *f;
        const struct filter_row *rows;
        size_t n;
        enum security_profile profile;
};

static void compare(const struct built *b, uint32_t nr, const uint64_t *args)
{
        const struct filter *f = b->f;
        uint32_t want = expected(b->rows, b->n, b->profile, nr, args),
                 got = decide(f, NATIVE, nr, args);

        if (got != want)
                fail_msg("call %u (%llx %llx %llx): 0x%x, not 0x%x", nr,
                         (unsigned long long) args[0], (unsigned long long) args[1],
                         (unsigned long long) args[2], got, want);
}

/* Arguments at and around every value that a row tests for. */
static void compare_row(const struct built *b, const struct filter_row *r)
{
        static const uint64_t noise[] = { 0, 1, 0x7fffffff, 0xffffffff, 1ULL << 32, ~0ULL };
        uint64_t args[6];

        for (size_t k = 0; k < NELEM(noise); k++) {
                for (size_t i = 0; i < 6; i++)
                        args[i] = noise[k];
                compare(b, (uint32_t) number_of(r), args);
                for (size_t t = 0; t < r->n_tests; t++)
                        args[r->tests[t].arg] =
                                (args[r->tests[t].arg] & ~r->tests[t].mask) | r->tests[t].value;
                compare(b, (uint32_t) number_of(r), args);
                for (size_t t = 0; t < r->n_tests; t++)
                        for (unsigned bit = 0; bit < 64; bit++) {
                                args[r->tests[t].arg] ^= 1ULL << bit;
                                compare(b, (uint32_t) number_of(r), args);
                                args[r->tests[t].arg] ^= 1ULL << bit;
                        }
        }
}

static void compare_all(const struct filter_row *rows, size_t n, enum security_profile profile,
                        size_t max_len)
{
        static const uint64_t zero[6];
        AUTO(free) struct filter *f = NULL;
        struct built b = { NULL, rows, n, profile };
        struct err e = { 0 };

        if (filter_build(rows, n, profile, &f, &e) < 0)
                fail_msg("%s", e.msg);
        b.f = f;
        assert_true(f->len <= max_len);
        for (uint32_t nr = 0; nr < 1200; nr++)
                compare(&b, nr, zero);
        for (size_t i = 0; i < n; i++)
                if (number_of(&rows[i]) >= 0)
                        compare_row(&b, &rows[i]);
        assert_int_equal(decide(f, NATIVE, UINT32_MAX, zero), ABSENT);
}

static void test_policy_is_its_rows(void **state)
{
        (void) state;
        for (int p = SECURITY_STANDARD; p < SECURITY_PROFILE_COUNT; p++)
                compare_all(policy_rows, policy_n_rows, (enum security_profile) p, 400);
}

static void test_other_abis(void **state)
{
        AUTO(free) struct filter *f = NULL;

        (void) state;
        assert_int_equal(filter_build(policy_rows, policy_n_rows, SECURITY_STANDARD, &f, NULL), 0);
        if (NATIVE == AUDIT_ARCH_X86_64) {
                assert_int_equal(decide(f, AUDIT_ARCH_I386, 4, NULL), SECCOMP_RET_KILL_PROCESS);
                for (uint32_t nr = 0; nr < 600; nr++) /* x32 */
                        assert_int_equal(decide(f, NATIVE, 0x40000000U + nr, NULL), ABSENT);
        }
        assert_int_equal(decide(f, AUDIT_ARCH_ARM, 4, NULL), SECCOMP_RET_KILL_PROCESS);
        assert_int_equal(decide(f, 0, 0, NULL), SECCOMP_RET_KILL_PROCESS);
}

#define UPPER (1ULL << 40) /* bits that the kernel ignores in a 32-bit argument */

static void test_what_people_rely_on(void **state)
{
        static const struct {
                const char *name;
                uint64_t args[6];
                uint32_t action;
        } t[] = {
                { "read", { 0 }, ALLOW },
                { "execve", { 0 }, ALLOW },
                { "ptrace", { 0 }, ALLOW },
                { "chroot", { 0 }, ALLOW },
                { "clone", { SIGCHLD }, ALLOW },
                { "clone",
                  { CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD },
                  ALLOW },
                { "clone", { CLONE_NEWUSER | SIGCHLD }, DENY },
                { "clone", { CLONE_NEWNS }, DENY },
                { "clone", { CLONE_NEWNET }, DENY },
                { "clone", { CLONE_NEWPID }, DENY },
                { "clone", { CLONE_NEWIPC }, DENY },
                { "clone", { CLONE_NEWUTS }, DENY },
                { "clone", { CLONE_NEWCGROUP }, DENY },
                { "clone", { CLONE_PARENT | SIGCHLD }, DENY },
                { "clone3", { 0 }, ABSENT },
                { "unshare", { CLONE_FILES }, ALLOW },
                { "unshare", { CLONE_NEWUSER }, DENY },
                { "unshare", { 0x80 /* CLONE_NEWTIME */ }, DENY },
                { "setns", { 0 }, DENY },
                { "mount", { 0 }, DENY },
                { "umount2", { 0 }, DENY },
                { "open_tree", { 0 }, DENY },
                { "bpf", { 0 }, DENY },
                { "keyctl", { 0 }, DENY },
                { "userfaultfd", { 0 }, DENY },
                { "perf_event_open", { 0 }, DENY },
                { "open_by_handle_at", { 0 }, DENY },
                { "reboot", { 0 }, DENY },
                { "io_uring_setup", { 0 }, ABSENT },
                { "io_uring_enter", { 0 }, ABSENT },
                { "mknod", { 0, S_IFIFO | 0600 }, ALLOW },
                { "mknod", { 0, S_IFREG | 0600 }, ALLOW },
                { "mknod", { 0, S_IFCHR | 0600 }, DENY },
                { "mknod", { 0, S_IFBLK | 0600 }, DENY },
                { "mknod", { 0, S_IFCHR | 0600 | UPPER }, DENY },
                { "mknodat", { 0, 0, S_IFSOCK | 0600 }, ALLOW },
                { "mknodat", { 0, 0, S_IFCHR | 0600 }, DENY },
                { "ioctl", { 0, 0x5401 }, ALLOW },
                { "ioctl", { 0, 0x5412 }, DENY },
                { "ioctl", { 0, 0x5412 | UPPER }, DENY },
                { "ioctl", { 0, 0x541c }, DENY },
                { "personality", { 0xffffffff }, ALLOW },
                { "personality", { 0x0040000 }, ALLOW },
                { "personality", { 0x0400000 }, DENY },
                { "socket", { AF_UNIX, SOCK_STREAM }, ALLOW },
                { "socket", { AF_INET, SOCK_STREAM, 6 }, ALLOW },
                { "socket", { AF_INET6, SOCK_DGRAM, 0 }, ALLOW },
                { "socket", { AF_INET, SOCK_STREAM, 132 }, SECCOMP_RET_ERRNO | EPROTONOSUPPORT },
                { "socket", { AF_NETLINK, SOCK_RAW, 0 }, ALLOW },
                { "socket", { AF_NETLINK, SOCK_RAW, 9 }, SECCOMP_RET_ERRNO | EPROTONOSUPPORT },
                { "socket", { AF_NETLINK, SOCK_RAW, 12 }, SECCOMP_RET_ERRNO | EPROTONOSUPPORT },
                { "socket", { AF_PACKET, SOCK_RAW, 3 }, SECCOMP_RET_ERRNO | EAFNOSUPPORT },
                { "socket", { AF_ALG }, SECCOMP_RET_ERRNO | EAFNOSUPPORT },
                { "socket", { AF_VSOCK | UPPER }, SECCOMP_RET_ERRNO | EAFNOSUPPORT },
                { "socket", { AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC }, ALLOW },
                { "socket", { AF_INET, SOCK_SEQPACKET }, SECCOMP_RET_ERRNO | EPROTONOSUPPORT },
                { "socket", { AF_INET6, 6 | SOCK_NONBLOCK }, SECCOMP_RET_ERRNO | EPROTONOSUPPORT },
                { "socketpair", { AF_UNIX }, ALLOW },
                { "setrlimit", { 7 }, ALLOW }, /* open files */
                { "setrlimit", { 4 }, SECCOMP_RET_ERRNO },
                { "setrlimit", { 4 | UPPER }, SECCOMP_RET_ERRNO },
                { "prlimit64", { 0, 7, 1 }, ALLOW },
                { "prlimit64", { 0, 4, 0 }, ALLOW }, /* asks */
                { "prlimit64", { 0, 4, 1 }, SECCOMP_RET_ERRNO },
                { "prlimit64", { 0, 4 | UPPER, UPPER }, SECCOMP_RET_ERRNO },
                { "prctl", { 15 }, ALLOW },                      /* a name */
                { "prctl", { 62 }, SECCOMP_RET_ERRNO | EINVAL }, /* core scheduling */
                { "prctl", { 62 | UPPER }, SECCOMP_RET_ERRNO | EINVAL },
        };
        AUTO(free) struct filter *f = NULL;

        (void) state;
        assert_int_equal(filter_build(policy_rows, policy_n_rows, SECURITY_STANDARD, &f, NULL), 0);
        for (size_t i = 0; i < NELEM(t); i++) {
                int nr = seccomp_syscall_resolve_name(t[i].name);
                uint32_t got = nr < 0 ? 0 : decide(f, NATIVE, (uint32_t) nr, t[i].args);

                if (nr < -1)
                        continue; /* mknod and friends are missing on newer architectures */
                if (nr < 0 || got != t[i].action)
                        fail_msg("row %zu, %s: 0x%x, not 0x%x", i, t[i].name, got, t[i].action);
        }
}

/* What one profile refuses and the others do not. */
static void test_profiles(void **state)
{
        static const struct {
                const char *name;
                uint32_t strict, other;
        } t[] = {
                { "ptrace", DENY, ALLOW },
                { "process_vm_readv", DENY, ALLOW },
                { "process_vm_writev", DENY, ALLOW },
                { "pidfd_getfd", DENY, ALLOW },
                { "kcmp", DENY, ALLOW },
                { "read", ALLOW, ALLOW },
                { "pidfd_open", ALLOW, ALLOW },
                { "mount", DENY, DENY },
        };

        (void) state;
        for (int p = SECURITY_STANDARD; p < SECURITY_PROFILE_COUNT; p++) {
                AUTO(free) struct filter *f = NULL;

                assert_int_equal(filter_build(policy_rows, policy_n_rows, (enum security_profile) p,
                                              &f, NULL),
                                 0);
                for (size_t i = 0; i < NELEM(t); i++) {
                        int nr = seccomp_syscall_resolve_name(t[i].name);
                        uint32_t want = p == SECURITY_STRICT ? t[i].strict : t[i].other;

                        if (decide(f, NATIVE, (uint32_t) nr, NULL) != want)
                                fail_msg("%s: %s", security_profile_names[p], t[i].name);
                }
        }
}

/* The path to the most frequent calls stays short. */
static void test_few_steps(void **state)
{
        struct seccomp_data d = { .arch = NATIVE };
        AUTO(free) struct filter *f = NULL;
        unsigned worst = 0;

        (void) state;
        assert_int_equal(filter_build(policy_rows, policy_n_rows, SECURITY_STANDARD, &f, NULL), 0);
        for (d.nr = 0; d.nr < 500; d.nr++) {
                unsigned steps = 0;

                if (run(f, &d, &steps) == ALLOW && steps > worst)
                        worst = steps;
        }
        print_message("%u instructions, at most %u steps to an allowed call\n", f->len, worst);
        assert_true(worst < 40);
}

/* Programs long enough that conditional jumps do not reach, and very short ones. */
static void test_sizes(void **state)
{
        static struct filter_row rows[900];
        static const uint32_t actions[] = { ALLOW, DENY, SECCOMP_RET_ERRNO | EINVAL,
                                            SECCOMP_RET_KILL_PROCESS };

        (void) state;
        compare_all(rows, 0, SECURITY_STANDARD, 10);
        for (size_t i = 0; i < NELEM(rows); i++)
                rows[i] = (struct filter_row){ .name = "x",
                                               .number = (int) (i + i / 7),
                                               .action = actions[i % 4] };
        compare_all(rows, 1, SECURITY_STANDARD, 20);
        compare_all(rows, 2, SECURITY_STANDARD, 20);
        compare_all(rows, NELEM(rows), SECURITY_STANDARD, BPF_MAXINSNS);
        for (size_t i = 0; i < NELEM(rows); i++) {
                rows[i].number = (int) (i / 3);
                rows[i].n_tests = i % 3 == 2 ? 0 : 2;
                rows[i].tests[0] = (struct filter_test){ 1, ~0ULL, i };
                rows[i].tests[1] = (struct filter_test){ 2, 0xffff0000ULL, 0x10000 * (i % 5) };
        }
        compare_all(rows, 300, SECURITY_STANDARD, BPF_MAXINSNS);
}

static void test_mistakes(void **state)
{
        static const struct filter_row unknown[] = {
                { "no_such_call", -1, ALLOW, 0, { { 0 } }, SECURITY_NONE }
        };
        AUTO(free) struct filter_row *many = calloc(3000, sizeof *many);
        struct filter *f = (struct filter *) 1;
        struct err e;

        (void) state;
        assert_int_equal(filter_build(unknown, 1, SECURITY_STANDARD, &f, &e), -EINVAL);
        assert_non_null(strstr(e.msg, "no_such_call"));
        assert_non_null(many);
        for (size_t i = 0; i < 3000; i++)
                many[i] = (struct filter_row){ .name = "x",
                                               .number = (int) (2 * i),
                                               .action = ALLOW,
                                               .n_tests = 1,
                                               .tests = { { 0, ~0ULL, i } } };
        assert_int_equal(filter_build(many, 3000, SECURITY_STANDARD, &f, &e), -E2BIG);
        assert_ptr_equal(f, (struct filter *) 1);
}

/* The kernel takes the program, and does what the interpreter says. */
static void test_in_the_kernel(void **state)
{
        AUTO(free) struct filter *f = NULL;
        int status = 0;
        pid_t pid;

        (void) state;
        assert_int_equal(filter_build(policy_rows, policy_n_rows, SECURITY_STANDARD, &f, NULL), 0);
        pid = fork();
        if (pid == 0) {
                struct sock_fprog p = { .len = f->len, .filter = f->insn };

                if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
                    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p) < 0)
                        _exit(1);
                if (syscall(SYS_io_uring_setup, 1, NULL) != -1 || errno != ENOSYS)
                        _exit(2);
                if (unshare(CLONE_NEWUSER) != -1 || errno != EPERM)
                        _exit(3);
                if (socket(AF_ALG, SOCK_SEQPACKET, 0) != -1 || errno != EAFNOSUPPORT)
                        _exit(4);
                pid = fork();
                if (pid == 0)
                        _exit(0);
                if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
                        _exit(5);
                _exit(0);
        }
        assert_true(pid > 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_policy_is_its_rows),
                cmocka_unit_test(test_other_abis),
                cmocka_unit_test(test_what_people_rely_on),
                cmocka_unit_test(test_profiles),
                cmocka_unit_test(test_few_steps),
                cmocka_unit_test(test_sizes),
                cmocka_unit_test(test_mistakes),
                cmocka_unit_test(test_in_the_kernel),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
