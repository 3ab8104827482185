/* fuzz_store.c - libFuzzer target for the image store's formats (src/store).
 *
 * Input: a byte that says what follows.  Even: indexes, each behind its length (u16), as a fetcher
 * that was taken over would write them.  Odd: instructions for the log of a layer, from which our own
 * writer makes an index; the reader must accept it.  What the reader accepts is merged, becomes an
 * EROFS, and that is walked: every inode is reached, every name is in order, every pointer lies where
 * it may, and a second run gives the same bytes.  A trap is a finding. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "store/bytes.h"
#include "store/erofs.h"
#include "store/layer_log.h"
#include "store/layer_objects.h"

#define LAYERS 4
#define BYTES  (16U << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x))                                                                          \
                        __builtin_trap();                                                          \
        } while (0)

struct file {
        uint8_t *p;
        size_t len;
};

static struct file slurp(int fd)
{
        struct file f = { 0 };
        struct stat st;

        CHECK(fstat(fd, &st) == 0);
        f.len = (size_t) st.st_size;
        f.p = malloc(f.len + 1);
        CHECK(f.p && pread(fd, f.p, f.len, 0) == (ssize_t) f.len);
        return f;
}

/* --- the file system, read back --- */

struct image {
        struct file f;
        unsigned devices;
        uint64_t blocks[MERGE_LAYERS_MAX + 1];
        uint32_t inodes;
        uint8_t *seen; /* by nid */
};

static const uint8_t *at(const struct image *x, uint64_t where, uint64_t len)
{
        CHECK(where <= x->f.len && len <= x->f.len - where);
        return x->f.p + where;
}

static void check_chunks(const struct image *x, const uint8_t *inode, uint64_t where)
{
        uint64_t size = get64(inode + 8), bits = 12U + (get16(inode + 16) & 31U), left = size;

        CHECK(get16(inode + 16) >> 5 == 1);
        for (uint64_t i = 0; i << bits < size; i++) {
                const uint8_t *p = at(x, where + 8 * i, 8);
                uint64_t part = left < 1ULL << bits ? left : 1ULL << bits;

                left -= part;
                if (get32(p + 4) == UINT32_MAX)
                        continue;
                CHECK(get16(p + 2) >= 1 && get16(p + 2) <= x->devices);
                CHECK(get32(p + 4) + (part + 4095) / 4096 <= x->blocks[get16(p + 2)]);
        }
}

static void check_inode(struct image *x, uint64_t nid, uint64_t parent, unsigned depth);

/* One block of a directory; *@last is the name before. */
static void check_block(struct image *x, const uint8_t *p, size_t len, uint64_t nid,
                        uint64_t parent, struct layer_entry *last, unsigned depth)
{
        size_t n = get16(p + 8) / 12U;

        CHECK(len >= 12 && n >= 1 && n * 12 < len);
        for (size_t i = 0; i < n; i++) {
                size_t from = get16(p + i * 12 + 8);
                size_t to = i + 1 < n ? get16(p + (i + 1) * 12 + 8) : len;
                const char *name = (const char *) p + from;
                uint64_t child = get64(p + i * 12);

                CHECK(from >= n * 12 && from < to && to <= len);
                if (i + 1 == n) /* the last one ends where the zeros begin */
                        to = from + strnlen(name, to - from);
                CHECK(to - from >= 1 && to - from <= 255 && !memchr(name, '/', to - from));
                CHECK(!last->name ||
                      layer_name_compare(last->name, last->name_len, name, to - from) < 0);
                last->name = name;
                last->name_len = to - from;
                if (to - from == 1 && name[0] == '.')
                        CHECK(child == nid);
                else if (to - from == 2 && name[0] == '.' && name[1] == '.')
                        CHECK(child == parent);
                else
                        check_inode(x, child, nid, depth + 1);
        }
}

static void check_dir(struct image *x, const uint8_t *inode, uint64_t tail, uint64_t nid,
                      uint64_t parent, unsigned depth)
{
        uint64_t size = get64(inode + 8), block = get32(inode + 16);
        bool is_inline = (get16(inode) >> 1 & 7) == 2;
        struct layer_entry last = { 0 };

        CHECK(size > 0);
        for (uint64_t from = 0; from < size; from += 4096) {
                size_t len = (size_t) (size - from < 4096 ? size - from : 4096);
                bool in_tail = is_inline && from + 4096 > size;

                CHECK(!in_tail || tail / 4096 == (tail + len - 1) / 4096);
                check_block(x, at(x, in_tail ? tail : block * 4096 + from, len), len, nid, parent,
                            &last, depth);
        }
}

static void check_inode(struct image *x, uint64_t nid, uint64_t parent, unsigned depth)
{
        const uint8_t *p = at(x, nid * 32, 64);
        unsigned layout = get16(p) >> 1 & 7, xattrs = get16(p + 2);
        uint64_t behind = nid * 32 + 64 + (xattrs ? 12 + 4ULL * (xattrs - 1) : 0);

        CHECK((get16(p) & ~0xfU) == 0 && (get16(p) & 1) && depth <= LAYER_DEPTH_MAX);
        CHECK(nid * 32 / 4096 == (nid * 32 + 63) / 4096 && get32(p + 24) <= 65535 &&
              get32(p + 28) <= 65535 && get32(p + 40) < 1000000000 && get32(p + 44) > 0);
        (void) at(x, behind, 0);
        x->inodes += !x->seen[nid];
        if (S_ISDIR(get16(p + 4))) {
                CHECK(!x->seen[nid]); /* so there is no circle */
                x->seen[nid] = 1;
                check_dir(x, p, behind, nid, parent, depth);
                return;
        }
        x->seen[nid] = 1;
        if (layout == 4)
                check_chunks(x, p, (behind + 7) & ~7ULL);
        else if (layout == 2)
                CHECK(S_ISLNK(get16(p + 4)) &&
                      nid * 32 / 4096 == (behind + get64(p + 8) - 1) / 4096);
        else
                CHECK(layout == 0 && (get64(p + 8) == 0 || S_ISLNK(get16(p + 4))));
}

static void check_image(struct file f, const struct erofs_totals *t)
{
        struct image x = { .f = f };
        const uint8_t *sb = at(&x, 1024, 128);

        CHECK(f.len == t->bytes && f.len % 4096 == 0 && get32(sb + 36) == f.len / 4096);
        x.devices = get16(sb + 86);
        CHECK(x.devices <= MERGE_LAYERS_MAX);
        for (unsigned i = 1; i <= x.devices; i++)
                x.blocks[i] = get32(at(&x, 1152 + 128ULL * (i - 1), 128) + 64);
        x.seen = calloc(1, f.len / 32 + 1);
        CHECK(x.seen);
        check_inode(&x, get16(sb + 14), get16(sb + 14), 0);
        CHECK(x.inodes == t->inodes && get64(sb + 16) == t->inodes);
        free(x.seen);
}

/* --- from indexes to the file system --- */

static struct file build(const struct layer_index *layers, size_t n, struct erofs_totals *t)
{
        AUTO(fd) int out = memfd_create("meta", MFD_CLOEXEC);
        AUTO(merge_done) struct merge m = { 0 };
        struct err e = { 0 };

        CHECK(out >= 0 && merge_layers(layers, n, -EBADF, &m, &e) >= 0);
        CHECK(erofs_write(&m, out, t, &e) >= 0);
        return slurp(out);
}

/* What a publisher would say of the objects. */
static uint8_t *attach(struct layer_index *x)
{
        size_t len = OBJECTS_HEADER_BYTES + (size_t) x->n_objects * OBJECTS_ROW_BYTES;
        uint8_t *p = calloc(1, len);

        CHECK(p);
        memcpy(p, "hvmmobj1", 8);
        put32(p + 8, x->n_objects);
        for (uint32_t i = 0; i < x->n_objects; i++) {
                uint64_t size = layer_index_object(x, i);

                put64(p + OBJECTS_HEADER_BYTES + i * OBJECTS_ROW_BYTES + LAYER_SHA_BYTES, size);
                p[OBJECTS_HEADER_BYTES + i * OBJECTS_ROW_BYTES] = size > 0;
        }
        CHECK(layer_objects_attach(x, p, len, NULL) >= 0);
        return p;
}

static void build_and_check(struct layer_index *layers, size_t n)
{
        struct erofs_totals t = { 0 };
        uint8_t *names[LAYERS];
        struct file one, two;

        if (n == 0)
                return;
        for (size_t i = 0; i < n; i++)
                names[i] = attach(&layers[i]);
        one = build(layers, n, &t);
        check_image(one, &t);
        two = build(layers, n, &t);
        CHECK(one.len == two.len && memcmp(one.p, two.p, one.len) == 0);
        free(one.p);
        free(two.p);
        for (size_t i = 0; i < n; i++)
                free(names[i]);
}

static void try_indexes(const uint8_t *data, size_t size)
{
        struct layer_index layers[LAYERS] = { 0 };
        uint8_t *copies[LAYERS];
        size_t n = 0;

        while (size >= 2 && n < LAYERS) {
                size_t len = get16(data);

                data += 2;
                size -= 2;
                len = len < size ? len : size;
                copies[n] = malloc(len + 1); /* so that a byte too far is seen */
                CHECK(copies[n]);
                memcpy(copies[n], data, len);
                copies[n] = realloc(copies[n], len ? len : 1);
                if (layer_index_open(copies[n], len, &layers[n], NULL) >= 0)
                        n++;
                else
                        free(copies[n]);
                data += len;
                size -= len;
        }
        build_and_check(layers, n);
        for (size_t i = 0; i < n; i++)
                free(copies[i]);
}

/* --- from instructions to an index --- */

struct input {
        const uint8_t *p, *end;
};

static unsigned take(struct input *in)
{
        return in->p < in->end ? *in->p++ : 0;
}

/* One to four short names of a few letters. */
static void take_path(struct input *in, char buf[64])
{
        unsigned v = take(in), n = v & 3;
        char *p = buf;

        for (unsigned i = 0; i <= n; i++) {
                if (i > 0)
                        *p++ = '/';
                v = i == 0 ? v >> 2 : take(in);
                *p++ = "ab-.\x01!c\xff"[v & 7];
                if (v & 8)
                        *p++ = "ab-x"[v >> 4 & 3];
                if (p[-1] == '.' && (p - 1 == buf || p[-2] == '/')) /* never the name "." */
                        *p++ = 'x';
        }
        *p = '\0';
}

static void add_entry(struct layer_log *l, struct input *in, unsigned op, const char *path,
                      uint32_t *objects)
{
        static const enum layer_type types[] = { LAYER_DIR,     LAYER_FILE, LAYER_OBJECT,
                                                 LAYER_SYMLINK, LAYER_FIFO, LAYER_DIR };
        static const uint8_t value[32];
        struct layer_entry n = { .type = types[op % NELEM(types)], .mode = 0755 };
        uint32_t chunks[2] = { 0, LAYER_HOLE };
        uint8_t xattrs[64];
        struct layer_xattr x = { "user.x", 6, value, take(in) % 32 };

        n.uid = take(in);
        n.mtime_s = take(in);
        if (n.type == LAYER_FILE || n.type == LAYER_OBJECT) {
                n.size = take(in) * 37U + (n.type == LAYER_OBJECT);
                n.n_chunks = (uint32_t) layer_chunk_count(
                        n.size, n.chunk_bits = layer_chunk_bits_whole(n.size));
                chunks[0] = take(in) & 1 ? 0 : LAYER_HOLE;
        }
        n.object = n.type == LAYER_OBJECT ? (*objects)++ : 0;
        if (n.type == LAYER_SYMLINK) {
                n.target = path;
                n.size = strlen(path);
        } else if (n.type != LAYER_FIFO && x.value_len & 1) {
                n.xattrs = xattrs;
                n.xattrs_len = layer_xattr_put(xattrs, sizeof xattrs, &x);
        }
        CHECK(layer_log_add(l, path, &n, chunks, NULL) >= 0);
}

static bool write_layer(struct input *in, unsigned n_ops, struct file *ret)
{
        static const struct layer_totals totals = { .pack_bytes = BYTES, .threshold = 1 };
        const struct layer_log_limits limits = { .max_bytes = BYTES };
        AUTO(fd) int out = memfd_create("index", MFD_CLOEXEC);
        AUTO(layer_log_free) struct layer_log *l = NULL;
        char path[64], target[64];
        uint32_t objects = 0;

        CHECK(out >= 0 && layer_log_new(-EBADF, &limits, &l, NULL) >= 0);
        for (unsigned i = 0; i < n_ops && in->p < in->end; i++) {
                unsigned op = take(in);

                take_path(in, path);
                if (op % 16 == 0)
                        CHECK(layer_log_whiteout(l, path, NULL) >= 0);
                else if (op % 16 == 1)
                        CHECK(layer_log_opaque(l, op & 16 ? path : "", NULL) >= 0);
                else if (op % 16 <= 4) {
                        take_path(in, target);
                        CHECK(layer_log_link(l, path, target, NULL) >= 0);
                } else
                        add_entry(l, in, op, path, &objects);
        }
        if (layer_log_finish(l, &totals, out, NULL) < 0)
                return false;
        *ret = slurp(out);
        return true;
}

static void try_logs(const uint8_t *data, size_t size)
{
        struct input in = { data, data + size };
        struct layer_index layers[LAYERS] = { 0 };
        struct file files[LAYERS];
        size_t n = 0;

        while (in.p < in.end && n < LAYERS) {
                struct err e = { 0 };

                if (!write_layer(&in, take(&in), &files[n]))
                        continue;
                CHECK(layer_index_open(files[n].p, files[n].len, &layers[n], &e) >= 0);
                n++;
        }
        build_and_check(layers, n);
        for (size_t i = 0; i < n; i++)
                free(files[i].p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        if (size > 0 && data[0] & 1)
                try_logs(data + 1, size - 1);
        else if (size > 0)
                try_indexes(data + 1, size - 1);
        return 0;
}
