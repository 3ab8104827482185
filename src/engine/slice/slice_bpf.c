/* slice_bpf.c - the device filter of cgroup v2: a small generated BPF program.
 *
 * Runs in the engine at start (base program) and in operation processes (clusters with further
 * devices).  #syscalls bpf
 * Always: the program allows an access only when one rule covers its type, both numbers and every
 * wanted right; all else falls through to "deny", which is counted (slice_refused.c).
 *
 * Theory of operation: the kernel calls the program with r1 = { access << 16 | type, major, minor }
 * and takes r0 = 1 as "allowed".  The head splits that into r2 type, r3 access, r4 major, r5 minor;
 * each rule then is a run of "not equal: jump to the next rule", ending in r0 = 1, exit; r1 is free for
 * them.  The end has r2, r4 and r5 as the head left them. */
#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/slice/slice_priv.h"

#define PROGS_MAX 64U /* device programs on one group: the kernel's own limit */
#define INSNS_MAX 4096U

/* The handful of instructions that are used; dst/src are register numbers. */
#define I_LOAD(dst, src, off_)                                                                     \
        {                                                                                          \
                .code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = (dst), .src_reg = (src),             \
                .off = (off_)                                                                      \
        }
#define I_MOV(dst, src)                                                                            \
        {                                                                                          \
                .code = BPF_ALU | BPF_MOV | BPF_X, .dst_reg = (dst), .src_reg = (src)              \
        }
#define I_MOVI(dst, v)                                                                             \
        {                                                                                          \
                .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = (dst), .imm = (v)                  \
        }
#define I_ANDI(dst, v)                                                                             \
        {                                                                                          \
                .code = BPF_ALU | BPF_AND | BPF_K, .dst_reg = (dst), .imm = (v)                    \
        }
#define I_RSHI(dst, v)                                                                             \
        {                                                                                          \
                .code = BPF_ALU | BPF_RSH | BPF_K, .dst_reg = (dst), .imm = (v)                    \
        }
#define I_JNEI(dst, v)                                                                             \
        {                                                                                          \
                .code = BPF_JMP | BPF_JNE | BPF_K, .dst_reg = (dst), .imm = (v)                    \
        }
#define I_JNE(dst, src)                                                                            \
        {                                                                                          \
                .code = BPF_JMP | BPF_JNE | BPF_X, .dst_reg = (dst), .src_reg = (src)              \
        }
#define I_EXIT()                                                                                   \
        {                                                                                          \
                .code = BPF_JMP | BPF_EXIT                                                         \
        }

struct emit {
        struct bpf_insn *to;
        size_t n, max;
};

static void add(struct emit *m, struct bpf_insn i)
{
        if (m->n < m->max)
                m->to[m->n] = i;
        m->n++; /* counted beyond the end, so that the caller sees the overflow */
}

static int access_bits(const char *s)
{
        int bits = 0;

        for (; *s; s++)
                bits |= *s == 'r'   ? BPF_DEVCG_ACC_READ
                        : *s == 'w' ? BPF_DEVCG_ACC_WRITE
                                    : BPF_DEVCG_ACC_MKNOD;
        return bits;
}

static void add_rule(struct emit *m, const struct slice_device *d)
{
        size_t start = m->n;

        add(m,
            (struct bpf_insn) I_JNEI(2, d->type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR));
        add(m, (struct bpf_insn) I_MOV(1, 3));
        add(m, (struct bpf_insn) I_ANDI(1, access_bits(d->access)));
        add(m, (struct bpf_insn) I_JNE(1, 3)); /* wants more than this rule gives */
        if (d->major >= 0)
                add(m, (struct bpf_insn) I_JNEI(4, d->major));
        if (d->minor >= 0)
                add(m, (struct bpf_insn) I_JNEI(5, d->minor));
        add(m, (struct bpf_insn) I_MOVI(0, 1));
        add(m, (struct bpf_insn) I_EXIT());
        for (size_t i = start; i < m->n && i < m->max; i++)
                if (BPF_OP(m->to[i].code) == BPF_JNE && BPF_CLASS(m->to[i].code) == BPF_JMP)
                        m->to[i].off = (int16_t) (m->n - i - 1);
}

int slice_bpf_generate(const struct slice_device *const *sets, const size_t *n_set, size_t n_sets,
                       int map, struct bpf_insn *ret, size_t max, size_t *ret_n, struct err *e)
{
        static const struct bpf_insn head[] = {
                I_LOAD(2, 1, 0), I_MOV(3, 2),     I_ANDI(2, 0xFFFF),
                I_RSHI(3, 16),   I_LOAD(4, 1, 4), I_LOAD(5, 1, 8),
        };
        struct bpf_insn tail[SLICE_REFUSED_INSNS];
        struct emit m = { .to = ret, .max = max };
        size_t n_tail = slice_refused_tail(map, tail);
        char text[48];

        for (size_t i = 0; i < NELEM(head); i++)
                add(&m, head[i]);
        for (size_t s = 0; s < n_sets; s++)
                for (size_t i = 0; i < n_set[s]; i++) {
                        int r = slice_device_rule(&sets[s][i], text, sizeof text, e);

                        if (r < 0)
                                return r;
                        add_rule(&m, &sets[s][i]);
                }
        for (size_t i = 0; i < n_tail; i++)
                add(&m, tail[i]);
        if (m.n > max)
                return err_set(e, -E2BIG, "too many device rules");
        *ret_n = m.n;
        return 0;
}

int slice_bpf(int cmd, union bpf_attr *attr)
{
        long r = syscall(SYS_bpf, cmd, attr, sizeof *attr);

        return r < 0 ? -errno : (int) r;
}

int slice_bpf_load(const struct slice_device *extra, size_t n_extra, struct err *e)
{
        const struct slice_device *sets[] = { slice_base_devices, extra };
        const size_t n_set[] = { slice_n_base_devices, n_extra };
        AUTO(free) struct bpf_insn *insn = calloc(INSNS_MAX, sizeof *insn);
        AUTO(fd) int map = -EBADF;
        union bpf_attr attr;
        size_t n = 0;
        int r;

        if (!insn)
                return err_set(e, -ENOMEM, "out of memory");
        r = map = slice_refused_map(e);
        if (r < 0)
                return r;
        r = slice_bpf_generate(sets, n_set, NELEM(sets), map, insn, INSNS_MAX, &n, e);
        if (r < 0)
                return r;
        memset(&attr, 0, sizeof attr);
        attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
        attr.insns = (uint64_t) (uintptr_t) insn;
        attr.insn_cnt = (uint32_t) n;
        attr.license = (uint64_t) (uintptr_t) "Apache-2.0";
        memcpy(attr.prog_name, "hvmm_devices", sizeof "hvmm_devices");
        r = slice_bpf(BPF_PROG_LOAD, &attr);
        return r < 0 ? err_errno(e, r, "load the device program") : r;
}

int slice_bpf_query(int dir, uint32_t *ids, size_t max, size_t *ret_n)
{
        union bpf_attr attr;
        int r;

        memset(&attr, 0, sizeof attr);
        attr.query.target_fd = (uint32_t) dir;
        attr.query.attach_type = BPF_CGROUP_DEVICE;
        attr.query.prog_ids = (uint64_t) (uintptr_t) ids;
        attr.query.prog_cnt = (uint32_t) max;
        r = slice_bpf(BPF_PROG_QUERY, &attr);
        *ret_n = attr.query.prog_cnt; /* on ENOSPC all that there are */
        return r;
}

/* Descriptors of the programs on @dir now. */
static int attached(int dir, int *fds, size_t max, size_t *ret_n, struct err *e)
{
        uint32_t ids[PROGS_MAX] = { 0 };
        size_t n = 0;
        int r = slice_bpf_query(dir, ids, PROGS_MAX, &n);

        if (r < 0)
                return err_errno(e, r, "ask for device programs");
        *ret_n = 0;
        for (size_t i = 0; i < n && *ret_n < max; i++) {
                union bpf_attr get;

                memset(&get, 0, sizeof get);
                get.prog_id = ids[i];
                r = slice_bpf(BPF_PROG_GET_FD_BY_ID, &get);
                if (r >= 0)
                        fds[(*ret_n)++] = r;
        }
        return 0;
}

int slice_bpf_attach(int dir, int prog, struct err *e)
{
        int old[PROGS_MAX];
        union bpf_attr attr;
        size_t n = 0;
        int r = attached(dir, old, NELEM(old), &n, e);

        if (r < 0)
                return r;
        memset(&attr, 0, sizeof attr);
        attr.target_fd = (uint32_t) dir;
        attr.attach_bpf_fd = (uint32_t) prog;
        attr.attach_type = BPF_CGROUP_DEVICE;
        attr.attach_flags = BPF_F_ALLOW_MULTI;
        r = slice_bpf(BPF_PROG_ATTACH, &attr);
        if (r < 0)
                (void) err_errno(e, r, "attach the device program");
        for (size_t i = 0; i < n; i++) {
                attr.attach_bpf_fd = (uint32_t) old[i];
                attr.attach_flags = 0;
                if (r >= 0) {
                        r = slice_bpf(BPF_PROG_DETACH, &attr);
                        if (r < 0)
                                (void) err_errno(e, r, "detach the old device program");
                }
                (void) fd_close(old[i]);
        }
        return r < 0 ? r : 0;
}
