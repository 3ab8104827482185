/* run.h - fetchers and whatever else an image operation waits for, within its deadline and the room
 * that is left on the disk.  Operation processes; block. */
#pragma once
#include <poll.h>

#include "store_priv.h"

struct run {
        struct image_store *store;
        uint64_t deadline_us; /* monotonic; 0: none */
};

/* Wait until something is readable, for a moment at most.  Fails when time or space has run out. */
int run_listen(const struct run *run, struct pollfd *p, size_t n, struct err *e);

/* Run one fetcher to its end.  @stall_us: how long it may make no progress; 0: it knows itself.
 * @fn, which may be NULL, hears how far it is.  The caller ends @f in every case. */
int run_alone(const struct run *run, const struct fetcher_spec *spec, uint64_t stall_us,
              void (*fn)(void *arg, uint64_t done_bytes), void *arg, struct fetcher *f,
              struct err *e);
