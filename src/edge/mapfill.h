/* mapfill.h - a new version of one of HAProxy's maps, as commands for its runtime socket: in pieces of which each has
 * room in a buffer of HAProxy's, and the one that puts all of it in force at once.  Pure. */
#pragma once
#include <stddef.h>

struct strbuf;

struct map_fill {
        const char *map;    /* its file's name, as HAProxy knows it */
        unsigned version;   /* what HAProxy has said to "prepare map" */
        struct strbuf *out; /* behind what it has */
        size_t begun;       /* where the piece of now begins in it */
        size_t commands;    /* so far */
};

/* Before each line ("NAME VALUE\n"), which the caller then adds to @out. */
void map_fill_next(struct map_fill *f);
/* How many commands it has become. */
size_t map_fill_end(struct map_fill *f);
