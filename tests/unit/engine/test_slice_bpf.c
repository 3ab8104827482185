/* The generated device program, run by a small interpreter of the instructions that it uses, and what it
 * counts. */
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

#define CTX   0xC0FFEEU /* stand for pointers */
#define VALUE 0xBEEFU
#define MAP   4711

static struct slice_refused_value counts;

/* A word of the group's value; NULL: out of bounds. */
static uint64_t *word(uint64_t base, int off)
{
        bool fits = base == VALUE && off >= 0 && off % 8 == 0 && (size_t) off + 8 <= sizeof counts;

        return fits ? (uint64_t *) (void *) ((char *) &counts + off) : NULL;
}

/* r0 at exit; -1: an instruction that we do not generate, a jump or a load out of bounds. */
static int64_t run(const struct bpf_insn *p, size_t n, const struct access *ctx)
{
        uint64_t r[11] = { [1] = CTX };
        uint64_t *at_word;

        for (size_t at = 0; at < n; at++) {
                const struct bpf_insn *i = &p[at];
                uint64_t *dst = &r[i->dst_reg], src = r[i->src_reg];
                bool jump = false;

                switch (i->code) {
                case BPF_LDX | BPF_MEM | BPF_W: {
                        uint32_t v;

                        if (src != CTX || i->off < 0 || (size_t) i->off + 4 > sizeof *ctx)
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
                case BPF_ALU64 | BPF_MOV | BPF_X:
                        *dst = src;
                        break;
                case BPF_ALU64 | BPF_LSH | BPF_K:
                        *dst <<= i->imm;
                        break;
                case BPF_ALU64 | BPF_OR | BPF_X:
                        *dst |= src;
                        break;
                case BPF_JMP | BPF_JEQ | BPF_K:
                        jump = *dst == (uint64_t) (int64_t) i->imm;
                        break;
                case BPF_LD | BPF_DW | BPF_IMM:
                        if (i->src_reg != BPF_PSEUDO_MAP_FD || i->imm != MAP || ++at >= n)
                                return -1;
                        *dst = MAP;
                        break;
                case BPF_JMP | BPF_CALL:
                        if (i->imm != BPF_FUNC_get_local_storage || r[1] != MAP || r[2] != 0)
                                return -1;
                        r[0] = VALUE;
                        for (size_t c = 1; c <= 5; c++)
                                r[c] = 0xDEAD; /* lost in a call */
                        break;
                case BPF_STX | BPF_ATOMIC | BPF_DW:
                        at_word = word(*dst, i->off);
                        if (!at_word || (i->imm != BPF_ADD && i->imm != BPF_CMPXCHG))
                                return -1;
                        if (i->imm == BPF_ADD) {
                                *at_word += src;
                        } else {
                                uint64_t old = *at_word;

                                if (old == r[0])
                                        *at_word = src;
                                r[0] = old;
                        }
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

        assert_int_equal(slice_bpf_generate(sets, n_set, 2, MAP, p, MAX_INSNS, &n, NULL), 0);
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

/* Refusals are told apart by type and both numbers; what is allowed is not counted; the ninth device has
 * no place, and the first eight keep theirs. */
static void test_counts(void **state)
{
        struct bpf_insn p[MAX_INSNS];
        size_t n = generate(p);
        struct access a = want('c', 1, 3, BPF_DEVCG_ACC_READ);

        (void) state;
        memset(&counts, 0, sizeof counts);
        assert_int_equal(run(p, n, &a), 1);
        assert_int_equal(counts.at[0].key, 0);
        for (uint32_t round = 1; round <= 3; round++) {
                static const struct access devices[] = {
                        { BPF_DEVCG_ACC_READ << 16 | BPF_DEVCG_DEV_CHAR, 1, 11 },
                        { BPF_DEVCG_ACC_WRITE << 16 | BPF_DEVCG_DEV_BLOCK, 1, 11 },
                        { BPF_DEVCG_ACC_READ << 16 | BPF_DEVCG_DEV_BLOCK, 0, 0 },
                        { BPF_DEVCG_ACC_READ << 16 | BPF_DEVCG_DEV_CHAR, 4095, 1048575 },
                        { BPF_DEVCG_ACC_MKNOD << 16 | BPF_DEVCG_DEV_CHAR, 11, 1 },
                        { BPF_DEVCG_ACC_READ << 16 | BPF_DEVCG_DEV_CHAR, 10, 232 },
                        { BPF_DEVCG_ACC_READ << 16 | BPF_DEVCG_DEV_CHAR, 10, 233 },
                        { BPF_DEVCG_ACC_READ << 16 | BPF_DEVCG_DEV_CHAR, 0, 16 },
                        { BPF_DEVCG_ACC_READ << 16 | BPF_DEVCG_DEV_CHAR, 16, 0 },
                };

                for (size_t i = 0; i < NELEM(devices); i++)
                        assert_int_equal(run(p, n, &devices[i]), 0);
                for (size_t i = 0; i < SLICE_REFUSED_MAX; i++) {
                        const struct access *d = &devices[i];

                        assert_int_equal(counts.at[i].key, (uint64_t) (d->access_type & 0xFFFF)
                                                                           << 32 |
                                                                   d->major << 20 | d->minor);
                        assert_int_equal(counts.at[i].count, round);
                }
                assert_int_equal(counts.others, round);
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
        assert_int_equal(slice_bpf_generate(sets, one, 1, MAP, p, MAX_INSNS, &n, NULL), -EINVAL);
        assert_int_equal(slice_bpf_generate(sets, base, 2, MAP, p, 20, &n, NULL), -E2BIG);
        assert_int_equal(n, 77);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_decisions),
                cmocka_unit_test(test_against_rules),
                cmocka_unit_test(test_counts),
                cmocka_unit_test(test_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
