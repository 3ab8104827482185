/* bench_layers.c - large layers out of nothing, and what unpacking them costs at least.
 *
 * usage: bench_layers make DIR SEED LAYERS SMALL SMALL_BYTES BIG BIG_BYTES BIG_SEED
 *        bench_layers cost FILE...
 *
 * make: gzip layers DIR/0, DIR/1, ...: SMALL + BIG files each, of words that compress to about a third,
 * a pure function of the arguments.  For each it prints "N digest size diff-id bytes".  BIG_SEED 0: every
 * layer has big files of its own; else they are the same wherever the seed is.
 * cost: inflates the files (ISA-L) and hashes what comes out (SHA-256), on all CPUs, every 256 KiB in
 * turn; prints "bytes inflate-seconds hash-seconds", each as if it were alone on all CPUs. */
#include <errno.h>
#include <fcntl.h>
#include <isa-l/igzip_lib.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/proc.h"
#include "base/str.h"

#define CPUS_MAX    64
#define WORDS       1024U
#define BLOCK_BYTES (256U << 10)
#define TAR_BLOCK   512U
#define DIE(...)                                                                                   \
        do {                                                                                       \
                (void) fprintf(stderr, __VA_ARGS__);                                               \
                (void) fputc('\n', stderr);                                                        \
                exit(2);                                                                           \
        } while (0)

static double now_s(void)
{
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static uint64_t next_random(uint64_t *x)
{
        *x ^= *x << 13;
        *x ^= *x >> 7;
        *x ^= *x << 17;
        return *x;
}

static unsigned long number(const char *text)
{
        uint64_t v;

        if (str_u64(text, 0, 1ULL << 40, &v) < 0)
                DIE("not a number: %s", text);
        return (unsigned long) v;
}

/* Run @fn(arg, worker, workers) in a process for each CPU. */
static void on_all_cpus(void (*fn)(void *arg, long worker, long workers), void *arg)
{
        long n = sysconf(_SC_NPROCESSORS_ONLN);
        int bad = 0, status;

        n = n < 1 ? 1 : n > CPUS_MAX ? CPUS_MAX : n;
        (void) fflush(stdout);
        for (long i = 0; i < n; i++) {
                pid_t pid = fork();

                if (pid < 0)
                        DIE("fork: %s", strerror(errno));
                if (pid == 0) {
                        fn(arg, i, n);
                        (void) fflush(stdout);
                        _exit(0);
                }
        }
        while (wait(&status) > 0)
                bad |= status;
        if (bad)
                DIE("a worker failed");
}

static EVP_MD_CTX *sha_new(void)
{
        EVP_MD_CTX *md = EVP_MD_CTX_new();

        if (!md || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1)
                DIE("SHA-256");
        return md;
}

static void sha_hex(EVP_MD_CTX *md, char hex[static 65])
{
        unsigned char sha[EVP_MAX_MD_SIZE];

        if (EVP_DigestFinal_ex(md, sha, NULL) != 1)
                DIE("SHA-256");
        hex_encode(sha, 32, hex);
        EVP_MD_CTX_free(md);
}

/* --- make --- */

struct plan {
        const char *dir;
        unsigned long seed, layers, small, small_bytes, big, big_bytes, big_seed;
};

struct writer {
        int fd;
        struct isal_zstream z;
        EVP_MD_CTX *blob, *tar;
        uint64_t blob_bytes, tar_bytes;
        uint64_t words[WORDS];
        uint8_t level[ISAL_DEF_LVL1_LARGE], out[BLOCK_BYTES], data[BLOCK_BYTES];
};

static void put(struct writer *w, const void *p, size_t n, bool end)
{
        w->z.next_in = (uint8_t *) (uintptr_t) p; /* ISA-L only reads it */
        w->z.avail_in = (uint32_t) n;
        w->z.end_of_stream = end;
        w->tar_bytes += n;
        if (EVP_DigestUpdate(w->tar, p, n) != 1)
                DIE("SHA-256");
        do {
                size_t made;

                w->z.next_out = w->out;
                w->z.avail_out = sizeof w->out;
                if (isal_deflate(&w->z) != COMP_OK)
                        DIE("deflate");
                made = sizeof w->out - w->z.avail_out;
                w->blob_bytes += made;
                if (EVP_DigestUpdate(w->blob, w->out, made) != 1 ||
                    fd_write_full(w->fd, w->out, made) < 0)
                        DIE("writing a layer");
        } while (w->z.avail_out == 0);
}

static void put_header(struct writer *w, const char *path, unsigned mode, char type, uint64_t size)
{
        unsigned char h[TAR_BLOCK] = { 0 };
        unsigned sum = 0;

        (void) snprintf((char *) h, 100, "%s", path);
        (void) snprintf((char *) h + 100, 8, "%07o", mode);
        (void) snprintf((char *) h + 108, 8, "%07o", 0U);
        (void) snprintf((char *) h + 116, 8, "%07o", 0U);
        (void) snprintf((char *) h + 124, 12, "%011llo", (unsigned long long) size);
        (void) snprintf((char *) h + 136, 12, "%011o", 1700000000U);
        memset(h + 148, ' ', 8);
        h[156] = (unsigned char) type;
        memcpy(h + 257, "ustar\00000", 8);
        for (size_t i = 0; i < sizeof h; i++)
                sum += h[i];
        (void) snprintf((char *) h + 148, 8, "%06o", sum);
        put(w, h, sizeof h, false);
}

static void put_file(struct writer *w, const char *path, uint64_t size, uint64_t seed)
{
        static const uint8_t zeros[TAR_BLOCK];
        uint64_t x = seed * 0x9e3779b97f4a7c15ULL + 1;

        put_header(w, path, 0644, '0', size);
        for (uint64_t left = size; left > 0;) {
                size_t n = left < sizeof w->data ? (size_t) left : sizeof w->data;

                for (size_t i = 0; i < n; i += 8) {
                        uint64_t r = next_random(&x);

                        memcpy(w->data + i, &w->words[r % WORDS], 8);
                }
                put(w, w->data, n, false);
                left -= n;
        }
        if (size % TAR_BLOCK != 0)
                put(w, zeros, TAR_BLOCK - size % TAR_BLOCK, false);
}

static void make_layer(const struct plan *p, unsigned long layer)
{
        static const uint8_t zeros[2 * TAR_BLOCK];
        struct writer *w = calloc(1, sizeof *w);
        char path[256], blob[65], tar[65];
        uint64_t x = 88172645463325252ULL;

        if (!w)
                DIE("out of memory");
        for (size_t i = 0; i < WORDS; i++)
                w->words[i] = next_random(&x);
        (void) snprintf(path, sizeof path, "%s/%lu", p->dir, layer);
        w->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (w->fd < 0)
                DIE("%s: %s", path, strerror(errno));
        w->blob = sha_new();
        w->tar = sha_new();
        isal_deflate_init(&w->z);
        w->z.level = 1;
        w->z.level_buf = w->level;
        w->z.level_buf_size = sizeof w->level;
        w->z.gzip_flag = IGZIP_GZIP;
        (void) snprintf(path, sizeof path, "data/%lu/", p->seed + layer);
        put_header(w, "data/", 0755, '5', 0);
        put_header(w, path, 0755, '5', 0);
        for (unsigned long i = 0; i < p->big; i++) {
                uint64_t own = p->seed + layer, of = p->big_seed ? p->big_seed : own;

                (void) snprintf(path, sizeof path, "data/%lu/big%lu", p->seed + layer, i);
                put_file(w, path, p->big_bytes, (of << 32) + (1U << 24) + i);
        }
        for (unsigned long i = 0; i < p->small; i++) {
                (void) snprintf(path, sizeof path, "data/%lu/%lu", p->seed + layer, i);
                put_file(w, path, p->small_bytes, ((uint64_t) (p->seed + layer) << 32) + i);
        }
        put(w, zeros, sizeof zeros, true);
        sha_hex(w->blob, blob);
        sha_hex(w->tar, tar);
        (void) printf("%lu sha256:%s %llu sha256:%s %llu\n", layer, blob,
                      (unsigned long long) w->blob_bytes, tar, (unsigned long long) w->tar_bytes);
        (void) close(w->fd);
        free(w);
}

static void make_some(void *arg, long worker, long workers)
{
        const struct plan *p = arg;

        for (unsigned long i = (unsigned long) worker; i < p->layers; i += (unsigned long) workers)
                make_layer(p, i);
}

/* --- cost --- */

struct cost {
        char **files;
        int n;
        struct spent {
                double inflate, hash;
                uint64_t bytes;
        } * spent; /* shared memory, one for each worker */
};

static void inflate_one(const char *path, struct spent *s)
{
        static uint8_t out[BLOCK_BYTES];
        static struct inflate_state z;
        AUTO(fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
        EVP_MD_CTX *md = sha_new();
        struct stat st;
        char hex[65];
        double t0, t1;
        size_t made;
        void *in;

        if (fd < 0 || fstat(fd, &st) < 0)
                DIE("%s: %s", path, strerror(errno));
        in = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
        if (in == MAP_FAILED)
                DIE("%s: %s", path, strerror(errno));
        isal_inflate_init(&z);
        z.crc_flag = ISAL_GZIP;
        z.next_in = in;
        z.avail_in = (uint32_t) st.st_size;
        do {
                z.next_out = out;
                z.avail_out = sizeof out;
                t0 = now_s();
                if (isal_inflate(&z) != ISAL_DECOMP_OK)
                        DIE("%s: inflate", path);
                t1 = now_s();
                made = sizeof out - z.avail_out;
                if (EVP_DigestUpdate(md, out, made) != 1)
                        DIE("SHA-256");
                s->hash += now_s() - t1;
                s->inflate += t1 - t0;
                s->bytes += made;
        } while (z.block_state != ISAL_BLOCK_FINISH);
        sha_hex(md, hex);
        (void) munmap(in, (size_t) st.st_size);
}

static void cost_some(void *arg, long worker, long workers)
{
        struct cost *c = arg;

        for (long i = worker; i < c->n; i += workers)
                inflate_one(c->files[i], &c->spent[worker]);
}

static void cost(char **files, int n)
{
        struct cost c = { files, n, NULL };
        struct spent sum = { 0 };
        long cpus = sysconf(_SC_NPROCESSORS_ONLN);

        c.spent = mmap(NULL, CPUS_MAX * sizeof *c.spent, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (c.spent == MAP_FAILED)
                DIE("out of memory");
        on_all_cpus(cost_some, &c);
        for (size_t i = 0; i < CPUS_MAX; i++) {
                sum.bytes += c.spent[i].bytes;
                sum.inflate += c.spent[i].inflate;
                sum.hash += c.spent[i].hash;
        }
        (void) printf("%llu %.3f %.3f\n", (unsigned long long) sum.bytes,
                      sum.inflate / (double) cpus, sum.hash / (double) cpus);
}

int main(int argc, char **argv)
{
        (void) setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* lines of several processes */
        if (argc == 10 && strcmp(argv[1], "make") == 0) {
                struct plan p = { argv[2],         number(argv[3]), number(argv[4]),
                                  number(argv[5]), number(argv[6]), number(argv[7]),
                                  number(argv[8]), number(argv[9]) };

                on_all_cpus(make_some, &p);
        } else if (argc > 2 && strcmp(argv[1], "cost") == 0) {
                cost(argv + 2, argc - 2);
        } else {
                DIE("usage: bench_layers make|cost ...");
        }
        return 0;
}
