/* scrub.h - reading what the image store has on its disk, slowly, and quarantining what has changed.
 * Operation processes; blocks.  See docs/image-store.md, section 9. */
#pragma once
#include "engine/image/image.h"

struct image_scrub {
        uint64_t bytes;       /* stop after the file with which so many have been read */
        uint64_t rate;        /* read no more than so many in a second; 0: as it comes */
        image_damaged_fn *fn; /* may be NULL */
        void *arg;
        uint64_t read;  /* out: read by this call, small files rounded up */
        uint64_t total; /* out: about what a whole round reads */
};

/* Set x->bytes and x->rate: what is due in a minute of a store of @total bytes, when a round takes
 * @period_us > 0, and at twice the pace that it needs, at least 32 MiB/s. */
void image_scrub_due(struct image_scrub *x, uint64_t total, uint64_t period_us);

/* Go on where the last call ended, be that in another process; the round's last file ends a call.
 * 1: the round is complete; 0: it goes on.  Damage is no error. */
int image_scrub(struct image_store *s, struct image_scrub *x, struct err *e);
