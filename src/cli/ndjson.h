/* ndjson.h - an answer that comes as JSON objects, one a line: progress, then a result or an
 * error.  Fed with pieces of any size.  Pure but for the progress line. */
#pragma once
#include <jansson.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"
#include "cli/out.h"

struct ndjson {
        struct strbuf line;
        struct progress *progress;
        json_t *result;    /* the last object that was neither progress nor an error */
        struct err failed; /* code 0: no error object came */
};

/* api_chunk_fn for a struct ndjson.  -EPROTO when a line is not an object. */
int ndjson_chunk(void *arg, const char *data, size_t len, struct err *e);

/* After the last piece: 0 and a new reference in *@ret, or what went wrong. */
int ndjson_finish(struct ndjson *n, json_t **ret, struct err *e);
void ndjson_done(struct ndjson *n);

static inline void ndjson_done_cleanup(struct ndjson *n)
{
        ndjson_done(n);
}
