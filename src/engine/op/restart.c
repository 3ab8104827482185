/* restart.c - see restart.h. */
#include "engine/op/restart.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/log.h"

static int on_time(sd_event_source *s, uint64_t usec, void *arg)
{
        struct restart *r = arg;

        (void) s;
        (void) usec;
        r->timer = sd_event_source_disable_unref(r->timer);
        r->start(r->arg);
        return 0;
}

void restart_done(struct restart *r)
{
        r->timer = sd_event_source_disable_unref(r->timer);
}

void restart_begun(struct restart *r)
{
        r->begun_us = clock_mono_us();
}

int restart_in(struct restart *r, uint64_t us)
{
        r->timer = sd_event_source_disable_unref(r->timer);
        return sd_event_add_time_relative(r->loop, &r->timer, CLOCK_MONOTONIC, us, US_PER_MS,
                                          on_time, r);
}

void restart_later(struct restart *r)
{
        bool steady = clock_mono_us() - r->begun_us >= r->steady_us;
        int res;

        r->pause_us = !r->pause_us || steady ? r->first_us : 2 * r->pause_us;
        if (r->pause_us > r->most_us)
                r->pause_us = r->most_us;
        res = restart_in(r, r->pause_us);
        if (res < 0)
                log_error("%s: timer: %s", r->program, strerror(-res));
}

bool restart_ended(int pidfd, char *why, size_t size)
{
        siginfo_t si = { 0 };
        int r = waitid(P_PIDFD, (id_t) pidfd, &si, WEXITED | WNOHANG);

        if (r == 0 && si.si_pid == 0)
                return false; /* woken for nothing */
        if (r < 0) {
                (void) snprintf(why, size, "has ended"); /* the child of an engine before us */
                return true;
        }
        (void) snprintf(why, size, "%s %d",
                        si.si_code == CLD_EXITED ? "ended with status" : "was killed by signal",
                        si.si_status);
        return true;
}
