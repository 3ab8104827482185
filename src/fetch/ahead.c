/* ahead.c - a thread that pulls the upstream stages while the reader works: a layer has two, so that
 * download and hashing, decompression, and tar reading and writing overlap.  Runs in vmm-fetch.
 *
 * Theory of operation.  SLOTS blocks take turns.  `head` counts blocks filled, `tail` blocks given
 * back; the one at tail is the reader's until its next call.  Both counters, `end` and `stop` are
 * under the mutex; block contents are not: a block has one owner at a time. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "fetch/stream.h"

#define SLOTS      16U
#define SLOT_BYTES (256U << 10)

struct slot {
        size_t len;
        unsigned char bytes[SLOT_BYTES];
};

struct ahead {
        struct stream base;
        struct stream *up;
        pthread_t thread;
        bool started;
        pthread_mutex_t lock;
        pthread_cond_t filled, drained;
        uint64_t head, tail;
        bool lent;      /* the reader has slot tail */
        bool end, stop; /* upstream is over; the reader is */
        int result;     /* 0 or the errno that ended upstream, valid with end */
        struct err err;
        struct slot slot[SLOTS];
};

/* Wait for a free slot; NULL: the reader has gone. */
static struct slot *slot_claim(struct ahead *a)
{
        struct slot *s;

        (void) pthread_mutex_lock(&a->lock);
        while (a->head - a->tail >= SLOTS && !a->stop)
                (void) pthread_cond_wait(&a->drained, &a->lock);
        s = a->stop ? NULL : &a->slot[a->head % SLOTS];
        (void) pthread_mutex_unlock(&a->lock);
        return s;
}

static void slot_publish(struct ahead *a)
{
        (void) pthread_mutex_lock(&a->lock);
        a->head++;
        (void) pthread_cond_signal(&a->filled);
        (void) pthread_mutex_unlock(&a->lock);
}

/* Upstream writes into our blocks by itself. */
static ssize_t pull_into(struct ahead *a)
{
        struct slot *s;

        while ((s = slot_claim(a)) != NULL) {
                ssize_t n = a->up->ops->into(a->up, s->bytes, SLOT_BYTES, &a->err);

                if (n <= 0)
                        return n;
                s->len = (size_t) n;
                slot_publish(a);
        }
        return 0;
}

static ssize_t pull_copying(struct ahead *a)
{
        const void *block = NULL;
        struct slot *s;
        ssize_t n;

        while ((n = stream_next(a->up, &block, &a->err)) > 0) {
                const unsigned char *p = block;

                for (size_t left = (size_t) n; left > 0; left -= s->len, p += s->len) {
                        s = slot_claim(a);
                        if (!s)
                                return 0;
                        s->len = left < SLOT_BYTES ? left : SLOT_BYTES;
                        memcpy(s->bytes, p, s->len);
                        slot_publish(a);
                }
        }
        return n;
}

static void *pull(void *arg)
{
        struct ahead *a = arg;
        ssize_t n = a->up->ops->into ? pull_into(a) : pull_copying(a);

        (void) pthread_mutex_lock(&a->lock);
        a->end = true;
        a->result = n < 0 ? (int) n : 0;
        (void) pthread_cond_signal(&a->filled);
        (void) pthread_mutex_unlock(&a->lock);
        return NULL;
}

static ssize_t ahead_next(struct stream *st, const void **ret, struct err *e)
{
        struct ahead *a = (struct ahead *) st;
        ssize_t n = 0;

        (void) pthread_mutex_lock(&a->lock);
        if (a->lent) {
                a->lent = false;
                a->tail++;
                (void) pthread_cond_signal(&a->drained);
        }
        while (a->head == a->tail && !a->end)
                (void) pthread_cond_wait(&a->filled, &a->lock);
        if (a->head != a->tail) {
                struct slot *s = &a->slot[a->tail % SLOTS];

                a->lent = true;
                *ret = s->bytes;
                n = (ssize_t) s->len;
        } else if (a->result < 0) {
                n = err_copy(e, &a->err);
                n = a->result;
        }
        (void) pthread_mutex_unlock(&a->lock);
        return n;
}

static void ahead_free(struct stream *st)
{
        struct ahead *a = (struct ahead *) st;

        if (a->started) {
                (void) pthread_mutex_lock(&a->lock);
                a->stop = true;
                (void) pthread_cond_signal(&a->drained);
                (void) pthread_mutex_unlock(&a->lock);
                (void) pthread_join(a->thread, NULL);
        }
        (void) pthread_cond_destroy(&a->filled);
        (void) pthread_cond_destroy(&a->drained);
        (void) pthread_mutex_destroy(&a->lock);
        (void) stream_free(a->up);
        free(a);
}

int stream_ahead_new(struct stream *up, struct stream **ret, struct err *e)
{
        static const struct stream_ops ops = { .next = ahead_next, .free = ahead_free };
        struct ahead *a = calloc(1, sizeof *a);
        int r;

        if (!a) {
                (void) stream_free(up);
                return err_set(e, -ENOMEM, "out of memory");
        }
        a->base.ops = &ops;
        a->up = up;
        (void) pthread_mutex_init(&a->lock, NULL);
        (void) pthread_cond_init(&a->filled, NULL);
        (void) pthread_cond_init(&a->drained, NULL);
        r = pthread_create(&a->thread, NULL, pull, a);
        if (r != 0) {
                ahead_free(&a->base);
                return err_errno(e, -r, "starting a thread");
        }
        a->started = true;
        *ret = &a->base;
        return 0;
}
