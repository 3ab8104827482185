/* pull_queue.c - image operations wait here for a place.  Engine process, loop thread.
 *
 * Theory of operation.  fleet.pulls has what runs and what waits, oldest first.  Pulls and uploads
 * share `parallel_pulls` places, of which one account has at most half; a place goes to the account
 * that uses the fewest, then to the one that was served longest ago, then to whoever came first.  So
 * a hundred pulls of one account, or two that never end, are no reason for another's to wait.
 * Removals have a place of their own.  One at a time per image. */
#include <errno.h>
#include <fcntl.h>

#include "base/log.h"
#include "base/str.h"
#include "engine/fleet/pull_priv.h"

#define REMOVE_PLACES 1U

/* ---- whose turn it is ---- */

/* Operations of that sort that run; also how many of them for @account. */
static uint32_t count_running(const struct fleet *f, const struct pull *like, uint32_t *ret_own)
{
        uint32_t n = 0;

        *ret_own = 0;
        for (const struct pull *q = f->pulls; q; q = q->next) {
                if (!q->op || pull_is_transfer(q) != pull_is_transfer(like))
                        continue;
                n++;
                *ret_own += str_eq(q->account, like->account);
        }
        return n;
}

/* Another pull is fetching what @p wants, and shares what comes with everybody. */
static bool is_on_its_way(const struct fleet *f, const struct pull *p)
{
        for (const struct pull *q = f->pulls; q; q = q->next)
                if (q->op && q != p && q->kind == PULL_PULL && p->kind == PULL_PULL &&
                    !q->abandoned && !p->force && !p->username && !q->username &&
                    str_eq(q->reference, p->reference))
                        return true;
        return false;
}

/* The waiting one that begins next, or NULL. */
static struct pull *next_pull(const struct fleet *f)
{
        struct pull *best = NULL;
        uint32_t best_own = 0;

        for (struct pull *p = f->pulls; p; p = p->next) {
                uint32_t places = pull_is_transfer(p) ? f->spec.host->inst->conf.parallel_pulls
                                                      : REMOVE_PLACES;
                uint32_t own, n;

                if (p->op || p->no_space)
                        continue;
                n = count_running(f, p, &own);
                if (n >= places || own >= (places + 1) / 2 || is_on_its_way(f, p))
                        continue;
                if (best && (own > best_own || (own == best_own && p->turn >= best->turn)))
                        continue;
                best = p;
                best_own = own;
        }
        return best;
}

static uint64_t last_turn(const struct fleet *f)
{
        uint64_t last = 0;

        for (const struct pull *q = f->pulls; q; q = q->next)
                if (q->turn > last)
                        last = q->turn;
        return last;
}

/* The account of @p is being served: the others come before its next one. */
static void take_turn(struct pull *p)
{
        uint64_t turn = last_turn(p->fleet) + 1;

        for (struct pull *q = p->fleet->pulls; q; q = q->next)
                if (str_eq(q->account, p->account))
                        q->turn = turn;
}

/* Start what there are places for.  Ends by itself what came here while it waited. */
void pull_start_some(struct fleet *f)
{
        struct pull *p;

        while (!f->closing && (p = next_pull(f)) != NULL) {
                struct image image = { 0 };
                struct err e = { 0 };
                int r;

                if (p->kind == PULL_PULL && !p->force &&
                    pull_find_ready(f, p->account, p->reference, p->username, &image, &e) >= 0) {
                        pull_finish(p, 0, &image, &e);
                        image_done(&image);
                        continue;
                }
                take_turn(p);
                /* what is in use now, not when it was asked for: it may have waited */
                r = pull_is_transfer(p) ? pull_launch(p, &e) : pull_go_on(p, p->kind, &e);
                if (r < 0)
                        pull_finish(p, r, NULL, &e);
        }
}

/* ---- what is asked for ---- */

static struct pull *pull_new(struct fleet *f, enum pull_kind kind, const char *account,
                             const char *reference)
{
        struct pull *p = calloc(1, sizeof *p);

        if (!p)
                return NULL;
        p->stream = -EBADF;
        p->fleet = f;
        p->kind = kind;
        p->account = str_dup(account);
        p->reference = str_dup(reference);
        if (!p->reference || (account && !p->account))
                return pull_free(p);
        p->turn = last_turn(f); /* as if it had just been served: asking one by one is no gain */
        for (const struct pull *q = f->pulls; q; q = q->next)
                if (!q->op && str_eq(q->account, account))
                        p->turn = q->turn; /* behind those of its account */
        return p;
}

static void enqueue(struct pull *p)
{
        struct fleet *f = p->fleet;
        struct pull **tail = &f->pulls;

        while (*tail)
                tail = &(*tail)->next;
        *tail = p;
        pull_start_some(f);
}

static int add_waiter(struct pull *p, fleet_progress_fn *progress, fleet_pull_fn *done, void *arg)
{
        struct waiter *w = calloc(1, sizeof *w);

        if (!w)
                return -ENOMEM;
        *w = (struct waiter){ p->waiters, progress, done, arg };
        p->waiters = w;
        return 0;
}

/* Whoever @arg is has to wait for a place. */
static void tell_waiting(const struct fleet *f, const void *arg)
{
        static const struct image_progress waiting = { .phase = "waiting" };

        for (const struct pull *p = f->pulls; p; p = p->next)
                for (const struct waiter *w = p->op ? NULL : p->waiters; w; w = w->next)
                        if (w->arg == arg && w->progress)
                                w->progress(w->arg, &waiting);
}

/* Put @p at the end of the queue with its first waiter, and see whose turn it is. */
static int submit(struct pull *p, fleet_progress_fn *progress, fleet_pull_fn *done, void *arg,
                  struct err *e)
{
        struct fleet *f = p->fleet;

        if (f->closing) {
                (void) pull_free(p);
                return err_set(e, -ECANCELED, "the host is stopping");
        }
        if (add_waiter(p, progress, done, arg) < 0) {
                (void) pull_free(p);
                return err_set(e, -ENOMEM, "out of memory");
        }
        enqueue(p); /* it may be over when this returns */
        tell_waiting(f, arg);
        return 0;
}

int fleet_pull(struct fleet *f, const char *reference, const struct image_credentials *cred,
               bool force, fleet_progress_fn *progress, fleet_pull_fn *done, void *arg,
               struct err *e)
{
        const char *user = str_empty(cred->username) ? NULL : cred->username;
        const char *password = user ? cred->password : NULL;
        struct image image = { 0 };
        struct pull *p;

        if (str_empty(cred->account)) /* else what it opens would be everybody's */
                return err_set(e, -EINVAL, "account: is missing");
        if (!force && pull_find_ready(f, cred->account, reference, user, &image, e) >= 0) {
                done(arg, 0, &image, e);
                image_done(&image);
                return 0;
        }
        /* the same image for the same account with the same credentials */
        for (p = f->pulls; p; p = p->next)
                if (p->kind == PULL_PULL && !p->abandoned && !(force && p->op) &&
                    str_eq(p->reference, reference) && str_eq(p->account, cred->account) &&
                    str_eq(p->username, user) && str_eq(p->password, password)) {
                        if (add_waiter(p, progress, done, arg) < 0)
                                return err_set(e, -ENOMEM, "out of memory");
                        p->force = p->force || force;
                        tell_waiting(f, arg);
                        return 0;
                }
        p = pull_new(f, PULL_PULL, cred->account, reference);
        if (p) {
                p->force = force;
                p->username = str_dup(user);
                p->password = str_dup(password);
        }
        if (!p || (user && !p->username) || (password && !p->password)) {
                (void) pull_free(p);
                return err_set(e, -ENOMEM, "out of memory");
        }
        return submit(p, progress, done, arg, e);
}

int fleet_import(struct fleet *f, const char *account, bool is_public, const char *name, int stream,
                 fleet_progress_fn *progress, fleet_pull_fn *done, void *arg, struct err *e)
{
        struct pull *p = pull_new(f, PULL_IMPORT, account, name);

        if (!p)
                return err_set(e, -ENOMEM, "out of memory");
        p->flag = is_public;
        p->stream = fcntl(stream, F_DUPFD_CLOEXEC, 3);
        if (p->stream < 0) {
                int r = err_errno(e, -errno, "import");

                (void) pull_free(p);
                return r;
        }
        return submit(p, progress, done, arg, e);
}

int fleet_image_remove(struct fleet *f, const char *account, bool is_admin, const char *reference,
                       fleet_pull_fn *done, void *arg, struct err *e)
{
        struct pull *p = pull_new(f, PULL_REMOVE, account, reference);

        if (!p)
                return err_set(e, -ENOMEM, "out of memory");
        p->flag = is_admin;
        return submit(p, NULL, done, arg, e);
}

void fleet_images_tidy(struct fleet *f)
{
        struct err e = { 0 };
        struct pull *p = NULL;
        int r = image_unswept(f->spec.host->images, &e);

        if (r > 0) {
                p = pull_new(f, PULL_SWEEP, NULL, "removed images");
                if (p)
                        enqueue(p);
        }
        if (r < 0)
                log_warn("%s", e.msg);
}

void fleet_images_expire(struct fleet *f, uint64_t need)
{
        struct pull *p;

        for (p = f->pulls; p; p = p->next)
                if (p->expires) {
                        p->again = p->op != NULL; /* it has looked already */
                        if (need > p->bytes)
                                p->bytes = need;
                        return;
                }
        p = pull_new(f, PULL_EXPIRE, NULL, "unused images");
        if (!p)
                return; /* another time */
        p->expires = true;
        p->bytes = need;
        enqueue(p);
}

size_t fleet_pulls_waiting(const struct fleet *f, const char *account)
{
        size_t n = 0;

        for (const struct pull *p = f->pulls; p; p = p->next)
                n += !p->op && str_eq(p->account, account);
        return n;
}
