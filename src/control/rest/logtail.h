/* logtail.h - a cluster's log as it grows, read as fast as its reader takes it (docs/http-api.md).
 * tensorone-api, loop thread; nothing here blocks. */
#pragma once
#include "control/plane/plane.h"
#include "control/rest/logfile.h"

struct log_tail;

struct log_tail_conf {
        struct plane *plane;
        const struct caller *who; /* borrowed as long as it lives */
        const char *id;           /* of the cluster */
        bool follow;
        struct log_filter filter;
        bool has_tail;
        uint64_t tail; /* only so many of the lines that are there */
        /* Once, later: 0: it can be read; or why it cannot be. */
        void (*opened)(void *arg, int r, const char *why);
        void (*more)(void *arg); /* there may be something to read */
        void *arg;
};

/* -ENOENT: there is none that @who may see; or the engine cannot be asked. */
int log_tail_new(const struct log_tail_conf *conf, struct log_tail **ret, struct err *e);
struct log_tail *log_tail_free(struct log_tail *t);

/* Bytes that were put into @buf, 0: none now, < 0: the end. */
ssize_t log_tail_read(struct log_tail *t, char *buf, size_t max);
/* Behind the end: why the engine gives no more of it; NULL: that was all. */
const char *log_tail_error(const struct log_tail *t);
