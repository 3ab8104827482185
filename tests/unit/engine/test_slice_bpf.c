/* The generated device program, run by a small interpreter of the instructions that it uses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "engine/slice/slice_priv.h"

#define MAX_INSNS 1024

struct access {
        uint32_t access_type, major, minor;
};

static struct access want(char type, uint32_t major, uint32_t minor, uint32_t rights)
{
        uint32_t t = type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR;

        return (struct access){ rights << 16 | t, major, minor };
}

/* r0 at exit; -1: an instruction that we do not generate, a jump or a load out of bounds. */
static int64_t run(const struct bpf_insn *p, size_t n, const struct access *ctx)
{
        uint64_t r[11] = { [1] = 0xC0FFEE }; /* stands for the pointer to ctx */

        for (size_t at = 0; at < n; at++) {
                const struct bpf_insn *i = &p[at];
                uint64_t *dst = &r[i->dst_reg], src = r[i->src_reg];
                bool jump = false;

                switch (i->code) {
                case BPF_LDX | BPF_MEM | BPF_W: {
                        uint32_t v;

                        if (src != 0xC0FFEE || i->off < 0 || (size_t) i->off + 4 > sizeof *ctx)
                                return -1;
                        memcpy(&v, (const char *) ctx + i->off, sizeof v);
                        *dst = v;
                        break;
                }
                case BPF_ALU | BPF_MOV | BPF_X:
                        *dst = (uint32_t) src;
                        break;
                case BPF_ALU64 | BPF_MOV | BPF_K:
                        *dst = (uint64_t) i->imm;
                        break;
                case BPF_ALU | BPF_AND | BPF_K:
                        *dst = (uint32_t) *dst & (uint32_t) i->imm;
                        break;
                case BPF_ALU | BPF_RSH | BPF_K:
                        *dst = (uint32_t) *dst >> i->imm;
                        break;
                case BPF_JMP | BPF_JNE | BPF_K:
                        jump = *dst != (uint64_t) (int64_t) i->imm;
                        break;
                case BPF_JMP | BPF_JNE | BPF_X:
                        jump = *dst != src;
                        break;
                case BPF_JMP | BPF_EXIT:
                        return (int64_t) r[0];
                default:
                        return -1;
                }
                if (jump) {
                        if (i->off < 0)
                                return -1; /* the kernel would refuse a loop, too */
                        at += (size_t) i->off;
                }
        }
        return -1;
}

static const struct slice_device extra[] = {
        { 'c', 195, 0, "rw" }, { 'c', 195, 255, "r" }, { 'b', 7, -1, "rwm" }, { 'c', -1, 5, "m" }
};

static size_t generate(struct bpf_insn *p)
{
        const struct slice_device *const sets[] = { slice_base_devices, extra };
        const size_t n_set[] = { slice_n_base_devices, NELEM(extra) };
        size_t n = 0;

        assert_int_equal(slice_bpf_generate(sets, n_set, 2, p, MAX_INSNS, &n, NULL), 0);
        return n;
}

static void test_decisions(void **state)
{
        enum { M = BPF_DEVCG_ACC_MKNOD, R = BPF_DEVCG_ACC_READ, W = BPF_DEVCG_ACC_WRITE };
        static const struct {
                char type;
                uint32_t major, minor, rights;
                int allowed;
        } t[] = {
                { 'c', 1, 3, R, 1 },          { 'c', 1, 3, R | W, 1 },
                { 'c', 1, 3, M, 0 },          { 'c', 1, 3, R | W | M, 0 },
                { 'b', 1, 3, R, 0 },          { 'c', 1, 11, R, 0 },
                { 'c', 1, 1, R, 0 },          { 'c', 136, 0, R | W, 1 },
                { 'c', 136, 99999, R, 1 },    { 'c', 137, 0, R, 0 },
                { 'c', 195, 0, R | W, 1 },    { 'c', 195, 1, R, 0 },
                { 'c', 195, 255, R, 1 },      { 'c', 195, 255, W, 0 },
                { 'b', 7, 12, R | W | M, 1 }, { 'c', 7, 12, R, 0 },
                { 'c', 77, 5, M, 1 },         { 'c', 77, 5, R, 0 },
                { 'c', 5, 0, R | W, 1 },      { 'c', 5, 1, R, 0 },
                { 'b', 8, 0, R, 0 },
        };
        struct bpf_insn p[MAX_INSNS];
        size_t n = generate(p);

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct access a = want(t[i].type, t[i].major, t[i].minor, t[i].rights);
                int64_t got = run(p, n, &a);

                if (got != t[i].allowed)
                        fail_msg("%c %u:%u rights %u: %lld", t[i].type, t[i].major, t[i].minor,
                                 t[i].rights, (long long) got);
        }
}

/* Against the rules themselves, over every combination that is near a border. */
static void test_against_rules(void **state)
{
        struct bpf_insn p[MAX_INSNS];
        size_t n = generate(p);

        (void) state;
        for (uint32_t type = 0; type < 2; type++)
                for (uint32_t major = 0; major < 256; major++)
                        for (uint32_t minor = 0; minor < 300; minor += minor < 16 ? 1 : 239)
                                for (uint32_t rights = 1; rights < 8; rights++) {
                                        char ch = type ? 'b' : 'c';
                                        struct access a = want(ch, major, minor, rights);
                                        bool allowed = false;

                                        for (size_t s = 0; s < slice_n_base_devices + NELEM(extra);
                                             s++) {
                                                const struct slice_device *d =
                                                        s < slice_n_base_devices
                                                                ? &slice_base_devices[s]
                                                                : &extra[s - slice_n_base_devices];
                                                uint32_t have = 0;

                                                if (strchr(d->access, 'm'))
                                                        have |= BPF_DEVCG_ACC_MKNOD;
                                                if (strchr(d->access, 'r'))
                                                        have |= BPF_DEVCG_ACC_READ;
                                                if (strchr(d->access, 'w'))
                                                        have |= BPF_DEVCG_ACC_WRITE;
                                                if (d->type == ch && (rights & ~have) == 0 &&
                                                    (d->major < 0 ||
                                                     (uint32_t) d->major == major) &&
                                                    (d->minor < 0 || (uint32_t) d->minor == minor))
                                                        allowed = true;
                                        }
                                        assert_int_equal(run(p, n, &a), allowed);
                                }
}

static void test_refused(void **state)
{
        static const struct slice_device all = { 'a', -1, -1, "rwm" };
        const struct slice_device *const sets[] = { &all, slice_base_devices };
        const size_t one[] = { 1 }, base[] = { 0, slice_n_base_devices };
        struct bpf_insn p[MAX_INSNS];
        size_t n = 77;

        (void) state;
        assert_int_equal(slice_bpf_generate(sets, one, 1, p, MAX_INSNS, &n, NULL), -EINVAL);
        assert_int_equal(slice_bpf_generate(sets, base, 2, p, 20, &n, NULL), -E2BIG);
        assert_int_equal(n, 77);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_decisions),
                cmocka_unit_test(test_against_rules),
                cmocka_unit_test(test_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
