/* slice_refused.c - what the device program of a group has refused: its end, which counts, and the
 * reading of that.
 *
 * The program's map is loaded with it in the engine or an operation process, and read by the engine.
 * #syscalls bpf fstat
 *
 * Theory of operation: the kernel keeps, for each group that the program is attached to, one value of
 * a map of the type CGROUP_STORAGE; so all clusters share one program and none can spoil another's
 * counts.  A value has eight places of a key and a number, and a number for whatever finds no place.
 * A key is type << 32 | major << 20 | minor, never 0; it is put into an empty place by
 * compare-and-exchange, so two CPUs cannot mix two devices.  Nobody holds the map but the program:
 * readers find it from the group, also after a restart of the engine. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/slice/slice_priv.h"

#define I(code_, dst, src, off_, imm_)                                                             \
        (struct bpf_insn)                                                                          \
        {                                                                                          \
                .code = (code_), .dst_reg = (dst), .src_reg = (src), .off = (int16_t) (off_),      \
                .imm = (int32_t) (imm_)                                                            \
        }
#define MOV    (BPF_ALU64 | BPF_MOV | BPF_X)
#define MOVI   (BPF_ALU64 | BPF_MOV | BPF_K)
#define LSHI   (BPF_ALU64 | BPF_LSH | BPF_K)
#define OR     (BPF_ALU64 | BPF_OR | BPF_X)
#define ATOMIC (BPF_STX | BPF_ATOMIC | BPF_DW)
#define JEQI   (BPF_JMP | BPF_JEQ | BPF_K)
#define JNE    (BPF_JMP | BPF_JNE | BPF_X)
#define CALL   (BPF_JMP | BPF_CALL)
#define EXIT   (BPF_JMP | BPF_EXIT)
#define KEY(p)                                                                                     \
        (offsetof(struct slice_refused_value, at[0]) + (p) * sizeof(struct slice_refused_place))
#define HITS(p) (KEY(p) + offsetof(struct slice_refused_place, count))

size_t slice_refused_tail(int map, struct bpf_insn to[static SLICE_REFUSED_INSNS])
{
        size_t n = 0;

        /* r6 = the key; see the head in slice_bpf.c */
        to[n++] = I(MOV, 6, 2, 0, 0);
        to[n++] = I(LSHI, 6, 0, 0, 32);
        to[n++] = I(LSHI, 4, 0, 0, 20);
        to[n++] = I(OR, 6, 4, 0, 0);
        to[n++] = I(OR, 6, 5, 0, 0);
        /* r7 = this group's value */
        to[n++] = I(BPF_LD | BPF_DW | BPF_IMM, 1, BPF_PSEUDO_MAP_FD, 0, map);
        to[n++] = I(0, 0, 0, 0, 0);
        to[n++] = I(MOVI, 2, 0, 0, 0);
        to[n++] = I(CALL, 0, 0, 0, BPF_FUNC_get_local_storage);
        to[n++] = I(MOV, 7, 0, 0, 0);
        to[n++] = I(MOVI, 8, 0, 0, 1);
        for (size_t p = 0; p < SLICE_REFUSED_MAX; p++) {
                to[n++] = I(MOVI, 0, 0, 0, 0);
                to[n++] = I(ATOMIC, 7, 6, KEY(p), BPF_CMPXCHG); /* r0 = what was there */
                to[n++] = I(JEQI, 0, 0, 1, 0);                  /* empty: ours now */
                to[n++] = I(JNE, 0, 6, 3, 0);                   /* another's: the next place */
                to[n++] = I(ATOMIC, 7, 8, HITS(p), BPF_ADD);
                to[n++] = I(MOVI, 0, 0, 0, 0);
                to[n++] = I(EXIT, 0, 0, 0, 0);
        }
        to[n++] = I(ATOMIC, 7, 8, offsetof(struct slice_refused_value, others), BPF_ADD);
        to[n++] = I(MOVI, 0, 0, 0, 0);
        to[n++] = I(EXIT, 0, 0, 0, 0);
        return n;
}

int slice_refused_map(struct err *e)
{
        union bpf_attr attr;
        int r;

        memset(&attr, 0, sizeof attr);
        attr.map_type = BPF_MAP_TYPE_CGROUP_STORAGE;
        attr.key_size = sizeof(struct bpf_cgroup_storage_key);
        attr.value_size = sizeof(struct slice_refused_value);
        memcpy(attr.map_name, "hvmm_refused", sizeof "hvmm_refused");
        r = slice_bpf(BPF_MAP_CREATE, &attr);
        return r < 0 ? err_errno(e, r, "make the device program's map") : r;
}

/* Descriptor of the first map of the program with this id; -ENOENT: it has none, or is gone. */
static int map_of(uint32_t prog_id)
{
        AUTO(fd) int prog = -EBADF;
        struct bpf_prog_info info = { 0 };
        union bpf_attr attr;
        uint32_t id = 0;
        int r;

        memset(&attr, 0, sizeof attr);
        attr.prog_id = prog_id;
        r = prog = slice_bpf(BPF_PROG_GET_FD_BY_ID, &attr);
        if (r < 0)
                return r;
        info.nr_map_ids = 1;
        info.map_ids = (uint64_t) (uintptr_t) &id;
        memset(&attr, 0, sizeof attr);
        attr.info.bpf_fd = (uint32_t) prog;
        attr.info.info_len = sizeof info;
        attr.info.info = (uint64_t) (uintptr_t) &info;
        r = slice_bpf(BPF_OBJ_GET_INFO_BY_FD, &attr);
        if (r < 0)
                return r;
        if (info.nr_map_ids == 0)
                return -ENOENT;
        memset(&attr, 0, sizeof attr);
        attr.map_id = id;
        return slice_bpf(BPF_MAP_GET_FD_BY_ID, &attr);
}

static int read_value(int dir, uint32_t prog, struct slice_refused_value *ret)
{
        struct bpf_cgroup_storage_key key = { .attach_type = BPF_CGROUP_DEVICE };
        AUTO(fd) int map = map_of(prog);
        union bpf_attr attr;
        struct stat st;

        if (map < 0)
                return map;
        if (fstat(dir, &st) < 0)
                return -errno;
        key.cgroup_inode_id = st.st_ino;
        memset(&attr, 0, sizeof attr);
        attr.map_fd = (uint32_t) map;
        attr.key = (uint64_t) (uintptr_t) &key;
        attr.value = (uint64_t) (uintptr_t) ret;
        return slice_bpf(BPF_MAP_LOOKUP_ELEM, &attr);
}

int slice_refusals(struct slice_host *h, const char *name, struct slice_refusals *ret,
                   struct err *e)
{
        AUTO(fd) int dir = -EBADF;
        struct slice_refused_value v;
        uint32_t ids[2] = { 0 };
        size_t n = 0;
        int r = slice_name_check(name, e);

        if (r < 0)
                return r;
        if (h->version == 1)
                return err_set(e, -ENOTSUP, "cgroup v1 does not tell what it refuses");
        dir = openat(h->hier[h->at[SLICE_CTRL_DEVICES]].root, name,
                     O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0)
                return err_errno(e, -errno, "open cgroup %s", name);
        r = slice_bpf_query(dir, ids, NELEM(ids), &n);
        if (r >= 0 && n != 1) /* it is being replaced this instant */
                r = -EAGAIN;
        if (r >= 0)
                r = read_value(dir, ids[0], &v);
        if (r < 0)
                return err_errno(e, r, "device program of %s", name);
        *ret = (struct slice_refusals){ .program = ids[0], .others = v.others };
        for (size_t p = 0; p < SLICE_REFUSED_MAX && v.at[p].key; p++)
                ret->dev[ret->n++] = (struct slice_refused){
                        .type = v.at[p].key >> 32 == BPF_DEVCG_DEV_BLOCK ? 'b' : 'c',
                        .major = (uint32_t) v.at[p].key >> 20,
                        .minor = (uint32_t) v.at[p].key & 0xFFFFFU,
                        .count = v.at[p].count,
                };
        return 0;
}
