/* result.h - the JSON lines of vmm-fetch (see model/fetchwire.h).  One thread at a time except
 * result_progress(), which may come from the thread that downloads. */
#pragma once
#include <stdint.h>

#include "base/err.h"
#include "model/fetchwire.h"

struct result; /* knows the descriptor, the totals and when it last reported */

int result_new(int fd, uint64_t total_bytes, struct result **ret);
struct result *result_free(struct result *r);
DEFINE_AUTO(struct result *, result_free)

/* Remember and, at most ten times a second, tell. */
void result_progress(struct result *r, uint64_t done_bytes);
void result_unpacked(struct result *r, uint64_t bytes);

int result_image(struct result *r, const struct fetch_image *image);
int result_done(struct result *r, uint64_t unpacked_bytes, uint64_t entries);
int result_error(struct result *r, const struct err *e);
