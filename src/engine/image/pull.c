/* pull.c - image_pull and image_import: run fetchers, then publish.  Operation processes; block.
 *
 * Stages: resolve (or take the upload in), fetch the layers that are not here, several at a time,
 * publish.  Any failure ends all fetchers and empties the staging directory; a kill does the same
 * by way of parent-death signals and image_recover(). */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "model/imageref.h"
#include "model/limits.h"
#include "store_priv.h"

#define CONNECT_US      (10 * US_PER_S)
#define UPLOAD_STALL_US (60 * US_PER_S) /* a client that sends nothing */
#define GRACE_US        (2 * US_PER_S)  /* fetchers report a deadline better than we do */
#define WATCH_MS        250             /* how often free space and progress are looked at */
#define PARALLEL_MAX    16U
#define ATTEMPTS        3 /* when a layer that was here is removed while we pull */

struct job {
        struct image_store *store;
        struct staging staging;
        struct fetch_request req; /* what all fetchers of this job are told */
        struct fetch_image image;
        uint64_t deadline_us;
        image_progress_fn *fn;
        void *arg;
        char *domain;

        struct publish_layer *layers;
        struct fetcher *fetchers; /* one per layer; started when its turn comes */
        size_t n_layers;
        uint64_t total_bytes;
        int input_dir; /* import: where the blobs are */
};

static void job_done(struct job *j)
{
        for (size_t i = 0; j->fetchers && i < j->n_layers; i++)
                fetcher_end(&j->fetchers[i]);
        free(j->fetchers);
        free(j->layers);
        fetch_image_done(&j->image);
        fetch_request_done(&j->req);
        j->input_dir = fd_close(j->input_dir);
        staging_end(&j->staging); /* after the fetchers: nobody writes any more */
        free(j->domain);
}

static inline void job_done_cleanup(struct job *j)
{
        job_done(j);
}

static void tell(struct job *j, const char *phase, uint64_t done)
{
        const struct image_progress p = { phase, done, j->total_bytes };

        if (j->fn)
                j->fn(j->arg, &p);
}

/* The host keeps a twentieth of the file system, at most 1 GiB, for everything but images. */
static int check_space(struct job *j, struct err *e)
{
        struct statvfs v;
        uint64_t keep;

        if (fstatvfs(j->staging.fd, &v) < 0)
                return err_errno(e, -errno, "statvfs");
        keep = v.f_blocks * v.f_frsize / 20;
        if (keep > 1ULL << 30)
                keep = 1ULL << 30;
        if (v.f_bavail * v.f_frsize < keep)
                return err_set(e, -ENOSPC, "no space is left on the host's image store");
        return 0;
}

/* Listen to running fetchers for a moment; fails when time or space has run out. */
static int listen_once(struct job *j, struct fetcher **run, size_t n, struct err *e)
{
        struct pollfd p[PARALLEL_MAX];
        int r;

        for (size_t i = 0; i < n; i++)
                p[i] = (struct pollfd){ .fd = run[i]->result_fd, .events = POLLIN };
        r = poll(p, (nfds_t) n, WATCH_MS);
        if (r < 0 && errno != EINTR)
                return err_errno(e, -errno, "poll");
        for (size_t i = 0; r > 0 && i < n; i++)
                if (p[i].revents)
                        fetcher_hear(run[i]);
        if (j->deadline_us && clock_mono_us() > j->deadline_us + GRACE_US)
                return err_set(e, -ETIMEDOUT, "it took longer than allowed");
        return check_space(j, e);
}

/* Run one fetcher to its end.  @stall_us: how long it may make no progress; 0: it knows itself. */
static int run_alone(struct job *j, const struct fetcher_spec *spec, const char *phase,
                     uint64_t stall_us, struct fetcher *f, struct err *e)
{
        uint64_t moved_us = clock_mono_us(), seen = 0;
        int r = fetcher_start(j->store->inst, j->store->guard, spec, f, e);

        while (r >= 0 && !f->ended) {
                r = listen_once(j, &f, 1, e);
                tell(j, phase, f->done_bytes);
                if (f->done_bytes != seen)
                        moved_us = clock_mono_us();
                seen = f->done_bytes;
                if (r >= 0 && stall_us && clock_mono_us() > moved_us + stall_us)
                        r = err_set(e, -ETIMEDOUT, "nothing has come for %llu s",
                                    (unsigned long long) (stall_us / US_PER_S));
        }
        if (r >= 0 && !f->done)
                r = err_copy(e, &f->err);
        return r;
}

/* --- layers --- */

/* Which layers are needed: each diff id once, topmost place kept, since a repeated layer brings
 * everything again that it brought before. */
static int plan_layers(struct job *j, struct err *e)
{
        const struct fetch_image *im = &j->image;

        j->layers = calloc(im->n_layers, sizeof *j->layers);
        j->fetchers = calloc(im->n_layers, sizeof *j->fetchers);
        if (!j->layers || !j->fetchers)
                return err_set(e, -ENOMEM, "out of memory");
        for (size_t i = 0; i < im->n_layers; i++) {
                bool again = false;

                for (size_t k = i + 1; k < im->n_layers; k++)
                        again = again || str_eq(im->layers[i].diff_id, im->layers[k].diff_id);
                if (!again)
                        j->layers[j->n_layers++].layer = &im->layers[i];
        }
        for (size_t i = 0; i < j->n_layers; i++)
                j->fetchers[i] = FETCHER_NONE;
        return publish_chains(j->layers, j->n_layers) < 0 ? err_set(e, -ENOMEM, "out of memory")
                                                          : 0;
}

static int find_known(struct job *j, struct err *e)
{
        j->total_bytes = 0;
        for (size_t i = 0; i < j->n_layers; i++) {
                struct publish_layer *l = &j->layers[i];
                const struct catalog_key key = { j->domain, l->layer->diff_id, l->chain };
                int r = catalog_find_layer(j->store, &key, &l->n, e);

                if (r < 0)
                        return r;
                if (r == 0) {
                        (void) snprintf(l->staged, sizeof l->staged, "%zu", i);
                        if (__builtin_add_overflow(j->total_bytes, l->layer->size_bytes,
                                                   &j->total_bytes))
                                return err_set(e, -EFBIG, "the layers' sizes are absurd");
                }
        }
        return 0;
}

/* The blob that import left for this layer: a plain file, whatever else may be there. */
static int open_blob(struct job *j, const char *file, struct err *e)
{
        AUTO(fd)
        int fd = fd_open_beneath(j->input_dir, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY,
                                 0);
        struct stat st;

        if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
                return err_set(e, -EIO, "its blob is not a file");
        return fd_take(&fd);
}

static int start_layer(struct job *j, size_t i, struct err *e)
{
        struct publish_layer *l = &j->layers[i];
        struct fetch_request req = j->req; /* borrows */
        AUTO(fd) int dir = staging_dir(&j->staging, l->staged, e);
        AUTO(fd) int input = -EBADF;

        if (dir < 0)
                return dir;
        if (l->layer->file) {
                input = open_blob(j, l->layer->file, e);
                if (input < 0)
                        return input;
                req.from_file = true;
        }
        req.digest = l->layer->digest;
        req.diff_id = l->layer->diff_id;
        req.size_bytes = l->layer->size_bytes;
        req.authorization = j->image.authorization;
        return fetcher_start(j->store->inst, j->store->guard,
                             &(struct fetcher_spec){ "layer", &req, dir, input }, &j->fetchers[i],
                             e);
}

struct tally {
        size_t waiting, n_run;
        struct fetcher *run[PARALLEL_MAX];
        uint64_t done_bytes, unpacked_bytes;
};

/* A fetcher was killed, by the kernel for want of memory or by whomever: its layer is begun again
 * once, in a directory of its own. */
static bool begin_again(struct job *j, size_t i)
{
        struct publish_layer *l = &j->layers[i];

        if (!j->fetchers[i].killed || l->again)
                return false;
        log_warn("layer %zu of %zu: %s; trying again", i + 1, j->n_layers, j->fetchers[i].err.msg);
        fetcher_end(&j->fetchers[i]);
        j->fetchers[i] = FETCHER_NONE;
        (void) fd_rm_rf(j->staging.fd, l->staged); /* else it goes with the staging directory */
        (void) snprintf(l->staged, sizeof l->staged, "%zur", i);
        l->again = true;
        return true;
}

/* What runs, what waits, how far they are; the first failure. */
static int count(struct job *j, struct tally *t, struct err *e)
{
        *t = (struct tally){ 0 };
        for (size_t i = 0; i < j->n_layers; i++) {
                struct fetcher *f = &j->fetchers[i];

                if (f->ended && !f->done)
                        (void) begin_again(j, i);
                t->done_bytes += f->done_bytes;
                t->unpacked_bytes += f->unpacked_bytes;
                if (f->ended && !f->done) {
                        (void) err_copy(e, &f->err);
                        return err_wrap(e, f->err.code, "layer %zu of %zu", i + 1, j->n_layers);
                }
                if (f->pid > 0)
                        t->run[t->n_run++] = f;
                else if (*j->layers[i].staged && !f->ended)
                        t->waiting++;
        }
        if (t->unpacked_bytes > j->req.max_bytes)
                return err_set(e, -EFBIG, "unpacked it has more than the %llu MiB that are allowed",
                               (unsigned long long) (j->req.max_bytes >> 20));
        return 0;
}

static int start_next(struct job *j, struct err *e)
{
        for (size_t i = 0; i < j->n_layers; i++) {
                struct fetcher *f = &j->fetchers[i];
                int r;

                if (f->pid > 0 || f->ended || !*j->layers[i].staged)
                        continue;
                r = start_layer(j, i, e);
                return r < 0 ? err_wrap(e, r, "layer %zu of %zu", i + 1, j->n_layers) : 0;
        }
        return 0;
}

static int fetch_layers(struct job *j, struct err *e)
{
        uint32_t parallel = j->store->inst->conf.parallel_layers;

        if (parallel < 1 || parallel > PARALLEL_MAX)
                parallel = parallel ? PARALLEL_MAX : 3;
        for (;;) {
                struct tally t;
                int r = count(j, &t, e);

                if (r < 0)
                        return r;
                tell(j, "downloading", t.done_bytes);
                if (t.n_run == 0 && t.waiting == 0)
                        break;
                if (t.waiting > 0 && t.n_run < parallel)
                        r = start_next(j, e);
                else
                        r = listen_once(j, t.run, t.n_run, e);
                if (r < 0)
                        return r;
        }
        for (size_t i = 0; i < j->n_layers; i++) {
                j->layers[i].unpacked_bytes = j->fetchers[i].unpacked_bytes;
                j->layers[i].opaque = &j->fetchers[i].opaque;
                j->layers[i].implied = &j->fetchers[i].implied;
        }
        return 0;
}

static int fetch_and_publish(struct job *j, const char *reference, const char *account,
                             bool is_public, struct err *e)
{
        int r = plan_layers(j, e);

        if (r >= 0)
                r = find_known(j, e);
        if (r >= 0)
                r = fetch_layers(j, e);
        if (r < 0)
                return r;
        tell(j, "publishing", j->total_bytes);
        return publish_image(&(struct publish){ .staging = &j->staging,
                                                .image = &j->image,
                                                .layers = j->layers,
                                                .n_layers = j->n_layers,
                                                .domain = j->domain,
                                                .reference = reference,
                                                .account = account,
                                                .is_public = is_public },
                             e);
}

/* --- what a job is told --- */

static const char *architecture(void)
{
        static const struct {
                const char *machine, *name;
        } known[] = { { "x86_64", "amd64" },
                      { "aarch64", "arm64" },
                      { "riscv64", "riscv64" },
                      { "ppc64le", "ppc64le" },
                      { "s390x", "s390x" } };
        struct utsname u;

        if (uname(&u) == 0)
                for (size_t i = 0; i < NELEM(known); i++)
                        if (str_eq(known[i].machine, u.machine))
                                return known[i].name;
        return "unknown";
}

static int copy(char **to, const char *from)
{
        free(*to);
        *to = from ? strdup(from) : NULL;
        return from && !*to ? -ENOMEM : 0;
}

/* Registries of the configuration: permissions, and credentials of the operator's own. */
static int add_registries(struct job *j, const char *registry, bool want_credentials)
{
        const struct instance *inst = j->store->inst;
        int r = 0;

        for (size_t i = 0; r >= 0 && i < inst->n_registries; i++) {
                const struct registry_conf *c = &inst->registries[i];

                r = strv_push(&j->req.listed, c->host);
                if (r >= 0 && c->insecure)
                        r = strv_push(&j->req.insecure, c->host);
                if (r >= 0 && want_credentials && !str_empty(c->username) &&
                    str_eq(c->host, registry)) {
                        r = copy(&j->req.username, c->username);
                        if (r >= 0)
                                r = copy(&j->req.password, c->password);
                }
        }
        return r;
}

/* The configured one, when the caller has none. */
static uint64_t deadline_of(const struct image_store *s, uint64_t deadline_us)
{
        return deadline_us ? deadline_us : clock_mono_us() + s->inst->conf.pull_timeout_us;
}

static int job_begin(struct image_store *s, uint64_t deadline_us, image_progress_fn *fn, void *arg,
                     struct job *ret, struct err *e)
{
        *ret = (struct job){ .store = s,
                             .deadline_us = deadline_us,
                             .fn = fn,
                             .arg = arg,
                             .input_dir = -EBADF,
                             .staging = { .fd = -EBADF } };
        ret->req.max_bytes = s->inst->conf.image_max_bytes;
        ret->req.max_entries = LIMIT_LAYER_ENTRIES;
        ret->req.connect_us = CONNECT_US;
        ret->req.stall_us = s->inst->conf.registry_silence_us;
        ret->req.rate_bytes = s->inst->conf.registry_rate_bytes;
        ret->req.deadline_us = deadline_us;
        if (copy(&ret->req.architecture, architecture()) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        return staging_begin(s, &ret->staging, e);
}

/* --- pull --- */

static int resolve(struct job *j, const struct imageref *ref, struct err *e)
{
        struct fetcher f = FETCHER_NONE;
        AUTO(fd) int dir = staging_dir(&j->staging, "manifest", e);
        const struct fetcher_spec spec = { "manifest", &j->req, dir, -EBADF };
        int r = dir;

        tell(j, "resolving", 0);
        if (r >= 0)
                r = run_alone(j, &spec, "resolving", 0, &f, e);
        if (r < 0 && f.killed) { /* it writes nothing, so there is nothing to clean up */
                fetcher_end(&f);
                r = run_alone(j, &spec, "resolving", 0, &f, e);
        }
        if (r >= 0 && !f.have_image)
                r = err_set(e, -EPROTO, "vmm-fetch gave no image");
        if (r >= 0 && *ref->digest && f.image.digest && !str_eq(ref->digest, f.image.digest))
                r = 0; /* an index: its entry has a digest of its own */
        if (r >= 0) {
                j->image = f.image;
                f.image = (struct fetch_image){ 0 };
                for (size_t i = 0; i < j->image.n_layers; i++) {
                        free(j->image.layers[i].file); /* only an upload has files */
                        j->image.layers[i].file = NULL;
                }
        }
        fetcher_end(&f);
        return r;
}

static int pull_once(struct image_store *s, const struct imageref *ref, const char *name,
                     const struct image_credentials *cred, uint64_t deadline_us,
                     image_progress_fn *fn, void *arg, struct err *e)
{
        bool own = cred && !str_empty(cred->username);
        const char *account = own ? cred->account : NULL;
        AUTO(job_done) struct job j = { .staging = { .fd = -EBADF }, .input_dir = -EBADF };
        int r = job_begin(s, deadline_us, fn, arg, &j, e);

        if (r < 0)
                return r;
        if (copy(&j.req.registry, ref->registry) < 0 ||
            copy(&j.req.repository, ref->repository) < 0 ||
            copy(&j.req.reference, *ref->digest ? ref->digest : ref->tag) < 0 ||
            (own && (copy(&j.req.username, cred->username) < 0 ||
                     copy(&j.req.password, cred->password ? cred->password : "") < 0)) ||
            add_registries(&j, ref->registry, !own) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        j.domain = str_fmt("pull:%s/%s", ref->registry, ref->repository);
        if (!j.domain)
                return err_set(e, -ENOMEM, "out of memory");
        r = resolve(&j, ref, e);
        if (r >= 0)
                r = fetch_and_publish(&j, name, account, false, e);
        return r;
}

int image_pull(struct image_store *s, const char *reference, const struct image_credentials *cred,
               uint64_t deadline_us, image_progress_fn *fn, void *arg, struct err *e)
{
        AUTO(free) char *name = NULL;
        struct imageref ref;
        int r = imageref_parse(reference, &ref, e);

        if (r < 0)
                return r;
        name = imageref_format(&ref);
        if (!name)
                return err_set(e, -ENOMEM, "out of memory");
        deadline_us = deadline_of(s, deadline_us);
        for (int i = 0;; i++) {
                r = pull_once(s, &ref, name, cred, deadline_us, fn, arg, e);
                if (r != -EAGAIN || i + 1 >= ATTEMPTS)
                        break;
        }
        return r < 0 ? err_wrap(e, r, "pull %s", name) : 0;
}

/* --- import --- */

static int take_upload(struct job *j, int stream, struct err *e)
{
        struct fetcher f = FETCHER_NONE;
        AUTO(fd) int dir = staging_dir(&j->staging, "upload", e);
        int r = dir;

        tell(j, "uploading", 0);
        if (r >= 0)
                r = run_alone(j, &(struct fetcher_spec){ "import", &j->req, dir, stream },
                              "uploading", UPLOAD_STALL_US, &f, e);
        if (r >= 0 && !f.have_image)
                r = err_set(e, -EPROTO, "vmm-fetch gave no image");
        for (size_t i = 0; r >= 0 && i < f.image.n_layers; i++)
                if (!f.image.layers[i].file)
                        r = err_set(e, -EPROTO, "vmm-fetch gave a layer without a file");
        if (r >= 0) {
                j->input_dir = fd_open_beneath(dir, FETCH_IMPORT_DIR, O_RDONLY | O_DIRECTORY, 0);
                if (j->input_dir < 0)
                        r = err_errno(e, j->input_dir, "opening the upload");
        }
        if (r >= 0) {
                j->image = f.image;
                f.image = (struct fetch_image){ 0 };
        }
        fetcher_end(&f);
        return r;
}

static int import_once(struct image_store *s, const char *account, bool is_public, const char *name,
                       int stream, uint64_t deadline_us, image_progress_fn *fn, void *arg,
                       struct err *e)
{
        AUTO(job_done) struct job j = { .staging = { .fd = -EBADF }, .input_dir = -EBADF };
        int r = job_begin(s, deadline_us, fn, arg, &j, e);

        if (r < 0)
                return r;
        j.domain = str_fmt("import:%s", account);
        if (!j.domain)
                return err_set(e, -ENOMEM, "out of memory");
        r = take_upload(&j, stream, e);
        for (int i = 0; r >= 0; i++) { /* the blobs are here: no need for the stream again */
                r = fetch_and_publish(&j, name, account, is_public, e);
                if (r != -EAGAIN || i + 1 >= ATTEMPTS)
                        break;
                r = err_set(e, -EBUSY, "layers are being removed");
        }
        return r;
}

int image_import(struct image_store *s, const char *account, bool is_public, const char *name,
                 int stream, uint64_t deadline_us, image_progress_fn *fn, void *arg, struct err *e)
{
        AUTO(free) char *full = NULL;
        struct imageref ref;
        int r;

        if (str_empty(account))
                return err_set(e, -EINVAL, "an uploaded image needs an account");
        r = imageref_parse(name, &ref, e);
        if (r < 0)
                return r;
        if (*ref.digest)
                return err_set(e, -EINVAL, "name: '%s' has a digest, which an upload cannot choose",
                               name);
        full = imageref_format(&ref);
        if (!full)
                return err_set(e, -ENOMEM, "out of memory");
        r = import_once(s, account, is_public, full, stream, deadline_of(s, deadline_us), fn, arg,
                        e);
        return r < 0 ? err_wrap(e, r, "import %s", full) : 0;
}
