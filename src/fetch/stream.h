/* stream.h - bytes that are pulled through stages: HTTP body or file -> hash -> decompress -> hash
 * -> tar.  Each stage owns the one before it.  One reader at a time; may block. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/mem.h"

struct stream;

struct stream_ops {
        /* The next bytes: their number with *@ret on them, valid until the next call; 0 at the
         * end, again and again; a negative errno with *@e. */
        ssize_t (*next)(struct stream *s, const void **ret, struct err *e);
        void (*free)(struct stream *s); /* the stage and all before it */
        /* As next, but at most @len bytes, into @buf; NULL: this stage cannot.  A stream is read by
         * one or the other. */
        ssize_t (*into)(struct stream *s, void *buf, size_t len, struct err *e);
};

struct stream {
        const struct stream_ops *ops; /* first member of every stage */
};

static inline ssize_t stream_next(struct stream *s, const void **ret, struct err *e)
{
        return s->ops->next(s, ret, e);
}

static inline struct stream *stream_free(struct stream *s)
{
        if (s)
                s->ops->free(s);
        return NULL;
}

DEFINE_AUTO(struct stream *, stream_free)

/* Read a descriptor, which is taken over. */
int stream_fd_new(int fd, struct stream **ret, struct err *e);

/* Pass bytes on, count them, hash them.  @up is taken over, in every case, here and below. */
struct tap;
int stream_tap_new(struct stream *up, struct stream **ret, struct tap **ret_tap, struct err *e);
uint64_t tap_bytes(const struct tap *t);
/* "sha256:..." of everything that passed; ends the counting.  @buf has 72 bytes. */
int tap_digest(struct tap *t, char buf[static 72]);
/* Fail with -EFBIG and "@what: more than @max bytes" once more than that has passed. */
void tap_limit(struct tap *t, uint64_t max, const char *what);
/* Call @fn after every block. */
typedef void tap_fn(void *arg, uint64_t bytes);
void tap_watch(struct tap *t, tap_fn *fn, void *arg);

/* Pass @up on without owning it: who made it may go on with it after the chain has been freed. */
int stream_borrow_new(struct stream *up, struct stream **ret, struct err *e);

/* Decompress what begins like gzip or zstd; pass anything else on as it is. */
int stream_decode_new(struct stream *up, struct stream **ret, struct err *e);

/* Let a thread of its own pull @up ahead of the reader, by at most 4 MiB.  From here on @up belongs
 * to that thread; taps in it may be asked only after the end was seen or the stage was freed. */
int stream_ahead_new(struct stream *up, struct stream **ret, struct err *e);

/* Read to the end and throw it away. */
int stream_drain(struct stream *s, struct err *e);
