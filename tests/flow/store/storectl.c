/* storectl.c - the image store's formats from a command line, for tests.
 *
 *   storectl layer DIR THRESHOLD DIFF-ID < TAR      makes DIR/pack, DIR/index, DIR/objects/, and,
 *                                                   as the publisher would, DIR/objects.names
 *   storectl check INDEX                            0 when it is one
 *   storectl image OUT INDEX...                     bottom first; prints a line of numbers and the
 *                                                   layers whose packs are the devices
 *   storectl mount META TARGET DEVICE...            attached there, read-only */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "fetch/storetar.h"
#include "store/image_build.h"
#include "store/layer_objects.h"
#include "store/metamount.h"

#include <linux/mount.h>

static int create(int dir, const char *name, struct err *e)
{
        int fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

        return fd < 0 ? err_errno(e, -errno, "%s", name) : fd;
}

static int parse_sha(const char *hex, uint8_t sha[LAYER_SHA_BYTES])
{
        for (size_t i = 0; i < LAYER_SHA_BYTES; i++) {
                char two[3] = { hex[2 * i], hex[2 * i] ? hex[2 * i + 1] : '\0', '\0' };
                uint64_t v;

                if (str_u64_prefix(two, 16, &v) < 0)
                        return -EINVAL;
                sha[i] = (uint8_t) v;
        }
        return 0;
}

static int open_index(const char *path, struct layer_index *ret, struct err *e)
{
        AUTO(fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
        struct stat st;
        void *p;

        if (fd < 0 || fstat(fd, &st) < 0)
                return err_errno(e, -errno, "%s", path);
        if (st.st_size == 0)
                return err_set(e, -EBADMSG, "%s is empty", path);
        p = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_PRIVATE, fd, 0); /* until we exit */
        if (p == MAP_FAILED)
                return err_errno(e, -errno, "%s", path);
        return layer_index_open(p, (size_t) st.st_size, ret, e);
}

static int do_check(char **argv, struct err *e)
{
        struct layer_index x;
        int r = open_index(argv[0], &x, e);

        if (r >= 0)
                (void) printf("%u %u %u\n", x.n_entries, x.n_objects, x.n_groups);
        return r;
}

/* The header and the table of an index, heap in *@ret_p: all that the publisher reads of it. */
static int read_table(int fd, uint8_t **ret_p, struct layer_index *ret, struct err *e)
{
        uint8_t head[LAYER_HEADER_BYTES];
        AUTO(free) uint8_t *p = NULL;
        struct stat st;
        size_t len;
        int r;

        if (pread(fd, head, sizeof head, 0) != sizeof head || fstat(fd, &st) < 0)
                return err_errno(e, -EIO, "index");
        len = layer_index_table_bytes(head);
        p = malloc(len);
        if (!p || pread(fd, p, len, 0) != (ssize_t) len)
                return err_errno(e, -EIO, "index");
        r = layer_index_open_table(p, len, (uint64_t) st.st_size, ret, e);
        if (r >= 0)
                *ret_p = TAKE(p);
        return r;
}

/* What the publisher does: hash the objects and write down their digests. */
static int name_objects(int dir, int index, int objects, struct err *e)
{
        AUTO(fd) int out = create(dir, "objects.names", e);
        AUTO(sink_free) struct sink *s = NULL;
        AUTO(free) uint8_t *p = NULL;
        uint8_t(*digests)[LAYER_SHA_BYTES];
        struct layer_index x;
        int r = out < 0 ? out : read_table(index, &p, &x, e);

        if (r < 0)
                return r;
        digests = calloc(x.n_objects + 1UL, sizeof *digests);
        r = layer_objects_hash(&x, objects, digests, e);
        if (r >= 0)
                r = sink_new(out, &s, e);
        if (r >= 0) {
                layer_objects_put(s, &x, (const uint8_t(*)[LAYER_SHA_BYTES]) digests);
                r = sink_flush(s, e);
        }
        free(digests);
        return r;
}

static int do_layer(char **argv, struct err *e)
{
        AUTO(fd) int dir = open(argv[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        AUTO(fd) int pack = -EBADF, index = -EBADF, objects = -EBADF, scratch = -EBADF;
        AUTO(fd) int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        struct storetar_limits limits = { 64ULL << 30, 10000000 };
        AUTO(storetar_free) struct storetar *t = NULL;
        AUTO(result_free) struct result *res = NULL;
        AUTO(stream_free) struct stream *plain = NULL;
        struct storetar_totals totals;
        struct storetar_out out = { 0 };
        uint8_t diff_id[LAYER_SHA_BYTES];
        struct stream *s = NULL;
        int r;

        if (dir < 0 || (mkdirat(dir, "objects", 0755) < 0 && errno != EEXIST))
                return err_errno(e, -errno, "%s", argv[0]);
        pack = create(dir, "pack", e);
        index = create(dir, "index", e);
        scratch = create(dir, "scratch", e);
        objects = openat(dir, "objects", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (pack < 0 || index < 0 || scratch < 0 || objects < 0)
                return -EEXIST;
        (void) unlinkat(dir, "scratch", 0);
        out = (struct storetar_out){
                .pack = pack, .index = index, .objects = objects, .scratch = scratch
        };
        if (str_u64(argv[1], 0, UINT64_MAX, &out.threshold) < 0 || parse_sha(argv[2], diff_id) < 0)
                return err_set(e, -EINVAL, "arguments");
        r = result_new(null, 0, &res);
        if (r >= 0)
                r = stream_fd_new(fcntl(0, F_DUPFD_CLOEXEC, 3), &s, e);
        if (r >= 0)
                r = stream_decode_new(s, &plain, e);
        if (r >= 0)
                r = storetar_read(plain, &out, &limits, res, &t, e);
        if (r >= 0)
                r = storetar_finish(t, diff_id, &totals, e);
        if (r >= 0)
                r = name_objects(dir, index, objects, e);
        if (r >= 0)
                (void) printf("%llu %llu %llu\n", (unsigned long long) totals.pack_bytes,
                              (unsigned long long) totals.object_bytes,
                              (unsigned long long) totals.entries);
        return r;
}

static int print_devices(const int *fds, size_t n, struct err *e)
{
        struct layer_index layers[MERGE_LAYERS_MAX];
        unsigned devices[MERGE_LAYERS_MAX], n_devices;

        for (size_t i = 0; i < n; i++) {
                AUTO(free) uint8_t *p = NULL;
                int r = read_table(fds[i], &p, &layers[i], e);

                if (r < 0)
                        return r;
        }
        n_devices = erofs_devices(layers, n, devices);
        for (unsigned i = 0; i < n_devices; i++)
                (void) printf(" %u", devices[i]);
        (void) printf("\n");
        return 0;
}

/* objects.names in the directory of an index; -EBADF when there is none. */
static int names_beside(const char *index)
{
        const char *slash = strrchr(index, '/');
        AUTO(free)
        char *path = str_fmt("%.*s/objects.names", slash ? (int) (slash - index) : 1,
                             slash ? index : ".");
        int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

        return fd < 0 ? -EBADF : fd;
}

static int do_image(char **argv, struct err *e)
{
        AUTO(fd) int out = create(AT_FDCWD, argv[0], e), scratch = -EBADF;
        AUTO(free) char *name = str_fmt("%s.scratch", argv[0]);
        int fds[MERGE_LAYERS_MAX], objects[MERGE_LAYERS_MAX]; /* open until we exit */
        struct erofs_totals totals;
        size_t n = 0;
        int r;

        if (out < 0 || !name)
                return -EIO;
        scratch = create(AT_FDCWD, name, e);
        (void) unlink(name);
        for (; argv[n + 1] && n < NELEM(fds); n++) {
                fds[n] = open(argv[n + 1], O_RDONLY | O_CLOEXEC);
                if (fds[n] < 0)
                        return err_errno(e, -errno, "%s", argv[n + 1]);
                objects[n] = names_beside(argv[n + 1]);
        }
        r = image_build(fds, objects, n, scratch, out, &totals, e);
        if (r < 0)
                return r;
        (void) printf("%llu %u %u", (unsigned long long) totals.bytes, totals.inodes,
                      totals.objects);
        return print_devices(fds, n, e);
}

static int do_mount(char **argv, struct err *e)
{
        size_t n = 0;

        while (argv[2 + n])
                n++;
        AUTO(fd) int mnt = metamount(argv[0], (const char *const *) argv + 2, n, e);

        if (mnt < 0)
                return mnt;
        if (syscall(SYS_move_mount, mnt, "", AT_FDCWD, argv[1], MOVE_MOUNT_F_EMPTY_PATH) < 0)
                return err_errno(e, -errno, "%s", argv[1]);
        return 0;
}

int main(int argc, char **argv)
{
        static const struct {
                const char *name;
                int min;
                int (*run)(char **argv, struct err *e);
        } verbs[] = {
                { "layer", 3, do_layer },
                { "check", 1, do_check },
                { "image", 2, do_image },
                { "mount", 2, do_mount },
        };
        struct err e = { 0 };

        for (size_t i = 0; argc > 1 && i < NELEM(verbs); i++)
                if (str_eq(argv[1], verbs[i].name) && argc - 2 >= verbs[i].min) {
                        int r = verbs[i].run(argv + 2, &e);

                        if (r < 0)
                                (void) fprintf(stderr, "error %d %s\n", -r, e.msg);
                        return r < 0;
                }
        (void) fprintf(stderr, "usage: storectl layer|check|image|mount ARGS\n");
        return 2;
}
