/* unit_net.c - what the firewall is told of a cluster: its account's number, and where it may go.
 * Engine process, loop thread; fleet_net_policy() also in operations that were forked for it.
 *
 * A number belongs to the clusters of one account that hold a slot, and to nobody once the last of
 * them has given its slot back: by then an undo has taken all that the firewall knew of them.  Rows
 * carry it, so an engine that starts again finds the same. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/str.h"
#include "engine/fleet/unit.h"
#include "model/limits.h"

void unit_net_begin(struct unit *u)
{
        bool used[LIMIT_SLOTS + 2] = { true };
        uint32_t n = 1;

        for (const struct unit *x = u->fleet->units; x; x = x->next) {
                if (x == u || x->row.slot == 0 || x->row.net_account == 0)
                        continue;
                if (u->plan.account && str_eq(x->plan.account, u->plan.account)) {
                        u->row.net_account = x->row.net_account;
                        return;
                }
                if (x->row.net_account < NELEM(used))
                        used[x->row.net_account] = true;
        }
        while (n < NELEM(used) && used[n])
                n++;
        assert(n < NELEM(used)); /* there are as many as slots, and this one has none yet */
        u->row.net_account = n;
}

void unit_net_end(struct unit *u)
{
        u->row.net_account = 0;
        u->address[0] = u->address6[0] = '\0';
}

void unit_net_adopt(struct unit *u)
{
        struct net_host *net = u->fleet->spec.host->net;
        struct net_lease lease = { 0 };
        struct err e = { 0 };
        int r;

        if (net_lease_of(net, u->row.slot, &lease) < 0)
                return;
        (void) snprintf(u->address, sizeof u->address, "%s", lease.ipv4_text);
        r = *lease.ipv6_text ? net_has_ipv6(net, u->row.slot, &e) : 0;
        if (r < 0)
                log_warn("cluster %s: %s", u->row.cluster, e.msg);
        (void) snprintf(u->address6, sizeof u->address6, "%s", r > 0 ? lease.ipv6_text : "");
        net_lease_done(&lease);
}

/* One that failed for good is wanted still, and does not start by itself. */
static bool starts_again(const struct unit *u)
{
        return u->row.want_running && !u->row.want_gone &&
               (u->start_again || u->row.want_generation > u->row.generation);
}

/* What is told of it to whoever knows one of its names. */
static enum edge_page page_of(const struct unit *u)
{
        switch (u->row.state) {
        case CS_PULLING:
                return EDGE_PAGE_PULLING;
        case CS_ACCEPTED:
        case CS_BINDING:
        case CS_STARTING:
        case CS_RUNNING:
                return EDGE_PAGE_STARTING;
        case CS_BACKOFF:
                return u->row.restarts ? EDGE_PAGE_RESTARTING : EDGE_PAGE_STARTING;
        case CS_STOPPING:
                return starts_again(u) ? EDGE_PAGE_STARTING : EDGE_PAGE_STOPPING;
        case CS_EXITED:
                return starts_again(u) ? EDGE_PAGE_STARTING : EDGE_PAGE_STOPPED;
        case CS_TERMINATING:
        case CS_TERMINATED:
        case CS_NONE:
        case CS_STATE_COUNT:
                break;
        }
        return EDGE_PAGE_NONE;
}

#define TOLD_STEP 5U

/* Not each step of a fast pull, for HAProxy has one more command to obey for each name; but never far behind, since after
 * one that stands still there is no next one. */
static uint32_t told_percent(struct unit *u)
{
        const uint64_t now = clock_mono_us();

        if (u->progress_pct < u->page_pct || u->progress_pct >= u->page_pct + TOLD_STEP ||
            now >= u->page_told_us + US_PER_S) {
                u->page_pct = u->progress_pct;
                u->page_told_us = now;
        }
        return u->page_pct;
}

/* To itself while its first process runs, and from before anything of it is undone not any more. */
void unit_route(struct unit *u)
{
        const struct fleet_spec *s = &u->fleet->spec;
        const bool on = u->row.state == CS_RUNNING && *u->address;
        const struct edge_to to = { .ports = u->plan.ports,
                                    .address = on ? u->address : NULL,
                                    .page = page_of(u),
                                    .percent = told_percent(u),
                                    .account = u->plan.account,
                                    .key = u->plan.edge_key,
                                    .allowed_ips = u->plan.allowed_ips };

        if (s->routed)
                s->routed(s->names, u->row.cluster, &to);
}

bool unit_is_unrouted(const struct unit *u)
{
        const struct fleet_spec *s = &u->fleet->spec;

        return !s->unrouted || s->unrouted(s->names, u->row.cluster);
}

void fleet_unrouted(struct fleet *f, const char *cluster)
{
        for (struct unit *u = f->units; u; u = u->next)
                if (!cluster || str_eq(u->row.cluster, cluster))
                        unit_settle(u);
}

static bool may(const struct unit *u, struct net_policy *ret)
{
        ret->account = u->row.net_account;
        unit_ports(u, &ret->ports);
        return egress_parse("egressAllow", u->plan.egress, &ret->egress, NULL) >= 0;
}

bool fleet_net_policy(void *fleet, uint32_t slot, struct net_policy *ret)
{
        const struct fleet *f = fleet;

        for (const struct unit *u = f->units; u; u = u->next)
                if (u->row.slot == slot)
                        /* one that is being undone may be closed already, and stays so */
                        return u->op_kind != UNIT_OP_UNDO && may(u, ret);
        return false;
}

json_t *unit_net_report(const struct unit *u)
{
        struct net_policy p;

        return may(u, &p) ? net_policy_report(u->fleet->spec.host->net, &p, *u->address6 != '\0')
                          : json_null();
}
