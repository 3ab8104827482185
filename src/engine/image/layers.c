/* layers.c - the layers of one image: those that are here, those that another operation brings, and
 * those that are fetched.  Operation processes; blocks.
 *
 * Theory of operation.  A layer is claimed in the database, under the name of our staging directory,
 * before it is fetched; whoever finds a claim whose staging directory is locked by a living operation
 * waits until it is not, and looks again: the layer is here then, or is to be fetched after all.  All
 * claims of an operation are made at once and take the next turn; an operation waits only for earlier
 * turns.  So the ones that wait form no circle, although all keep what they have until they publish.
 * The exception is one that must fetch a layer late, because somebody failed to, and finds that a later
 * turn has claimed it: it fetches the layer, too. */
#include <errno.h>
#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "model/limits.h"
#include "run.h"

#define PARALLEL_MAX     16U
#define PARALLEL_DEFAULT 3U

struct catalog_key layers_key(const struct layers *l, const struct layer_work *w)
{
        return (struct catalog_key){ l->domain, w->layer->diff_id, l->req->threshold };
}

/* Each diff id once, topmost place kept, since a repeated layer brings everything again that it
 * brought before. */
static int plan(struct layers *l, struct err *e)
{
        const struct fetch_image *im = l->image;

        l->v = calloc(im->n_layers, sizeof *l->v);
        if (!l->v)
                return err_set(e, -ENOMEM, "out of memory");
        for (size_t i = 0; i < im->n_layers; i++) {
                bool again = false;

                for (size_t k = i + 1; k < im->n_layers; k++)
                        again = again || str_eq(im->layers[i].diff_id, im->layers[k].diff_id);
                if (again)
                        continue;
                l->v[l->n].layer = &im->layers[i];
                l->v[l->n].fetcher = FETCHER_NONE;
                l->v[l->n].found.index_fd = -EBADF;
                l->v[l->n++].found.names_fd = -EBADF;
        }
        return 0;
}

/* --- who fetches --- */

static int find_known(struct layers *l, struct layer_work *w, struct err *e)
{
        struct catalog_key key = layers_key(l, w);
        int r = catalog_find_layer(l->store, &key, &w->n, &w->found.facts, e);

        if (r > 0)
                w->state = LAYER_STATE_KNOWN;
        return r;
}

/* Under the write lock. */
static int claim_one(struct layers *l, struct layer_work *w, struct err *e)
{
        struct catalog_key key = layers_key(l, w);
        char op[16] = "";
        int64_t turn = 0;
        int r = find_known(l, w, e);

        if (r != 0)
                return r;
        r = catalog_claim_owner(l->store, &key, op, &turn, e);
        if (r < 0)
                return r;
        if (r > 0 && !str_eq(op, l->staging->name) && staging_is_held(l->store, op)) {
                w->state = turn < l->turn ? LAYER_STATE_WAITS : LAYER_STATE_WANTED;
                memcpy(w->waits_for, op, sizeof w->waits_for);
                return 0;
        }
        w->state = LAYER_STATE_WANTED;
        return catalog_claim(l->store, &key, l->staging->name, l->turn, e);
}

static int claim_all(struct layers *l, struct err *e)
{
        int r = l->turn ? 0 : catalog_claim_turn(l->store, &l->turn, e);

        for (size_t i = 0; r >= 0 && i < l->n; i++)
                if (l->v[i].state == LAYER_STATE_NONE)
                        r = claim_one(l, &l->v[i], e);
        return r;
}

/* Decide about all layers of which nothing is known. */
static int decide(struct layers *l, struct err *e)
{
        size_t unknown = 0;
        int r = 0;

        for (size_t i = 0; r >= 0 && i < l->n; i++)
                if (l->v[i].state == LAYER_STATE_NONE) {
                        r = find_known(l, &l->v[i], e);
                        unknown += r == 0;
                }
        if (r < 0 || unknown == 0)
                return r < 0 ? r : 0;
        r = catalog_begin_lazily(l->store, e);
        if (r < 0)
                return r;
        r = claim_all(l, e);
        if (r >= 0)
                r = catalog_commit(l->store, e);
        if (r < 0)
                catalog_rollback(l->store);
        return r;
}

/* Look again after those that others fetched until now. */
static int look_after_others(struct layers *l, struct err *e)
{
        size_t over = 0;

        for (size_t i = 0; i < l->n; i++)
                if (l->v[i].state == LAYER_STATE_WAITS &&
                    !staging_is_held(l->store, l->v[i].waits_for)) {
                        l->v[i].state = LAYER_STATE_NONE;
                        over++;
                }
        return over > 0 ? decide(l, e) : 0;
}

/* To hear of staging directories that go.  Without it we look now and then. */
static void watch_others(struct layers *l)
{
        char path[32];

        if (l->watch_fd >= 0)
                return;
        l->watch_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        (void) snprintf(path, sizeof path, "/proc/self/fd/%d", l->store->staging_fd);
        if (l->watch_fd >= 0 && inotify_add_watch(l->watch_fd, path, IN_DELETE) < 0)
                l->watch_fd = fd_close(l->watch_fd);
}

static void drain(int fd)
{
        char buf[4096];

        while (read(fd, buf, sizeof buf) > 0)
                ;
}

/* --- fetching --- */

/* The blob that import left for this layer: a plain file, whatever else may be there. */
static int open_blob(const struct layers *l, const char *file, struct err *e)
{
        AUTO(fd)
        int fd = fd_open_beneath(l->input_dir, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY,
                                 0);
        struct stat st;

        if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
                return err_set(e, -EIO, "its blob is not a file");
        return fd_take(&fd);
}

static int start_fetcher(struct layers *l, struct layer_work *w, struct err *e)
{
        struct fetch_request req = *l->req; /* borrows */
        AUTO(fd) int dir = -EBADF, input = -EBADF;
        int r;

        (void) snprintf(w->staged, sizeof w->staged, "%u", l->round++);
        dir = staging_dir(l->staging, w->staged, e);
        if (dir < 0)
                return dir;
        if (w->layer->file) {
                input = open_blob(l, w->layer->file, e);
                if (input < 0)
                        return input;
                req.from_file = true;
        }
        req.digest = w->layer->digest;
        req.diff_id = w->layer->diff_id;
        req.size_bytes = w->layer->size_bytes;
        req.authorization = l->image->authorization;
        w->state = LAYER_STATE_FETCHING;
        r = fetcher_start(l->store->inst, l->store->guard,
                          &(struct fetcher_spec){ .mode = "layer",
                                                  .req = &req,
                                                  .dir_fd = dir,
                                                  .input_fd = input,
                                                  .apart = w->layer->file != NULL },
                          &w->fetcher, e);
        return r;
}

/* A fetcher was killed, by the kernel for want of memory or by whomever: its layer is begun again
 * once, in a directory of its own. */
static bool begin_again(struct layers *l, struct layer_work *w)
{
        if (!w->fetcher.killed || w->attempt > 0)
                return false;
        log_warn("layer %zu of %zu: %s; trying again", (size_t) (w - l->v) + 1, l->n,
                 w->fetcher.err.msg);
        fetcher_end(&w->fetcher);
        w->fetcher = FETCHER_NONE;
        staging_drop(l->staging, w->staged);
        w->attempt++;
        w->state = LAYER_STATE_WANTED;
        return true;
}

static int start_check(struct layers *l, struct layer_work *w, struct err *e)
{
        AUTO(fd)
        int dir = fd_open_beneath(l->staging->fd, w->staged, O_RDONLY | O_DIRECTORY, 0);
        const struct check_spec spec = { dir, w->layer->diff_id, l->req->threshold,
                                         l->req->max_bytes };

        if (dir < 0)
                return err_errno(e, dir, "staging");
        w->state = LAYER_STATE_CHECKING;
        return check_start(&spec, &w->check, e);
}

/* Its fetcher or its check has news. */
static int hear(struct layers *l, struct layer_work *w, struct err *e)
{
        int r;

        if (w->state == LAYER_STATE_FETCHING) {
                fetcher_hear(&w->fetcher);
                if (!w->fetcher.ended)
                        return 0;
                if (w->fetcher.done)
                        return start_check(l, w, e);
                return begin_again(l, w) ? 0 : err_copy(e, &w->fetcher.err);
        }
        r = check_hear(w->check, &w->found, e);
        if (r <= 0)
                return r;
        w->check = check_free(w->check);
        w->state = LAYER_STATE_READY;
        return 0;
}

static int wrong(const struct layers *l, const struct layer_work *w, int r, struct err *e)
{
        return err_wrap(e, r, "layer %zu of %zu", (size_t) (w - l->v) + 1, l->n);
}

static int start_some(struct layers *l, struct err *e)
{
        uint32_t parallel = l->store->inst->conf.parallel_layers, running = 0;

        if (parallel < 1 || parallel > PARALLEL_MAX)
                parallel = parallel ? PARALLEL_MAX : PARALLEL_DEFAULT;
        for (size_t i = 0; i < l->n; i++)
                running += l->v[i].state == LAYER_STATE_FETCHING;
        for (size_t i = 0; running < parallel && i < l->n; i++) {
                struct layer_work *w = &l->v[i];
                int r;

                if (w->state != LAYER_STATE_WANTED)
                        continue;
                r = start_fetcher(l, w, e);
                if (r < 0)
                        return wrong(l, w, r, e);
                running++;
        }
        return 0;
}

/* What has come since the last time; begun again, it comes again. */
static uint64_t moved_since(struct layer_work *w)
{
        uint64_t now = w->fetcher.done_bytes < w->due_bytes ? w->fetcher.done_bytes : w->due_bytes;
        uint64_t more = now > w->moved_bytes ? now - w->moved_bytes : 0;

        w->moved_bytes = now;
        return more;
}

/* A fetcher says what it likes: what has been checked counts for itself.  Of the layers of one image
 * each was allowed as much. */
static int check_sum(const struct layers *l, struct err *e)
{
        uint64_t told = 0, here = 0;

        for (size_t i = 0; i < l->n; i++) {
                told += l->v[i].fetcher.unpacked_bytes;
                if (l->v[i].state == LAYER_STATE_READY)
                        here += l->v[i].found.unpacked_bytes;
        }
        if (told > l->req->max_bytes || here > l->req->max_bytes)
                return err_set(e, -EFBIG, "unpacked it has more than the %llu MiB that are allowed",
                               (unsigned long long) (l->req->max_bytes >> 20));
        return 0;
}

/* How far they are, which never falls; 1: something is still to come. */
static int count(struct layers *l, struct err *e)
{
        uint64_t done = 0, moved = 0;
        bool more = false;
        int r = check_sum(l, e);

        if (r < 0)
                return r;
        for (size_t i = 0; i < l->n; i++) {
                struct layer_work *w = &l->v[i];
                bool here = w->state == LAYER_STATE_KNOWN || w->state == LAYER_STATE_READY;

                more = more || !here;
                moved += moved_since(w);
                done += here ? w->due_bytes : w->moved_bytes;
        }
        if (done > l->done_bytes)
                l->done_bytes = done;
        if (l->tell)
                l->tell(l->arg, l->done_bytes, l->total_bytes, moved);
        return more;
}

static int listen_once(struct layers *l, struct err *e)
{
        const struct run run = { l->store, l->deadline_us };
        struct pollfd p[LIMIT_LAYERS + 1];
        struct layer_work *of[LIMIT_LAYERS + 1];
        size_t n = 0;
        bool waits = false;
        int r;

        for (size_t i = 0; i < l->n; i++) {
                struct layer_work *w = &l->v[i];

                waits = waits || w->state == LAYER_STATE_WAITS;
                if (w->state != LAYER_STATE_FETCHING && w->state != LAYER_STATE_CHECKING)
                        continue;
                p[n] = (struct pollfd){ .events = POLLIN,
                                        .fd = w->check ? check_fd(w->check)
                                                       : w->fetcher.result_fd };
                of[n++] = w;
        }
        if (waits)
                watch_others(l);
        if (waits && l->watch_fd >= 0)
                p[n] = (struct pollfd){ .fd = l->watch_fd, .events = POLLIN };
        r = run_listen(&run, p, n + (waits && l->watch_fd >= 0), e);
        for (size_t i = 0; r >= 0 && i < n; i++)
                if (p[i].revents) {
                        r = hear(l, of[i], e);
                        if (r < 0)
                                return wrong(l, of[i], r, e);
                }
        if (r >= 0 && waits) {
                if (l->watch_fd >= 0)
                        drain(l->watch_fd);
                r = look_after_others(l, e);
        }
        return r;
}

/* --- what is here already --- */

static int open_known(struct layers *l, struct layer_work *w, struct err *e)
{
        AUTO(fd) int dir = -EBADF;
        struct err why = { 0 };
        char name[24], text[600];
        int r;

        (void) snprintf(name, sizeof name, "%lld", (long long) w->n);
        dir = fd_open_beneath(l->store->layers_fd, name, O_RDONLY | O_DIRECTORY, 0);
        if (dir < 0)
                return err_set(e, -EAGAIN, "a layer was removed meanwhile");
        r = check_known(dir, &w->found.facts, &w->found, &why);
        if (r != -EBADMSG)
                return r < 0 ? err_copy(e, &why) : 0;
        (void) snprintf(text, sizeof text, "layers/%s: %s", name, why.msg);
        log_warn("images/%s; it is fetched again", text);
        r = catalog_quarantine_layer(l->store, w->n, text, e);
        return r < 0 ? r : err_set(e, -EAGAIN, "%s", text);
}

/* What is to come, by ourselves or by others. */
static int add_up(struct layers *l, struct err *e)
{
        l->total_bytes = l->done_bytes = 0;
        for (size_t i = 0; i < l->n; i++) {
                struct layer_work *w = &l->v[i];

                if (w->state == LAYER_STATE_KNOWN)
                        continue;
                w->due_bytes = w->layer->size_bytes;
                if (__builtin_add_overflow(l->total_bytes, w->due_bytes, &l->total_bytes))
                        return err_set(e, -EFBIG, "the layers' sizes are absurd");
        }
        return 0;
}

int layers_get(struct layers *l, struct err *e)
{
        int r = plan(l, e);

        if (r >= 0)
                r = decide(l, e);
        if (r >= 0)
                r = add_up(l, e);
        while (r >= 0 && (r = count(l, e)) > 0) {
                r = start_some(l, e);
                if (r >= 0)
                        r = listen_once(l, e);
        }
        for (size_t i = 0; r >= 0 && i < l->n; i++)
                if (l->v[i].state == LAYER_STATE_KNOWN) {
                        r = open_known(l, &l->v[i], e);
                        if (r < 0 && r != -EAGAIN)
                                return wrong(l, &l->v[i], r, e);
                }
        return r;
}

/* What we claimed may be fetched by anybody now. */
static void unclaim(struct layers *l)
{
        struct err e = { 0 };
        int r = catalog_begin_lazily(l->store, &e);

        if (r < 0)
                return; /* our lock goes, which says the same */
        r = catalog_unclaim(l->store, l->staging->name, &e);
        if (r < 0 || catalog_commit(l->store, &e) < 0)
                catalog_rollback(l->store);
}

void layers_done(struct layers *l)
{
        for (size_t i = 0; i < l->n; i++) {
                struct layer_work *w = &l->v[i];

                fetcher_end(&w->fetcher);
                w->check = check_free(w->check);
                check_result_done(&w->found);
                if (*w->staged)
                        staging_drop(l->staging, w->staged);
        }
        free(l->v);
        l->v = NULL;
        l->n = 0;
        if (l->turn)
                unclaim(l);
        l->turn = 0;
        l->watch_fd = fd_close(l->watch_fd);
}
