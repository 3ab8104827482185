/* pull.c - image_pull and image_import: run fetchers, then publish.  Operation processes; block.
 *
 * Stages: resolve (or take the upload in), get the layers that are not here (layers.c), publish.  Any failure ends all fetchers and empties the staging directory; a kill does the same
 * by way of parent-death signals and image_recover(). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/rate.h"
#include "model/imageref.h"
#include "model/limits.h"
#include "run.h"

#define CONNECT_US      (10 * US_PER_S)
#define UPLOAD_STALL_US (60 * US_PER_S) /* a client that sends nothing */
#define ATTEMPTS        3               /* when a layer that was here is removed while we pull */

struct job {
        struct image_store *store;
        struct staging staging;
        struct fetch_request req; /* what all fetchers of this job are told */
        struct fetch_image image;
        uint64_t deadline_us;
        image_progress_fn *fn;
        void *arg;
        char *domain;
        struct layers layers;
        const char *phase;
        struct rate rate; /* of what comes */
        uint64_t come_bytes;
        int input_dir; /* import: where the blobs are */
};
#define JOB_NONE                                                                                   \
        {                                                                                          \
                .staging = { .fd = -EBADF }, .layers = LAYERS_NONE, .input_dir = -EBADF            \
        }

static void job_done(struct job *j)
{
        layers_done(&j->layers); /* nobody writes any more */
        fetch_image_done(&j->image);
        fetch_request_done(&j->req);
        j->input_dir = fd_close(j->input_dir);
        staging_end(&j->staging);
        free(j->domain);
}

static inline void job_done_cleanup(struct job *j)
{
        job_done(j);
}

static void tell(struct job *j, const char *phase, uint64_t done, uint64_t total)
{
        const struct image_progress p = { phase, done, total, 0 };

        if (j->fn)
                j->fn(j->arg, &p);
}

static void tell_moving(struct job *j, const char *phase, uint64_t done, uint64_t total,
                        uint64_t moved)
{
        struct image_progress p = { phase, done, total, 0 };

        rate_add(&j->rate, clock_mono_us(), moved);
        p.bytes_per_s = rate_per_s(&j->rate);
        if (j->fn)
                j->fn(j->arg, &p);
}

static void on_alone(void *arg, uint64_t done)
{
        struct job *j = arg;
        uint64_t moved = done > j->come_bytes ? done - j->come_bytes : 0;

        j->come_bytes = done;
        tell_moving(j, j->phase, done, 0, moved);
}

static void on_layers(void *arg, uint64_t done, uint64_t total, uint64_t moved)
{
        struct job *j = arg;

        tell_moving(j, j->input_dir >= 0 ? "unpacking" : "downloading", done, total, moved);
}

static int run_one(struct job *j, const struct fetcher_spec *spec, const char *phase,
                   uint64_t stall_us, struct fetcher *f, struct err *e)
{
        const struct run run = { j->store, j->deadline_us };

        j->phase = phase;
        j->rate = (struct rate){ 0 };
        j->come_bytes = 0;
        return run_alone(&run, spec, stall_us, on_alone, j, f, e);
}

static int fetch_and_publish(struct job *j, const char *reference, const char *account,
                             bool is_public, struct err *e)
{
        struct layers *l = &j->layers;
        struct publish p = { l, reference, account, is_public };
        int r;

        l->store = j->store;
        l->staging = &j->staging;
        l->req = &j->req;
        l->image = &j->image;
        l->domain = j->domain;
        l->input_dir = j->input_dir;
        l->deadline_us = j->deadline_us;
        l->tell = on_layers;
        l->arg = j;
        r = publish_again(&p, e);
        if (r != 0)
                return r;
        j->rate = (struct rate){ 0 };
        r = layers_get(l, e);
        if (r < 0)
                return r;
        tell(j, "publishing", l->total_bytes, l->total_bytes);
        return publish_image(&p, e);
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
        *ret = (struct job) JOB_NONE;
        ret->store = s;
        ret->deadline_us = deadline_us;
        ret->fn = fn;
        ret->arg = arg;
        ret->req.threshold = s->inst->conf.object_threshold;
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

static int resolve(struct job *j, struct err *e)
{
        struct fetcher f = FETCHER_NONE;
        AUTO(fd) int dir = staging_dir(&j->staging, "manifest", e);
        const struct fetcher_spec spec = {
                .mode = "manifest", .req = &j->req, .dir_fd = dir, .input_fd = -EBADF
        };
        int r = dir;

        tell(j, "resolving", 0, 0);
        if (r >= 0)
                r = run_one(j, &spec, "resolving", 0, &f, e);
        if (r < 0 && f.killed) { /* it writes nothing, so there is nothing to clean up */
                fetcher_end(&f);
                r = run_one(j, &spec, "resolving", 0, &f, e);
        }
        if (r >= 0 && !f.have_image)
                r = err_set(e, -EPROTO, "vmm-fetch gave no image");
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
        AUTO(job_done) struct job j = JOB_NONE;
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
        r = resolve(&j, e);
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

        tell(j, "uploading", 0, 0);
        if (r >= 0)
                r = run_one(j,
                            &(struct fetcher_spec){ .mode = "import",
                                                    .req = &j->req,
                                                    .dir_fd = dir,
                                                    .input_fd = stream,
                                                    .apart = true },
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
        AUTO(job_done) struct job j = JOB_NONE;
        int r = job_begin(s, deadline_us, fn, arg, &j, e);

        if (r < 0)
                return r;
        j.domain = str_fmt("import:%s", account);
        if (!j.domain)
                return err_set(e, -ENOMEM, "out of memory");
        r = take_upload(&j, stream, e);
        for (int i = 0; r >= 0 && i < ATTEMPTS; i++) { /* the blobs stay: no need for the stream */
                r = fetch_and_publish(&j, name, account, is_public, e);
                if (r != -EAGAIN || i + 1 >= ATTEMPTS)
                        break;
                layers_done(&j.layers);
                r = 0;
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
