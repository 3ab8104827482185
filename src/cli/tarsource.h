/* tarsource.h - the bytes of a tar archive: a file, a pipe, or a directory packed on the way. */
#pragma once
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/mem.h"

struct tar_source;

/* @path is a directory with an OCI layout or a docker-archive, a tar file, or "-" for standard
 * input.  -EINVAL with what is missing when it is neither. */
int tar_source_open(const char *path, struct tar_source **ret, struct err *e);
struct tar_source *tar_source_free(struct tar_source *s);
DEFINE_AUTO(struct tar_source *, tar_source_free)

/* Up to @len bytes; 0 at the end; a negative errno with *e otherwise.  Blocks on the disk. */
ssize_t tar_source_read(struct tar_source *s, char *buf, size_t len, struct err *e);

/* How many bytes will come, as far as it can be known ahead; 0: unknown. */
uint64_t tar_source_total(const struct tar_source *s);
uint64_t tar_source_done(const struct tar_source *s);
