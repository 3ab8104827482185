/* unit_ports.c - the host's ports that a cluster's TCP ports are published on.  Engine process, loop thread.
 *
 * They are the cluster's from its first boot of a generation until it holds nothing any more, over every
 * restart in between: claimed for it on this machine, then written into its row, and only then told to the
 * firewall, by the boot; given back in the opposite order.  So of a claim that no row knows the firewall
 * knows nothing, and what a row says without a claim may be another's by now. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/str.h"
#include "engine/fleet/unit.h"
#include "model/plan.h"

void unit_ports(const struct unit *u, struct published *ret)
{
        *ret = (struct published){ .n = 0 };
        (void) published_parse(u->row.ports, ret, NULL); /* we wrote it */
}

static void outers_of(const struct published *p, uint16_t ret[static LIMIT_PORTS])
{
        for (size_t i = 0; i < p->n; i++)
                ret[i] = p->at[i].outer;
}

/* What its plan wants published, with the ports that it has. */
static int wanted(const struct unit *u, struct published *ret, struct err *e)
{
        struct plan_port port[LIMIT_PORTS];
        struct published has;
        int n = plan_ports(u->plan.ports, port, NELEM(port), e);

        if (n < 0)
                return n;
        unit_ports(u, &has);
        ret->n = 0;
        for (int i = 0; i < n; i++)
                if (port[i].type == PORT_TCP)
                        ret->at[ret->n++] = (struct port_pair){
                                (uint16_t) port[i].private_port,
                                published_outer(&has, port[i].private_port),
                        };
        return 0;
}

static int set_row(struct unit *u, const struct published *p)
{
        char *text = p->n ? published_format(p) : NULL;

        if (p->n && !text)
                return -ENOMEM;
        free(u->row.ports);
        u->row.ports = text;
        return 0;
}

static int claim(struct unit *u, struct published *p, struct err *e)
{
        const struct fleet_spec *s = &u->fleet->spec;
        struct port_range range = net_public_ports(s->host->net);
        uint16_t outer[LIMIT_PORTS];
        int r;

        outers_of(p, outer);
        r = claim_ports(s->host->claims, u->row.cluster, u->row.generation, range.first, range.last,
                        net_port_taken, NULL, outer, p->n, e);
        for (size_t i = 0; r >= 0 && i < p->n; i++)
                p->at[i].outer = outer[i];
        if (r == -ENOSPC)
                return err_set(
                        e, r,
                        "ports: the cluster needs %zu public TCP ports, and not so many of this host's %u-%u are free; stop another cluster, declare fewer /tcp ports, or let the operator widen `public_ports` in [network]",
                        p->n, range.first, range.last);
        return r;
}

/* Claims other than those of @p go. */
static void keep(struct unit *u, const struct published *p)
{
        uint16_t outer[LIMIT_PORTS];
        struct err e = { 0 };

        outers_of(p, outer);
        if (claim_ports_keep(u->fleet->spec.host->claims, u->row.cluster, outer, p->n, &e) < 0)
                log_warn("cluster %s: %s", u->row.cluster, e.msg);
}

int unit_ports_begin(struct unit *u, struct err *e)
{
        struct published p = { .n = 0 };
        int r = net_public_ports(u->fleet->spec.host->net).first ? wanted(u, &p, e) : 0;

        if (r >= 0 && p.n > 0)
                r = claim(u, &p, e);
        if (r < 0)
                return r;
        if (u->row.ports)
                keep(u, &p);
        return set_row(u, &p) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

void unit_ports_end(struct unit *u)
{
        if (!u->row.ports)
                return;
        keep(u, &(struct published){ .n = 0 });
        free(TAKE(u->row.ports));
}

char *unit_public_ip(const struct unit *u, char buf[static 48])
{
        buf[0] = '\0';
        if (u->row.ports)
                net_public_ip(u->fleet->spec.host->net, buf);
        return buf;
}

/* ---- at start ---- */

struct sweep {
        struct fleet *f;
        struct strbuf names; /* "<cluster>\n" for each claim that no row knows */
};

static int on_claim(void *arg, const char *kind, uint32_t number, const char *cluster,
                    uint64_t generation)
{
        struct sweep *s = arg;
        struct unit *u = unit_find(s->f, cluster);
        struct published p = { .n = 0 };

        (void) generation;
        if (!str_eq(kind, "port"))
                return 0;
        if (u)
                unit_ports(u, &p);
        for (size_t i = 0; i < p.n; i++)
                if (p.at[i].outer == number) {
                        u->ports_claimed++;
                        return 0;
                }
        strbuf_fmt(&s->names, "%s\n", cluster);
        return 0;
}

/* Its row names ports that nobody has claimed for it: whoever killed us between the claims and the row gave
 * them back.  Of one that runs they were taken away by hand; what is free still is taken again. */
static void mend(struct unit *u, bool runs)
{
        struct published was, now, both = { .n = 0 };
        struct err e = { 0 };

        unit_ports(u, &was);
        now = was;
        if (runs && claim(u, &now, &e) < 0)
                log_warn("cluster %s: %s", u->row.cluster, e.msg);
        for (size_t i = 0; runs && i < was.n; i++)
                if (now.at[i].outer == was.at[i].outer)
                        both.at[both.n++] = was.at[i];
        if (runs && both.n < was.n)
                log_warn("cluster %s: %zu of its public ports are somebody else's now; restart it",
                         u->row.cluster, was.n - both.n);
        keep(u, &both);
        (void) set_row(u, &both);
        (void) unit_save(u, false);
}

void fleet_ports_adopt(struct fleet *f, bool (*runs)(const struct unit *u))
{
        struct sweep s = { .f = f };
        AUTO(free) char *list = NULL;
        char *save = NULL;

        (void) claim_each(f->spec.host->claims, on_claim, &s);
        list = strbuf_take(&s.names);
        for (char *name = list ? strtok_r(list, "\n", &save) : NULL; name;
             name = strtok_r(NULL, "\n", &save)) {
                struct unit *u = unit_find(f, name);
                struct published p;
                struct err e = { 0 };

                if (u) {
                        unit_ports(u, &p);
                        keep(u, &p);
                } else if (claim_ports_keep(f->spec.host->claims, name, NULL, 0, &e) < 0) {
                        log_warn("%s", e.msg);
                }
        }
        for (struct unit *u = f->units; u; u = u->next) {
                struct published p;

                unit_ports(u, &p);
                if (p.n > u->ports_claimed)
                        mend(u, runs(u));
        }
}
