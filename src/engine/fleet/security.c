/* security.c - what holds a cluster, for its report (docs/node-protocol.md) and so for its owner.
 * Engine process, loop thread.
 *
 * What is said to be enforced is what no cluster is started without: the boot fails else.  What this
 * host cannot do is listed in `missing`, a sentence each.  Whoever holds clusters with something
 * further adds a row. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/str.h"
#include "engine/fleet/unit.h"
#include "engine/policy.h"
#include "engine/sandbox/apparmor.h"

#define HOLES "/sys/devices/system/cpu/vulnerabilities"

typedef json_t *value_fn(const struct unit *u);

static enum security_profile profile_of(const struct unit *u)
{
        enum security_profile p = plan_profile(&u->plan);

        return p == SECURITY_NONE ? SECURITY_STANDARD : p; /* a plan that cannot be read */
}

static json_t *v_profile(const struct unit *u)
{
        return json_string(security_profile_names[profile_of(u)]);
}

static json_t *v_seccomp(const struct unit *u)
{
        (void) u;
        return json_string("enforced");
}

static json_t *v_apparmor(const struct unit *u)
{
        return json_string(*u->apparmor ? u->apparmor : "unavailable");
}

static json_t *v_no_new_privs(const struct unit *u)
{
        return json_boolean(!policy_of(profile_of(u))->new_privs);
}

static json_t *v_capabilities(const struct unit *u)
{
        uint64_t set = policy_of(profile_of(u))->capabilities;
        json_t *list = json_array();

        for (size_t i = 0; list && i < policy_n_capabilities; i++)
                if (set >> i & 1)
                        (void) json_array_append_new(list, json_string(policy_capability_names[i]));
        return list;
}

static json_t *v_read_only_root(const struct unit *u)
{
        return json_boolean(policy_of(profile_of(u))->root_rdonly);
}

static json_t *v_missing(const struct unit *u)
{
        json_t *list = json_array();

        for (char **s = u->fleet->lacks; list && s && *s; s++)
                (void) json_array_append_new(list, json_string(*s));
        if (list && profile_of(u) == SECURITY_STRICT &&
            !*u->apparmor) /* a path, which no filter sees */
                (void) json_array_append_new(
                        list,
                        json_string(
                                "debuggers: without AppArmor a process reads the memory and the environment of the same user's others in /proc"));
        return list;
}

static const struct {
        const char *key;
        value_fn *value;
} rows[] = {
        { "profile", v_profile },           { "seccomp", v_seccomp },
        { "apparmor", v_apparmor },         { "no_new_privs", v_no_new_privs },
        { "capabilities", v_capabilities }, { "read_only_root", v_read_only_root },
        { "network", unit_net_report },     { "limits", unit_limits },
        { "missing", v_missing },
};

json_t *unit_security(const struct unit *u)
{
        AUTO(json_put) json_t *out = json_object();

        for (size_t i = 0; out && i < NELEM(rows); i++)
                if (json_object_set_new(out, rows[i].key, rows[i].value(u)) < 0)
                        return NULL;
        return TAKE(out);
}

/* ---- what this host cannot do; asked once, at the engine's start ---- */

static void lacks_ipv6(const struct host *host, struct strbuf *b)
{
        const char *why = net_ipv6_lacks(host->net);

        if (why)
                strbuf_fmt(b, "IPv6: %s", why);
}

static void lacks_apparmor(const struct host *host, struct strbuf *b)
{
        struct err e = { 0 };

        (void) host;
        if (apparmor_probe(&e) < 0)
                strbuf_str(b, e.msg);
}

/* Holes of the CPU that a neighbour can read through, and that nothing closes here. */
static void lacks_mitigation(const struct host *host, struct strbuf *b)
{
        struct dirent **names = NULL;
        int n = scandir(HOLES, &names, NULL, alphasort);

        (void) host;
        for (int i = 0; i < n; i++) {
                AUTO(free)
                char *path = str_fmt("%s/%s", HOLES, names[i]->d_name);
                AUTO(free) char *says = NULL;

                if (path && names[i]->d_name[0] != '.' &&
                    fd_read_file(AT_FDCWD, path, 256, &says, NULL) >= 0 &&
                    str_after(says, "Vulnerable"))
                        strbuf_fmt(b, "%s%s",
                                   b->len ? ", " : "CPU: not mitigated here: ", names[i]->d_name);
                free(names[i]);
        }
        free(names);
}

int security_lacks(const struct host *host, char ***ret)
{
        static void (*const ask[])(const struct host *, struct strbuf *) = { lacks_apparmor,
                                                                             lacks_ipv6,
                                                                             lacks_mitigation };
        AUTO(strv_free) char **list = calloc(1, sizeof *list);

        for (size_t i = 0; list && i < NELEM(ask); i++) {
                AUTO(strbuf_done) struct strbuf b = { 0 };

                ask[i](host, &b);
                if (b.failed || (b.len && strv_push(&list, b.s) < 0))
                        return -ENOMEM;
        }
        if (!list)
                return -ENOMEM;
        *ret = TAKE(list);
        return 0;
}
