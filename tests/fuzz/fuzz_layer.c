/* fuzz_layer.c - libFuzzer target for a layer's bytes: decompression, tar, files (src/fetch).
 *
 * Input: the blob.  It is unpacked into a directory on tmpfs that has a sibling with one file.
 * Checked beside memory errors: the sibling is untouched, no device node but 0:0 came into being, no
 * attribute that a layer may not set, and the totals hold.  A trap is a finding.  Needs root only
 * for owners; refused owners are an error like another. */
#include <fcntl.h>
#include <ftw.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "fetch/untar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x))                                                                          \
                        __builtin_trap();                                                          \
        } while (0)

static int look(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
        char names[4096];
        ssize_t n;

        (void) type;
        (void) ftw;
        CHECK(!S_ISBLK(st->st_mode));
        CHECK(!S_ISCHR(st->st_mode) || st->st_rdev == makedev(0, 0));
        n = llistxattr(path, names, sizeof names);
        for (char *p = names; n > 0 && p < names + n; p += strlen(p) + 1)
                CHECK(tree_xattr_allowed(p));
        return 0;
}

static void unpack(int base, const uint8_t *data, size_t size)
{
        static const struct untar_limits limits = { 1 << 20, 1000 };
        int fd = memfd_create("blob", MFD_CLOEXEC);
        AUTO(fd) int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        AUTO(result_free) struct result *res = NULL;
        AUTO(tree_free) struct tree *tree = NULL;
        AUTO(stream_free) struct stream *plain = NULL;
        struct untar_totals total = { 0 };
        struct stream *s = NULL;

        CHECK(fd >= 0 && fd_write_full(fd, data, size) >= 0 && lseek(fd, 0, SEEK_SET) == 0);
        CHECK(result_new(null, size, &res) >= 0);
        CHECK(stream_fd_new(fd, &s, NULL) >= 0);
        if (stream_decode_new(s, &plain, NULL) < 0)
                return;
        CHECK(tree_new(fd_open_beneath(base, "layer", O_PATH | O_DIRECTORY, 0), &tree, NULL) >= 0);
        if (untar(plain, tree, &limits, res, &total, NULL) >= 0)
                CHECK(total.bytes <= limits.max_bytes && total.entries <= limits.max_entries);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        char dir[] = "/dev/shm/fuzz-layer-XXXXXX", path[64];
        AUTO(free) char *text = NULL;
        AUTO(fd) int base = -EBADF;
        size_t len = 0;

        CHECK(mkdtemp(dir));
        base = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        CHECK(base >= 0 && mkdirat(base, "layer", 0755) == 0);
        CHECK(fd_replace_file(base, "sibling", "untouched", 9, 0600, false) >= 0);
        unpack(base, data, size);
        CHECK(fd_read_file(base, "sibling", 64, &text, &len) >= 0 && str_eq(text, "untouched"));
        (void) snprintf(path, sizeof path, "%s/layer", dir);
        CHECK(nftw(path, look, 16, FTW_PHYS) == 0);
        CHECK(fd_rm_rf(base, "layer") >= 0 && fd_rm_rf(base, "sibling") >= 0 && rmdir(dir) == 0);
        return 0;
}
