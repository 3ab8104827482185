/* check.c - what a fetcher has left behind, before anything believes it.  Operation processes, root.
 *
 * Whoever wrote these files may have been taken over by the layer that it read, but its pid namespace
 * is gone: nobody can write them any more.  From here on they are root's and read-only.  The index is
 * hashed, and so are the objects, which gives them their names: by processes of our own, on several
 * cores, and while other layers still come.  What was written a moment ago is read from the page cache;
 * its way to the disk is begun at the same time.
 *
 * Theory of operation.  Workers take the next object's number from memory that they share, until none
 * is left or one has failed; the number behind the last one is the index.  Each holds the writing end
 * of a pipe: it is readable when all have ended. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/proc.h"
#include "store/layer_objects.h"
#include "store_priv.h"

#define WORKERS_MAX  4U
#define WORKER_BYTES (16ULL << 20) /* less than that is not worth another process */
#define READ_BYTES   (512U << 10)
#define OPEN_FLAGS   (O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY)

struct shared {
        _Atomic uint32_t next;
        _Atomic int failed;
        struct err err; /* of the first that failed; valid once all have ended */
        char index_sha[STORE_HEX_BYTES];
        uint8_t digests[][LAYER_SHA_BYTES];
};

struct check {
        struct check_result found;
        int pack_fd, objects_fd;
        struct shared *shared;
        size_t shared_bytes;
        pid_t worker[WORKERS_MAX];
        unsigned n_workers;
        int end_fd;
};

/* --- hashing --- */

static int hash(int fd, EVP_MD_CTX *md, void *buf, uint8_t ret[LAYER_SHA_BYTES], struct err *e)
{
        uint8_t sha[EVP_MAX_MD_SIZE];
        ssize_t n;

        if (EVP_DigestInit_ex(md, NULL, NULL) != 1)
                return err_set(e, -EIO, "SHA-256 failed");
        for (off_t at = 0; (n = pread(fd, buf, READ_BYTES, at)) != 0; at += n) {
                if (n < 0 && errno == EINTR)
                        n = 0;
                if (n < 0)
                        return err_errno(e, -errno, "reading");
                if (EVP_DigestUpdate(md, buf, (size_t) n) != 1)
                        return err_set(e, -EIO, "SHA-256 failed");
        }
        if (EVP_DigestFinal_ex(md, sha, NULL) != 1)
                return err_set(e, -EIO, "SHA-256 failed");
        memcpy(ret, sha, LAYER_SHA_BYTES);
        return 0;
}

static EVP_MD_CTX *hash_new(void)
{
        EVP_MD_CTX *md = EVP_MD_CTX_new();

        if (md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1)
                return md;
        EVP_MD_CTX_free(md);
        return NULL;
}

int store_hash_file(int fd, char ret[static STORE_HEX_BYTES], struct err *e)
{
        AUTO(free) void *buf = malloc(READ_BYTES);
        EVP_MD_CTX *md = hash_new();
        uint8_t sha[LAYER_SHA_BYTES];
        int r = buf && md ? hash(fd, md, buf, sha, e) : err_set(e, -ENOMEM, "out of memory");

        EVP_MD_CTX_free(md);
        if (r >= 0)
                hex_encode(sha, sizeof sha, ret);
        return r;
}

/* --- one file --- */

/* A plain file with one name; *@ret_bytes: how long. */
static int take_file(int dir, const char *name, uint64_t *ret_bytes, struct err *e)
{
        AUTO(fd) int fd = fd_open_beneath(dir, name, OPEN_FLAGS, 0);
        struct stat st;

        if (fd < 0)
                return err_errno(e, fd, "%s", name);
        if (fstat(fd, &st) < 0)
                return err_errno(e, -errno, "%s", name);
        if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || st.st_size < 0)
                return err_set(e, -EBADMSG, "%s is not a plain file", name);
        if (fchown(fd, 0, 0) < 0 || fchmod(fd, 0444) < 0)
                return err_errno(e, -errno, "%s", name);
        *ret_bytes = (uint64_t) st.st_size;
        return fd_take(&fd);
}

static int check_object(const struct check *c, uint32_t i, EVP_MD_CTX *md, void *buf, struct err *e)
{
        uint64_t want = layer_index_object(&c->found.index, i), bytes = 0;
        AUTO(fd) int fd = -EBADF;
        char name[16];
        int r;

        if (want == 0) /* no entry has it any more */
                return 0;
        (void) snprintf(name, sizeof name, "%u", i);
        fd = take_file(c->objects_fd, name, &bytes, e);
        if (fd < 0)
                return err_wrap(e, fd, "object");
        if (bytes != want)
                return err_set(e, -EBADMSG, "object %s does not have its size", name);
        (void) sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
        r = hash(fd, md, buf, c->shared->digests[i], e);
        return r < 0 ? err_wrap(e, r, "object %s", name) : 0;
}

/* --- workers --- */

static int work(struct check *c, struct err *e)
{
        AUTO(free) void *buf = malloc(READ_BYTES);
        EVP_MD_CTX *md = hash_new();
        uint32_t objects = c->found.index.n_objects, i;
        uint8_t sha[LAYER_SHA_BYTES];
        int r = buf && md ? 0 : err_set(e, -ENOMEM, "out of memory");

        while (r >= 0 && !atomic_load(&c->shared->failed) &&
               (i = atomic_fetch_add(&c->shared->next, 1)) <= objects) {
                if (i < objects) {
                        r = check_object(c, i, md, buf, e);
                        continue;
                }
                r = hash(c->found.index_fd, md, buf, sha, e);
                if (r >= 0)
                        hex_encode(sha, sizeof sha, c->shared->index_sha);
        }
        EVP_MD_CTX_free(md);
        return r;
}

static void __attribute__((noreturn)) be_worker(struct check *c, pid_t parent)
{
        struct err e = { 0 };
        int r;

        if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != parent)
                _exit(1);
        r = work(c, &e);
        if (r < 0 && atomic_exchange(&c->shared->failed, 1) == 0)
                c->shared->err = e;
        _exit(r < 0);
}

static unsigned count_workers(const struct check *c)
{
        uint64_t bytes = 0, n;
        cpu_set_t cpus;
        unsigned max =
                sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? (unsigned) CPU_COUNT(&cpus) : 1;

        for (uint32_t i = 0; i < c->found.index.n_objects; i++)
                bytes += layer_index_object(&c->found.index, i);
        n = 1 + bytes / WORKER_BYTES;
        if (max > WORKERS_MAX)
                max = WORKERS_MAX;
        return n < max ? (unsigned) n : max;
}

static int start_workers(struct check *c, struct err *e)
{
        unsigned n = count_workers(c);
        pid_t self = getpid();
        int end[2], r = 0;

        if (pipe2(end, O_CLOEXEC) < 0)
                return err_errno(e, -errno, "pipe");
        c->end_fd = end[0];
        for (unsigned i = 0; r >= 0 && i < n; i++) {
                pid_t pid = fork();

                if (pid == 0)
                        be_worker(c, self);
                if (pid < 0)
                        r = err_errno(e, -errno, "starting a process");
                else
                        c->worker[c->n_workers++] = pid;
        }
        (void) close(end[1]);
        return r;
}

/* 0: all have ended well. */
static int reap_workers(struct check *c)
{
        int r = 0;

        while (c->n_workers > 0) {
                pid_t pid = c->worker[--c->n_workers], got;
                int status = 0;

                do
                        got = waitpid(pid, &status, 0);
                while (got < 0 && errno == EINTR);
                if (got != pid || status != 0)
                        r = -EIO;
        }
        return r;
}

/* --- the layer --- */

/* Header and object table of the index, and what can be said of them without its entries. */
static int read_table(struct check_result *f, uint64_t index_bytes, struct err *e)
{
        uint8_t head[LAYER_HEADER_BYTES];
        size_t len;

        if (index_bytes < sizeof head || index_bytes > LAYER_INDEX_BYTES_MAX)
                return err_set(e, -EBADMSG, "its index is none");
        if (pread(f->index_fd, head, sizeof head, 0) != (ssize_t) sizeof head)
                return err_set(e, -EIO, "its index cannot be read");
        len = layer_index_table_bytes(head);
        if (len > index_bytes)
                return err_set(e, -EBADMSG, "its index is too short");
        f->table = malloc(len);
        if (!f->table)
                return err_set(e, -ENOMEM, "out of memory");
        if (pread(f->index_fd, f->table, len, 0) != (ssize_t) len)
                return err_set(e, -EIO, "its index cannot be read");
        return layer_index_open_table(f->table, len, index_bytes, &f->index, e);
}

/* It is said before anything is read: files with holes are as long as anybody likes.
 *
 * What the layer counts for is what it says, but no more than what is here: a million sparse files of
 * 8 TiB, which cost nobody anything, would add up to more than a number of the database can hold. */
static int check_bytes(struct check *c, uint64_t max, struct err *e)
{
        struct check_result *f = &c->found;
        uint64_t bytes = f->index.totals.pack_bytes;

        for (uint32_t i = 0; i < f->index.n_objects && bytes <= max; i++)
                bytes += layer_index_object(&f->index, i); /* at most 2^43 each */
        if (bytes > max)
                return err_set(e, -EFBIG, "unpacked it has more than the %llu MiB that are allowed",
                               (unsigned long long) (max >> 20));
        f->unpacked_bytes = bytes;
        f->facts.content_bytes = f->index.content_bytes < bytes ? f->index.content_bytes : bytes;
        return 0;
}

static int compare_table(struct check *c, const struct check_spec *spec, uint64_t pack_bytes,
                         struct err *e)
{
        const struct layer_totals *t = &c->found.index.totals;
        uint8_t want[LAYER_SHA_BYTES];

        if (store_sha_parse(str_after(spec->diff_id, "sha256:"), want) < 0 ||
            memcmp(want, t->diff_id, sizeof want) != 0)
                return err_set(e, -EBADMSG, "its index is that of another layer");
        if (t->threshold != spec->threshold)
                return err_set(e, -EBADMSG, "its index has another threshold");
        if (t->pack_bytes != pack_bytes)
                return err_set(e, -EBADMSG, "its pack does not have the length in its index");
        return check_bytes(c, spec->max_bytes, e);
}

static int open_files(struct check *c, const struct check_spec *spec, struct err *e)
{
        struct check_result *f = &c->found;
        uint64_t pack_bytes = 0, index_bytes = 0;
        int r;

        c->pack_fd = take_file(spec->dir, STORE_PACK, &pack_bytes, e);
        if (c->pack_fd < 0)
                return c->pack_fd;
        f->index_fd = take_file(spec->dir, STORE_INDEX, &index_bytes, e);
        if (f->index_fd < 0)
                return f->index_fd;
        c->objects_fd = fd_open_beneath(spec->dir, STORE_OBJECTS, O_RDONLY | O_DIRECTORY, 0);
        if (c->objects_fd < 0)
                return err_errno(e, c->objects_fd, STORE_OBJECTS);
        (void) sync_file_range(c->pack_fd, 0, 0, SYNC_FILE_RANGE_WRITE);
        (void) sync_file_range(f->index_fd, 0, 0, SYNC_FILE_RANGE_WRITE);
        r = read_table(f, index_bytes, e);
        if (r >= 0)
                r = compare_table(c, spec, pack_bytes, e);
        f->facts.pack_bytes = pack_bytes;
        f->facts.objects = f->index.n_objects;
        return r;
}

static int share(struct check *c, struct err *e)
{
        size_t bytes = sizeof *c->shared + (size_t) c->found.index.n_objects * LAYER_SHA_BYTES;
        void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

        if (p == MAP_FAILED)
                return err_set(e, -ENOMEM, "out of memory");
        c->shared = p;
        c->shared_bytes = bytes;
        return 0;
}

int check_start(const struct check_spec *spec, struct check **ret, struct err *e)
{
        AUTO(check_free) struct check *c = calloc(1, sizeof *c);
        int r;

        if (!c)
                return err_set(e, -ENOMEM, "out of memory");
        c->found.index_fd = c->found.names_fd = c->pack_fd = c->objects_fd = c->end_fd = -EBADF;
        r = open_files(c, spec, e);
        if (r >= 0)
                r = share(c, e);
        if (r >= 0)
                r = start_workers(c, e);
        if (r < 0)
                return r;
        *ret = TAKE(c);
        return 0;
}

int check_fd(const struct check *c)
{
        return c->end_fd;
}

int check_hear(struct check *c, struct check_result *ret, struct err *e)
{
        char b;
        int r = 0;

        if (read(c->end_fd, &b, 1) < 0)
                return errno == EINTR || errno == EAGAIN ? 0 : err_errno(e, -errno, "checking");
        if (reap_workers(c) < 0)
                r = c->shared->err.code < 0 ? err_copy(e, &c->shared->err)
                                            : err_set(e, -EIO, "a process that checks it died");
        if (r < 0)
                return r;
        memcpy(c->found.facts.index_sha, c->shared->index_sha, STORE_HEX_BYTES);
        c->found.digests = calloc(c->found.index.n_objects + 1UL, sizeof *c->found.digests);
        if (!c->found.digests)
                return err_set(e, -ENOMEM, "out of memory");
        memcpy(c->found.digests, c->shared->digests,
               c->found.index.n_objects * sizeof *c->found.digests);
        *ret = c->found;
        c->found = (struct check_result){ .index_fd = -EBADF, .names_fd = -EBADF };
        return 1;
}

struct check *check_free(struct check *c)
{
        if (!c)
                return NULL;
        for (unsigned i = 0; i < c->n_workers; i++)
                (void) kill(c->worker[i], SIGKILL);
        (void) reap_workers(c);
        check_result_done(&c->found);
        (void) fd_close(c->pack_fd);
        (void) fd_close(c->objects_fd);
        (void) fd_close(c->end_fd);
        if (c->shared)
                (void) munmap(c->shared, c->shared_bytes);
        free(c);
        return NULL;
}

void check_result_done(struct check_result *r)
{
        r->index_fd = fd_close(r->index_fd);
        r->names_fd = fd_close(r->names_fd);
        free(r->table);
        r->table = NULL;
        free(r->digests);
        r->digests = NULL;
}

int check_put_names(struct check_result *f, int dir, struct err *e)
{
        AUTO(fd) int fd = -EBADF;
        AUTO(sink_free) struct sink *s = NULL;
        int r;

        if (f->index.n_objects == 0)
                return 0;
        fd = openat(dir, STORE_OBJECTS, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0)
                return err_errno(e, -errno, "names of objects");
        r = sink_new(fd, &s, e);
        if (r < 0)
                return r;
        layer_objects_put(s, &f->index, (const uint8_t(*)[LAYER_SHA_BYTES]) f->digests);
        r = sink_flush(s, e);
        if (r >= 0 && fchmod(fd, 0444) < 0)
                r = err_errno(e, -errno, "names of objects");
        if (r >= 0)
                r = store_hash_file(fd, f->facts.names_sha, e);
        if (r >= 0) /* not the one that could write it */
                f->names_fd = fd_open_beneath(dir, STORE_OBJECTS, O_RDONLY, 0);
        return r < 0 ? r : f->names_fd < 0 ? err_errno(e, f->names_fd, "names of objects") : 0;
}

/* A file of a layer that is here, which must hash to @want. */
static int open_hashed(int dir, const char *name, const char *want, const char *what, struct err *e)
{
        AUTO(fd) int fd = fd_open_beneath(dir, name, O_RDONLY, 0);
        char sha[STORE_HEX_BYTES];
        int r;

        if (fd < 0)
                return err_errno(e, fd == -ENOENT ? -EBADMSG : fd, "%s", what);
        r = store_hash_file(fd, sha, e);
        if (r < 0)
                return err_wrap(e, r, "%s", what);
        return str_eq(sha, want) ? fd_take(&fd) : err_set(e, -EBADMSG, "%s are damaged", what);
}

int check_known(int dir, const struct catalog_layer *facts, struct check_result *ret, struct err *e)
{
        struct check_result f = { .facts = *facts, .index_fd = -EBADF, .names_fd = -EBADF };
        struct stat st;
        int r = f.index_fd = open_hashed(dir, STORE_INDEX, facts->index_sha, "its entries", e);

        if (r >= 0 && *facts->names_sha)
                r = f.names_fd = open_hashed(dir, STORE_OBJECTS, facts->names_sha,
                                             "names of its objects", e);
        if (r >= 0 && fstat(f.index_fd, &st) < 0)
                r = err_errno(e, -errno, "its entries");
        if (r >= 0)
                r = read_table(&f, (uint64_t) st.st_size, e);
        if (r < 0)
                check_result_done(&f);
        else
                *ret = f;
        return r < 0 ? r : 0;
}
