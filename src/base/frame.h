/* frame.h - messages with descriptors over a unix stream socket.
 *
 * On the wire: 8 bytes { u32 big-endian payload length, u8 version = 1, u8 number of descriptors,
 * u16 zero }, then one compact JSON object.  Descriptors travel by SCM_RIGHTS with the first byte
 * of the header.  The same connection serves event loops (non-blocking) and operations
 * (blocking, with a deadline); it belongs to one thread. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

#define FRAME_MAX_BYTES (8U << 20) /* one message; more is a protocol error */
#define FRAME_MAX_FDS   16U
#define FRAME_MAX_QUEUE (64U << 20) /* unsent bytes; a peer that does not read is dropped */

struct frame_conn;

/* Takes @fd over, in every case.  The descriptor is switched to non-blocking. */
int frame_conn_new(int fd, struct frame_conn **ret);
struct frame_conn *frame_conn_free(struct frame_conn *c);
int frame_conn_fd(const struct frame_conn *c); /* borrowed, for the event loop */
DEFINE_AUTO(struct frame_conn *, frame_conn_free)

/* Queue a message and send what goes out now.  @fds are duplicated: the caller keeps its own.
 * 0 sent or queued; -EPIPE the peer is gone; -ENOBUFS over FRAME_MAX_QUEUE; -E2BIG, -ENOMEM. */
int frame_send(struct frame_conn *c, const json_t *msg, const int *fds, size_t n_fds);

/* More to send (ask the loop for EPOLLOUT, then call frame_flush). */
bool frame_pending(const struct frame_conn *c);
int frame_flush(struct frame_conn *c);

struct frame_msg {
        json_t *json;
        int fds[FRAME_MAX_FDS];
        size_t n_fds;
};

/* 1: *ret holds a message (end it with frame_msg_done); 0: nothing complete yet; -EPIPE: end of
 * stream; -EPROTO with *e: the peer broke the framing.  Never blocks. */
int frame_recv(struct frame_conn *c, struct frame_msg *ret, struct err *e);
void frame_msg_done(struct frame_msg *m);

/* A whole message has been read and not been taken: no event of the descriptor will tell of it, so who
 * stops after some messages goes on while this is true. */
bool frame_ready(const struct frame_conn *c);

static inline void frame_msg_done_cleanup(struct frame_msg *m)
{
        frame_msg_done(m);
}

/* Blocking forms for operations and simple clients; @deadline_us is CLOCK_MONOTONIC, 0 = none.
 * -ETIMEDOUT when it passes. */
int frame_send_wait(struct frame_conn *c, const json_t *msg, const int *fds, size_t n_fds,
                    uint64_t deadline_us);
int frame_flush_wait(struct frame_conn *c, uint64_t deadline_us);
int frame_recv_wait(struct frame_conn *c, struct frame_msg *ret, uint64_t deadline_us,
                    struct err *e);
