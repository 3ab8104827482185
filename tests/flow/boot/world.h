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
};

/* @libexec: where vmm-monitor is.  The image "img" of one layer holds a busybox. */
int world_open(struct world *w, const char *libexec, struct err *e);
int world_close(struct world *w, struct err *e);

/* Names of all that this host holds, one a line, sorted; heap.  Empty: nothing. */
char *world_held(struct world *w);
