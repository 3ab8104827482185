/* attach_codec.h - packing and unpacking of attach packets and log lines.
 *
 * Pure functions over buffers of the caller: no allocation, no I/O, nothing blocks.  Both ends use
 * it (vmm-monitor, engine, API, CLI), so what one writes the other reads.  Input is hostile until
 * attach_parser_next() has said otherwise. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/attach.h"

/* "hello", "data"...; "unknown" outside the enum. */
const char *attach_type_name(unsigned type);

/* ---- reading ------------------------------------------------------------------------------- */

struct attach_packet {
        uint8_t type, channel;
        const uint8_t *payload; /* borrowed from the parser's buffer until its next call */
        uint32_t length;        /* bytes at payload */
        uint32_t left;          /* DATA only: bytes of this packet that follow in further pieces */
};

#define ATTACH_PARSER_MIN 576U /* smallest buffer: header and the longest sentence of an ERROR */
#define ATTACH_PARSER_MAX (ATTACH_MAX_PAYLOAD + 8U) /* with this one every packet comes whole */

/* A stream cut anywhere -> packets.  DATA longer than the buffer is delivered in pieces, each a
 * packet of its own with `left` set; any other known type that does not fit is -EMSGSIZE. */
struct attach_parser {
        uint8_t *buf;
        size_t cap, start, end; /* unread bytes are buf[start, end) */
        uint32_t left, skip;    /* of a DATA packet in pieces; of a packet of unknown type */
        uint8_t channel;
        int broken; /* once wrong, always wrong */
};

/* @buf stays the caller's; @cap is at least ATTACH_PARSER_MIN. */
void attach_parser_init(struct attach_parser *p, void *buf, size_t cap);

/* Where to receive to, and how much; *ret_len is 0 only while packets are there to be taken. */
void *attach_parser_space(struct attach_parser *p, size_t *ret_len);
void attach_parser_commit(struct attach_parser *p, size_t len);

/* 1: *ret is a packet whose payload has at least the length that its type needs; 0: receive more;
 * -EPROTO: not our protocol; -EMSGSIZE: longer than ATTACH_MAX_PAYLOAD or than the buffer. */
int attach_parser_next(struct attach_parser *p, struct attach_packet *ret);

/* Payloads.  0, or -EPROTO when @p is of another type, too short or out of range. */
struct attach_hello {
        uint32_t version, flags;
        uint64_t log_start,
                log_end; /* monitor -> client, and with ATTACH_F_RESUME; 0 when absent */
};
int attach_get_hello(const struct attach_packet *p, struct attach_hello *ret);
int attach_get_resize(const struct attach_packet *p, uint16_t *ret_rows, uint16_t *ret_cols);
int attach_get_signal(const struct attach_packet *p, int *ret_signal); /* 1..64 */
int attach_get_credit(const struct attach_packet *p, uint32_t *ret_bytes);
int attach_get_follow(const struct attach_packet *p, uint64_t *ret_offset);
int attach_get_log(const struct attach_packet *p, uint64_t *ret_offset, const char **ret_lines,
                   size_t *ret_len);
int attach_get_exit(const struct attach_packet *p, int *ret_code, int *ret_signal);
/* The sentence, cut to @len - 1 bytes, with control characters turned to blanks. */
int attach_get_error(const struct attach_packet *p, char *buf, size_t len);

/* ---- writing ------------------------------------------------------------------------------- */

/* Each writes one packet to @buf and returns its length, or 0 when @cap is too small or the
 * payload longer than ATTACH_MAX_PAYLOAD (nothing is written then). */
size_t attach_put(void *buf, size_t cap, enum attach_type type, enum attach_channel channel,
                  const void *payload, size_t len);
size_t attach_put_hello(void *buf, size_t cap, const struct attach_hello *h);
size_t attach_put_eof(void *buf, size_t cap, enum attach_channel channel);
size_t attach_put_resize(void *buf, size_t cap, uint16_t rows, uint16_t cols);
size_t attach_put_signal(void *buf, size_t cap, int sig);
size_t attach_put_credit(void *buf, size_t cap, uint32_t bytes);
size_t attach_put_follow(void *buf, size_t cap, uint64_t offset);
size_t attach_put_exit(void *buf, size_t cap, int code, int sig);
size_t attach_put_error(void *buf, size_t cap, const char *sentence); /* cut at 512 bytes */

/* Only the header (and a LOG packet's offset) in front of payload bytes that the caller puts
 * behind it; return the number of bytes written, 8 and 16. */
size_t attach_put_header(void *buf, enum attach_type type, enum attach_channel channel,
                         uint32_t payload_len);
size_t attach_put_log_header(void *buf, uint64_t offset, uint32_t lines_len);

/* ---- the log ------------------------------------------------------------------------------- */

/* The header line of a log file at the start of @text.  Returns its length, newline included, or
 * -EPROTO. */
int attach_log_header_parse(const char *text, size_t len, uint64_t *ret_offset);
int attach_log_header_format(char *buf, size_t cap, uint64_t offset); /* length, or -ENOSPC */

struct attach_log_line {
        const char *stamp; /* stamp_len bytes of RFC 3339 with nanoseconds */
        size_t stamp_len;
        enum attach_channel channel;
        bool whole; /* F */
        const char *text;
        size_t text_len; /* without the newline */
};

/* One line at the start of @data, borrowed.  Returns its length, newline included; 0 when no
 * newline is there yet; -EPROTO when it is not a log line (skip to the next newline). */
int attach_log_line_parse(const char *data, size_t len, struct attach_log_line *ret);
