/* fuzz_storetar.c - libFuzzer target for a layer's bytes on their way into the image store: the stages
 * decompression, tar, pack, log and index (src/fetch/storetar.c, src/store).
 *
 * Input: a byte for the threshold, then the blob.  What is written must be an index that the reader
 * accepts; its pack has the length it names and stays below the limit; every object of its table is
 * there with its size.  A trap is a finding. */
#include <dirent.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "fetch/storetar.h"
#include "store/layer_objects.h"

#define MAX_BYTES (1U << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x))                                                                          \
                        __builtin_trap();                                                          \
        } while (0)

static uint8_t *slurp(int fd, size_t *ret_len)
{
        struct stat st;
        uint8_t *p;

        CHECK(fstat(fd, &st) == 0);
        *ret_len = (size_t) st.st_size;
        p = malloc(*ret_len + 1);
        CHECK(p && pread(fd, p, *ret_len, 0) == (ssize_t) *ret_len);
        return p;
}

static void check_result(const struct storetar_out *out)
{
        struct layer_index x;
        struct err e = { 0 };
        struct stat pack;
        size_t len;
        uint8_t *p = slurp(out->index, &len);
        uint8_t(*digests)[LAYER_SHA_BYTES];
        uint64_t bytes = 0;

        CHECK(layer_index_open(p, len, &x, &e) >= 0);
        CHECK(fstat(out->pack, &pack) == 0 && (uint64_t) pack.st_size == x.totals.pack_bytes);
        digests = calloc(x.n_objects + 1UL, sizeof *digests);
        CHECK(digests && layer_objects_hash(&x, out->objects, digests, NULL) >= 0);
        for (uint32_t i = 0; i < x.n_objects; i++)
                bytes += layer_index_object(&x, i);
        CHECK(x.totals.pack_bytes + bytes <= MAX_BYTES);
        free(digests);
        free(p);
}

static void run(int objects, const uint8_t *data, size_t size)
{
        static const struct storetar_limits limits = { MAX_BYTES, 1000 };
        static const uint8_t diff_id[LAYER_SHA_BYTES];
        AUTO(fd) int pack = memfd_create("pack", MFD_CLOEXEC);
        AUTO(fd) int index = memfd_create("index", MFD_CLOEXEC);
        AUTO(fd) int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        const struct storetar_out out = { pack, index, objects, -EBADF, data[0] };
        AUTO(result_free) struct result *res = NULL;
        AUTO(storetar_free) struct storetar *t = NULL;
        AUTO(stream_free) struct stream *plain = NULL;
        struct storetar_totals totals;
        struct stream *s = NULL;
        int fd = memfd_create("blob", MFD_CLOEXEC);

        CHECK(fd >= 0 && fd_write_full(fd, data + 1, size - 1) >= 0 && lseek(fd, 0, SEEK_SET) == 0);
        CHECK(result_new(null, size, &res) >= 0 && stream_fd_new(fd, &s, NULL) >= 0);
        if (stream_decode_new(s, &plain, NULL) >= 0 &&
            storetar_read(plain, &out, &limits, res, &t, NULL) >= 0 &&
            storetar_finish(t, diff_id, &totals, NULL) >= 0)
                check_result(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        char dir[] = "/dev/shm/fuzz-storetar-XXXXXX";
        AUTO(fd) int base = -EBADF, objects = -EBADF;

        if (size == 0)
                return 0;
        CHECK(mkdtemp(dir));
        base = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        CHECK(base >= 0 && mkdirat(base, "objects", 0755) == 0);
        objects = openat(base, "objects", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        CHECK(objects >= 0);
        run(objects, data, size);
        CHECK(fd_rm_rf(base, "objects") >= 0 && rmdir(dir) == 0);
        return 0;
}
