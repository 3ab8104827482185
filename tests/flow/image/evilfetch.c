/* evilfetch.c - a vmm-fetch that a layer has taken over, for tests of whoever believes it.
 *
 * It does its work with the parts of the real one, without a sandbox of its own, and then, before it
 * says "done", what the word at the end of its own file tells: "EVIL:word\n". */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/str.h"
#include "fetch/mode.h"

static void must(int ok)
{
        if (!ok)
                abort();
}

static void flip(int dir, const char *path, off_t at)
{
        AUTO(fd) int fd = openat(dir, path, O_RDWR | O_CLOEXEC);
        char c = 0;

        must(fd >= 0 && pread(fd, &c, 1, at) == 1);
        c ^= 1;
        must(pwrite(fd, &c, 1, at) == 1);
}

static void resize(int dir, const char *path, off_t by)
{
        AUTO(fd) int fd = openat(dir, path, O_RDWR | O_CLOEXEC);
        struct stat st;

        must(fd >= 0 && fstat(fd, &st) == 0 && ftruncate(fd, st.st_size + by) == 0);
}

static void object_flip(int dir)
{
        flip(dir, "objects/0", 1000);
}

static void object_missing(int dir)
{
        must(unlinkat(dir, "objects/0", 0) == 0);
}

static void object_short(int dir)
{
        resize(dir, "objects/0", -1);
}

static void object_fifo(int dir)
{
        object_missing(dir);
        must(mkfifoat(dir, "objects/0", 0666) == 0);
}

static void object_link(int dir)
{
        object_missing(dir);
        must(symlinkat("/etc/passwd", dir, "objects/0") == 0);
}

static void object_twice(int dir)
{
        must(linkat(dir, "objects/0", dir, "objects/kept", 0) == 0);
}

static void objects_elsewhere(int dir)
{
        must(renameat(dir, "objects", dir, "real") == 0 && symlinkat("real", dir, "objects") == 0);
}

static void index_other(int dir)
{
        flip(dir, "index", 56); /* the diff id */
}

static void index_threshold(int dir)
{
        flip(dir, "index", 24);
}

static void index_damaged(int dir)
{
        flip(dir, "index", 128 + 8 + 8); /* behind header and table: the root's mode */
        flip(dir, "index", 128 + 8 + 7);
}

static void index_short(int dir)
{
        AUTO(fd) int fd = openat(dir, "index", O_RDWR | O_CLOEXEC);

        must(ftruncate(fd, 100) == 0);
}

static void index_huge(int dir)
{
        resize(dir, "index", (off_t) 3 << 30);
}

/* The index says that there is one more object, whose size it takes from what follows. */
static void index_more_objects(int dir)
{
        flip(dir, "index", 44);
        flip(dir, "index", 45);
}

static void pack_long(int dir)
{
        resize(dir, "pack", 4096);
}

/* Holes cost nothing to whoever makes them. */
static void pack_vast(int dir)
{
        const uint64_t bytes = 2ULL << 30;
        AUTO(fd) int pack = openat(dir, "pack", O_RDWR | O_CLOEXEC);
        AUTO(fd) int index = openat(dir, "index", O_RDWR | O_CLOEXEC);

        must(pack >= 0 && index >= 0 && ftruncate(pack, (off_t) bytes) == 0);
        must(pwrite(index, &bytes, sizeof bytes, 16) == sizeof bytes);
}

static void pack_link(int dir)
{
        must(unlinkat(dir, "pack", 0) == 0 && symlinkat("/etc/passwd", dir, "pack") == 0);
}

static void nothing(int dir)
{
        must(unlinkat(dir, "pack", 0) == 0 && unlinkat(dir, "index", 0) == 0);
}

static void rubbish(int dir)
{
        AUTO(fd)
        int fd = openat(dir,
                        "objects/"
                        "\n\x01",
                        O_WRONLY | O_CREAT | O_CLOEXEC, 06777);

        must(fd >= 0 && mkdirat(dir, "more", 0) == 0 && mkfifoat(dir, "objects/pipe", 0666) == 0);
        must(symlinkat("/", dir, "objects/1000") == 0);
        must(fchmodat(dir, "pack", 06777, 0) == 0 && fchmodat(dir, "objects/0", 06777, 0) == 0);
}

/* Somebody stays behind and goes on writing. */
static void late(int dir)
{
        int object = openat(dir, "objects/0", O_RDWR | O_CLOEXEC),
            index = openat(dir, "index", O_RDWR | O_CLOEXEC);

        must(object >= 0 && index >= 0);
        if (fork() != 0)
                return;
        (void) setsid();
        (void) close(STDOUT_FILENO); /* "done" shall be the end of what is heard */
        for (unsigned char c = 0;; c++) {
                (void) !pwrite(object, &c, 1, 5000);
                (void) !pwrite(index, &c, 1, 200);
                (void) renameat(dir, "objects/0", dir, "objects/1");
                (void) renameat(dir, "objects/1", dir, "objects/0");
        }
}

/* Directories in directories, until nobody can walk them any more. */
static void deep(int dir)
{
        int at = fcntl(dir, F_DUPFD_CLOEXEC, 3);

        for (int i = 0; i < 20000; i++) {
                int below;

                must(mkdirat(at, "d", 0700) == 0);
                below = openat(at, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                must(below >= 0);
                (void) close(at);
                at = below;
        }
}

/* Talks without a pause, and never ends. */
static void flood(int dir)
{
        static char lines[1 << 16];
        static const char line[] = "{\"type\":\"progress\",\"done\":1,\"unpacked\":1}\n";
        size_t n = 0;

        (void) dir;
        must(fcntl(STDOUT_FILENO, F_SETPIPE_SZ, 1 << 20) > 0);
        for (; n + sizeof line < sizeof lines; n += sizeof line - 1)
                memcpy(lines + n, line, sizeof line - 1);
        for (;;)
                must(fd_write_full(STDOUT_FILENO, lines, n) >= 0);
}

/* Has the largest number for the content that its index may say. */
static void index_boasts(int dir)
{
        static const uint64_t most = UINT64_MAX;
        AUTO(fd) int index = openat(dir, "index", O_RDWR | O_CLOEXEC);

        must(pwrite(index, &most, sizeof most, 32) == sizeof most);
}

static const struct {
        const char *word;
        void (*run)(int dir);
} words[] = {
        { "none", NULL },
        { "object-flip", object_flip },
        { "object-missing", object_missing },
        { "object-short", object_short },
        { "object-fifo", object_fifo },
        { "object-link", object_link },
        { "object-twice", object_twice },
        { "objects-elsewhere", objects_elsewhere },
        { "index-other", index_other },
        { "index-threshold", index_threshold },
        { "index-damaged", index_damaged },
        { "index-short", index_short },
        { "index-huge", index_huge },
        { "index-more-objects", index_more_objects },
        { "pack-long", pack_long },
        { "pack-vast", pack_vast },
        { "pack-link", pack_link },
        { "nothing", nothing },
        { "rubbish", rubbish },
        { "late", late },
        { "deep", deep },
        { "flood", flood },
        { "index-boasts", index_boasts },
};

static void (*what_to_do(void))(int dir)
{
        AUTO(fd) int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
        char tail[64] = "", *word;
        off_t size = lseek(fd, 0, SEEK_END);

        must(size > 63 && pread(fd, tail, 63, size - 63) == 63);
        for (word = tail; word < tail + 58 && memcmp(word, "EVIL:", 5) != 0; word++)
                ;
        word[strcspn(word, "\n")] = '\0';
        for (size_t i = 0; i < NELEM(words); i++)
                if (str_eq(word + 5, words[i].word))
                        return words[i].run;
        abort();
}

static int evil_layer(const struct mode_context *c, int root, struct err *e)
{
        AUTO(fd) int dir = fcntl(root, F_DUPFD_CLOEXEC, 3);
        AUTO(fd) int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        struct mode_context quiet = *c;
        void (*run)(int dir) = what_to_do();
        int r;

        must(result_new(null, 0, &quiet.res) >= 0);
        r = mode_layer(&quiet, root, e);
        (void) result_free(quiet.res);
        if (r < 0)
                return r;
        if (run)
                run(dir);
        return result_done(c->res, 1, 1);
}

int main(int argc, char **argv)
{
        AUTO(fetch_request_done) struct fetch_request req = { 0 };
        struct mode_context c = { .req = &req, .input = STDIN_FILENO };
        AUTO(json_put) json_t *j = NULL;
        struct err e = { 0 };
        char *text = calloc(1, 1 << 20);
        ssize_t n = text ? fd_read_full(FETCH_FD_REQUEST, text, (1 << 20) - 1) : -1;
        int r = -EINVAL;

        must(argc == 2 && n > 0 && curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
        j = jsonx_parse(text, (size_t) n, &e);
        must(j && fetch_request_decode(j, &req, &e) >= 0 &&
             result_new(STDOUT_FILENO, 0, &c.res) >= 0);
        free(text);
        if (str_eq(argv[1], "manifest"))
                r = mode_manifest(&c, FETCH_FD_ROOT, &e);
        else if (str_eq(argv[1], "layer"))
                r = evil_layer(&c, FETCH_FD_ROOT, &e);
        else if (str_eq(argv[1], "build"))
                r = mode_build(&c, -EBADF, &e);
        if (r < 0)
                (void) result_error(c.res, &e);
        (void) result_free(c.res);
        return r < 0;
}
