/* store_sqlite.c - the embedded back end of store.h, in tensorone-api.
 *
 * Theory of operation.  The loop pushes transactions on `todo` and wakes the writer thread, which
 * takes all of them, runs each between a savepoint and its release, commits the lot with one
 * fsync, and moves them to `done`; an eventfd wakes the loop, which answers in order.  Whatever
 * arrives during a commit makes up the next group.
 *
 * When a transaction fails, what was before it in the group is committed, everything from it on
 * fails too, and `broken` stays set: the writer fails whatever else comes until the loop has
 * answered all of them and has loaded its memory again.
 *
 * The connection is used by the writer, and by the loop only in store_load() at start and during
 * recovery, when the writer has nothing to do; `busy` guards it all the same. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/dbspace.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "control/store/schema.h"
#include "control/store/sqlite_row.h"

#define TEND_EVERY_US (5 * US_PER_S)

struct list {
        struct store_txn *head, **tail;
};

struct sqlite_store {
        struct store base;
        sqlite3 *db;
        struct sqlite_stmts stmts; /* writer thread only */
        pthread_t thread;
        bool started;
        pthread_mutex_t busy; /* the connection */
        char *path;
        uint64_t tended_us; /* under `busy`: when room on the disk was looked after */
        bool cramped;

        pthread_mutex_t lock; /* all of the following */
        pthread_cond_t wake;
        struct list todo, done;
        bool broken, quit;
        struct err why; /* of the first failure since `broken` was set */

        int event_fd; /* writer -> loop: something is done */
        sd_event_source *source;
};

static void list_init(struct list *l)
{
        l->head = NULL;
        l->tail = &l->head;
}

static void list_push(struct list *l, struct store_txn *t)
{
        t->next = NULL;
        *l->tail = t;
        l->tail = &t->next;
}

static struct store_txn *list_all(struct list *l)
{
        struct store_txn *t = l->head;

        list_init(l);
        return t;
}

static int run_sql(sqlite3 *db, const char *sql, struct err *e)
{
        char *msg = NULL;
        int rc = sqlite3_exec(db, sql, NULL, NULL, &msg);

        if (rc != SQLITE_OK)
                (void) err_set(e, rc == SQLITE_BUSY ? -EBUSY : -EIO, "store: %s",
                               msg ? msg : sqlite3_errstr(rc));
        sqlite3_free(msg);
        return rc == SQLITE_OK ? 0 : rc == SQLITE_BUSY ? -EBUSY : -EIO;
}

static int run_txn(struct sqlite_store *s, const struct store_txn *t, struct err *e)
{
        int r = t->failed ? err_set(e, -ENOMEM, "out of memory") : run_sql(s->db, "SAVEPOINT t", e);

        for (size_t i = 0; r >= 0 && i < t->n_ops; i++)
                r = sqlite_row_apply(s->db, &s->stmts, &t->op[i], e);
        if (r < 0) {
                if (!t->failed)
                        (void) run_sql(s->db, "ROLLBACK TO t; RELEASE t", NULL);
                return r;
        }
        return run_sql(s->db, "RELEASE t", e);
}

/* Commit as many of @group as possible; results go into the transactions.  Returns the first
 * failure. */
static int run_group(struct sqlite_store *s, struct store_txn *group, struct err *e)
{
        struct store_txn *t = group;
        bool changes = false;
        int r, rc;

        for (; t; t = t->next)
                changes = changes || t->n_ops > 0 || t->failed;
        if (!changes)
                return 0; /* fences only */
        r = run_sql(s->db, "BEGIN IMMEDIATE", e);
        for (t = group; r >= 0 && t; t = t->next) {
                r = run_txn(s, t, e);
                t->result = r;
                if (r < 0)
                        break;
        }
        rc = sqlite3_get_autocommit(s->db) ? -EIO : run_sql(s->db, "COMMIT", r < 0 ? NULL : e);
        if (rc < 0) {
                (void) run_sql(s->db, "ROLLBACK", NULL);
                t = group; /* none of them is on disk */
                r = r < 0 ? r : rc;
        }
        for (; t; t = t->next)
                if (t->result >= 0)
                        t->result = r < 0 ? (t == group ? r : -ECANCELED) : 0;
        return r;
}

/* Keep room for stops and terminations (base/dbspace.h).  With the connection. */
static void tend(struct sqlite_store *s)
{
        struct err e = { 0 };
        uint64_t now = clock_mono_us();
        bool cramped;

        if (s->tended_us && now < s->tended_us + TEND_EVERY_US)
                return;
        s->tended_us = now;
        cramped = dbspace_keep(s->db, s->path, &e) < 0;
        if (cramped && !s->cramped)
                log_warn("store: %s", e.msg);
        s->cramped = cramped;
}

static void finish(struct sqlite_store *s, struct store_txn *group)
{
        while (group) {
                struct store_txn *next = group->next;

                list_push(&s->done, group);
                group = next;
        }
        if (eventfd_write(s->event_fd, 1) < 0)
                return; /* EAGAIN at 2^64 - 1: the loop is awake anyway */
}

static void *writer_main(void *arg)
{
        struct sqlite_store *s = arg;

        (void) pthread_mutex_lock(&s->lock);
        for (;;) {
                struct store_txn *group = list_all(&s->todo);
                struct err e = { 0 };
                int r = 0;

                if (!group && s->quit)
                        break;
                if (!group) {
                        (void) pthread_cond_wait(&s->wake, &s->lock);
                        continue;
                }
                if (s->broken) {
                        for (struct store_txn *t = group; t; t = t->next)
                                t->result = -ECANCELED;
                } else {
                        (void) pthread_mutex_unlock(&s->lock);
                        (void) pthread_mutex_lock(&s->busy);
                        r = run_group(s, group, &e);
                        (void) pthread_mutex_unlock(&s->busy);
                        (void) pthread_mutex_lock(&s->lock);
                }
                if (r < 0) {
                        s->broken = true;
                        s->why = e;
                }
                finish(s, group);
                if (r < 0)
                        continue;
                (void) pthread_mutex_unlock(&s->lock); /* those who wait have their answer */
                (void) pthread_mutex_lock(&s->busy);
                tend(s);
                (void) pthread_mutex_unlock(&s->busy);
                (void) pthread_mutex_lock(&s->lock);
        }
        (void) pthread_mutex_unlock(&s->lock);
        return NULL;
}

static void answer(struct sqlite_store *s, struct store_txn *t)
{
        while (t) {
                struct store_txn *next = t->next;

                s->base.settled++;
                if (t->done)
                        t->done(t->result, t->arg);
                (void) store_txn_free(t);
                t = next;
        }
}

/* Fail what was built on memory that is ahead of the disk, let the owner load again, go on. */
static void recover(struct sqlite_store *s)
{
        struct err why;

        while (s->base.settled < s->base.submitted) { /* the writer cancels them at once */
                (void) pthread_mutex_lock(&s->lock);
                struct store_txn *t = list_all(&s->todo), *d = list_all(&s->done);

                (void) pthread_mutex_unlock(&s->lock);
                for (struct store_txn *i = t; i; i = i->next)
                        i->result = -ECANCELED;
                answer(s, d);
                answer(s, t);
                if (!t && !d)
                        (void) sched_yield(); /* a group is in the writer's hands for an instant */
        }
        (void) pthread_mutex_lock(&s->lock);
        why = s->why;
        (void) pthread_mutex_unlock(&s->lock);
        if (s->base.on_failure)
                s->base.on_failure(s->base.failure_arg, why.msg);
        (void) pthread_mutex_lock(&s->lock);
        s->broken = false;
        (void) pthread_mutex_unlock(&s->lock);
}

/* Loop handler: some transactions have been settled. */
static int on_done(sd_event_source *src, int fd, uint32_t revents, void *arg)
{
        struct sqlite_store *s = arg;
        eventfd_t n;
        bool broken;

        (void) src;
        (void) revents;
        (void) eventfd_read(fd, &n);
        (void) pthread_mutex_lock(&s->lock);
        struct store_txn *t = list_all(&s->done);

        broken = s->broken;
        (void) pthread_mutex_unlock(&s->lock);
        answer(s, t);
        if (broken)
                recover(s);
        return 0;
}

static void sqlite_submit(struct store *base, struct store_txn *t, store_done_fn *done, void *arg)
{
        struct sqlite_store *s = (struct sqlite_store *) base;

        t->done = done;
        t->arg = arg;
        (void) pthread_mutex_lock(&s->lock);
        list_push(&s->todo, t);
        (void) pthread_cond_signal(&s->wake);
        (void) pthread_mutex_unlock(&s->lock);
}

static char *select_sql(const struct store_table_desc *d)
{
        struct strbuf b = { 0 };

        strbuf_str(&b, "SELECT ");
        for (size_t i = 0; i < d->n_cols; i++)
                strbuf_fmt(&b, "%s%s", i ? "," : "", d->col[i].name);
        strbuf_fmt(&b, " FROM %s ORDER BY ", d->name);
        for (size_t i = 0; i < d->n_keys; i++)
                strbuf_fmt(&b, "%s%s", i ? "," : "", d->col[i].name);
        return strbuf_take(&b);
}

static int walk(sqlite3 *db, const struct store_table_desc *d, store_row_fn *fn, void *arg,
                struct err *e)
{
        AUTO(free) char *sql = select_sql(d);
        sqlite3_stmt *st = NULL;
        int rc, r = 0;

        if (!sql)
                return err_set(e, -ENOMEM, "out of memory");
        rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
        while (rc == SQLITE_OK || rc == SQLITE_ROW) {
                rc = sqlite3_step(st);
                if (rc != SQLITE_ROW)
                        break;

                AUTO(json_put) json_t *row = sqlite_row_read(st, d);

                r = row ? fn(arg, row, e)
                        : err_set(e, -EIO, "store: %s: a row cannot be read", d->name);
                if (r < 0)
                        break;
        }
        if (r >= 0 && rc != SQLITE_DONE)
                r = err_set(e, -EIO, "store: %s: %s", d->name, sqlite3_errmsg(db));
        (void) sqlite3_finalize(st);
        return r < 0 ? r : 0;
}

static int sqlite_load(struct store *base, enum store_table table, store_row_fn *fn, void *arg,
                       struct err *e)
{
        struct sqlite_store *s = (struct sqlite_store *) base;
        int r;

        (void) pthread_mutex_lock(&s->busy);
        r = walk(s->db, &store_tables[table], fn, arg, e);
        (void) pthread_mutex_unlock(&s->busy);
        return r;
}

static struct store *sqlite_close(struct store *base)
{
        struct sqlite_store *s = (struct sqlite_store *) base;

        if (s->started) {
                (void) pthread_mutex_lock(&s->lock);
                s->quit = true;
                (void) pthread_cond_signal(&s->wake);
                (void) pthread_mutex_unlock(&s->lock);
                (void) pthread_join(s->thread, NULL);
                answer(s, list_all(&s->done));
        }
        s->source = sd_event_source_disable_unref(s->source);
        s->event_fd = fd_close(s->event_fd);
        sqlite_stmts_done(&s->stmts);
        (void) sqlite3_close(s->db);
        (void) pthread_cond_destroy(&s->wake);
        (void) pthread_mutex_destroy(&s->lock);
        (void) pthread_mutex_destroy(&s->busy);
        free(s->path);
        free(s);
        return NULL;
}

static int migrate(sqlite3 *db, struct err *e)
{
        sqlite3_stmt *st = NULL;
        int version = -1, r = 0;

        if (sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &st, NULL) == SQLITE_OK &&
            sqlite3_step(st) == SQLITE_ROW)
                version = sqlite3_column_int(st, 0);
        (void) sqlite3_finalize(st);
        if (version < 0)
                return err_set(e, -EIO, "store: %s", sqlite3_errmsg(db));
        if ((size_t) version > store_n_migrations)
                return err_set(
                        e, -ENOTSUP,
                        "store: version %d was written by a newer tensorone-api; this one knows up to %zu",
                        version, store_n_migrations);
        for (size_t i = (size_t) version; r >= 0 && i < store_n_migrations; i++) {
                AUTO(free)
                char *sql = str_fmt("BEGIN IMMEDIATE; %s PRAGMA user_version = %zu; COMMIT",
                                    store_migrations[i], i + 1);

                r = sql ? run_sql(db, sql, e) : err_set(e, -ENOMEM, "out of memory");
        }
        return r;
}

static int open_db(struct sqlite_store *s, const char *dir, struct err *e)
{
        AUTO(free) char *path = str_fmt("%s/store.db", dir);
        int rc, r, fd;

        if (!path)
                return err_set(e, -ENOMEM, "out of memory");
        /* made by us first, so that it is never readable by others, not even for an instant, and
         * closed before SQLite locks it: closing any descriptor of a file drops all its locks */
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return err_errno(e, -errno, "open %s", path);
        (void) fd_close(fd);
        rc = sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX, NULL);
        if (rc != SQLITE_OK)
                return err_set(e, -EIO, "open %s: %s", path, sqlite3_errstr(rc));
        r = run_sql(s->db,
                    "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
                    "PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;"
                    "BEGIN IMMEDIATE; COMMIT",
                    e);
        if (r == -EBUSY)
                return err_set(e, r, "%s is in use by another tensorone-api", path);
        if (r >= 0)
                r = migrate(s->db, e);
        if (r < 0)
                return r;
        s->path = TAKE(path);
        tend(s);
        return 0;
}

static int start_writer(struct sqlite_store *s, sd_event *loop, struct err *e)
{
        sigset_t all, old;
        int r;

        s->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (s->event_fd < 0)
                return err_errno(e, -errno, "eventfd");
        r = sd_event_add_io(loop, &s->source, s->event_fd, EPOLLIN, on_done, s);
        if (r < 0)
                return err_errno(e, r, "event source");
        /* signals belong to the loop */
        (void) sigfillset(&all);
        (void) pthread_sigmask(SIG_SETMASK, &all, &old);
        r = -pthread_create(&s->thread, NULL, writer_main, s);
        (void) pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (r < 0)
                return err_errno(e, r, "writer thread");
        s->started = true;
        return 0;
}

static const struct store_ops sqlite_ops = { sqlite_submit, sqlite_load, sqlite_close };

int store_sqlite_open(const char *dir, sd_event *loop, struct store **ret, struct err *e)
{
        struct sqlite_store *s = calloc(1, sizeof *s);
        int r;

        if (!s)
                return err_set(e, -ENOMEM, "out of memory");
        s->base.ops = &sqlite_ops;
        s->event_fd = -EBADF;
        list_init(&s->todo);
        list_init(&s->done);
        (void) pthread_mutex_init(&s->busy, NULL);
        (void) pthread_mutex_init(&s->lock, NULL);
        (void) pthread_cond_init(&s->wake, NULL);
        r = open_db(s, dir, e);
        if (r >= 0)
                r = start_writer(s, loop, e);
        if (r < 0) {
                (void) sqlite_close(&s->base);
                return r;
        }
        *ret = &s->base;
        return 0;
}
