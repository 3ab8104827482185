/* netctl.c - drives engine/net for test_net.py: one host, commands on stdin, one answer line each.
 * Answers are "ok ..." or "err <errno> <message>"; netns descriptors stay open here under
 * /proc/<pid>/fd until "drop" or the end.  Must run as root in namespaces made for the test. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/claim/claim.h"
#include "each.h"
#include "engine/net/net_priv.h"
#include "model/limits.h"

struct ctl {
        struct instance inst;
        struct claim_host *claims;
        struct net_host *net;
        struct net_ns ns[LIMIT_SLOTS + 1];
        struct net_policy *policy[LIMIT_SLOTS + 1]; /* NULL: not bound */
        int watch;
};

/* What a command may print behind "ok"; on failure the answer comes from @e. */
typedef int command_fn(struct ctl *c, char **arg, size_t n, struct strbuf *out, struct err *e);

static uint32_t slot_arg(const char *s)
{
        uint64_t v = 0;

        return str_u64(s, 0, LIMIT_SLOTS, &v) < 0 ? 0 : (uint32_t) v;
}

static uint32_t number(const char *s)
{
        uint64_t v = 0;

        return str_u64(s, 0, UINT32_MAX, &v) < 0 ? 0 : (uint32_t) v;
}

/* open ID DATA_DIR POOL [DNS [ALLOW [POOL6 [BANDWIDTH CONNECTIONS]]]]; "-": none */
static int cmd_open(struct ctl *c, char **arg, size_t n, struct strbuf *out, struct err *e)
{
        int r;

        (void) snprintf(c->inst.id, sizeof c->inst.id, "%s", arg[0]);
        c->inst.data_dir = strdup(arg[1]);
        c->inst.conf.network_pool = strdup(arg[2]);
        c->inst.conf.dns = strdup(n > 3 && strcmp(arg[3], "-") != 0 ? arg[3] : "");
        c->inst.conf.network_allow = strdup(n > 4 && strcmp(arg[4], "-") != 0 ? arg[4] : "");
        c->inst.conf.network_pool6 = strdup(n > 5 && strcmp(arg[5], "-") != 0 ? arg[5] : "");
        (void) str_u64(n > 6 ? arg[6] : "0", 0, INT64_MAX, &c->inst.conf.network_bandwidth);
        c->inst.conf.network_connections = number(n > 7 ? arg[7] : "0");
        c->inst.conf.cpu_overcommit = 1;
        r = claim_open(&c->inst, &c->claims, e);
        if (r >= 0)
                r = net_host_open(&c->inst, c->claims, &c->net, e);
        (void) out;
        return r;
}

static int cmd_close(struct ctl *c, char **arg, size_t n, struct strbuf *out, struct err *e)
{
        (void) arg, (void) n, (void) out, (void) e;
        c->net = net_host_close(c->net);
        c->claims = claim_close(c->claims);
        free(TAKE(c->inst.data_dir));
        free(TAKE(c->inst.conf.network_pool));
        free(TAKE(c->inst.conf.dns));
        free(TAKE(c->inst.conf.network_allow));
        free(TAKE(c->inst.conf.network_pool6));
        return 0;
}

static int cmd_remove(struct ctl *c, char **arg, size_t n, struct strbuf *out, struct err *e)
{
        (void) arg, (void) n, (void) out;
        return net_host_remove(c->net, e);
}

/* prepare SLOT -> netns fd, sysfs fd */
static int cmd_prepare(struct ctl *c, char **arg, size_t n, struct strbuf *out, struct err *e)
{
        uint32_t slot = slot_arg(arg[0]);
        int r = net_prepare(c->net, slot, &c->ns[slot], e);

        (void) n;
        if (r >= 0)
                strbuf_fmt(out, " %d %d", c->ns[slot].netns, c->ns[slot].sysfs);
        return r;
}

/* What the engine knows of its clusters. */
static bool policy_of(void *arg, uint32_t slot, struct net_policy *ret)
{
        const struct ctl *c = arg;

        if (!c->policy[slot])
                return false;
        *ret = *c->policy[slot];
        return true;
}

/* "-": no limit; "none"; or networks with commas */
static int egress_arg(char *s, struct egress *ret, struct err *e)
{
        char *list[LIMIT_EGRESS + 2] = { NULL }, *save = NULL;
        size_t n = 0;

        for (char *w = strcmp(s, "-") == 0 ? NULL : strtok_r(s, ",", &save);
             w && n + 1 < NELEM(list); w = strtok_r(NULL, ",", &save))
                list[n++] = w;
        return egress_parse("egressAllow", list, ret, e);
}

/* "22:20000,80:20001" */
static int ports_arg(char *s, struct published *ret, struct err *e)
{
        for (char *comma; (comma = strchr(s, ','));)
                *comma = ' ';
        return published_parse(s, ret, e);
}

/* bind SLOT [ACCOUNT [EGRESS [PORTS]]] -> address, service address, slot, IPv6 address and service address or
 * "-", resolv.conf with "|" for newlines */
static int cmd_bind(struct ctl *c, char **arg, size_t n, struct strbuf *out, struct err *e)
{
        struct net_policy p = { .account = n > 1 ? number(arg[1]) : 0 };
        uint32_t slot = slot_arg(arg[0]);
        struct net_lease l;
        int r = n > 2 ? egress_arg(arg[2], &p.egress, e) : 0;

        if (r >= 0 && n > 3)
                r = ports_arg(arg[3], &p.ports, e);
        if (r >= 0)
                r = net_bind(c->net, slot, &p, &l, e);
        if (r < 0)
                return r;
        free(c->policy[slot]);
        c->policy[slot] = malloc(sizeof p);
        if (c->policy[slot])
                *c->policy[slot] = p;
        for (char *q = l.resolv_conf; *q; q++)
                *q = *q == '\n' ? '|' : *q;
        strbuf_fmt(out, " %s %s %u %s %s %s", l.ipv4_text, l.service_text,
                   ipv4_slot_of(&c->net->pool, l.ipv4), *l.ipv6_text ? l.ipv6_text : "-",
                   *l.service6_text ? l.service6_text : "-", l.resolv_conf);
        net_lease_done(&l);
        return 0;
}

/* release SLOT later|now */
static int cmd_release(struct ctl *c, char **arg, size_t n, struct strbuf *out, struct err *e)
{
        uint32_t slot = slot_arg(arg[0]);
        AUTO(free) struct net_policy *p = TAKE(c->policy[slot]);

        (void) n, (void) out;
        return net_release(c->net, slot, p ? &p->ports : NULL, strcmp(arg[1], "later") == 0, e);
}

/* published SLOT -> bytes answered over published ports, or - */
static int cmd_published(struct ctl *c, char **arg, size_t n, struct strbuf *out, struct err *e)
{
        uint64_t bytes = 0;
        int r = net_public_bytes(c->net, slot_arg(arg[0]), &bytes, e);

        (void) n;
        if (r > 0)
                strbuf_fmt(out, " %llu", (unsigned long long) bytes);
        else if (r == 0)
                strbuf_str(out, " -");
        return r;
}

static int cmd_drop(struct ctl *c, char **arg, size_t n, struct strbuf *out, struct err *e)
{
        (void) n, (void) out, (void) e;
        net_ns_done(&c->ns[slot_arg(arg[0])]);
        return 0;
}

/* cycle N: prepare, bind, release and drop slots 1..N, each operation in a forked child */
static int cmd_cycle(struct ctl *c, char **arg, size_t n, struct strbuf *out, struct err *e)
{
        uint32_t count = slot_arg(arg[0]);

        (void) n, (void) out;
        for (uint32_t slot = 1; slot <= count; slot++) {
                pid_t pid = fork();
                int status;

                if (pid == 0) {
                        struct net_ns ns;
                        struct net_lease l;
                        int r = net_prepare(c->net, slot, &ns, e);

                        if (r >= 0)
                                r = net_bind(c->net, slot, &(struct net_policy){ .account = slot },
                                             &l, e);
                        if (r >= 0)
                                r = net_release(c->net, slot, NULL, slot % 16 != 0, e);
                        if (r < 0)
                                fprintf(stderr, "slot %u: %s\n", slot, e->msg);
                        _exit(r < 0);
                }
                if (pid < 0 || waitpid(pid, &status, 0) < 0 || status != 0)
                        return err_set(e, -EIO, "cycle %u", slot);
        }
        return 0;
}

static bool keep_only(void *arg, uint32_t slot)
{
        return slot == *(const uint32_t *) arg;
}

/* reap [SLOT to keep, all others of this instance go] */
static int cmd_reap(struct ctl *c, char **arg, size_t n, struct strbuf *out, struct err *e)
{
        uint32_t keep = n > 0 ? slot_arg(arg[0]) : 0;

        (void) out;
        return net_reap(c->net, n > 0 ? keep_only : NULL, &keep, e);
}

static int on_each(void *arg, const char *kind, const char *name, uint32_t slot)
{
        strbuf_fmt(arg, " %s:%s:%u", strcmp(kind, "dead link") == 0 ? "dead" : kind, name, slot);
        return 0;
}

static int cmd_each(struct ctl *c, char **arg, size_t n, struct strbuf *out, struct err *e)
{
        int r = net_each(c->net, on_each, out);

        (void) arg, (void) n;
        return r < 0 ? err_errno(e, r, "net_each") : 0;
}

/* listen: serve connections on the service address from a child, with the caller's slot */
static int cmd_listen(struct ctl *c, char **arg, size_t n, struct strbuf *out, struct err *e)
{
        int fd = net_service_listen(c->net, e);
        pid_t pid;

        (void) arg, (void) n;
        if (fd < 0)
                return fd;
        pid = fork();
        if (pid == 0) {
                (void) fd_set_nonblock(fd, false);
                for (;;) {
                        struct sockaddr_in a;
                        socklen_t len = sizeof a;
                        int s = accept(fd, (struct sockaddr *) &a, &len);

                        if (s < 0)
                                _exit(1);
                        (void) dprintf(s, "slot %u\n",
                                       ipv4_slot_of(&c->net->pool, ntohl(a.sin_addr.s_addr)));
                        close(s);
                }
        }
        close(fd);
        strbuf_fmt(out, " %d", (int) pid);
        return pid < 0 ? err_errno(e, -errno, "fork") : 0;
}

/* watch: begin, and each time after: has our table been removed? */
static int cmd_watch(struct ctl *c, char **arg, size_t n, struct strbuf *out, struct err *e)
{
        int r = 0;

        (void) arg, (void) n;
        if (c->watch < 0)
                r = c->watch = net_watch_open(c->net, e);
        if (r >= 0)
                r = net_watch_read(c->net, c->watch);
        strbuf_fmt(out, " %d", r);
        return r;
}

static int cmd_repair(struct ctl *c, char **arg, size_t n, struct strbuf *out, struct err *e)
{
        (void) arg, (void) n, (void) out;
        return net_host_repair(c->net, policy_of, c, e);
}

/* change SLOT EGRESS */
static int cmd_change(struct ctl *c, char **arg, size_t n, struct strbuf *out, struct err *e)
{
        uint32_t slot = slot_arg(arg[0]);
        struct net_policy p = *c->policy[slot];
        int r = egress_arg(arg[1], &p.egress, e);

        (void) n, (void) out;
        if (r >= 0)
                r = net_change(c->net, slot, &p, e);
        if (r >= 0)
                *c->policy[slot] = p;
        return r;
}

/* settle: as an engine does once it knows its clusters -> what another version's table is */
static int cmd_settle(struct ctl *c, char **arg, size_t n, struct strbuf *out, struct err *e)
{
        (void) arg, (void) n;
        strbuf_str(out, c->net->outdated ? " outdated" : " current");
        return net_host_settle(c->net, policy_of, c, e);
}

static const struct {
        const char *name;
        size_t min;
        command_fn *fn;
} commands[] = {
        { "open", 3, cmd_open },     { "close", 0, cmd_close },
        { "remove", 0, cmd_remove }, { "prepare", 1, cmd_prepare },
        { "bind", 1, cmd_bind },     { "release", 2, cmd_release },
        { "drop", 1, cmd_drop },     { "cycle", 1, cmd_cycle },
        { "reap", 0, cmd_reap },     { "each", 0, cmd_each },
        { "listen", 0, cmd_listen }, { "watch", 0, cmd_watch },
        { "repair", 0, cmd_repair }, { "settle", 0, cmd_settle },
        { "change", 2, cmd_change }, { "published", 1, cmd_published },
};

static void run_line(struct ctl *c, char *line)
{
        struct strbuf out = { 0 };
        struct err e = { 0 };
        char *arg[12] = { NULL }, *save = NULL;
        size_t n = 0;
        int r = -ENOSYS;

        for (char *w = strtok_r(line, " \n", &save); w && n < NELEM(arg);
             w = strtok_r(NULL, " \n", &save))
                arg[n++] = w;
        if (n == 0)
                return;
        for (size_t i = 0; i < NELEM(commands); i++)
                if (strcmp(commands[i].name, arg[0]) == 0 && n > commands[i].min)
                        r = commands[i].fn(c, arg + 1, n - 1, &out, &e);
        if (r < 0)
                printf("err %d %s\n", -r, e.msg);
        else
                printf("ok%s\n", out.s ? out.s : "");
        fflush(stdout);
        strbuf_done(&out);
}

int main(void)
{
        struct ctl *c = calloc(1, sizeof *c);
        char line[8192];

        if (!c)
                return 1;
        c->watch = -EBADF;
        log_init("netctl", LOG_LVL_WARN);
        for (size_t i = 0; i < NELEM(c->ns); i++)
                c->ns[i] = (struct net_ns){ -EBADF, -EBADF };
        while (fgets(line, sizeof line, stdin))
                run_line(c, line);
        free(c);
        return 0;
}
