/* ready.h - when a cluster is ready: what `readinessPath` means, and what of an HTTP answer counts.  Pure. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define READY_NONE "none" /* no path, also where a template has one */

struct ready_path {
        uint32_t port;    /* one of the declared HTTP ports; 0: no path is asked for */
        const char *path; /* "/health?full=1", into what was parsed */
};

/* "/PATH": of the first HTTP port among @ports ("8888/http,22/tcp"); ":PORT/PATH": of that one.  NULL, "" and READY_NONE:
 * none.  -EINVAL, -E2BIG: with the field, what is wrong and the way out. */
int ready_path_parse(const char *s, const char *ports, struct ready_path *ret, struct err *e);

/* So much of an answer is looked at: "HTTP/1.1 200". */
#define READY_ANSWER_BYTES 12U
/* Whether it says that it is ready: a status of 200 to 399. */
bool ready_answer(const char answer[static READY_ANSWER_BYTES]);
