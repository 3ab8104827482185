/* bench_image.c - mounting images and reading from them.  Root.
 *
 * usage: bench_image mount PROC META OBJECTS UPPER RUNS PACK...
 *        bench_image read PROC TREE RUNS
 *        bench_image cached PROC FILE
 *
 * PROC is a process whose mount namespace and ids are taken on first, "-" for none.
 * mount: the metadata file META with its PACKs, idmapped, below an overlay with UPPER (a directory) and
 * OBJECTS as its data-only lower; unmounted again.  "first": as for an image's first cluster, EROFS
 * included; "next": a clone of that mount, as for every other one.
 * read: in TREE, data/N/bigM is read from begin to end and 4 KiB at random places, and every file below
 * data is looked up; once before the measured RUNS, so that nothing comes from the disk.
 * cached: how much of FILE is in the page cache, and how much there is, in bytes.
 * Prints a line for each figure. */
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/idmap.h"
#include "engine/sandbox/sandbox.h"
#include "store/metamount.h"

#define ID_BASE     0x60000000U
#define PACKS_MAX   128
#define FILES_MAX   100000U
#define BIG_MAX     16U
#define RANDOM_READ 50000U
#define PAGE        4096U
#define DIE(...)                                                                                   \
        do {                                                                                       \
                (void) fprintf(stderr, __VA_ARGS__);                                               \
                (void) fputc('\n', stderr);                                                        \
                exit(2);                                                                           \
        } while (0)

static double now_us(void)
{
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (double) t.tv_sec * 1e6 + (double) t.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
        double x = *(const double *) a, y = *(const double *) b;

        return (x > y) - (x < y);
}

static double median(double *v, size_t n)
{
        qsort(v, n, sizeof *v, by_value);
        return v[n / 2];
}

static size_t number(const char *text)
{
        uint64_t v;

        if (str_u64(text, 1, 1U << 20, &v) < 0)
                DIE("not a number: %s", text);
        return (size_t) v;
}

static void enter(const char *pid)
{
        char path[64];
        AUTO(fd) int fd = -EBADF;
        struct stat st;

        if (strcmp(pid, "-") == 0)
                return;
        (void) snprintf(path, sizeof path, "/proc/%s/ns/mnt", pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        (void) snprintf(path, sizeof path, "/proc/%s", pid);
        if (fd < 0 || stat(path, &st) < 0 || setns(fd, CLONE_NEWNS) < 0 ||
            setresgid(st.st_gid, st.st_gid, st.st_gid) < 0 ||
            setresuid(st.st_uid, st.st_uid, st.st_uid) < 0)
                DIE("%s: %s", path, strerror(errno));
}

/* --- mount --- */

static int clone_of(int dir, const char *path)
{
        int fd = (int) syscall(SYS_open_tree, dir, path,
                               OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);

        if (fd < 0)
                DIE("open_tree %s: %s", path, strerror(errno));
        return fd;
}

static int idmapped_clone(int dir, const char *path, int userns, uint64_t attrs)
{
        int fd = clone_of(dir, path);
        struct err e;

        if (idmap_mount(fd, userns, attrs, &e) < 0)
                DIE("%s: %s", path, e.msg);
        return fd;
}

/* What a cluster gets of a base mount, and its end. */
static void use(int base, const char *objects, const char *upper, int userns)
{
        int lower = idmapped_clone(base, "", userns, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV);
        int data = strcmp(objects, "-") == 0 ? -EBADF : clone_of(AT_FDCWD, objects);
        int disk = idmapped_clone(AT_FDCWD, upper, userns, 0);
        struct err e;
        int root = sandbox_overlay(lower, data, disk, &e);

        if (root < 0)
                DIE("%s", e.msg);
        (void) fd_close(root); /* a detached mount: its last descriptor unmounts it */
        (void) fd_close(lower);
        (void) fd_close(data);
        (void) fd_close(disk);
}

/* A cluster never meets the disk of another one, which is what these marks of overlayfs are about. */
static void as_new(const char *upper)
{
        static const char *const marks[] = { "volatile/dirty", "volatile" };

        for (size_t i = 0; i < NELEM(marks); i++) {
                char *mark = str_fmt("%s/work/work/incompat/%s", upper, marks[i]);

                if (!mark || (remove(mark) < 0 && errno != ENOENT))
                        DIE("%s: %s", upper, strerror(errno));
                free(mark);
        }
}

static void measure_mount(int argc, char **argv)
{
        const char *meta = argv[0], *objects = argv[1], *upper = argv[2];
        size_t runs = number(argv[3]), n = (size_t) argc - 4;
        double *first = calloc(runs, sizeof *first), *next = calloc(runs, sizeof *next);
        const char *packs[PACKS_MAX];
        struct err e;
        int userns = idmap_userns(ID_BASE, &e);

        if (userns < 0 || !first || !next || n > PACKS_MAX)
                DIE("%s", userns < 0 ? e.msg : "no memory, or too many packs");
        for (size_t i = 0; i < n; i++)
                packs[i] = argv[4 + i];
        for (size_t i = 0; i < runs; i++) {
                double t0, t1;
                int base;

                as_new(upper);
                t0 = now_us();
                base = metamount(meta, packs, n, &e);
                if (base < 0)
                        DIE("%s", e.msg);
                use(base, objects, upper, userns);
                first[i] = now_us() - t0;
                as_new(upper);
                t1 = now_us();
                use(base, objects, upper, userns);
                next[i] = now_us() - t1;
                t1 = now_us();
                (void) fd_close(base);
                first[i] += now_us() - t1;
        }
        (void) printf("first %.4f\nnext %.4f\n", median(first, runs) / 1e3,
                      median(next, runs) / 1e3);
}

/* --- read --- */

struct tree {
        char *file[FILES_MAX];
        size_t n;
        int big[BIG_MAX];
        uint64_t big_bytes[BIG_MAX];
        size_t n_big;
};

static void find_files(struct tree *t, char *root)
{
        char *const roots[] = { root, NULL };
        FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOSTAT, NULL);
        FTSENT *f;

        while (fts && (f = fts_read(fts)) != NULL && t->n < FILES_MAX) {
                if (f->fts_info == FTS_D || f->fts_info == FTS_DP)
                        continue;
                t->file[t->n++] = strdup(f->fts_path);
                if (t->n_big < BIG_MAX && str_after(f->fts_name, "big")) {
                        struct stat st;
                        int fd = open(f->fts_accpath, O_RDONLY | O_CLOEXEC);

                        if (fd < 0 || fstat(fd, &st) < 0)
                                DIE("%s: %s", f->fts_path, strerror(errno));
                        t->big_bytes[t->n_big] = (uint64_t) st.st_size;
                        t->big[t->n_big++] = fd;
                }
        }
        if (!fts || t->n == 0 || t->n_big == 0)
                DIE("%s holds nothing to read", root);
        (void) fts_close(fts);
}

/* MB/s */
static double sequential(const struct tree *t)
{
        static char buf[1U << 20];
        double t0 = now_us();
        uint64_t bytes = 0;

        for (size_t i = 0; i < t->n_big; i++) {
                ssize_t n;

                for (off_t at = 0; (n = pread(t->big[i], buf, sizeof buf, at)) > 0; at += n)
                        bytes += (uint64_t) n;
                if (n < 0)
                        DIE("reading: %s", strerror(errno));
        }
        return (double) bytes / (now_us() - t0);
}

/* reads/s */
static double at_random(const struct tree *t)
{
        uint64_t x = 88172645463325252ULL;
        char buf[PAGE];
        double t0 = now_us();

        for (size_t i = 0; i < RANDOM_READ; i++) {
                size_t f = i % t->n_big;

                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                if (pread(t->big[f], buf, PAGE, (off_t) (x % (t->big_bytes[f] / PAGE) * PAGE)) !=
                    PAGE)
                        DIE("reading: %s", strerror(errno));
        }
        return RANDOM_READ / (now_us() - t0) * 1e6;
}

/* files/s */
static double lookups(const struct tree *t)
{
        double t0 = now_us();
        struct stat st;

        for (size_t i = 0; i < t->n; i++)
                if (stat(t->file[i], &st) < 0)
                        DIE("%s: %s", t->file[i], strerror(errno));
        return (double) t->n / (now_us() - t0) * 1e6;
}

/* files/s */
static double small_files(const struct tree *t)
{
        static char buf[1U << 17];
        double t0 = now_us();
        size_t done = 0;

        for (size_t i = 0; i < t->n; i += 7) {
                AUTO(fd) int fd = open(t->file[i], O_RDONLY | O_CLOEXEC);

                if (fd < 0 || read(fd, buf, sizeof buf) < 0)
                        DIE("%s: %s", t->file[i], strerror(errno));
                done++;
        }
        return (double) done / (now_us() - t0) * 1e6;
}

static void measure_reads(char **argv)
{
        static const struct {
                const char *name;
                double (*fn)(const struct tree *t);
        } kinds[] = { { "sequential", sequential },
                      { "random", at_random },
                      { "stat", lookups },
                      { "small", small_files } };
        struct tree *t = calloc(1, sizeof *t);
        size_t runs = number(argv[1]);
        double *v = calloc(runs, sizeof *v);

        if (!t || !v)
                DIE("out of memory");
        find_files(t, argv[0]);
        for (size_t k = 0; k < NELEM(kinds); k++) {
                (void) kinds[k].fn(t);
                for (size_t i = 0; i < runs; i++)
                        v[i] = kinds[k].fn(t);
                (void) printf("%s %.1f\n", kinds[k].name, median(v, runs));
        }
}

/* --- cached --- */

static void measure_cached(const char *path)
{
        AUTO(fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
        size_t pages, held = 0;
        unsigned char *in;
        struct stat st;
        void *p;

        if (fd < 0 || fstat(fd, &st) < 0)
                DIE("%s: %s", path, strerror(errno));
        pages = ((size_t) st.st_size + PAGE - 1) / PAGE;
        in = calloc(pages + 1, 1);
        p = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (!in || p == MAP_FAILED || mincore(p, (size_t) st.st_size, in) < 0)
                DIE("%s: %s", path, strerror(errno));
        for (size_t i = 0; i < pages; i++)
                held += in[i] & 1;
        (void) printf("%zu %zu\n", held * PAGE, (size_t) st.st_size);
}

int main(int argc, char **argv)
{
        if (argc > 3)
                enter(argv[2]);
        if (argc > 6 && strcmp(argv[1], "mount") == 0)
                measure_mount(argc - 3, argv + 3);
        else if (argc == 5 && strcmp(argv[1], "read") == 0)
                measure_reads(argv + 3);
        else if (argc == 4 && strcmp(argv[1], "cached") == 0)
                measure_cached(argv[3]);
        else
                DIE("usage: bench_image mount|read|cached PROC ...");
        return 0;
}
