/* sink.h - bytes in a row into a file, gathered into large writes.
 *
 * After a failure the sink swallows everything and counts on, so that one check at the end is
 * enough.  Blocks on the file system.  One thread. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

struct sink;

/* Writing begins at offset 0 of @fd, which is borrowed and must allow pwrite(2). */
int sink_new(int fd, struct sink **ret, struct err *e);
struct sink *sink_free(struct sink *s); /* what was not flushed is lost */
DEFINE_AUTO(struct sink *, sink_free)

void sink_put(struct sink *s, const void *data, size_t len);
void sink_zero(struct sink *s, uint64_t len);
/* Zeros up to a multiple of @align, a power of two. */
void sink_pad(struct sink *s, uint64_t align);
uint64_t sink_at(const struct sink *s);

/* Write what is gathered; 0, or why any write since sink_new() failed. */
int sink_flush(struct sink *s, struct err *e);
