/* unit_watch.c - monitors: noticing that one has ended, reading why, and the back-off before the
 * next start.  Engine process, loop thread.
 *
 * Monitors are not children of the engine (they outlive it), so a pidfd tells that one has ended
 * and its status file tells how.  A monitor that ended without a status was killed. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "engine/fleet/unit.h"
#include "model/attach.h"

#define BACKOFF_FIRST_US   (1 * US_PER_S)
#define BACKOFF_MAX_S      300U
#define CPU_WAIT_FIRST_US  (1 * US_PER_S)
#define SECURITY_MINUTE    (60 * US_PER_S)
#define SECURITY_IN_MINUTE 10U
#define STABLE_US          (60 * US_PER_S) /* a run this long forgets earlier failures */

void unit_unwatch(struct unit *u)
{
        u->monitor_src = sd_event_source_disable_unref(u->monitor_src);
        unit_ssh_forget(u);
        u->monitor_pidfd = fd_close(u->monitor_pidfd);
        u->init_pidfd = fd_close(u->init_pidfd);
}

static int on_monitor_exit(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct unit *u = arg;

        (void) s;
        (void) fd;
        (void) revents;
        u->monitor_src = sd_event_source_disable_unref(u->monitor_src);
        if (u->row.state == CS_RUNNING) {
                unit_ended(u);
                unit_settle(u);
        }
        return 0;
}

void unit_read_label(struct unit *u)
{
        *u->apparmor = '\0';
        if (u->init_pidfd >= 0)
                (void) apparmor_label(u->row.init.pid, u->apparmor);
}

int unit_watch(struct unit *u, struct err *e)
{
        int r = sd_event_add_io(u->fleet->spec.loop, &u->monitor_src, u->monitor_pidfd, EPOLLIN,
                                on_monitor_exit, u);

        if (r < 0)
                return err_errno(e, r, "watch the monitor");
        unit_ssh_start(u);
        return 0;
}

static int on_timer(sd_event_source *s, uint64_t usec, void *arg)
{
        struct unit *u = arg;

        (void) s;
        (void) usec;
        u->timer_src = sd_event_source_disable_unref(u->timer_src);
        unit_settle(u);
        return 0;
}

void unit_timer(struct unit *u, uint64_t delay_us)
{
        int r;

        u->timer_src = sd_event_source_disable_unref(u->timer_src);
        r = sd_event_add_time_relative(u->fleet->spec.loop, &u->timer_src, CLOCK_MONOTONIC,
                                       delay_us, 10 * US_PER_MS, on_timer, u);
        if (r < 0)
                log_error("cluster %s: timer: %s", u->row.cluster, strerror(-r));
}

static void empty_file(int dir, const char *path)
{
        AUTO(fd) int fd = fd_open_beneath(dir, path, O_WRONLY, 0);

        if (fd >= 0 && ftruncate(fd, 0) < 0)
                log_warn("%s: %s", path, strerror(errno));
}

/* The status file's one line -> exit code and a sentence.  Without one the monitor was killed. */
void unit_read_exit(struct unit *u, char *ret_reason, size_t size)
{
        AUTO(free) char *text = NULL;
        AUTO(json_put) json_t *j = NULL;
        char path[96];
        size_t len = 0;
        int code, sig;

        (void) snprintf(path, sizeof path, "%s/status", u->row.cluster);
        if (fd_read_file(u->fleet->spec.host->clusters, path, ATTACH_STATUS_MAX, &text, &len) >=
                    0 &&
            len > 0)
                j = jsonx_parse(text, len, NULL);
        empty_file(u->fleet->spec.host->clusters, path); /* it has been told, and is told once */
        if (!j) {
                if (ret_reason)
                        (void) snprintf(ret_reason, size, "its monitor was killed");
                return;
        }
        code = (int) json_integer_value(json_object_get(j, "code"));
        sig = (int) json_integer_value(json_object_get(j, "signal"));
        u->row.exit_code = sig ? 128 + sig : code;
        if (!ret_reason)
                return;
        if (sig)
                (void) snprintf(ret_reason, size, "the main process was killed by signal %d (%s)",
                                sig, sigdescr_np(sig) ? sigdescr_np(sig) : "?");
        else
                (void) snprintf(ret_reason, size, "the main process ended with exit code %d", code);
}

static uint64_t backoff_us(const struct unit *u)
{
        uint64_t max_s = u->plan.restart_max_s ? u->plan.restart_max_s : BACKOFF_MAX_S;
        uint64_t delay = BACKOFF_FIRST_US;

        for (uint32_t i = 1; i < u->row.restarts && delay < max_s * US_PER_S; i++)
                delay *= 2;
        return delay < max_s * US_PER_S ? delay : max_s * US_PER_S;
}

void unit_unwatched(struct unit *u, const struct err *why)
{
        log_error("cluster %s: %s", u->row.cluster, why->msg);
        u->monitor_src = sd_event_source_disable_unref(u->monitor_src);
        u->row.restarts++;
        u->due_us = clock_mono_us() + backoff_us(u);
        unit_event(u, CE_EXIT, "the host could not watch it: %s; restarting in %llu s", why->msg,
                   (unsigned long long) (backoff_us(u) / US_PER_S));
}

void unit_wait_cpus(struct unit *u, const struct err *why)
{
        uint64_t delay = CPU_WAIT_FIRST_US << (u->cpu_waits < 5 ? u->cpu_waits : 5);

        log_info("cluster %s: %s", u->row.cluster, why->msg); /* whose it is, is not the tenant's */
        u->cpu_waits++;
        u->cpus_taken = true;
        u->due_us = clock_mono_us() + delay;
        unit_event(u, CE_RETRY,
                   "its %s are in use by another host on this machine; trying again in %llu s",
                   strstr(why->msg, "gpu") == why->msg ? "GPUs" : "CPUs",
                   (unsigned long long) (delay / US_PER_S));
}

/* A cluster can make such events as fast as it can fork, so it has a few of a sort in a minute; the next one
 * says that more are not told.  Sorts beyond the places there are share the last one. */
static struct security_rate *rate_of(struct unit *u, const char *kind)
{
        size_t i = 0;

        while (i < NELEM(u->told) - 1 && *u->told[i].kind && !str_eq(u->told[i].kind, kind))
                i++;
        (void) snprintf(u->told[i].kind, sizeof u->told[i].kind, "%s", kind);
        return &u->told[i];
}

void unit_say_security(struct unit *u, const char *kind, const char *message)
{
        const struct fleet_spec *s = &u->fleet->spec;
        struct security_rate *r = rate_of(u, kind);
        uint64_t now = clock_mono_us();

        if (!r->n || now > r->since_us + SECURITY_MINUTE) {
                r->since_us = now;
                r->n = 0;
        }
        if (!s->security || r->n > SECURITY_IN_MINUTE)
                return;
        s->security(s->arg, u->row.cluster, u->row.generation, kind,
                    ++r->n > SECURITY_IN_MINUTE
                            ? "more of the same sort within a minute, which are not told"
                            : message);
}

void unit_oom_kills(struct unit *u, uint64_t kills)
{
        uint64_t more = kills - u->row.oom_kills;
        char text[160];

        if (kills > u->row.oom_kills) {
                (void) snprintf(
                        text, sizeof text,
                        "out of memory: the cluster reached its %u MiB, %llu process%s killed",
                        u->plan.memory_mib, (unsigned long long) more,
                        more == 1 ? " was" : "es were");
                unit_say_security(u, "oom", text);
        }
        u->row.oom_kills = kills;
}

static void tell_refused(void *arg, const char *sentence)
{
        unit_say_security(arg, "device", sentence);
}

void unit_refused(struct unit *u, bool adopted)
{
        struct slice_host *h = u->fleet->spec.host->slices;
        struct slice_refusals now;
        struct err e = { 0 };
        char name[32];

        if (slice_version(h) == 1)
                return; /* said in `missing` */
        boot_slice_name(u->row.slot, name);
        if (slice_refusals(h, name, &now, &e) < 0) {
                log_debug("cluster %s: %s", u->row.cluster,
                          e.msg); /* it is ending, or changed now */
                return;
        }
        if (!u->refusals)
                u->refusals = refused_new(adopted ? &now : NULL);
        if (u->refusals)
                refused_look(u->refusals, &now, clock_mono_us(), tell_refused, u);
}

/* An out-of-memory kill explains an exit better than its signal does. */
static bool was_oom(struct unit *u)
{
        struct slice_usage usage;
        char name[32];

        boot_slice_name(u->row.slot, name);
        if (slice_usage(u->fleet->spec.host->slices, name, &usage, NULL) < 0)
                return false;
        unit_oom_kills(u, usage.oom_kills);
        return usage.oom_kills > 0;
}

void unit_ended(struct unit *u)
{
        char why[160];
        uint64_t delay, now = clock_wall_us();
        bool oom = was_oom(u);

        unit_refused(u, false);

        unit_read_exit(u, why, sizeof why);
        if (u->row.exit_code == 128 + SIGSYS && strstr(why, "signal"))
                unit_say_security(u, "signal", why);
        /* an earlier kill of some other process does not explain an orderly end */
        oom = oom && u->row.exit_code == 128 + SIGKILL;
        if (now > u->row.started_us + STABLE_US)
                u->row.restarts = 0;
        u->row.restarts++;
        delay = backoff_us(u);
        u->due_us = clock_mono_us() + delay;
        if (oom)
                unit_event(
                        u, CE_EXIT,
                        "out of memory: the cluster reached its %u MiB and %s; restarting in %llu s",
                        u->plan.memory_mib, why, (unsigned long long) (delay / US_PER_S));
        else
                unit_event(u, CE_EXIT, "%s; restarting in %llu s", why,
                           (unsigned long long) (delay / US_PER_S));
}
