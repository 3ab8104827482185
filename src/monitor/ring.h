/* ring.h - a cluster's log: two files that take turns (model/attach.h has the format).
 *
 * vmm-monitor only, one thread.  Calls may block on the file system as any write does, never on a
 * reader.  A write error loses lines and never stops anything: what was lost is counted and noted
 * in the log once it can be written again.  The struct is open because it lives inside the
 * monitor's one arena; nobody but ring.c looks into it. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "model/attach.h"

struct ring_file {
        int fd;        /* borrowed */
        bool valid;    /* has a header that says where it begins */
        uint64_t base; /* absolute offset of the first byte behind the header */
        uint64_t size; /* bytes behind the header, always whole lines */
        uint32_t head; /* bytes of the header */
};

struct ring_stream {
        bool open;  /* the last line written was a P */
        size_t len; /* bytes of text that wait for their newline */
        char text[ATTACH_LOG_TEXT];
};

struct ring {
        struct ring_file file[2];
        unsigned active;
        uint64_t half_bytes;
        uint64_t lost;   /* bytes of lines that could not be written */
        int lost_err;    /* why, an errno */
        int64_t stamp_s; /* second that `stamp` shows */
        char stamp[20];  /* "2026-11-22T14:54:47." */
        struct ring_stream stream[2];
        size_t batch_len;
        char batch[2 * ATTACH_LOG_LINE];
};

/* @r is zeroed.  Read both headers, cut a torn last line off, and go on behind what is there; both
 * files empty or foreign: the log begins at offset 0.  @half_bytes is the largest size of one
 * file, at least that of `batch` and a header. */
int ring_open(struct ring *r, int fd0, int fd1, uint64_t half_bytes, struct err *e);

/* Split @data of @stream (ATTACH_STDOUT or ATTACH_STDERR) into lines and write the finished ones;
 * @now_ns is CLOCK_REALTIME. */
void ring_add(struct ring *r, enum attach_channel stream, const void *data, size_t len,
              uint64_t now_ns);

/* Text without its newline yet?  ring_push() writes it as P lines, for those who watch. */
bool ring_waiting(const struct ring *r);
void ring_push(struct ring *r, uint64_t now_ns);

/* The end of a stream: what waits is written as its last, whole line. */
void ring_close(struct ring *r, enum attach_channel stream, uint64_t now_ns);

uint64_t ring_start(const struct ring *r); /* oldest kept absolute offset */
uint64_t ring_end(const struct ring *r);   /* behind the last line */

/* Move *@pos to the start of a line that is kept: older goes to the oldest, the middle of a line
 * to the next one, beyond the end to the end. */
void ring_seek(const struct ring *r, uint64_t *pos);

/* Whole lines from *@pos, which is moved to the first byte handed out (later than asked for when
 * the ring has overtaken it); the caller goes on at *@pos + the result.  @cap is at least
 * ATTACH_LOG_LINE.  0: nothing more now. */
size_t ring_read(const struct ring *r, uint64_t *pos, void *buf, size_t cap);
