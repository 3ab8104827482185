/* edge_source.h - where the edge's two certificates come from: the operator's files, or the authority of
 * this host.  Engine process, and `doctor`; blocks on the disk. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "edge/cert.h"
#include "engine/instance.h"

enum edge_source_kind { EDGE_SOURCE_TENANT, EDGE_SOURCE_API, EDGE_SOURCE_COUNT };

struct edge_source {
        const char *option; /* that names it */
        const char *given;  /* its value; "": our own */
        const char *file;   /* what HAProxy reads, and the name of our own */
        char *host, *names; /* that it must be good for; the same for people */
        char *origin;       /* one line: where it is from and what it is for */
};

/* @conf stays borrowed.  -ENOMEM. */
int edge_source_init(struct edge_source *s, enum edge_source_kind kind,
                     const struct engine_conf *conf);
void edge_source_done(struct edge_source *s);

/* All that lies there, in one piece; a key is in it. */
struct edge_text {
        char *s; /* NUL-terminated */
        size_t len;
        bool exposed; /* others than its owner and group may read the key */
};

void edge_text_done(struct edge_text *t);
static inline void edge_text_done_cleanup(struct edge_text *t)
{
        edge_text_done(t);
}

/* @own: the directory of our authority; not used for what the operator gives. */
int edge_source_read(const struct edge_source *s, int own, struct edge_text *ret, struct err *e);
/* Whether it will do, at that time, too; *@ret is set also with -EKEYEXPIRED, when only the time is wrong. */
int edge_source_judge(const struct edge_source *s, const struct edge_text *t, uint64_t now_s,
                      struct cert *ret, struct err *e);
/* The authority of this host, with certificates that are good for a while: made where they are not.  Says in the log
 * what it makes, and at a start which authority it is. */
int edge_source_renew(int own, const struct instance *inst, uint64_t now_s, bool start,
                      struct err *e);
