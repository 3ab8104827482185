/* cluster.c - the cluster state table.  An empty cell is a refusal, so forgetting one is safe. */
#include "model/cluster.h"

#include <assert.h>
#include <errno.h>

#include "base/str.h"

const char *const cluster_state_names[CS_STATE_COUNT] = {
        "none",    "accepted", "pulling", "binding",     "starting",   "running",
        "backoff", "stopping", "exited",  "terminating", "terminated",
};
static const char *const event_names[] = {
        "none", "pull", "bind",      "launch",   "started", "exit",
        "fail", "stop", "terminate", "released", "start",   "retry",
};
static_assert(NELEM(event_names) == CE_EVENT_COUNT, "event names");

/* row: where we are, column: what happened, cell: where we go (empty = refused) */
static const enum cluster_state next_state[CS_STATE_COUNT][CE_EVENT_COUNT] = {
        [CS_ACCEPTED] = { [CE_PULL] = CS_PULLING,
                          [CE_BIND] = CS_BINDING,
                          [CE_FAIL] = CS_STOPPING,
                          [CE_STOP] = CS_STOPPING,
                          [CE_TERMINATE] = CS_TERMINATING,
                          [CE_RETRY] = CS_BACKOFF },
        [CS_PULLING] = { [CE_BIND] = CS_BINDING,
                         [CE_FAIL] = CS_STOPPING,
                         [CE_STOP] = CS_STOPPING,
                         [CE_TERMINATE] = CS_TERMINATING,
                         [CE_RETRY] = CS_BACKOFF },
        [CS_BINDING] = { [CE_LAUNCH] = CS_STARTING,
                         [CE_FAIL] = CS_STOPPING,
                         [CE_STOP] = CS_STOPPING,
                         [CE_TERMINATE] = CS_TERMINATING,
                         [CE_RETRY] = CS_BACKOFF },
        [CS_STARTING] = { [CE_STARTED] = CS_RUNNING,
                          [CE_FAIL] = CS_STOPPING,
                          [CE_STOP] = CS_STOPPING,
                          [CE_TERMINATE] = CS_TERMINATING,
                          [CE_RETRY] = CS_BACKOFF },
        [CS_RUNNING] = { [CE_EXIT] = CS_BACKOFF,
                         [CE_FAIL] = CS_STOPPING,
                         [CE_STOP] = CS_STOPPING,
                         [CE_TERMINATE] = CS_TERMINATING },
        [CS_BACKOFF] = { [CE_START] = CS_ACCEPTED,
                         [CE_FAIL] = CS_STOPPING,
                         [CE_STOP] = CS_STOPPING,
                         [CE_TERMINATE] = CS_TERMINATING },
        [CS_STOPPING] = { [CE_RELEASED] = CS_EXITED, [CE_TERMINATE] = CS_TERMINATING },
        [CS_EXITED] = { [CE_START] = CS_ACCEPTED, [CE_TERMINATE] = CS_TERMINATING },
        [CS_TERMINATING] = { [CE_RELEASED] = CS_TERMINATED },
};

static const struct {
        bool runtime, resources;
} facts[CS_STATE_COUNT] = {
        [CS_NONE] = { false, false },       [CS_ACCEPTED] = { false, true },
        [CS_PULLING] = { false, true },     [CS_BINDING] = { false, true },
        [CS_STARTING] = { false, true },    [CS_RUNNING] = { true, true },
        [CS_BACKOFF] = { false, true }, /* contract 2.4: runtime null briefly */
        [CS_STOPPING] = { false, true },    [CS_EXITED] = { false, false },
        [CS_TERMINATING] = { false, true }, [CS_TERMINATED] = { false, false },
};

int cluster_step(enum cluster_state *s, enum cluster_event ev, struct err *e)
{
        enum cluster_state to = next_state[*s][ev];

        if (to == CS_NONE)
                return err_set(e, -EPROTO, "%s while %s", event_names[ev], cluster_state_names[*s]);
        *s = to;
        return 0;
}

const char *cluster_state_name(enum cluster_state s)
{
        return cluster_state_names[s];
}

enum cluster_state cluster_state_parse(const char *name)
{
        for (int i = 1; i < CS_STATE_COUNT; i++)
                if (str_eq(name, cluster_state_names[i]))
                        return (enum cluster_state) i;
        return CS_NONE;
}

const char *cluster_event_name(enum cluster_event ev)
{
        return event_names[ev];
}

bool cluster_has_runtime(enum cluster_state s)
{
        return facts[s].runtime;
}

bool cluster_holds_resources(enum cluster_state s)
{
        return facts[s].resources;
}
