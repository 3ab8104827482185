/* restart.h - a helper process that has ended is started again, after a pause that grows while it does
 * not live for long.  Engine process, loop thread; nothing here blocks. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

struct restart {
        sd_event *loop;
        const char *program;      /* for messages */
        uint64_t first_us;        /* the first pause; each further one is twice as long, */
        uint64_t most_us;         /* up to this, */
        uint64_t steady_us;       /* until it has lived for so long; 0: however long */
        void (*start)(void *arg); /* calls restart_begun(), or restart_later() when it could not */
        void *arg;
        /* its own */
        sd_event_source *timer;
        uint64_t pause_us, begun_us;
};

void restart_done(struct restart *r);
/* It lives from now on. */
void restart_begun(struct restart *r);
/* Start it in so long, whatever was meant before.  A negative errno of the loop. */
int restart_in(struct restart *r, uint64_t us);
/* It is over: start it after the pause that its life has earned. */
void restart_later(struct restart *r);

/* Whether the child behind @pidfd has ended; then it is reaped, and @why says how: "was killed by signal
 * 9". */
bool restart_ended(int pidfd, char *why, size_t size);
