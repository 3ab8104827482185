/* filter.c - see filter.h.  Runs in the engine once for each profile, before the first cluster starts.
 *
 * Theory of operation.  Classic BPF jumps only forwards, so the program is emitted from its end:
 * whatever an instruction jumps to is there already and its distance is known.  First the shared
 * return instructions, then for each conditional system call a block that loads arguments and
 * compares, then the tree: sorted numbers are merged into ranges that end in the same place, and
 * each inner node is one "greater or equal".  A distance above 255 does not fit a conditional jump:
 * then the return instruction is repeated nearby, or an unconditional jump put in between.
 *
 * The table is ours and the result is checked by the kernel; the unit test runs it against the
 * rows in an interpreter. */
#include "engine/sandbox/filter.h"

#include <errno.h>
#include <seccomp.h>
#include <stdbool.h>

#define INSN_MAX   BPF_MAXINSNS
#define REACH      255U /* of a conditional jump */
#define RET_ABSENT (SECCOMP_RET_ERRNO | ENOSYS)
#define OFF_NR     ((uint32_t) offsetof(struct seccomp_data, nr))
#define OFF_ARCH   ((uint32_t) offsetof(struct seccomp_data, arch))

struct range {
        uint32_t first;  /* up to the next range's */
        uint32_t target; /* index of the instruction that decides */
};

struct emit {
        struct sock_filter *f; /* INSN_MAX of them, filled from the end */
        uint32_t at;           /* index of the program's first instruction so far */
        bool full;
};

static uint32_t put(struct emit *b, unsigned code, uint32_t k, uint32_t jt, uint32_t jf)
{
        if (b->at == 0) {
                b->full = true;
                return 0;
        }
        b->f[--b->at] = (struct sock_filter){
                .code = (uint16_t) code, .jt = (uint8_t) jt, .jf = (uint8_t) jf, .k = k
        };
        return b->at;
}

/* The nearest place that ends in @action. */
static uint32_t put_ret(struct emit *b, uint32_t action)
{
        for (uint32_t i = b->at; i < INSN_MAX && i - b->at < REACH; i++)
                if (b->f[i].code == (BPF_RET | BPF_K) && b->f[i].k == action)
                        return i;
        return put(b, BPF_RET | BPF_K, action, 0, 0);
}

/* Something within a conditional jump's reach that leads to @target. */
static uint32_t put_near(struct emit *b, uint32_t target)
{
        if (target - b->at <= REACH)
                return target;
        if (b->f[target].code == (BPF_RET | BPF_K))
                return put_ret(b, b->f[target].k);
        return put(b, BPF_JMP | BPF_JA, target - b->at, 0, 0);
}

static uint32_t put_if(struct emit *b, unsigned op, uint32_t k, uint32_t yes, uint32_t no)
{
        uint32_t before;

        do { /* what one of them emits may move the other out of reach */
                before = b->at;
                yes = put_near(b, yes);
                no = put_near(b, no);
        } while (b->at != before && !b->full);
        return put(b, BPF_JMP | op | BPF_K, k, yes - b->at, no - b->at);
}

/* One half of an argument: 0 is the lower 32 bits. */
static uint32_t put_half(struct emit *b, const struct filter_test *t, unsigned half, uint32_t yes,
                         uint32_t no)
{
        uint32_t mask = (uint32_t) (t->mask >> (32 * half));
        uint32_t value = (uint32_t) (t->value >> (32 * half));
        uint32_t off = (uint32_t) offsetof(struct seccomp_data, args) + 8U * t->arg;

        if (mask == 0)
                return yes;
        (void) put_if(b, BPF_JEQ, value, yes, no);
        if (mask != UINT32_MAX)
                (void) put(b, BPF_ALU | BPF_AND | BPF_K, mask, 0, 0);
        off += (half ^ (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)) ? 4U : 0U;
        return put(b, BPF_LD | BPF_W | BPF_ABS, off, 0, 0);
}

/* All rows of one system call; the result is where its decision begins. */
static uint32_t put_rows(struct emit *b, const struct filter_row *const *rows, size_t n)
{
        uint32_t next = put_ret(b, RET_ABSENT);

        for (size_t i = n; i-- > 0;) {
                const struct filter_row *row = rows[i];
                uint32_t here = put_ret(b, row->action);

                for (size_t t = row->n_tests; t-- > 0;) {
                        here = put_half(b, &row->tests[t], 1, here, next);
                        here = put_half(b, &row->tests[t], 0, here, next);
                }
                next = here;
        }
        return next;
}

/* Ranges [lo, hi): leaves are targets that exist, inner nodes compare with the middle. */
static uint32_t put_tree(struct emit *b, const struct range *r, size_t lo, size_t hi)
{
        size_t mid = lo + (hi - lo) / 2;
        uint32_t above, below;

        if (hi - lo == 1)
                return r[lo].target;
        above = put_tree(b, r, mid, hi);
        below = put_tree(b, r, lo, mid);
        return put_if(b, BPF_JGE, r[mid].first, above, below);
}

/* A row with its number; sorting by (number, order) keeps the rows of one call in file order. */
struct numbered {
        uint32_t nr, order;
        const struct filter_row *row;
};

static int numbered_cmp(const void *pa, const void *pb)
{
        const struct numbered *a = pa, *b = pb;

        if (a->nr != b->nr)
                return a->nr < b->nr ? -1 : 1;
        return a->order < b->order ? -1 : a->order > b->order;
}

/* Numbers for the rows that count and exist on this architecture; returns how many. */
static int resolve(const struct filter_row *rows, size_t n, enum security_profile profile,
                   struct numbered *ret, struct err *e)
{
        int count = 0;

        for (size_t i = 0; i < n; i++) {
                bool counts = rows[i].profile == SECURITY_NONE || rows[i].profile == profile;
                int nr = rows[i].number >= 0 ? rows[i].number
                                             : seccomp_syscall_resolve_name(rows[i].name);

                if (nr == __NR_SCMP_ERROR)
                        return err_set(e, -EINVAL, "seccomp policy: libseccomp does not know %s",
                                       rows[i].name);
                if (nr < 0 || !counts)
                        continue; /* another architecture's or profile's */
                ret[count++] = (struct numbered){ (uint32_t) nr, (uint32_t) i, &rows[i] };
        }
        qsort(ret, (size_t) count, sizeof *ret, numbered_cmp);
        return count;
}

static void add_range(struct emit *b, struct range *r, size_t *n, uint32_t first, uint32_t target)
{
        const struct sock_filter *f = b->f;

        if (*n > 0 && r[*n - 1].first == first)
                --*n; /* the gap that was opened here is empty */
        if (*n > 0) {
                uint32_t last = r[*n - 1].target;

                if (last == target || (f[last].code == (BPF_RET | BPF_K) &&
                                       f[target].code == f[last].code && f[target].k == f[last].k))
                        return;
        }
        r[(*n)++] = (struct range){ first, target };
}

static size_t put_ranges(struct emit *b, const struct numbered *v, size_t n, struct range *r)
{
        AUTO(free) const struct filter_row **rows = calloc(n + 1, sizeof(*rows));
        size_t count = 0;

        if (!rows)
                return 0;
        add_range(b, r, &count, 0, put_ret(b, RET_ABSENT));
        for (size_t i = 0, same; i < n && !b->full; i += same) {
                for (same = 0; i + same < n && v[i + same].nr == v[i].nr; same++)
                        rows[same] = v[i + same].row;
                add_range(b, r, &count, v[i].nr, put_rows(b, rows, same));
                add_range(b, r, &count, v[i].nr + 1, put_ret(b, RET_ABSENT));
        }
        return count;
}

int filter_build(const struct filter_row *rows, size_t n, enum security_profile profile,
                 struct filter **ret, struct err *e)
{
        AUTO(free) struct numbered *v = calloc(n + 1, sizeof(*v));
        AUTO(free) struct range *r = calloc(2 * n + 2, sizeof(*r));
        AUTO(free) struct sock_filter *f = calloc(INSN_MAX, sizeof(*f));
        struct emit b = { .f = f, .at = INSN_MAX };
        struct filter *out;
        size_t n_ranges;
        uint32_t top;
        int count;

        if (!v || !r || !f)
                return err_set(e, -ENOMEM, "seccomp policy: out of memory");
        count = resolve(rows, n, profile, v, e);
        if (count < 0)
                return count;
        n_ranges = put_ranges(&b, v, (size_t) count, r);
        if (n_ranges == 0)
                return err_set(e, -ENOMEM, "seccomp policy: out of memory");
        top = b.full ? 0 : put_tree(&b, r, 0, n_ranges);
        if (top != b.at) /* one range only: its place need not be the next instruction */
                (void) put(&b, BPF_JMP | BPF_JA, top - b.at, 0, 0);
        (void) put(&b, BPF_LD | BPF_W | BPF_ABS, OFF_NR, 0, 0);
        top = b.at;
        (void) put_if(&b, BPF_JEQ, seccomp_arch_native(), top,
                      put_ret(&b, SECCOMP_RET_KILL_PROCESS));
        (void) put(&b, BPF_LD | BPF_W | BPF_ABS, OFF_ARCH, 0, 0);
        if (b.full)
                return err_set(e, -E2BIG, "seccomp policy: more than %u instructions", INSN_MAX);
        out = malloc(sizeof *out + (INSN_MAX - b.at) * sizeof *f);
        if (!out)
                return err_set(e, -ENOMEM, "seccomp policy: out of memory");
        out->len = (unsigned short) (INSN_MAX - b.at);
        memcpy(out->insn, f + b.at, out->len * sizeof *f);
        *ret = out;
        return 0;
}
