/* unit_ssh.c - the SSH server that listens in a cluster with startSsh.  Engine process, loop thread.
 *
 * It is an exec session that nobody is attached to: `vmm-ssh serve`, inside, with the cluster's own rights,
 * which keeps dropbear running.  So its end is no matter of the cluster's, and an engine that is
 * restarted asks for it once more: a second one finds the first one's name taken and leaves.
 * Under `strict` nothing may listen on a port below 1024, and there is none. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/fleet/unit.h"
#include "model/sshdir.h"

#define RETRY_FIRST_US US_PER_S
#define RETRY_MOST_US  (60 * US_PER_S)

static void start(struct unit *u);

static int on_due(sd_event_source *s, uint64_t usec, void *arg)
{
        struct unit *u = arg;

        (void) s;
        (void) usec;
        unit_ssh_forget(u);
        start(u);
        return 0;
}

static void start_in(struct unit *u, uint64_t delay_us)
{
        int r;

        unit_ssh_forget(u);
        r = sd_event_add_time_relative(u->fleet->spec.loop, &u->ssh.src, CLOCK_MONOTONIC, delay_us,
                                       10 * US_PER_MS, on_due, u);
        if (r < 0)
                log_error("cluster %s: SSH server: %s", u->row.cluster, strerror(-r));
}

/* Many clusters that start at once, or a process that was stopped inside while it was on its way. */
static void try_again(struct unit *u, const struct err *why)
{
        uint64_t delay = RETRY_FIRST_US << (u->ssh.failures < 6 ? u->ssh.failures : 6);

        u->ssh.failures++;
        log_info("cluster %s: its SSH server: %s", u->row.cluster, why->msg);
        start_in(u, delay < RETRY_MOST_US ? delay : RETRY_MOST_US);
}

/* A session's id is the cluster's, "-" and a number: the cluster itself may be gone. */
static void on_started(void *arg, int r, const char *session, int fd, const struct err *why)
{
        const char *dash = strrchr(session, '-');
        char cluster[LIMIT_CLUSTER_ID_LEN + 1];
        struct unit *u;

        (void) fd_close(fd); /* its monitor serves it, and nobody talks with it */
        if (r >= 0 || !dash)
                return;
        (void) snprintf(cluster, sizeof cluster, "%.*s", (int) (dash - session), session);
        u = unit_find(arg, cluster);
        if (u && u->row.state == CS_RUNNING)
                try_again(u, why);
}

static void start(struct unit *u)
{
        char *argv[] = { (char[]){ SSH_PROGRAM }, (char[]){ "serve" }, NULL };
        const struct fleet_exec x = { .argv = argv, .user = "0", .cwd = "/" };
        struct err e = { 0 };

        if (u->row.state != CS_RUNNING)
                return;
        if (fleet_exec(u->fleet, u->row.cluster, &x, on_started, u->fleet, &e) < 0)
                try_again(u, &e);
}

void unit_ssh_start(struct unit *u)
{
        u->ssh.failures = 0;
        if (u->plan.start_ssh && !u->unreadable && plan_profile(&u->plan) != SECURITY_STRICT)
                start_in(u, 0); /* behind the report that it runs */
}

void unit_ssh_forget(struct unit *u)
{
        u->ssh.src = sd_event_source_disable_unref(u->ssh.src);
}
