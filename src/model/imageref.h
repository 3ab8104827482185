/* imageref.h - image references as Docker writes them.  Pure.
 *
 *   ubuntu                          -> docker.io / library/ubuntu : latest
 *   tensorone/llm-starter:v1        -> docker.io / tensorone/llm-starter : v1
 *   127.0.0.1:5000/a/b@sha256:...   -> 127.0.0.1:5000 / a/b @ sha256:...
 * The first component is a registry when it holds a '.' or ':' or is "localhost". */
#pragma once
#include "base/err.h"

struct imageref {
        char registry[256];   /* "docker.io", "127.0.0.1:5000" */
        char repository[256]; /* "library/ubuntu" */
        char tag[129];        /* "" when a digest is given without a tag */
        char digest[72];      /* "sha256:<64 hex>" or "" */
};

/* -EINVAL with the offending part quoted. */
int imageref_parse(const char *s, struct imageref *ret, struct err *e);

/* Canonical name: registry/repository[:tag][@digest]; the caller frees; NULL: out of memory. */
char *imageref_format(const struct imageref *r);

/* "sha256:" and 64 lower-case hex digits. */
int digest_ok(const char *s);
