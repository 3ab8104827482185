/* world.h - a whole host of engine modules in a directory of its own, without the engine: what a boot
 * needs, made and taken away again, and an inventory of what is held. */
#pragma once
#include "base/err.h"
#include "engine/boot/boot.h"
#include "engine/host.h"
#include "engine/instance.h"

struct world {
        struct instance inst;
        struct host host;
        char dir[64];
        char meta_sha[65];
};

/* @libexec: where vmm-monitor is.  Image 1 holds a busybox; meta_sha is its metadata's. */
int world_open(struct world *w, const char *libexec, struct err *e);
int world_close(struct world *w, struct err *e);

/* Names of all that this host holds, one a line, sorted; heap.  Empty: nothing. */
char *world_held(struct world *w);
